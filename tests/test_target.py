"""Pictures of the place of use: what travels is chosen without labels, and only where it is of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.table import read_table
from headstart.errors import DataError, OptionError
from headstart.files.bundle import read_bundle
from headstart.heads.aligned import aligned
from headstart.heads.closed import ShrunkLDA
from headstart.heads.probe import Probe
from headstart.heads.taps import LAST, Part, late, tap_sets
from headstart.ship.package import unpack
from headstart.ship.predict import predict
from headstart.story import grow, publish
from headstart.story.opening import Options
from headstart.story.pipeline import fit
from headstart.trunk.engine import compile_trunk

TINY = "mobilenetv3_small_050"
RNG = np.random.default_rng(0)


def cloud(n: int, shares: list[float], shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """n rows of three classes apart along the first axes, with which the fourth goes; all moved along that."""
    y = np.sort(RNG.choice(3, n, p=shares))
    x = RNG.normal(size=(n, 6))
    x[:, 3] = 0.9 * x[:, 0] + 0.3 * x[:, 3]
    return x + 3.0 * np.eye(6)[y] + shift * np.eye(6)[3], y


def head_of(x: np.ndarray, y: np.ndarray) -> Probe:
    fitted = ShrunkLDA(1.0).fit(x, y)
    return Probe((Part(LAST, root=False, unit=False),), fitted.coef_, fitted.intercept_, (), np.empty((0, 3)))


def right(head: Probe, x: np.ndarray, y: np.ndarray) -> float:
    return float((head.outputs({LAST: x}).argmax(1) == y).mean())


def test_a_move_of_all_pictures_alike_is_taken_back() -> None:
    x, y = cloud(600, [1 / 3] * 3)
    head = head_of(x, y)
    other, truth = cloud(400, [1 / 3] * 3, shift=4.0)
    found = aligned(head, {LAST: x}, y, {LAST: other})
    assert found.kept
    assert right(head, other, truth) < 0.8
    assert right(found.head, other, truth) > right(head, x, y) - 0.03


def test_the_same_pictures_move_nothing() -> None:
    x, y = cloud(300, [1 / 3] * 3)
    head = head_of(x, y)
    np.testing.assert_allclose(aligned(head, {LAST: x}, y, {LAST: x}).head.intercept, head.intercept, atol=1e-9)


def test_other_shares_of_the_classes_are_no_reason_to_move() -> None:
    x, y = cloud(600, [1 / 3] * 3)
    other, _ = cloud(400, [0.9, 0.1, 0.0])
    assert not aligned(head_of(x, y), {LAST: x}, y, {LAST: other}).kept


def test_late_stages_are_the_upper_half_of_each_network() -> None:
    one = tuple(f"s{k}/{pool}" for k in range(4) for pool in ("mean", "std"))
    kept = [part.block for part in late((*one, LAST)).parts]
    assert kept == ["s2/mean", "s2/std", "s3/mean", "s3/std", LAST]
    two = tuple(f"{name}:{block}" for name in ("a", "b") for block in one)
    assert [part.block for part in late((*two, LAST)).parts] == [
        *(f"{name}:{block}" for name in ("a", "b") for block in kept[:-1]),
        LAST,
    ]
    assert [one.name for one in tap_sets("late", (*one, LAST))] == ["last", "late"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red and blue squares with noise to teach; the same far darker as the place of use; others like the first."""
    place, rng = tmp_path_factory.mktemp("target"), np.random.default_rng(0)
    for part, light in (("teach/red", 1.0), ("teach/blue", 1.0), ("dark", 0.25), ("alike", 1.0)):
        (place / part).mkdir(parents=True)
        for k in range(24):
            picture = rng.integers(100, 156, (32, 32, 3)).astype(float)
            picture[..., 0 if "red" in part or (part in ("dark", "alike") and k % 2) else 2] += 90
            Image.fromarray((light * picture).astype(np.uint8)).save(place / part / f"{k}.png")
    return place


def options(folder: Path, target: str | None, **more: object) -> Options:
    where = None if target is None else str(folder / target)
    return Options(backbone=TINY, weights="none", size=32, cache=str(folder / "cache"), target=where, **more)  # type: ignore[arg-type]


def test_pictures_like_those_that_teach_change_nothing(folder: Path) -> None:
    table = read_table(folder / "teach")
    plain, found = (fit(table, options(folder, target)) for target in (None, "alike"))
    assert found.target is not None
    assert not found.target.differs
    np.testing.assert_array_equal(plain.head.coef, found.head.coef)  # type: ignore[union-attr]
    np.testing.assert_array_equal(plain.head.intercept, found.head.intercept)  # type: ignore[union-attr]


def test_the_saved_model_is_the_one_that_was_moved(folder: Path) -> None:
    found = fit(read_table(folder / "teach"), options(folder, "dark"))
    assert found.target is not None
    assert found.target.differs
    assert found.target.found is not None
    assert found.target.found.kept
    assert {c.taps for c in found.head.candidates} == {"last", "late"}  # type: ignore[union-attr]
    publish.save(found, folder / "model", "t", "headstart fit")
    bundle = read_bundle(folder / "model")
    model = unpack(bundle)
    assert bundle.metrics["place_of_use"]["aligned"]["kept"]
    assert bundle.run["options"]["target"] == "dark"  # no private place
    said = predict(model, found.seen.table, compile_trunk(model.backbone, "auto")).answers
    ours = found.head.outputs(found.seen.features.blocks)
    np.testing.assert_allclose(said, np.exp(ours), atol=1e-3)
    with pytest.raises(OptionError, match="fit --target on all images"):
        grow.add_to(folder / "model", read_table(folder / "teach"), options(folder, None))


@pytest.mark.parametrize(
    ("more", "words"),
    [({"tune": "last"}, "so does --tune"), ({"taps": "all"}, "so does --taps"), ({"layer": "pre_logits"}, "--layer")],
)
def test_what_says_otherwise_what_heads_read_is_refused(folder: Path, more: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        fit(read_table(folder / "teach"), options(folder, "dark", **more))


def test_too_few_pictures_or_none_are_refused(folder: Path) -> None:
    (folder / "few").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "few" / "a.png")
    with pytest.raises(DataError, match="needs 20 pictures"):
        fit(read_table(folder / "teach"), options(folder, "few"))
    with pytest.raises(DataError, match="does not exist"):
        fit(read_table(folder / "teach"), options(folder, "gone"))

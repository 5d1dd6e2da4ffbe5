"""Name -> Backbone: a frozen network without its top, its preprocessing, its taps.

A network that this machine has opened before is known by the shelf of the cache (`shelf.py`), under the hash of its
weights and the releases that made it: then neither torch nor timm is imported. Else `maker.py` makes it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.preprocess import CROP_MODES, Preprocess
from headstart.errors import BackboneError, HeadstartError, nearest
from headstart.files import forms
from headstart.files.bundle import CONFIG, MANIFEST, MODEL, Bundle, read_bundle
from headstart.files.cells import printable
from headstart.files.reading import read_regular
from headstart.trunk import catalog, hub
from headstart.trunk import pair as pairs
from headstart.trunk import weights as weight_files
from headstart.trunk.catalog import UNKNOWN
from headstart.trunk.network import RANDOM, Backbone, Made, Network, Source, Tensors
from headstart.trunk.shelf import Shelf
from headstart.trunk.store import cache_root
from headstart.trunk.weights import Weights

# Its real ImageNet weights install as an ordinary package; 336 images/s on 2 CPU cores (methods.md 9).
DEFAULT = "tf_efficientnet_lite0"
ALIASES = catalog.aliases()  # what Keras, torchvision and the tutorials call a network -> timm's name
ON_THE_HUB = re.compile("^(hf[-_]hub:)?timm/")  # how timm's networks are called there
# of this room, by which is made what is kept
MAKERS = ("maker.py", "module.py", "layers.py", "tokens.py", "two.py", "catalog.csv")
Say = Callable[[str], object]


def resolve(name: str) -> str:
    """timm's name for a network, whatever the letter case; Keras's and torchvision's names and the catalog's too.

    timm's own names come first, except efficientnet_lite0...: the weights are published under tf_efficientnet_lite0.
    So do timm/resnet18.a1_in1k and hf-hub:timm/..., as the hub calls them. The tag of weights that a package brings is
    left out: they are those of the name alone. Raises BackboneError with the nearest names.
    """
    if both := catalog.side_by_side(name):
        return _resolved(name, both)
    architecture, dot, tag = ON_THE_HUB.sub("", name.lower()).partition(".")
    known = {n.lower(): n for n in _timms_names()}
    alias = ALIASES.get(catalog.squeezed(architecture))
    found = alias if architecture.startswith("efficientnet_lite") else known.get(architecture, alias)
    if found is None:
        near = nearest(architecture, [*known.values(), *ALIASES])
        raise BackboneError(f"unknown backbone {name[:80]!r}{near}: any of timm's {len(known)} networks will do")
    bare = found.partition(".")[0]
    if tag == weight_files.PACKAGED and bare in weight_files.PACKAGES:
        return bare
    return f"{bare}.{tag}" if dot else found


def _resolved(name: str, both: tuple[str, ...]) -> str:
    """timm's names of two networks side by side. Raises BackboneError for more than two, and for one twice."""
    if len(both) > 2:
        raise BackboneError(f"{name[:80]!r} names {len(both)} networks: two can run side by side, A+B")
    first, second = map(resolve, both)
    if first == second:
        raise BackboneError(f"{name[:80]!r} names {first} twice: name two different networks, or one alone")
    return f"{first}{catalog.BETWEEN}{second}"


def _timms_names() -> list[str]:
    """The names of timm's networks; where timm is imported, with those that the user has added."""
    shelf, about = Shelf(cache_root()), {"names of": "timm", "release": metadata.version("timm")}
    known: list[str] | None = shelf.fact(about)
    if known is not None and "timm" not in sys.modules:
        return known
    found = catalog.timms_networks()
    if known is None:
        from headstart.trunk import maker

        shelf.note(about, [name for name in found if maker.is_timms(name)])
    return found


def open_backbone(
    name: str = DEFAULT,
    weights: str = "auto",
    seed: int = 0,
    say: Say = lambda line: None,
    cache: str | None = None,
) -> Backbone:
    """The network of this name without its top; or that of a saved model, where `name` is its folder; or two networks
    as one, A+B (`pair.py`), with published or random weights.

    `weights`: "auto" (installed package, else the hub), "none" (random, drawn from `seed`), or a .safetensors or .pth
    file. `cache`: the folder of what was found out before, see `store.cache_root`.
    torch's own random numbers go on afterwards as if nothing had been drawn. `say` is told what to know before
    anything is fetched. Raises BackboneError, BundleError.
    """
    if (Path(name) / MANIFEST).exists() or (Path(name) / CONFIG).exists():
        return _of_a_model(Path(name), weights, seed, say, cache)
    if Path(name).is_file():
        raise BackboneError(f"{name} is a file: name its network with --backbone, and give the file with --weights")
    full, told = resolve(name), list[str]()
    if both := catalog.side_by_side(full):
        if weights not in ("auto", "none"):
            raise BackboneError(f"--weights {weights} is of one network, and {name} are two: leave it out, or name one")
        first, second = (open_backbone(one, weights, seed, say, cache) for one in both)
        return pairs.paired(first, second)

    def tell(line: str) -> None:
        told.append(line)
        say(line)

    where = _weights_of(full, weights, tell)
    backbone = _opened(full, where, seed, tell, cache)
    for line in [] if backbone.random else catalog.terms(where.network or full, backbone.licence):
        if line not in told:  # before a download it was said already
            say(line)
    return backbone


def _weights_of(full: str, weights: str, say: Say) -> Weights:
    """Where the weights that the user asks for come from; they are fetched where they are not here."""
    architecture, _, tag = full.partition(".")
    if weights == "none":
        return Weights("random", RANDOM)
    if weights != "auto":
        return Weights("file", f"file {Path(weights).name}", Path(weights), called=weights)
    if not tag and (path := weight_files.packaged(architecture)):
        source = f"package {weight_files.PACKAGES[architecture]}"
        return Weights("package", source, path, called=source)
    about = _published(full)
    source = f"hub timm/{about.network}"
    if brought := weight_files.brought_file(full, about.network):
        return Weights("brought", source, brought, about.network)
    return Weights("hub", source, hub.obtain(about, say), about.network)


def _published(full: str) -> catalog.Published:
    """What timm says of the published weights of a network, asked once. Raises BackboneError."""
    shelf, about = Shelf(cache_root()), {"published": full, "release": metadata.version("timm")}
    with suppress(TypeError):
        return catalog.Published(**(shelf.fact(about) or {}))
    found = catalog.published(full)
    shelf.note(about, vars(found))
    return found


def _opened(full: str, where: Weights, seed: int, say: Say, cache: str | None) -> Backbone:
    """The network with these weights: what is known of it, or else made. Raises BackboneError."""
    architecture, digest = full.partition(".")[0], where.digest()
    if digest is None:  # what is wrong with the file is said by who reads it
        return _made(full, architecture, where, seed, say)
    shelf, key = Shelf(cache_root(cache)), {"network": full, **where.to_json(), "bytes": digest, **made_by()}
    key |= {"seed": seed} if where.kind == "random" else {}
    known = shelf.fact(key)
    with suppress(KeyError, TypeError, ValueError):
        if known is not None:
            source = _OfWeights(architecture, where, seed, known["backbone"]["weights_hash"], shelf)
            backbone = _known(known, source, key, shelf)
            for line in known["lines"]:
                say(line)
            return backbone
    lines: list[str] = []

    def said(line: str) -> None:
        lines.append(line)
        say(line)

    backbone = _noted(_made(full, architecture, where, seed, said), key, shelf, lines)
    if backbone.network.shelf:
        _keep_tensors(shelf, backbone)
        if where.kind in ("random", "package") and full == architecture:  # so `from_tensors` would make it
            _noted(backbone, _key_of_tensors(full, backbone.weights_hash), shelf)
    return backbone


def _made(full: str, architecture: str, where: Weights, seed: int, say: Say) -> Backbone:
    from headstart.trunk import maker

    # whose a file is nobody but itself can say: the architecture's name is not the licence of its weights
    licence = str(where.overlay.get("license") or UNKNOWN) if where.kind == "file" else ""
    return maker.backbone_of(maker.made(architecture, where, seed, say), full, where.source, licence)


def _known(said: Mapping[str, Any], source: Source, key: Mapping[str, Any], shelf: Shelf) -> Backbone:
    """A backbone as `_noted` wrote it, whose network nobody has made yet."""
    return Backbone.from_json(said["backbone"], Network(source, said["described"], key, shelf))


def _noted(backbone: Backbone, key: Mapping[str, Any], shelf: Shelf, lines: Sequence[str] = ()) -> Backbone:
    """The backbone, and all that is known of it on the shelf, where the network is timm's own."""
    from headstart.trunk import maker

    if not maker.is_timms(backbone.name.partition(".")[0]):
        return backbone
    described = backbone.network.described
    shelf.note(key, {"backbone": backbone.to_json(), "described": described, "lines": list(lines)})
    return replace(backbone, network=Network(backbone.network.source, described, key, shelf))


@dataclass(frozen=True)
class _OfWeights:
    """A network that was made before of these weights, whose trunk's tensors are on the shelf."""

    architecture: str
    where: Weights
    seed: int
    weights_hash: str
    shelf: Shelf

    def module(self) -> Any:
        from headstart.trunk import maker

        return maker.frozen(maker.made(self.architecture, self.where, self.seed, lambda line: None))

    def tensors(self) -> Tensors | None:
        from safetensors.numpy import load

        content = self.shelf.read({"tensors": self.weights_hash})
        return None if content is None else load(content)

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere there may be neither the weights nor the shelf."""
        found = self.tensors()
        return (
            (Made, (self.module(),)) if found is None else (_OfTensors, (self.architecture, self.architecture, found))
        )


@dataclass(frozen=True)
class _OfTensors:
    """The network of a saved model."""

    name: str
    architecture: str
    given: Tensors

    def module(self) -> Any:
        from headstart.trunk import maker

        return maker.frozen(maker.made_of(self.name, self.architecture, self.given))

    def tensors(self) -> Tensors:
        return self.given


def _keep_tensors(shelf: Shelf, backbone: Backbone) -> None:
    from safetensors.numpy import save

    own = {name: np.asarray(t, order="C") for name, t in backbone.network.tensors().items()}
    shelf.write({"tensors": backbone.weights_hash}, save(own))


def _key_of_tensors(name: str, weights_hash: str) -> dict[str, Any]:
    return {"network": name, "tensors": weights_hash, **made_by()}


@cache
def made_by() -> dict[str, str]:
    """The releases and the code that what is kept depends on: `network.MADE_BY`."""
    digest = hashlib.blake2b(digest_size=16)
    for name in MAKERS:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return {"torch": metadata.version("torch"), "timm": metadata.version("timm"), "code": digest.hexdigest()}


def _of_a_model(folder: Path, weights: str, seed: int, say: Say, cache: str | None) -> Backbone:
    """The trunk of a model that headstart has saved, or of timm's own layout (config.json, model.safetensors).

    Its input size and view are the network's own again: the next task's images decide anew.
    """
    if not (folder / MANIFEST).exists():
        return _of_timms_layout(folder, weights, seed, say, cache)
    bundle = read_bundle(folder)
    if weights != "auto":
        return open_backbone(resolve(bundle.manifest["backbone"]["name"]), weights, seed, say, cache)
    backbone = trunk_of(bundle, cache)
    for line in [] if backbone.random else catalog.terms(backbone.name, backbone.licence):
        say(line)
    return backbone


def trunk_of(bundle: Bundle, cache: str | None = None) -> Backbone:
    """The trunk of a saved model, see `_of_a_model`. Raises BackboneError, BundleError."""
    about, classes, folder = bundle.manifest["backbone"], bundle.manifest["classes"], bundle.folder
    tensors = bundle.tensors(MODEL)
    if top := about["classifier"]:
        tensors = {name: t for name, t in tensors.items() if name not in (f"{top}.weight", f"{top}.bias")}
    earlier = about["weights_source"]
    source = RANDOM if earlier == RANDOM else f"model {folder.name} ({earlier})"
    with _of_a_stranger(folder):
        saved = Preprocess.from_json(bundle.manifest["preprocess"])
        backbone = from_tensors(about["name"], tensors, saved, source, about["licence"], cache)
    described = backbone.network.described
    link = f"{folder.name}: {len(classes)} classes, data {bundle.manifest.get('data_fingerprint', '')[:12]}"
    height, width = described["input_size"][1:]
    return replace(
        backbone,
        preprocess=replace(
            saved, size=(height, width), crop_fraction=described["crop_pct"], resize=described["resize"], views=1
        ),
        chain=(*(about.get("chain") or (about["weights_source"],)), link),
    )


def _of_timms_layout(folder: Path, weights: str, seed: int, say: Say, cache: str | None) -> Backbone:
    """A checkpoint as timm writes it: the architecture and preprocessing stand in config.json."""
    try:
        config = forms.parse(read_regular(folder / CONFIG), forms.TIMM)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BackboneError(f"{folder / CONFIG} is no timm description of a network: it {reason}") from None
    files = [folder / name for name in (MODEL, "pytorch_model.bin") if (folder / name).exists()]
    if not files:
        raise BackboneError(f"{folder} holds no {MODEL}: copy the model again")
    architecture = resolve(config["architecture"]).partition(".")[0]
    if weights != "auto":
        return open_backbone(architecture, weights, seed, say, cache)
    described = config.get("pretrained_cfg") or {}
    source = f"model {folder.resolve().name}"
    where = Weights("file", source, files[0], called=str(files[0]), overlay=described)
    with _of_a_stranger(folder):
        found = _opened(architecture, where, seed, lambda line: None, cache)
    return replace(found, name=config["architecture"])


@contextmanager
def _of_a_stranger(folder: Path) -> Iterator[None]:
    """What torch and timm say of a network that cannot be made as a folder describes it, in one line."""
    try:
        yield
    except BackboneError:
        raise
    except (*weight_files.BROKEN, HeadstartError) as error:
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        raise BackboneError(
            f"{folder} cannot be used as a network ({reason}): copy it again from where it was made"
        ) from None


def from_tensors(
    name: str,
    tensors: Mapping[str, npt.NDArray[np.generic]],
    preprocess: Preprocess,
    source: str,
    licence: str,
    cache: str | None = None,
) -> Backbone:
    """The backbone that a saved model carries: `tensors` under timm's own names, without the top.

    Raises BackboneError.
    """
    full = resolve(name)
    if both := catalog.side_by_side(full):
        one, other = both
        *parts, scaling = pairs.split(full, pairs.part_names(one, other), tensors)
        first, second = (
            from_tensors(*part, preprocess, source, licence, cache) for part in zip(both, parts, strict=True)
        )
        found = pairs.paired(first, second, scaling)
        return replace(found, preprocess=preprocess, weights_source=source, licence=licence)
    architecture = full.split(".")[0]
    shelf, key = Shelf(cache_root(cache)), _key_of_tensors(name, weight_files.fingerprint(tensors))

    given, known, backbone = _OfTensors(name, architecture, tensors), shelf.fact(key), None
    with suppress(KeyError, TypeError, ValueError):
        backbone = None if known is None else _known(known, given, key, shelf)
    if backbone is None:
        from headstart.trunk import maker

        backbone = _noted(maker.backbone_of(given.module(), name, source), key, shelf)
    (height, width), tokens = preprocess.size, backbone.tokens
    if tokens is not None and not tokens.fits((height, width)):
        raise BackboneError(
            f"{name} does not take an input of {height} x {width} px: its patches are {tokens.patch} px"
        )
    return replace(backbone, preprocess=preprocess, weights_source=source, licence=licence)


def timm_tensors(
    backbone: Backbone, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.generic]]:
    """The network's tensors under timm's names, with weight (class, feature) and bias (class,) as its linear top.

    Where the network's own top is dropped (see `Backbone.last_is_pooled`) only the trunk's tensors are given.
    """
    tensors = dict(backbone.network.tensors())
    if backbone.classifier:
        tensors |= {f"{backbone.classifier}.weight": weight, f"{backbone.classifier}.bias": bias}
    return tensors


def own_labels(backbone: Backbone) -> list[tuple[str, str]]:
    """(WordNet id, name) of each class of the network's own top, named as Keras's `decode_predictions` names them.

    Raises BackboneError where there is no top or timm knows no names for its classes.
    """

    def find(module: Any) -> Any:
        from headstart.trunk import maker

        return maker.labels_of(module)

    found = backbone.network.known("the names of its classes", find)
    if found is None:
        n = backbone.n_classes
        what = f"{n} classes that have no ImageNet names" if n else "no classes of its own"
        raise BackboneError(f"{backbone.name} has {what}: choose a network trained on ImageNet, such as {DEFAULT}")
    return [(wnid, name) for wnid, name in found]


def timm_config(backbone: Backbone, n_classes: int, classes: Sequence[str]) -> dict[str, Any]:
    """config.json in timm's layout: `timm.create_model("local-dir:FOLDER", pretrained=True)` needs nothing else. Of two
    networks side by side it says that timm has no such network."""
    if catalog.side_by_side(backbone.name):
        return {"note": f"{backbone.name}: two networks side by side, which timm does not have; headstart reads them"}
    preprocess, described = backbone.preprocess, backbone.network.described
    return {
        "architecture": backbone.name.split(".")[0],
        "num_classes": n_classes,
        "label_names": list(classes),
        "pretrained_cfg": {
            "num_classes": n_classes,
            "input_size": [3, *preprocess.size],
            "fixed_input_size": described["fixed_input_size"],
            "interpolation": preprocess.interpolation,
            "crop_pct": preprocess.crop_fraction,
            "crop_mode": CROP_MODES[preprocess.resize],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "classifier": described["classifier"],
            "first_conv": described["first_conv"],
            "license": backbone.licence,
        },
    }

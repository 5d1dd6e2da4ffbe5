"""Tasks whose answers lie at places of the picture: masks, boxes.

A `PlacedTask` is a frozen dataclass of functions, as `Task` is: everything in which one such task differs from another.
The story of both is `story/placed.py`. Their answers have no fixed length, so that images are answered and marked one
after the other; from the marks on (`judge/`) all tasks are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Table
from headstart.data.targets import Targets
from headstart.finetune.design import Bar, no_bar
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints
from headstart.judge.crossing import Measure
from headstart.judge.marks import Marks, Score
from headstart.recipe import Setting
from headstart.tasks.task import Record, Rule, Tried

Pixels = NDArray[np.uint8]
Answer = NDArray[Any]  # of one image: class numbers uint8 (height, width) of the upright picture, or boxes (n, 6)
Size = tuple[int, int]  # (height, width) in px


class PlacedHead(Protocol):
    """What is fitted: it reads maps and says something of each place."""

    @property
    def maps(self) -> tuple[Layer, ...]: ...

    def outputs(self, blocks: Blocks) -> NDArray[np.float32]:
        """(image, ...), in the form that `PlacedTask.answer` takes."""
        ...

    def described(self) -> dict[str, Any]: ...

    def tensors(self) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True, eq=False)
class Views:
    """What a head learns from and is judged on: `blocks`, block -> float16 (image, ...), the maps of `layers`; the
    truth; sizes (image, 2): (height, width) of the upright pictures in px; `frame`: what the network saw, in px.

    `flipped(rows, across, down)`: blocks of the same pictures of these rows, in their order, mirrored left to right
    (across) or top to bottom (down): a mirrored map is not the map of the mirrored picture. `backbone`: the network,
    for what learns in it; `pixels(rows)`: uint8 (image, height, width, 3), as it sees them.
    """

    blocks: Blocks
    layers: tuple[Layer, ...]
    targets: Targets
    sizes: Ints
    frame: Size
    groups: Ints
    keys: tuple[str, ...]
    seed: int
    flipped: Callable[[Ints, bool, bool], Blocks]
    pixels: Callable[[Ints], Pixels]
    backbone: Any

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class How:
    """What the user says of learning. `budget`: s, None as the recipe says; `epochs`: likewise; `tune`: as the option
    has it; `flips`: views that pictures may be turned into beside themselves, (across, down); `augment`: the kind of
    pictures, as the option has it; `folder`: for what a killed training goes on from."""

    tune: str = "none"
    flips: tuple[tuple[bool, bool], ...] = ((True, False),)
    augment: str = "photo"
    budget: float | None = None
    epochs: int | None = None
    device: str = "cpu"
    folder: Any = None
    bar: Bar = no_bar


@dataclass(frozen=True, eq=False)
class Taught:
    """A head, what turns its outputs into answers, and how it came to be. `backbone`: of a network that was tuned;
    `frozen`: what was learned on the network as it was, beside it."""

    head: PlacedHead
    rule: Rule
    tried: tuple[Tried, ...] = ()
    settings: tuple[Setting, ...] = ()
    remarks: tuple[str, ...] = ()
    losses: tuple[tuple[float, float | None], ...] = ()
    backbone: Any = None
    frozen: Taught | None = None


class Read(Protocol):
    """A head from what the manifest says of it and its tensors. Raises KeyError, ValueError or HeadstartError."""

    def __call__(
        self,
        described: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
        names: tuple[str, ...],
        frame: Size,
    ) -> PlacedHead: ...


@dataclass(frozen=True)
class PlacedTask:
    """One kind of answer that lies in the picture.

    `name`: as `--task` says it. `kinds`: of its heads, as the manifest calls them.
    `targets(table, names)`: the truth; raises DataError. `frame(sizes (image, 2) that teach, --size or None,
    patch or None)`: (height, width) of what the network sees, in multiples of a transformer's patch. `stages(taps,
    frame)`: names of those whose maps are read, of (name, shape) of all.
    `learn(views, rows that teach, how)`: a head; what chose it are images of these rows that were held out.
    `answer(output of one image, its size, frame, rule)`: see Answer. `joined(outputs of tiles, boxes (tile, 4) of them
    in px, size of the picture, frame, rule)`: the answer for a picture that was cut.
    `marks(targets, row, answer, rule)`: columns of one image, which are filled up with `fill` (column -> value, else 0)
    where those of others are longer.
    `score(marks, names, groups, seed)`. `headline`: what comparisons are made in.
    `constant(targets that teach, targets, sizes)`: answers of a model that never looks, one an image, and its name.
    `record(names, answer, size, rule)`: what `predict` says of it beside `path` and `error`; `said(names, answer,
    rule)`: in words; `told(record)`: a record in words. `rows(records, names)`: (columns, rows) of a CSV file;
    `coco(records, names)`: in COCO's form.
    `drawn(picture uint8 (height, width, 3), size of the original, names, answer, truth or None, rule)`: the answer on
    the picture, beside the truth where it is known; `colours(n)`: uint8 (class, 3), in which it does that.
    `mask(answer)`: a PNG file; None where answers are no masks.
    `truth(targets, row, size)`: in the form of an answer. `worst(marks)`: rows, the worst first.
    `none()`: the answer that holds nothing. `read`: see Read. `ruled`: of the rule what it must hold, each a number a
    class.
    """

    name: str
    kinds: tuple[str, ...]
    targets: Callable[[Table, tuple[str, ...]], Targets]
    frame: Callable[[Ints, int | None, int | None], Size]
    stages: Callable[[Sequence[tuple[str, tuple[int, ...]]], Size], tuple[str, ...]]
    learn: Callable[[Views, Ints, How], Taught]
    answer: Callable[[NDArray[np.float32], Size, Size, Rule], Answer]
    joined: Callable[[Sequence[NDArray[np.float32]], Ints, Size, Size, Rule], Answer]
    marks: Callable[[Targets, int, Answer, Rule], Mapping[str, NDArray[Any]]]
    score: Callable[[Marks, Sequence[str], Ints, int], Score]
    headline: Measure
    constant: Callable[[Targets, Targets, Ints], Iterable[Answer]]
    constant_name: str
    record: Callable[[Sequence[str], Answer, Size, Rule], Record]
    said: Callable[[Sequence[str], Answer, Rule], str]
    drawn: Callable[[Pixels, Size, Sequence[str], Answer, Answer | None, Rule], Pixels]
    colours: Callable[[int], Pixels]
    truth: Callable[[Targets, int, Size], Answer]
    worst: Callable[[Marks], Ints]
    none: Callable[[], Answer]
    read: Read
    told: Callable[[Mapping[str, Any]], str]
    rows: Callable[[Sequence[Mapping[str, Any]], Sequence[str]], tuple[Sequence[str], list[tuple[Any, ...]]]]
    coco: Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Any]
    mask: Callable[[Answer], bytes] | None = None
    ruled: tuple[str, ...] = ()
    fill: Mapping[str, float] = field(default_factory=dict)


def with_own_tables(score: Score) -> Score:
    """The rows of classes under a name of their own: what is said of a class of pictures is something else."""
    tables = {{"per_class": "each_class"}.get(name, name): table for name, table in score.tables.items()}
    return replace(score, tables=tables)


def stacked(each: Sequence[Mapping[str, NDArray[Any]]], fill: Mapping[str, float]) -> Marks:
    """The marks of images from those of each; columns of different lengths are filled up at their ends."""
    columns = {}
    for name in each[0]:
        values = [np.asarray(one[name]) for one in each]
        shape = np.max([v.shape for v in values], axis=0).astype(int) if values[0].ndim else np.array([], int)
        room = np.full((len(values), *shape), fill.get(name, 0), values[0].dtype)
        for k, v in enumerate(values):
            room[(k, *(slice(0, n) for n in v.shape))] = v
        columns[name] = room
    return Marks(columns)

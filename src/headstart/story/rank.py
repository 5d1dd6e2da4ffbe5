"""Which network suits these images: left-out answers for some of those that teach, paired; the cheapest of the best.

    candidates -> a stratified part, whole groups -> 250, 500, 1000, 2000 images through each network
               -> heads as `fit` makes them, left-out answers -> who is behind beyond doubt drops out
               -> the cheapest within one standard error of the best

What the images said here is never the score of a model: the best of several is flattered by the choice (the winner's
curse), and `fit` judges what was chosen by other means. The features lie in the store, where `fit` finds them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headstart.counted import counted
from headstart.data.duplicates import find_duplicates, tie_groups
from headstart.data.images import content_hash
from headstart.data.splits import nested_order
from headstart.data.table import Table
from headstart.errors import BackboneError, DataError, ImageError, OptionError, OutputError
from headstart.files.cores import n_cores
from headstart.heads.material import Ints, Material
from headstart.heads.taps import LAST, TapSet
from headstart.judge.crossing import Measure
from headstart.judge.marks import Interval, Marks, ends
from headstart.story.candidates import Candidate, gathered
from headstart.story.diagnose import diagnosed, joined
from headstart.story.opening import QUIET, Options, Watcher, features_of, open_network
from headstart.story.options import auto_words
from headstart.story.ranked import Ranked, Ranking, Together
from headstart.tasks.task import Task, solved
from headstart.trunk.catalog import side_by_side
from headstart.trunk.engine import Engine
from headstart.trunk.network import Backbone, block_names
from headstart.trunk.speed import images_per_second

MOST_IMAGES = 2000  # that each network sees: the standard error of a difference is then about half a point
FIRST, FIRST_EACH = 250, 4  # images of the first round, and of each class; then twice as many until there are no more
# All of a fit's time beside the network, in that of its heads alone: folds, baselines, learning curve (measured on
# hymenoptera and EuroSAT).
PROOF = 4.0
SLACK = 4.0  # a network that was not opened yet may be so many times faster than another of as many multiplications
PACED = 100  # images through the network from which on their own pace tells more than that of blank pictures


Clock = Callable[[str], AbstractContextManager[None]]  # measures a stage of this name


@dataclass(frozen=True)
class Asked:
    """What is ranked, and what is asked of it: `budget`, s of the whole job, which leaves out slower networks;
    `diagnostics`: NCE, LEEP and LogME too; `together`: the best two side by side."""

    candidates: tuple[Candidate, ...]
    budget: float | None = None
    diagnostics: bool = False
    together: bool = False


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of a table in the order in which they are taken, group behind group; `ends`: how many rows there are where
    a group ends."""

    rows: NDArray[np.intp]
    ends: NDArray[np.int64]

    def beginning(self, n: int) -> NDArray[np.intp]:
        """At most n rows, one group at least, sorted."""
        fits = self.ends[self.ends <= n]
        return np.sort(self.rows[: int(fits[-1] if len(fits) else self.ends[0])])


@dataclass(frozen=True, eq=False)
class _Opened:
    """A candidate at work: `opening` in s, `speed` in images a second."""

    candidate: Candidate
    backbone: Backbone
    engine: Engine
    opening: float
    speed: float

    @property
    def gmacs(self) -> float | None:
        return self.candidate.gmacs(_side(self.backbone))


def _side(backbone: Backbone) -> int:
    """px of the square that has as many as the input."""
    height, width = backbone.preprocess.size
    return round((height * width) ** 0.5)


@dataclass(frozen=True, eq=False)
class _Look:
    """What a candidate has shown on some images: s of its heads, s of `read` images that it had not seen before."""

    table: Table
    material: Material
    marks: Marks
    heads: float
    reading: float
    read: int
    behind: Interval | None = None


@dataclass(frozen=True, eq=False)
class _Race:
    """What all candidates share: the images that teach, and how they are told apart."""

    task: Task
    table: Table
    options: Options
    watch: Watcher
    measure: Measure


def chosen(task: Task, table: Table, options: Options, watch: Watcher, clock: Clock) -> tuple[Options, Ranking | None]:
    """The options with the network that `--backbone auto` chooses by the images that teach, and how; as they are where
    one is named. Raises HeadstartError."""
    words = auto_words(options.backbone)
    if words is None:
        return options, None
    with clock("rank networks"):
        found = rank(task, table, options, Asked(gathered(words or None, False)), watch)
    watch.say(found.why)
    return replace(options, backbone=found.chosen.backbone, weights=found.chosen.weights), found


def rank(task: Task, table: Table, options: Options, asked: Asked, watch: Watcher = QUIET) -> Ranking:
    """Rank networks on the images of the table that teach. Raises HeadstartError where one that the user named cannot
    be opened, or none is left."""
    if task.name == "anomaly":
        raise OptionError("networks are ranked by what they tell apart, and good pictures alone tell nothing: name one")
    table = table.take(table.teaching)
    measure = task.judging.compared_in(task.targets(table, table.classes))
    plain = replace(options, head="auto", layer=None, tune="none")
    race, part = _Race(task, table, plain, watch, measure), part_of(task, table, options.seed)
    opened, notes = _opened(race, asked)
    left, looks = opened, dict[_Opened, _Look]()
    for rows in _rounds(part, table):
        looks |= _round(race, left, rows, looks)
        left = tuple(o for o in left if not _beaten(looks[o].behind))
        if len(left) == 1:
            break
    ranked = tuple(_ranked(race, o, looks[o], o not in left, asked.diagnostics) for o in opened)
    hashes = frozenset(key for look in looks.values() for key in look.material.keys)
    single = [o for o in left if not side_by_side(o.candidate.backbone)]
    together = _together(race, single, looks) if asked.together and len(single) > 1 else None
    return Ranking(measure.name, measure.percent, ranked, len(table), hashes, notes, together)


def part_of(task: Task, table: Table, seed: int, most: int = MOST_IMAGES) -> Part:
    """At most so many images, in an order whose every beginning is stratified, groups whole. Files that cannot be read
    are left out. Pictures are drawn by their content: neither names nor their order matter."""
    with ThreadPoolExecutor(n_cores()) as pool:
        keys = list(pool.map(lambda row: _hash(table, row), range(len(table))))
    rows = np.array([row for row, key in enumerate(keys) if key], dtype=np.intp)
    if not len(rows):
        raise DataError(f"none of {counted(len(table), 'image')} that teach can be read: headstart inspect says why")
    readable = table.take(rows)
    strata = task.targets(readable, table.classes).strata
    order = rows[nested_order(strata, seed, [keys[row] for row in rows])]
    tied: dict[str, list[int]] = {}
    for row in order:
        tied.setdefault(f"group {table.groups[row]}" if table.groups[row] else keys[row], []).append(int(row))
    taken: list[list[int]] = []
    n = 0
    for group in tied.values():
        if n + len(group) <= most or not taken:
            taken.append(group)
            n += len(group)
    return Part(np.array([r for g in taken for r in g], dtype=np.intp), np.cumsum([len(g) for g in taken]))


def _rounds(part: Part, table: Table) -> Iterator[NDArray[np.intp]]:
    """The rows of each round: twice as many each time. The first holds every class of which there is an image."""
    size, last = max(FIRST, FIRST_EACH * len(table.classes)), len(part.rows)
    kinds = len(set(table.labels[part.rows]))
    while size < last:
        rows = part.beginning(size)
        if table.task not in ("classify", "recognise") or len(set(table.labels[rows])) == kinds:
            yield rows
        size *= 2
    yield np.sort(part.rows)


def _hash(table: Table, row: int) -> str:
    try:
        return content_hash(table.read(row))
    except ImageError:
        return ""


def _opened(race: _Race, asked: Asked) -> tuple[tuple[_Opened, ...], tuple[str, ...]]:
    """Those that can be opened and are fast enough, the cheapest first, and what is said of the others."""
    found: list[_Opened] = []
    notes: list[str] = []
    budget = asked.budget
    for one in sorted(asked.candidates, key=lambda c: (c.entry.gmacs if c.entry else 0.0, c.name, c.weights)):
        guess = _guess(race, one, found[-1]) if found and budget else 0.0
        if budget and guess > SLACK * budget:
            notes.append(f"{one.name} was not opened: about {guess:.0f} s at the pace of {found[-1].candidate.name}")
            continue
        try:
            found.append(_open(race, one))
        except (BackboneError, OptionError, OutputError) as error:
            if one.asked:
                raise
            notes.append(f"{one.name} was left out: {error}")
    fast = [o for o in found if not budget or _first_seconds(race, o) <= budget]
    slow = [o for o in found if o not in fast]
    notes += [f"{o.candidate.name} is slower than the budget: {_first_seconds(race, o):.0f} s" for o in slow]
    for line in notes:
        race.watch.say(f"note: {line}")
    if not fast:
        raise OptionError(f"no network is left to rank ({notes[-1]}): give more time with --budget, or name others")
    return tuple(sorted(fast, key=_price)), tuple(notes)


def _open(race: _Race, one: Candidate) -> _Opened:
    begun = time.perf_counter()
    options = replace(race.options, backbone=one.backbone, weights=one.weights)
    with race.watch.step(f"open {one.name}"):
        backbone, engine = open_network(race.table, options, say=race.watch.say, whole=race.task.whole)
        took = time.perf_counter() - begun
        return _Opened(one, backbone, engine, took, images_per_second(backbone, engine))


def _guess(race: _Race, one: Candidate, known: _Opened) -> float:
    """Seconds of a pass by a network that was not opened, from its multiplications and another one's pace; 0 where they
    are not known."""
    side = _side(known.backbone)
    mine, other = one.gmacs(side), known.candidate.gmacs(side)
    return len(race.table) / known.speed * mine / other if mine and other else 0.0


def _first_seconds(race: _Race, opened: _Opened) -> float:
    """Of opening and a pass over all images that teach."""
    return opened.opening + len(race.table) / opened.speed


def _price(opened: _Opened) -> tuple[float, float, int, str, str]:
    """The time of an image in steps of a factor of sqrt(2), so that the noise of the clock decides nothing; then
    multiplications, parameters, the name."""
    step, one = round(-2 * float(np.log2(opened.speed))), opened.candidate
    return step, opened.gmacs or np.inf, opened.backbone.n_parameters, one.name, one.weights


def _round(
    race: _Race, left: Sequence[_Opened], rows: NDArray[np.intp], before: Mapping[_Opened, _Look]
) -> dict[_Opened, _Look]:
    """All of them on these images. Copies are those that the first one's features show, for all: who is compared must
    leave out the same images."""
    found: dict[_Opened, _Look] = {}
    groups: Ints | None = None
    for opened in left:
        begun, table = time.perf_counter(), race.table.take(rows)
        bar = race.watch.bar(opened.candidate.name, len(table))
        features = features_of(table, opened.backbone, opened.engine, race.options, bar)
        reading, table = time.perf_counter() - begun, table.take(features.kept)
        if groups is None:
            same = find_duplicates(features.hashes, features.blocks[LAST], features.thumbnails)
            groups = tie_groups(len(table), same, table.groups)
        targets = race.task.targets(table, table.classes)
        material = Material(features.blocks, targets, groups, features.hashes, race.options.seed)
        begun = time.perf_counter()
        marks = marks_of(race.task, material, race.task.sets(race.options.taps, block_names(opened.backbone)))
        heads, last = time.perf_counter() - begun, before.get(opened)
        new = features.n_forward
        reading, read = (reading if new else 0.0) + (last.reading if last else 0.0), new + (last.read if last else 0)
        found[opened] = _Look(table, material, marks, heads, reading, read)
    best = max(left, key=lambda o: _sign(race) * race.measure.value(found[o].marks))  # of equals the cheapest
    return {o: look if o is best else replace(look, behind=_gain(race, look, found[best])) for o, look in found.items()}


def marks_of(task: Task, material: Material, sets: tuple[TapSet, ...]) -> Marks:
    """Of the answers of heads that had not seen the image or its group."""
    if task.own is not None:
        with threadpool_limits(1, "blas"):
            return task.own.crossed(material, sets, quick=True).marks
    head = solved(task, material, np.arange(len(material)), sets)
    rule = task.rule(material.targets, head.left_out, material.groups)
    return task.judging.mark(material.targets, task.answers(head.left_out, rule))


def _sign(race: _Race) -> int:
    return 1 if race.measure.higher_is_better else -1


def _groups(look: _Look) -> Ints | None:
    """Of its marks: of all images, but where some could not be judged."""
    return look.material.groups if len(look.marks) == len(look.material) else None


def _gain(race: _Race, one: _Look, other: _Look) -> Interval:
    """By how much the one is better than the other, on the same images."""
    found = race.measure.gain(one.marks, other.marks, _groups(one))["difference"]
    if found["value"] is None or _sign(race) > 0:
        return found
    value, low, high = ends(found)
    return {"value": -value, "low": -high, "high": -low}


def _beaten(behind: Interval | None) -> bool:
    """Whether all of the 95 % interval of the difference to the best lies below 0."""
    return behind is not None and behind["high"] is not None and behind["high"] < 0


def _ranked(race: _Race, opened: _Opened, look: _Look, dropped: bool, diagnostics: bool) -> Ranked:
    one, also = opened.candidate, dict[str, float | None]()
    if diagnostics:
        also = diagnosed(look.table, look.material, opened.backbone, race.options, race.watch)
    return Ranked(
        one.name,
        one.backbone,
        one.weights,
        len(look.material),
        race.measure.of(look.marks, _groups(look)),
        look.behind,
        opened.speed,
        opened.opening,
        _seconds(race, opened, look),
        opened.gmacs,
        one.prior or None,
        dropped,
        also,
    )


def _seconds(race: _Race, opened: _Opened, look: _Look) -> float:
    """Predicted of the whole job: opening, a pass over all images that teach, heads and their proof."""
    n, some, each = len(race.table), len(look.material), 1 / opened.speed
    if look.read >= PACED:
        each = max(each, look.reading / look.read)
    width = sum(block.shape[1] for block in look.material.blocks.values())
    grown = n * min(n, width) / (some * min(some, width))
    return opened.opening + n * each + PROOF * look.heads * grown


def _together(race: _Race, left: Sequence[_Opened], looks: Mapping[_Opened, _Look]) -> Together:
    """The best two, their features side by side."""
    order = sorted(left, key=lambda o: -_sign(race) * race.measure.value(looks[o].marks))
    first, second = order[:2]
    sets = [race.task.sets(race.options.taps, block_names(o.backbone)) for o in (first, second)]
    material, both = joined(looks[first].material, looks[second].material, sets[0], sets[1])
    pair = replace(looks[first], material=material, marks=marks_of(race.task, material, both))
    return Together(first.candidate.name, second.candidate.name, _gain(race, pair, looks[first]))

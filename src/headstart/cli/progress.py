"""How a command tells of its progress: bars, a line for each epoch, and no chatter of other libraries beside them."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.finetune.design import Epoch
    from headstart.story.opening import Watcher
    from headstart.story.track import Tracker


def shown_to_somebody() -> bool:
    """Whether stderr is a terminal; it may be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def watching(tell: Callable[[str], None], tracker: Tracker | None = None) -> Iterator[Watcher]:
    """Progress bars on a terminal only; none is left there at the end. Elsewhere a line a minute."""
    from tqdm import tqdm

    from headstart.cli.pace import Paced
    from headstart.story.opening import Watcher

    bars: list[Any] = []

    def bar(stage: str, total: int) -> Callable[[int], None]:
        if not shown_to_somebody():
            return Paced(stage, total, tell)
        unit = "fold" if stage == "judge" else "img"
        shown = tqdm(
            total=total,
            desc=stage,
            unit=unit,
            file=sys.stderr,
            leave=False,
            bar_format="{desc} ..." if total == 1 else None,  # one step has no share to show
        )
        bars.append(shown)

        def done(count: int) -> None:
            shown.update(count)
            if shown.n >= total:
                shown.close()

        return done

    def beside(line: str) -> None:
        with tqdm.external_write_mode(sys.stderr):
            tell(line)

    try:
        yield Watcher(beside, bar, lambda total, n: epoch_table(beside, tracker, total, n))
    finally:
        for shown in bars:
            shown.close()


def epoch_table(tell: Callable[[str], None], tracker: Tracker | None, total: int, n: int) -> Callable[[Epoch], None]:
    """A line for each epoch: losses, held-out accuracy with its 95 % interval, the pace, and the time left if all
    epochs are needed."""
    names, widths = ("epoch", "loss", "held-out", "accuracy", "rate", "images/s", "left, s"), (7, 7, 8, 20, 8, 8, 8)
    last, done = [time.perf_counter()], [0]

    def line(epoch: Epoch) -> None:
        now = time.perf_counter()
        seconds, last[0], done[0] = now - last[0], now, done[0] + 1
        if done[0] == 1:
            tell(" ".join(f"{name:>{width}s}" for name, width in zip(names, widths, strict=True)))
        held, accuracy, pace = epoch.held_out_loss, epoch.held_out_accuracy, n / seconds
        cells = (
            f"{done[0]}/{total}",
            f"{epoch.loss:.3f}",
            "" if held is None else f"{held:.3f}",
            "" if accuracy is None else f"{accuracy:.1%}{_between(epoch.held_out_low, epoch.held_out_high)}",
            f"{epoch.rate:.1e}",
            f"{pace:.0f}",
            f"{seconds * (total - done[0]):.0f}",
        )
        tell(" ".join(f"{cell:>{width}s}" for cell, width in zip(cells, widths, strict=True)))
        if tracker:
            values = {"loss": epoch.loss, "learning_rate": epoch.rate, "images_per_second": pace}
            known = {"held_out_loss": held, "held_out_accuracy": accuracy}
            tracker.epoch(done[0], values | {name: value for name, value in known.items() if value is not None})

    return line


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"


def quiet_libraries() -> None:
    """Keep other libraries' chatter off the user's terminal."""
    import logging
    import warnings

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a name is no reason to fail
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="headstart: %(message)s", stream=sys.stderr)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "0" if shown_to_somebody() else "1")

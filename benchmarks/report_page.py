"""The page of a fit: its bytes, and what the reasons beside the worst mistakes cost.

    python benchmarks/report_page.py [--cache FOLDER] [--only SET ...]

Every set is fitted twice, so that all features are stored at the second time, which is the fit that costs are held
against: CPU seconds of this process. "looks like": the nearest training image of each mistake, in every fit. "where it
looked": the overlays of `fit --explain`, the first time (the network that gives maps is traced and compiled) and again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import Target

from headstart.data.table import Table, read_table
from headstart.story import pictures, pipeline, publish, reasons
from headstart.story.options import Options

FOLDERS = ("hymenoptera", "brain_mri_yes_no", "eurosat_3000")
CIFAR = "cifar10, 5,000 images"
MOST_BYTES, MOST_SHARE = 3_000_000, 0.03


def table_of(data: Path, name: str) -> Table:
    if name != CIFAR:
        return read_table(data / name)
    table = read_table(data / "cifar10")
    train = np.flatnonzero(table.splits == "train")
    return table.take(train[np.random.default_rng(0).permutation(len(train))[:5000]])


def timed(do: Callable[[], Any]) -> tuple[float, Any]:
    """(CPU s, what it gave)."""
    start = time.process_time()
    found = do()
    return time.process_time() - start, found


def one(table: Table, cache: str) -> dict[str, float]:
    options = Options(cache=Path(cache))
    pipeline.fit(table, options)
    spent, fitted = timed(lambda: pipeline.fit(table, options))
    places = fitted.method.task.galleries(fitted.verdict.marks)["worst"][: pictures.GALLERY]
    rows = fitted.verdict.rows[places]
    likes, _ = timed(lambda: reasons.look_likes(fitted, rows))
    first, _ = timed(lambda: reasons.overlays_of(fitted, rows))
    again, _ = timed(lambda: reasons.overlays_of(fitted, rows))
    size = {}
    for explain in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            publish.save(fitted, Path(folder) / "model", "set", "headstart fit set", explain)
            size[explain] = (Path(folder) / "model" / "report.html").stat().st_size
    return {
        "fit": spent, "mistakes": len(rows), "likes": likes, "first": first, "again": again,
        "bytes": size[False], "bytes explained": size[True],
    }  # fmt: skip


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--cache", help="a folder that is kept (default: one for this run)")
    parser.add_argument("--only", nargs="+", choices=(*FOLDERS, CIFAR), default=(*FOLDERS, CIFAR))
    options = parser.parse_args()
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            values[name] = found = one(table_of(options.data, name), options.cache or folder)
            shares = [f"{found[k] / found['fit']:.1%}" for k in ("likes", "first", "again")]
            sizes = [f"{found[k] / 1e6:.2f}" for k in ("bytes", "bytes explained")]
            rows.append([name, str(found["mistakes"]), *shares, *sizes])
            print(*rows[-1], sep=" | ", flush=True)
    largest = max(found["bytes explained"] for found in values.values())
    share = max(found["likes"] / found["fit"] for found in values.values())
    targets = [
        Target("bytes of the largest page, explained", largest, None, MOST_BYTES),
        Target("largest share of a fit that 'looks like' takes", share, None, MOST_SHARE),
    ]
    header = (
        "set",
        "mistakes shown",
        "looks like",
        "where it looked, first",
        "again",
        "page, MB",
        "with --explain, MB",
    )
    measure.publish(
        options, __doc__ or "", [measure.Table("Shares of a fit's CPU seconds", header, rows)], targets, values
    )


if __name__ == "__main__":
    main()

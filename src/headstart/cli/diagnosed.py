"""What the terminal says of a classifier as doctors ask it: AUROC, kappa, MCC, sensitivity at a specificity."""

from __future__ import annotations

from typing import Any

from headstart.judge.marks import Interval, Score


def summary_line(score: Score) -> str | None:
    """With two classes one line: AUROC, and the sensitivity at 95 % specificity; else None."""
    found = score.tables.get("diagnostic")
    if found is None or not found.get("operating"):
        return None
    row = next(row for row in found["operating"] if (row["asked"], row["share"]) == ("specificity", 0.95))
    return (
        f"AUROC {_number(found['auroc'])}; {found['positive']}: {_share(row['sensitivity'])} found "
        f"at 95% specificity (reached: {row['specificity']['value']:.1%})"
    )


def diagnostic_lines(score: Score) -> list[str]:
    """All of it, for `evaluate`."""
    found = score.tables.get("diagnostic")
    if found is None:
        return []
    names = {"auroc": "AUROC" if "positive" in found else "mean AUROC", "kappa": "kappa", "mcc": "MCC"}
    lines = [f"{said:18s} {_number(found[name])}" for name, said in names.items() if found[name]["value"] is not None]
    if "positive" in found:
        lines.insert(0, f"{'positive':18s} {found['positive']} ({found['share']:.1%} of these images)")
        if found["average_precision"]["value"] is not None:
            lines.append(f"{'AUPRC':18s} {_number(found['average_precision'])}; by chance {found['share']:.3f}")
    lines += [_row(row) for row in found.get("operating", ())]
    return lines + ([f"note: {found['missing']}"] if found["missing"] else [])


def _row(row: dict[str, Any]) -> str:
    asked = f"{row['asked']} {row['share']:.0%}"
    reached = ", ".join(f"{name} {_share(row[name])}" for name in ("sensitivity", "specificity"))
    return f"{asked:18s} {reached} at probability {row['threshold']:.3g}, chosen on {row['chosen_on']}"


def _number(cell: Interval) -> str:
    return "unknown" if cell["value"] is None else f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def _share(cell: Interval) -> str:
    return "unknown" if cell["value"] is None else f"{cell['value']:.1%} [{cell['low']:.1%}, {cell['high']:.1%}]"

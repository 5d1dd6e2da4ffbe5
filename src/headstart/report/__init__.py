"""Results in, pages out: one self-contained HTML file, and the model card of the bundle.

`ReportData` is plain data that the pipeline fills; `render_report` and `render_card` are pure functions of it.
"""

from __future__ import annotations

from headstart.report.card import render_card
from headstart.report.content import (
    Acceptance,
    Baseline,
    Candidate,
    ClassHeld,
    Column,
    Confidence,
    Copy,
    CurvePoint,
    Detection,
    DuplicateGroup,
    Groups,
    Like,
    Measured,
    Network,
    OneGroup,
    Picture,
    ReliabilityBin,
    ReportData,
    RiskPoint,
    Setting,
    Shift,
    Shortcut,
    TimmView,
    Unlike,
)
from headstart.report.page import render_report
from headstart.report.sheet import render_sheet

__all__ = [
    "Acceptance",
    "Baseline",
    "Candidate",
    "ClassHeld",
    "Column",
    "Confidence",
    "Copy",
    "CurvePoint",
    "Detection",
    "DuplicateGroup",
    "Groups",
    "Like",
    "Measured",
    "Network",
    "OneGroup",
    "Picture",
    "ReliabilityBin",
    "ReportData",
    "RiskPoint",
    "Setting",
    "Shift",
    "Shortcut",
    "TimmView",
    "Unlike",
    "render_card",
    "render_report",
    "render_sheet",
]

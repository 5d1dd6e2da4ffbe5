"""A pre-trained network, and what it says of images."""

from __future__ import annotations

import sys

# OpenVINO's tools report their use over the network where this package is present: their import finds it absent.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

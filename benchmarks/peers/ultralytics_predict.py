"""Labels of a folder of pictures by a saved Ultralytics model."""

import csv
import sys
from pathlib import Path

from ultralytics import YOLO

saved, pictures, answers = sys.argv[1:]
model = YOLO(f"runs/classify/{saved}/run/weights/best.pt")
with Path(answers).open("w", newline="") as file:
    for result in model.predict(pictures, stream=True):
        csv.writer(file).writerow([result.path, result.names[result.probs.top1]])

"""Labels of a folder of pictures by a saved LightlyTrain model."""

import csv
import sys
from pathlib import Path

import lightly_train

saved, pictures, answers = sys.argv[1:]
model = lightly_train.load_model(f"{saved}/exported_models/exported_best.pt")
with Path(answers).open("w", newline="") as file:
    for path in sorted(Path(pictures).iterdir()):
        label = model.classes[int(model.predict(path)["labels"][0])]
        csv.writer(file).writerow([path, label])

"""Labels of a folder of pictures by a saved Keras model."""

import csv
import sys
from pathlib import Path

import keras

saved, pictures, answers = sys.argv[1:]
model = keras.models.load_model(f"{saved}.keras")
classes = Path(f"{saved}.txt").read_text().splitlines()
images = keras.utils.image_dataset_from_directory(pictures, labels=None, shuffle=False, image_size=(224, 224))
found = model.predict(images).argmax(axis=1)
with Path(answers).open("w", newline="") as file:
    csv.writer(file).writerows((path, classes[c]) for path, c in zip(images.file_paths, found, strict=True))

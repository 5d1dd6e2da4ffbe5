"""Labels of a folder of pictures by an exported fastai learner."""

import csv
import sys
from pathlib import Path

from fastai.vision.all import get_image_files, load_learner

saved, pictures, answers = sys.argv[1:]
learn = load_learner(saved)
paths = get_image_files(pictures)
found = learn.get_preds(dl=learn.dls.test_dl(paths))[0].argmax(dim=1)
with Path(answers).open("w", newline="") as file:
    csv.writer(file).writerows((path, learn.dls.vocab[c]) for path, c in zip(paths, found, strict=True))

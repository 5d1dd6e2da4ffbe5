"""LightlyTrain's image classification."""

import sys
from pathlib import Path

import lightly_train

STEPS = 100_000
data, saved = sys.argv[1:]
classes = sorted(path.name for path in Path(data, "train").iterdir() if path.is_dir())
lightly_train.train_image_classification(
    out=saved,
    model="timm/tf_efficientnet_lite0",
    data={"train": f"{data}/train", "val": f"{data}/val", "classes": dict(enumerate(classes))},
    steps=STEPS,
)

"""AutoGluon MultiModal, preset `medium_quality`."""

import sys
from pathlib import Path

import pandas as pd
from autogluon.multimodal import MultiModalPredictor

EPOCHS = 20
data, saved = sys.argv[1:]
parts = {}
for part in ("train", "val"):
    paths = sorted(Path(data, part).glob("*/*"))
    parts[part] = pd.DataFrame({"image": [str(path) for path in paths], "label": [path.parent.name for path in paths]})
predictor = MultiModalPredictor(label="label", path=saved, presets="medium_quality")
network = {"model.timm_image.checkpoint_name": "tf_efficientnet_lite0", "optim.max_epochs": EPOCHS}
predictor.fit(parts["train"], hyperparameters=network)
print(predictor.evaluate(parts["val"]))

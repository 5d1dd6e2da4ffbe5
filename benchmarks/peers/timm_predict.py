"""Labels of a folder of pictures by the weights that the timm loop saved."""

import csv
import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

saved, pictures, answers = sys.argv[1:]
kept = torch.load(saved)
model = timm.create_model("tf_efficientnet_lite0", num_classes=len(kept["classes"])).eval()
model.load_state_dict(kept["weights"])
steps = create_transform(**resolve_model_data_config(model), is_training=False)
with Path(answers).open("w", newline="") as file, torch.no_grad():
    for path in sorted(Path(pictures).iterdir()):
        image = steps(Image.open(path).convert("RGB"))
        csv.writer(file).writerow([path, kept["classes"][int(model(image[None]).argmax())]])

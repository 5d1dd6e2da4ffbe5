"""Labels of a folder of pictures by the weights that the PyTorch tutorial saved."""

import csv
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

saved, pictures, answers = sys.argv[1:]
kept = torch.load(saved)
model = models.mobilenet_v2()
model.classifier[1] = nn.Linear(model.classifier[1].in_features, len(kept["classes"]))
model.load_state_dict(kept["weights"])
model.eval()
steps = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
with Path(answers).open("w", newline="") as file, torch.no_grad():
    for path in sorted(Path(pictures).iterdir()):
        image = steps(Image.open(path).convert("RGB"))
        csv.writer(file).writerow([path, kept["classes"][int(model(image[None]).argmax())]])

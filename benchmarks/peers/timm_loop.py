"""timm by its documentation: the network's own transforms, AdamW with layer decay, a cosine schedule, plain loop."""

import sys

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torchvision.datasets import ImageFolder

EPOCHS = 10
data, saved = sys.argv[1:]
model = timm.create_model("tf_efficientnet_lite0", pretrained=True)
config = resolve_model_data_config(model)
train = ImageFolder(f"{data}/train", create_transform(**config, is_training=True))
val = ImageFolder(f"{data}/val", create_transform(**config, is_training=False))
model.reset_classifier(len(train.classes))
loader = torch.utils.data.DataLoader(train, batch_size=32, shuffle=True, num_workers=2)
optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.05, layer_decay=0.75)
scheduler = CosineLRScheduler(optimizer, t_initial=EPOCHS, warmup_t=1, warmup_lr_init=1e-5)
for epoch in range(EPOCHS):
    scheduler.step(epoch)
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
model.eval()
with torch.no_grad():
    batches = torch.utils.data.DataLoader(val, batch_size=32, num_workers=2)
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)
print(f"val accuracy {right / len(val):.4f}")
torch.save({"classes": train.classes, "weights": model.state_dict()}, saved)

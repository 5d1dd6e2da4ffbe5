"""PyTorch's transfer learning tutorial, first half: every layer learns; the best of 25 epochs on val/ is kept."""

import sys

import torch
from torch import nn, optim
from torch.optim import lr_scheduler
from torchvision import datasets, models, transforms

EPOCHS = 25
data, saved = sys.argv[1:]
normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
steps = {
    "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
    "val": [transforms.Resize(256), transforms.CenterCrop(224)],
}
sets = {
    part: datasets.ImageFolder(f"{data}/{part}", transforms.Compose([*steps[part], transforms.ToTensor(), normalize]))
    for part in ("train", "val")
}
loaders = {
    part: torch.utils.data.DataLoader(sets[part], batch_size=4, shuffle=True, num_workers=4)
    for part in ("train", "val")
}
classes = sets["train"].classes
model = models.mobilenet_v2(weights="IMAGENET1K_V1")
model.classifier[1] = nn.Linear(model.classifier[1].in_features, len(classes))
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
scheduler = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
best = 0.0
for epoch in range(EPOCHS):
    for part in ("train", "val"):
        model.train(part == "train")
        loss_sum, right = 0.0, 0
        for inputs, labels in loaders[part]:
            optimizer.zero_grad()
            with torch.set_grad_enabled(part == "train"):
                outputs = model(inputs)
                loss = criterion(outputs, labels)
                if part == "train":
                    loss.backward()
                    optimizer.step()
            loss_sum += loss.item() * len(inputs)
            right += int((outputs.argmax(1) == labels).sum())
        if part == "train":
            scheduler.step()
        accuracy = right / len(sets[part])
        print(f"{epoch} {part} loss {loss_sum / len(sets[part]):.4f} accuracy {accuracy:.4f}")
        if part == "val" and accuracy > best:
            best = accuracy
            torch.save({"classes": classes, "weights": model.state_dict()}, saved)
print(f"best val accuracy {best:.4f}")

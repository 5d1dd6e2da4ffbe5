"""fastai as its book fits a set of one's own: random crops, `aug_transforms`, `fine_tune(4)`."""

import sys
from pathlib import Path

from fastai.vision.all import ImageDataLoaders, RandomResizedCrop, aug_transforms, error_rate, vision_learner

EPOCHS = 4
data, saved = sys.argv[1:]
crop = RandomResizedCrop(224, min_scale=0.5)
dls = ImageDataLoaders.from_folder(data, train="train", valid="val", item_tfms=crop, batch_tfms=aug_transforms())
learn = vision_learner(dls, "tf_efficientnet_lite0", metrics=error_rate)
learn.fine_tune(EPOCHS)
learn.export(Path(saved).absolute())

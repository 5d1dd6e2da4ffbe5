"""embetter: a scikit-learn pipeline of a loader, a network and logistic regression."""

import sys
from pathlib import Path

import joblib
import pandas as pd
from embetter.grab import ColumnGrabber
from embetter.vision import ImageLoader, TimmEncoder
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

data, saved = sys.argv[1:]
parts = {}
for part in ("train", "val"):
    paths = sorted(Path(data, part).glob("*/*"))
    parts[part] = pd.DataFrame({"path": [str(path) for path in paths], "label": [path.parent.name for path in paths]})
pipe = make_pipeline(
    ColumnGrabber("path"), ImageLoader(), TimmEncoder("tf_efficientnet_lite0"), LogisticRegression(max_iter=1000)
)
pipe.fit(parts["train"], parts["train"]["label"])
print("val accuracy", pipe.score(parts["val"], parts["val"]["label"]))
joblib.dump(pipe, saved)

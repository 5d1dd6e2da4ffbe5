"""Labels of a folder of pictures by a saved embetter pipeline."""

import sys
from pathlib import Path

import joblib
import pandas as pd

saved, pictures, answers = sys.argv[1:]
images = pd.DataFrame({"path": [str(path) for path in sorted(Path(pictures).iterdir())]})
images["label"] = joblib.load(saved).predict(images)
images.to_csv(answers, header=False, index=False)

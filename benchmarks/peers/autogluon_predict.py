"""Labels of a folder of pictures by a saved AutoGluon predictor."""

import sys
from pathlib import Path

import pandas as pd
from autogluon.multimodal import MultiModalPredictor

saved, pictures, answers = sys.argv[1:]
images = pd.DataFrame({"image": [str(path) for path in sorted(Path(pictures).iterdir())]})
images["label"] = MultiModalPredictor.load(saved).predict(images)
images.to_csv(answers, header=False, index=False)

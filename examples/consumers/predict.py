"""What an exported classifier says of pictures: python predict.py EXPORT PICTURE... See README.md."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

folder, files = sys.argv[1], sys.argv[2:]
export = json.loads(Path(folder, "export.json").read_text(encoding="utf-8"))
about, asked = export["about"], export["about"]["preprocess"]
if export["format"] == "onnx":
    from onnxruntime import InferenceSession

    session = InferenceSession(f"{folder}/model.onnx")
    run = lambda pixels: session.run(None, {"pixels": pixels})[0]  # noqa: E731
elif export["format"] == "openvino":
    from openvino import compile_model

    run = compile_model(f"{folder}/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
else:
    from ai_edge_litert.interpreter import Interpreter

    step = Interpreter(f"{folder}/model.tflite").get_signature_runner()
    run = lambda pixels: step(pixels=pixels)["answers"]  # noqa: E731
for file in files:  # upright, on white, the middle at the model's size: first across, then down
    above = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    full, size, how = np.array(picture.size), np.array(asked["size"][::-1]), asked["interpolation"].upper()
    cut = (np.round(size / asked["crop_fraction"]) / full).max()
    scale = {"shortest": cut, "squash": size / full, "pad": (size / full).min()}[asked["resize"]]
    reach, border = np.minimum(full, size / scale) / 2, ((size - scale * full) / 2).round().clip(0, (size - 1) // 2)
    (left, top), (right, bottom), (width, height) = full / 2 - reach, full / 2 + reach, (size - 2 * border).astype(int)
    picture = picture.resize((width, picture.height), Image.Resampling[how], (left, 0, right, picture.height))
    picture = picture.resize((width, height), Image.Resampling[how], (0, top, width, bottom))
    picture = ImageOps.expand(picture, tuple(map(int, border)), tuple(round(255 * value) for value in asked["mean"]))
    p, rule = np.asarray(run(np.asarray(picture)[None])[0]).reshape(-1), about["rule"]
    worth = -p @ np.reshape(rule["costs"], (len(p), -1)) if "costs" in rule else p * rule.get("weights", 1)
    print(file, about["names"][worth.argmax()], f"{p[worth.argmax()]:.6f}", sep="\t")

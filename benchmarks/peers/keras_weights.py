"""torchvision's MobileNetV2 as the file that `keras.applications.MobileNetV2(weights="imagenet")` looks for.

    PYTHON-OF-KERAS benchmarks/peers/keras_weights.py WEIGHTS.npz KERAS_HOME

WEIGHTS.npz holds the arrays of torchvision's state dict in its order. Not a part of what a user writes: his Keras
fetches its own. What differs between the two is put into the numbers: BatchNorm's epsilon (1e-5 there, 1e-3 here)
into gamma, and the scale of pixels ((x / 255 - mean) / std there, x / 127.5 - 1 here) into the first convolution and
the mean behind it. What stays is where a convolution of stride 2 begins: Keras pads on the right and below alone, so
that its maps lie one pixel beside torchvision's, and the grey that is padded with.
"""

import sys
from pathlib import Path

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format

NAME = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
THERE, HERE = 1e-5, 1e-3  # BatchNorm's epsilon

source, home = sys.argv[1:]
values = [array for name, array in np.load(source).items() if "num_batches" not in name and "classifier" not in name]
network = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(224, 224, 3))
shift = np.zeros(1)
for layer in network.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        gamma, beta, mean, variance = (values.pop(0) for _ in range(4))
        layer.set_weights([gamma * np.sqrt((variance + HERE) / (variance + THERE)), beta, mean - shift, variance])
        shift = np.zeros(1)
    elif layer.weights:
        kernel = values.pop(0)  # (out, in, height, width)
        if layer.name == "Conv1":
            shift = (kernel * ((0.5 - MEAN) / STD)[:, None, None]).sum(axis=(1, 2, 3))
            kernel = kernel / (2 * STD)[:, None, None]
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        layer.set_weights([kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))])
assert not values
folder = Path(home, "models")
folder.mkdir(parents=True, exist_ok=True)
with h5py.File(folder / NAME, "w") as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, network)

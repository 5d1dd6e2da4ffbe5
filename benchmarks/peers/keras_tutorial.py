"""The first tutorial's script: a frozen network, pooled, a dense layer above it, ten epochs of Adam."""

import sys
from pathlib import Path

import keras
from keras import layers
from keras.applications.mobilenet_v2 import MobileNetV2, preprocess_input

EPOCHS = 10
data, saved = sys.argv[1:]
train = keras.utils.image_dataset_from_directory(f"{data}/train", image_size=(224, 224), batch_size=32)
val = keras.utils.image_dataset_from_directory(f"{data}/val", image_size=(224, 224), batch_size=32)
classes = train.class_names
base = MobileNetV2(weights="imagenet", include_top=False, input_shape=(224, 224, 3))
base.trainable = False
inputs = keras.Input((224, 224, 3))
x = base(preprocess_input(inputs), training=False)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
x = layers.Dense(128, activation="relu")(x)
model = keras.Model(inputs, layers.Dense(len(classes), activation="softmax")(x))
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=val, epochs=EPOCHS)
model.save(f"{saved}.keras")
Path(f"{saved}.txt").write_text("\n".join(classes))

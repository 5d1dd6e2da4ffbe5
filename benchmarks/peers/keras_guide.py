"""The Keras guide on transfer learning: augmented views, a frozen network, then all of it at a rate of 1e-5."""

import sys
from pathlib import Path

import keras
from keras import layers

EPOCHS = 10
data, saved = sys.argv[1:]
train = keras.utils.image_dataset_from_directory(f"{data}/train", image_size=(224, 224), batch_size=64)
val = keras.utils.image_dataset_from_directory(f"{data}/val", image_size=(224, 224), batch_size=64)
classes = train.class_names
base = keras.applications.MobileNetV2(weights="imagenet", include_top=False, input_shape=(224, 224, 3))
base.trainable = False
inputs = keras.Input((224, 224, 3))
x = layers.RandomFlip("horizontal")(inputs)
x = layers.RandomRotation(0.1)(x)
x = layers.Rescaling(scale=1 / 127.5, offset=-1)(x)
x = base(x, training=False)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
model = keras.Model(inputs, layers.Dense(len(classes), activation="softmax")(x))
model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=val, epochs=EPOCHS)
base.trainable = True
model.compile(keras.optimizers.Adam(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=val, epochs=EPOCHS)
model.save(f"{saved}.keras")
Path(f"{saved}.txt").write_text("\n".join(classes))

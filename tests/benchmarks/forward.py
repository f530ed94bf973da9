"""Normalised images in, seconds out: the forward pass of the convnet that the Keras examples have, the usual measure.

This file imports nothing of the other benchmarks, so that those that are run as scripts can use it.
"""

import os
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

from batchdigits.inference.runtimes import start_tensorflow
from batchdigits.records import SIDE, InkImages
from batchdigits.settings import PredictSettings
from batchdigits.training.datasets.shipped import mnist

BATCH = PredictSettings(sources=()).batch_size
"""Images of one prediction."""
CONVNET = "convnet of the Keras examples"


@cache
def keras_convnet() -> Any:
    """Build the small convnet of the Keras examples, once in this process.

    Its weights are untrained, which changes no speed. The example divides by 255 before the model; here that is its
    first layer.

    Source: https://keras.io/examples/vision/mnist_convnet/
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


def convnet_forward(count: int) -> float:
    """Predict images in whole batches with the convnet, compiled as the program compiles its model: seconds."""
    function = convnet_function()
    started = time.perf_counter()
    for pixels in whole_batches(count):
        function(pixels).numpy()
    return time.perf_counter() - started


@cache
def convnet_function() -> Any:
    """Compile the convnet for uint8[BATCH, 28, 28], once in this process."""
    tensorflow = start_tensorflow()
    model = keras_convnet()
    return tensorflow.function(
        lambda pixels: model(tensorflow.cast(pixels, "float32")[..., None], training=False),
        [tensorflow.TensorSpec((BATCH, SIDE, SIDE), tensorflow.uint8)],
        autograph=False,
    )


def whole_batches(count: int) -> Iterator[InkImages]:
    """Give the first images of MNIST's test half, uint8[BATCH, 28, 28] at a time; those that fill no batch are left."""
    pixels = test_pixels()
    return (pixels[start : start + BATCH] for start in range(0, count // BATCH * BATCH, BATCH))


@cache
def test_pixels() -> InkImages:
    """Unpack MNIST's test half, once in this process."""
    return mnist("test")[0]

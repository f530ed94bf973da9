"""Build the networks: an untrained Keras model for each `Arch`.

Each takes pictures as they are, uint8: the channel axis and the rescaling are layers inside the model, so that no
caller can forget them. Keras is imported when called.
"""

from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from batchdigits.records import BLANK, DIGITS, KINDS, LOOK_CELLS, SIDE
from batchdigits.settings import Arch

if TYPE_CHECKING:
    import keras
    from keras import KerasTensor

OUTPUTS = {Arch.CNN: BLANK + 1, Arch.TEACHER: BLANK + 1, Arch.DENSE: DIGITS, Arch.FINDER: LOOK_CELLS**2 + len(KINDS)}
"""What each architecture gives for a picture: logits of the digits, and of what the gate uses; the finder's ink and
kinds."""

_NORM = "_norm"
_PATCH = 4  # cells across and down that the finder tells ink of at once


def build(arch: Arch, *, folded: bool = False) -> "keras.Model":
    """Build an untrained model.

    Args:
        arch: `cnn` is the network that ships, `teacher` the larger one that it learns from; `dense` is the classic
            tutorial's. `finder` finds ink.
        folded: Without batch normalisation: what `fold` fills, for predicting only.

    Returns:
        uint8[N, 28, 28] -> logits float32[N, `OUTPUTS[arch]`]. The finder: looks uint8[N, 64, 64, 3] -> float32[N,
        4100], each cell's ink and four kinds: all logits, but for a folded one's ink, which is 0 to 1.
    """
    import keras

    if arch is Arch.FINDER:
        pictures = keras.Input((LOOK_CELLS, LOOK_CELLS, 3), dtype="uint8")
        return keras.Model(pictures, _finder(_Builder(folded), pictures), name=arch.value)
    pictures = keras.Input((SIDE, SIDE), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(pictures)
    if arch is Arch.DENSE:
        features = _dense(scaled)
    else:
        grey = keras.layers.Reshape((SIDE, SIDE, 1))(scaled)
        features = {Arch.CNN: _cnn, Arch.TEACHER: _teacher}[arch](_Builder(folded), grey)
    logits = keras.layers.Dense(OUTPUTS[arch], name="logits", dtype="float32")(features)
    return keras.Model(pictures, logits, name=arch.value)


def fold(model: "keras.Model", arch: Arch) -> "keras.Model":
    """Copy a model, each batch normalisation merged into the convolution before it: the same function with less to do.

    Args:
        model: A trained model as `build(arch)` gives it; it stays as it is.
        arch: Its architecture.
    """
    result = build(arch, folded=True)
    layers = {layer.name: layer for layer in model.layers}
    for layer in result.layers:
        if not layer.weights:
            continue
        weights = layers[layer.name].get_weights()
        if norm := layers.get(layer.name + _NORM):
            gamma, beta, mean, variance = norm.get_weights()
            scale = gamma / np.sqrt(variance + norm.epsilon)
            weights = [weights[0] * scale, beta - mean * scale]  # the kernel's last axis is the filter
        layer.set_weights(weights)
    return result


class _Builder:
    """Adds layers that bear the same names in a model with and without batch normalisation."""

    def __init__(self, folded: bool) -> None:
        self.folded = folded
        self._numbers = count(1)

    def convolution(
        self, maps: "KerasTensor", filters: int, size: int = 3, *, strides: int = 1, padding: str = "same"
    ) -> "KerasTensor":
        """Convolve, normalise, and keep what is above 0."""
        from keras.layers import ReLU

        return ReLU()(self.linear(maps, filters, size, strides=strides, padding=padding))

    def linear(
        self, maps: "KerasTensor", filters: int, size: int, *, strides: int = 1, padding: str = "same"
    ) -> "KerasTensor":
        """Convolve and normalise."""
        from keras.layers import BatchNormalization, Conv2D

        name = f"convolution_{next(self._numbers)}"
        maps = Conv2D(filters, size, strides=strides, padding=padding, use_bias=self.folded, name=name)(maps)
        return maps if self.folded else BatchNormalization(name=name + _NORM)(maps)


def _cnn(add: _Builder, maps: "KerasTensor") -> "KerasTensor":
    """Three convolutions, two of which halve the image: most of what so few multiplications can learn.

    The first one is not padded, and does not look at the last row and column, which are almost always empty.
    """
    from keras.layers import Dense, Flatten

    maps = add.convolution(maps, 16, 5, strides=2, padding="valid")  # -> [N, 12, 12, 16]
    maps = add.convolution(maps, 48, strides=2)  # -> [N, 6, 6, 48]
    maps = add.convolution(maps, 48, padding="valid")  # -> [N, 4, 4, 48]
    return Dense(96, activation="relu", name="features")(Flatten()(maps))


def _teacher(add: _Builder, maps: "KerasTensor") -> "KerasTensor":
    """45 times the multiplications, residual blocks, and dropout."""
    from keras.layers import Dense, Dropout, Flatten

    maps = add.convolution(maps, 32, 5)  # -> [N, 28, 28, 32]
    maps = add.convolution(maps, 32, strides=2)  # -> [N, 14, 14, 32]
    maps = _residual(add, maps, 64)
    maps = _residual(add, maps, 96, strides=2)  # -> [N, 7, 7, 96]
    maps = _residual(add, maps, 96)
    maps = add.convolution(maps, 128, padding="valid")  # -> [N, 5, 5, 128]
    features = Dense(160, activation="relu", name="features")(Dropout(0.3)(Flatten()(maps)))
    return Dropout(0.3)(features)


def _residual(add: _Builder, maps: "KerasTensor", filters: int, *, strides: int = 1) -> "KerasTensor":
    """Two convolutions beside a way around them.

    Source: He, Zhang, Ren, Sun, «Deep residual learning for image recognition», CVPR 2016.
    """
    from keras.layers import Add, ReLU

    learnt = add.linear(add.convolution(maps, filters, strides=strides), filters, 3)
    if strides > 1 or maps.shape[-1] != filters:
        maps = add.linear(maps, filters, 1, strides=strides)
    return ReLU()(Add()([learnt, maps]))


def _finder(add: _Builder, looks: "KerasTensor") -> "KerasTensor":
    """Reduce to 4×4 and come back to 16×16, each of whose places tells the ink of 4×4 cells.

    Its filters come in multiples of 16, which processors multiply at once, and it does most of its work on small maps:
    so it takes half the time of a network that comes back to 64×64.

    Source: U-Net: Ronneberger, Fischer, Brox, MICCAI 2015; sub-pixel convolution: Shi et al., CVPR 2016.
    """
    from keras import layers

    maps = layers.Rescaling(1 / 64, offset=-2)(looks)
    maps = add.convolution(maps, 16, 5, strides=2)  # -> [N, 32, 32, 16]
    maps = add.convolution(maps, 32, strides=2)  # -> [N, 16, 16, 32]
    fine = add.convolution(maps, 32)
    maps = add.convolution(fine, 64, strides=2)  # -> [N, 8, 8, 64]
    coarse = add.convolution(maps, 64)
    maps = add.convolution(coarse, 64, strides=2)  # -> [N, 4, 4, 64]
    maps = add.convolution(maps, 64)
    whole = [
        layers.GlobalAveragePooling2D()(maps),
        layers.GlobalMaxPooling2D()(maps),
        layers.GlobalMaxPooling2D()(coarse),
    ]
    features = layers.Dense(48, activation="relu", name="features")(layers.Concatenate()(whole))
    kinds = layers.Dense(len(KINDS), name="kinds", dtype="float32")(features)
    maps = layers.Add()([coarse, layers.UpSampling2D()(layers.Conv2D(64, 1, name="to_coarse")(maps))])
    maps = add.convolution(maps, 64)
    maps = layers.Add()([fine, layers.UpSampling2D()(layers.Conv2D(32, 1, name="to_fine")(maps))])
    maps = add.convolution(maps, 32)
    side = LOOK_CELLS // _PATCH
    ink = layers.Conv2D(_PATCH**2, 3, padding="same", name="ink", dtype="float32")(maps)  # -> [N, 16, 16, 16]
    ink = layers.Permute((1, 3, 2, 4))(layers.Reshape((side, side, _PATCH, _PATCH))(ink))
    ink = layers.Reshape((LOOK_CELLS**2,))(ink)
    if add.folded:
        ink = layers.Activation("sigmoid")(ink)
    return layers.Concatenate(dtype="float32")([ink, kinds])


def _dense(scaled: "KerasTensor") -> "KerasTensor":
    """Two hidden layers of 50, as the classic MNIST tutorial has them; its sigmoid outputs are logits here."""
    from keras.layers import Dense, Flatten

    first = Dense(50, activation="relu", name="hidden_1")(Flatten()(scaled))
    return Dense(50, activation="relu", name="hidden_2")(first)

"""Pixels in, logits out: the only place, beside the training job, that loads TensorFlow.

One compiled function of one fixed shape serves every batch; a smaller batch is padded. So a row does not depend on
how many others there are.
"""

import os
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.bundle import Bundle
from batchdigits.errors import BundleError, shown
from batchdigits.normalisation import SIDE, InkImages

Logits = NDArray[np.float32]  # [N, K], K >= 10: the ten digits, then outputs that only the gate uses

DIGITS = 10
_THREADS = 1  # so that the processors are left to the decoding workers, and sums have one order on every machine


class Predictor:
    """A loaded model: a context manager with one verb, the call."""

    def __init__(self, bundle: Bundle, *, batch_size: int) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            bundle: The checked bundle.
            batch_size: Images in one call of the compiled function.
        """
        self._bundle = bundle
        self._batch_size = batch_size
        self._function: Any = None

    def __enter__(self) -> Self:
        """Start TensorFlow, load the model and compile it.

        Raises:
            BundleError: Keras cannot load the weights, or they do not fit the contract.
        """
        tensorflow = start_tensorflow()
        import keras

        try:
            model = keras.saving.load_model(self._bundle.weights, compile=False, safe_mode=True)
        except Exception as error:  # noqa: BLE001  Keras raises whatever its file reader raises
            message = f"Keras cannot load the model of the bundle {shown(str(self._bundle.directory))}: {error}"
            raise BundleError(message) from error
        if model.input_shape[1:] != (SIDE, SIDE) or model.output_shape[1:][:1] < (DIGITS,):
            message = (
                f"The model of the bundle {shown(str(self._bundle.directory))} takes {model.input_shape} and gives "
                f"{model.output_shape}, expected (None, {SIDE}, {SIDE}) and at least {DIGITS} outputs; use another."
            )
            raise BundleError(message)
        shape = (self._batch_size, SIDE, SIDE)
        signature = [tensorflow.TensorSpec(shape, tensorflow.uint8)]
        self._function = tensorflow.function(lambda pixels: model(pixels, training=False), signature, autograph=False)
        self._function(np.zeros(shape, np.uint8))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the model go."""
        self._function = None

    def __call__(self, pixels: InkImages) -> Logits:
        """Predict.

        Args:
            pixels: uint8[N, 28, 28], bright ink on 0; any N.

        Returns:
            float32[N, K].
        """
        parts = range(0, max(1, len(pixels)), self._batch_size)
        return np.concatenate([self._one_batch(pixels[start : start + self._batch_size]) for start in parts])

    def _one_batch(self, pixels: InkImages) -> Logits:
        padded = np.zeros((self._batch_size, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        logits: Logits = self._function(padded).numpy()
        return logits[: len(pixels)]


def start_tensorflow(threads: int = _THREADS) -> Any:  # noqa: ANN401  TensorFlow has no types
    """Import TensorFlow with a fixed number of intra-op threads; return its module."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    with suppress(RuntimeError):  # it runs already, as in a notebook, and keeps the threads that it has
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    return tensorflow

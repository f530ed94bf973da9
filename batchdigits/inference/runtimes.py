"""Run a model by TensorFlow or LiteRT: the only place, beside the training job, that loads either.

One function of one fixed shape serves every batch; a smaller batch is padded. So a row does not depend on how many
others there are. A further runtime is one more function like `_open_litert`, entered in `_OPENERS`.
"""

import importlib.metadata
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np

from batchdigits.errors import BundleError, UsageError, escaped
from batchdigits.inference.bundle import Bundle
from batchdigits.records import DIGITS, SIDE, InkImages, Logits
from batchdigits.settings import Runtime

_MOST_IMAGES = 256  # of one call; more at once are no quicker on a processor, and a few new ones would wait for all
_DISTRIBUTIONS = {Runtime.KERAS: "tensorflow", Runtime.LITERT: "ai-edge-litert"}
_NOT_INSTALLED = "The runtime litert is not installed; install batchdigits[litert], or use --runtime keras."

_Function = Callable[[InkImages], Logits]  # uint8[B, 28, 28] -> float32[B, K], B always the same


class Predictor:
    """A loaded model: a context manager with one verb, the call."""

    def __init__(self, bundle: Bundle, *, batch_size: int, runtime: Runtime = Runtime.KERAS, threads: int = 1) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            bundle: The checked bundle.
            batch_size: Images that come together; the function is compiled for as many, and not more than 256.
            runtime: What carries it out.
            threads: Within one call. One leaves the processors to the decoding workers.
        """
        self._bundle = bundle
        self._images_a_call = min(batch_size, _MOST_IMAGES)
        self._runtime = runtime
        self._threads = threads
        self._function: _Function | None = None

    def __enter__(self) -> Self:
        """Start the runtime and load the model.

        Raises:
            BundleError: The runtime cannot load the model, or that does not fit the contract.
            UsageError: The runtime is not installed.
        """
        self._function = _OPENERS[self._runtime](self._bundle, self._images_a_call, self._threads)
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
        parts = range(0, max(1, len(pixels)), self._images_a_call)
        return np.concatenate([self._one_batch(pixels[start : start + self._images_a_call]) for start in parts])

    def _one_batch(self, pixels: InkImages) -> Logits:
        assert self._function is not None, "the predictor was not entered"
        padded = np.zeros((self._images_a_call, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        return self._function(padded)[: len(pixels)]


def version(runtime: Runtime) -> str:
    """Name the package and the version of a runtime, which the last bits of logits depend on.

    Raises:
        UsageError: It is not installed.
    """
    name = _DISTRIBUTIONS[runtime]
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(_NOT_INSTALLED) from error


def start_tensorflow(threads: int = 1) -> Any:  # noqa: ANN401  TensorFlow has no types
    """Import TensorFlow with a fixed number of intra-op threads; return its module.

    A GPU that it sees gets memory as it is needed, not all of it at once.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    with suppress(RuntimeError):  # it runs already, as in a notebook, and keeps the threads that it has
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tensorflow.config.list_physical_devices("GPU"):
            tensorflow.config.experimental.set_memory_growth(gpu, True)
    return tensorflow


def _open_keras(bundle: Bundle, batch_size: int, threads: int) -> _Function:
    """Load the Keras model and compile it for one shape."""
    tensorflow = start_tensorflow(threads)
    import keras

    try:
        model = keras.saving.load_model(bundle.weights, compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001  Keras raises whatever its file reader raises
        message = f"Keras cannot load the model of the bundle {escaped(str(bundle.directory))}: {error}"
        raise BundleError(message) from error
    _check_shapes(bundle, model.input_shape[1:], model.output_shape[1:])
    signature = [tensorflow.TensorSpec((batch_size, SIDE, SIDE), tensorflow.uint8)]
    compiled = tensorflow.function(lambda pixels: model(pixels, training=False), signature, autograph=False)
    function = compiled.get_concrete_function()
    return lambda pixels: function(tensorflow.constant(pixels)).numpy()


def _open_litert(bundle: Bundle, batch_size: int, threads: int) -> _Function:
    """Open what training exported for LiteRT, for one shape."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UsageError(_NOT_INSTALLED) from error
    if bundle.exported is None:
        name = escaped(str(bundle.directory))
        message = f"The bundle {name} holds no model for litert; train it anew, or use --runtime keras."
        raise BundleError(message)
    try:
        interpreter = Interpreter(str(bundle.exported), num_threads=threads)
        ((at, shape),) = [(put["index"], put["shape"]) for put in interpreter.get_input_details()]
        ((out, outputs),) = [(put["index"], put["shape"]) for put in interpreter.get_output_details()]
        _check_shapes(bundle, tuple(shape[1:].tolist()), tuple(outputs[1:].tolist()))
        interpreter.resize_tensor_input(at, (batch_size, SIDE, SIDE))
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        message = f"LiteRT cannot open the model of the bundle {escaped(str(bundle.directory))}: {error}"
        raise BundleError(message) from error

    def predict(pixels: InkImages) -> Logits:
        interpreter.set_tensor(at, pixels)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(out), np.float32)

    return predict


_OPENERS = {Runtime.KERAS: _open_keras, Runtime.LITERT: _open_litert}


def _check_shapes(bundle: Bundle, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    """Check what a model takes and gives for one image.

    Raises:
        BundleError: It is not the contract.
    """
    if inputs != (SIDE, SIDE) or outputs[:1] < (DIGITS,):
        message = (
            f"The model of the bundle {escaped(str(bundle.directory))} takes {inputs} and gives {outputs} for an "
            f"image, expected ({SIDE}, {SIDE}) and at least ({DIGITS},); use another."
        )
        raise BundleError(message)

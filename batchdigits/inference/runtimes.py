"""Run the networks of a bundle: the only place, beside the training job, that loads a runtime, TensorFlow or LiteRT.

One function of one fixed shape serves every batch; a smaller batch is padded. So a row does not depend on how many
others there are. A further runtime is one more function like `_open_litert`, entered in `_OPENERS`.
"""

import gc
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import BundleError, UsageError, escaped
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.records import DIGITS, KINDS, LOOK_CELLS, SIDE, InkImages, Logits
from batchdigits.settings import Runtime

_MOST_IMAGES = {Runtime.KERAS: 256, Runtime.LITERT: 32}
"""Of one call; more at once are no quicker on a processor, and a few new ones would wait for all."""
_LOOKS_A_CALL = 8
_UNSURE_A_CALL = {Runtime.KERAS: 4, Runtime.LITERT: 2}  # the rest of a call is padded, and a chunk has but a few
_OTHER_THREADS = 16  # about as many as a run has beside those of its predictions
SURE = 0.85
"""The likeliest digit's share of all ten, 0 to 1, below which the teacher is asked, too. Another value gives other
logits: `bundle.ASKING` rises with it."""
_DISTRIBUTIONS = {Runtime.KERAS: "tensorflow", Runtime.LITERT: "ai-edge-litert"}
_NOT_INSTALLED = "The runtime litert is not installed; install batchdigits[litert], or use --runtime keras."

_Function = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # uint8[B, ...] -> float32[B, K], B always the same
_Opened = tuple[_Function, int]  # and K


class _Loaded:
    """A network of a bundle, loaded: a context manager."""

    def __init__(self, folder: Path, network: Network, images_a_call: int, runtime: Runtime, threads: int) -> None:
        """Name the network; nothing is loaded yet."""
        self._folder = folder
        self._network = network
        self._images_a_call = images_a_call
        self._runtime = runtime
        self._threads = threads
        self._function: _Function | None = None
        self.outputs = 0
        """How many numbers it gives for an image, once it is loaded."""

    def __enter__(self) -> Self:
        """Start the runtime and load the network.

        Raises:
            BundleError: The runtime cannot load the network, or that does not fit the contract.
            UsageError: The runtime is not installed.
        """
        open_network = _OPENERS[self._runtime]
        self._function, self.outputs = open_network(self._folder, self._network, self._images_a_call, self._threads)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the network go."""
        self._function = None

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network over any number of images, always in calls of the same size."""
        assert self._function is not None, "the network was not entered"
        size = self._images_a_call
        found = []
        for start in range(0, max(1, len(images)), size):
            some = images[start : start + size]
            if len(some) < size:
                padded = np.zeros((size, *images.shape[1:]), np.uint8)
                padded[: len(some)] = some
                found.append(self._function(padded)[: len(some)])
            else:
                found.append(self._function(some))
        return np.concatenate(found)


class Predictor:
    """The networks that read digits: a context manager with one verb, the call.

    The reader answers what it is sure of; what it is not, the teacher reads as well, by 45 times the multiplications,
    and the mean of their logits counts. A digit's answer depends on its own pixels alone.

    Source of asking a larger network only where a small one is unsure: Viola, Jones, «Rapid object detection using a
    boosted cascade of simple features», CVPR 2001; of the mean of two networks: Hansen, Salamon, «Neural network
    ensembles», IEEE Transactions on Pattern Analysis and Machine Intelligence 12 (1990) 993–1001.
    """

    def __init__(self, bundle: Bundle, *, batch_size: int, runtime: Runtime = Runtime.KERAS, threads: int = 1) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            bundle: The checked bundle.
            batch_size: The function is compiled for as many images, and for not more than `_MOST_IMAGES`.
            runtime: What carries it out.
            threads: Within one call. One leaves the processors to the decoding workers.
        """
        self._folder, size = bundle.directory, min(batch_size, _MOST_IMAGES[runtime])
        self._reader = _Loaded(bundle.directory, Network.READER, size, runtime, threads)
        self.teacher = (
            _Loaded(bundle.directory, Network.TEACHER, min(size, _UNSURE_A_CALL[runtime]), runtime, threads)
            if bundle.has(Network.TEACHER)
            else None
        )
        """What also reads the digits that the reader is unsure of; None where the bundle has none."""
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        """Start the runtime and load the networks.

        Raises:
            BundleError: The runtime cannot load a network, or that does not fit the contract.
            UsageError: The runtime is not installed.
        """
        with ExitStack() as entered:
            reader = entered.enter_context(self._reader)
            if self.teacher and entered.enter_context(self.teacher).outputs != reader.outputs:
                message = (
                    f"The networks of the bundle {escaped(str(self._folder))} give {reader.outputs} and "
                    f"{self.teacher.outputs} outputs, expected as many; use another."
                )
                raise BundleError(message)
            self._entered = entered.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the networks go."""
        self._entered.close()

    def __call__(self, pixels: InkImages) -> Logits:
        """Predict.

        Args:
            pixels: uint8[N, 28, 28], bright ink on 0; any N.

        Returns:
            float32[N, K].
        """
        logits = self._reader.run(pixels)
        if self.teacher:
            unsure = np.flatnonzero(pixels.any((1, 2)) & (_surest(logits) < SURE))
            if len(unsure):
                logits[unsure] = (logits[unsure] + self.teacher.run(pixels[unsure])) / 2
        return logits


def _surest(logits: Logits) -> NDArray[np.float32]:
    """The likeliest digit's share of all ten: float32[N], 0 to 1; NaN where a logit is not a number."""
    ten = logits[:, :DIGITS]
    return np.asarray(1 / np.exp(ten - ten.max(axis=1, keepdims=True)).sum(axis=1), np.float32)


class InkFinder(_Loaded):
    """The network that finds the ink of digits: a context manager with one verb, the call."""

    def __init__(self, folder: Path, *, runtime: Runtime = Runtime.KERAS, threads: int = 1) -> None:
        """Name the network; nothing is loaded yet.

        Args:
            folder: A bundle's directory, or what training made of the ink finder alone.
            runtime: What carries it out.
            threads: Within one call.
        """
        super().__init__(folder, Network.FINDER, _LOOKS_A_CALL, runtime, threads)

    def __call__(self, looks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Find ink.

        Args:
            looks: uint8[N, 64, 64, 3], N >= 1.

        Returns:
            uint8[N, 64, 64], how sure it is that a cell holds the digit's ink, 0 to 255; and float32[N, 4], logits of
            what is seen: no writing, one digit, several digits, something else.
        """
        ink, kinds = self.raw(looks)
        return np.rint(255 * ink).astype(np.uint8).reshape(looks.shape[:3]), kinds

    def raw(self, looks: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Find ink, unrounded: float32[N, 4096], 0 to 1, and float32[N, 4]."""
        found = self.run(looks)
        return found[:, : LOOK_CELLS**2], found[:, LOOK_CELLS**2 :]


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


def quickest(folder: Path) -> Runtime:
    """Choose what carries out the ink finder of a folder sooner: LiteRT, where it is installed and there is a file."""
    has_file = (folder / Network.FINDER.file(Runtime.LITERT)).is_file()
    return Runtime.LITERT if has_file and find_spec("ai_edge_litert") else Runtime.KERAS


def best(folder: Path) -> Runtime:
    """Choose what runs the networks of a bundle, which need not be whole.

    LiteRT starts sooner, and training proved that both read alike before it left its files in the bundle. A GPU that
    TensorFlow sees is quicker than both on a processor.
    """
    networks = [network for network in Network if (folder / network.file(Runtime.KERAS)).is_file()]
    is_exported = all((folder / network.file(Runtime.LITERT)).is_file() for network in networks)
    if not networks or not is_exported or not find_spec("ai_edge_litert") or _sees_gpu():
        return Runtime.KERAS
    return Runtime.LITERT


_DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/dev/kfd"))
"""What is there where a GPU of NVIDIA's or AMD's may be: elsewhere nobody waits for TensorFlow to look."""


def _sees_gpu() -> bool:
    return any(path.exists() for path in _DRIVERS) and bool(start_tensorflow().config.list_physical_devices("GPU"))


def check_threads(threads: int) -> None:
    """Find out whether the system gives as many threads as predictions take: a runtime that gets none ends the process.

    Args:
        threads: Within one prediction.

    Raises:
        UsageError: It does not.
    """
    end = Event()
    begun: list[Thread] = []
    wanted = threads * len(Network) + _OTHER_THREADS if threads > 1 else 0
    try:
        for _ in range(wanted):
            thread = Thread(target=end.wait)
            thread.start()
            begun.append(thread)
    except RuntimeError as error:
        message = (
            f"The system gives this user no more than {len(begun)} more threads, and --threads {threads} takes up to "
            f"{wanted}; give fewer, or raise the limit of its processes."
        )
        raise UsageError(message) from error
    finally:
        end.set()
        for thread in begun:
            thread.join()


@contextmanager
def _lean_imports() -> Iterator[None]:
    """Keep out what Keras would import and nobody here needs, which takes longer than all the rest of TensorFlow.

    Who needs it imports it as ever, before or after.
    """
    kept_out = [name for name in ("matplotlib", "pandas") if name not in sys.modules]
    for name in kept_out:
        sys.modules[name] = None  # type: ignore[assignment]  # which makes an import fail
    is_collecting = gc.isenabled()
    gc.disable()  # thousands of modules and no garbage
    try:
        yield
    finally:
        for name in kept_out:
            del sys.modules[name]
        if is_collecting:
            gc.enable()


def start_tensorflow(threads: int = 1) -> Any:  # noqa: ANN401  TensorFlow has no types
    """Import TensorFlow with a fixed number of intra-op threads; return its module.

    A GPU that it sees gets memory as it is needed, not all of it at once.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _lean_imports():
        import tensorflow

    with suppress(RuntimeError):  # it runs already, as in a notebook, and keeps the threads that it has
        tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        for gpu in tensorflow.config.list_physical_devices("GPU"):
            tensorflow.config.experimental.set_memory_growth(gpu, True)
    return tensorflow


def _open_keras(folder: Path, network: Network, batch_size: int, threads: int) -> _Opened:
    """Load a Keras model and compile it for one shape."""
    tensorflow = start_tensorflow(threads)
    with _lean_imports():
        import keras

    try:
        model = keras.saving.load_model(folder / network.file(Runtime.KERAS), compile=False, safe_mode=True)
    except Exception as error:  # noqa: BLE001  Keras raises whatever its file reader raises
        message = f"Keras cannot load the model of the bundle {escaped(str(folder))}: {error}"
        raise BundleError(message) from error
    _check_shapes(folder, network, model.input_shape[1:], model.output_shape[1:])
    signature = [tensorflow.TensorSpec((batch_size, *model.input_shape[1:]), tensorflow.uint8)]
    compiled = tensorflow.function(lambda images: model(images, training=False), signature, autograph=False)
    function = compiled.get_concrete_function()
    return lambda images: function(tensorflow.constant(images)).numpy(), model.output_shape[1]


def _open_litert(folder: Path, network: Network, batch_size: int, threads: int) -> _Opened:
    """Open what training exported for LiteRT, for one shape."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UsageError(_NOT_INSTALLED) from error
    path = folder / network.file(Runtime.LITERT)
    if not path.is_file():
        message = f"The bundle {escaped(str(folder))} holds no model for litert; train it anew, or use --runtime keras."
        raise BundleError(message)
    try:
        interpreter = Interpreter(str(path), num_threads=threads)
        ((at, shape),) = [(put["index"], put["shape"]) for put in interpreter.get_input_details()]
        ((out, outputs),) = [(put["index"], put["shape"]) for put in interpreter.get_output_details()]
        _check_shapes(folder, network, tuple(shape[1:].tolist()), tuple(outputs[1:].tolist()))
        interpreter.resize_tensor_input(at, (batch_size, *shape[1:]))
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        message = f"LiteRT cannot open the model of the bundle {escaped(str(folder))}: {error}"
        raise BundleError(message) from error

    def predict(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        interpreter.set_tensor(at, images)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(out), np.float32)

    return predict, int(outputs[1])


_OPENERS = {Runtime.KERAS: _open_keras, Runtime.LITERT: _open_litert}
_CONTRACTS = {  # what a network takes for an image, and the least and most that it gives
    Network.READER: ((SIDE, SIDE), DIGITS, None),
    Network.TEACHER: ((SIDE, SIDE), DIGITS, None),
    Network.FINDER: ((LOOK_CELLS, LOOK_CELLS, 3), LOOK_CELLS**2 + len(KINDS), LOOK_CELLS**2 + len(KINDS)),
}


def _check_shapes(folder: Path, network: Network, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
    """Check what a network takes and gives for one image.

    Raises:
        BundleError: It is not the contract.
    """
    expected, least, most = _CONTRACTS[network]
    if inputs != expected or outputs[:1] < (least,) or (most and outputs[:1] > (most,)):
        message = (
            f"The {network.value} of the bundle {escaped(str(folder))} takes {inputs} and gives {outputs} for "
            f"an image, expected {expected} and {'' if most else 'at least '}({least},); use another."
        )
        raise BundleError(message)

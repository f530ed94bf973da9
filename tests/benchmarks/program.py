"""A folder and a runtime in, what this program took out, loading and importing left out."""

import gc
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from batchdigits import pipeline
from batchdigits.engine import local
from batchdigits.engine.networks import AskedNetworks, NetworkProcess, OwnNetworks
from batchdigits.engine.pool import worker_count
from batchdigits.engine.run_context import StageTimer
from batchdigits.preprocessing import normalisation
from batchdigits.records import InkImages, Logits
from batchdigits.settings import PredictSettings, Runtime
from tests.benchmarks.forward import whole_batches
from tests.benchmarks.rounds import Pass, timed

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

RUNTIMES = tuple(Runtime)
"""What the program can predict with; the usual one first."""

_loaded: dict[tuple[str, str], Any] = {}
_until_stopped = ExitStack()


# ---- how the pipeline comes by its model: nothing else here knows ---------------------------------------------------


@contextmanager
def everything_loaded() -> Iterator[None]:
    """Let the pipeline load its model but once in this process: the first run warms up."""
    gc.set_threshold(100_000)  # as the command does
    with (
        mock.patch.object(local, "OwnNetworks", once(OwnNetworks)),
        mock.patch.object(local, "NetworkProcess", once(NetworkProcess)),
    ):
        yield


def loaded_predictor() -> Callable[[InkImages], Logits]:
    """Give the model that the runs before have loaded."""
    (networks,) = _loaded.values()
    if isinstance(networks, NetworkProcess):
        return AskedNetworks(networks.connection(), StageTimer()).digits
    return networks.digits


# --------------------------------------------------------------------------------------------------------------------


def once(enter: Callable[..., AbstractContextManager[Any]]) -> Callable[..., AbstractContextManager[Any]]:
    """Make a class whose context is entered once for each set of its options, and left by `stop`."""

    def entered(*arguments: object, **options: object) -> AbstractContextManager[Any]:
        key = enter.__name__, repr(sorted(options.items()))
        if key not in _loaded:
            _loaded[key] = _until_stopped.enter_context(enter(*arguments, **options))
        return nullcontext(_loaded[key])

    return entered


def stop() -> None:
    """End the process that has TensorFlow, for which this process would wait when it ends."""
    _until_stopped.close()
    _loaded.clear()


def predict(folder: Path, report: Path, runtime: str, images: int) -> Pass:
    """Run the whole job, listing to report, as if nothing were known.

    Args:
        folder: The source.
        report: A CSV file; what there was of it, and of its ledger, goes.
        runtime: One of `RUNTIMES`.
        images: How many rows are expected.
    """
    forget(report)
    finding = get_context("fork").Value("d")  # processor seconds, of all workers
    settings = PredictSettings(sources=(str(folder),), outputs=(str(report),), runtime=Runtime(runtime))
    counted = mock.patch.object(normalisation, "find_ink", counting(normalisation.find_ink, finding))
    with everything_loaded(), counted:
        started = time.perf_counter()
        summary = pipeline.run(settings, stdout=io.BytesIO())
        seconds = time.perf_counter() - started
    if summary.rows.total() != images or summary.faulty:
        raise AssertionError(f"expected {images} rows without a fault: {dict(summary.rows)}")
    is_own = settings.runtime is Runtime.LITERT  # what another process does for a worker is not the worker's time
    return Pass(seconds, finding=finding.value / worker_count(settings.workers) if is_own else None)


def counting(function: Callable[..., Any], total: "Synchronized[float]") -> Callable[..., Any]:
    """Make a function add the processor seconds that it takes to a sum, which forks share."""

    def counted(*arguments: object) -> Any:
        began = time.process_time()
        try:
            return function(*arguments)
        finally:
            with total.get_lock():
                total.value += time.process_time() - began

    return counted


def forward(count: int) -> Pass:
    """Predict normalised images in whole batches with the model that the runs before have loaded."""
    predictor = loaded_predictor()
    return timed(lambda: [predictor(pixels) for pixels in whole_batches(count)])()


def forget(report: Path) -> None:
    """Take a report and its ledger away."""
    report.parent.mkdir(parents=True, exist_ok=True)
    for file in (report, Path(f"{report}.ledger")):
        file.unlink(missing_ok=True)

"""Read, decode and predict a shard of files: what a worker of the cluster does."""

import faulthandler
import importlib.metadata
import pickle
import socket
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from batchdigits import __version__
from batchdigits.engine.worker import Observed, asked, keep_freed_memory, observe
from batchdigits.errors import OF_THE_MACHINE, BatchDigitsError, UsageError
from batchdigits.inference import bundle
from batchdigits.inference.runtimes import InkFinder, Predictor, version
from batchdigits.records import ImageFile, Logits
from batchdigits.settings import DecodingSettings, NormalisationSettings, PredictSettings, Runtime

_SECONDS_A_CHUNK = 300.0  # that one may take; a worker that hangs longer in a decoder ends itself

Shard = list[list[ImageFile]]
"""Chunks, as `batches.chunks` gives them."""


class Found(NamedTuple):
    """What a worker found in a shard."""

    observed: list[Observed]
    """Of each chunk."""
    logits: Logits
    """float32[N, K], of all their pages; [0, 10] where there is none."""
    node: str
    """Whose worker it was."""
    seconds: dict[str, float]
    """Of the stages that `observed` does not tell of."""


class RayWorker:
    """What reads shards; it loads the model once."""

    def __init__(self, versions: dict[str, str], runtime: str, settings: bytes, model: dict[str, bytes]) -> None:
        """Load the model.

        Args:
            versions: What this worker has to have, as `versions` gives it.
            runtime: The name of the runtime among it.
            settings: `PredictSettings`, pickled, since to another version they may mean nothing.
            model: A bundle, `packed`.
        """
        cv2.setNumThreads(1)
        keep_freed_memory()
        started = time.perf_counter()
        self._trouble: BatchDigitsError | None = None
        try:
            _check(versions, runtime)
            self._settings: PredictSettings = pickle.loads(settings)
            with tempfile.TemporaryDirectory() as folder:
                for name, data in model.items():
                    Path(folder, name).write_bytes(data)
                self._model = bundle.load(Path(folder))
                self._predictor = Predictor(
                    self._model,
                    batch_size=self._settings.batch_size,
                    runtime=self._settings.runtime,
                    threads=self._settings.threads,
                ).__enter__()
                self._finder = InkFinder(self._model.directory, runtime=self._settings.runtime).__enter__()
        except BatchDigitsError as error:  # is sent: had it been raised, Ray would have tried again
            self._trouble = type(error)(f"The worker on {socket.gethostname()} cannot read: {error}")
        self._seconds = {"load model": time.perf_counter() - started}

    def __call__(self, table: Any) -> Any:  # noqa: ANN401  pyarrow has no types
        """Read the shards of a table: trouble with a page is a row of what is found, and trouble with all is sent."""
        import pyarrow

        found: list[bytes | None] = []
        for shard in table["shard"].to_pylist():
            try:
                read = self._read(pickle.loads(shard))
                found.append(pickle.dumps(read) if read else None)
            except BatchDigitsError as error:
                found.append(pickle.dumps(error))
            except MemoryError:
                raise  # the shard is asked for again, and in the end read by the run
            except Exception as error:  # noqa: BLE001  (it ends the run, as it would on one machine)
                message = (
                    f"The worker on {socket.gethostname()} met an unexpected error: {type(error).__name__}: {error}."
                )
                found.append(pickle.dumps(BatchDigitsError(message)))
        cells = pyarrow.array(found, pyarrow.binary())
        return pyarrow.table({"number": table["number"], "shard": table["shard"], "found": cells})

    def _read(self, shard: Shard) -> Found | None:
        """Read a shard; None where the model meets an error at it: the run finds which page it is."""
        if self._trouble:
            raise self._trouble
        observed = []
        for files in shard:
            faulthandler.dump_traceback_later(_SECONDS_A_CHUNK, exit=True)
            observed.append(
                observe(list(map(asked, files)), self._settings.decoding, self._model.normalisation, self._finder)
            )
            faulthandler.cancel_dump_traceback_later()
        started = time.perf_counter()
        pixels = np.concatenate([part.pixels for part in observed])
        try:
            logits = self._predictor(pixels) if len(pixels) else np.zeros((0, 10), np.float32)
        except OF_THE_MACHINE:
            raise
        except Exception:  # noqa: BLE001
            return None
        seconds = self._seconds | {"predict": time.perf_counter() - started}
        self._seconds = {}  # loading counts once
        return Found(observed, logits, socket.gethostname(), seconds)


def versions(runtime: Runtime) -> dict[str, str]:
    """Name all that rows depend on, beside the model, as it is on this machine.

    Raises:
        UsageError: The runtime is not installed.
    """
    name, number = version(runtime).split()
    return {
        "batchdigits": __version__,
        "decoding": str(DecodingSettings.VERSION),
        "normalisation": str(NormalisationSettings.VERSION),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "pillow": importlib.metadata.version("pillow"),
        name: number,
    }


def _check(expected: dict[str, str], runtime: str) -> None:
    """Check that this worker makes of a file what the run's machine would.

    Raises:
        UsageError: Something has another version, or the runtime is not installed.
    """
    here = versions(Runtime(runtime))
    others = [
        f"{name} {here.get(name, 'nothing')} instead of the run's {number}"
        for name, number in expected.items()
        if here.get(name) != number
    ]
    if others:
        message = f"it has {', '.join(others)}; install the same versions on every node."
        raise UsageError(message)

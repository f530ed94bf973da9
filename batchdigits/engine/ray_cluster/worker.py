"""Read, decode and predict a shard of files: what a worker of the cluster does."""

import faulthandler
import importlib.metadata
import pickle
import socket
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import cv2
import numpy as np

from batchdigits import __version__
from batchdigits.engine.networks import OwnNetworks
from batchdigits.engine.run_context import StageTimer
from batchdigits.engine.worker import Reader, keep_freed_memory
from batchdigits.errors import BatchDigitsError, UsageError
from batchdigits.inference import bundle
from batchdigits.inference.runtimes import version
from batchdigits.records import Batch, ImageFile
from batchdigits.settings import DecodingSettings, NormalisationSettings, PredictSettings, Runtime
from batchdigits.storage.scratch import scratch_folder

_SECONDS_A_CHUNK = 300.0  # that one may take; a worker that hangs longer in a decoder ends itself

Shard = list[list[ImageFile]]
"""Chunks, as `batches.chunks` gives them."""


class Found(NamedTuple):
    """What a worker found in a shard."""

    chunks: list[Batch]
    """Of each chunk, without the files."""
    node: str
    """Whose worker it was."""
    seconds: dict[str, float]
    """Of the stages."""


class RayWorker:
    """What reads shards; it loads the model once."""

    def __init__(self, versions: dict[str, str], runtime: str, settings: bytes, model: dict[str, bytes]) -> None:
        """Load the model.

        Args:
            versions: What this worker has to have, as `versions` gives it.
            runtime: The name of the runtime among it.
            settings: `PredictSettings`, `Drawing` and the sources' paths, pickled: to another version they may mean
                nothing.
            model: A bundle, `packed`.
        """
        cv2.setNumThreads(1)
        keep_freed_memory()
        self._timer = StageTimer()
        self._trouble: BatchDigitsError | None = None
        try:
            _check(versions, runtime)
            chosen: PredictSettings
            chosen, drawing, sources = pickle.loads(settings)
            with self._timer.stage("load model"), scratch_folder() as folder:
                for name, data in model.items():
                    (folder / name).write_bytes(data)
                loaded = bundle.load(folder)
                networks = OwnNetworks(loaded, chosen).__enter__()
                networks.load()
            self._reader = Reader(networks, loaded, chosen.decoding, drawing, self._timer, sources=sources)
        except BatchDigitsError as error:  # is sent: had it been raised, Ray would have tried again
            self._trouble = type(error)(f"The worker on {socket.gethostname()} cannot read: {error}")

    def __call__(self, table: Any) -> Any:  # noqa: ANN401  pyarrow has no types
        """Read the shards of a table: trouble with a page is a row of what is found, and trouble with all is sent."""
        import pyarrow

        found: list[bytes | None] = []
        for shard in table["shard"].to_pylist():
            try:
                found.append(pickle.dumps(self._read(pickle.loads(shard))))
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

    def _read(self, shard: Shard) -> Found:
        """Read a shard."""
        if self._trouble:
            raise self._trouble
        found = []
        for files in shard:
            faulthandler.dump_traceback_later(_SECONDS_A_CHUNK, exit=True)
            left = iter(files)
            parts = [replace(batch, files=list(islice(left, count))) for count, batch in self._reader.parts(files)]
            found.append(replace(Batch.concat(*parts), files=[]))
            faulthandler.cancel_dump_traceback_later()
        return Found(found, socket.gethostname(), self._timer.taken())


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
        "asking": str(bundle.ASKING),
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

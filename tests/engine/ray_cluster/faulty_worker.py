"""What becomes of a worker of `tests.engine.ray_cluster.cli`: a module that workers of a cluster import by its name.

Files in whose path `UNSEEN` stands are not there for it. Where `FAIL` is set, it has a fault.
"""

import os
from typing import Any

from batchdigits.engine.ray_cluster import worker
from batchdigits.errors import Fault, FaultKind
from batchdigits.storage import reading
from tests import fake_model_cli  # in the place of the decoder

_GONE = Fault(FaultKind.UNREADABLE, "cannot be opened: it was deleted or renamed after it was found")
_read = reading.read_local


class RayWorker(worker.RayWorker):
    """Fake networks find ink and predict."""

    def __init__(self, *arguments: Any) -> None:
        assert fake_model_cli.worker.decode is fake_model_cli.misbehave_and_decode
        assert fake_model_cli.networks.Predictor is fake_model_cli.FakePredictor
        reading.read_local = _read_what_is_seen
        super().__init__(*arguments)

    def _read(self, shard: worker.Shard) -> worker.Found:
        if "FAIL" in os.environ:
            raise ValueError(os.environ["FAIL"])
        return super()._read(shard)


def _read_what_is_seen(path: str, *found: Any, **options: Any) -> bytes | Fault:
    unseen = os.environ.get("UNSEEN")
    return _GONE if unseen and unseen in path else _read(path, *found, **options)

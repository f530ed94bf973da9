"""What becomes of a worker of `tests.ray_command`: a module that the workers of a cluster import by its name.

Files in whose path `UNSEEN` stands are not there for it. Where `FAIL` is set, it has a fault.
"""

import os
from collections.abc import Iterator
from typing import Any

from batchdigits.engine.ray_cluster import worker as reading
from batchdigits.errors import Fault, FaultKind
from tests import standin_command  # in the place of the decoder

_GONE = Fault(FaultKind.UNREADABLE, "cannot be opened: it was deleted or renamed after it was found")
_read_all = standin_command.observing.read_all


class Reader(reading.Reader):
    """Stand-ins find ink and predict."""

    def __init__(self, *arguments: Any) -> None:
        assert standin_command.observing.decode is standin_command.misbehave_and_decode
        reading.Predictor = standin_command.StandIn
        reading.InkFinder = standin_command.StandInFinder
        standin_command.observing.read_all = _read_what_is_seen
        super().__init__(*arguments)

    def _read(self, shard: reading.Shard) -> reading.Found:
        if "FAIL" in os.environ:
            raise ValueError(os.environ["FAIL"])
        return super()._read(shard)


def _read_what_is_seen(files: list[tuple[str, int]], most_bytes: int) -> Iterator[bytes | Fault]:
    unseen = os.environ.get("UNSEEN")
    for (path, _), data in zip(files, _read_all(files, most_bytes), strict=True):
        yield _GONE if unseen and unseen in path else data

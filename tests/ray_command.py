"""`tests.standin_command` on Ray, whose workers misbehave, too: `python -m` this module.

`CHUNK_FILES` is the number of files in a chunk, so that few files make many shards. Files in whose path `UNSEEN` stands
are not there for the workers.
"""

import os
from typing import Any

from batchdigits import batches, cli
from batchdigits.errors import Fault, FaultKind
from batchdigits.scaleout import cluster, reading
from tests import standin_command  # in the place of the model, and of the decoder, here and in children

batches._CHUNK_FILES = int(os.environ.get("CHUNK_FILES", "256"))


class Reader(reading.Reader):
    """What becomes of a worker; Ray takes this class along, since it is the main module's."""

    def __init__(self, *arguments: Any) -> None:
        from batchdigits.scaleout import reading
        from tests import standin_command

        assert standin_command.observing.decode is standin_command.misbehave_and_decode
        reading.Predictor = standin_command.StandIn
        unseen = os.environ.get("UNSEEN")
        if unseen is not None:  # by the workers alone
            whole = standin_command.observing.read
            gone = Fault(FaultKind.UNREADABLE, "cannot be opened: it was deleted or renamed after it was found")
            standin_command.observing.read = lambda path, *rest: gone if unseen in path else whole(path, *rest)
        super().__init__(*arguments)


cluster.Reader = Reader

if __name__ == "__main__":
    assert standin_command.pipeline.Predictor is standin_command.StandIn
    cli.main()

"""`tests.standin_command` on Ray, whose workers misbehave, too: `python -m` this module.

`CHUNK_FILES` is the number of files in a chunk, so that few files make many shards.
"""

import os

from batchdigits.cli import app
from batchdigits.engine import pool
from batchdigits.engine.ray_cluster import driver
from tests import ray_reader, standin_command  # in the place of the model, and of the decoder, here and in children

pool._CHUNK_FILES = int(os.environ.get("CHUNK_FILES", "256"))
driver.RayWorker = ray_reader.RayWorker

if __name__ == "__main__":
    assert standin_command.pipeline.Predictor is standin_command.StandIn
    app.main()

"""`tests.fake_model_cli` on Ray, whose workers misbehave, too: `python -m` this module.

`CHUNK_FILES` is the number of files in a chunk, so that few files make many shards.
"""

import os

from batchdigits.cli import app
from batchdigits.engine import pool
from batchdigits.engine.ray_cluster import driver
from tests import fake_model_cli  # in the place of the model, and of the decoder, here and in children
from tests.engine.ray_cluster import faulty_worker

pool._CHUNK_FILES = int(os.environ.get("CHUNK_FILES", "256"))
driver.RayWorker = faulty_worker.RayWorker

if __name__ == "__main__":
    assert fake_model_cli.networks.Predictor is fake_model_cli.FakePredictor
    app.main()

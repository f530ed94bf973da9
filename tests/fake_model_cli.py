"""The command's arguments in, its exit code out, with stand-ins in the place of the networks: `python -m` this module.

All but the model is the real program in a process of its own, which starts in a second and needs no TensorFlow.
`CRASH_ON` names files by the SHA-256 of their bytes: decoding one kills the process, as a fault in a codec would.
`SLOW` names a file that gets a byte for each file that is decoded, which then takes ten milliseconds longer.
Worker processes are forked off it, or import it again as their main module, so that it kills them, too.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

from batchdigits.cli import app
from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.engine import networks, shared_finder, worker
from batchdigits.errors import Fault
from batchdigits.settings import DecodingSettings
from tests.fake_model import FakeInkFinder, FakePredictor


def misbehave_and_decode(data: bytes, settings: DecodingSettings, ending: str = "") -> list[Page | Fault]:
    if hashlib.sha256(data).hexdigest() in os.environ.get("CRASH_ON", "").split():
        os.kill(os.getpid(), signal.SIGSEGV)
    if "SLOW" in os.environ:
        with Path(os.environ["SLOW"]).open("ab") as count:
            count.write(b".")
        time.sleep(0.01)
    return decode(data, settings, ending)


networks.Predictor = FakePredictor
shared_finder.InkFinder = FakeInkFinder
worker.decode = misbehave_and_decode

if __name__ == "__main__":
    app.main()

"""A command of `batchdigits` in; the processor seconds of its process, of its workers and of its stages, out.

`python -m tests.benchmarks.processor FILE predict …` runs the command as the installed one does, and writes FILE.
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from batchdigits import stopwatch
from batchdigits.cli import main


def measured(file: Path, arguments: list[str]) -> None:
    """Run a command to its end, and write what it took as JSON.

    Each stage is counted by the processor seconds of the thread that it is at work in; `decode` and `normalise` are
    measured in the workers, by the wall clock.
    """
    summary = file.with_suffix(".summary.json")
    clock = SimpleNamespace(perf_counter=time.thread_time)
    code: object = 0
    try:
        with mock.patch.object(stopwatch, "time", clock):
            main([*arguments, "--summary", str(summary)])
    except SystemExit as end:
        code = end.code
    if code:
        sys.exit(f"{arguments} ended with {code}")
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    stages = json.loads(summary.read_text())["stages"]
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    numbers = {
        "main": own.ru_utime + own.ru_stime,
        "workers": workers.ru_utime + workers.ru_stime,
        "stages": seconds,
    }
    file.write_text(json.dumps(numbers))


if __name__ == "__main__":
    measured(Path(sys.argv[1]), sys.argv[2:])

"""A command of `batchdigits` in; the processor seconds of its stages, of its process and of its workers, out.

`python -m tests.benchmarks.processor FILE predict …` runs the command as the installed one does, and writes FILE.
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from batchdigits import observing, stopwatch
from batchdigits.cli import main

OF_THREAD = SimpleNamespace(perf_counter=time.thread_time)
"""A clock that stands still while its thread waits."""


def measured(file: Path, arguments: list[str]) -> None:
    """Run a command to its end, and write what it took as JSON."""
    summary = file.with_suffix(".summary.json")
    code: object = 0
    try:
        main([*arguments, "--summary", str(summary)])
    except SystemExit as end:
        code = end.code
    if code:
        sys.exit(f"{arguments} ended with {code}")
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    stages = json.loads(summary.read_text())["stages"]
    totals = {"main": own.ru_utime + own.ru_stime, "workers": workers.ru_utime + workers.ru_stime}
    file.write_text(json.dumps(totals | {name: stage["seconds"] for name, stage in stages.items()}))


if __name__ in ("__main__", "__mp_main__"):  # the second is its name in a worker
    stopwatch.time = observing.time = OF_THREAD  # type: ignore[assignment]
if __name__ == "__main__":
    measured(Path(sys.argv[1]), sys.argv[2:])

"""A command of `batchdigits` in; the processor seconds of its stages, of its process and of its workers, out.

`python -m tests.benchmarks.processor FILE predict …` runs the command as the installed one does, and writes FILE.
"""

import json
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from batchdigits.cli.app import main
from batchdigits.engine import run_context, worker


def measured(file: Path, arguments: list[str]) -> None:
    """Run a command to its end, and write what it took as JSON; imports and the model's start do not count."""
    began: list[float] = []

    def of_thread() -> float:
        if not began:
            began.append(time.process_time())
        return time.thread_time()

    # Workers are forked off this process; their clock stands still, too, while they wait.
    run_context.time = worker.time = SimpleNamespace(perf_counter=of_thread)  # type: ignore[assignment]
    summary = file.with_suffix(".summary.json")
    code: object = 0
    try:
        main([*arguments, "--summary", str(summary)])
    except SystemExit as end:
        code = end.code
    if code:
        sys.exit(f"{arguments} ended with {code}")
    own, workers = time.process_time() - began[0], resource.getrusage(resource.RUSAGE_CHILDREN)
    stages = json.loads(summary.read_text())["stages"]
    totals = {"main": own - stages["load model"]["seconds"], "workers": workers.ru_utime + workers.ru_stime}
    file.write_text(json.dumps(totals | {name: stage["seconds"] for name, stage in stages.items()}))


if __name__ == "__main__":
    measured(Path(sys.argv[1]), sys.argv[2:])

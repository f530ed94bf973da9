"""20,000 files in; how long the local engine and Ray on two nodes take, undisturbed and with what is killed, out.

`python -m tests.benchmarks.scaleout`. The installed command and the real model, with LiteRT; each report is compared
with the local one. In the last run a worker is killed, and then a node.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.benchmarks.scans import IN_A_FOLDER, write_distinct
from tests.cli_runner import BATCHDIGITS, environment
from tests.engine.ray_cluster.cluster import SECRET, Nodes, two_nodes
from tests.test_recovery import known

FILES = 20_000


def fill(folder: Path) -> None:
    """Write files that all differ."""
    for at in range(FILES // IN_A_FOLDER):
        inner = folder / f"{at:02}"
        inner.mkdir(parents=True)
        write_distinct(inner, first=at * IN_A_FOLDER)


def measure(folder: Path, name: str, *options: str, nodes: Nodes | None = None) -> bytes:
    """Run the command, kill what is to be killed, and print a line."""
    work = folder.with_name(name.replace(" ", "_"))
    report, summary = work.with_suffix(".csv"), work.with_suffix(".json")
    job = [
        BATCHDIGITS,
        "predict",
        str(folder),
        "-o",
        str(report),
        "--summary",
        str(summary),
        "--runtime",
        "litert",
        "-q",
    ]
    started = time.perf_counter()
    killed = []
    with subprocess.Popen([*job, *options], env=environment(SECRET)) as run:
        while run.poll() is None:
            time.sleep(0.01)
            if nodes and len(killed) < 2 and known(report) >= (2000, 8000)[len(killed)]:
                target = nodes.raylets[1] if killed else (nodes.workers(0) or nodes.workers(1))[0]
                os.kill(target, signal.SIGKILL)
                killed.append(known(report))
    seconds = time.perf_counter() - started
    stages = {name: stage["seconds"] for name, stage in json.loads(summary.read_text())["stages"].items()}
    print(f"| {name} | {run.returncode} | {seconds:.1f} | {killed or ''} | {stages} |", flush=True)
    return report.read_bytes()


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work, "scans")
        fill(folder)
        print(
            "| run | exit | seconds | files known at each kill | seconds of stages |\n| --- | --- | --- | --- | --- |"
        )
        local = measure(folder, "local")
        for name in ("two nodes", "a worker and a node killed"):
            with two_nodes() as nodes:
                there = ("--engine", "ray", "--ray-address", nodes.address)
                report = measure(folder, name, *there, nodes=nodes if "killed" in name else None)
            print(f"\n{name}: {'the same bytes' if report == local else 'OTHER BYTES'}, {report.count(b'.png')} rows\n")


if __name__ == "__main__":
    main()

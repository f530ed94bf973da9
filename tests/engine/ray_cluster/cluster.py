"""A cluster of Ray on this machine: `python -m` this module prints where it is, and ends when its input does.

The head has no processor, so that it reads nothing; each of two nodes has one. Of each, the pid of the process is told
with which it ends: its raylet.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchdigits.engine.ray_cluster.client import _descendants
from tests.cli_runner import CHECKOUT, environment

SECRET = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
"""What lets the command in."""
_QUICKLY = {  # a node that is gone is missed in seconds
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
_STORE = 100 * 2**20


@dataclass(frozen=True, slots=True)
class Nodes:
    """A cluster that runs."""

    address: str
    """For `--ray-address`."""
    raylets: list[int]
    """The pids of the nodes."""

    def workers(self, node: int) -> list[int]:
        """List the processes that read on a node."""
        return [pid for pid in _descendants(self.raylets[node]) if command_of(pid).startswith(b"ray::MapWorker")]


@contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Start the cluster, and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.engine.ray_cluster.cluster"],
        cwd=CHECKOUT,
        env=environment({**SECRET, **_QUICKLY, "PYTHONPATH": CHECKOUT}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout
        yield Nodes(*json.loads(process.stdout.readline()))
        process.communicate()


def command_of(pid: int) -> bytes:
    """Give what a process was started as, or calls itself; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _main() -> None:
    from ray.cluster_utils import Cluster

    said = os.dup(1)
    os.dup2(2, 1)  # Ray prints, too
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=_STORE) for _ in range(2)]
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    os.write(said, json.dumps([cluster.address, raylets]).encode() + b"\n")
    os.close(said)
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    _main()

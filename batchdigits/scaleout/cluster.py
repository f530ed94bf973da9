"""Shards of files in; what the workers of a cluster found in them out, as it comes: the only module that asks Ray."""

import logging
import os
import pickle
import re
import secrets
import signal
import socket
import sys
import tempfile
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, redirect_stdout
from types import TracebackType
from typing import Any, Self

from batchdigits import bundle
from batchdigits.batches import Workers
from batchdigits.bundle import Bundle
from batchdigits.errors import StorageError, UsageError, shown
from batchdigits.scaleout.reading import Reader, Result, Shard, versions
from batchdigits.settings import PredictSettings
from batchdigits.stopping import Stop

log = logging.getLogger(__name__)

NOT_INSTALLED = "The engine ray is not installed; install batchdigits[ray], or use --engine local."

_RETRIES = 1  # in a round, of a shard whose worker was lost: with its node, or by a file that crashes its decoder
_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_WONDER = 60.0  # without a result
_SECONDS_TO_END = 5.0  # that a result may take as Ray ends
_MOST_CHARACTERS = 40  # of the folder in which Ray makes sockets, whose names the system limits

_THIS_ONES = "auto"  # the cluster that this machine belongs to
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
_LAST_PORT = 65_535


class Cluster:
    """A connection to Ray: a context manager.

    All that Ray is asked, it is asked in one thread, so that a signal interrupts none of it.
    """

    def __init__(self, settings: PredictSettings, model: Bundle, stop: Stop) -> None:
        """Say what for; nothing is started yet.

        Args:
            settings: Of the run.
            model: What the workers load.
            stop: Signals end the waiting for Ray's start.
        """
        self._settings = settings
        self._model = model
        self._stop = stop
        self._next: Future[Any] | None = None
        self._tables: Any = None

    def __enter__(self) -> Self:
        """Start a cluster on this machine, or connect to the one that the settings name.

        Raises:
            UsageError: Ray is not installed.
            StorageError: The cluster cannot be reached.
        """
        with ExitStack() as undo:
            self._folder = undo.enter_context(
                tempfile.TemporaryDirectory(prefix="batchdigits-", ignore_cleanup_errors=True)
            )
            # Ray prints what happens to its workers, and a report may go to standard output.
            undo.enter_context(redirect_stdout(undo.enter_context(open(os.devnull, "w"))))  # noqa: PTH123
            self._thread = undo.enter_context(ThreadPoolExecutor(1, thread_name_prefix="ray"))
            undo.callback(self._end)
            starting = self._thread.submit(self._start)
            with self._stop.readily():
                while not wait([starting], 0.05).done:
                    _keep_signals()
            _keep_signals()
            self._ray = starting.result()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it; one that was started here ends."""
        self._undo.close()

    def keep(self, number: int, shard: Shard) -> Any:  # noqa: ANN401  Ray has no types
        """Lay a shard into Ray's object store; return what refers to it there."""
        return self._thread.submit(self._keep, number, pickle.dumps(shard)).result()

    def shard(self, kept: Any) -> Shard:  # noqa: ANN401  Ray has no types
        """Give a shard back."""
        table = self._thread.submit(self._ray.get, kept).result()
        shard: Shard = pickle.loads(table["shard"][0].as_py())
        return shard

    def begin(self, kept: list[Any]) -> None:
        """Have shards read; `results` gives what comes of it."""
        self._next = self._thread.submit(self._begin, kept)

    def results(self, seconds: float | None = None) -> list[Result] | None:
        """Give what comes back next.

        Args:
            seconds: How long to wait for it.

        Returns:
            One shard or several; none where time is up, and None where all have come that will.

        Raises:
            StorageError: The cluster is lost.
        """
        assert self._next is not None, "`begin` was called"
        if not wait([self._next], _SECONDS_TO_WONDER if seconds is None else seconds).done:
            if seconds is not None:
                return []
            log.info("Ray sends nothing: it may wait for a free processor, or for machines that start.")
        try:
            table = self._next.result()
        except Exception as error:  # noqa: BLE001  Ray raises whatever it is made of
            message = f"Ray ended the run ({_said(error)}); what was finished is kept, the next run goes on from there."
            raise StorageError(message) from error
        if table is None:
            return None
        self._next = self._thread.submit(next, self._tables, None)
        rows = zip(*(table[name].to_pylist() for name in ("number", "shard", "found")), strict=True)
        return [(number, pickle.loads(shard), pickle.loads(found)) for number, shard, found in rows]

    def _start(self) -> Any:  # noqa: ANN401  Ray has no types
        address = self._settings.ray_address
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray looks as it is imported
        if address is None:
            # Also a cluster for this run alone listens to the network: it works for who knows this secret.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UsageError(NOT_INSTALLED) from error
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        try:
            if address is None:
                ray.init(
                    "local",
                    num_cpus=Workers(self._settings.workers, processes=False).count,
                    include_dashboard=False,
                    _temp_dir=self._folder if len(self._folder) <= _MOST_CHARACTERS else None,
                    **quiet,
                )
            else:
                if place := host_and_port(address):
                    socket.create_connection(place, _SECONDS_TO_CONNECT).close()  # Ray would try for minutes
                ray.init(address, **quiet)
        except Exception as error:  # noqa: BLE001  Ray raises whatever it is made of
            raise StorageError(_unreachable(address, error)) from error
        return ray

    def _keep(self, number: int, shard: bytes) -> Any:  # noqa: ANN401  Ray has no types
        import pyarrow

        return self._ray.put(pyarrow.table({"number": [number], "shard": [shard]}))

    def _begin(self, kept: list[Any]) -> Any:  # noqa: ANN401  pyarrow has no types
        data, settings = self._ray.data, self._settings
        most = min(settings.workers or len(kept), len(kept))
        at_first = max(1, min(most, int(self._ray.cluster_resources().get("CPU", 1))))
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.max_errored_blocks = -1  # a shard that is lost is no reason to end the others
        context.max_consecutive_actor_init_deaths = 2 * at_first  # nodes may go as workers start
        with warnings.catch_warnings():
            # Ray 2.64 will not take the number of retries any more, and has no other place for it yet.
            warnings.simplefilter("ignore")
            found = data.from_arrow_refs(kept).map_batches(
                Reader,
                fn_constructor_args=(
                    versions(settings.runtime),
                    settings.runtime.value,
                    pickle.dumps(settings),
                    bundle.packed(self._model),
                ),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                compute=data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=at_first),
                max_task_retries=_RETRIES,
            )
        self._tables = iter(found.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        return next(self._tables, None)

    def _end(self) -> None:
        if self._next and not wait([self._next], _SECONDS_TO_END).done:
            _shut_down()  # which ends what the thread waits for
        self._next = None
        self._thread.submit(self._let_go).result()

    def _let_go(self) -> None:
        self._tables = None  # Ray Data ends its own thread by that, and would otherwise do so as the process ends
        _shut_down()


def host_and_port(address: str) -> tuple[str, int] | None:
    """Read the address of a cluster; None for `auto`, the one that this machine belongs to.

    Raises:
        UsageError: It is none.
    """
    if address == _THIS_ONES:
        return None
    match = _ADDRESS.fullmatch(address)
    if not match or not 0 < int(match[2]) <= _LAST_PORT:
        message = "--ray-address names no head node; expected auto, or host:port such as 10.0.0.1:6379."
        raise UsageError(message)
    return match[1].strip("[]"), int(match[2])


def _unreachable(address: str | None, error: Exception) -> str:
    if address is None:
        return (
            f"Ray cannot be started on this machine: {_said(error)}; check its memory and disk, or use --engine local."
        )
    if address == _THIS_ONES:
        return (
            f"Ray cannot be reached by --ray-address auto: {_said(error)}; start a node of the cluster on this "
            "machine, or name its head node."
        )
    if isinstance(error, OSError) and error.strerror:
        why = error.strerror.lower()
        remedy = "check the name and the port, and that the head node runs"
    else:
        why = _said(error)
        remedy = "check that the head node runs, with the same version of Ray, and RAY_AUTH_TOKEN"
    return f"Ray cannot be reached at {shown(address)}: {why}; {remedy}."


def _keep_signals() -> None:
    """Have SIGTERM come to Python: Ray takes it, and would say where the process stands, and end it."""
    if threading.current_thread() is threading.main_thread() and (handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, handler)


def _shut_down() -> None:
    if ray := sys.modules.get("ray"):
        ray.shutdown()


def _said(error: Exception) -> str:
    """Say what happened in a line: the last one, which in the traceback of a worker names the reason."""
    return shown(f"{type(error).__name__}: {str(error).strip().rpartition(chr(10))[2].rstrip('.')}")

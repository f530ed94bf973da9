"""Batches in; the same with their logits, in order, out: predicted in a thread while others are decoded and recorded.

The model is loaded there, too, so that its runtime starts while files are decoded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.run_context import Stop, Stopwatch
from batchdigits.errors import OF_THE_MACHINE, BatchDigitsError, unforeseen

if TYPE_CHECKING:
    from batchdigits.records import Batch, InkImages, Logits

    _Function = Callable[[InkImages], Logits]

_MOST_BATCHES = 3  # that wait for their logits, once the model is loaded: it never stands still for want of one
_MOST_BYTES = 64 * 2**20  # that wait until it is


Drawn = TypeVar("Drawn")


class Predicted(NamedTuple, Generic[Drawn]):
    """A batch and what the model says of it."""

    batch: Batch
    """N pages, and faults."""
    fresh: NDArray[np.bool_]
    """bool[N], the pages that were predicted."""
    logits: Logits
    """float32[M, K], in the order of the M fresh pages; [0, 10] where there is none."""
    drawn: Drawn | None
    """What is drawn from it; None where no page is fresh."""


class Prediction:
    """A model at work in a thread of its own: a context manager."""

    def __init__(self, predictor: AbstractContextManager[_Function], watch: Stopwatch) -> None:
        """Name the predictor; nothing is loaded before it is needed.

        Args:
            predictor: Entered in the thread, once.
            watch: Gets the seconds of `load model` and of `predict`.
        """
        self._predictor = predictor
        self._watch = watch
        self._loading: Future[_Function] | None = None
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what the thread has not begun, and let the model go; one that is still being loaded is left alone."""
        self._thread.shutdown(wait=self.is_loaded, cancel_futures=True)
        if self.is_loaded:
            self._entered.close()

    @property
    def is_loaded(self) -> bool:
        """Tell whether the model can be asked without waiting for its runtime."""
        return self._loading is not None and self._loading.done()

    def start(self) -> None:
        """Begin to load the model, unless that was begun before."""
        if self._loading is None:
            self._loading = self._thread.submit(self._load)

    def ask(
        self, batch: Batch, fresh: NDArray[np.bool_], draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn]
    ) -> Future[Predicted[Drawn]]:
        """Have the fresh pages of a batch predicted; what loading raises, the result raises.

        Args:
            batch: N pages.
            fresh: bool[N], of which one at least.
            draw: Draws from the batch, its fresh pages and their logits what else is wanted, in the thread, too.
        """
        self.start()
        return self._thread.submit(self._predict, batch, fresh, draw)

    def _load(self) -> _Function:
        with self._watch.stage("load model"):
            return self._entered.enter_context(self._predictor)

    def _predict(
        self, batch: Batch, fresh: NDArray[np.bool_], draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn]
    ) -> Predicted[Drawn]:
        assert self._loading is not None, "`ask` has begun to load the model"
        predictor = self._loading.result()  # at once: the thread does one thing after the other

        def together(batch: Batch, fresh: NDArray[np.bool_]) -> Predicted[Drawn]:
            with self._watch.stage("predict"):
                logits = predictor(batch.pixels[fresh])
            with self._watch.stage("decide"):
                return Predicted(batch, fresh, logits, draw(batch, fresh, logits))

        return sparing(batch, fresh, together, probe=lambda: predictor(np.zeros_like(batch.pixels[:1])))


def sparing(
    batch: Batch,
    fresh: NDArray[np.bool_],
    together: Callable[[Batch, NDArray[np.bool_]], Predicted[Drawn]],
    *,
    probe: Callable[[], object] = bool,
) -> Predicted[Drawn]:
    """Do something with the fresh pages of a batch; those that it meets an error at become faults, and no others.

    Args:
        batch: N pages.
        fresh: bool[N], of which one at least.
        together: What is done.
        probe: Fails where no page is at fault; so does what is asked then.
    """
    faults = {}
    try:
        return together(batch, fresh)
    except OF_THE_MACHINE:
        raise
    except Exception:  # noqa: BLE001  (whatever the runtime, OpenCV or we ourselves did not expect)
        probe()
        for row in np.flatnonzero(fresh).tolist():
            try:
                together(batch, np.arange(len(fresh)) == row)
            except OF_THE_MACHINE:
                raise
            except Exception as error:  # noqa: BLE001
                faults[row] = unforeseen(error)
    batch, fresh = batch.spoiled(faults), np.delete(fresh, list(faults))
    return together(batch, fresh) if fresh.any() else Predicted(batch, fresh, np.zeros((0, 10), np.float32), None)


def predicted(
    batches: Iterable[Batch],
    prediction: Prediction,
    *,
    judge: Callable[[Batch], tuple[Batch, NDArray[np.bool_]]],
    draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn],
    stop: Stop,
) -> Iterator[Predicted[Drawn]]:
    """Predict what is fresh of each batch, a few batches ahead of who takes them.

    Args:
        batches: As they are decoded.
        prediction: The model.
        judge: Tells of a batch what is to be recorded of it, and which pages of that are fresh.
        draw: Draws from a batch, its fresh pages and their logits what else is wanted.
        stop: Signals end the waiting for the decoders, and nothing else here.

    Yields:
        The batches in their order. Where the decoders, or a signal, end the run, those that were begun come first.

    Raises:
        BatchDigitsError: What ended it.
    """
    ahead: deque[tuple[Batch, NDArray[np.bool_], Future[Predicted[Drawn]] | None]] = deque()
    end: BatchDigitsError | None = None

    def is_full() -> bool:
        if prediction.is_loaded:
            return len(ahead) > _MOST_BATCHES
        return sum(batch.nbytes for batch, *_ in ahead) > _MOST_BYTES

    def first() -> Predicted[Drawn]:
        batch, fresh, future = ahead.popleft()
        return future.result() if future else Predicted(batch, fresh, np.zeros((0, 10), np.float32), None)

    source = iter(batches)
    while True:
        try:
            with stop.readily():
                whole = next(source, None)
        except BatchDigitsError as error:
            end = error
            break
        if whole is None:
            break
        batch, fresh = judge(whole)
        ahead.append((batch, fresh, prediction.ask(batch, fresh, draw) if fresh.any() else None))
        while ahead and (is_full() or (future := ahead[0][2]) is None or future.done()):
            yield first()
    while ahead:
        yield first()
    if end:
        raise end

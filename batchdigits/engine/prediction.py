"""Run the model in a background thread, up to three batches ahead, in order.

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

from batchdigits.engine.run_context import StageTimer, Stop
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
    is_new: NDArray[np.bool_]
    """bool[N], the pages that were predicted."""
    logits: Logits
    """float32[M, K], in the order of the M new pages; [0, 10] where there is none."""
    drawn: Drawn | None
    """What is drawn from it; None where no page is new."""


class BackgroundPredictor:
    """A model at work in a thread of its own: a context manager."""

    def __init__(self, predictor: AbstractContextManager[_Function], timer: StageTimer) -> None:
        """Name the predictor; nothing is loaded before it is needed.

        Args:
            predictor: Entered in the thread, once.
            timer: Gets the seconds of `load model` and of `predict`.
        """
        self._predictor = predictor
        self._timer = timer
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
        self, batch: Batch, is_new: NDArray[np.bool_], draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn]
    ) -> Future[Predicted[Drawn]]:
        """Have the new pages of a batch predicted; what loading raises, the result raises.

        Args:
            batch: N pages.
            is_new: bool[N], of which one at least.
            draw: Draws from the batch, its new pages and their logits what else is wanted, in the thread, too.
        """
        self.start()
        return self._thread.submit(self._predict, batch, is_new, draw)

    def _load(self) -> _Function:
        with self._timer.stage("load model"):
            return self._entered.enter_context(self._predictor)

    def _predict(
        self, batch: Batch, is_new: NDArray[np.bool_], draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn]
    ) -> Predicted[Drawn]:
        assert self._loading is not None, "`ask` has begun to load the model"
        predictor = self._loading.result()  # at once: the thread does one thing after the other

        def together(batch: Batch, is_new: NDArray[np.bool_]) -> Predicted[Drawn]:
            with self._timer.stage("predict"):
                logits = predictor(batch.pixels[is_new])
            with self._timer.stage("decide"):
                return Predicted(batch, is_new, logits, draw(batch, is_new, logits))

        return sparing(batch, is_new, together, probe=lambda: predictor(np.zeros_like(batch.pixels[:1])))


def sparing(
    batch: Batch,
    is_new: NDArray[np.bool_],
    together: Callable[[Batch, NDArray[np.bool_]], Predicted[Drawn]],
    *,
    probe: Callable[[], object] = bool,
) -> Predicted[Drawn]:
    """Do something with the is_new pages of a batch; those that it meets an error at become faults, and no others.

    Args:
        batch: N pages.
        is_new: bool[N], of which one at least.
        together: What is done.
        probe: Fails where no page is at fault; so does what is asked then.
    """
    faults = {}
    try:
        return together(batch, is_new)
    except OF_THE_MACHINE:
        raise
    except Exception:  # noqa: BLE001  (whatever the runtime, OpenCV or we ourselves did not expect)
        probe()
        for row in np.flatnonzero(is_new).tolist():
            try:
                together(batch, np.arange(len(is_new)) == row)
            except OF_THE_MACHINE:
                raise
            except Exception as error:  # noqa: BLE001
                faults[row] = unforeseen(error)
    batch, is_new = batch.spoiled(faults), np.delete(is_new, list(faults))
    return together(batch, is_new) if is_new.any() else Predicted(batch, is_new, np.zeros((0, 10), np.float32), None)


def predict_ahead(
    batches: Iterable[Batch],
    prediction: BackgroundPredictor,
    *,
    judge: Callable[[Batch], tuple[Batch, NDArray[np.bool_]]],
    draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn],
    stop: Stop,
) -> Iterator[Predicted[Drawn]]:
    """Predict what is new of each batch, a few batches ahead of who takes them.

    Args:
        batches: As they are decoded.
        prediction: The model.
        judge: Tells of a batch what is to be recorded of it, and which pages of that are new.
        draw: Draws from a batch, its new pages and their logits what else is wanted.
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
        batch, is_new, future = ahead.popleft()
        return future.result() if future else Predicted(batch, is_new, np.zeros((0, 10), np.float32), None)

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
        batch, is_new = judge(whole)
        ahead.append((batch, is_new, prediction.ask(batch, is_new, draw) if is_new.any() else None))
        while ahead and (is_full() or (future := ahead[0][2]) is None or future.done()):
            yield first()
    while ahead:
        yield first()
    if end:
        raise end

"""What is pending in; batches of it with their logits, to be recorded, out: on the processors of this machine.

`scaleout` does the same on a cluster: an engine is a function that takes a `Task` and yields what `predicted` does.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.isolation import one_by_one
from batchdigits.engine.pool import Workers, batches, is_work_for_processes
from batchdigits.engine.prediction import Predicted, Prediction, predicted
from batchdigits.engine.run_context import Stop, Stopwatch
from batchdigits.inference.audit import in_sample
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import Decisions
from batchdigits.ledger.plan import Plan, Turn
from batchdigits.preprocessing import thumbnails
from batchdigits.records import INK, Batch, Logits, Status
from batchdigits.settings import PredictSettings
from batchdigits.sources.settling import Settling

_LOST = 0.002  # share of ink below which a digit is a few pixels of a thumbnail

Drawn = tuple[NDArray[np.int64], dict[int, bytes]]
"""What is drawn of a batch: its confidences as `drift.histogram` counts them, and thumbnails by the row."""


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine needs to know of a run."""

    plan: Plan
    """What is pending."""
    is_new: bool
    """Nothing was observed before, so that all of it will be predicted."""
    settling: Settling
    """Which files may still be being written."""
    model: Bundle
    """What reads the digits."""
    prediction: Prediction
    """The same at work in this process; loaded when it is asked first."""
    settings: PredictSettings
    """Of the run."""
    watch: Stopwatch
    """Gets the seconds of the stages."""
    stop: Stop
    """Tells of signals."""
    judge: Callable[[Batch], tuple[Batch, NDArray[np.bool_]]]
    """Tells of a batch what is to be recorded of it, and which pages of that are fresh; in this thread."""
    draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn]
    """Draws from a batch, its fresh pages and their logits what else is recorded; in any thread."""


Engine = Callable[[Task], Generator[Predicted[Drawn], None, None]]
"""Yields every page of every pending file in exactly one batch."""


def on_this_machine(task: Task) -> Generator[Predicted[Drawn], None, None]:
    """Decode in a pool of workers, and predict in a thread: an `Engine`.

    Raises:
        BatchDigitsError: What ended it.
    """
    plan, settings = task.plan, task.settings
    decoding, normalisation = settings.decoding, task.model.normalisation
    # Where nothing is known, what is pending will be predicted. The runtime does not start sooner: its import holds
    # Python's lock for so long at a time that a folder takes ten times as long to be listed beside it.
    if task.is_new:
        task.prediction.start()
    alone, young = (task.settling.settled(plan.in_turn(turn), plan.defer) for turn in (Turn.ALONE, Turn.YOUNG))
    in_processes = is_work_for_processes(plan.pending.total(), plan.pending_bytes)
    with (
        SharedFinder(task.model.directory, settings.runtime) as finder,
        Workers(settings.workers, finder, processes=in_processes) as workers,
    ):
        ready = batches(
            chain(plan.in_turn(Turn.SETTLED), young),
            workers,
            size=settings.batch_size,
            decoding=decoding,
            normalisation=normalisation,
            watch=task.watch,
            first=one_by_one(alone, decoding=decoding, normalisation=normalisation, finder=finder, watch=task.watch),
        )
        yield from predicted(ready, task.prediction, judge=task.judge, draw=task.draw, stop=task.stop)


def thumbnails_of(batch: Batch, fresh: NDArray[np.bool_], decisions: Decisions, *, audit: float) -> dict[int, bytes]:
    """Make pictures of what people may want to look at; where a digit is lost on its page, of what the model saw of it.

    Args:
        batch: N pages.
        fresh: bool[N], those that are new.
        decisions: On the new ones, at the strictest threshold.
        audit: Share of files, 0 to 1, that may be drawn.

    Returns:
        PNGs, by the row in the batch.
    """
    rows = np.flatnonzero(fresh)
    wanted = in_sample([batch.pages[row].sha256 for row in rows], audit)
    wanted |= np.array([status is not Status.OK for status in decisions.status], np.bool_)
    return {
        row: thumbnails.png(255 - batch.pixels[row] if 0 < batch.ink[row, INK] < _LOST else batch.pictures[row])
        for row in rows[wanted].tolist()
    }

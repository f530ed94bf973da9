"""Read the pending files on the processors of this machine: decode in worker processes, predict in a thread.

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
from batchdigits.engine.prediction import BackgroundPredictor, Predicted, predict_ahead
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.inference.audit import in_sample
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import Decisions
from batchdigits.ledger.plan import Phase, Plan
from batchdigits.preprocessing import thumbnails
from batchdigits.records import INK, Batch, Logits, Status
from batchdigits.settings import PredictSettings
from batchdigits.sources.settling import Settling

_LOST = 0.002  # share of ink below which a digit is a few pixels of a thumbnail

Drawn = tuple[NDArray[np.int64], dict[int, bytes]]
"""What is stored of a batch beside its logits: confidences as `drift.histogram` counts them, and PNGs by the row."""


@dataclass(frozen=True, slots=True)
class Task:
    """What an engine needs to know of a run."""

    plan: Plan
    """What is pending."""
    all_new: bool
    """Nothing was observed before, so that all of it will be predicted."""
    settling: Settling
    """Which files may still be being written."""
    model: Bundle
    """What reads the digits."""
    prediction: BackgroundPredictor
    """The same at work in this process; loaded when it is asked first."""
    settings: PredictSettings
    """Of the run."""
    timer: StageTimer
    """Gets the seconds of the stages."""
    stop: Stop
    """Tells of signals."""
    judge: Callable[[Batch], tuple[Batch, NDArray[np.bool_]]]
    """Drops files that changed while they were read; returns the rest and bool[N], True where no prediction is stored.
    Called in the thread of the caller."""
    draw: Callable[[Batch, NDArray[np.bool_], Logits], Drawn]
    """Gives the confidences and the thumbnails of a batch, by its new pages and their logits. Called in any thread."""


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
    if task.all_new:
        task.prediction.start()
    suspect, recent = (
        task.settling.stable(plan.in_phase(phase), plan.defer) for phase in (Phase.SUSPECT, Phase.RECENT)
    )
    in_processes = is_work_for_processes(plan.pending.total(), plan.pending_bytes)
    with (
        SharedFinder(task.model.directory, settings.runtime) as finder,
        Workers(settings.workers, finder, processes=in_processes) as workers,
    ):
        ready = batches(
            chain(plan.in_phase(Phase.STABLE), recent),
            workers,
            size=settings.batch_size,
            decoding=decoding,
            normalisation=normalisation,
            timer=task.timer,
            first=one_by_one(suspect, decoding=decoding, normalisation=normalisation, finder=finder, timer=task.timer),
        )
        yield from predict_ahead(ready, task.prediction, judge=task.judge, draw=task.draw, stop=task.stop)


def thumbnails_of(batch: Batch, is_new: NDArray[np.bool_], decisions: Decisions, *, audit: float) -> dict[int, bytes]:
    """Make pictures of what people may want to look at; where a digit is lost on its page, of what the model saw of it.

    Args:
        batch: N pages.
        is_new: bool[N], those that are new.
        decisions: On the new ones, at the strictest threshold.
        audit: Share of files, 0 to 1, that may be drawn.

    Returns:
        PNGs, by the row in the batch.
    """
    rows = np.flatnonzero(is_new)
    wanted = in_sample([batch.pages[row].sha256 for row in rows], audit)
    wanted |= np.array([status is not Status.OK for status in decisions.status], np.bool_)
    return {
        row: thumbnails.png(255 - batch.pixels[row] if 0 < batch.ink[row, INK] < _LOST else batch.pictures[row])
        for row in rows[wanted].tolist()
    }

"""Run the stages in order, from settings to written reports and a summary. The file to open first.

sources -> decoding -> preprocessing -> inference -> ledger -> decisions -> reports
"""

import io
import json
import logging
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.errors import NoImages, StorageError, UsageError, escaped
from batchdigits.inference import bundle, drift
from batchdigits.inference.audit import audit_share
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.runtimes import check_threads, version
from batchdigits.inference.thresholds import strictest_threshold
from batchdigits.inference.trust import Trust, judge
from batchdigits.ledger import last_run
from batchdigits.ledger.ledger import CacheKey, Ledger, LostAnswer
from batchdigits.ledger.location import copied, held, ledger_path
from batchdigits.ledger.plan import Phase, Plan, Why
from batchdigits.monitoring import Summary
from batchdigits.progress import Progress
from batchdigits.records import Batch
from batchdigits.reports import backup, dry_run, publish, standing
from batchdigits.reports.publish import Outputs, check_outputs, parse_outputs
from batchdigits.reports.rows import Decided, DecisionSettings, Tally, about_report, decide_on, render
from batchdigits.reports.survey import survey
from batchdigits.settings import STDOUT, DecodingSettings, NormalisationSettings, PredictSettings
from batchdigits.sources.discovery import discover, source_folders, source_identities, source_paths
from batchdigits.sources.mounts import disks_under
from batchdigits.sources.rules import IMAGE_ENDINGS, NAMED, Selection
from batchdigits.sources.settling import Settling
from batchdigits.storage.local import LocalFile, storage_errors
from batchdigits.storage.remote import remote_sources_exist
from batchdigits.storage.scratch import Spool, tidy_up
from batchdigits.storage.urls import Location, check, locate, refuse

if TYPE_CHECKING:
    from batchdigits.engine.local import Engine, Reading

log = logging.getLogger(__name__)

_MOST_NAMED = 3  # files of a kind
_LEAST_SEVERAL, _SEVERAL_SHARE = 3, 0.2  # rows with several digits, and their share, from which a sentence says so
_SEVERAL = "%d of %d images seem to hold several digits or letters; this program reads one digit an image."
_DRIFTED = "These scans differ from what the model was tested on. Expect more mistakes than {}: {}."
_AUDIT = "answer the {:,} pictures of the audit sample in the review page (-o report.html), and the next run will know"
_NO_AUDIT = "look through them in the review page (-o report.html)"


def run(
    settings: PredictSettings, *, stdout: BinaryIO, stop: Stop | None = None, engine: "Engine | None" = None
) -> Summary:
    """Read the digits of all images under the sources, and write the reports.

    Args:
        settings: The run.
        stdout: Where the output `-` goes, as CSV.
        stop: What lets a batch be finished before a signal ends the run.
        engine: What observes the files that are pending; None does it on this machine.

    Raises:
        Locked: Another run holds the ledger.
        Interrupted: The run was asked to end by SIGINT.
        Terminated: The run was asked to end by SIGTERM.
        UsageError: An output cannot be written as it is named, or would overwrite an input.
        BundleError: The model cannot be used.
        StorageError: A source cannot be listed, or a report not be written.
        NoImages: The sources hold no image, and `allow_empty` is off.
    """
    check_threads(settings.threads)
    model = bundle.load(settings.model)
    model.calibration.threshold(settings)  # before any work: some targets cannot be proven
    names = _Names.of(settings)
    timer, settling, stop = StageTimer(), Settling(settings.settle_seconds), stop or Stop()
    place, key = names.ledger(settings), _cache_key(model, settings)
    tidy_up()
    with _held_ledger(place, key, settings) as ledger, Progress(is_shown=settings.progress) as progress:
        found = backup.published_reports(ledger, names.outputs.files)
        if not settings.overwrite:
            backup.check_sources(found, names.outputs.files, names.sources)
        folders = source_identities(names.sources)
        progress.say("Looking for images")
        with timer.stage("list"):
            plan, disks = _plan(ledger, settling, place, names, settings)
        confidences = drift.histogram(np.zeros(0))
        if plan.pending:
            reading = _reading(model, plan, ledger, names, settings, timer, stop)
            with stop.patiently(), closing(_read(engine, reading, plan, settling, progress)) as batches:
                for batch in batches:
                    _show_traces(batch)
                    with timer.stage("record"):
                        _tell(ledger.record(batch))
                    progress.record(len(batch.files))
                    confidences += batch.confidences or 0
        _check_that_sources_stayed(plan, folders, names, settings)
        with timer.stage("report"):
            follow_from = [last_run.spelled(settings, model.id), key.others, plan.fingerprint]
            kept = None if plan.pending else standing.kept(ledger, names.outputs, follow_from)
            if STDOUT in settings.outputs and not kept:
                progress.rest()
            elif not kept:
                progress.say(f"Writing {', '.join(map(escaped, settings.outputs))}")
            replacing = backup.Replacing(found, names.sources, overwrite=settings.overwrite)
            tally, trust = kept or _publish(
                ledger, plan, names, model, settings, stdout=stdout, keeper=replacing, together=stop.patiently
            )
        with ledger.at_once():
            if place and names.outputs.files:
                ledger.keep_run(last_run.spelled(settings, model.id))
            last_run.remember(plan, disks)
            faulty = 0 if kept else ledger.mark_faults_reported() + tally.unforeseen
        if not (kept or plan.deferred or tally.unforeseen):
            standing.keep(ledger, names.outputs, follow_from, tally, trust)
        _warn_of_several(tally)
        trust = _compared(confidences, model, tally, trust)
        drift_index = drift.index(confidences, model.calibration.reference)
        summary = _summary(plan, tally, trust, model, timer, faulty=faulty, drift_index=drift_index)
        return replace(summary, is_kept=bool(kept))


def _publish(
    ledger: Ledger,
    plan: Plan,
    names: "_Names",
    model: Bundle,
    settings: PredictSettings,
    *,
    stdout: BinaryIO,
    keeper: backup.Replacing,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[Tally, Trust]:
    """Write the reports of what the ledger holds; give what is in them, and how far it can be trusted.

    What rows are decided on by follows from the settings and from what the ledger holds, all of which is read once.
    """
    tally, audit = Tally(), audit_share(model, settings.target_error, plan.files)
    observed, decided = ledger.observations(thumbnails=names.outputs.show_pictures), Spool[Decided]()
    trust = judge(
        survey(_kept(decide_on(observed, model.calibration, tally), decided), audit),
        model.calibration,
        settings.target_error,
        given=settings.threshold,
        adapt=not settings.no_adapt,
    )
    terms = DecisionSettings(model, audit, trust)
    publish.publish(
        render(decided, terms, tally),
        names.outputs,
        about=about_report(terms, settings, versions=_cache_key(model, settings).others),
        settings=replace(settings.report, originals=names.originals),
        stdout=stdout,
        keeper=keeper,
        together=together,
    )
    return tally, trust


def _warn_of_several(tally: Tally) -> None:
    """Say where many pages seem to hold several digits."""
    if tally.several >= max(_LEAST_SEVERAL, _SEVERAL_SHARE * tally.rows.total()):
        log.warning(_SEVERAL, tally.several, tally.rows.total())


def _compared(confidences: NDArray[np.int64], model: Bundle, tally: Tally, trust: Trust) -> Trust:
    """Warn where the confidences of what is new are worse than those of the validation data, and note it."""
    if not drift.is_worse(confidences, model.calibration.reference):
        return trust
    usual = f"{trust.promised:.1%}" if trust.promised else "usual"
    remedy = _AUDIT.format(tally.audit.sample) if tally.audit.sample else _NO_AUDIT
    log.warning(_DRIFTED.format(usual, remedy))
    return replace(trust, drifted=True)  # of what is new, whatever the rest is


def _kept(chunks: Iterable[Decided], spool: Spool[Decided]) -> Iterator[Decided]:
    """Keep what passes."""
    for chunk in chunks:
        spool.add([chunk])
        yield chunk


def _summary(
    plan: Plan, tally: Tally, trust: Trust, model: Bundle, timer: StageTimer, *, faulty: int, drift_index: float | None
) -> Summary:
    return Summary(
        files=plan.files,
        pending=plan.pending.total() - plan.pending[Why.UNDRAWN],
        deferred=plan.deferred,
        rows=tally.rows,
        verdicts=tally.verdicts,
        left=tally.left,
        failed=tally.failed,
        digits=tally.digits,
        audit=tally.audit,
        skipped=plan.skipped,
        faulty=faulty,
        model=model.id,
        trust=trust,
        drift=drift_index,
        seconds=timer.seconds,
        elapsed=timer.elapsed,
    )


def renew(ledger: Path) -> tuple[Summary, tuple[str, ...]]:
    """Write the reports of a ledger's last run anew, from what the ledger holds: what people answered since is in them.

    No image is read. The names of sources and reports begin where that run began, which has to be the working folder.

    Args:
        ledger: Where it is; `remembered` tells whether, and where, it can be done.

    Returns:
        What the reports hold, and their names.

    Raises:
        BatchDigitsError: What `run` would raise; or the model is another one.
    """
    settings, model_id = last_run.parsed(last_run.recall(ledger))
    model = bundle.load(settings.model)
    if model.id != model_id:
        message = f"The model in {escaped(str(model.directory))} is another than the reports were made with."
        raise UsageError(message)
    names = _Names.of(settings)
    with ExitStack() as stack:
        stack.enter_context(held(ledger, wait_seconds=0))
        known = stack.enter_context(Ledger(ledger, _cache_key(model, settings)))
        found = backup.published_reports(known, names.outputs.files)
        plan, _ = _plan(known, Settling(0), ledger, names, settings)
        for phase in Phase:
            plan.defer(plan.in_phase(phase))
        replacing = backup.Replacing(found, names.sources, overwrite=False)
        tally, trust = _publish(known, plan, names, model, settings, stdout=io.BytesIO(), keeper=replacing)
        return _summary(plan, tally, trust, model, StageTimer(), faulty=0, drift_index=None), settings.outputs


def remembered(ledger: Path) -> Path | None:
    """Tell the folder in which a ledger's last run began; None where it cannot be made anew."""
    text = last_run.recall(ledger)
    folder = json.loads(text)["folder"] if text else ""
    return Path(folder) if folder else None


@contextmanager
def _held_ledger(place: Path | None, key: CacheKey, settings: PredictSettings) -> Iterator[Ledger]:
    """Hold a ledger's lock, where it is a file, and open it."""
    with ExitStack() as stack:
        if place:
            if not settings.ledger:
                with storage_errors(place):  # that of a report behind a URL may be the first in its folder
                    place.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(place, wait_seconds=settings.wait_seconds))
        yield stack.enter_context(Ledger(place, key))


def _reading(
    model: Bundle,
    plan: Plan,
    ledger: Ledger,
    names: "_Names",
    settings: PredictSettings,
    timer: StageTimer,
    stop: Stop,
) -> "Reading":
    """Say what an engine has to know."""
    # What decodes and draws is not imported where nothing is new: such a run would mostly wait for imports.
    from batchdigits.engine.local import Reading
    from batchdigits.engine.worker import Drawing

    strictest = max(strictest_threshold(model.calibration.domains), settings.threshold or 0.0)
    is_drawn = ledger.path is not None or names.outputs.show_pictures  # else nobody would ever see a picture
    audit = 2 * audit_share(model, settings.target_error, plan.files)  # twice, for some files will go
    is_remote = any(source.is_remote for source in names.sources)
    drawing = Drawing(strictest, audit, is_drawn, cut_outs=is_remote or names.outputs.show_pictures)
    known, paths = ledger.known_bytes(), source_paths(names.sources)
    return Reading(model, settings, drawing, timer, stop, known, is_remote, paths)


def _read(
    engine: "Engine | None", reading: "Reading", plan: Plan, settling: Settling, progress: Progress
) -> Generator[Batch, None, None]:
    """Read all that is pending, first what is stable; leave out what changes meanwhile."""
    from batchdigits.engine.local import on_this_machine

    progress.say("Loading the model", plan.pending.total())
    with (engine or on_this_machine)(reading) as read:
        progress.tick()  # a thread, which would be in the way of the forks before
        recent = settling.stable(plan.in_phase(Phase.RECENT), plan.defer)
        for whole in chain(read(plan.in_phase(Phase.STABLE)), read(recent)):
            progress.say("Reading", plan.pending.total())  # the model is there
            yield settling.drop_changed(whole, plan.defer)
        for whole in read(plan.in_phase(Phase.UNDRAWN)):
            yield settling.drop_unread(settling.drop_changed(whole, plan.defer), plan.defer)
    if settling.waited:
        reading.timer.add("settle", settling.waited)


def _check_that_sources_stayed(
    plan: Plan, folders: list[tuple[int, int] | None], names: "_Names", settings: PredictSettings
) -> None:
    """Check that no source was taken away, as a disk is.

    Raises:
        StorageError: One was.
    """
    if source_identities(names.sources) != folders or (
        plan.pending and not remote_sources_exist(source.path for source in names.sources if source.is_remote)
    ):
        raise StorageError(_vanished(settings.sources))


def preview(settings: PredictSettings, *, stdout: BinaryIO) -> str:
    """Say what a run would do, and write nothing but that.

    Args:
        settings: The run.
        stdout: Gets a line for each file that is not known: what would be done, its path, and why, separated by tabs.

    Returns:
        The summary in one line.

    Raises:
        BatchDigitsError: What `run` would raise before it reads any image.
    """
    names = _Names.of(settings, may_write=False)
    model = bundle.load(settings.model)
    model.calibration.threshold(settings)
    place = names.ledger(settings)
    with ExitStack() as stack:
        copy = stack.enter_context(copied(place)) if place else None
        ledger = stack.enter_context(Ledger(copy, _cache_key(model, settings)))
        if not settings.overwrite:
            files = names.outputs.files
            backup.check_sources(backup.published_reports(ledger, files), files, names.sources)
        plan, _ = _plan(ledger, Settling(settings.settle_seconds), place, names, settings)
        return dry_run.tell(plan, stdout)


@dataclass(frozen=True, slots=True)
class _Names:
    """What a run reads and writes, parsed: below this module nobody asks a text whether it is a URL."""

    sources: list[Location]
    """What is read."""
    outputs: Outputs
    """What is written."""

    @classmethod
    def of(cls, settings: PredictSettings, *, may_write: bool = True) -> Self:
        """Parse and check what a run is told to read and write, before any work is done.

        Args:
            settings: The run.
            may_write: Whether folders of reports that are missing are made.

        Raises:
            UsageError: A name cannot be used, or a URL holds a password.
            StorageError: A report cannot be written.
        """
        check(*settings.sources)
        if settings.ledger:
            refuse(settings.ledger, "The ledger")
        names = cls([locate(source) for source in settings.sources], parse_outputs(settings.outputs))
        if may_write:
            publish.make_folders(names.outputs)
        check_outputs(names.outputs)
        return names

    @property
    def originals(self) -> str:
        """The folder in which the paths of rows begin, as `ReportSettings` has it."""
        if any(source.is_remote for source in self.sources) or any(file.is_remote for file in self.outputs.files):
            return ""
        alone = self.sources[0].path if len(self.sources) == 1 else ""
        return alone if Path(alone).is_dir() and alone else str(Path.cwd())

    def ledger(self, settings: PredictSettings) -> Path | None:
        """Say where the ledger is; None where nothing is kept."""
        return ledger_path(self.outputs.files, named=settings.ledger, no_ledger=settings.no_ledger)


def _plan(
    ledger: Ledger, settling: Settling, place: Path | None, names: _Names, settings: PredictSettings
) -> tuple[Plan, dict[str, str]]:
    """Find out what there is to do, and which disks lie under the sources.

    Raises:
        NoImages: The sources hold no image, or one of them none any more, and `allow_empty` is off.
        StorageError: Files are gone by many, or with their disk, and `allow_vanished` is off.
    """
    ours = [*names.outputs.files, *([LocalFile(place)] if place else [])]
    plan = ledger.plan(
        discover(names.sources, outputs=ours, selection=Selection(include=settings.include, exclude=settings.exclude)),
        recent_ns=settling.recent_ns,
        force=settings.force,
        retry_failed=settings.retry_failed,
        pictures=names.outputs.show_pictures,
    )
    _name_skipped(plan)
    if place and plan.pending[Why.CONDITION]:
        _say_why_again(plan.pending[Why.CONDITION], last_run.recall(place), settings)
    if not settings.allow_empty:
        if not plan.files:
            raise NoImages(_no_images(settings.sources, plan.skipped))
        if emptied := [source.given for source in names.sources if plan.has_lost(source.path)]:
            raise NoImages(_no_images(tuple(emptied), Counter()))
    disks = disks_under(source_folders(names.sources))
    if plan.files and not settings.allow_vanished:
        last_run.check(plan, disks)
    return plan, disks


def _say_why_again(files: int, before: str, settings: PredictSettings) -> None:
    """Say why files that did not change are read again."""
    runtime = json.loads(before)["runtime"] if before else settings.runtime
    if runtime == settings.runtime:
        why = "by another model or version, or under other limits"
    else:
        why = f"with the runtime {runtime}, and this is {settings.runtime} (--runtime {runtime} spares it)"
    log.info("%s that did not change are read again: they were read %s.", f"{files:,} images", why)


def _name_skipped(plan: Plan) -> None:
    """Warn of what has no row and may be missed, once for all of a kind."""
    for reason, remedy in NAMED.items():
        if count := plan.skipped[reason]:
            names = ", ".join(map(escaped, plan.first_skipped(reason, _MOST_NAMED)))
            more = f" and {count - _MOST_NAMED:,} more" if count > _MOST_NAMED else ""
            log.warning("Left out (%s): %s%s; %s to read it, or --exclude it.", reason, names, more, remedy)


def _cache_key(model: Bundle, settings: PredictSettings) -> CacheKey:
    """Name all that what is observed depends on, beside the files.

    Of a bundle whose export for LiteRT was found to be the same function, the runtime is no part of that.

    Raises:
        UsageError: The runtime is not installed.
    """
    limits = settings.decoding
    runtime = version(settings.runtime)
    others = [
        f"decoding {DecodingSettings.VERSION}",
        f"normalisation {NormalisationSettings.VERSION}, asking {bundle.ASKING}",
        *([] if model.is_exported else [runtime]),
        *([f"{settings.threads} threads"] if settings.threads > 1 else []),
        f"at most {limits.max_pixels} pixels and {limits.max_bytes} bytes",
    ]
    return CacheKey(model.id, ", ".join(others))


def _show_traces(batch: Batch) -> None:
    for row, fault in batch.faults.items():
        if fault.trace:
            page = batch.pages[row]
            log.debug("%s, page %d: %s", escaped(batch.files[page["file"]].path), page["number"], fault.trace)


def _tell(lost: Iterable[LostAnswer]) -> None:
    for answer in lost:
        why = (
            "no longer counts, since the file's bytes changed"
            if answer.is_read
            else "does not count while the file cannot be read"
        )
        log.warning("%s: the answer %s to its page %d %s.", escaped(answer.path), answer.answer, answer.page, why)


def _vanished(sources: tuple[str, ...]) -> str:
    names = ", ".join(escaped(source) for source in sources)
    return (
        f"A folder of {names} was taken away while it was read; check that its disk is mounted. Reports stay as they "
        "are, and the next run goes on from there."
    )


def _no_images(sources: tuple[str, ...], skipped: Counter[str]) -> str:
    names = ", ".join(escaped(source) for source in sources)
    others = "; ".join(f"{count} × {reason}" for reason, count in skipped.most_common())
    skips = f" (skipped: {others})" if others else ""
    endings = " ".join(sorted(IMAGE_ENDINGS))
    return (
        f"No image was found in {names}{skips}; expected files ending in {endings}. Reports stay as they are; if that "
        "is how it should be, give --allow-empty."
    )

"""Before a report is replaced, refuse one made from other sources, and back up one that somebody edited."""

import logging
import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.ledger.database import glimpse
from batchdigits.ledger.ledger import PUBLISHED, Ledger, Publications, publications
from batchdigits.ledger.location import beside, checked
from batchdigits.reports.corrections import ENDINGS
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.local import LocalFile, file_sha256, fitting
from batchdigits.storage.urls import Location

log = logging.getLogger(__name__)

_HEX = 8  # digits of a sum that tell edited reports apart


@dataclass(frozen=True, slots=True)
class PublishedReports:
    """What is known of the reports that stand where new ones will."""

    ledger: Ledger
    """The run's."""
    others: dict[TargetFile, Publications]
    """What other ledgers, beside the reports, know of each, by its path, links resolved."""

    def published(self, report: TargetFile) -> Publications:
        """Give what may stand at a path: this run's ledger knows it, or else another."""
        return self.ledger.published(report) or self.others.get(report, {})


def published_reports(ledger: Ledger, reports: Sequence[TargetFile]) -> PublishedReports:
    """Look at what other ledgers know of reports, once and before any work; one that cannot be read knows nothing."""
    others: dict[TargetFile, Publications] = {}
    own = LocalFile(ledger.path).target if ledger.path else None
    for report in reports:
        target = report.target
        for place in {beside(report), beside(target)}:
            with suppress(StorageError):  # what is no ledger, or somebody else's link, knows nothing either
                if LocalFile(place).target != own:
                    others.setdefault(target, {}).update(_published_by(checked(place), target))
    return PublishedReports(ledger, others)


def check_sources(
    published_reports: PublishedReports, reports: Sequence[TargetFile], sources: Sequence[Location]
) -> None:
    """Check that the reports which stand there were made from the same sources.

    Raises:
        UsageError: One was not.
    """
    for report in reports:
        made_from = set(published_reports.published(report.target).values())
        if made_from and _named(sources) not in made_from and report.exists():
            others = ", ".join(map(escaped, sorted(made_from)[0]))
            message = (
                f"The report {escaped(str(report))} was made from other sources: {others}; name another with -o, or "
                "give --overwrite to replace it; people's answers stay known."
            )
            raise UsageError(message)


class Replacing:
    """What keeps people's work when reports are replaced: a file that is not as a ledger published it is backed up."""

    def __init__(
        self, published_reports: PublishedReports, sources: Sequence[Location], *, overwrite: bool = False
    ) -> None:
        """Say what is replaced.

        Args:
            published_reports: What is known of the reports that stand there.
            sources: What the new ones are made from.
            overwrite: Where nothing is kept from run to run, replace a report without a backup.
        """
        self._published = published_reports
        self._ledger = published_reports.ledger
        self._sources = _named(sources)
        self._keeps_all = not overwrite or self._ledger.path is not None
        self._seen: dict[TargetFile, set[str]] = {}

    def before(self, draft: Path, report: TargetFile) -> bool:
        """Look at a report before it is replaced: what `atomic.atomic_write_all` calls then."""
        stands = report.sha256()
        comes = file_sha256(draft)
        known = self._published.published(report)
        self._seen[report] = {stands, comes, *known}
        if stands != comes or known.get(comes) != self._sources:
            self._ledger.publish(report, comes, self._sources, replaced=stands)
        if stands in ("", comes, *known) or not self._keeps_all:
            return stands != comes
        if not self._ledger.path:
            why = "may be edited: without a ledger nobody knows (--overwrite replaces it)"
        elif known:
            why = "was edited since it was published"
        else:
            why = "is not the work of this ledger"
        self._keep(report, stands, why)
        return True

    def after(self, old: Path, report: TargetFile) -> None:
        """Look at what stood there until that moment: what `atomic.atomic_write_all` calls then."""
        stood = file_sha256(old)
        if stood not in self._seen[report] and self._keeps_all:
            self._keep(report, stood, "was edited just before it was replaced", lies=old)

    def _keep(self, report: TargetFile, sha256: str, why: str, *, lies: Path | None = None) -> None:
        name = PurePath(report.name)
        kept = report.back_up(fitting(name.stem, f".edited-{sha256[:_HEX]}{name.suffix}"), lies=lies)
        how = _how_to_take_over(report, kept, self._ledger.path)
        log.warning("%s %s; it is kept as %s.%s", escaped(str(report)), why, escaped(kept.name), how)


def _published_by(ledger: Path, report: TargetFile) -> Publications:
    """Read what another ledger says of a report; nothing where it cannot be read."""
    with suppress(ValueError):
        return publications(glimpse(ledger, PUBLISHED, (bytes(report),)))
    return {}


def _how_to_take_over(report: TargetFile, kept: TargetFile, ledger: Path | None) -> str:
    """Say what command reads the answers in an edited report, where one does."""
    place = Path(os.path.realpath(ledger or beside(report)))
    if not place.exists() or PurePath(report.name).suffix.lower() not in ENDINGS:
        return ""
    first, copy = ("Fetch it. ", kept.name) if kept.is_remote else ("", str(kept))
    command = f"batchdigits correct {_quoted(str(report))} {_quoted(copy)}"
    if place != beside(report):
        command += f" --ledger {_quoted(str(place))}"
    return f" {first}Take the answers in its column corrected over with: {command}"


def _quoted(name: str) -> str:
    """Spell a path for a shell: where a terminal cannot show it, by the escapes in `escaped`, which bash has too."""
    safe = escaped(name)
    return shlex.quote(name) if safe == name else "$'" + safe.replace("'", r"\'") + "'"


def _named(sources: Sequence[Location]) -> tuple[str, ...]:
    """Name sources so that the same ones have the same name, from whatever folder they were named."""
    return tuple(sorted({source.path for source in sources}))

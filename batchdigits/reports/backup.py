"""Reports that are about to be replaced in; what people did to them kept beside them, and the ledger told, first."""

import logging
import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from batchdigits.errors import UsageError, shown
from batchdigits.ledger.database import glimpse
from batchdigits.ledger.ledger import PUBLISHED, Ledger, Publications, publications
from batchdigits.ledger.location import beside
from batchdigits.reports.corrections import ENDINGS
from batchdigits.storage.atomic import file_sha256, fitting, standing_sha256, storage_errors
from batchdigits.storage.remote import Place, RemoteFile, absolute

log = logging.getLogger(__name__)

_HEX = 8  # digits of a sum that tell edited reports apart


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the reports that stand where new ones will."""

    ledger: Ledger
    """The run's."""
    others: dict[Place, Publications]
    """What other ledgers, beside the reports, know of each, by its path, links resolved."""

    def published(self, report: Place) -> Publications:
        """Give what may stand at a path: this run's ledger knows it, or else another."""
        return self.ledger.published(report) or self.others.get(report, {})


def standing(ledger: Ledger, reports: Sequence[Place]) -> Standing:
    """Look at what other ledgers know of reports, once and before any work; one that cannot be read knows nothing."""
    others: dict[Place, Publications] = {}
    for report in reports:
        target = _target(report)
        for place in {beside(report), beside(target)}:
            if ledger.path is None or _target(place) != _target(ledger.path):
                others.setdefault(target, {}).update(_published_by(place, target))
    return Standing(ledger, others)


def check_sources(standing: Standing, reports: Sequence[Place], sources: Sequence[str]) -> None:
    """Check that the reports which stand there were made from the same sources.

    Raises:
        UsageError: One was not.
    """
    for report in reports:
        made_from = set(standing.published(_target(report)).values())
        if made_from and _named(sources) not in made_from and report.exists():
            others = ", ".join(map(shown, sorted(made_from)[0]))
            message = (
                f"The report {shown(str(report))} was made from other sources: {others}; name another with -o, or give "
                "--overwrite to replace it."
            )
            raise UsageError(message)


def replacing(standing: Standing, sources: Sequence[str], *, overwrite: bool = False) -> Callable[[Path, Place], bool]:
    """Make what has to happen before a report takes its name: for `files.atomic_write_all`.

    A file that is not as a ledger published it is somebody's work: it is renamed. Where nothing is kept from run to
    run, `overwrite` replaces it all the same.
    """
    ledger = standing.ledger

    def before(draft: Path, report: Place) -> bool:
        stands = standing_sha256(report)
        comes = file_sha256(draft)
        known = standing.published(report)
        if stands != comes or known.get(comes) != _named(sources):
            ledger.publish(report, comes, _named(sources), replaced=stands)
        if stands in ("", comes, *known) or (overwrite and not ledger.path):
            return stands != comes
        kept = _keep(report, fitting(report.stem, f".edited-{stands[:_HEX]}{report.suffix}"))
        if not ledger.path:
            why = "may be edited: without a ledger nobody knows (--overwrite replaces it)"
        elif known:
            why = "was edited since it was published"
        else:
            why = "is not the work of this ledger"
        how = _how_to_take_over(report, kept, ledger.path)
        log.warning("%s %s; it is kept as %s.%s", shown(str(report)), why, shown(kept.name), how)
        return True

    return before


def _published_by(ledger: Path, report: Place) -> Publications:
    """Read what another ledger says of a report; nothing where it cannot be read."""
    with suppress(ValueError, TypeError):
        return publications(glimpse(ledger, PUBLISHED, (bytes(report),)))
    return {}


def _keep(report: Place, name: str) -> Place:
    """Give a report a second name beside it, so that it stands under the first until the new one does."""
    if isinstance(report, RemoteFile):
        return report.copied(name)
    kept = report.with_name(name)
    with storage_errors(kept):
        try:
            kept.hardlink_to(report)
        except FileExistsError:
            pass  # the same bytes were kept before
        except OSError:  # a file system without links
            report.rename(kept)
    return kept


def _how_to_take_over(report: Place, kept: Place, ledger: Path | None) -> str:
    """Say what command reads the answers in an edited report, where one does."""
    place = Path(os.path.realpath(ledger or beside(report)))
    if not place.exists() or report.suffix.lower() not in ENDINGS:
        return ""
    first, copy = ("Fetch it. ", Path(kept.name)) if isinstance(kept, RemoteFile) else ("", kept)
    command = f"batchdigits correct {_quoted(report)} {_quoted(copy)}"
    if place != beside(report):
        command += f" --ledger {_quoted(place)}"
    return f" {first}Take the answers in its column corrected over with: {command}"


def _quoted(path: Place) -> str:
    """Spell a path for a shell: where a terminal cannot show it, by the escapes in `shown`, which bash has too."""
    name = str(path)
    escaped = shown(name)
    return shlex.quote(name) if escaped == name else "$'" + escaped.replace("'", r"\'") + "'"


def _target(report: Place) -> Place:
    """The file that a report's name leads to: what `files.atomic_write_all` replaces."""
    return Path(os.path.realpath(report)) if isinstance(report, Path) else report


def _named(sources: Sequence[str]) -> tuple[str, ...]:
    """Name sources so that the same ones have the same name, from whatever folder they were named."""
    return tuple(sorted({absolute(source) for source in sources}))

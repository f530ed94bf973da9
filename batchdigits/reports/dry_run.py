"""Say what a run would do, in lines for people and scripts, and write nothing else."""

from collections import Counter
from pathlib import PurePath
from typing import BinaryIO

from batchdigits.errors import escape_name, escaped
from batchdigits.ledger.plan import Phase, Plan, Why
from batchdigits.reports.publish import Pipe

_REASONS = {
    Why.NEW: "",
    Why.CHANGED: "its size, time or inode is another one",
    Why.ASKED: "--force or --retry-failed asks for it",
    Why.CONDITION: "it was read with another model, version or limit",
    Why.UNDRAWN: "a report shows its picture, which was not drawn before",
    Why.UNOPENED: "it could not be opened or read before, and is tried again",
}
_AGAIN = "read again"
_MOST_NAMED = 3  # that are skipped
_RECENT = "it was changed just now: the run waits for it, and leaves it to the next one if it still changes"


def tell(plan: Plan, stdout: BinaryIO) -> str:
    """Write a line for each file that is not known, and return the summary.

    Args:
        plan: What a run would do.
        stdout: Gets lines of three cells separated by tabs: `new`, `changed`, `read again`, `deferred` or `skipped`;
            the absolute path, as reports spell names; and why.
    """
    counts: Counter[str] = Counter()
    skipped: list[str] = []
    pipe = Pipe(stdout)
    for path, phase, why in plan.todo():
        what, reason = _judged(phase, why)
        counts[what] += 1
        if what == "skipped" and len(skipped) < _MOST_NAMED:
            skipped.append(f"{escaped(PurePath(path).name)} ({reason})")
        pipe.write(f"{what}\t{escape_name(path)}\t{reason}\n".encode())
    known = plan.files - plan.pending.total()
    parts = [f"{counts[what]:,} {what}" for what in (Why.NEW, Why.CHANGED, _AGAIN, "deferred")]
    parts.append(f"{counts['skipped']:,} skipped")
    told = f"dry run: {plan.files:,} images found, {known:,} known, {', '.join(parts)}; nothing was read or written"
    if skipped:
        more = f" and {counts['skipped'] - len(skipped):,} more" if counts["skipped"] > len(skipped) else ""
        told += f"\nSkipped is what gets no row: {', '.join(skipped)}{more}"
    return told


def _judged(phase: Phase | None, why: str) -> tuple[str, str]:
    """Say what happens to a file, and why."""
    if phase is None:
        return "skipped", why
    if phase is Phase.RECENT:
        return "deferred", _RECENT
    what = why if why in (Why.NEW, Why.CHANGED) else _AGAIN
    return what, _REASONS[Why(why)]

"""Go through stored predictions before any row is made, for what a report's threshold follows from."""

from collections.abc import Iterable

from batchdigits.inference.audit import in_sample
from batchdigits.inference.trust import Checked, Folder
from batchdigits.reports.rows import Decided


def survey(chunks: Iterable[Decided], audit: float) -> Folder:
    """Count the confidences of a folder, and gather the answers to its sample.

    Args:
        chunks: Stored predictions in the order of the report, decided on by whatever threshold.
        audit: Share of files, 0 to 1, that are in the sample.
    """
    folder = Folder()
    for seen, decided in chunks:
        folder.add(decided)
        readable = [row for row, fault in enumerate(seen.faults) if fault is None]  # those that were decided on
        drawn = in_sample([seen.sha256[row] for row in readable], audit) & decided.may_be_ok
        for at in drawn.nonzero()[0].tolist():
            row = readable[at]
            page = Checked(int(decided.digit[at]), float(decided.confidence[at]), seen.corrected[row])
            folder.sample[seen.sha256[row], seen.pages[row]] = page
    return folder

"""Go through stored predictions before any row is made, for what a report's threshold follows from."""

from collections.abc import Iterable

from batchdigits.errors import OF_THE_MACHINE
from batchdigits.inference.audit import in_sample
from batchdigits.inference.decisions import decide_calibrated
from batchdigits.inference.thresholds import Calibration
from batchdigits.inference.trust import Checked, Folder
from batchdigits.ledger.reader import Observations


def survey(chunks: Iterable[Observations], calibration: Calibration, audit: float) -> Folder:
    """Count the confidences of a folder, and gather the answers to its sample.

    Args:
        chunks: Stored predictions in the order of the report.
        calibration: Of the model.
        audit: Share of files, 0 to 1, that are in the sample.
    """
    folder = Folder()
    for seen in chunks:
        _add(folder, seen, calibration, audit)
    return folder


def _add(folder: Folder, seen: Observations, calibration: Calibration, audit: float) -> None:
    """Add a chunk; what meets an error that nobody foresaw is left out, and becomes a fault when rows are made."""
    try:
        decided = decide_calibrated(seen.logits, seen.ink, calibration, threshold=0.0)
    except OF_THE_MACHINE:
        raise
    except Exception:  # noqa: BLE001
        for one in seen.apart() if len(seen.names) > 1 else ():
            _add(folder, one, calibration, audit)
        return
    folder.add(decided)
    readable = [row for row, fault in enumerate(seen.faults) if fault is None]  # those that were decided on
    drawn = in_sample([seen.sha256[row] for row in readable], audit) & decided.may_be_ok
    for at in drawn.nonzero()[0].tolist():
        row = readable[at]
        page = Checked(int(decided.digit[at]), float(decided.confidence[at]), seen.corrected[row])
        folder.sample[seen.sha256[row], seen.pages[row]] = page

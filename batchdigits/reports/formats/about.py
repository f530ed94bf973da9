"""Say in plain words how a report was made, for the sheet About of the workbook."""

from collections.abc import Iterator

from batchdigits.inference.trust import TARGETS, Basis
from batchdigits.reports.schema import About

_MEANINGS = {
    "schema_version": "Version of the columns of this report",
    "tool_version": "Version of batchdigits that made it",
    "model": "The model that read the images",
    "temperature": "How much the model's own confidence is toned down; 1 is not at all",
    "gate": "From how sure on a page counts as one without a digit, 0 to 1",
    "threshold": "From how sure on a digit is ok, and needs nobody to look at it, 0 to 1",
    "target_error": "How many of the digits that are ok may be wrong",
    "expected_error": "How many of the digits that are ok are probably wrong here",
    "basis": "Why the threshold is what it is",
    "trust": "What the digits that are ok are worth",
    "answers_missing": "About how many more answers to the sample would prove a share of wrong ones",
    "max_pixels": "The most pixels that a page may have to be read",
    "max_bytes": "The largest file that is read",
    "versions": "Versions of the parts that read the images",
}
_REASONS = {
    Basis.GIVEN: "somebody named it",
    Basis.VALIDATION: "it keeps the target on scans like those that the model was tested on",
    Basis.FOLDER: "it follows how clear the digits of this folder are",
    Basis.DOUBTFUL: "it follows how clear the digits of this folder are: less than those that the model was tested on",
    Basis.ANSWERS: "people's answers to the sample prove it",
}


def described(about: About) -> Iterator[tuple[str, str]]:
    """Give each thing that is told of a report, what it means first."""
    words = {
        "target_error": "none: the threshold was named" if about.target_error is None else f"{about.target_error:.2%}",
        "expected_error": "too few digits to tell" if about.expected_error is None else f"{about.expected_error:.2%}",
        "basis": _REASONS[Basis(about.basis)],
        "answers_missing": ", ".join(map(_missing, about.answers_missing, TARGETS)) or "not told",
        "max_pixels": f"{about.max_pixels:,}",
        "max_bytes": f"{about.max_bytes / 2**20:,.0f} MB",
    }
    for key, value in about.metadata().items():
        name = key.removeprefix("batchdigits.")
        yield _MEANINGS[name], words.get(name, value)


def _missing(answers: int | None, target: float) -> str:
    count = "more than anybody can give" if answers is None else f"{answers:,}" if answers else "none"
    return f"{count} for {target:.1%}"

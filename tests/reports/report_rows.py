"""Rows and strategies that the report tests share."""

import os
import random
import re

import numpy as np
from hypothesis import strategies as st

from batchdigits.errors import escape_name
from batchdigits.reports.schema import About, Rows

ABOUT = About(
    tool_version="0.1.0",
    model="0123456789abcdef" * 4,
    temperature=1.25,
    gate=0.75,
    threshold=0.9,
    target_error=0.005,
    expected_error=0.002,
    basis="validation",
    trust="target error 0.50% (proven for scans like the validation data)",
    answers_missing=(299, 598, 2995),
    max_pixels=100_000_000,
    max_bytes=512 * 2**20,
    versions="decoding 1, normalisation 1, tensorflow 2.21.0",
)

_FORMULA_STARTS = st.sampled_from(["=", "+", "-", "@", "'", "''", "\t", "\r", "\n", ""])
_NASTY = st.sampled_from(list("=+-@'\"\t\r\n,;\\ \x7f\x85\u2028\u202e\u2066é7𝟕\ufeff"))
_BYTES = st.binary(max_size=12).map(lambda name: os.fsdecode(name.replace(b"\0", b"")))
_TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | _NASTY, max_size=12)

hostile_names = st.tuples(_FORMULA_STARTS, _TEXTS | _BYTES).map("".join).filter(bool).map(escape_name)
"""File names as reports get them: formula starts, quotes, newlines, bidi marks, bytes that are not UTF-8."""

hostile_texts = st.tuples(_FORMULA_STARTS, _TEXTS).map("".join)
"""Texts that nothing has escaped; details may hold them."""


def seven(path: str = "7.png", /, **changes: object) -> Rows:
    """One row that says 7, or 1; `changes` replace whole columns."""
    probabilities = np.array([[0, 0.0269, 0, 0, 0, 0, 0, 0.9731, 0, 0]], dtype=np.float32)
    columns = {
        "path": [path],
        "page": [1],
        "status": ["ok"],
        "digit": np.array([7], np.int8),
        "confidence": np.array([0.9731]),
        "runner_up": np.array([1], np.int8),
        "runner_up_confidence": np.array([0.0269]),
        "corrected": [""],
        "final": np.array([-1], np.int8),
        "detail": [""],
        "width": np.array([28], np.int32),
        "height": np.array([30], np.int32),
        "sha256": ["ab" * 32],
        "model": ["0123456789ab"],
        "probabilities": probabilities,
        "verdict": changes.get("status", ["ok"]),
        "thumbnail": [b""],
        "audit": np.array([False]),
    }
    return Rows(**{**columns, **changes})  # type: ignore[arg-type]


def doubtful(path: str = "1.png", /, **changes: object) -> Rows:
    """One row that is for review."""
    return seven(path, **{"status": ["review"], "detail": ["could be 1 or 7"], **changes})


def unreadable(path: str = "broken.png") -> Rows:
    """One row with every cell empty that may be empty."""
    nothing = np.array([np.nan])
    return seven(
        path,
        status=["unreadable"],
        digit=np.array([-1], np.int8),
        confidence=nothing,
        runner_up=np.array([-1], np.int8),
        runner_up_confidence=nothing,
        width=np.array([0], np.int32),
        height=np.array([0], np.int32),
        sha256=[""],
        model=[""],
        probabilities=np.full((1, 10), np.nan, np.float32),
    )


def sevens(paths: list[str]) -> Rows:
    """A chunk with a row of 7 for each path."""
    count = len(paths)
    one = seven()
    columns = {name: getattr(one, name) for name in Rows.__dataclass_fields__}
    many = {
        name: values * count if isinstance(values, list) else np.repeat(values, count, axis=0)
        for name, values in columns.items()
    }
    return Rows(**{**many, "path": paths})


def joined(*chunks: Rows) -> Rows:
    """One chunk with the rows of all."""
    columns = {name: [getattr(rows, name) for rows in chunks] for name in Rows.__dataclass_fields__}
    return Rows(**{n: sum(c, []) if isinstance(c[0], list) else np.concatenate(c) for n, c in columns.items()})


def a_thousand_names() -> list[str]:
    """Names that are hostile, the same in every run."""
    chance = random.Random(1998)
    pieces = [
        *(
            "=",
            "+",
            "-",
            "@",
            "'",
            '"',
            "<r>",
            "</r>",
            "<img src=x onerror=alert(1)>",
            "</script>",
            "&amp;",
            "]]>",
            "_x0041_",
            "_x005F_",
            "x0042_",
            "007",
        ),
        *("\u202e", "\u2066", "\x01", "\x1b[31m", "\x7f", "\x85", "\ufeff", "\ufffe", "\uffff", "\U0001f58a", "é"),
        *("\udcff", "\udc80", "\t", "\n", "\r", " ", "  ", ",", ";", "\\", "%", "a" * 240, "http://", "{=1}", "$A$1"),
    ]
    return [escape_name("".join(chance.choices(pieces, k=chance.randint(3, 11)))) for _ in range(1000)]


def untame(text: str) -> str:
    """Take away what a CSV report puts behind whatever may separate cells within a text."""
    return re.sub(r"""([,;\t\r\n])'(?=['"]*[=+@-])""", r"\1", text)

"""Errors: which exit code each carries, and names that are safe to show and never look alike."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits import errors
from batchdigits.errors import (
    BatchDigitsError,
    BundleError,
    ExitCode,
    Fault,
    FaultKind,
    NoImages,
    StorageError,
    UsageError,
    escape_name,
    escaped,
)

names = st.binary(max_size=16).map(os.fsdecode)
names |= st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names |= st.text(st.sampled_from(list("\\x0a1bu202e\n\x1b\x7f\x80\x9b\u202e\u2066é\udc80\udcff")), max_size=12).map(
    lambda name: os.fsdecode(os.fsencode(name))  # only what a file system can give
)


def test_every_error_carries_the_exit_code_of_the_contract() -> None:
    expected = {UsageError: 2, NoImages: 4, StorageError: 5, BundleError: 6, BatchDigitsError: 1}
    assert {error: error.exit_code for error in expected} == expected
    assert all(isinstance(error.exit_code, ExitCode) for error in expected)


def test_all_errors_stand_under_one_base_and_not_under_one_another() -> None:
    found = [error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, Exception)]
    children = [error for error in found if error is not BatchDigitsError]
    assert len(children) == 8
    assert all(error.__bases__ == (BatchDigitsError,) for error in children)
    assert BatchDigitsError.__bases__ == (Exception,)
    assert all(error.__name__ in (errors.__doc__ or "") for error in found)
    assert errors.DecoderDied.exit_code == ExitCode.UNEXPECTED  # the others have a code of their own
    assert len({error.exit_code for error in found}) == len(found) - 1


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "UNEXPECTED": 1,
        "USAGE": 2,
        "FAULTS": 3,
        "NO_IMAGES": 4,
        "STORAGE": 5,
        "BUNDLE": 6,
        "LOCKED": 75,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def test_a_fault_is_a_row_and_no_exception() -> None:
    fault = Fault(FaultKind.TOO_LARGE, "too many pixels", 60_000, 60_000)
    assert fault.kind == "too_large"
    assert not isinstance(fault, Exception)
    assert Fault(FaultKind.UNREADABLE, "cut").width is None
    assert {kind.value for kind in FaultKind} == {"unreadable", "too_large", "unsupported"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain name.png", "plain name.png"),
        ("é 𝟕 名.png", "é 𝟕 名.png"),
        ("a\nb", r"a\x0ab"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x7f\x00", r"\x7f\x00"),
        ("a\\b", r"a\\b"),
        (r"a\x0ab", r"a\\x0ab"),
        (os.fsdecode(b"\xff\x80.png"), r"\xff\x80.png"),
        ("\x85", r"\xc2\x85"),
        ("\xa0\xad", "\xa0\xad"),
        ("\u202egnp", "\u202egnp"),
        ("", ""),
    ],
)
def test_names_are_printed_with_all_that_is_no_character_escaped(name: str, expected: str) -> None:
    assert escape_name(name) == expected


@pytest.mark.parametrize("code", [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
def test_what_turns_the_direction_of_text_is_shown_escaped(code: int) -> None:
    assert escaped(f"a{chr(code)}b") == f"a\\u{code:04x}b"
    assert unicodedata.bidirectional(chr(code)) in {
        "AL",
        "L",
        "R",
        "LRE",
        "RLE",
        "PDF",
        "LRO",
        "RLO",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }


def test_no_control_of_direction_is_forgotten() -> None:
    controls = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    for code in range(0x110000):
        if unicodedata.bidirectional(chr(code)) in controls:
            assert chr(code) not in escaped(chr(code))


@given(names)
def test_a_printable_name_holds_no_control_character_and_can_be_written_as_utf_8(name: str) -> None:
    for text in (escape_name(name), escaped(name)):
        assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in text)
        text.encode()


@given(names)
def test_a_plain_name_is_printed_as_it_is(name: str) -> None:
    if "\\" not in name and not any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        assert escape_name(name) == name


@given(names, names)
def test_distinct_names_stay_distinct(first: str, second: str) -> None:
    assert (escape_name(first) == escape_name(second)) == (first == second)
    assert (escaped(first) == escaped(second)) == (first == second)


@given(names)
def test_a_printed_name_tells_the_bytes_of_the_file(name: str) -> None:
    raw = bytearray()
    text = escape_name(name).encode()
    at = 0
    while at < len(text):
        if text[at : at + 2] == b"\\\\":
            raw += b"\\"
            at += 2
        elif text[at : at + 2] == b"\\x":
            raw += bytes.fromhex(text[at + 2 : at + 4].decode())
            at += 4
        else:
            raw.append(text[at])
            at += 1
    assert bytes(raw) == os.fsencode(name)

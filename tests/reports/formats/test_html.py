import base64
import hashlib
import io
import json
import os
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.errors import escape_name
from batchdigits.reports.formats import html
from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.schema import About, Rows
from batchdigits.settings import ReportSettings
from tests.reports.report_rows import ABOUT, a_thousand_names, hostile_names, hostile_texts, seven, sevens, unreadable

MARKUP = [
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>",
    "&lt;b&gt;",
    "\u2028\u2029'\"`${1}",
]


class Page(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.texts: list[str] = []  # of each element, up to the first end of one
        self._is_inside = False
        self.feed(data.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))
        self.texts.append("")
        self._is_inside = True

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.texts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = False

    def named(self, tag: str) -> Iterator[tuple[dict[str, str | None], str]]:
        """Give the attributes and the text of each element of a kind."""
        for (name, attributes), text in zip(self.tags, self.texts, strict=True):
            if name == tag:
                yield dict(attributes), text

    def data(self) -> dict[str, Any]:
        """Read what stands in the page for its script."""
        return {str(a["id"]): json.loads(text) for a, text in self.named("script") if a.get("type")}

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = self.data()["report"]
        return report

    @property
    def pictures(self) -> list[bytes]:
        blocks = [block for name, block in self.data().items() if name.startswith("pictures-")]
        return [base64.b64decode(picture) for block in blocks for picture in block]


def written(*chunks: Rows, about: About = ABOUT) -> bytes:
    handle = io.BytesIO()
    with HtmlReport(handle, about, ReportSettings()) as report:
        for rows in chunks:
            report.write(rows)
    return handle.getvalue()


def page(*chunks: Rows, about: About = ABOUT) -> Page:
    return Page(written(*chunks, about=about))


def unsure(path: str, digit: int = 7, confidence: float = 0.5, **changes: object) -> Rows:
    """A row that a person should see."""
    read = {"status": ["review"], "digit": np.array([digit], np.int8), "confidence": np.array([confidence])}
    return seven(path, **{**read, **changes})


def rejected(path: str, status: str = "not_a_digit") -> Rows:
    return replace(
        unreadable(path), status=[status], verdict=[status], sha256=["cd" * 32], detail=["it looks like empty paper"]
    )


def paths(page: Page) -> list[str]:
    return [item["path"] for item in page.report["items"]]


def test_what_is_unsure_comes_by_digit_then_what_has_none_then_the_audit_sample() -> None:
    sample = np.array([True])
    found = page(
        *(seven("audited 7", audit=sample), seven("audited 3", audit=sample, digit=np.array([3], np.int8))),
        *(rejected("paper", "blank"), rejected("scribble"), unsure("a 9", 9), unsure("a 0", 0)),
    )
    assert paths(found) == ["a 0", "a 9", "scribble", "paper", "audited 3", "audited 7"]
    assert [(g["part"], g["status"], g["digit"], g["size"]) for g in found.report["groups"]] == [
        ("review", "review", 0, 1),
        ("review", "review", 9, 1),
        ("no_digit", "not_a_digit", None, 1),
        ("no_digit", "blank", None, 1),
        ("audit", "ok", 3, 1),
        ("audit", "ok", 7, 1),
    ]


def test_the_least_sure_of_a_group_comes_first_and_equals_by_path_and_page() -> None:
    found = page(
        *(unsure("b", page=[2]), unsure("b"), unsure("a", confidence=0.7), unsure("c"), unsure("d", confidence=0.2))
    )
    order = [(item["path"], item["page"]) for item in found.report["items"]]
    assert order == [("d", 1), ("b", 1), ("b", 2), ("c", 1), ("a", 1)]


def test_of_a_group_what_may_be_no_digit_comes_first() -> None:
    doubted = unsure("may be none", confidence=0.8, detail=["could be 1 or 7; may be no digit; faint ink"])
    found = page(unsure("least sure", confidence=0.2), doubted, unsure("another", 3, 0.9))
    assert paths(found) == ["another", "may be none", "least sure"]


def test_sure_rows_and_faults_are_counted_but_not_shown() -> None:
    chunks = [seven("sure"), unreadable(), *(seven(s, status=[s]) for s in ("too_large", "unsupported"))]
    assert (page().report["pages"], page().pictures) == (0, [])
    found = page(*chunks, unsure("shown"))
    assert paths(found) == ["shown"]
    assert found.report["pages"] == 5
    assert found.report["statuses"] == {
        **{"ok": 1, "review": 1, "answered": 0, "blank": 0, "not_a_digit": 0},
        **{"unreadable": 1, "too_large": 1, "unsupported": 1},
    }


def test_an_item_tells_what_its_row_tells() -> None:
    found = page(unsure("a.tif", corrected=["1"], detail=["could be 1 or 7"], page=[3]), rejected("b.png"))
    known, empty = found.report["items"]
    assert known == {
        **{"path": "a.tif", "page": 3, "sha256": "ab" * 32, "digit": 7, "confidence": 0.5, "corrected": "1"},
        **{"runner_up": 1, "runner_up_confidence": 0.0269, "detail": "could be 1 or 7"},
    }
    assert {name for name, value in empty.items() if value is None} == {
        *("digit", "confidence", "runner_up", "runner_up_confidence")
    }


def test_pictures_stand_in_the_order_of_the_items_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchdigits.reports.formats.html._BLOCK", 2)
    found = page(*(unsure(f"{n}", thumbnail=[b"\x89PNG" + bytes([n])]) for n in (4, 2, 0, 3)), unsure("1"))
    assert paths(found) == ["0", "1", "2", "3", "4"]
    assert found.pictures == [b"\x89PNG\0", b"", b"\x89PNG\2", b"\x89PNG\3", b"\x89PNG\4"]
    assert [name for name in found.data() if name != "report"] == ["pictures-0", "pictures-1", "pictures-2"]
    assert found.report["block"] == 2


@pytest.mark.parametrize("target", [0.005, None])
def test_the_page_knows_what_the_threshold_was_and_why(target: float | None) -> None:
    found = page(about=replace(ABOUT, target_error=target)).report
    assert (found["threshold"], found["target_error"], found["model"]) == (0.9, target, "0123456789ab")


def test_after_an_exception_nothing_is_written() -> None:
    handle = io.BytesIO()
    with suppress(ConnectionResetError), HtmlReport(handle, ABOUT, ReportSettings()) as report:
        report.write(unsure("a"))
        raise ConnectionResetError
    assert handle.getvalue() == b""


def test_rows_that_are_not_shown_are_not_held() -> None:
    with HtmlReport(io.BytesIO(), ABOUT, ReportSettings()) as report:
        report.write(sevens(["first"]))
        tracemalloc.start()
        for chunk in range(20):
            report.write(replace(sevens([f"{chunk} {row}" for row in range(1000)]), thumbnail=[bytes(1000)] * 1000))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 100_000  # of the 20 chunks, each has more in its paths alone


# ---- nothing of a row becomes markup ---------------------------------------------------------------------------------


@given(st.lists(hostile_names | st.sampled_from(MARKUP), min_size=1, max_size=6), hostile_texts | st.text())
def test_no_name_and_no_detail_adds_an_element(names: list[str], detail: str) -> None:
    found = page(*(unsure(name, detail=[detail]) for name in names))
    assert sorted(paths(found)) == sorted(names)
    assert {item["detail"] for item in found.report["items"]} == {detail}
    assert found.tags == page(*(unsure("a") for _ in names)).tags


def test_a_thousand_hostile_names_add_no_element() -> None:
    found = page(*(unsure(name) for name in a_thousand_names()))
    assert {tag for tag, _ in found.tags} & {"img", "r"} == set()
    assert [tag for tag, _ in found.tags].count("a") == 1  # the one to the original


@pytest.mark.parametrize("name", MARKUP)
def test_data_hold_no_character_that_html_or_an_old_script_knows(name: str) -> None:
    html = written(unsure(name)).decode()
    data = html.split('id="report">')[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(data)


# ---- what the browser is allowed -------------------------------------------------------------------------------------


def policy(page: Page) -> dict[str, str]:
    [content] = [a["content"] for a, _ in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    parts = [part.split(maxsplit=1) for part in str(content).split(";")]
    return dict(parts)


def hashed(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_the_one_script_and_the_one_style_that_stand_there_and_pictures_in_the_page() -> None:
    found = page(unsure("a"))
    [script] = [text for a, text in found.named("script") if "type" not in a]
    [(_, style)] = found.named("style")
    assert policy(found) == {
        **{"default-src": "'none'", "img-src": "data: file:", "base-uri": "'none'", "form-action": "'none'"},
        **{"script-src": hashed(script), "style-src": hashed(style)},
    }


def test_the_policy_comes_before_everything_that_it_is_about() -> None:
    html = written().decode()
    assert html.index("Content-Security-Policy") < min(html.index("<style"), html.index("<script"))


def test_nothing_is_fetched_and_no_attribute_holds_a_script_or_a_style() -> None:
    found = page(unsure("a"))
    attributes = {name for _, pairs in found.tags for name, _ in pairs}
    assert not attributes & {"src", "href", "style", "action", "srcdoc"}
    assert not [name for name in attributes if name.startswith("on")]
    names_svg = "http://www.w3.org/2000/svg"  # which no browser asks for
    assert not re.search(r"https?://|url\(|@import", written(unsure("a")).decode().replace(names_svg, ""))


def test_the_script_sets_no_html_and_evaluates_nothing() -> None:
    [script] = [text for a, text in page().named("script") if "type" not in a]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)


def test_the_page_says_what_ok_is_worth_and_how_many_answers_a_proof_takes() -> None:
    answers = "To prove an error on these scans takes about so many answers to the audit sample: "
    words = f"Trust: {ABOUT.trust}."
    sample = replace(sevens([f"{number}" for number in range(600)]), audit=np.ones(600, np.bool_))
    assert page(sample).report["trust"] == f"{words} {answers}299 for 1.0%, 598 for 0.5%."
    proven = replace(ABOUT, answers_missing=(0, None, 600))
    assert page(sample, about=proven).report["trust"] == f"{words} {answers}600 for 0.1%."
    few = "To prove an error of 1.0% on these scans takes about 299 answers to the audit sample; "
    small = seven("a", audit=np.array([True]))
    assert page(small, seven("b")).report["trust"] == f"{words} {few}that of this folder has 1."


# ---- the least sure of the sure, and the originals ------------------------------------------------------------------


def test_the_least_sure_of_the_sure_stand_in_a_list_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "_MOST_LIKELY", 2)

    def sure(path: str, confidence: float, picture: bytes = b"png", **changes: object) -> Rows:
        return seven(path, confidence=np.array([confidence]), thumbnail=[picture], **changes)

    audited = sure("audited", 0.9, audit=np.array([True]))
    rows = [sure("a", 0.99), sure("b", 0.98), audited, sure("c", 0.97), sure("no picture", 0.5, b""), unsure("d")]
    found = page(*rows)
    assert [(group["part"], group["size"]) for group in found.report["groups"]] == [
        ("review", 1),
        ("likely", 2),
        ("audit", 1),
    ]
    assert paths(found) == ["d", "c", "b", "audited"]


def test_the_originals_are_linked_to_from_where_the_report_stands(tmp_path: Path) -> None:
    names = [b"a b/1%.png", b"caf\xe9.png", b"back\\slash.png", "é#?.png".encode(), b"javascript:alert(1).png"]
    (tmp_path / "reports").mkdir()
    settings = ReportSettings(originals=str(tmp_path / "scans"))
    with (tmp_path / "reports" / "r.html").open("wb") as handle, HtmlReport(handle, ABOUT, settings) as report:
        for name in names:
            report.write(unsure(escape_name(os.fsdecode(name))))
    items = Page((tmp_path / "reports" / "r.html").read_bytes()).report["items"]
    links = {item["link"] for item in items}
    assert {unquote_to_bytes(link) for link in links} == {b"../scans/" + name for name in names}
    assert all(re.fullmatch(r"[\w./%~-]+", link) for link in links)
    with (tmp_path / "other.html").open("wb") as handle, HtmlReport(handle, ABOUT, settings) as report:
        report.write(unsure(f"{tmp_path}/elsewhere/a b.png"))  # of a source that was named by its whole path
    found = Page((tmp_path / "other.html").read_bytes()).report["items"][0]["link"]
    assert found == "elsewhere/a%20b.png"
    assert "link" not in page(unsure("a.png")).report["items"][0]

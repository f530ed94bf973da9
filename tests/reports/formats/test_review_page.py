"""The review page as a person meets it: driven in headless Chromium, from the keyboard to the corrected report."""

import csv
import io
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.remote.webelement import WebElement

from batchdigits.preprocessing import thumbnails
from batchdigits.reports.formats.csv import unguard
from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.schema import Rows
from batchdigits.settings import ReportSettings
from tests.browser import MISSING, chromium
from tests.cli_runner import CHECKOUT, Result, run
from tests.fake_model import bundle_in
from tests.reports.report_rows import ABOUT, seven
from tests.sample_pages import digits, on_page, png, write_png

PATIENCE = 30
"""Seconds after which the browser counts as stuck; no test measures time."""
HOSTILE = "<img src=x onerror=document.title='owned'>.png"

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


_PRESSES = 5
_HEARING = 2.0  # seconds


class ReviewPage:
    """A page in the browser, with what a person does there."""

    def __init__(self, chrome: Chrome, path: Path) -> None:
        self.chrome = chrome
        self.path = path
        chrome.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(path.parent)})
        self._wait_for_memory()
        self.reload()

    def _wait_for_memory(self) -> None:
        """Open an empty page until it keeps what it is told; under load Chromium now and then forgets at once."""
        probe = self.path.with_name("probe.html")
        probe.write_text("<!doctype html><title>probe</title>")
        self.chrome.get(probe.as_uri())
        for _ in range(_PRESSES):
            self.run("localStorage.setItem('probe', '1')")
            self.chrome.get(probe.as_uri())
            if self.run("return localStorage.getItem('probe')") == "1":
                break
        else:
            pytest.fail("the browser keeps nothing")
        self.run("localStorage.removeItem('probe')")
        probe.unlink()

    def type(self, *keys: str) -> None:
        """Press keys one by one; under load the browser now and then drops one, which is then pressed again."""
        for key in keys:
            for _ in range(_PRESSES):
                before = self.run("return window.heard")
                ActionChains(self.chrome, duration=0).send_keys(key).perform()
                if self._is_heard(before):
                    break
            else:
                pytest.fail(f"the browser does not hear {key!r}")

    def _is_heard(self, before: int) -> bool:
        end = time.monotonic() + _HEARING
        while self.run("return window.heard") == before:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def run(self, script: str, *arguments: object) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def reload(self) -> None:
        self.chrome.get(self.path.as_uri())
        # Before its first frame the browser may drop what is typed.
        self.chrome.execute_async_script(
            "const [done] = arguments; requestAnimationFrame(() => requestAnimationFrame(() => done()));"
        )
        self.run("window.heard = 0; addEventListener('keydown', () => { window.heard += 1; }, true);")

    def text(self, name: str) -> str:
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def is_hidden(self, name: str) -> bool:
        return bool(self.run("return document.getElementById(arguments[0]).hidden", name))

    def click(self, name: str) -> None:
        self.chrome.find_element("id", name).click()

    def press_button(self, label: str) -> None:
        self.chrome.find_element("css selector", f'#pad [aria-label="{label}"]').click()

    @property
    def marks(self) -> list[str]:
        """What stands under the pictures, in their order."""
        marks: list[str] = self.run("return [...document.querySelectorAll('.mark')].map((mark) => mark.textContent)")
        return marks

    @property
    def chosen(self) -> int:
        return int(self.run("return Number(document.querySelector('[aria-selected=true]').dataset.index)"))

    @property
    def has_focus(self) -> bool:
        return bool(self.run("return document.activeElement.matches('[role=option][aria-selected=true]')"))

    def tile(self, index: int) -> WebElement:
        return self.chrome.find_element("css selector", f".tile[data-index='{index}']")

    def downloaded(self) -> bytes:
        """Press the button, and give what comes."""
        self.click("download")
        place = self.path.parent / self.text("next-file")
        wait_until(
            lambda: place.exists() and place.stat().st_size
        )  # the browser first keeps its name with an empty file
        self.click("hide-next")
        return place.read_bytes()


Opener = Callable[..., ReviewPage]


@pytest.fixture
def opened(chrome: Chrome, tmp_path: Path) -> Iterator[Opener]:
    """Write rows into a report, and open it; in the end, the browser must have nothing to complain of."""

    def open_page(*rows: Rows, name: str = "report.html") -> ReviewPage:
        path = tmp_path / name
        with path.open("wb") as handle, HtmlReport(handle, ABOUT, ReportSettings()) as report:
            for chunk in rows:
                report.write(chunk)
        return ReviewPage(chrome, path)

    chrome.get_log("browser")  # type: ignore[no-untyped-call]
    yield open_page
    assert chrome.get_log("browser") == []  # type: ignore[no-untyped-call]


def sha256(number: int) -> str:
    return f"{number:064x}"


def unsure(number: int, digit: int = 7, **changes: object) -> Rows:
    read = {"status": ["review"], "digit": np.array([digit], np.int8), "confidence": np.array([0.5])}
    thumbnail = png(on_page(digits(60)[number % 60]))
    return seven(f"{number:03}.png", **{**read, "sha256": [sha256(number)], "thumbnail": [thumbnail], **changes})


def rejected(number: int) -> Rows:
    nothing = np.array([np.nan])
    empty = {"runner_up": np.array([-1], np.int8), "confidence": nothing, "runner_up_confidence": nothing}
    return unsure(number, -1, status=["not_a_digit"], **empty)


def audited(number: int, digit: int = 7) -> Rows:
    sure = {"status": ["ok"], "audit": np.array([True]), "confidence": np.array([0.9999])}
    return unsure(number, digit, **sure)


def sevens(count: int) -> list[Rows]:
    return [unsure(number) for number in range(count)]


def likely(number: int) -> Rows:
    return unsure(number, status=["ok"], confidence=np.array([0.97]))


# ---- answering -----------------------------------------------------------------------------------------------------


def test_answers_by_keyboard_go_to_the_next_open_image_and_survive_a_reload(opened: Opener) -> None:
    page = opened(*sevens(3), rejected(3))
    assert (page.text("count"), page.chosen) == ("0 of 4 answered", 0)
    page.type("1")
    assert (page.chosen, page.has_focus) == (1, True)
    page.type("X", Keys.ENTER)
    assert (page.chosen, page.text("count")) == (3, "3 of 4 answered")
    page.type(Keys.ENTER)  # of what has no digit, it accepts that it has none
    answered = ["→ 1", "→ x", "✓ 7", "✓ x"]
    assert page.marks == answered
    assert page.text("live") == "not a digit for 003.png. 4 of 4 answered."
    page.reload()
    assert (page.marks, page.text("count")) == (answered, "4 of 4 answered")


def test_undo_goes_back_answer_by_answer_to_where_it_was_given(opened: Opener) -> None:
    page = opened(*sevens(3))
    page.type("1", "2", Keys.ARROW_LEFT, "3")
    assert page.marks == ["→ 1", "→ 3", "50%"]
    page.type("u")
    assert (page.marks, page.chosen) == (["→ 1", "→ 2", "50%"], 1)
    ActionChains(page.chrome).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    page.type("u")
    assert (page.marks, page.chosen) == (["50%"] * 3, 0)
    page.type("u")
    assert page.text("live") == "Nothing to undo. 0 of 3 answered."
    page.reload()
    assert page.marks == ["50%"] * 3


def test_delete_takes_an_answer_back_and_leaves_that_of_the_report(opened: Opener) -> None:
    page = opened(unsure(0, corrected=["3"]), unsure(1))
    page.type("4", Keys.ARROW_LEFT, "5", Keys.HOME)
    assert page.marks == ["→ 5", "→ 4"]
    page.type(Keys.DELETE, Keys.ARROW_RIGHT, Keys.BACKSPACE)
    assert page.marks == ["→ 3", "50%"]


def test_an_answer_of_the_report_counts_and_the_first_open_image_is_chosen(opened: Opener) -> None:
    page = opened(unsure(0, corrected=["7"]), unsure(1))
    assert (page.marks, page.chosen, page.text("count")) == (["✓ 7", "50%"], 1, "1 of 2 answered")


def test_copies_of_a_file_share_their_answer(opened: Opener) -> None:
    page = opened(unsure(0), unsure(1, sha256=[sha256(0)]), unsure(2, sha256=[sha256(0)], page=[2]))
    page.type("4")
    assert (page.marks, page.chosen) == (["→ 4", "→ 4", "50%"], 2)


def test_the_rest_of_a_group_is_accepted_at_once_and_undone_at_once(opened: Opener) -> None:
    page = opened(*sevens(4), rejected(4), rejected(5))
    page.type("1")
    sevens_button, rejects_button = page.chrome.find_elements("css selector", ".rest")
    assert (sevens_button.text, rejects_button.text) == ("Accept the other 3 as 7", "Accept all 2 as not a digit")
    sevens_button.click()
    assert page.marks[:4] == ["→ 1", "✓ 7", "✓ 7", "✓ 7"]
    assert (sevens_button.text, page.chosen) == ("✓ all answered", 4)
    rejects_button.click()
    assert page.text("count") == "6 of 6 answered"
    page.type("u", "u")
    assert page.marks == ["→ 1", "50%", "50%", "50%", "", ""]


def test_a_key_that_is_held_down_answers_one_image(opened: Opener) -> None:
    page = opened(*sevens(3))
    page.run("""
        for (const repeat of [false, true, true])
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", repeat, bubbles: true }));
    """)
    assert page.marks == ["→ 1", "50%", "50%"]


def test_keys_of_the_browser_are_left_to_it(opened: Opener) -> None:
    page = opened(*sevens(2))
    page.run("""
        for (const modifier of ["ctrlKey", "altKey", "metaKey"])
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "1", [modifier]: true, bubbles: true }));
    """)
    assert page.marks == ["50%"] * 2


def test_an_image_that_the_mouse_points_at_is_answered_by_the_next_key(opened: Opener) -> None:
    page = opened(*sevens(5))
    for index, key in ((3, "1"), (1, Keys.SPACE)):
        # The first event of a mouse has not moved yet.
        ActionChains(page.chrome, duration=0).move_to_element(page.tile(index)).move_by_offset(5, 5).perform()
        wait_until(lambda index=index: page.chosen == index)
        page.type(key)
    assert page.marks == ["50%", "→ 1", "50%", "→ 1", "50%"]
    ActionChains(page.chrome).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT * 2).key_up(Keys.SHIFT).perform()
    ActionChains(page.chrome, duration=0).move_to_element(page.tile(0)).perform()  # a range stays
    assert len(page.chrome.find_elements("css selector", "[aria-selected=true]")) == 3


def test_a_range_by_the_mouse_begins_where_it_was_clicked_whatever_it_passes_over(opened: Opener) -> None:
    page = opened(*sevens(6))
    page.tile(1).click()
    ActionChains(page.chrome, duration=0).move_to_element(page.tile(3)).move_by_offset(5, 5).perform()
    wait_until(lambda: page.chosen == 3)
    ActionChains(page.chrome).key_down(Keys.SHIFT).click(page.tile(4)).key_up(Keys.SHIFT).perform()
    page.type("2")
    assert page.marks == ["50%", "→ 2", "→ 2", "→ 2", "→ 2", "50%"]


def test_buttons_answer_too_and_keep_the_focus(opened: Opener) -> None:
    page = opened(*sevens(4))
    for label in ("4", "Not a digit", "Accept: 7"):
        page.press_button(label)
    assert page.marks == ["→ 4", "→ x", "✓ 7", "50%"]
    assert page.run("return document.activeElement.getAttribute('aria-label')") == "Accept: 7"
    page.press_button("Undo")
    assert page.marks == ["→ 4", "→ x", "50%", "50%"]


# ---- moving --------------------------------------------------------------------------------------------------------


def test_arrows_move_by_rows_and_columns_through_all_groups(opened: Opener) -> None:
    page = opened(*(unsure(n, 3) for n in range(70)), *(unsure(n, 5) for n in range(70, 75)))
    tops = page.run("return [...document.querySelectorAll('.tile')].map((tile) => tile.getBoundingClientRect().top)")
    columns = tops.index(next(top for top in tops if top > tops[0]))
    assert columns > 4
    page.type(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert (page.chosen, page.has_focus) == (columns + 1, True)
    page.type(Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_UP)
    assert page.chosen == 0
    page.type(Keys.END)
    assert page.chosen == 69
    page.type(Keys.HOME, *[Keys.ARROW_DOWN] * -(-70 // columns))
    assert page.chosen == 70
    page.type(Keys.ARROW_RIGHT, Keys.ARROW_UP)
    assert page.chosen == min(70 - 1, (70 - 1) // columns * columns + 1)
    page.type(*[Keys.ARROW_DOWN] * 2, Keys.END, Keys.ARROW_RIGHT)
    assert page.chosen == 74


def test_tab_reaches_the_group_where_it_was_left(opened: Opener) -> None:
    page = opened(*(unsure(n, 3) for n in range(3)), *(unsure(n, 5) for n in range(3, 6)))
    page.type(Keys.ARROW_RIGHT, Keys.TAB, Keys.TAB)  # past the button of the next group
    assert (page.chosen, page.has_focus) == (3, True)
    ActionChains(page.chrome).key_down(Keys.SHIFT).send_keys(Keys.TAB, Keys.TAB).key_up(Keys.SHIFT).perform()
    assert (page.chosen, page.has_focus) == (1, True)


def test_the_width_of_a_phone_needs_no_sideways_scrolling_and_the_chosen_image_stays_in_sight(opened: Opener) -> None:
    page = opened(*sevens(90))
    page.type(Keys.ARROW_RIGHT)
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        assert page.run("return document.documentElement.scrollWidth") == 360
        assert page.run("return getComputedStyle(arguments[0], '::before').display", page.tile(3)) == "none"
        page.type("1", *[Keys.ARROW_DOWN] * 9)
        tile, panel = page.run("""
            return [document.querySelector('[aria-selected=true]'), document.getElementById('panel')]
                .map((found) => found.getBoundingClientRect().toJSON())
        """)
        assert 0 < tile["top"] < tile["bottom"] < panel["top"]
        assert panel["bottom"] <= 740
    finally:
        page.chrome.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# ---- what is shown -------------------------------------------------------------------------------------------------


def test_every_control_has_a_role_and_a_name_for_a_screen_reader(opened: Opener) -> None:
    page = opened(unsure(0, path=["scans/a.tif"], page=[2]), rejected(1), audited(2))
    tiles = page.chrome.find_elements("css selector", ".tile")
    assert [(tile.aria_role, tile.accessible_name) for tile in tiles] == [
        ("option", "Read as 7, 50.00% sure; scans/a.tif, page 2; not answered"),
        ("option", "Not a digit; 001.png; not answered"),
        ("option", "Read as 7, 99.99% sure; 002.png; not answered"),
    ]
    page.type("x")
    assert tiles[0].accessible_name == "Read as 7, 50.00% sure; scans/a.tif, page 2; answered: not a digit"
    lists = page.chrome.find_elements("css selector", "[role=listbox]")
    assert [found.accessible_name for found in lists] == [
        "Read as 7 1 image",
        "Not a digit 1 image",
        "Read as 7 1 image",
    ]
    buttons = page.chrome.find_elements("css selector", "button, progress")
    assert all(button.accessible_name for button in buttons if button.is_displayed())
    assert page.run("return document.documentElement.lang") == "en"


def test_the_help_opens_and_closes_by_keyboard_and_answers_nothing_meanwhile(opened: Opener) -> None:
    page = opened(*sevens(2))
    page.type("?")
    page.type("1", "x")
    assert page.chrome.find_element("id", "help").is_displayed()
    page.type(Keys.ESCAPE)
    assert not page.chrome.find_element("id", "help").is_displayed()
    assert page.marks == ["50%"] * 2


def test_the_audit_sample_tells_the_share_of_errors_and_its_interval(opened: Opener) -> None:
    page = opened(*(audited(number) for number in range(10)))
    assert page.text("audit") == "10 pages to check; the target is 0.50%."
    page.type("1", *[Keys.ENTER] * 8)
    assert page.text("audit") == "9 of 10 checked, 1 wrong so far; the target is 0.50%."  # a part tells nothing
    page.type(Keys.ENTER)
    # Wilson's interval of 1 in 10, as in Brown, Cai and DasGupta 2001.
    assert page.text("audit") == (
        "10 of 10 checked, 1 wrong: 10.00%, 95% interval 1.79% to 40.42% (Wilson); the target is 0.50%."
    )


def test_the_ink_is_shown_large_with_its_place_on_the_page(opened: Opener) -> None:
    small = on_page(digits(60)[0], 800, 600, top=500, left=100)
    drawn = [
        thumbnails.png(small, (100 / 600, 500 / 800, 128 / 600, 528 / 800)),
        thumbnails.png(on_page(digits(60)[1]), (0.2, 0.2, 0.6, 0.6)),
        thumbnails.png(on_page(digits(60)[2])),
    ]
    page = opened(*(unsure(number, thumbnail=[picture]) for number, picture in enumerate(drawn)))
    places = []
    wait_until(lambda: page.run("return Boolean(document.querySelector('#picture svg'))"))
    for _ in drawn:
        size, box, frame = page.run("""
            const [svg, place] = [document.querySelector("#picture svg"), document.getElementById("place")];
            const { width, height } = svg.getBoundingClientRect();
            const [size, box] = [Math.min(width, height), svg.getAttribute("viewBox")];
            if (place.hidden) return [size, box, null];
            const [page, part] = ["image", "rect"].map((name) => place.querySelector(name).getBoundingClientRect());
            const across = [part.left, part.right].map((edge) => (edge - page.left) / page.width);
            const down = [part.top, part.bottom].map((edge) => (edge - page.top) / page.height);
            return [size, box, [across[0], down[0], across[1], down[1]]];
        """)
        assert size >= 200
        places.append((box, frame))
        page.type(Keys.ARROW_RIGHT)
    (whole_view, on_the_page), (part_view, in_the_picture), (no_part, nowhere) = places
    assert whole_view.startswith("0 0 ")
    assert on_the_page == pytest.approx([0.157, 0.618, 0.223, 0.667], abs=0.02)
    assert [float(number) for number in part_view.split()] == pytest.approx([6.7, 6.7, 31.4, 31.4], abs=0.3)
    assert in_the_picture == pytest.approx([0.12, 0.12, 0.68, 0.68], abs=0.02)
    assert (no_part, nowhere) == ("0 0 56 56", None)


def test_pictures_are_drawn_when_they_come_near_and_a_missing_one_says_so(opened: Opener) -> None:
    page = opened(unsure(0, thumbnail=[b""]), *(unsure(number) for number in range(1, 600)))

    def drawn() -> int:
        return int(page.run("return document.querySelectorAll('.tile img').length"))

    wait_until(lambda: drawn() > 20)
    assert drawn() < 300
    assert page.tile(0).text.startswith("no picture")
    page.type(Keys.END)
    wait_until(
        lambda: page.run("const [i] = arguments[0].querySelectorAll('img'); return i?.naturalWidth", page.tile(599))
    )
    assert drawn() < 500


def wait_until(reached: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_page_without_an_image_to_check_says_so(opened: Opener) -> None:
    page = opened(seven())
    page.type("1", Keys.ENTER, Keys.ARROW_DOWN, Keys.DELETE, "u")
    assert "No image of this report needs a person." in page.text("images")
    assert page.text("summary").startswith("1 page: 1 ok. ")


# ---- what is harmless ----------------------------------------------------------------------------------------------


def test_a_name_that_is_markup_is_shown_as_it_is(opened: Opener) -> None:
    page = opened(
        unsure(0, path=[HOSTILE], detail=["</script><script>document.title='owned'</script>"]),
        unsure(1, path=["z.png"]),
    )
    assert page.text("file") == HOSTILE
    assert page.text("detail").endswith("</script><script>document.title='owned'</script>")
    page.type("1")
    assert page.text("live").startswith(f"1 for {HOSTILE}.")
    assert page.chrome.title == "Digits to check"
    assert page.run("return document.querySelectorAll('[onerror], img:not([src^=\"data:image/png\"])').length") == 0


def test_a_name_cannot_turn_the_text_around_it(opened: Opener) -> None:
    page = opened(unsure(0, path=["gnp.\u202e7.png"]))
    assert page.text("file") == r"gnp.\u202e7.png"
    page.type("1")
    assert "gnp.\u202e7.png" in page.downloaded().decode()


def test_a_script_that_got_into_the_page_would_not_run(opened: Opener) -> None:
    page = opened(unsure(0))
    page.run("""
        const script = document.createElement("script");
        script.textContent = "document.title = 'owned'";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", `<img src="data:," onerror="document.title = 'owned'">`);
        document.body.insertAdjacentHTML("beforeend", `<p id="styled" style="color: red">`);
    """)
    complaints: list[str] = []

    def complained() -> bool:
        complaints.extend(entry["message"] for entry in page.chrome.get_log("browser"))  # type: ignore[no-untyped-call]
        return len(complaints) >= 3

    wait_until(complained)
    assert all("Content Security Policy" in complaint for complaint in complaints)
    assert page.chrome.title == "Digits to check"
    assert page.run("return getComputedStyle(document.getElementById('styled')).color") != "rgb(255, 0, 0)"


# ---- what is kept --------------------------------------------------------------------------------------------------


def test_a_report_made_anew_at_its_place_keeps_answers_and_another_report_has_none(opened: Opener) -> None:
    opened(*sevens(2)).type("1", "2")
    assert opened(*sevens(2), name="other.html").marks == ["50%"] * 2
    grown = opened(unsure(9, path=["000 new.png"]), *sevens(2))
    assert grown.marks == ["50%", "→ 1", "→ 2"]


def test_what_the_report_has_learnt_since_replaces_what_the_browser_kept(opened: Opener) -> None:
    page = opened(*sevens(3))
    assert page.is_hidden("new-answers")
    page.type("1", "2", "3")
    later = opened(unsure(0, corrected=["1"]), unsure(1, corrected=["9"]), unsure(2))
    assert later.marks == ["→ 1", "→ 9", "→ 3"]
    assert "Of 1 image the report holds a newer answer" in later.text("new-answers")
    assert [row["corrected"] for row in rows_of(later.downloaded())] == ["3"]


def test_what_others_put_into_the_memory_is_no_answer(opened: Opener) -> None:
    page = opened(*sevens(3))
    for number, text in enumerate(["{", '["<b>", ""]', "7"]):
        key = f"batchdigits:{page.run('return location.pathname')}:{sha256(number)}:1"
        page.run("localStorage.setItem(arguments[0], arguments[1])", key, text)
    page.reload()
    assert page.marks == ["50%"] * 3


def test_without_a_memory_the_page_works_and_says_that_answers_will_not_survive(opened: Opener) -> None:
    page = opened(*sevens(2))
    assert page.is_hidden("no-memory")
    closed = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('', 'SecurityError') } })"
    added = page.chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": closed})
    try:
        page.reload()
        page.type("1")
        assert page.marks == ["→ 1", "50%"]
        assert not page.is_hidden("no-memory")
    finally:
        page.chrome.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    page.reload()
    assert (page.marks, page.is_hidden("no-memory")) == (["50%"] * 2, True)


# ---- what is taken home --------------------------------------------------------------------------------------------


def rows_of(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def test_the_download_holds_the_answers_that_were_given_here_as_our_own_csv(opened: Opener) -> None:
    names = ['=1+"1",2.png', "é;=7.png", "'quoted.png", "@sum.png", "-1.png"]
    others = unsure(8, path=["z.png"], confidence=np.array([0.6])), unsure(9, corrected=["3"])
    page = opened(*(unsure(n, path=[name]) for n, name in enumerate(names)), *others)
    assert not page.chrome.find_element("id", "download").is_enabled()
    page.type("1", "2", "x", Keys.ENTER, "0")
    data = page.downloaded()
    assert data.startswith(b"path,page,sha256,corrected\r\n")
    assert data.count(b"\r\n") == data.count(b"\n") == 6
    rows = rows_of(data)
    assert {unguard(row["path"]) for row in rows} == set(names)
    assert all(row["path"][:1] not in set("=+-@") for row in rows)
    cells = [cell for row in csv.reader(io.StringIO(data.decode(), newline=""), delimiter=";") for cell in row]
    assert all(cell[:1] not in set("=+-@") for cell in cells)  # nor where another program separates otherwise
    given = {row["sha256"]: (row["page"], row["corrected"]) for row in rows}
    order = sorted(range(5), key=lambda number: names[number])
    answers = ["1", "2", "x", "7", "0"]
    assert given == {sha256(number): ("1", answer) for number, answer in zip(order, answers, strict=True)}


def test_answers_go_from_the_page_into_the_report_and_back_onto_the_page(chrome: Chrome, tmp_path: Path) -> None:
    model = bundle_in(tmp_path / "model", temperature=20.0)
    for number, name in enumerate(["a.png", HOSTILE.replace("/", ""), "=c.png"]):
        write_png(tmp_path / "scans" / name, on_page(digits(60)[number]))
    report, table = tmp_path / "report.html", tmp_path / "report.csv"

    def predict() -> Result:
        options = ["--threshold", "1", "--model", model.directory]
        command = [sys.executable, "-m", "tests.fake_model_cli", "predict", tmp_path / "scans", *options]
        return run([*command, "-o", table, "-o", report], cwd=CHECKOUT)

    assert predict().code == 0
    page = ReviewPage(chrome, report)
    read = [row["digit"] for row in rows_of(table.read_bytes())]
    assert len(page.marks) == 3
    page.type("c", "0", Keys.ENTER)
    page.reload()
    answers = rows_of(page.downloaded())
    assert page.text("next-title") == "All 3 answered"
    command = page.text("command").replace("~/Downloads/", f"{tmp_path}/")
    assert command == f"batchdigits correct {report} {tmp_path}/{page.text('next-file')}"
    taken = run(
        [*shlex.split(command.replace("batchdigits", f"{sys.executable} -m tests.fake_model_cli", 1))], cwd=CHECKOUT
    )
    assert taken.code == 0, taken.stderr
    assert "3 answers taken into" in taken.stderr
    assert "3 answered, 0 left" in taken.stderr
    assert f"Wrote {table}, {report}" in " ".join(taken.stderr.split())
    shown = rows_of(table.read_bytes())
    assert {row["status"] for row in shown} == {"answered"}
    assert {row["path"]: row["corrected"] for row in shown} == {row["path"]: row["corrected"] for row in answers}
    assert [row["digit"] for row in shown] == read
    page.reload()
    assert page.text("count") == "3 of 3 answered"
    assert page.text("answer").startswith("Answer in the report: ")
    assert not page.chrome.find_element("id", "download").is_enabled()  # nothing is left that the report has not
    page.type(Keys.DELETE)
    assert page.text("count") == "2 of 3 answered"
    [withdrawn] = rows_of(page.downloaded())
    assert withdrawn["corrected"] == "withdraw"
    page.reload()
    assert page.text("count") == "2 of 3 answered"
    page.type("u", Keys.DELETE)  # before this visit there is nothing to undo
    assert page.text("count") == "3 of 3 answered"


def test_the_command_that_is_shown_is_one_for_a_shell_and_is_copied(opened: Opener) -> None:
    page = opened(unsure(0), unsure(1), name="it's a report 100%.html")
    page.type("3")
    page.click("download")
    assert page.text("next-title") == "1 answered, 1 left"
    words = shlex.split(page.text("command"))
    assert words[:3] == ["batchdigits", "correct", str(page.path)]
    assert re.fullmatch(r"~/Downloads/corrections-\d{4}-\d\d-\d\d-\d{6}\.csv", words[3])
    page.click("copy")
    assert page.run("return getSelection().toString()") == page.text("command")
    page.type("7")  # answers nothing while the box is open
    page.click("hide-next")
    assert page.text("count") == "1 of 2 answered"


# ---- quickly -------------------------------------------------------------------------------------------------------


def test_space_takes_the_second_best_which_the_tile_shows(opened: Opener) -> None:
    page = opened(*sevens(2), rejected(2))
    assert page.run("return document.querySelector('.tile').dataset.second") == "1"
    page.type(Keys.SPACE)
    assert page.marks == ["→ 1", "50%", ""]
    page.type(Keys.ARROW_RIGHT, Keys.SPACE)  # what has no digit has no second one
    assert page.marks == ["→ 1", "50%", ""]


def test_a_range_is_picked_by_shift_with_arrows_or_a_click_and_answered_by_one_key(opened: Opener) -> None:
    page = opened(*sevens(9))
    shift = ActionChains(page.chrome, duration=0).key_down(Keys.SHIFT)
    shift.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert page.text("some") == "3 images picked: the next key answers all of them."
    page.type("2")
    assert (page.marks, page.chosen) == (["→ 2"] * 3 + ["50%"] * 6, 3)
    shift = ActionChains(page.chrome, duration=0).key_down(Keys.SHIFT)
    shift.click(page.tile(6)).key_up(Keys.SHIFT).perform()
    page.type(Keys.SPACE)
    assert page.marks == ["→ 2"] * 3 + ["→ 1"] * 4 + ["50%"] * 2
    page.type("u")
    assert page.marks == ["→ 2"] * 3 + ["50%"] * 6
    page.tile(4).click()
    assert page.run("return document.querySelectorAll('[aria-selected=true]').length") == 1


def lettered(page: ReviewPage) -> dict[int, str]:
    """The letters that stand below images, by the images' places."""
    letters = "[...document.querySelectorAll('.tile[aria-keyshortcuts]')]"
    pairs = f"{letters}.map((tile) => [Number(tile.dataset.index), tile.getAttribute('aria-keyshortcuts')])"
    return dict(page.run(f"return {pairs}"))


def test_a_letter_goes_to_the_image_above_it_which_the_next_key_answers(opened: Opener) -> None:
    page = opened(*(unsure(n, 3) for n in range(5)), *(unsure(n, 5) for n in range(5, 60)))
    letters = lettered(page)
    assert sorted(letters) == list(range(1, 21))
    assert len(set(letters.values())) == 20
    assert not {"c", "u", "x", "z"} & set(letters.values())  # these do something else
    drawn = "return getComputedStyle(arguments[0], '::before').content"
    assert page.run(drawn, page.tile(7)) == f'"{letters[7]}"'
    page.type(letters[7])
    assert (page.chosen, page.has_focus) == (7, True)
    assert {index: letter for index, letter in lettered(page).items() if index in letters} == {
        index: letter for index, letter in letters.items() if index > 7
    }  # what stays in reach keeps its letter
    page.type("1")
    press(page, key=letters[12].upper(), code="")  # with Caps Lock
    page.type("2")
    assert [index for index, mark in enumerate(page.marks) if mark != "50%"] == [7, 12]
    set_filter(page, "part", "open")
    assert sorted(lettered(page)) == [*range(14, 34)]


def test_a_page_that_is_answered_in_part_opens_where_the_next_is_to_be_answered(opened: Opener) -> None:
    page = opened(*(unsure(n, corrected=["7"]) for n in range(100)), unsure(100))
    assert page.chosen == 100
    top, height = page.run("return [arguments[0].getBoundingClientRect().top, innerHeight]", page.tile(100))
    assert 0 <= top <= height
    first = opened(*sevens(100))
    assert (first.chosen, first.run("return scrollY")) == (0, 0)


def test_letters_are_heard_on_a_keyboard_of_another_script(opened: Opener) -> None:
    page = opened(*sevens(9))
    letter = lettered(page)[3].upper()
    press(page, key="Ж", code=f"Key{letter}")
    assert page.chosen == 3
    press(page, key="ч", code="KeyX")
    assert page.marks[3] == "→ x"
    press(page, key="г", code="KeyU")
    assert page.marks == ["50%"] * 9
    press(page, key="é", code="")  # of no place that is known
    assert page.marks == ["50%"] * 9


def test_shift_with_a_letter_picks_a_range(opened: Opener) -> None:
    page = opened(*sevens(9))
    shift = ActionChains(page.chrome, duration=0).key_down(Keys.SHIFT)
    shift.send_keys(lettered(page)[4]).key_up(Keys.SHIFT).perform()
    assert page.text("some") == "5 images picked: the next key answers all of them."
    with_shift(page, Keys.ENTER)  # of a range, not of the group
    assert page.marks == ["✓ 7"] * 5 + ["50%"] * 4


def test_shift_and_enter_accept_what_is_open_in_the_group(opened: Opener) -> None:
    page = opened(*(unsure(n, 3) for n in range(3)), *(unsure(n, 5) for n in range(3, 6)))
    page.type(Keys.ARROW_RIGHT, "8", Keys.ARROW_LEFT)
    with_shift(page, Keys.ENTER)
    assert (page.marks, page.chosen) == (["✓ 3", "→ 8", "✓ 3"] + ["50%"] * 3, 3)
    page.type(Keys.ARROW_LEFT)
    with_shift(page, Keys.ENTER)  # nothing is open there
    page.type("u")
    assert page.marks == ["50%", "→ 8"] + ["50%"] * 4


def with_shift(page: ReviewPage, key: str) -> None:
    ActionChains(page.chrome, duration=0).key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()


def press(page: ReviewPage, **event: object) -> None:
    """Let the page hear a key of another keyboard."""
    page.run("document.body.dispatchEvent(new KeyboardEvent('keydown', { ...arguments[0], bubbles: true }))", event)


def test_digits_come_from_any_keyboard_and_the_dot_of_the_pad_takes_nothing_back(opened: Opener) -> None:
    page = opened(*sevens(4))
    press(page, key="&", code="Digit1")  # AZERTY
    press(page, key="End", code="Numpad1")  # without NumLock
    press(page, key="3", code="Digit3")
    assert page.marks == ["→ 1", "→ 1", "→ 3", "50%"]
    page.type(Keys.HOME)
    press(page, key="Delete", code="NumpadDecimal")
    assert page.marks[0] == "→ 1"
    press(page, key="Delete", code="Delete")
    assert page.marks[0] == "50%"
    press(page, key="ч", code="KeyX")  # of a Russian keyboard
    assert page.marks[0] == "→ x"


def set_filter(page: ReviewPage, name: str, value: str) -> None:
    page.run(
        "const [name, value] = arguments; const field = document.getElementById(name);"
        "field.value = value; field.dispatchEvent(new Event('input'));",
        name,
        value,
    )


def test_filters_show_what_passes_and_keys_stay_within_it(opened: Opener) -> None:
    low = unsure(3, 4, path=["b/low.png"], confidence=np.array([0.2]))
    page = opened(*sevens(3), low, rejected(4))

    def shown() -> list[int]:
        tiles = "[...document.querySelectorAll('.group:not([hidden]) .tile')]"
        found: list[int] = page.run(f"return {tiles}.map((tile) => Number(tile.dataset.index))")
        return found

    assert shown() == [0, 1, 2, 3, 4]
    page.type("/", "B", "/")
    assert (shown(), page.chosen) == ([0], 0)  # the group of 4 stands before that of 7
    page.type(Keys.BACKSPACE, Keys.BACKSPACE)
    page.run(
        "document.getElementById('most').value = 40; document.getElementById('most').dispatchEvent(new Event('input'))"
    )
    assert shown() == [0, 4]
    page.tile(0).click()
    page.type("4")
    assert page.chosen == 4
    set_filter(page, "most", "")
    set_filter(page, "part", "open")
    assert shown() == [1, 2, 3, 4]
    set_filter(page, "name", "nowhere")
    assert (shown(), page.is_hidden("nothing")) == ([], False)


def test_the_end_is_told_once_all_is_answered_and_what_nobody_has_to_look_at_does_not_count(opened: Opener) -> None:
    page = opened(*sevens(2), likely(2))
    assert (page.text("count"), page.is_hidden("end")) == ("0 of 2 answered", True)
    page.type("1", "1")
    assert (page.text("count"), page.is_hidden("end")) == ("2 of 2 answered", False)
    assert page.text("end-title") == "All 2 answered."
    page.click("end-download")
    assert page.text("next-title") == "All 2 answered"


def test_the_audit_sample_counts_by_itself_and_alone_where_nothing_is_doubtful(opened: Opener) -> None:
    page = opened(unsure(0), audited(1), audited(2))
    assert page.text("count") == "0 of 1 answered"
    page.type("1")
    assert (page.text("count"), page.is_hidden("end")) == ("1 of 1 answered", False)
    page.type(Keys.ENTER)
    assert page.text("audit").startswith("1 of 2 checked")
    page.click("download")
    assert page.text("next-title") == "The one image is answered"
    page.click("hide-next")
    assert opened(audited(1), audited(2), name="sure.html").text("count") == "0 of 2 answered"


def test_what_could_not_be_read_is_named_at_the_end(opened: Opener) -> None:
    broken = {"status": ["unreadable"], "detail": ["the data end early"], "thumbnail": [b""]}
    page = opened(unsure(0), *(unsure(n, -1, **broken) for n in range(1, 104)), unsure(104, -1, page=[2], **broken))
    named = page.run("return [...document.querySelectorAll('#failed li')].map((line) => line.textContent)")
    assert named[0] == "001.png: the data end early"
    assert named[100:] == ["and 4 more, which the other reports name"]
    assert page.text("count") == "0 of 1 answered"
    assert opened(unsure(0), name="well.html").run("return document.getElementById('failed')") is None


def test_the_help_opens_at_its_beginning_in_a_small_window(opened: Opener) -> None:
    page = opened(*sevens(2))
    page.chrome.set_window_size(900, 420)
    try:
        page.type("?")
        top, seen = page.run("""
            const [box, heading] = ["help", "help-title"].map((name) => document.getElementById(name));
            return [box.scrollTop, heading.getBoundingClientRect().top >= box.getBoundingClientRect().top];
        """)
        assert (top, seen) == (0, True)
        page.type(Keys.ESCAPE)
    finally:
        page.chrome.set_window_size(1280, 860)


def test_two_tabs_hear_each_other(opened: Opener) -> None:
    page = opened(*sevens(2))
    page.chrome.switch_to.new_window("tab")
    other = ReviewPage(page.chrome, page.path)
    other.type("3")
    handles = page.chrome.window_handles
    page.chrome.switch_to.window(handles[0])
    wait_until(lambda: page.marks == ["→ 3", "50%"])
    page.chrome.switch_to.window(handles[1])
    other.type("u")
    page.chrome.close()
    page.chrome.switch_to.window(handles[0])
    wait_until(lambda: page.marks == ["50%", "50%"])


def test_an_image_is_enlarged_from_its_original_and_without_that_from_the_picture(
    chrome: Chrome, tmp_path: Path
) -> None:
    write_png(tmp_path / "scans" / "a b#.png", on_page(digits(60)[0], 500, 400))
    with (tmp_path / "r.html").open("wb") as handle:
        settings = ReportSettings(originals=str(tmp_path / "scans"))
        with HtmlReport(handle, ABOUT, settings) as report:
            report.write(unsure(0, path=["a b#.png"]))
            report.write(unsure(1, path=["gone.png"], confidence=np.array([0.6])))
    page = ReviewPage(chrome, tmp_path / "r.html")

    def width() -> int:
        return int(page.run("return document.querySelector('#large img')?.naturalWidth ?? 0"))

    page.type("z")
    wait_until(lambda: width() == 400)
    page.click("hide-zoom")
    page.type(Keys.ARROW_RIGHT)
    page.click("picture")
    wait_until(lambda: 0 < width() <= 96)
    page.click("hide-zoom")
    assert page.run("return document.getElementById('original').href").endswith("/scans/gone.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_edges_of_controls_stand_out_from_what_is_around_them(opened: Opener, scheme: str) -> None:
    page = opened(unsure(0))
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    colours = page.run("""
        const style = getComputedStyle(document.documentElement);
        return ["--edge", "--card", "--paper"].map((name) => style.getPropertyValue(name).trim());
    """)
    edge, card, paper = map(luminance, colours)
    for around in (card, paper):
        assert (max(edge, around) + 0.05) / (min(edge, around) + 0.05) >= 3  # WCAG 2.1, 1.4.11
    page.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def luminance(colour: str) -> float:
    """Of #rrggbb, 0 to 1; see https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

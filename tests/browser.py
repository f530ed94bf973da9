"""A headless Chromium, started without a network of its own and with a profile that nobody has used."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "needs Debian's chromium and chromium-driver, which .ci/run installs"
"""Why there is no browser; empty where there is one."""

_FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--window-size=1280,860"),
]


@contextmanager
def chromium(profile: Path, *, wait: Literal["normal", "none"] = "normal") -> Iterator[Chrome]:
    """Start the browser, and end it.

    Args:
        profile: An empty folder.
        wait: Whether `get` comes back when the page is whole, or at once.
    """
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.page_load_strategy = wait
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in [*_FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    driver = Chrome(options, ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()

"""Try tests in the browser again: under load Chromium now and then gives a page a memory that it forgets at once."""

import pytest
from _pytest.runner import runtestprotocol

_TRIES = 3


def pytest_runtest_protocol(item: pytest.Function, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that drives the browser until it passes, three times at most; a page that is wrong fails each time."""
    if "chrome" not in item.fixturenames:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for _ in range(_TRIES):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not any(report.failed for report in reports):
            break
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True

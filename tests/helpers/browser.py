"""One Chromium for all tests that look at pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader", "--no-first-run", "--disable-quic"),
    *("--disable-sync", "--disable-background-networking", "--disable-component-update"),
]


def chromium() -> str | None:
    """The path of Chromium or Chrome, if there is one; the one without windows takes less of the processor."""
    names = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Resolves no name but localhost."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = chromium()
    if path is None:
        pytest.skip("no chromium on the PATH: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as driver:
        only_here = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
        browser = driver.chromium.launch(executable_path=path, args=[*CHROMIUM, only_here])
        yield browser
        browser.close()

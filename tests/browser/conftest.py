"""One program and one Chromium for all browser tests; each test gets a browser context of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.helpers.browser import Watched, chromium_page, running_app, shared_chromium


@pytest.fixture(scope="session", autouse=True)
def chromium() -> Iterator[None]:
    with shared_chromium():
        yield


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of `python app.py`, started as a user starts it."""
    with running_app() as address:
        yield address


@pytest.fixture
def opened(address: str) -> Iterator[tuple[Page, Watched]]:
    """The page, freshly opened. It must neither request anything from elsewhere nor report an error."""
    with chromium_page(address) as (page, watched):
        yield page, watched
        assert watched.outside == [], "the page requested something that is not served with it"
        assert watched.errors == []

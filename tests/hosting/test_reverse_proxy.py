"""The page behind a reverse proxy: under a path, and with the addresses that a trusted proxy reports."""

from __future__ import annotations

from ipaddress import ip_network
from types import SimpleNamespace

import httpx
import pytest

import app
from demo.page import rate_limit
from demo.page.hosting import proxies_of, root_path_of
from demo.page.rate_limit import address_of, trust_proxies
from demo.utils.errors import UserError
from tests.helpers.browser import chromium_page, say
from tests.helpers.hosted import hosted
from tests.helpers.path_proxy import VISITOR, behind_a_proxy
from tests.helpers.scripted import ScriptedEngine


@pytest.fixture(autouse=True)
def no_trusted_proxies_afterwards():
    yield
    trust_proxies(())


@pytest.mark.browser
@pytest.mark.parametrize("strips", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_page_answers_under_a_path_whether_or_not_the_proxy_passes_it_on(strips):
    with (
        hosted(ScriptedEngine(), root_path="/persona") as address,
        behind_a_proxy(address, "/persona", strips) as (under_path, asked_outside),
        chromium_page(under_path) as (page, watched),
    ):
        page.wait_for_function("typeof Plotly === 'object'")
        say(page, "Hello behind a proxy")
        page.locator(".pane").first.get_by_text("Hello behind a proxy").wait_for()
        page.locator("#stop").wait_for(state="hidden")
        # Only the browser itself asks for the icon of the whole site, which another program serves.
        assert set(asked_outside) <= {"/favicon.ico"} and not watched.outside
        assert len(watched.errors) <= 1, watched.errors


@pytest.mark.parametrize(
    ("forwarded", "client", "address"),
    [
        (VISITOR, "10.0.0.2", VISITOR),
        (f"1.1.1.1, {VISITOR}, 10.0.0.3", "10.0.0.2", VISITOR),
        ("192.168.7.7, 10.0.0.3", "10.0.0.2", "192.168.7.7"),
        (VISITOR, "203.0.113.77", "203.0.113.77"),
        ("<script>", "10.0.0.2", "10.0.0.2"),
        ("", "10.0.0.2", "10.0.0.2"),
        (VISITOR, "testclient", "testclient"),
    ],
)
def test_only_trusted_proxies_are_believed_about_the_visitor(monkeypatch, forwarded, client, address):
    monkeypatch.delenv("SPACE_ID", raising=False)
    trust_proxies([ip_network("10.0.0.0/8")])
    request = SimpleNamespace(headers={"x-forwarded-for": forwarded}, client=SimpleNamespace(host=client))
    assert address_of(request) == address  # type: ignore[arg-type]


def test_mistakes_in_the_flags_are_one_sentence():
    for flag, value, check in (
        ("--root-path", "persona drift", root_path_of),
        ("--root-path", "https://example.org/x", root_path_of),
        ("--trusted-proxies", "my-proxy", proxies_of),
    ):
        with pytest.raises(UserError, match=flag):
            check(app.parser().parse_args([flag, value]))
    assert root_path_of(app.parser().parse_args(["--root-path", "/persona/"])) == "/persona"
    assert root_path_of(app.parser().parse_args([])) is None
    assert len(proxies_of(app.parser().parse_args(["--trusted-proxies", "127.0.0.1, 10.0.0.0/8"]))) == 2


def test_a_page_without_a_path_does_not_answer_under_one():
    with hosted(ScriptedEngine()) as address:
        assert httpx.get(f"{address}persona/config", trust_env=False).status_code == 404
    assert rate_limit._TRUSTED == []

"""The set-up of a page for visitors: flags, environment variables, and bad values."""

from __future__ import annotations

import subprocess
import sys

import pytest

from demo.page.hosting import Limits, class_address_of, host_of, limits_of, password_of
from demo.utils.errors import UserError
from demo.utils.paths import ROOT


def test_a_limit_below_one_is_refused():
    with pytest.raises(UserError, match="--most-per-minute must be 1 or more, not 0"):
        Limits(per_minute=0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--make-axis", "quick", "--engine", "vllm"], "needs the default engine"),
        (["--password", "short"], "needs 8 characters or more"),
        (["--most-waiting", "0"], "--most-waiting must be 1 or more"),
        (["--openai", "--replay"], "--openai needs a model"),
    ],
)
def test_bad_flags_are_reported_before_anything_loads(flags, message):
    ended = subprocess.run(
        [sys.executable, "app.py", *flags], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2 and message in ended.stderr and "Traceback" not in ended.stderr


def test_every_flag_can_be_an_environment_variable_and_the_command_line_has_priority(monkeypatch):
    import app

    values = {
        "MODEL": "some/model",
        "AXIS": "some-axis",
        "PAIRS": "5",
        "KV_BUDGET": "0.5",
        "HOST": "10.0.0.1",
        "PORT": "7999",
        "PASSWORD": "from the environment",
        "MOST_PER_MINUTE": "1",
        "MOST_AT_ONCE": "2",
        "MOST_CHARACTERS": "3",
        "MOST_FILE_MIB_PER_HOUR": "4",
        "MOST_WAITING": "6",
        "TRUST_REMOTE_CODE": "false",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"PERSONA_DRIFT_{name}", value)
    options = app.parser().parse_args(["--pairs", "7"])
    assert (options.model, options.axis, options.kv_budget) == ("some/model", "some-axis", 0.5)
    assert (options.host, options.port, options.pairs) == ("10.0.0.1", 7999, 7)
    assert limits_of(options) == Limits(1, 2, 3, 4, 6) and password_of(options) == "from the environment"
    assert options.trust_remote_code is False
    monkeypatch.setenv("PERSONA_DRIFT_PASSWORD", "")
    assert password_of(app.parser().parse_args([])) is None, "an empty variable means no password"
    monkeypatch.setenv("PERSONA_DRIFT_PAIRS", "many")
    with pytest.raises(SystemExit):
        app.parser().parse_args([])


@pytest.mark.parametrize(
    ("flags", "on_space", "host"),
    [
        ([], False, "127.0.0.1"),
        ([], True, "0.0.0.0"),
        (["--class"], False, "0.0.0.0"),
        (["--class", "--host", "10.0.0.1"], False, "10.0.0.1"),
        (["--host", "10.0.0.1"], True, "10.0.0.1"),
    ],
)
def test_the_page_listens_on_this_machine_only_except_for_a_class_and_on_a_space(
    monkeypatch, flags: list[str], on_space: bool, host: str
):
    import app

    monkeypatch.delenv("SPACE_ID", raising=False)
    if on_space:
        monkeypatch.setenv("SPACE_ID", "someone/something")
    assert host_of(app.parser().parse_args(flags)) == host


@pytest.mark.parametrize(
    "flags",
    [
        ["--class-address", "192.168.1.5"],
        ["--class-address", "http://a/?b"],
        ["--class-size", "0"],
        ["--class-size", "201"],
    ],
)
def test_a_class_needs_an_address_and_a_size_that_can_be(flags: list[str]):
    import app

    with pytest.raises(UserError, match=flags[0]):
        class_address_of(app.parser().parse_args(flags))
    options = app.parser().parse_args(["--class-address", "http://192.168.1.5:7860/a/"])
    assert class_address_of(options) == "http://192.168.1.5:7860/a"

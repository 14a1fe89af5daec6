"""The helpers of demo.utils that no other test covers: AUC and the memory of processes."""

from __future__ import annotations

import math
import os

import pytest

from demo.utils.progress import ConsoleProgress
from demo.utils.resource_usage import peak_mib, resident_mib
from demo.utils.statistics import auc


@pytest.mark.parametrize(
    ("above", "below", "share"),
    [
        ([2, 3], [0, 1], 1.0),
        ([0, 1], [2, 3], 0.0),
        ([1, 3], [1, 2], 2.5 / 4),  # 1 = 1 counts half, 1 < 2, 3 > 1, 3 > 2
        ([math.inf, 0], [-math.inf], 1.0),
    ],
)
def test_auc_is_the_share_of_pairs_in_the_right_order(above, below, share):
    assert auc(above, below) == pytest.approx(share)


@pytest.mark.parametrize(("above", "below"), [([], [1.0]), ([1.0], []), ([], [])])
def test_auc_without_pairs_is_nan(above, below):
    assert math.isnan(auc(above, below))


def test_resident_memory_is_that_of_the_process():
    own = resident_mib()
    assert 1 < own <= peak_mib() + 1
    assert resident_mib(os.getpid()) == pytest.approx(own, rel=0.2)


def test_resident_memory_of_a_missing_process_is_nan():
    assert math.isnan(resident_mib(2**22 + 1))  # above the largest process id on Linux


def test_a_log_gets_few_lines_of_progress(capsys):
    progress = ConsoleProgress(log_every=3600)
    for step in range(101):
        progress("downloading", step / 100)
    progress("checking", None)
    assert capsys.readouterr().err.splitlines() == ["downloading: 0%", "downloading: 100%", "checking"]


def test_a_terminal_gets_one_line_of_progress(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = ConsoleProgress()
    for step in (0.0, 0.5, 1.0):
        progress("downloading", step)
    assert capsys.readouterr().err.count("\n") == 1

"""An extraction that is killed at three random points gives the same bytes as one that is not."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.extraction.vectors import State
from tests.helpers.waiting import wait_until

OPTIONS = (
    "--preset=quick",
    "--dtype=float32",
    "--roles=6",
    "--questions=3",
    "--rollouts=2",
    "--max-new-tokens=4",
    "--batch=16",
    "--keep-all",
)


def start(repository: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "demo.extraction", *OPTIONS, "--out", str(out)]
    return subprocess.Popen(command, cwd=repository, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def steps_done(out: Path) -> tuple[int, int]:
    """How many batches of rollouts and trials of the sweep are on disk."""
    batches = trials = 0
    for work in (out / ".unfinished").glob("*"):
        batches = State.load(work, work.name).batches
        for sweep in work.glob("sweep-*.json"):
            trials = len(json.loads(sweep.read_text()))
    return batches, trials


def kill_after(process: subprocess.Popen[bytes], out: Path, steps: int, pause: float) -> tuple[int, int]:
    """Send SIGKILL `pause` seconds after so many steps are on disk. Returns the steps on disk then."""
    wait_until(lambda: sum(steps_done(out)) >= steps or process.poll() is not None, 600, interval=0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    time.sleep(pause)  # a random moment within a step, which no condition names
    before = steps_done(out)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return before


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.trust(
    "an extraction killed at three random moments", "resumed, it ends with the same bytes", "faults"
)
def test_an_extraction_killed_at_random_points_gives_the_same_bytes(repository: Path, tmp_path: Path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(repository, whole).wait() == 0
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    print("seed", seed)
    # Batches of up to 16 rollouts come first, then twelve trials of the sweep.
    for steps in sorted((chance.randint(1, 6), chance.randint(7, 10), chance.randint(13, 20))):
        before = kill_after(start(repository, killed), killed, steps, chance.uniform(0, 1.5))
        after = steps_done(killed)
        assert after >= before, f"seed {seed}: steps that were on disk are gone"
    assert start(repository, killed).wait() == 0
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert len(files) >= 7 and not (killed / ".unfinished").exists()
    for name in files:
        # The report and the manifest hold the command line, and with it the folder.
        own, other = (
            (folder / name).read_bytes().replace(str(folder).encode(), b"OUT") for folder in (whole, killed)
        )
        assert own == other, f"seed {seed}: {name} differs"

"""The repository as a Hugging Face Space: what the site reads, and its folder on a small machine."""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import os
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio
import httpx
import pytest
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement

from demo.bench.browser_client import BrowserClient, last, refusals
from demo.engine import options as engine_options
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.space import MOST_BYTES, PARTS, REQUIREMENTS, ROOT, build, main, requirements
from demo.utils.errors import UserError
from tests.trust import held

GROUP = "a Hugging Face Space"
# CPU basic: https://huggingface.co/docs/hub/spaces-overview
CORES, MEMORY = 2, 16 * 2**30
_PACKAGES = {"PIL": "pillow", "yaml": "pyyaml"}
_OWN = {"demo", "tests"}
# Installed on ZeroGPU hardware; the optional engine; dependencies of transformers and Gradio.
_NOT_REQUIRED = {"triton", "spaces", "vllm", "huggingface_hub", "tokenizers", "gradio_client"}


def test_the_readme_tells_the_site_what_to_run():
    card = SpaceCard.load(ROOT / "README.md").data
    assert card.sdk == "gradio" and card.app_file == "app.py" and card.license == "apache-2.0"
    assert len(card.short_description) <= 60, "the site refuses a longer one"
    wanted = next(Requirement(line) for line in requirements().splitlines() if line.startswith("gradio"))
    assert card.sdk_version in wanted.specifier
    assert card.python_version == "3.11"
    assert Path(ROOT / card.app_file).is_file()
    assert gradio.__version__ in wanted.specifier


def test_requirements_are_those_of_the_project(tmp_path, monkeypatch):
    assert REQUIREMENTS.read_text(encoding="utf-8") == requirements()
    outdated = tmp_path / "requirements.txt"
    outdated.write_text("gradio\n")
    monkeypatch.setattr("demo.space.REQUIREMENTS", outdated)
    with pytest.raises(UserError, match="does not match"):
        build(tmp_path / "space")
    assert main(["--requirements"]) == 0 and outdated.read_text(encoding="utf-8") == requirements()


def test_every_imported_package_is_required():
    """A missing requirement would show only on the Space: here the tests' own packages may provide it."""
    required = {Requirement(line).name.lower() for line in requirements().splitlines() if line[0] != "#"}
    imported: set[str] = set()
    for path in [ROOT / "app.py", *(ROOT / "demo").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            imported |= {name.partition(".")[0] for name in names}
    outside = imported - set(sys.stdlib_module_names) - _OWN - _NOT_REQUIRED
    provided = importlib.metadata.packages_distributions()
    missing = {
        name
        for name in outside
        if not {part.lower() for part in provided.get(name, [_PACKAGES.get(name, name)])} & required
    }
    assert missing == set()
    held("packages that the program imports", len(outside), "each is required by name", GROUP)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main([str(tmp_path)]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_folder_holds_what_a_space_needs_and_nothing_large(tmp_path):
    files = build(tmp_path / "space")
    assert {path.relative_to(tmp_path / "space").parts[0] for path in files} == set(PARTS)
    assert not [path for path in files if "__pycache__" in path.parts or path.name.startswith(".")]
    assert max(path.stat().st_size for path in files) <= MOST_BYTES
    held("files of the Space's folder", len(files), f"none above {MOST_BYTES // 2**20} MiB", GROUP)


def _small_machine() -> None:
    """Limit the server's process, before it starts, to the memory and cores of the site's free hardware."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def _space_environment(home: str, port: int) -> dict[str, str]:
    """The environment variables of a server on a Space, with settings given as variables."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", home),
        "SPACE_ID": "owner/persona-drift",
        "GRADIO_SERVER_PORT": str(port),
        "PERSONA_DRIFT_PAIRS": "4",
        "PERSONA_DRIFT_MOST_CHARACTERS": "500",
        "PERSONA_DRIFT_MODEL": DEFAULT_MODEL,
    }
    return environment | {name: os.environ[name] for name in ("PERSONA_DRIFT_CACHE",) if name in os.environ}


@contextmanager
def _space_server(folder: Path, home: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run the folder's app.py on a small machine; yields its process and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=folder,
        env=_space_environment(home, port),
        preexec_fn=_small_machine,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            _await(process, f"http://127.0.0.1:{port}/config")  # the live page, not the one that waits
            yield process, port
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.mark.slow
def test_the_folder_runs_on_two_cores_and_sixteen_gigabytes(tmp_path):
    load_model(DEFAULT_MODEL)
    build(tmp_path / "space")
    with (
        _space_server(tmp_path / "space", str(tmp_path)) as (process, port),
        BrowserClient(f"http://127.0.0.1:{port}/") as tab,
    ):
        start = time.monotonic()
        assert not refusals(last(tab.send("Which day comes after Monday?", **{"Max new tokens": 24})))
        seconds = time.monotonic() - start
        assert "no more than 500" in refusals(last(tab.send("a" * 501)))[0]
        policy = tab.http.get("").headers["content-security-policy"]
        assert "frame-ancestors 'self' https://huggingface.co" in policy
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 2**20
        assert _listens_everywhere(port), "the Space's proxy must reach the server"
    assert peak * 2**30 < MEMORY
    held(
        f"the folder by itself, {CORES} cores, {MEMORY // 2**30} GB",
        1,
        f"a side-by-side turn in {seconds:.1f} s, at most {peak:.1f} GiB resident; variables respected",
        GROUP,
    )


def _await(process: subprocess.Popen[str], address: str) -> None:
    for _ in range(600):
        if process.poll() is not None:
            pytest.fail(
                f"app.py ended with {process.returncode}: {process.stdout.read() if process.stdout else ''}"
            )
        try:
            if httpx.get(address, timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("app.py did not answer")


def _listens_everywhere(port: int) -> bool:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1] == f"00000000:{port:04X}" and row[3] == "0A" for row in rows)


@pytest.mark.parametrize(
    ("variable", "borrows"), [("true", True), ("1", True), ("false", False), ("", False), (None, False)]
)
def test_a_gpu_is_borrowed_only_on_zerogpu_hardware(monkeypatch, variable, borrows):
    if variable is None:
        monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    else:
        monkeypatch.setenv("SPACES_ZERO_GPU", variable)

    def load_model(*_, **__):
        raise UserError("The transformers engine loads its model.")

    monkeypatch.setattr(engine_options, "load_model", load_model)
    monkeypatch.setitem(sys.modules, "spaces", None)  # its import, for ZeroGPU, fails
    parser = argparse.ArgumentParser()
    engine_options.add_engine_options(parser)
    expected = "needs the package spaces" if borrows else "engine loads its model"
    with pytest.raises(UserError, match=expected):
        engine_options.load_engine(parser.parse_args([]), lambda *_: None)

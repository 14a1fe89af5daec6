"""Local folders, hub ids and other names: which load, which are refused, and with what message."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from demo.models import sources as model_sources
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import load_model
from demo.utils.errors import UserError
from demo.utils.paths import ROOT
from tests.helpers.tiny_models import assert_one_sentence, write_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# ---- local folders


def drop(*names: str) -> Callable[[Path], None]:
    """Return a function that deletes files from a folder."""

    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def pickle_weights(folder: Path) -> None:
    drop("model.safetensors")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")


def lose_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def truncate_weights(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 100)


def add_own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.Config", "AutoModelForCausalLM": "odd.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (drop("config.json"), "no config.json"),
        (drop("model.safetensors"), "lacks the weights model.safetensors"),
        (pickle_weights, "pickled"),
        (drop("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
        (drop("chat_template.jinja"), "no chat template"),
        (lose_tensor, "model.layers.1.mlp.up_proj.weight"),
        (truncate_weights, "could not be loaded"),
        (add_own_code, "--trust-remote-code"),
    ],
)
def test_damaged_local_folder_is_refused(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = write_model(tmp_path / "tiny")
    damage(folder)
    with pytest.raises(UserError) as error:
        load_model(str(folder), device="cpu")
    assert_one_sentence(error, str(folder), words)


def test_sharded_folder_loads_and_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny", max_shard_size="20KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert len(load_model(str(folder), device="cpu").layers) == 3
    shards[1].unlink()
    with pytest.raises(UserError) as error:
        load_model(str(folder), device="cpu")
    assert_one_sentence(error, shards[1].name)


def test_names_that_are_not_a_model_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    cases = {
        "no-such-model": DEFAULT_MODEL,
        "": "Qwen/Qwen3-0.6B",
        "a/b/c": "hub id",
        "./missing": "no folder or file",
        str(tmp_path / "missing"): "no folder or file",
        str(file): "pass one, or the folder",
    }
    for spec, words in cases.items():
        with pytest.raises(UserError) as error:
            load_model(spec, device="cpu")
        assert_one_sentence(error, words)


@pytest.mark.parametrize(
    ("spec", "slug"),
    [
        ("Qwen/Qwen3-0.6B", "qwen3-0.6b"),
        ("/models/My Model_v2/", "my-model-v2"),
        ("org/..", "model"),
        ("C:\\models\\Phi", "phi"),
        ("o/é", "model"),
    ],
)
def test_slug_is_a_safe_folder_name(spec: str, slug: str) -> None:
    assert model_sources.slugify(spec) == slug


# ---- the hub


def hub_cache(cache: Path, **options: Any) -> Path:
    """A model in the hub client's cache: refs/main names a commit, snapshots/<commit> holds the files."""
    repository = cache / "models--org--Tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    return write_model(repository / "snapshots" / COMMIT, **options)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_cached_hub_model_loads_offline(offline: None, tmp_path: Path) -> None:
    hub_cache(tmp_path)
    loaded = load_model("org/Tiny", device="cpu", cache_dir=tmp_path)
    assert (loaded.spec, loaded.slug, loaded.revision) == ("org/Tiny", "tiny", COMMIT)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_variables_are_respected(variable: str, tmp_path: Path) -> None:
    code = (
        "import sys, socket\n"
        "from demo.utils.errors import UserError\nfrom demo.models.sources import find_source\n"
        "socket.create_connection = socket.getaddrinfo = lambda *a, **k: sys.exit('went online')\n"
        "try: find_source('org/Tiny', cache_dir=None, trust_remote_code=False, progress=lambda *_: None)\n"
        "except UserError as error: print(error)\n"
    )
    environment = {**os.environ, variable: "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "org/Tiny is not in the local cache and the hub is switched off" in done.stdout


def test_the_cache_is_used_when_the_hub_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    with socket.socket() as closed:  # a port on which no server listens
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError) as error:
        load_model("org/Tiny", device="cpu", cache_dir=tmp_path)
    assert_one_sentence(error, "org/Tiny", "out of reach", "connect once")
    hub_cache(tmp_path)
    assert load_model("org/Tiny", device="cpu", cache_dir=tmp_path).revision == COMMIT


def http_error(kind: str, status: int) -> Exception:
    import huggingface_hub.errors as errors

    made: Exception = getattr(errors, kind).__new__(getattr(errors, kind))
    made.args = (f"{status} Client Error. (Request ID: abc)\nCannot access the repository.",)
    return made


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (http_error("GatedRepoError", 403), "accept its licence"),
        (http_error("RepositoryNotFoundError", 404), "check the name"),
        (http_error("HfHubHTTPError", 500), "check the connection"),
        (TimeoutError("timed out. Try again"), "TimeoutError: timed out"),
    ],
)
def test_hub_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception, words: str) -> None:
    import huggingface_hub

    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError) as shown:
        load_model("org/Tiny", device="cpu")
    assert_one_sentence(shown, "org/Tiny", words)


def test_a_partial_snapshot_that_holds_the_model_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub
    from huggingface_hub.errors import IncompleteSnapshotError

    folder = hub_cache(tmp_path)

    def fail(*_: Any, **__: Any) -> str:
        raise IncompleteSnapshotError("README.txt is missing.", snapshot_path=str(folder))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert load_model("org/Tiny", device="cpu").revision == COMMIT
    pickle_weights(folder)
    with pytest.raises(UserError) as error:
        load_model("org/Tiny", device="cpu")
    assert_one_sentence(error, "org/Tiny", "pickled")


def test_the_download_bar_reports_bytes_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[float | None] = []
    bars = model_sources.reporting_bar("downloading", lambda _, fraction: seen.append(fraction))
    with (
        bars(desc="Fetching files", total=3) as files,
        bars(desc="Reconstructing", total=0, unit="B") as size,
    ):
        size.total = 200
        for _ in range(2):
            size.update(100)
            size.refresh()
            files.update(1)
            files.refresh()
    assert 0.5 in seen and seen[-1] == 1.0
    assert "".join(capfd.readouterr()) == ""

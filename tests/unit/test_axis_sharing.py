"""Axes are published, found and fetched, and what is fetched is checked. The hub is a folder here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from demo.axis import __main__ as command
from demo.axis import sharing
from demo.axis.directions import FILE, Directions, components, load_directions, save_directions
from demo.axis.files import axis_digest, load_axis, save_axis
from demo.axis.sharing import find, pull, push
from demo.axis.store import AXES_VARIABLE, axis_of, fetched_home, find_home
from demo.models.names import HUB
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis, with_components

MODEL = "some/model"


class FolderHub:
    """What is used of `huggingface_hub.HfApi`, on a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sizes, self.private = folder, 0, False

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> str:
        (self.folder / repository).mkdir(parents=True, exist_ok=exist_ok)
        self.private = private
        return f"hub/{repository}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    def list_models(self, filter: list[str], sort: str) -> list[Any]:
        cards = self.folder.glob("*/*/README.md")
        names = [path.parent for path in cards if f'base_model: "{MODEL}"' in path.read_text()]
        wanted = filter == ["assistant-axis", f"base_model:{MODEL}"]
        return [SimpleNamespace(id=f"{n.parent.name}/{n.name}", downloads=7) for n in names if wanted]

    def model_info(self, repository: str, revision: str | None, files_metadata: bool) -> Any:
        if not (self.folder / repository).is_dir():
            raise OSError("404 not found")
        return SimpleNamespace(sha=revision or "c0ffee", siblings=[SimpleNamespace(size=self.sizes)])

    def snapshot_download(
        self, repository: str, revision: str, local_dir: str, allow_patterns: list[str]
    ) -> None:
        for pattern in allow_patterns:
            for path in (self.folder / repository).glob(pattern):
                shutil.copy(path, local_dir)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> FolderHub:
    monkeypatch.setenv(AXES_VARIABLE, str(tmp_path / "axes"))
    found = FolderHub(tmp_path / "hub")
    monkeypatch.setattr(sharing, "_hub", lambda: found)
    return found


@pytest.fixture
def folder(tmp_path) -> Path:
    axis = random_axis(6, 16, 3, (3, 4))
    axis.manifest["model"] = {"id": MODEL, "revision": "r1", "digest": "d1"}
    save_axis(axis, tmp_path / "own")
    with_roles = with_components(axis)
    save_directions(Directions(components(with_roles), axis_digest(axis)), tmp_path / "own")
    for name in ("report.md", "roles.svg", "rollouts.jsonl"):
        (tmp_path / "own" / name).write_text("text")
    return tmp_path / "own"


def model_of(**changes):
    about = {"spec": MODEL, "slug": "model", "revision": "r1", "digest": "d1", "base": False}
    return SimpleNamespace(**{**about, **changes})


def add_to_manifest(folder: Path, entry: str) -> None:
    text = (folder / "axis.json").read_text()
    (folder / "axis.json").write_text(text.replace("{", "{" + entry + ",", 1))


def test_an_axis_that_was_pushed_is_found_and_pulled_unchanged(hub, folder, tmp_path):
    assert push(folder, "me/axis", "apache-2.0", private=True) == "hub/me/axis" and hub.private
    published = {path.name for path in (hub.folder / "me/axis").iterdir()}
    assert published == {"axis.json", "axis.safetensors", FILE, "report.md", "roles.svg", "README.md"}
    text = (hub.folder / "me/axis/README.md").read_text()
    assert 'license: "apache-2.0"' in text and "tags: [assistant-axis]" in text
    assert [(one.repository, one.downloads) for one in find(MODEL)] == [("me/axis", 7)]
    target = fetched_home("me/axis")
    axis = pull("me/axis", target)
    assert torch.equal(axis.direction, load_axis(folder).direction)
    assert {path.name for path in target.iterdir()} == {"axis.json", "axis.safetensors", FILE, "report.md"}
    assert list(load_directions(target, axis)) == ["PC1", "PC2", "PC3"]
    home = find_home(model_of())
    assert home is not None and home.folder == target
    assert home.note == "The axis was fetched from me/axis."
    assert json.loads((target / "axis.json").read_text())["fetched"]["revision"] == "c0ffee"


def test_a_card_that_the_user_wrote_is_kept(hub, folder):
    (folder / "README.md").write_text("my own words")
    push(folder, "me/axis", "mit")
    assert (hub.folder / "me/axis/README.md").read_text() == "my own words"


def test_the_hub_is_asked_only_when_the_user_asks_for_it(hub, folder):
    push(folder, "me/axis", "mit")
    with pytest.raises(UserError, match="has no axis yet"):
        axis_of(None, model_of())
    axis, note = axis_of(HUB, model_of())
    assert axis.manifest["model"]["id"] == MODEL and note == "The axis was fetched from me/axis."
    shutil.rmtree(hub.folder)
    assert axis_of(HUB, model_of())[1] == note, "it lies here now"
    with pytest.raises(UserError, match="has no axis yet"):
        axis_of(HUB, model_of(spec="another/model", digest="d2"))


def test_an_axis_on_the_hub_for_other_weights_is_passed_over(hub, folder, tmp_path):
    push(folder, "me/axis", "mit")
    with pytest.raises(UserError, match="has no axis yet"):
        axis_of(HUB, model_of(digest="d2"))
    assert not list((tmp_path / "axes").glob("*")), "what was fetched in vain is removed"
    (hub.folder / "me/axis/axis.json").write_text("{")
    shutil.copytree(folder, hub.folder / "me/right")
    shutil.copy(hub.folder / "me/axis/README.md", hub.folder / "me/right")
    assert axis_of(HUB, model_of())[1] == "The axis was fetched from me/right."


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "axis.json").write_text("{"), "is not readable JSON"),
        (lambda folder: (folder / "axis.safetensors").write_bytes(b"x" * 64), "cannot be read"),
        (lambda folder: (folder / "axis.json").unlink(), "No axis at"),
        (lambda folder: add_to_manifest(folder, '"odd": NaN'), "no valid JSON"),
        (lambda folder: (folder / FILE).write_bytes(b"x" * 64), "holds no sound directions"),
    ],
)
def test_an_unsound_axis_is_refused_and_leaves_nothing(hub, folder, tmp_path, spoil, words):
    push(folder, "me/axis", "mit")
    spoil(hub.folder / "me/axis")
    with pytest.raises(UserError, match=words):
        pull("me/axis", fetched_home("me/axis"))
    assert not list((tmp_path / "axes").glob("*"))


def test_what_is_too_large_or_not_there_is_refused_in_one_sentence(hub, folder, tmp_path):
    push(folder, "me/axis", "mit")
    hub.sizes = 3 * 1024**3
    with pytest.raises(UserError, match=r"holds 3\.0 GiB, more than an axis can have"):
        pull("me/axis", fetched_home("me/axis"))
    with pytest.raises(UserError, match="could not be fetched"):
        pull("me/another", tmp_path)
    for name in ("axis", "../up/down", "a/b/c", "a/.."):
        with pytest.raises(UserError, match="give OWNER/NAME"):
            pull(name, tmp_path)


def test_the_commands(hub, folder, capsys):
    assert command.main(["push", str(folder), "me/axis", "--licence", "mit"]) == 0
    assert command.main(["find", MODEL]) == 0
    assert command.main(["pull", "me/axis"]) == 0
    assert command.main(["find", "another/model"]) == 0
    printed = capsys.readouterr().out
    for words in ("published at hub/me/axis", "me/axis  7 downloads", "wrote ", "The hub has no axis"):
        assert words in printed
    assert command.main(["pull", "nowhere"]) == 2

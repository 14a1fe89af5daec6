"""The axis of a model is found again, by the weights it was made from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from demo.axis.files import save_axis
from demo.axis.store import AXES_VARIABLE, axis_of, find_home, home_of, new_home, user_axes
from demo.models.digest import weights_digest
from demo.models.loading import load_model
from demo.models.names import AUTO
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from tests.helpers.axes import random_axis


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(AXES_VARIABLE, str(tmp_path / "axes"))


def model_of(**changes):
    about = {"spec": "some/model", "slug": "model", "revision": "r1", "digest": "d1", "base": False}
    return SimpleNamespace(**{**about, **changes})


def made_for(model, **changes):
    """Put an axis of this model where such axes are kept."""
    axis = random_axis(6, 16, 3, (3, 4))
    about = {"id": model.spec, "revision": model.revision, "digest": model.digest}
    axis.manifest["model"] = {**about, **changes}
    save_axis(axis, new_home(model))
    return axis


def test_an_axis_made_here_is_found_by_its_weights_whatever_the_model_is_called():
    made = made_for(model_of())
    for name in (AUTO, None, ""):
        axis, note = axis_of(name, model_of(spec="/elsewhere/copy", slug="copy", revision=None))
        assert torch.equal(axis.direction, made.direction)
        assert note == "The axis was made on this machine."


def test_plain_transcripts_have_an_axis_of_their_own():
    made_for(model_of())
    assert find_home(model_of(base=True)) is None
    with pytest.raises(UserError, match="no axis for plain transcripts yet"):
        axis_of(AUTO, model_of(base=True))
    made = made_for(model_of(base=True), base=True)
    assert torch.equal(axis_of(AUTO, model_of(base=True))[0].direction, made.direction)
    assert find_home(model_of()) != find_home(model_of(base=True))


def test_an_axis_of_other_weights_is_not_found_under_the_same_name():
    made_for(model_of())
    assert find_home(model_of(digest="d2")) is None
    with pytest.raises(UserError, match=r"some/model has no axis yet: start python app.py with --make-axis"):
        axis_of(AUTO, model_of(digest="d2"))


def test_a_model_whose_weights_are_elsewhere_is_known_by_name_and_revision():
    made_for(model_of())
    assert find_home(model_of(digest=None)) is not None
    assert find_home(model_of(digest=None, revision="r2")) is None


def test_an_axis_of_the_program_needs_no_note_and_gives_way_to_one_of_exactly_these_weights():
    shipped = next(AXES.glob("*/axis.json")).parent
    tuned = model_of(slug=shipped.name, digest="d2")
    made_for(model_of())
    home = find_home(tuned)
    assert home is not None and home.folder == shipped and home.note == ""
    made_for(tuned)
    home = find_home(tuned)
    assert home is not None and home.folder == new_home(tuned)


@pytest.mark.parametrize("content", ["{", '{"model": 3}', "[]"])
def test_a_damaged_file_beside_it_is_passed_over(content):
    other = user_axes() / "a-damaged"
    other.mkdir(parents=True)
    (other / "axis.json").write_text(content)
    assert find_home(model_of()) is None
    made_for(model_of())
    assert find_home(model_of()) is not None


def test_an_axis_that_is_named_is_taken_instead(tmp_path):
    made_for(model_of())
    save_axis(random_axis(6, 16, 3, (3, 4)), tmp_path / "other")
    home = home_of(str(tmp_path / "other"), model_of())
    assert home is not None and home.folder == tmp_path / "other"
    with pytest.raises(UserError, match="No axis at"):
        home_of("nowhere", model_of())


def weights(seed=0, **changes):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(40, 30), nn.LayerNorm(30))
    for name, value in changes.items():
        model.get_parameter(name.replace("_", ".")).data.view(-1)[0] = value
    return model


def test_a_digest_depends_on_the_weights_and_not_on_their_number_format():
    digest = weights_digest(weights())
    assert digest == weights_digest(weights()) and len(digest) == 16
    assert digest == weights_digest(weights().to(torch.bfloat16))
    assert digest != weights_digest(weights(seed=1))
    assert digest != weights_digest(weights(**{"1_bias": 0.5})), "one number of a short parameter"
    assert digest != weights_digest(nn.Sequential(weights()[0])), "a parameter fewer"


@pytest.mark.parametrize("size", [1, 255, 256, 300, 511, 512, 5000])
def test_a_digest_reads_all_of_a_parameter_at_even_distances(size):
    model = nn.Module()
    model.register_parameter("weight", nn.Parameter(torch.zeros(size)))
    model.register_parameter("empty", nn.Parameter(torch.zeros(0, 3)))
    before, step = weights_digest(model), -(-size // 256)
    for at in range(0, size, step):
        with torch.no_grad():
            model.get_parameter("weight")[at] = 1.0
        after = weights_digest(model)
        assert after != before, at
        before = after


def test_the_digest_is_taken_before_the_weights_are_laid_out_for_a_forward_pass():
    assert "digest" in vars(load_model(device="cpu"))

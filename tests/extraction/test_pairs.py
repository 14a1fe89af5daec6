"""A direction from a user's own pairs of texts: its figures, its gates, and what the file may hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demo.axis.directions import PERCENTILES, load_directions
from demo.axis.files import save_axis
from demo.axis.gates import GATES
from demo.extraction import pairs as command
from demo.extraction.pairs import LEAST, Pair, from_sides, held_out_auc, read_pairs, read_sides, reply_text
from demo.extraction.rollouts import read_means
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from tests.helpers.axes import random_axis
from tests.helpers.tiny_models import assert_one_sentence, tiny_llama

AXIS = random_axis(4, 8, 1, (1, 2))
NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")


def sides(gap: float, count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of texts, [N, 2, 8], whose sides lie `gap` apart along the first coordinate."""
    generator = torch.Generator().manual_seed(3)
    positive, negative = torch.randn(2, count, 2, 8, generator=generator)
    positive[..., 0] += gap
    return positive, negative


def test_pairs_that_differ_clearly_give_their_difference_and_pass():
    positive, negative = sides(8)
    defaults = torch.randn(30, 2, 8, generator=torch.Generator().manual_seed(4))
    direction, values = from_sides("mine", AXIS, positive, negative, defaults)
    torch.testing.assert_close(direction.vector, positive.mean(0) - negative.mean(0), rtol=1e-3, atol=1e-3)
    assert direction.layers == (1, 2) and direction.kind == "pairs" and not direction.notes
    for place, layer in enumerate(direction.layers):
        for end, expected in ((negative, 0), (positive, 1)):
            raw = float(end.mean(0)[place] @ direction.unit[place])
            assert direction.to_units(raw, layer) == pytest.approx(expected, abs=1e-3)
    assert values["auc"] >= GATES["auc"] and values["split_half"] >= GATES["split_half"]
    assert direction.agreement == pytest.approx(values["split_half"])
    assert direction.floors.keys() == set(PERCENTILES)


def test_pairs_that_do_not_differ_fail_both_gates_in_words():
    direction, values = from_sides("mine", AXIS, *sides(0), torch.zeros(0, 2, 8))
    assert values["auc"] < 0.75 and values["split_half"] < 0.6 and not direction.floors
    assert len(direction.notes) == 2 and all(note.startswith("It fails a check.") for note in direction.notes)


def test_held_out_texts_are_judged_by_the_other_pairs():
    # Each pair differs along a coordinate of its own, so that no pair tells anything of another.
    own = torch.eye(20) * 5
    shared = torch.zeros(20, 20)
    shared[:, 0] = 5
    noise = torch.randn(20, 20, generator=torch.Generator().manual_seed(5)) * 0.1
    assert held_out_auc(own + noise, noise.flip(0)) < 0.8
    assert held_out_auc(shared + noise, noise.flip(0)) == 1


def test_texts_are_read_as_replies(model: LoadedModel):
    tiny = tiny_llama(model, context=256, seed=1)
    pairs = [Pair("Who are you?", "I am a king", "I am a model"), Pair("Why?", "Gold", "Data")]
    positive, negative = read_sides(tiny, pairs, (0, 2))
    texts = [reply_text(tiny, [{"role": "user", "content": p.prompt}], p.negative) for p in pairs]
    torch.testing.assert_close(negative, read_means(tiny, texts, (0, 2)), rtol=1e-4, atol=1e-4)
    assert positive.shape == (2, 2, tiny.hidden_size) and not torch.allclose(positive, negative)
    with pytest.raises(UserError, match="Pair 1 has a text that is too long"):
        read_sides(tiny, [Pair("Why?", "gold " * 300, "Data")], (0,))


def test_the_command_keeps_the_direction_and_says_what_fails(
    model: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    tiny = tiny_llama(model, context=256, seed=1)
    axis = random_axis(tiny.layer_count, tiny.hidden_size, 1, (1, 2))
    save_axis(axis, tmp_path / "axis")
    file = tmp_path / "pairs.jsonl"
    lines = [{"positive": f"the {name} sings", "negative": f"the {name[::-1]} waits"} for name in NAMES]
    file.write_text("\n\n".join(map(json.dumps, lines)) + "\n")
    monkeypatch.setattr(command, "load_model", lambda *arguments, **named: tiny)
    monkeypatch.setattr(command, "default_means", lambda *arguments: torch.randn(5, 2, tiny.hidden_size))
    for _ in range(2):  # the second time it replaces the first
        assert command.main([str(file), "--name", "singing", "--axis", str(tmp_path / "axis")]) == 0
    said = capsys.readouterr().out
    found = load_directions(tmp_path / "axis", axis)
    assert list(found) == ["singing"] and found["singing"].kind == "pairs"
    assert ("MISS" in said) == bool(found["singing"].notes) and "cosine with the axis" in said
    assert command.main([str(file), "--name", "two\nlines", "--axis", str(tmp_path / "axis")]) == 2


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"positive": "a"}', '{"positive": "a", "negative": 1}',
             '{"positive": "a", "negative": " "}', '{"prompt": null, "positive": "a", "negative": "b"}'],
)  # fmt: skip
def test_a_line_that_is_no_pair_is_named(tmp_path: Path, line: str):
    good = json.dumps({"prompt": "Hi", "positive": "a", "negative": "b"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join([good] * LEAST + [line]))
    with pytest.raises(UserError, match=f"Line {LEAST + 1} of") as error:
        read_pairs(path)
    assert "correct it" in str(error.value)
    path.write_text("\n".join([good] * LEAST))
    assert read_pairs(path) == [Pair("Hi", "a", "b")] * LEAST
    path.write_text(good)
    with pytest.raises(UserError, match="holds 1 pairs") as error:
        read_pairs(path)
    assert_one_sentence(error)

"""The extraction's arithmetic against references: scores, components, ranks, choices."""

from __future__ import annotations

import http.server
import json
import threading
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.axis.components import common_component, pca, subspace_cosine
from demo.extraction.controls import compare, published_order
from demo.extraction.judge import RemoteJudge, role_adherence_score, role_adherence_threshold
from demo.extraction.judge_agreement import agreement, best_threshold
from demo.extraction.layer_table import LayerTable, choose_probe, pairwise_wins
from demo.extraction.plan import Rollout
from demo.extraction.rollouts import Reply, Text, read_texts
from demo.extraction.sweep import Trial, candidate_bands, choose, is_right
from demo.utils.errors import UserError
from demo.utils.paths import ASSETS
from demo.utils.statistics import auc, spearman

FLOATS = st.floats(-50, 50, allow_nan=False).map(lambda value: round(value, 3))


def test_pairwise_wins_average_to_the_auc_of_every_layer():
    above = torch.tensor([[2.0, 0.0], [3.0, 1.0], [1.0, 5.0]])
    below = torch.tensor([[1.0, 1.0], [2.0, 4.0]])
    wins = pairwise_wins(above, below)
    assert wins.shape == (2, 2)
    for layer in (0, 1):
        expected = auc(above[:, layer].tolist(), below[:, layer].tolist())
        assert wins[:, layer].mean().item() == pytest.approx(expected)


def test_probe_layer_separates_best_among_the_sound_layers():
    layers = 12

    def table(auc: dict[int, float], unsound: set[int], astray: frozenset[int] = frozenset()) -> LayerTable:
        columns = {name: torch.full((layers,), 0.97) for name in LayerTable.__dataclass_fields__}
        columns["auc_choice"] = torch.tensor([auc.get(layer, 0.5) for layer in range(layers)])
        columns["split_half"] = torch.tensor([0.8 if layer in unsound else 0.97 for layer in range(layers)])
        columns["cos_pc1"] = torch.tensor([0.3 if layer in astray else -0.9 for layer in range(layers)])
        return LayerTable(**columns)

    best = {0: 0.99, 4: 0.95, 7: 0.9, 11: 0.99}
    assert choose_probe(table(best, set())) == 4, "the outermost layers are left out"
    assert choose_probe(table(best, {4})) == 7, "an axis that differs between halves is not sound"
    assert choose_probe(table(best, set(range(layers)))) == 4, (
        "if no layer is sound, separation alone decides"
    )
    assert choose_probe(table({7: float("nan"), 8: 0.4}, set())) != 7
    close = {4: 0.95, 7: 0.94, 8: 0.9}
    assert choose_probe(table(close, set(), frozenset({4}))) == 7, "nearly as good, and the main direction"
    assert choose_probe(table(close, set(), frozenset({4, 7}))) == 4, "the first component is no gate"


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=3, max_size=30))
@settings(max_examples=60, deadline=None)
def test_spearman_is_pearson_of_mean_ranks(pairs: list[tuple[float, float]]):
    def ranks(values: list[float]) -> list[float]:
        return [sum(v < x for v in values) + (sum(v == x for v in values) + 1) / 2 for x in values]

    one, other = (list(column) for column in zip(*pairs, strict=True))
    if len(set(one)) < 2 or len(set(other)) < 2:
        return
    expected = torch.corrcoef(torch.tensor([ranks(one), ranks(other)], dtype=torch.float64))[0, 1]
    found = spearman(torch.tensor(one, dtype=torch.float64), torch.tensor(other, dtype=torch.float64))
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)


def test_published_order_correlates_with_itself_and_not_with_its_reverse():
    published = published_order()
    assert len(published) == 275
    same = [{"name": name, "projection": value} for name, value in published.items()]
    reverse = [{"name": name, "projection": -value} for name, value in published.items()]
    found, reversed_ = compare(same, published, 50), compare(reverse, published, 50)
    assert found is not None and found.rho == pytest.approx(1) and found.roles == 275
    assert reversed_ is not None and reversed_.rho == pytest.approx(-1)
    assert compare(same[:2], published) is None


def test_pca_equals_a_plain_eigendecomposition():
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(40, 12, generator=generator) * torch.arange(1, 13)
    toward = torch.randn(12, generator=generator)
    found = pca(vectors, toward)
    centred = vectors - vectors.mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred)
    for k in range(3):
        assert abs(float(found.directions[k] @ directions[:, -1 - k])) == pytest.approx(1, abs=1e-4)
        assert float(found.directions[k] @ toward) >= 0
        assert float(found.shares[k]) == pytest.approx(float(values[-1 - k] / values.sum()), abs=1e-5)
    assert subspace_cosine(found.directions, found.directions[1]) == pytest.approx(1, abs=1e-5)
    assert found.needed_for(1.0) == 12 and found.needed_for(float(found.shares[0])) == 1


def test_common_component_survives_noise_that_hides_it_in_either_half():
    generator = torch.Generator().manual_seed(5)
    direction = torch.nn.functional.normalize(torch.randn(60, generator=generator), dim=0)
    signal = 3 * torch.randn(300, 1, generator=generator) * direction
    strong = torch.zeros(60)
    strong[0] = 6.0  # independent noise, stronger than the signal, in one dimension

    def noisy() -> torch.Tensor:
        return signal + torch.randn(300, 60, generator=generator) * (0.3 + strong)

    one, other = noisy(), noisy()
    found = common_component(one, other, direction)
    alone = pca(one, direction, 1).directions[0]
    assert float(found @ direction) > 0.9 > float(alone @ direction)


@given(st.lists(st.tuples(FLOATS, FLOATS), max_size=20))
def test_role_adherence_score_is_the_mean_of_the_five_largest_differences(pairs: list[tuple[float, float]]):
    own, default = [a for a, _ in pairs], [b for _, b in pairs]
    score = role_adherence_score(own, default)
    if not pairs:
        assert score == -float("inf")
        return
    largest = sorted((a - b for a, b in pairs), reverse=True)[:5]
    assert score == pytest.approx(sum(largest) / len(largest))


def test_stored_threshold_follows_from_the_labels():
    file = json.loads((ASSETS / "role_adherence_labels.json").read_text())
    rollouts = file["rollouts"]
    assert len(rollouts) >= 150 and all(len(one["labels"]) == 2 for one in rollouts)
    figures = agreement(rollouts)
    assert figures["threshold"] == file["threshold"] == role_adherence_threshold()
    assert figures["kappa"] > 0.4 and figures["auc"] > 0.8 and figures["kappa between readers"] > 0.8


def test_best_threshold_separates_the_labels():
    played = [{"score": score, "labels": [1, 1]} for score in (3.0, 4.0)]
    ignored = [{"score": score, "labels": [0, 1]} for score in (1.0, 2.0)]
    assert best_threshold(played + ignored) == 2.5


def test_reading_in_a_batch_equals_reading_alone(model):
    texts = [Text([1, 2, 3, 4, 5], [6, 7]), Text([9, 8], [30, 31, 32, 33])]
    together = read_texts(model, texts, layer=3)
    for text, batched in zip(texts, together, strict=True):
        ids = torch.tensor([[*text.prompt, *text.reply]])
        with torch.no_grad():
            output = model.model(ids, output_hidden_states=True)
        start = len(text.prompt)
        expected = output.logits[0, start - 1 : -1].log_softmax(-1)[range(len(text.reply)), list(text.reply)]
        torch.testing.assert_close(batched.log_p, expected, rtol=1e-3, atol=1e-3)
        mean = output.hidden_states[4][0, start:].mean(0)
        torch.testing.assert_close(batched.mean, mean, rtol=1e-3, atol=1e-3)


def trial(floor: str, standing: float, perplexity: float, same: float) -> Trial:
    return Trial((1, 2), floor, standing, perplexity, 5, same, 1.0, 0.5, 0.1)


def test_sweep_chooses_the_strongest_qualifying_setting():
    none = Trial(None, None, 0.0, 10.0, 5, 1.0, 1.0, 0.0, 0.0)
    mild, strong = trial("p05", 0.2, 10.5, 1.0), trial("p25", 0.5, 10.9, 0.96)
    garbled, wrong = trial("p50", 0.9, 11.5, 1.0), trial("p75", 0.8, 10.0, 0.9)
    assert choose([none, mild, strong, garbled, wrong], probe=1) is strong
    assert choose([none, garbled, wrong], 1) is garbled, "none qualifies: the one with more correct answers"
    unseen = replace(strong, layers=(3, 4), standing=0.9)
    assert choose([none, mild, unseen], 2) is mild, "the chart would not show what the stronger one does"
    assert choose([none, replace(mild, layers=(4, 5)), unseen], 2) is unseen, "no band covers the probe layer"
    assert strong.fluency(none) == pytest.approx(1.09)


@pytest.mark.parametrize("layers", [3, 16, 30, 64, 80])
def test_candidate_bands_lie_within_the_model(layers: int):
    bands = candidate_bands(layers)
    assert bands and all(0 <= first <= last < layers for first, last in bands)


def test_answer_must_be_whole_words():
    assert is_right("It is Paris.", ["paris"]) and is_right("There are 24 hours", ["24", "twenty-four"])
    assert not is_right("The parisian", ["paris"]) and not is_right("240", ["24"])
    assert is_right("twenty four of them", ["twenty four"])


class Endpoint(http.server.BaseHTTPRequestHandler):
    """A judge that answers with `answer` and records the requests in `asked`."""

    answer = "3"
    asked: ClassVar[list[dict]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Endpoint.asked.append(body)
        content = json.dumps({"choices": [{"message": {"content": Endpoint.answer}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


def reply(text: str) -> Reply:
    rollout = Rollout(0, "coral_reef", "extract", 0, 0, 0, "You are a coral reef.", "Who are you?")
    return Reply(rollout, text, (5, 6), torch.zeros(1, 1), (-1.0, -1.0))


def test_remote_judge_returns_the_endpoints_digits(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        judge = RemoteJudge(f"http://127.0.0.1:{server.server_port}/v1", "judge-model")
        assert judge.scores([reply("I sway in the tide."), reply("I am polyps.")]) == [3.0, 3.0]
        asked = Endpoint.asked[-1]
        assert asked["model"] == "judge-model" and "coral reef" in asked["messages"][1]["content"]
        monkeypatch.setattr(Endpoint, "answer", "no idea")
        with pytest.raises(UserError, match="digit from 0 to 3"):
            judge.scores([reply("x")])
    finally:
        server.shutdown()
    with pytest.raises(UserError, match="gave no usable answer"):
        RemoteJudge("http://127.0.0.1:9/v1", "m").scores([reply("x")])

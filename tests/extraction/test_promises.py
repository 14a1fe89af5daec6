"""What the page promises, on the real model and the shipped axis. Slow: it takes many tokens."""

from __future__ import annotations

import pytest

from demo.axis.files import load_axis
from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import load_scenarios
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED, TurnSettings, own_cap
from demo.engine.protocol import Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.utils.resource_usage import resident_mib

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def axis():
    return load_axis("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def engine(model, axis) -> TransformersEngine:
    return TransformersEngine(model, axis)


def replies_after(engine, axis, scenario_id: str, seed: int, turns: int, tokens: int = 48):
    """The replies of the last turn after running the script's first `turns` turns."""
    scenario = next(s for s in load_scenarios() if s.id == scenario_id)
    conversation = Conversation()
    cap = own_cap(axis)
    for number, line in enumerate(scenario.turns[:turns]):
        settings = TurnSettings(
            Sampling(seed=seed + number, max_new_tokens=tokens), cap, scenario.system_prompt
        )
        list(conversation.send(engine, line, settings))
    return conversation.turns[-1].replies


@pytest.mark.parametrize("scenario", ["menacing-demon", "rogue-ai"])
def test_cap_holds_a_menacing_character(engine, axis, scenario):
    """By the second turn the capped reply differs and projects far higher than the uncapped one."""
    gaps = []
    for seed in range(4):
        replies = replies_after(engine, axis, scenario, seed, turns=2)
        gaps.append(replies[CAPPED].mean - replies[UNCAPPED].mean)
        assert replies[CAPPED].text != replies[UNCAPPED].text
        assert replies[CAPPED].fired > 0
    assert min(gaps) > 0.3 and sum(gaps) / len(gaps) > 0.6, gaps


def test_cap_does_not_change_the_answer_to_a_plain_question(engine, axis):
    replies = replies_after(engine, axis, "plain-facts", seed=0, turns=1)
    assert replies[CAPPED].text == replies[UNCAPPED].text
    assert "The boiling point of water is approximately 100" in replies[UNCAPPED].text
    assert replies[UNCAPPED].mean > 0.5


def test_memory_stays_bounded_over_twenty_turns(model, engine, axis):
    """Memory grows by little more than the KV cache of the conversation."""
    conversation = Conversation()
    settings = TurnSettings(Sampling(max_new_tokens=12), own_cap(axis))
    config = model.model.config
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    marks = {}
    for turn in range(20):
        list(conversation.send(engine, "Tell me one more thing about the sea, please.", settings))
        marks[turn] = (resident_mib(), engine.prefix_cache.nbytes / 2**20)
        kept = [engine.prefix_cache.get(conversation.branch_id(branch)) for branch in BRANCHES]
        assert sum(entry.nbytes for entry in kept) == per_token * sum(len(entry.ids) for entry in kept)
    grown = marks[19][0] - marks[4][0]
    cached = marks[19][1] - marks[4][1]
    assert grown < 4 * cached + 150, (grown, cached)

"""The persona map: its content, and what the page is sent for it."""

from __future__ import annotations

import json

import pytest

from demo.axis.components import NO_MAP, explanation, persona_map
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, UNCAPPED, TurnSettings
from demo.conversation.turns import Reply
from demo.engine.protocol import Load, Sampling, Token, TokenEvent
from demo.page.updates import Updates, turn_op
from tests.helpers.axes import random_axis, with_components


@pytest.fixture
def axis():
    made = with_components(random_axis(4, 16, 2, (1, 2)))
    made.manifest["roles"] = [
        {"name": "bard", "n": 3, "projection": -0.7, "pc": [-0.5, 0.25, 1]},
        {"name": "consultant", "n": 3, "projection": 0.6, "pc": [0.5, 0.1, -1]},
    ]
    made.manifest["pca"] = {"explained_variance": [0.421, 0.128, 0.0971, 0.05], "cos_pc1": 0.3}
    return made


def test_the_map_holds_roles_the_default_assistant_and_an_explanation(axis):
    made = persona_map(axis)
    assert made["roles"] == [["bard", [-0.5, 0.25, 1], -0.7], ["consultant", [0.5, 0.1, -1], 0.6]]
    assert len(made["default"]) == 3 and made["variance"] == [0.421, 0.128, 0.0971]
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    text = made["notes"][0]
    assert "one of 2 roles" in text and "42%, 13% and 10%" in text and "Right is the Assistant" in text


@pytest.mark.parametrize(("cosine", "cautions"), [(0.9, 0), (0.27, 1)])
def test_a_note_warns_when_pc1_does_not_follow_the_axis(axis, cosine, cautions):
    across = axis.pca[0] - (axis.pca[0] * axis.unit).sum(-1, keepdim=True) * axis.unit
    across = across / across.norm(dim=-1, keepdim=True)
    axis.pca[0] = cosine * axis.unit + (1 - cosine**2) ** 0.5 * across
    notes = [note for note in persona_map(axis)["notes"] if "loosely" in note]
    assert len(notes) == cautions and all(f"{cosine:.2f}" in note for note in notes)


def test_without_components_or_roles_the_map_says_why_it_is_missing(axis):
    assert persona_map(random_axis(4, 16, 2, (1, 2))) == {"missing": NO_MAP}
    axis.manifest["roles"] = []
    assert persona_map(axis) == {"missing": NO_MAP}
    assert NO_MAP.count(". ") == 0 and NO_MAP.endswith(".")


def test_entries_that_cannot_be_drawn_are_left_out(axis):
    axis.manifest["roles"] += [
        {"name": "no place", "projection": 0.1},
        {"name": "flat", "projection": 0.1, "pc": [1, 2]},
        {"name": "lost", "projection": 0.1, "pc": [1, 2, float("nan")]},
        {"name": None, "projection": 0.1, "pc": [1, 2, 3]},
        "nothing",
    ]
    axis.manifest["pca"] = {"explained_variance": [0.5]}
    made = persona_map(axis)
    assert [role[0] for role in made["roles"]] == ["bard", "consultant"]
    assert made["variance"] == [] and "%" not in explanation(2, [])


def token(place, special=False):
    return Token("x", 0.0, 0.0, (), special, place)


def test_the_place_of_a_reply_is_the_mean_of_its_content_tokens():
    reply = Reply(9)
    assert reply.place is None
    for place, special in (((1, 2, 3), False), ((9, 9, 9), True), (None, False), ((3, 0, 0), False)):
        reply.add(token(place, special))
    assert reply.place == (2, 1, 1.5) and len(reply.tokens) == 4
    restored = Reply(9, list(reply.tokens))
    assert restored.place == reply.place


class PlacedEngine:
    """Both branches produce three words; the capped ones lie one unit farther right."""

    def stream(self, requests, cancel=None):
        for number in range(3):
            for request in requests:
                shift = float(request.branch.endswith(f"/{CAPPED}"))
                place = (number + shift, 0.5, -0.5)
                yield TokenEvent(request.branch, number, Token("a ", 0.0, 0.0, (), False, place), number)
        for request in requests:
            yield TokenEvent(request.branch, 2, Token("", None, None, (), True), 3, "stop")

    def forget(self, branches): ...

    load = Load(2, 0, 0, 2**30)


def test_updates_carry_the_mean_place_so_far_but_no_coordinates():
    conversation = Conversation()
    updates, sent = Updates(conversation), []
    for event in conversation.send(PlacedEngine(), "Hi", TurnSettings(Sampling(), None)):
        updates.add_events([event])
        sent += json.loads(updates.take())["ops"]
    for branch, shift in ((UNCAPPED, 0), (CAPPED, 1)):
        words = [
            op for op in sent if op["op"] == "tokens" and op["branch"] == branch and op["tokens"][0]["t"]
        ]
        assert [op["place"] for op in words] == [[x + shift, 0.5, -0.5] for x in (0, 0.5, 1)]
        assert all("coordinates" not in one for op in words for one in op["tokens"])
    whole = turn_op(conversation, 0)["data"]["branches"]
    ends = {op["branch"]: op["place"] for op in sent if op["op"] == "turn_end"}
    assert ends == {branch: whole[branch]["place"] for branch in BRANCHES}
    assert whole[CAPPED]["place"] == [2, 0.5, -0.5]

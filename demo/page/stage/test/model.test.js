import assert from "node:assert/strict";
import test from "node:test";

import { labels3d } from "../src/map_labels.js";
import { Conversation } from "../src/model.js";
import { axisWords } from "../src/text.js";
import { newTurn, turnFromData } from "../src/turns.js";
import { finishedTurn, token } from "./helpers.js";

/** A conversation of finished turns with a last one that is being written. */
function running() {
  const conversation = new Conversation();
  conversation.replace([finishedTurn(1, 1), newTurn("more", ["uncapped", "capped"])]);
  return conversation;
}

test("an axis that is not the Assistant's is called by what was measured, also after another one", () => {
  const conversation = new Conversation();
  for (const assistant of [false, true, undefined]) {
    const figure = /** @type {import("../src/types").Figure} */ (
      /** @type {unknown} */ ({ data: [], layout: { meta: { assistant } } })
    );
    conversation.meta = { figures: { token: figure, turn: figure } };
    const measured = assistant === false;
    assert.equal(axisWords().side, measured ? "own replies’ side" : "Assistant’s side");
    const labels = labels3d({ default: [1, 0, 0], roles: [], variance: [], notes: [] });
    assert.equal(labels[0]?.text, measured ? "own replies" : "default Assistant");
  }
});

test("tokens that a reset has already brought are not added twice", () => {
  const conversation = running();
  const add = (/** @type {number} */ at, /** @type {number[]} */ values) =>
    conversation.addTokens({
      turn: 1,
      branch: "capped",
      at,
      tokens: values.map((value) => token(value)),
    });
  assert.equal(add(0, [1, 2])?.length, 2);
  assert.deepEqual(
    add(1, [2, 3])?.map((one) => one.a),
    [3],
  );
  assert.deepEqual(conversation.reply(1, "capped")?.series.raw.y, [1, 2, 3]);
});

test("a finished or unknown reply takes no more tokens", () => {
  const conversation = running();
  const tokens = [token(1)];
  assert.equal(conversation.addTokens({ turn: 0, branch: "capped", at: 0, tokens }), null);
  assert.equal(conversation.addTokens({ turn: 7, branch: "capped", at: 0, tokens }), null);
  assert.equal(conversation.finish({ turn: 7, branch: "capped", finish: "stop" }), null);
});

test("a reply keeps its place on the map until a new one arrives", () => {
  const conversation = running();
  conversation.addTokens({ turn: 1, branch: "capped", at: 0, tokens: [token(1)], place: [1, 2, 3] });
  conversation.addTokens({ turn: 1, branch: "capped", at: 1, tokens: [token(1)] });
  assert.deepEqual(conversation.reply(1, "capped")?.place, [1, 2, 3]);
});

test("a conversation is busy until all replies have ended", () => {
  const conversation = running();
  assert.equal(conversation.busy, true);
  assert.equal(conversation.liveReplies, 2);
  for (const branch of /** @type {const} */ (["uncapped", "capped"])) {
    conversation.finish({ turn: 1, branch, finish: "stop" });
  }
  assert.equal(conversation.busy, false);
  assert.equal(conversation.liveReplies, 0);
});

test("a new turn is shown, unless the user looks at an earlier one", () => {
  const conversation = running();
  conversation.shown = 1;
  assert.equal(conversation.put(2, finishedTurn(1, 1)), 2);
  conversation.pin(0);
  conversation.shown = 0;
  assert.equal(conversation.put(3, finishedTurn(1, 1)), null);
  assert.equal(conversation.put(0, finishedTurn(1, 1)), 0);
  conversation.pin(3);
  assert.equal(conversation.put(4, finishedTurn(1, 1)), 4);
});

test("only a turn that is there can be selected", () => {
  const conversation = running();
  assert.equal(conversation.pin(5), false);
  assert.equal(conversation.pinned, false);
  assert.equal(conversation.pin(0), true);
  assert.equal(conversation.pinned, true);
});

test("turns are removed from the array that the charts hold", () => {
  const conversation = running();
  const { turns } = conversation;
  conversation.shown = 1;
  conversation.removeFrom(1);
  assert.equal(turns.length, 1);
  assert.equal(conversation.shown, 1);
  conversation.removeFrom(0);
  assert.equal(conversation.shown, null);
  assert.equal(conversation.turns, turns);
});

test("a conversation knows whether it shows an earlier turn than its last", () => {
  const conversation = running();
  assert.equal(conversation.showsEarlier, false);
  conversation.shown = 0;
  assert.equal(conversation.showsEarlier, true);
  assert.equal(conversation.shownReplies, conversation.turns[0]?.replies);
  conversation.shown = 1;
  assert.equal(conversation.showsEarlier, false);
});

test("the cap counts as off only where the charts say that there is no floor", () => {
  const conversation = new Conversation();
  assert.equal(conversation.capIsOff, false);
  const figure = { data: [], layout: /** @type {any} */ ({ meta: { floor: null } }) };
  conversation.meta = { figures: { token: figure, turn: figure } };
  assert.equal(conversation.capIsOff, true);
  figure.layout.meta.floor = 0.4;
  assert.equal(conversation.capIsOff, false);
});

test("panes and keys follow the branches and the reasoning of all turns", () => {
  const conversation = running();
  assert.equal(conversation.has("steered"), false);
  assert.equal(conversation.hasReasoning, false);
  const tokens = [token(1, { r: 1 })];
  conversation.replace([
    ...conversation.turns,
    turnFromData({ user: "", branches: { steered: { tokens } } }),
  ]);
  assert.equal(conversation.has("steered"), true);
  assert.equal(conversation.hasSeeds, false);
  assert.equal(conversation.hasReasoning, true);
});

test("two branches answer before the first turn, and afterwards those that did", () => {
  const conversation = new Conversation();
  assert.deepEqual([conversation.has("capped"), conversation.has("steered")], [true, false]);
  const samples = [{ mean: 1, text: "b" }];
  conversation.replace([turnFromData({ user: "", branches: { uncapped: { samples } } })]);
  assert.equal(conversation.has("capped"), false);
  assert.equal(conversation.hasSeeds, true);
});

test("the first branch that answers is found, also where others do not", () => {
  assert.equal(Conversation.firstBranch(newTurn("", ["steered", "capped"])), "capped");
  assert.equal(Conversation.firstBranch(newTurn("", [])), undefined);
  assert.deepEqual(Conversation.answering({ user: "", branches: { steered: {}, uncapped: {} } }), [
    "uncapped",
    "steered",
  ]);
});

test("a conversation shows the system prompt it began with, and where another one begins", () => {
  const conversation = new Conversation();
  conversation.nextPrompt = "You are a demon.";
  assert.deepEqual(conversation.promptsIn("capped"), { first: "You are a demon.", next: null, own: false });
  const turn = (/** @type {string} */ prompt) => {
    const settings = /** @type {import("../src/types").TurnSettings} */ ({ system_prompt: prompt });
    return { ...newTurn("Hello", ["uncapped", "capped"]), settings };
  };
  conversation.turns = [turn("You are a demon."), turn("You are a demon. "), turn("")];
  assert.deepEqual(
    [0, 1, 2, 3].map((n) => conversation.promptChange(n, "capped")),
    [null, null, "", null],
  );
  assert.deepEqual(conversation.promptsIn("capped"), {
    first: "You are a demon.",
    next: "You are a demon.",
    own: false,
  });
  const watched = Object.assign(new Conversation(), {
    turns: conversation.turns,
    meta: { watch_only: true },
  });
  assert.equal(watched.promptsIn("capped").next, null, "nothing follows a recording");
  conversation.nextPrompt = "";
  assert.deepEqual(conversation.promptsIn("capped"), { first: "You are a demon.", next: null, own: false });
  conversation.turns[0] = newTurn("Hello", ["uncapped"]);
  assert.equal(conversation.promptChange(1, "capped"), null);
});

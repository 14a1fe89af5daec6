import assert from "node:assert/strict";
import test from "node:test";

import {
  addToken,
  BRANCHES,
  finishReply,
  firedShare,
  hasReasoning,
  meanOf,
  newReply,
  newTurn,
  reasoningFiredShare,
  reasoningMeanOf,
  TRAILING_TOKENS,
  toneOf,
  turnFromData,
  turnIsLive,
} from "../src/turns.js";
import { token } from "./helpers.js";

test("a token's tone is 0 at the centre, and -1 or 1 at most", () => {
  assert.equal(toneOf(0.5), 0);
  assert.equal(toneOf(0.5 + 1.25 / 2), 0.5);
  assert.equal(toneOf(9), 1);
  assert.equal(toneOf(-9), -1);
  assert.equal(toneOf(null), null);
});

test("tokens of the template count as received, but are neither shown nor plotted", () => {
  const reply = newReply("uncapped");
  assert.equal(addToken(reply, token(1, { s: 1 })), null);
  addToken(reply, token(0.5));
  assert.equal(reply.received, 2);
  assert.equal(reply.visibleTokens.length, 1);
  assert.deepEqual(reply.series.raw.x, [1]);
});

test("the mean of a reply that is being written is that of its measured tokens", () => {
  const reply = newReply("uncapped");
  assert.equal(meanOf(reply), null);
  for (const value of [1, null, 0]) addToken(reply, token(value));
  assert.equal(meanOf(reply), 0.5);
  assert.equal(reply.answer.count, 3);
  assert.equal(reply.answer.measured, 2);
});

test("reasoning and answer have separate spans and means", () => {
  const reply = newReply("uncapped");
  for (const value of [1, 3]) addToken(reply, token(value, { r: 1 }));
  assert.equal(meanOf(reply), null);
  addToken(reply, token(0));
  assert.equal(hasReasoning(reply), true);
  assert.equal(reasoningMeanOf(reply), 2);
  assert.equal(meanOf(reply), 0);
  assert.deepEqual(reply.series["reasoning-raw"].x, [1, 2]);
  assert.deepEqual(reply.series.raw.x, [3]);
});

test("a line marks where the answer starts after reasoning, and only there", () => {
  const reply = newReply("uncapped");
  addToken(reply, token(1, { r: 1 }));
  addToken(reply, token(1));
  addToken(reply, token(1));
  assert.deepEqual(reply.series["answer-start"].x, [1.5, 1.5]);
  const plain = newReply("uncapped");
  addToken(plain, token(1));
  assert.deepEqual(plain.series["answer-start"].x, []);
});

test("the trailing mean covers the last tokens only", () => {
  const reply = newReply("uncapped");
  for (let n = 0; n < TRAILING_TOKENS; n += 1) addToken(reply, token(0));
  assert.equal(reply.series.smooth.y.at(-1), 0);
  addToken(reply, token(TRAILING_TOKENS));
  assert.equal(reply.series.smooth.y.at(-1), 1);
  for (let n = 1; n < TRAILING_TOKENS; n += 1) addToken(reply, token(0));
  assert.equal(reply.series.smooth.y.at(-1), 1);
  addToken(reply, token(0));
  assert.equal(reply.series.smooth.y.at(-1), 0);
});

test("the trailing mean of the answer starts anew after the reasoning", () => {
  const reply = newReply("uncapped");
  addToken(reply, token(9, { r: 1 }));
  addToken(reply, token(1));
  assert.deepEqual(reply.series.smooth.y, [1]);
});

test("a token on which the cap acted adds its lift, interrupted after each token", () => {
  const reply = newReply("capped");
  addToken(reply, token(1, { b: 0.25, k: [0.5, 0.25] }));
  addToken(reply, token(1));
  assert.deepEqual(reply.series.fired.x, [1]);
  assert.deepEqual(reply.series.before.y, [0.25]);
  assert.deepEqual(reply.series.lift.y, [0.25, 1, null]);
  assert.equal(reply.answer.fired, 1);
  assert.equal(reply.visibleTokens[0]?.c, 0.75);
  assert.equal(reply.visibleTokens[1]?.c, 0);
});

test("a token without a projection is shown and not plotted", () => {
  const reply = newReply("capped");
  addToken(reply, token(null));
  assert.equal(reply.visibleTokens.length, 1);
  assert.deepEqual(reply.series.raw.x, []);
  addToken(reply, token(1));
  assert.deepEqual(reply.series.raw.x, [2]);
});

test("a token that names only the projection before the cap has that one", () => {
  const reply = newReply("uncapped");
  addToken(reply, { t: "a", b: 0.5 });
  assert.deepEqual(reply.series.raw.y, [0.5]);
});

test("the figures of the server replace the counted ones", () => {
  const reply = newReply("capped");
  addToken(reply, token(1, { k: [1] }));
  assert.equal(firedShare(reply), 1);
  finishReply(reply, { finish: "stop", mean: 0.25, reasoning_mean: 0.75, fired: 1, count: 4 });
  assert.equal(meanOf(reply), 0.25);
  assert.equal(reasoningMeanOf(reply), 0.75);
  assert.equal(firedShare(reply), 0.25);
});

test("a summary without samples and markdown keeps the earlier ones", () => {
  const reply = newReply("capped");
  const samples = [{ mean: 1, text: "other" }];
  finishReply(reply, { finish: "stop", samples, html: "<p>x</p>" });
  finishReply(reply, { finish: "stop" });
  assert.equal(reply.samples, samples);
  assert.equal(reply.html, "<p>x</p>");
});

test("there is no share of fired tokens without tokens", () => {
  const reply = newReply("capped");
  assert.equal(firedShare(reply), null);
  assert.equal(reasoningFiredShare(reply), null);
  addToken(reply, token(1, { r: 1, k: [1] }));
  addToken(reply, token(1, { r: 1 }));
  assert.equal(reasoningFiredShare(reply), 0.5);
  assert.equal(firedShare(reply), null);
});

test("a new turn is live until all of its branches have finished", () => {
  const turn = newTurn("hello", ["uncapped", "capped"]);
  assert.equal(turn.replies.steered.absent, true);
  assert.equal(turnIsLive(turn), true);
  finishReply(turn.replies.uncapped, { finish: "stop" });
  assert.equal(turnIsLive(turn), true);
  finishReply(turn.replies.capped, { finish: "cancelled" });
  assert.equal(turnIsLive(turn), false);
});

test("a whole turn equals the same turn token by token", () => {
  const tokens = () => [
    token(0.9, { r: 1 }),
    token(null, { s: 1 }),
    token(0.1, { b: -0.4, k: [0.2, 0.3] }),
    token(1.3),
  ];
  /** @type {import("../src/types").ReplySummary} */
  const summary = {
    finish: "stop",
    mean: 0.7,
    fired: 1,
    count: 2,
    limit: 9,
    user_mean: 0.4,
    place: [1, 2, 3],
  };
  const whole = turnFromData({ user: "hello", branches: { capped: { ...summary, tokens: tokens() } } });
  const turn = newTurn("hello", ["capped"]);
  for (const one of tokens()) addToken(turn.replies.capped, one);
  turn.replies.capped.userMean = 0.4;
  finishReply(turn.replies.capped, summary);
  assert.deepEqual(whole, turn);
});

test("a turn that has ended has no live reply, and one that goes on has", () => {
  const branches = { uncapped: { tokens: [token(1)] } };
  assert.equal(turnFromData({ user: "", branches }).replies.uncapped.finish, "stop");
  assert.equal(turnIsLive(turnFromData({ user: "", branches, live: true })), true);
});

test("a turn without branches is absent in all of them", () => {
  const turn = turnFromData({ user: "hello" });
  assert.ok(BRANCHES.every((branch) => turn.replies[branch].absent));
});

test("the lines beside the projection are means of the last tokens of the answer", () => {
  const settings = /** @type {import("../src/types").TurnSettings} */ ({
    along: ["honest", "warm"],
    second: "warm",
  });
  const { capped } = newTurn("", ["capped"], { settings }).replies;
  addToken(capped, { t: "think", a: 1, q: 9, g: [9, 9], r: 1 });
  for (const [n, value] of [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].entries())
    addToken(capped, { t: `${n}`, a: 1, q: value, g: [0, 2 * value] });
  assert.equal(capped.series.plain.y.length, 10, "the reasoning has none");
  assert.equal(capped.series.plain.y[1], 1.5);
  assert.equal(capped.series.plain.y.at(-1), 6.5, "the mean of the last eight");
  assert.equal(capped.series.second.y.at(-1), 13);
  assert.equal(capped.visibleTokens.at(-1)?.second, 20);
});

test("without a second direction nothing is drawn of those that are read along", () => {
  const settings = /** @type {import("../src/types").TurnSettings} */ ({ along: ["honest"] });
  const { uncapped } = newTurn("", ["uncapped"], { settings }).replies;
  addToken(uncapped, { t: "a", a: 1, g: [3] });
  assert.deepEqual(uncapped.series.second.y, []);
  assert.equal(uncapped.visibleTokens[0]?.second, null);
});

test("a second cap alone counts as acting", () => {
  const { capped } = newTurn("", ["capped"]).replies;
  addToken(capped, { t: "a", a: 1, z: 0.2 });
  addToken(capped, { t: "b", a: 1 });
  assert.deepEqual([capped.answer.fired, capped.answer.count], [1, 2]);
});

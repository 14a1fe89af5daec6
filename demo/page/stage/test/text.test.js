import assert from "node:assert/strict";
import test from "node:test";

import { spokenName } from "../src/dom.js";
import { describeBeginning, describeCapping, finishLabel, summarise, trendOf } from "../src/summary.js";
import {
  choices,
  counted,
  describeToken,
  describeZones,
  effectOnChoice,
  escapeHtml,
  number,
  percent,
  projections,
  shownToken,
  tokenLabel,
  zoneOf,
} from "../src/text.js";
import { addToken, finishReply, newReply, newTurn } from "../src/turns.js";
import { finishedTurn, token, ZONE_TABLE, ZONES } from "./helpers.js";

test("a count has its noun in the singular or the plural", () => {
  assert.equal(counted(1, "token"), "1 token");
  assert.equal(counted(0, "token"), "0 tokens");
  assert.equal(counted(2, "reply is", "replies are"), "2 replies are");
});

test("numbers have two decimals and a true minus sign, and zero has no sign", () => {
  assert.equal(number(1.005), "1.00");
  assert.equal(number(-0.5), "\u22120.50");
  assert.equal(number(-0.001), "0.00");
  assert.equal(number(null), "–");
});

test("a mean is described by the zones of its axis, as the server describes it", () => {
  // tests/unit/test_zones.py holds the server to the same table.
  for (const [zones, mean, name] of ZONE_TABLE.cases) assert.equal(zoneOf(mean, ZONE_TABLE[zones]), name);
});

test("without zones nothing is called anything", () => {
  for (const mean of [-1, 0.5, 2]) assert.equal(zoneOf(mean, null), "");
  assert.match(describeZones("uncapped", undefined), /was not measured for this axis\.$/);
  assert.equal(summarise([finishedTurn(-1, 2)], 0, false, null).sentence, "");
});

test("of a reply that was capped or steered it is said what moved its mean", () => {
  assert.equal(describeZones("uncapped", ZONES), "As measured.");
  assert.match(describeZones("capped", ZONES), /^As measured\. .* here the cap may have moved the mean\.$/);
  assert.match(describeZones("steered", ZONES), / here steering may have moved the mean\.$/);
});

test("token labels show white space, cut long texts and contain no markup", () => {
  assert.equal(tokenLabel(" a\n\t<b>&"), "“\u00a0a\\n\\t&lt;b&gt;&amp;”");
  assert.equal(tokenLabel("x".repeat(41)), `“${"x".repeat(40)}…”`);
  assert.equal(escapeHtml("<i>"), "&lt;i&gt;");
});

test("a projection that was sent once holds before and after the cap", () => {
  assert.deepEqual(projections({ t: "", a: 1 }), { before: 1, after: 1 });
  assert.deepEqual(projections({ t: "", a: 1, b: 0 }), { before: 0, after: 1 });
  assert.deepEqual(projections({ t: "", a: null }), { before: null, after: null });
});

test("a token is described by what the cap did", () => {
  assert.equal(describeToken("capped", { t: "" }), "projection not recorded");
  assert.equal(describeToken("uncapped", { t: "", a: 1, c: 2 }), "projection 1.00 (axis units)");
  assert.match(describeToken("capped", { t: "", a: 1, c: 0 }), /the cap did not act$/);
  assert.match(describeToken("capped", { t: "", a: 1, b: 0, c: 2 }), /^the cap acted here: .* 0\.00 → 1\.00/);
  assert.match(
    describeToken("capped", { t: "", a: 1, c: 2 }),
    /^the cap acted at other layers \(sum 2\.00\)/,
  );
});

test("capping is described for answer and reasoning", () => {
  const reply = newReply("capped");
  assert.equal(describeCapping(reply, false), "");
  addToken(reply, token(1, { r: 1 }));
  assert.equal(describeCapping(reply, false), "cap did not act on this reply");
  addToken(reply, token(1, { r: 1, k: [1] }));
  assert.equal(describeCapping(reply, false), "cap acted on 50% of the reasoning’s tokens");
  for (let n = 0; n < 4; n += 1) addToken(reply, token(1, n ? {} : { k: [1] }));
  assert.equal(describeCapping(reply, false), "cap acted on 25% of the answer, 50% of the reasoning");
  assert.equal(describeCapping(reply, true), "cap: 25% of answer, 50% of reasoning");
});

test("capping of a reply without reasoning names the reply, and a small share is not called 0%", () => {
  const reply = newReply("capped");
  finishReply(reply, { finish: "stop", fired: 1, count: 1000 });
  assert.equal(describeCapping(reply, true), "cap acted on under 1% of its tokens");
  finishReply(reply, { finish: "stop", fired: 0, count: 1000 });
  assert.equal(describeCapping(reply, true), "cap did not act on this reply");
});

test("a cap that acts only on some replies says where this one begins, and whether it acts", () => {
  const reply = newReply("capped");
  assert.equal(describeBeginning(reply, -0.06), "", "where it begins is not known");
  finishReply(reply, { finish: "stop", start: 0.42, fired: 0, count: 10 });
  assert.equal(describeBeginning(reply, null), "", "the cap acts on every reply");
  assert.equal(describeCapping(reply, true), "cap did not act on this reply");
  assert.equal(describeBeginning(reply, -0.06), "Begins at 0.42, not below −0.06: the cap leaves it alone.");
  assert.equal(describeCapping(reply, true, -0.06), "cap leaves this reply alone");
  finishReply(reply, { finish: "stop", start: -0.31, fired: 1, count: 10 });
  assert.equal(describeBeginning(reply, -0.06), "Begins at −0.31, below −0.06.");
  assert.equal(describeCapping(reply, true, -0.06), "cap acted on 10% of its tokens");
});

test("a reply that begins near the threshold gets more decimals, and what the cap did decides at the border", () => {
  const reply = newReply("capped");
  finishReply(reply, { finish: "stop", start: 0.3781 });
  assert.equal(describeBeginning(reply, 0.3783), "Begins at 0.3781, below 0.3783.");
  assert.match(describeBeginning(reply, 0.3781), /not below 0\.3781: the cap leaves it alone/);
  addToken(reply, token(1, { k: [1] }));
  assert.equal(describeBeginning(reply, 0.3781), "Begins at 0.3781, below 0.3781.");
});

test("the end of a reply has a label, except where it is the usual one", () => {
  const reply = newReply("capped");
  assert.equal(finishLabel(reply), null);
  finishReply(reply, { finish: "stop" });
  assert.equal(finishLabel(reply), null);
  finishReply(reply, { finish: "cancelled" });
  assert.equal(finishLabel(reply), "Stopped");
  finishReply(reply, { finish: "failed", fault: "out of memory" });
  assert.equal(finishLabel(reply), "out of memory");
  finishReply(reply, { finish: "length", limit: 64 });
  assert.equal(finishLabel(reply), "Reached the token limit (64)");
});

test("a limit that was reached within the reasoning says so", () => {
  const reply = newReply("capped");
  addToken(reply, token(1, { r: 1 }));
  finishReply(reply, { finish: "length" });
  assert.equal(finishLabel(reply), "Reached the token limit (1) before the answer");
});

test("a trend needs two replies and looks at the last three", () => {
  const turns = [9, 0, 0.5, 1].map((mean) => finishedTurn(mean, null));
  assert.equal(trendOf(turns, "uncapped", 0), null);
  assert.equal(trendOf(turns, "uncapped", 1)?.word, "falling");
  assert.deepEqual(trendOf(turns, "uncapped", 3), { change: 1, turns: 3, word: "rising" });
  assert.equal(trendOf(turns, "capped", 3), null);
  assert.equal(trendOf([finishedTurn(1, 1), finishedTurn(1.05, 1)], "uncapped", 1)?.word, "steady");
});

test("a turn is summarised by means, gap and sentences", () => {
  const turn = finishedTurn(-0.5, 0.9);
  finishReply(turn.replies.capped, { finish: "stop", mean: 0.9, fired: 1, count: 2 });
  const summary = summarise([turn], 0, false, ZONES);
  assert.deepEqual(
    summary.items.map(({ branch, mean }) => [branch, mean]),
    [
      ["uncapped", -0.5],
      ["capped", 0.9],
    ],
  );
  assert.equal(summary.gap?.toFixed(6), "1.400000");
  assert.equal(
    summary.sentence,
    "On the axis: uncapped role-played, capped Assistant. " +
      "The cap acted on 50% of the capped reply’s tokens.",
  );
});

test("a capped reply alone is described, and a cap that is off is named", () => {
  const turn = newTurn("", ["capped"]);
  finishReply(turn.replies.capped, { finish: "stop", mean: 2 });
  assert.equal(summarise([turn], 0, true, ZONES).sentence, "On the axis: capped Assistant. The cap is off.");
  assert.deepEqual(summarise([turn], null, true, ZONES), {
    items: [],
    gap: null,
    share: null,
    along: [],
    sentence: "",
  });
});

test("the sentence of a turn says where the two answers part", () => {
  const sentence = (/** @type {string} */ left, /** @type {string} */ right) => {
    const turn = newTurn("", ["uncapped", "capped"]);
    for (const [branch, text] of /** @type {const} */ ([
      ["uncapped", left],
      ["capped", right],
    ])) {
      addToken(turn.replies[branch], { t: "thinking", a: 1, r: 1 });
      for (const word of text.split(/(?= )/)) addToken(turn.replies[branch], { t: word, a: 1 });
    }
    assert.doesNotMatch(summarise([turn], 0, false, ZONES).sentence, /word/, "the replies are being written");
    for (const reply of Object.values(turn.replies))
      if (!reply.absent) finishReply(reply, { finish: "stop" });
    return summarise([turn], 0, false, ZONES).sentence;
  };
  assert.match(
    sentence("A b c", "A b c"),
    /^Both replies are the same, word for word\. On the axis both read as/,
  );
  assert.match(sentence("A b c", "A b d"), /^The replies share their first 2 words and then differ\./);
  assert.match(sentence("A b", "A c"), /^The replies share their first word and then differ\./);
  assert.match(sentence("A b", "A b c"), /^The replies share their first 2 words and then differ\./);
  assert.match(sentence("A b c", "A b"), /^The replies share their first 2 words and then differ\./);
  assert.match(sentence("A b.", "A b!"), /^The replies share their first 2 words and then differ\./);
  assert.match(sentence("B", "A"), /^The replies differ from the first word on\./);
  assert.match(sentence("A b", "A  b "), /^Both replies are the same, word for word\./);
  assert.match(
    sentence("\u4f60\u597d\uff0c\u4e16\u754c", "\u4f60\u597d\uff0c\u670b\u53cb"),
    /^The replies share their first (word|\d+ words) and then/,
  );
  assert.match(sentence("", "A"), /^On the axis/, "there is nothing to compare");
});

test("words that were read and not generated are not compared", () => {
  const turn = finishedTurn(1, 1);
  turn.settings = /** @type {import("../src/types").TurnSettings} */ ({ read: true });
  assert.match(
    summarise([turn], 0, false, ZONES).sentence,
    /^Both panes show the same words, which were read/,
  );
});

test("probabilities have a decimal where they are small", () => {
  assert.equal(percent(0.5), "50%");
  assert.equal(percent(0.055), "5.5%");
  assert.equal(percent(0.0005), "under 0.1%");
});

test("what a screen reader says of a button contains the words that are seen", () => {
  assert.equal(spokenName("again", "Answer this message again"), "Answer this message again");
  assert.equal(spokenName("edit", "Change the system prompt"), "edit: Change the system prompt");
  assert.equal(spokenName("×", "Dismiss this notice"), "Dismiss this notice");
});

test("the likeliest tokens with the cap and without it stand beside each other", () => {
  /** @type {import("../src/types").Token} */
  const token = {
    t: " I",
    p: 0.6,
    l: [
      [1, " I", 0.6],
      [2, " The", 0.2],
    ],
    o: [
      [3, " Fear", 0.7],
      [1, " I", 0.12],
    ],
  };
  assert.deepEqual(choices(token), [
    { id: 3, text: " Fear", own: undefined, plain: 0.7 },
    { id: 1, text: " I", own: 0.6, plain: 0.12 },
    { id: 2, text: " The", own: 0.2, plain: undefined },
  ]);
  assert.equal(
    effectOnChoice(token),
    'This token: 12% without the cap, 60% with it. Without it, " Fear" is likeliest.',
  );
  assert.equal(
    effectOnChoice({ ...token, t: " The", p: 0.2 }),
    'This token: 20% with the cap, not among the likeliest without it. Without it, " Fear" is likeliest.',
  );
  assert.equal(
    effectOnChoice({ ...token, o: [[1, " I", 0.5]] }),
    "This token: 50% without the cap, 60% with it.",
  );
  assert.equal(
    effectOnChoice({ t: "a", p: 0.5, l: [[1, "a", 0.5]] }),
    null,
    "there is no reading without the cap",
  );
  assert.equal(effectOnChoice({ ...token, t: "" }), null, "a part of a character");
  const many = Array.from(
    { length: 8 },
    (_, n) => /** @type {[number, string, number]} */ ([n, `${n}`, 0.1]),
  );
  assert.equal(choices({ t: "0", l: many, o: many.map(([n, t, p]) => [n + 20, t, p]) }).length, 8);
});

test("white space and the end of a reply are seen among the alternatives", () => {
  assert.equal(shownToken(" I"), " I");
  assert.equal(shownToken("\n\n"), '"\\n\\n"');
  assert.equal(shownToken(""), "end of the reply");
});

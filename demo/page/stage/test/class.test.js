// The pages of a class: what they make of the server's messages, without DOM.

/** @import { Pair, Row, TurnView } from "../classroom/types" */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  boxesOf,
  fillBoard,
  linesOf,
  meanLift,
  mediansOf,
  percent,
  shareOutside,
  tracesOf,
} from "../classroom/board_data.js";
import { rangeOf, trailing } from "../classroom/line.js";
import {
  answerOf,
  draftOf,
  isToGuess,
  keptTurns,
  meansOf,
  nameOf,
  tokensOf,
} from "../classroom/turn_data.js";
import { eventsIn } from "../classroom/wire.js";
import { frame, token } from "./helpers.js";

/** @type {TurnView} */
const BLIND = {
  user: "Hi",
  asks: true,
  ended: true,
  revealed: false,
  shown: "",
  guess: "",
  panes: { a: { tokens: [{ t: "Arr" }, { t: "", s: 1 }] }, b: { tokens: [{ t: "Hello" }] } },
};
/** @type {TurnView} */
const OPEN = {
  ...BLIND,
  revealed: true,
  guess: "b",
  verdict: "right",
  same: false,
  panes: { a: { branch: "uncapped", mean: -0.5 }, b: { branch: "capped", mean: 0.7, zone: "Assistant" } },
  data: { user: "Hi", branches: { uncapped: { tokens: [token(-0.5)] }, capped: { tokens: [token(0.7)] } } },
};

/**
 * @param {number | null} uncapped
 * @param {number | null} capped
 * @param {Partial<Pair>} [more]
 * @returns {Pair}
 */
const pair = (uncapped, capped, more = {}) => ({
  uncapped,
  capped,
  uncapped_zone: null,
  capped_zone: null,
  acted: 0,
  same: false,
  guess: null,
  lift: uncapped === null || capped === null ? null : capped - uncapped,
  ...more,
});
/** @type {Row[]} */
const ROWS = [
  { student: 1, chat: 1, owner: "", pairs: [pair(-1, 0.5), pair(-2, 1)] },
  { student: 2, chat: 1, owner: "", pairs: [pair(0, 1)] },
  { student: 3, chat: 1, owner: "", pairs: [pair(1, null)] },
];

test("messages of a stream that comes in pieces are found once they are whole", () => {
  const text = 'data: {"type":"a"}\n\n: still here\n\ndata: {"type":"b","text":"x\\n\\ny"}\n\nda';
  let rest = "";
  const found = [];
  for (const letter of text) {
    const { messages, rest: left } = eventsIn(rest + letter);
    found.push(...messages);
    rest = left;
  }
  assert.deepEqual(found, [{ type: "a" }, { type: "b", text: "x\n\ny" }]);
  assert.equal(rest, "da");
});

test("before the answer a pane has a letter and words, and after it a name and numbers", () => {
  assert.deepEqual([nameOf(BLIND, "a"), nameOf(OPEN, "a")], ["A", "Uncapped"]);
  assert.deepEqual(
    tokensOf(BLIND, "a").map(({ t }) => t),
    ["Arr"],
  );
  assert.equal(tokensOf(OPEN, "b")[0]?.a, 0.7);
  assert.deepEqual([isToGuess(BLIND), isToGuess(OPEN)], [true, false]);
  assert.deepEqual(meansOf([BLIND, OPEN, undefined], "capped"), [null, 0.7, null]);
});

test("the answer says which reply was capped, and nothing where both are the same", () => {
  assert.equal(answerOf(BLIND), "");
  assert.equal(answerOf(OPEN), "Right: B was the capped reply.");
  assert.equal(answerOf({ ...OPEN, verdict: "wrong" }), "Not this time: B was the capped reply.");
  assert.equal(answerOf({ ...OPEN, verdict: null }), "B was the capped reply.");
  assert.match(answerOf({ ...OPEN, verdict: null, same: true }), /the same/);
  assert.equal(answerOf({ ...OPEN, asks: false, verdict: null }), "");
});

test("a tab keeps the turns up to the first without an answer, and the message of that one", () => {
  assert.deepEqual(
    keptTurns([OPEN, BLIND, OPEN]).map(({ verdict }) => verdict),
    ["right"],
  );
  assert.deepEqual([draftOf([OPEN, BLIND]), draftOf([OPEN])], ["Hi", ""]);
});

test("the line of a reply is the mean of its last eight tokens", () => {
  const tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9].map((value) => token(value));
  tokens.splice(3, 0, token(99, { s: 1 }), token(null), token(99, { r: 1 }));
  assert.deepEqual(trailing(tokens), [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5.5]);
  assert.deepEqual(rangeOf([0, null]), [-0.75, 1.5]);
  assert.deepEqual(rangeOf([-3, 9]), [-3, 9]);
});

test("the board has a line for each conversation, and the median of each turn", () => {
  const { x, y, names } = linesOf(ROWS, "uncapped");
  assert.deepEqual(x, [1, 2, null, 1, null, 1, null]);
  assert.deepEqual(y, [-1, -2, null, 0, null, 1, null]);
  assert.deepEqual(names.slice(0, 3), ["student 1", "student 1", null]);
  assert.deepEqual(mediansOf(ROWS, "uncapped"), { x: [1, 2], y: [0, -2] });
  assert.deepEqual(mediansOf(ROWS, "capped"), { x: [1, 2], y: [0.75, 1] });
  assert.deepEqual(boxesOf(ROWS, "capped").y, [0.5, 1, 1]);
});

test("shares and lifts leave out what was not measured", () => {
  const pairs = [
    pair(0, 1, { uncapped_zone: "role-played" }),
    pair(0, 2, { uncapped_zone: "Assistant" }),
    pair(0, null, { uncapped_zone: "unclear" }),
    pair(0, null),
  ];
  assert.equal(percent(shareOutside(pairs, "uncapped")), "67%");
  assert.equal(percent(shareOutside(pairs, "capped")), "–");
  assert.deepEqual([meanLift(pairs), meanLift([])], [1.5, null]);
});

test("the traces of both charts are filled, and the frame holds every turn", () => {
  for (const kind of /** @type {const} */ (["lines", "boxes"])) {
    const data = tracesOf(kind, frame());
    fillBoard(data, ROWS);
    assert.ok(data.every(({ x, y, meta }) => !meta.branch || (x.length > 0 && x.length === y.length)));
    assert.deepEqual(data.at(-1)?.x, [0.6, 4.4]);
  }
});

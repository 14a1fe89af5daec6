// The pages of a class: what they make of the server's messages, without DOM.

/** @import { BoardMessage, Lesson, Pair, Row, StoredStudent, TurnView } from "../classroom/types" */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import {
  boxesOf,
  fillBoard,
  linesOf,
  meanLift,
  mediansOf,
  shareOutside,
  tilesOf,
  tracesOf,
  wholePercent,
  withCap,
} from "../classroom/board_data.js";
import { capSentence, emptyLines, standingOf } from "../classroom/class_words.js";
import { rangeOf, trailing } from "../classroom/line.js";
import { givenBack, tidy } from "../classroom/membership.js";
import { makeSuggestions } from "../classroom/message_box.js";
import {
  answerOf,
  draftOf,
  isToGuess,
  keptTurns,
  meansOf,
  nameOf,
  tokensOf,
} from "../classroom/turn_data.js";
import { eventsIn, newId, RefusedError } from "../classroom/wire.js";
import { nameAxis } from "../src/text.js";
import { frame, token } from "./helpers.js";

/** @type {TurnView} */
const BLIND = {
  user: "Hi",
  asks: true,
  ended: true,
  revealed: false,
  shown: "",
  panes: { a: { tokens: [{ t: "Arr" }, { t: "", s: 1 }] }, b: { tokens: [{ t: "Hello" }] } },
};
/** @type {TurnView} */
const OPEN = {
  ...BLIND,
  revealed: true,
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
  cap: true,
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

test("the answer names what stood at A and B, and the branches alone where that is not known", () => {
  const where = "B was capped, A was not.";
  assert.equal(answerOf(BLIND), "");
  assert.equal(answerOf(OPEN), `Right: ${where}`);
  assert.equal(answerOf({ ...OPEN, verdict: "wrong" }), `Not this time: ${where}`);
  assert.equal(answerOf({ ...OPEN, verdict: null }), where);
  const again = { ...OPEN, asks: false };
  assert.equal(answerOf(again), "Right: you found the capped reply.");
  assert.match(answerOf({ ...again, verdict: "wrong" }), /took the uncapped reply/);
  assert.equal(answerOf({ ...again, verdict: null }), "");
});

test("replies that are the same leave nothing to guess only where a guess was asked for", () => {
  const same = { ...OPEN, verdict: null, same: true };
  assert.match(answerOf(same), /the same, so there was nothing to guess/);
  assert.doesNotMatch(answerOf({ ...same, asks: false }), /guess/);
  const settings = /** @type {import("../src/types").TurnSettings} */ ({ cap: null });
  const off = { ...same, data: { user: "Hi", branches: {}, settings } };
  assert.equal(answerOf(off), "Both replies are the same: the cap was off.");
});

test("a tab keeps the turns up to the first without an answer, and the message of that one", () => {
  assert.deepEqual(
    keptTurns([OPEN, BLIND, OPEN]).map(({ verdict }) => verdict),
    ["right"],
  );
  assert.deepEqual([draftOf([OPEN, BLIND]), draftOf([OPEN])], ["Hi", ""]);
});

test("a tab gives back guesses, scenarios and what was the speaker’s, one for each turn", () => {
  const taken = { ...OPEN, verdict: null, taken: true, scenario: "pirate-tale" };
  const known = /** @type {StoredStudent} */ ({ head: { model: "m" }, turns: keptTurns([taken, OPEN]) });
  const { session, ...rest } = givenBack(known);
  assert.deepEqual([session?.model, session?.turns.length], ["m", 2]);
  assert.deepEqual(rest, {
    guesses: ["", "right"],
    scenarios: ["pirate-tale", ""],
    taken: [true, false],
  });
  assert.deepEqual([givenBack(null), givenBack({ ...known, turns: [] })], [{}, {}]);
});

test("a code is the same in lower case and with a space", () => {
  assert.equal(tidy(" ab 3de\n"), "AB3DE");
});

test("a line of the script is offered once, and never over the student’s own words", () => {
  const box = makeSuggestions();
  assert.equal(box.next("chat 0", "one", ""), "one");
  assert.equal(box.next("chat 0", "one", ""), null); // deleted, or just sent
  assert.deepEqual([box.isOwn("one"), box.isOwn("mine"), box.isOwn("")], [false, true, false]);
  assert.equal(box.next("chat 1", "two", "one"), "two");
  assert.equal(box.next("chat 2", "three", "mine"), null);
  assert.equal(box.next("chat 2", "three", ""), null);
  assert.equal(box.next("chat 2", "", "two"), ""); // the speaker has set another lesson
});

test("each message has a name of its own", () => {
  assert.match(newId(), /^[0-9a-f]{32}$/);
  assert.notEqual(newId(), newId());
});

test("only the server of the class says that a tab is unknown to it; a proxy’s answer says nothing", () => {
  const unknown = [401, 404, 410, 400, 429, 502].map((status) => new RefusedError("", status).unknown);
  assert.deepEqual(unknown, [true, true, true, false, false, false]);
  assert.equal(new RefusedError("", 410).removed, true);
});

test("a student reads what keeps them waiting", () => {
  const state = { place: 0, paused: false, writing: false, ahead: 0 };
  assert.equal(standingOf(state), "");
  assert.match(standingOf({ ...state, place: 1 }), /You are next in line\./);
  assert.match(standingOf({ ...state, place: 3 }), /You are number 3 in line/);
  assert.match(standingOf({ ...state, writing: true, ahead: 1 }), /1 conversation is ahead/);
  assert.match(standingOf({ ...state, paused: true }), /paused/);
});

test("what capping is, is said in the words of the axis, and a guess only where there is one", () => {
  const lesson = /** @type {Lesson} */ ({ cap: true, guess: true });
  assert.match(emptyLines(lesson).join(" "), /guess which\. Capped: .* near the Assistant/);
  assert.doesNotMatch(emptyLines({ ...lesson, guess: false }).join(" "), /guess/);
  assert.match(emptyLines({ ...lesson, cap: false }).join(" "), /cap is off/);
  const settings = (/** @type {object | null} */ cap) =>
    /** @type {import("../src/types").TurnSettings} */ ({ cap });
  assert.match(capSentence(settings({})), /: the reply is held near the Assistant wherever .* the floor/);
  assert.match(capSentence(settings({ only_below: 0.4 })), /a reply that begins below 0\.40 is held/);
  assert.equal(capSentence(settings(null)), "The cap was off.");
  assert.match(capSentence(undefined), /Assistant/);
  nameAxis(false);
  assert.doesNotMatch(capSentence(undefined), /Assistant/);
  nameAxis(true);
});

test("the pages of a class have the colours of the stage", () => {
  const read = (/** @type {string} */ name) => readFileSync(new URL(`../${name}`, import.meta.url), "utf-8");
  const colours = (/** @type {string} */ text, /** @type {RegExp} */ rule) =>
    Object.fromEntries(
      [...text.matchAll(rule)].flatMap(([, body = ""]) =>
        [...body.matchAll(/(--stage-[\w-]+): ([^;]+);/g)].map(([, name, value]) => [name, value]),
      ),
    );
  const sheets = ["stage.css", "summary_bar.css", "map.css"].map(read).join("\n");
  for (const [own, theirs] of /** @type {const} */ ([
    [/\nbody \{([^}]*)\}/g, /(?:^|\n)#stage \{([^}]*)\}/g],
    [/\nbody\.dark \{([^}]*)\}/g, /\n\.dark #stage \{([^}]*)\}/g],
  ])) {
    const stage = colours(sheets, theirs);
    const shared = Object.entries(colours(read("classroom/class.css"), own)).filter(
      ([name]) => name in stage,
    );
    assert.ok(shared.length > 10);
    for (const [name, value] of shared) assert.equal(value, stage[name], name);
  }
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
  assert.equal(wholePercent(shareOutside(pairs, "uncapped")), "67%");
  assert.equal(wholePercent(shareOutside(pairs, "capped")), "–");
  assert.deepEqual([meanLift(pairs), meanLift([])], [1.5, null]);
});

test("turns without the cap count in no number and no line, and the board says so", () => {
  const zones = { uncapped_zone: "role-played", capped_zone: "role-played" };
  const off = pair(-9, -9, { ...zones, cap: false });
  const on = pair(0, 1, { uncapped_zone: "Assistant", capped_zone: "own" });
  const row = { student: 1, chat: 1, owner: "", pairs: [on, off] };
  assert.deepEqual(withCap(row.pairs), [on]);
  assert.deepEqual([meanLift(row.pairs), shareOutside(row.pairs, "uncapped")], [1, 0]);
  assert.deepEqual(linesOf([row], "capped").y, [1, null, null]);
  assert.deepEqual(mediansOf([row], "capped").y, [1, null]);
  assert.deepEqual(boxesOf([row], "uncapped").y, [0]);
  const board = /** @type {BoardMessage} */ ({
    rows: [row],
    students: [{ number: 1, present: true, seated: true, writing: false }],
    room: 30,
    guesses: { right: 1, all: 2 },
  });
  const tiles = tilesOf(board);
  assert.deepEqual([tiles.turns, tiles.lift, tiles.students], ["2", "+1.00", "1 of 30"]);
  assert.match(tiles["left-out"] ?? "", /^1 without the cap/);
  assert.match(tiles["guess-share"] ?? "", /^50%/);
  assert.equal(tilesOf({ ...board, rows: [] })["left-out"], "");
});

test("the traces of both charts are filled, and the frame holds every turn", () => {
  for (const kind of /** @type {const} */ (["lines", "boxes"])) {
    const data = tracesOf(kind, frame());
    fillBoard(data, ROWS);
    assert.ok(data.every(({ x, y, meta }) => !meta.branch || (x.length > 0 && x.length === y.length)));
    assert.deepEqual(data.at(-1)?.x, [0.6, 4.4]);
  }
});

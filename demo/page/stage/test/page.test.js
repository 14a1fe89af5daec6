// Replay, keyboard, storage and requests, as far as they need no page.

import assert from "node:assert/strict";
import test from "node:test";

import { shortcutOf } from "../src/keyboard.js";
import { makePersistence } from "../src/persistence.js";
import { handlerOf, makeRequests } from "../src/protocol.js";
import {
  Playback,
  REPLAY_BACK_MS,
  REPLAY_PAUSE_MS,
  REPLAY_STEP_MS,
  REPLAY_WAIT_MS,
  timeline,
  turnName,
} from "../src/replay.js";
import { PROTOCOL } from "./helpers.js";

/** @typedef {import("../src/types").TurnData} TurnData */

/** @type {TurnData} */
const TIMED = {
  user: "hello",
  branches: {
    uncapped: {
      tokens: [
        { t: "a", m: 0 },
        { t: "b", m: 300 },
      ],
    },
    capped: { tokens: [{ t: "c", m: 100 }] },
  },
};

/** @param {TurnData[]} turns */
function recorded(turns) {
  /** @type {string[]} */
  const log = [];
  const playback = new Playback(turns, {
    startTurn: (turn) => log.push(`start ${turn}`),
    addToken: (_, branch, token) => log.push(`${branch} ${token.t}`),
    endTurn: (turn) => log.push(`end ${turn}`),
    goTo: (turn) => log.push(`go to ${turn}`),
  });
  return { playback, log, take: () => log.splice(0) };
}

test("tokens are replayed in the order of their times", () => {
  assert.deepEqual(
    timeline(TIMED).map(({ token }) => token.t),
    ["a", "c", "b"],
  );
});

test("without times all branches advance together", () => {
  const tokens = () => [{ t: "a" }, { t: "b" }];
  const line = timeline({
    user: "",
    branches: { uncapped: { tokens: tokens() }, capped: { tokens: tokens() } },
  });
  assert.deepEqual(
    line.map(({ at }) => at),
    [0, 0, REPLAY_STEP_MS, REPLAY_STEP_MS],
  );
  assert.deepEqual(timeline({ user: "" }), []);
});

test("a replay plays what has come due, and ends the turn once", () => {
  const { playback, take } = recorded([TIMED]);
  playback.jump(0);
  assert.equal(playback.advance(99), true);
  assert.deepEqual(take(), ["go to 0", "start 0", "uncapped a"]);
  assert.equal(playback.advance(1), true);
  assert.deepEqual(take(), ["capped c"]);
  assert.equal(playback.played, 2);
  assert.equal(playback.advance(200), false);
  assert.deepEqual(take(), ["uncapped b", "end 0"]);
  assert.equal(playback.ended, true);
});

test("the next turn starts after a pause", () => {
  const { playback, take } = recorded([TIMED, TIMED]);
  playback.jump(0);
  playback.advance(300);
  take();
  assert.equal(playback.advance(REPLAY_PAUSE_MS), true);
  assert.deepEqual(take(), []);
  assert.equal(playback.advance(1), true);
  assert.deepEqual(take(), ["start 1"]);
  assert.equal(playback.total, 6);
  assert.equal(playback.played, 3);
});

test("the wait for a turn's first token is cut, and the times between tokens stay", () => {
  const tokens = [
    { t: "a", m: 9000 },
    { t: "b", m: 9040 },
  ];
  const slow = { user: "", branches: { uncapped: { tokens }, capped: { tokens: [{ t: "c", m: 9900 }] } } };
  const times = (/** @type {TurnData} */ data) => timeline(data).map(({ at }) => at);
  assert.deepEqual(times(slow), [REPLAY_WAIT_MS, REPLAY_WAIT_MS + 40, REPLAY_WAIT_MS + 900]);
  assert.deepEqual(times(TIMED), [0, 100, 300]);
});

test("a replay goes on from any turn, and back to the beginning of its own or the one before", () => {
  const tokens = [0, 100, 9000].map((m) => ({ t: "a", m }));
  const { playback, take } = recorded(Array(3).fill({ user: "", branches: { capped: { tokens } } }));
  assert.equal(playback.previous, 2, "a recording that is shown in full");
  playback.jump(1);
  assert.deepEqual(take(), ["go to 1", "start 1"]);
  assert.equal(playback.played, 3, "the turn before counts as played");
  assert.equal(playback.previous, 0);
  playback.advance(REPLAY_BACK_MS + 1);
  assert.equal(playback.previous, 1);
  playback.jump(3);
  assert.equal(playback.turn, 1, "there is no such turn");
  playback.end();
  assert.equal(playback.previous, 2);
});

test("turns are listed by their number and the beginning of the message", () => {
  assert.equal(turnName({ user: " Hello\n there " }, 1), "turn 2: Hello there");
  assert.equal(turnName({ user: "x".repeat(99) }, 0).length, 39);
});

test("a recording starts as played, and without turns there is nothing to play", () => {
  const { playback, take } = recorded([]);
  assert.equal(playback.ended, true);
  assert.equal(playback.total, 1);
  playback.jump(0);
  assert.deepEqual(take(), []);
  assert.equal(playback.advance(1000), false);
});

const KEY = { key: "N", ctrlKey: false, metaKey: false, altKey: false };
const FREE = { typing: false, onControl: false };

test("letters are shortcuts in either case", () => {
  assert.equal(shortcutOf(KEY, FREE), "n");
  assert.equal(shortcutOf({ ...KEY, key: "Escape" }, FREE), "Escape");
});

test("keys are no shortcuts while the user types or holds a modifier", () => {
  assert.equal(shortcutOf(KEY, { ...FREE, typing: true }), null);
  assert.equal(shortcutOf({ ...KEY, ctrlKey: true }, FREE), null);
  assert.equal(shortcutOf({ ...KEY, metaKey: true }, FREE), null);
  assert.equal(shortcutOf({ ...KEY, altKey: true }, FREE), null);
});

test("the space bar operates a control that has the focus", () => {
  assert.equal(shortcutOf({ ...KEY, key: " " }, FREE), " ");
  assert.equal(shortcutOf({ ...KEY, key: " " }, { ...FREE, onControl: true }), null);
  assert.equal(shortcutOf(KEY, { ...FREE, onControl: true }), "n");
});

test("requests that need the model wait in its queue, and others do not", () => {
  /** @type {[string, unknown][]} */
  const sent = [];
  const send = makeRequests(PROTOCOL, (event, data) => sent.push([event, data]));
  assert.equal(send("regenerate", { turn: 3 }), true);
  assert.equal(send("undo"), true);
  assert.deepEqual(sent, [
    ["submit", { do: "regenerate", turn: 3 }],
    ["select", { do: "undo" }],
  ]);
});

test("a saved page sends no requests, and no page sends unknown ones", () => {
  const send = makeRequests(PROTOCOL, null);
  assert.equal(send.available, false);
  assert.equal(send("undo"), false);
  assert.throws(() => /** @type {any} */ (send)("explode"), /not in protocol.json/);
});

test("an operation without handler is an error", () => {
  const handlers = /** @type {any} */ ({ restored() {} });
  assert.equal(handlerOf(PROTOCOL, handlers, "restored"), handlers.restored);
  assert.throws(() => handlerOf(PROTOCOL, handlers, "notice"), /has no handler/);
  assert.throws(() => handlerOf(PROTOCOL, handlers, "explode"), /not in protocol.json/);
});

/** @param {number} room how many characters the storage holds */
function stored(room = Number.POSITIVE_INFINITY) {
  /** @type {Map<string, string>} */
  const values = new Map();
  /** @type {string[]} */
  const warnings = [];
  /** @type {[string, any][]} */
  const sent = [];
  const storage = {
    get: (/** @type {string} */ name) => values.get(name) ?? null,
    set(/** @type {string} */ name, /** @type {string} */ text) {
      const others = [...values].filter(([other]) => other !== name);
      if (others.reduce((sum, [, other]) => sum + other.length, text.length) > room) return false;
      values.set(name, text);
      return true;
    },
    remove: (/** @type {string} */ name) => void values.delete(name),
  };
  const sendRequest = makeRequests(PROTOCOL, (_, data) => sent.push(/** @type {any} */ ([null, data])));
  const open = () => makePersistence({ sendRequest, warn: (text) => warnings.push(text) }, storage);
  return { values, warnings, sent, open };
}

test("stored turns replace the ones from which they start", () => {
  const { values, open } = stored();
  const persistence = open();
  persistence?.persist({ id: "x", head: { title: "t" }, from: 0, turns: [1, 2, 3] });
  persistence?.persist({ id: "x", head: { title: "t" }, from: 1, turns: [4] });
  assert.deepEqual(JSON.parse(values.get("conversation:x") ?? ""), { title: "t", id: "x", turns: [1, 4] });
  persistence?.persist({ id: "x", head: {}, from: 0, turns: [] });
  assert.equal(values.has("conversation:x"), false);
});

test("stored conversations return to a page that shows no turns, with the one in use", () => {
  const { sent, open } = stored();
  const before = open();
  for (const id of ["x", "y"]) before?.persist({ id, head: {}, from: 0, turns: [id] });
  before?.updateList({ ids: ["x", "gone", "y"], current: 2 });
  before?.turnStarted("half a message");
  open()?.start(1);
  assert.deepEqual(sent, []);
  open()?.start(0);
  const request = /** @type {any} */ (sent).at(0)[1];
  assert.equal(request.do, "restore");
  assert.equal(request.conversations.length, 2);
  assert.equal(request.current, 1);
  assert.equal(request.draft, "half a message");
});

test("a message whose reply was the first of all returns without a conversation", () => {
  const { sent, warnings, open } = stored();
  open()?.turnStarted("half a message");
  const after = open();
  after?.start(0);
  const request = /** @type {any} */ (sent).at(0)[1];
  assert.deepEqual([request.conversations, request.draft], [[], "half a message"]);
  after?.restored();
  assert.match(warnings[0] ?? "", /^The reply that was being written is lost/);
});

test("a full storage keeps the conversation in use, and warns once when even that is too long", () => {
  const { values, warnings, open } = stored(120);
  const persistence = open();
  persistence?.persist({ id: "x", head: {}, from: 0, turns: ["x".repeat(50)] });
  persistence?.updateList({ ids: ["x", "y"], current: 1 });
  persistence?.persist({ id: "y", head: {}, from: 0, turns: ["y".repeat(50)] });
  assert.equal(values.has("conversation:x"), false);
  assert.equal(values.has("conversation:y"), true);
  assert.deepEqual(warnings, []);
  for (const more of [1, 2]) {
    persistence?.persist({ id: "y", head: {}, from: more, turns: ["y".repeat(200)] });
  }
  assert.equal(warnings.length, 1);
});

test("a page that was reloaded stores nothing until its conversations are back", () => {
  const { values, warnings, open } = stored();
  open()?.persist({ id: "x", head: {}, from: 0, turns: [1] });
  open()?.persist({ id: "x", head: {}, from: 0, turns: [1] });
  values.set("list", JSON.stringify({ ids: ["x"], current: 0 }));
  const after = open();
  after?.start(0);
  after?.persist({ id: "new", head: {}, from: 0, turns: [2] });
  after?.updateList({ ids: ["new"], current: 0 });
  assert.equal(values.has("conversation:new"), false);
  assert.equal(values.has("conversation:x"), true);
  after?.restored();
  assert.equal(warnings.length, 1);
  after?.persist({ id: "new", head: {}, from: 0, turns: [2] });
  assert.equal(values.has("conversation:new"), true);
});

test("there is no storage without a server to return it to", () => {
  const hooks = { sendRequest: makeRequests(PROTOCOL, null), warn() {} };
  assert.equal(makePersistence(hooks, { get: () => null, set: () => true, remove() {} }), null);
});

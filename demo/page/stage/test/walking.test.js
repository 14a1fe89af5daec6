// Where the arrow keys lead from a token.

import assert from "node:assert/strict";
import test from "node:test";

import { moved, start } from "../src/walking.js";

// Two panes; the second pane did not answer turn 1, and its turn 2 is shorter.
const COUNTS = [
  new Map([
    [0, 3],
    [1, 2],
    [2, 5],
  ]),
  new Map([
    [0, 4],
    [2, 2],
  ]),
];
const at = (/** @type {number} */ pane, /** @type {number} */ turn, /** @type {number} */ at) => ({
  pane,
  turn,
  at,
});

test("left and right go on over the turns of a pane, and stop at both ends", () => {
  assert.deepEqual(moved("ArrowRight", COUNTS, at(0, 0, 1)), at(0, 0, 2));
  assert.deepEqual(moved("ArrowRight", COUNTS, at(0, 0, 2)), at(0, 1, 0));
  assert.deepEqual(moved("ArrowLeft", COUNTS, at(0, 2, 0)), at(0, 1, 1));
  assert.deepEqual(
    moved("ArrowRight", COUNTS, at(1, 0, 3)),
    at(1, 2, 0),
    "a turn without a reply is passed over",
  );
  assert.equal(moved("ArrowLeft", COUNTS, at(0, 0, 0)), null);
  assert.equal(moved("ArrowRight", COUNTS, at(0, 2, 4)), null);
});

test("a turn without tokens is passed over", () => {
  const counts = [
    new Map([
      [0, 1],
      [1, 0],
      [2, 1],
    ]),
  ];
  assert.deepEqual(moved("ArrowRight", counts, at(0, 0, 0)), at(0, 2, 0));
});

test("up and down go to the same place in the other pane, or to the last token of a shorter reply", () => {
  assert.deepEqual(moved("ArrowDown", COUNTS, at(0, 0, 1)), at(1, 0, 1));
  assert.deepEqual(moved("ArrowDown", COUNTS, at(0, 2, 4)), at(1, 2, 1));
  assert.deepEqual(moved("ArrowUp", COUNTS, at(1, 0, 3)), at(0, 0, 2));
  assert.equal(moved("ArrowDown", COUNTS, at(0, 1, 0)), null, "the other pane has no such turn");
  assert.equal(moved("ArrowUp", COUNTS, at(0, 0, 0)), null);
});

test("Home and End go to the ends of the turn; other keys are left to the browser", () => {
  assert.deepEqual(moved("Home", COUNTS, at(0, 2, 3)), at(0, 2, 0));
  assert.deepEqual(moved("End", COUNTS, at(0, 2, 3)), at(0, 2, 4));
  assert.equal(moved("PageDown", COUNTS, at(0, 2, 3)), undefined);
});

test("without a token, only left and right begin; the keys that scroll go on scrolling", () => {
  assert.equal(start("ArrowRight", 5), 0);
  assert.equal(start("ArrowLeft", 5), 4);
  for (const key of ["ArrowUp", "ArrowDown", "Home", "End"]) assert.equal(start(key, 5), null);
});

import assert from "node:assert/strict";
import test from "node:test";

import { describeSince, pathOf, pathsTo } from "../src/path.js";
import { withoutMiddleStates } from "../src/persistence.js";
import { finishReply, newTurn } from "../src/turns.js";

/** @import { Branch, Finish } from "../src/types" */

/** @param {number} length */
const step = (length) => ({ length, along: -length / 2, share: 0.25 });

/**
 * A turn of these branches, each with a step of this length; null for none.
 * @param {number | null} length
 * @param {Branch[]} branches
 * @param {Finish | null} finish
 */
function turnWith(length, branches = ["uncapped", "capped"], finish = "stop") {
  const turn = newTurn("hello", branches);
  const stepped = length === null ? {} : { step: step(length) };
  for (const branch of branches) finishReply(turn.replies[branch], { finish, mean: 0.5, ...stepped });
  return turn;
}

test("the path is the sum of the steps, and a stopped reply is no point of it", () => {
  const turns = [turnWith(null), turnWith(1.5), turnWith(null, undefined, "cancelled"), turnWith(0.5)];
  const path = pathOf(turns, "capped");
  assert.deepEqual(
    path.map((point) => point?.length ?? null),
    [0, 1.5, null, 2],
  );
  assert.equal(path[3]?.step?.along, -0.25);
  assert.equal(describeSince(pathsTo(turns, 3)), "");
});

test("a path begins anew where a step is not known, and says so", () => {
  const turns = [turnWith(null), turnWith(null), turnWith(2)];
  assert.deepEqual(
    pathOf(turns, "uncapped").map((point) => point?.length),
    [0, 0, 2],
  );
  assert.match(
    describeSince(pathsTo(turns, 2)),
    /the uncapped path from turn 2, the capped path from turn 2/,
  );
});

test("the path of a steered branch that came late begins with the uncapped replies", () => {
  const turns = [turnWith(null), turnWith(1), turnWith(2, ["uncapped", "capped", "steered"])];
  assert.equal(pathOf(turns, "steered")[2]?.length, 3);
  assert.equal(pathOf(turns, "steered")[1]?.length, 1);
  // A message to another branch alone is no part of its history.
  const alone = [turnWith(null), turnWith(1, ["uncapped"]), turnWith(2, ["uncapped", "capped", "steered"])];
  assert.equal(pathOf(alone, "steered")[1], null);
});

test("there is no path before the second reply, nor beyond the turn that is shown", () => {
  const turns = [turnWith(null), turnWith(1), turnWith(2)];
  assert.deepEqual(pathsTo(turns, null), []);
  assert.deepEqual(pathsTo(turns, 0), []);
  assert.deepEqual(
    pathsTo(turns, 1).map(({ branch, points }) => [branch, points.length]),
    [
      ["uncapped", 2],
      ["capped", 2],
    ],
  );
});

test("the browser keeps the states of a branch's first and last two turns", () => {
  const turns = [1, 2, 3, 4, 5].map((n) => ({
    user: `${n}`,
    branches: { capped: { mean: n, state: "AA==" } },
  }));
  const kept = /** @type {any[]} */ (withoutMiddleStates(turns));
  assert.deepEqual(
    kept.map((turn) => "state" in turn.branches.capped),
    [true, false, false, true, true],
  );
  assert.deepEqual(
    kept.map((turn) => turn.branches.capped.mean),
    [1, 2, 3, 4, 5],
  );
  assert.ok(
    turns.every((turn) => turn.branches.capped.state),
    "what was given stays as it was",
  );
});

// The tree of forks: which conversation lies under which, and what is said of each.

import assert from "node:assert/strict";
import test from "node:test";

import { wasCut } from "../src/fork.js";
import { childrenOf, describePoint, lastMeans, linePoints } from "../src/tree.js";

/** @import { TreeNode } from "../src/types" */

/**
 * @param {number | null} parent
 * @param {TreeNode["means"]} [means]
 * @returns {TreeNode}
 */
const node = (parent, means = {}) => ({
  id: "i",
  title: "t",
  parent,
  point: null,
  star: false,
  note: "",
  means,
  found: true,
});

test("every conversation lies under the one that it was forked from", () => {
  const children = childrenOf([node(null), node(0), node(null), node(1), node(0)]);
  assert.deepEqual(
    [...children],
    [
      [-1, [0, 2]],
      [0, [1, 4]],
      [1, [3]],
    ],
  );
});

test("a fork says where it leaves its parent, and with which words", () => {
  assert.equal(describePoint(null), "");
  assert.equal(describePoint({ turn: 2 }), "after turn 2");
  const point = {
    turn: 1,
    branch: /** @type {const} */ ("capped"),
    token: 17,
    was: " demon",
    words: " friend",
  };
  assert.equal(describePoint(point), "turn 2, capped, token 17: “demon” → “friend”");
});

test("the last mean of each branch is told", () => {
  assert.equal(
    lastMeans(node(null, { uncapped: [0.5, -0.25], capped: [1, null] })),
    "uncapped −0.25, capped 1.00",
  );
  assert.equal(lastMeans(node(null)), "no replies yet");
});

test("a line of means has a point for each turn with a mean, within the picture", () => {
  const points = linePoints([9, null, -9], 3).map((point) => point.split(",").map(Number));
  assert.deepEqual(points, [
    [3, 0],
    [87, 26],
  ]);
  assert.deepEqual(linePoints([0.5], 1), ["3.0,13.0"]);
});

test("only a reply that was cut can go on", () => {
  assert.deepEqual(
    ["stop", "failed", "length", "sentence", "cancelled"].map((end) => wasCut(/** @type {any} */ (end))),
    [false, false, true, true, true],
  );
});

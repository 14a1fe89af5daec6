// Where a pane scrolls to.

import assert from "node:assert/strict";
import test from "node:test";

import { positionFor } from "../src/scrolling.js";

test("the last turn is shown to its end where it fits, or else from its beginning", () => {
  assert.equal(positionFor(700, 900, 300, true), 600);
  assert.equal(positionFor(100, 900, 300, true), 92);
});

test("an earlier turn is shown from its beginning", () => {
  assert.equal(positionFor(700, 900, 300, false), 692);
});

// What the colours of the tokens show.

import assert from "node:assert/strict";
import test from "node:test";

import { amountsOf, FULL, keyWords, surpriseText } from "../src/lens.js";

test("surprise is the negative binary logarithm of the probability", () => {
  assert.equal(surpriseText({ p: 0.25 }), "2.0 bits");
  assert.equal(surpriseText({ p: 1 }), "0.0 bits");
  assert.equal(surpriseText({ p: null }), null);
  assert.equal(surpriseText({}), null);
});

test("a probability that was rounded to nothing is said to be smaller, not infinite bits", () => {
  assert.equal(surpriseText({ p: 0 }), "over 14 bits");
  assert.deepEqual(amountsOf({ p: 0, c: 0 }), [["surprise", 1]]);
});

test("a token without the information gets no colour", () => {
  assert.deepEqual(amountsOf({ p: null, c: 0 }), []);
  assert.deepEqual(amountsOf({ c: FULL.lift / 2 }), [["lift", 0.5]]);
  assert.deepEqual(amountsOf({ p: 2 ** -(FULL.surprise / 2), c: 3 * FULL.lift }), [
    ["surprise", 0.5],
    ["lift", 1],
  ]);
});

test("the key says the scale in words", () => {
  assert.equal(keyWords("axis").high, "Assistant");
  assert.equal(keyWords("surprise").high, `${FULL.surprise} bits or more`);
  assert.equal(keyWords("lift").low, "nothing added");
  assert.match(keyWords("surprise").more, /1 in 64/);
});

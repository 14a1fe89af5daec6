import assert from "node:assert/strict";
import test from "node:test";

import { nextSize, TEXT_SIZES } from "../src/presenter.js";
import { placeCard } from "../src/tour.js";

const PAGE = { width: 1280, height: 720 };
const CARD = { width: 380, height: 160 };

test("text grows and shrinks in steps, and stops at both ends", () => {
  assert.equal(nextSize(1, 1), 1.15);
  assert.equal(nextSize(1, -1), 0.85);
  assert.equal(nextSize(1.3125, 1), 1.5, "the presentation mode's own size lies between two steps");
  const largest = TEXT_SIZES.at(-1) ?? 0;
  assert.equal(nextSize(largest, 1), largest);
  assert.equal(nextSize(0.1, -1), 0.85);
});

test("a card of the tour lies below its target, or above, or else over its lower end", () => {
  const wide = { left: 20, width: 1240 };
  assert.deepEqual(placeCard({ top: 100, bottom: 300, ...wide }, CARD, PAGE), { top: 310, left: 450 });
  assert.equal(placeCard({ top: 460, bottom: 700, ...wide }, CARD, PAGE).top, 290);
  assert.equal(placeCard({ top: 40, bottom: 2000, ...wide }, CARD, PAGE).top, 550);
});

test("a card of the tour stays on the page", () => {
  const phone = { width: 390, height: 844 };
  const { left } = placeCard({ top: 0, bottom: 50, left: 0, width: 60 }, { width: 370, height: 150 }, phone);
  assert.equal(left, 10);
  assert.equal(placeCard({ top: 0, bottom: 50, left: 1200, width: 60 }, CARD, PAGE).left, 890);
});

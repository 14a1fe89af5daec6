import assert from "node:assert/strict";
import test from "node:test";

import { pairsOf, wordDifference, wordsOf } from "../src/difference.js";

/** @import { DifferencePart } from "../src/types" */

/** @param {DifferencePart[]} parts */
const shown = (parts) =>
  parts.map(({ kind, text }) => ({ same: text, left: `[-${text}-]`, right: `[+${text}+]` })[kind]).join("");

/**
 * @param {DifferencePart[]} parts
 * @param {"left" | "right"} side
 */
const textOf = (parts, side) =>
  parts
    .filter(({ kind }) => kind === "same" || kind === side)
    .map(({ text }) => text)
    .join("");

/** The number of words that both texts have in the same order, by the table of all pairs. */
function longestCommon(/** @type {string[]} */ left, /** @type {string[]} */ right) {
  let row = new Array(right.length + 1).fill(0);
  for (const one of left) {
    const next = [0];
    right.forEach((other, n) => {
      next.push(one === other ? row[n] + 1 : Math.max(row[n + 1], next[n] ?? 0));
    });
    row = next;
  }
  return row[right.length];
}

/** Pseudo-random numbers below 1, the same in every run. */
function makeRandom(/** @type {number} */ seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

test("words that differ are told apart from those that are the same", () => {
  assert.equal(shown(wordDifference("The cat sat.", "The dog sat.")), "The[- cat-][+ dog+] sat.");
  assert.equal(shown(wordDifference("I will help.", "I will not help.")), "I will[+ not+] help.");
  assert.equal(shown(wordDifference("One. Two.", "One.")), "One.[- Two.-]");
});

test("equal and empty texts", () => {
  assert.deepEqual(wordDifference("", ""), []);
  assert.deepEqual(wordDifference("Yes, I can.", "Yes, I can."), [{ kind: "same", text: "Yes, I can." }]);
  assert.deepEqual(wordDifference("", "Hello"), [{ kind: "right", text: "Hello" }]);
  assert.deepEqual(wordDifference("a b", "c d"), [
    { kind: "left", text: "a b" },
    { kind: "right", text: "c d" },
  ]);
});

test("white space alone is a difference, and the words beside it are the same", () => {
  assert.deepEqual(wordDifference("one two\n", "one\n\ntwo"), [
    { kind: "same", text: "one" },
    { kind: "left", text: " " },
    { kind: "right", text: "\n\n" },
    { kind: "same", text: "two" },
    { kind: "left", text: "\n" },
  ]);
});

test("a few equal words between two other sentences are part of the difference", () => {
  const parts = wordDifference("Kneel before me, and despair forever", "Happy to help, and welcome back");
  assert.equal(shown(parts), "[-Kneel before me, and despair forever-][+Happy to help, and welcome back+]");
});

test("words of a language without spaces are compared one by one", () => {
  // "I like to drink tea" and "coffee".
  const parts = wordDifference("\u6211\u559c\u6b22\u559d\u8336", "\u6211\u559c\u6b22\u559d\u5496\u5561");
  assert.equal(parts[0]?.kind, "same");
  const scientist = "\u{1f469}\u200d\u{1f52c}";
  assert.deepEqual(
    wordsOf(`${scientist} na\u00efve`).map(({ word }) => word),
    [scientist, "na\u00efve"],
  );
});

test("both texts can be put together again, and no words are missed that both have in the same order", () => {
  const random = makeRandom(7);
  const make = () => {
    const letters = Array.from(
      { length: Math.floor(random() * 14) },
      () => "abcde"[Math.floor(random() * 5)],
    );
    return letters.map((letter) => letter + (random() < 0.2 ? "\n" : " ")).join("");
  };
  for (let round = 0; round < 500; round += 1) {
    const [left, right] = [make(), make()];
    const parts = wordDifference(left, right);
    assert.deepEqual([textOf(parts, "left"), textOf(parts, "right")], [left, right]);
    const [one, other] = [wordsOf(left), wordsOf(right)];
    const kept = [...pairsOf(one, other)].filter((match) => match >= 0);
    assert.deepEqual(
      kept,
      [...kept].sort((a, b) => a - b),
    );
    const words = (/** @type {import("../src/difference.js").Word[]} */ list) => list.map(({ word }) => word);
    assert.equal(kept.length, longestCommon(words(one), words(other)));
  }
});

test("long replies are compared at once", () => {
  const random = makeRandom(3);
  const make = () => Array.from({ length: 4000 }, () => `w${Math.floor(random() * 900)}`).join(" ");
  const [left, right] = [make(), make()];
  const parts = wordDifference(left, right);
  assert.equal(textOf(parts, "left"), left);
  assert.equal(textOf(parts, "right"), right);
});

/** @import { ComparedData, Side, TurnData, TurnSettings } from "../src/types" */

import assert from "node:assert/strict";
import test from "node:test";

import {
  branchesOf,
  comparisonMarkdown,
  overTurns,
  rowsOf,
  settingsDifferences,
  settingsNote,
  sideOf,
  textOf,
  unitsNote,
} from "../src/comparison.js";

/** @type {TurnSettings} */
const SETTINGS = {
  cap: { floor_name: "p25", floor: 0.75, layers: [18, 19, 20], floors: [1, 2, 3] },
  seed: 4,
  seeds: 1,
  temperature: 0.3,
  top_p: 0.9,
  repetition_penalty: 1.1,
  max_new_tokens: 96,
  thinking: false,
  span: "both",
  system_prompt: "You are a demon.",
  dtype: "float32",
  attempt: 1,
};

/**
 * @param {number} uncapped its mean
 * @param {number} capped its mean
 * @param {Partial<TurnSettings> | null} [changes] null: the settings are not known
 * @returns {TurnData}
 */
function turn(uncapped, capped, changes = {}) {
  const tokens = [{ t: "Hm", r: 1 }, { t: "Yes" }, { t: "." }, { t: "<end>", s: 1 }];
  return {
    user: "Hello?",
    branches: {
      uncapped: { tokens: structuredClone(tokens), finish: "stop", mean: uncapped, fired: 0, count: 2 },
      capped: { tokens: structuredClone(tokens), finish: "stop", mean: capped, fired: 1, count: 2 },
    },
    ...(changes && { settings: { ...SETTINGS, ...changes } }),
  };
}

/**
 * @param {TurnData[]} turns
 * @param {Partial<ComparedData>} [more]
 * @returns {Side}
 */
const side = (turns, more) =>
  sideOf(
    { id: "a", title: "Demon", model: "small", probe_layer: 20, same_axis: true, turns, ...more },
    "capped",
  );

test("the difference is the right mean minus the left one, where both have one in the same units", () => {
  const [left, right] = [side([turn(0, 1), turn(0, 1.5)]), side([turn(0, 0.75)])];
  const differences = (/** @type {boolean} */ sameAxis) =>
    rowsOf({ left, right, sameAxis }).map(({ difference }) => difference);
  assert.deepEqual(differences(true), [-0.25, null]);
  assert.deepEqual(differences(false), [null, null]);
});

test("a turn that one side lacks, and a branch that does not answer, are told apart", () => {
  const alone = { user: "Hi", branches: { uncapped: { finish: /** @type {const} */ ("stop"), mean: 1 } } };
  const rows = rowsOf({ left: side([turn(0, 1), alone]), right: side([turn(0, 1)]), sameAxis: true });
  assert.equal(rows[1]?.right, null);
  assert.equal(rows[1]?.left?.reply, null);
  assert.deepEqual(branchesOf(side([alone]).turns), ["uncapped"]);
});

test("a reply that is being written has no difference yet", () => {
  const live = turn(0, 1);
  delete live.branches?.capped?.finish;
  const [row] = rowsOf({ left: side([{ ...live, live: true }]), right: side([turn(0, 1)]), sameAxis: true });
  assert.equal(row?.difference, null);
});

test("answer and reasoning are separate texts, without tokens of the template", () => {
  const reply = side([turn(0, 1)]).turns[0]?.replies.capped;
  assert.ok(reply);
  assert.deepEqual([textOf(reply, false), textOf(reply, true)], ["Yes.", "Hm"]);
});

test("settings that differ are listed with their values by turn, and no others", () => {
  const left = side([turn(0, 1), turn(0, 1, { seed: 5 })]);
  const right = side([turn(0, 1, { temperature: 0.7 }), turn(0, 1, { seed: 6, attempt: 2, cap: null })], {
    model: "large",
  });
  assert.deepEqual(settingsDifferences({ left, right, sameAxis: false }), [
    { name: "Model", left: "small", right: "large" },
    {
      name: "Cap",
      left: "floor p25 (0.75), layers 18–20",
      right: "floor p25 (0.75), layers 18–20; off (turn by turn)",
    },
    { name: "Seed", left: "4; 5 (turn by turn)", right: "4; 6 (new for this attempt) (turn by turn)" },
    { name: "Temperature", left: "0.3", right: "0.7; 0.3 (turn by turn)" },
    { name: "Attempt", left: "1", right: "1; 2 (turn by turn)" },
  ]);
});

test("two branches of one conversation differ by their cap alone", () => {
  const capped = side([turn(0, 1)]);
  const comparison = {
    left: /** @type {Side} */ ({ ...capped, branch: "uncapped" }),
    right: capped,
    sameAxis: true,
  };
  assert.deepEqual(settingsDifferences(comparison), [
    { name: "Cap", left: "none", right: "floor p25 (0.75), layers 18–20" },
  ]);
  assert.equal(settingsNote(comparison), "");
  assert.equal(
    settingsNote({ left: capped, right: capped, sameAxis: true }),
    "In the turns that both sides have, their settings are the same.",
  );
});

test("settings that a file does not hold are named, and not taken for equal", () => {
  const comparison = {
    left: side([turn(0, 1), turn(0, 1)]),
    right: side([turn(0, 1), turn(0, 1, null)]),
    sameAxis: true,
  };
  assert.deepEqual(settingsDifferences(comparison), []);
  assert.match(settingsNote(comparison), /cannot be compared .* turn 2\.$/);
});

test("values by turn are put into few words", () => {
  assert.equal(overTurns([]), "");
  assert.equal(overTurns([0, 1, 2].map((n) => [n, "p25"])), "p25");
  assert.equal(overTurns([0, 1, 2].map((n) => [n, String(n)])), "0; 1; 2 (turn by turn)");
  const values = ["p25", "p25", "p75"];
  assert.equal(overTurns(values.map((value, n) => [n, value])), "p25 (turns 1–2); p75 (turn 3)");
});

test("different axes are named in one sentence", () => {
  const [left, right] = [side([turn(0, 1)]), side([turn(0, 1)], { model: "large", probe_layer: 31 })];
  assert.equal(unitsNote({ left, right, sameAxis: true }), "");
  const note = unitsNote({ left, right, sameAxis: false });
  assert.match(note, /left: small at layer 20; right: large at layer 31/);
  assert.equal(note.match(/\./g)?.length, 1);
});

test("the Markdown holds titles, settings and means, and no title breaks its tables", () => {
  const left = side([turn(0, 1), turn(0, 1.5)], { title: "A | B\n# C" });
  const right = side([turn(0, 0.75, { seed: 9 })]);
  const lines = comparisonMarkdown({ left, right, sameAxis: true }).split("\n");
  assert.ok(lines.includes("- left: A \\| B # C, capped"));
  assert.ok(lines.includes("| Seed | 4 | 9 |"));
  assert.ok(lines.includes("| 1 | 1.00 | 0.75 | −0.25 | 50% | 50% |"));
  assert.ok(lines.includes("| 2 | 1.50 | no such turn | – | 50% | – |"));
  const other = comparisonMarkdown({ left, right, sameAxis: false });
  assert.match(other, /different axes/);
  assert.match(other, /\| 1 \| 1\.00 \| 0\.75 \| – \|/);
});

/** @import { Figure, Figures, TurnMarks, TurnSettings } from "../src/types" */

import assert from "node:assert/strict";
import test from "node:test";

import { Conversation } from "../src/model.js";
import {
  capIsOff,
  describeThird,
  settingsNote,
  settingsRows,
  thresholdIn,
  withMarks,
} from "../src/turn_settings.js";
import { BRANCHES, newTurn, turnFromData } from "../src/turns.js";

/** @type {TurnSettings} */
const CAPPED = {
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
/** @type {TurnSettings} */
const OFF = { ...CAPPED, cap: null, seed: 105, attempt: 2, system_prompt: " " };

/**
 * @param {number | null} floor
 * @returns {TurnMarks}
 */
const marks = (floor) => ({
  shapes: floor === null ? [] : [{ name: "line-floor", type: "line", y0: floor, line: { width: 1 } }],
  annotations: floor === null ? [] : [{ name: "label-floor", text: "floor", y: floor }],
  meta: {
    floor,
    floor_label: floor === null ? null : "floor",
    cap_layers: floor === null ? null : [18, 20],
  },
});

/** @returns {Figures} */
function figures() {
  // Only the parts that reference lines are in.
  const figure = /** @type {Figure} */ (
    /** @type {unknown} */ ({
      data: [],
      layout: {
        ...marks(0.1),
        xaxis: { title: { text: "token" } },
        meta: { ...marks(0.1).meta, probe_layer: 20 },
      },
    })
  );
  return { token: figure, turn: structuredClone(figure) };
}

/**
 * @param {TurnSettings} settings
 * @param {import("../src/types").Branch} branch
 */
const listed = (settings, branch) => Object.fromEntries(settingsRows(settings, branch));

test("a reply lists the settings that it was made with", () => {
  const capped = listed(CAPPED, "capped");
  assert.equal(capped.Cap, "floor p25 (0.75), layers 18–20");
  assert.equal(capped.Seed, "4");
  assert.equal(capped["Number format"], "float32");
  assert.equal(capped["System prompt"], "You are a demon.");
  assert.equal(listed(CAPPED, "uncapped").Cap, undefined);
  const cap = { floor_name: "p25", floor: 0.75, layers: [18, 19], floors: [1, 2], only_below: -0.06 };
  const only = "floor p25 (0.75), layers 18–19, only replies that begin below −0.06";
  assert.equal(listed({ ...CAPPED, cap }, "capped").Cap, only);
  assert.equal(listed({ ...CAPPED, seeds: 3 }, "capped").Seed, "4, and for more answers up to 2004");
});

test("the threshold of a reply is that of its own cap", () => {
  const cap = { floor_name: "p25", floor: 0.75, layers: [18], floors: [1], only_below: 0 };
  const also = { direction: "kind", downward: false, layers: [3], floors: [0], only_below: 0.5 };
  const settings = { ...CAPPED, cap, also };
  assert.deepEqual(
    BRANCHES.map((branch) => thresholdIn(settings, branch)),
    [null, 0, null],
  );
  assert.equal(thresholdIn({ ...settings, cap: null }, "capped"), 0.5);
  assert.match(
    String(listed(settings, "capped")["Cap along a direction"]),
    /, only replies that begin below 0.50$/,
  );
  assert.deepEqual([thresholdIn(CAPPED, "capped"), thresholdIn(null, "capped")], [null, null]);
});

test("another attempt and a cap that was off are named at a glance", () => {
  assert.equal(settingsNote(CAPPED, "capped"), "");
  assert.equal(settingsNote(OFF, "capped"), "attempt 2, new seed · cap off");
  assert.equal(settingsNote(OFF, "uncapped"), "attempt 2, new seed");
  assert.equal(listed(OFF, "capped").Seed, "105 (new for this attempt)");
  assert.equal(listed(OFF, "capped")["System prompt"], "the model’s own default");
});

test("steering, thinking and the part they act on are listed where they had an effect", () => {
  /** @type {TurnSettings} */
  const settings = { ...CAPPED, steer: { layer: 7, alpha: 1.5 }, thinking: true, span: "answer" };
  assert.equal(listed(settings, "steered").Steering, "1.50 × axis at layer 7");
  assert.equal(listed(settings, "steered")["Acts on"], "answer only");
  assert.equal(listed(settings, "uncapped")["Acts on"], undefined);
  assert.equal(listed(settings, "uncapped").Thinking, "on");
});

test("replies that were only read have no seed", () => {
  const rows = listed({ ...CAPPED, read: true }, "capped");
  assert.equal(rows.Seed, undefined);
  assert.match(String(rows.Text), /not generated/);
});

test("reference lines follow the turn that is shown, not the settings of now", () => {
  const conversation = new Conversation();
  conversation.meta = { figures: figures() };
  const turn = (/** @type {TurnMarks} */ given) => newTurn("hello", ["capped"], { marks: given });
  conversation.replace([turn(marks(0.7)), turn(marks(null)), newTurn("old", ["capped"])]);
  const seen = [0, 1, 2, null].map((index) => {
    conversation.shown = index;
    const { layout } = conversation.figures?.token ?? figures().token;
    return [conversation.capIsOff, layout.meta.floor, layout.shapes.length, layout.meta.probe_layer];
  });
  assert.deepEqual(seen, [
    [false, 0.7, 1, 20],
    [true, null, 0, 20],
    [false, 0.1, 1, 20],
    [false, 0.1, 1, 20],
  ]);
  assert.deepEqual(conversation.metaOf(0).cap_layers, [18, 20]);
});

test("charts are handed other figures only when something about them has changed", () => {
  const conversation = new Conversation();
  conversation.meta = { figures: figures() };
  conversation.replace([0.7, 0.7, 0.5].map((floor) => newTurn("hello", [], { marks: marks(floor) })));
  const [first, second, third] = [0, 1, 2].map((index) => {
    conversation.shown = index;
    return conversation.figures;
  });
  assert.equal(first, second);
  assert.notEqual(second, third);
});

test("a reply that the cap leaves alone has no floor in the charts", () => {
  const conversation = new Conversation();
  conversation.meta = { figures: figures() };
  const settings = { ...CAPPED, cap: CAPPED.cap && { ...CAPPED.cap, only_below: 0.4 } };
  conversation.replace([newTurn("hello", ["uncapped", "capped"], { settings, marks: marks(0.7) })]);
  conversation.shown = 0;
  const names = () => {
    const { shapes, annotations } = conversation.figures?.turn.layout ?? { shapes: [], annotations: [] };
    return [...shapes, ...annotations].map(({ name }) => name);
  };
  const reply = conversation.reply(0, "capped");
  for (const [start, expected] of /** @type {[number | null, string[]][]} */ ([
    [null, ["line-floor", "label-floor"]],
    [0.9, []],
    [0.3, ["line-floor", "label-floor"]],
  ])) {
    if (reply) reply.start = start;
    assert.deepEqual(names(), expected);
  }
  assert.equal(conversation.capIsOff, false, "it is not off");
});

test("a cap without a floor at the probe layer is not off", () => {
  assert.equal(capIsOff({ floor: null, cap_layers: [3, 4] }), false);
  assert.equal(capIsOff({ floor: null, cap_layers: null }), true);
  assert.equal(capIsOff({}), false);
  assert.equal(withMarks(figures(), null).token.layout.meta.floor, 0.1);
});

test("a turn that the server sends keeps its settings", () => {
  const turn = turnFromData({ user: "hi", branches: {}, settings: CAPPED, marks: marks(0.7) });
  assert.deepEqual([turn.settings, turn.marks?.meta.floor], [CAPPED, 0.7]);
  assert.deepEqual(turnFromData({ user: "hi" }).settings, null);
});

test("a branch with settings of its own is described by them", () => {
  const settings = {
    ...CAPPED,
    own: {
      uncapped: { system_prompt: "Be brief.", temperature: 1.5 },
      steered: { cap: { floor_name: "p75", layers: [3, 4], floors: [0, 0] } },
    },
    steer: { layer: 3, alpha: 0 },
  };
  const rows = Object.fromEntries(settingsRows(settings, "uncapped"));
  assert.deepEqual([rows["System prompt"], rows.Temperature], ["Be brief.", "1.5"]);
  assert.equal(Object.fromEntries(settingsRows(settings, "capped"))["System prompt"], CAPPED.system_prompt);
  assert.equal(Object.fromEntries(settingsRows(settings, "steered")).Cap, "floor p75, layers 3–4");
  assert.match(settingsNote(settings, "uncapped"), /own settings/);
  assert.equal(describeThird(settings), "capped at floor p75");
  assert.equal(
    describeThird({ ...CAPPED, steer: { layer: 3, alpha: 2 } }),
    "the axis is added to every token",
  );
});

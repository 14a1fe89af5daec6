import assert from "node:assert/strict";
import test from "node:test";

import { axesOf, plottingArea, scaleOf } from "../src/axes.js";
import { colourTrace, themedLayout } from "../src/chart.js";
import {
  branchesToShow,
  colourRange,
  floorAt,
  intervened,
  layerFigure,
  layerValues,
} from "../src/layer_figure.js";
import { layerMeans, meansFigure } from "../src/layer_means.js";
import { placedBands, placedNotes, spread } from "../src/marks.js";
import { dashesOf, fitsAxes, pixelsOf } from "../src/overlay.js";
import { allSeeds } from "../src/seeds.js";
import { fillTokens, seriesOf, tokenAxisLength } from "../src/token_chart.js";
import {
  fillTurns,
  intervalPoints,
  liveSeries,
  reasoningPoints,
  replyPoints,
  spreadPoints,
  userPoints,
} from "../src/turn_chart.js";
import { addToken, finishReply, newTurn } from "../src/turns.js";
import { COLOURS, finishedTurn, frame, token, trace, ZONES } from "./helpers.js";

/** @typedef {import("../src/axes.js").Axis} Axis */

/**
 * @param {import("../src/types").Range} range
 * @param {boolean} [auto]
 * @returns {Axis}
 */
const axis = (range, auto = true) => ({
  range,
  auto,
  start: 0,
  length: 100,
  pixel: scaleOf(range, 100, false),
});

/**
 * As much of an element as axesOf reads.
 * @param {object} more
 * @returns {import("../src/plotly").PlotElement}
 */
function drawnChart(more) {
  const margin = { l: 50.4, r: 116, t: 8, b: 36 };
  const layout = { margin, xaxis: { range: [0, 50], autorange: true }, yaxis: { range: [-1, 3] } };
  const querySelector = () => ({
    getAttribute: (/** @type {string} */ name) => (name === "width" ? 600 : 300),
  });
  return /** @type {any} */ ({ querySelector, layout, ...more });
}

test("a scale runs from the left to the right, or from the bottom to the top", () => {
  assert.equal(scaleOf([0, 50], 200, false)(25), 100);
  assert.equal(scaleOf([-1, 3], 100, true)(3), 0);
  assert.equal(scaleOf([-1, 3], 100, true)(-1), 100);
  assert.equal(scaleOf([3, -1], 100, false)(-1), 100);
});

test("the plotting area lies between the rounded margins", () => {
  const area = plottingArea({ width: 600, height: 300 }, { l: 50.4, r: 115.6, t: 8, b: 36 });
  assert.deepEqual(area, { left: 50, top: 8, width: 434, height: 256 });
});

test("axes are read from the layout, and while the user drags from what is drawn", () => {
  const still = axesOf(drawnChart({}));
  assert.deepEqual(still?.x.range, [0, 50]);
  assert.equal(still?.x.auto, true);
  assert.equal(still?.y.auto, false);
  assert.equal(still?.x.pixel(50), 434);
  assert.equal(still?.y.start, 8);
  const dragged = axesOf(drawnChart({ _fullLayout: { xaxis: { range: [10, 20] } } }));
  assert.deepEqual(dragged?.x.range, [10, 20]);
  assert.deepEqual(dragged?.y.range, [-1, 3]);
});

test("there are no axes before a chart is drawn", () => {
  assert.equal(axesOf(drawnChart({ layout: undefined })), null);
  assert.equal(axesOf(drawnChart({ querySelector: () => null })), null);
});

test("a point outside an axis makes Plotly extend it, unless the user has zoomed", () => {
  const points = { x: [1, 2, 12], y: [0, null, 0] };
  const y = axis([-1, 1]);
  assert.equal(fitsAxes({ x: axis([0, 12]), y }, points, 0), true);
  assert.equal(fitsAxes({ x: axis([0, 10]), y }, points, 0), false);
  assert.equal(fitsAxes({ x: axis([0, 10]), y }, points, 3), true);
  assert.equal(fitsAxes({ x: axis([0, 10], false), y }, points, 0), true);
});

test("the overlay interrupts a line where there is no value", () => {
  const axes = { x: axis([0, 10]), y: axis([0, 1]) };
  assert.deepEqual(pixelsOf(axes, { x: [5], y: [0.5] }, 0), [50, 50]);
  assert.equal(pixelsOf(axes, { x: [5], y: [null] }, 0), null);
});

test("dashes are read in pixels, and named styles are solid", () => {
  assert.deepEqual(dashesOf("4px,3px"), [4, 3]);
  assert.deepEqual(dashesOf("solid"), []);
  assert.deepEqual(dashesOf(undefined), []);
});

test("the token axis grows in steps ahead of a reply, and is short again afterwards", () => {
  const turn = newTurn("", ["uncapped"]);
  assert.equal(tokenAxisLength(null), 48);
  for (let n = 0; n < 44; n += 1) addToken(turn.replies.uncapped, token(1));
  assert.equal(tokenAxisLength(turn), 48);
  addToken(turn.replies.uncapped, token(1));
  assert.equal(tokenAxisLength(turn), 72);
  finishReply(turn.replies.uncapped, { finish: "stop" });
  assert.equal(tokenAxisLength(turn), 48);
});

test("traces get copies of their series, and the frame the length of the axis", () => {
  const turn = newTurn("", ["uncapped", "capped"]);
  for (const value of [1, 2]) addToken(turn.replies.capped, token(value));
  const data = [trace("raw", "capped"), trace("raw", "uncapped"), frame()];
  assert.deepEqual(fillTokens(data, turn), [2, 0, 0]);
  assert.deepEqual(data[0]?.y, [1, 2]);
  assert.notEqual(data[0]?.y, turn.replies.capped.series.raw.y);
  assert.equal(data[2]?.x[1], 48);
  assert.deepEqual(fillTokens(data, null), [0, 0, 0]);
  assert.deepEqual(data[0]?.x, []);
});

test("the frame has no series, and neither has a trace while no turn is shown", () => {
  const turn = newTurn("", ["capped"]);
  assert.equal(seriesOf(turn, frame()), undefined);
  assert.equal(seriesOf(null, trace("raw", "capped")), undefined);
  assert.equal(seriesOf(turn, trace("lift", "capped")), turn.replies.capped.series.lift);
});

test("the turn chart shows finished replies, the shown one larger", () => {
  const turns = [finishedTurn(1, 2), finishedTurn(null, 3), newTurn("", ["capped"])];
  addToken(/** @type {import("../src/types").Turn} */ (turns[2]).replies.capped, token(9));
  assert.deepEqual(replyPoints(turns, "capped", 1), [
    { x: 1, y: 2, size: 9 },
    { x: 2, y: 3, size: 13 },
  ]);
  assert.deepEqual(replyPoints(turns, "uncapped", null), [{ x: 1, y: 1, size: 9 }]);
});

test("reasoning and user messages have points of their own", () => {
  const turn = finishedTurn(1, 1);
  finishReply(turn.replies.capped, { finish: "stop", reasoning_mean: 0.5 });
  turn.replies.capped.userMean = 0.25;
  assert.deepEqual(reasoningPoints([turn], "capped"), [{ x: 0.85, y: 0.5 }]);
  assert.deepEqual(reasoningPoints([turn], "uncapped"), []);
  assert.deepEqual(userPoints([turn], "capped"), [{ x: 1, y: 0.25 }]);
});

test("a line is interrupted where the branch has no reply, and starts where its first one is", () => {
  const absent = () => newTurn("", ["uncapped"]);
  const turns = [absent(), finishedTurn(1, 2), absent(), finishedTurn(1, 3), absent()];
  assert.deepEqual(
    replyPoints(turns, "capped", null).map(({ x, y }) => [x, y]),
    [
      [2, 2],
      [3, null],
      [4, 3],
    ],
  );
  assert.deepEqual(replyPoints(turns, "steered", null), []);
});

test("all seeds of a turn are joined from the lowest to the highest, the drawn reply among them", () => {
  const turns = [finishedTurn(0, 1.5), finishedTurn(0, 9), finishedTurn(1, 1)];
  const samples = [
    { mean: 2, text: "b" },
    { mean: null, text: "unmeasured" },
    { mean: 1, text: "a" },
  ];
  for (const turn of turns.slice(0, 2)) turn.replies.capped.samples = samples;
  const points = spreadPoints(turns, "capped");
  assert.deepEqual(
    points.map(({ y }) => y),
    [1, 1.5, 2, null, 1, 2, 9, null],
  );
  assert.equal(points[0]?.text, "“a”");
  assert.equal(points[1]?.text, "the reply that is shown");
  assert.ok(points.every(({ x }, n) => x === null || Math.round(x) === (n < 4 ? 1 : 2)));
});

test("the list of seeds begins with the reply in the pane", () => {
  const turn = finishedTurn(0, 1.5);
  addToken(turn.replies.capped, token(1, { t: "hm", r: 1 }));
  addToken(turn.replies.capped, token(1, { t: "Yes." }));
  turn.replies.capped.samples = [{ text: "No.", count: 8, fired: 2 }, { text: "" }];
  turn.replies.capped.finalCount = null;
  assert.deepEqual(allSeeds(turn.replies.capped), [
    { mean: 1.5, text: "Yes.", share: 0 },
    { mean: null, text: "No.", share: 0.25 },
    { mean: null, text: "", share: null },
  ]);
});

test("the mean over seeds is a bar from one end of its interval to the other, with words", () => {
  const turns = [finishedTurn(0, 1), finishedTurn(0, 1)];
  const [, second] = turns;
  if (second) second.replies.capped.seedMean = { count: 8, mean: 0.5, low: 0.25, high: 0.75 };
  assert.deepEqual(
    intervalPoints(turns, "capped").map(({ y }) => y),
    [0.25, 0.5, 0.75, null],
  );
  assert.deepEqual(intervalPoints(turns, "uncapped"), []);
  assert.equal(intervalPoints(turns, "capped")[0]?.text, "mean of 8 seeds: 0.50, 95% interval 0.25 to 0.75");
});

test("the traces of the turn chart are filled by their roles", () => {
  const turns = Array.from({ length: 6 }, () => finishedTurn(1, 2));
  const data = [trace("reply", "capped"), trace("spread", "capped"), trace("user", "capped"), frame()];
  fillTurns(data, turns, 5);
  assert.deepEqual(data[0]?.x, [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(data[0]?.marker.size, [9, 9, 9, 9, 9, 13]);
  assert.deepEqual(data[1]?.x, []);
  assert.equal(data[3]?.x[1], 6.4);
});

test("another conversation has lines of its own, and the chart is as long as the longer one", () => {
  const data = [trace("reply", "capped"), trace("compared", "capped"), frame()];
  const other = { title: "A < B", turns: Array.from({ length: 7 }, () => finishedTurn(1, 0.25)) };
  fillTurns(data, [finishedTurn(1, 2)], 0, other);
  assert.deepEqual([data[0]?.x, data[0]?.y], [[1], [2]]);
  assert.deepEqual(data[1]?.x, [1, 2, 3, 4, 5, 6, 7]);
  assert.deepEqual([data[1]?.y[6], data[1]?.customdata?.[6]], [0.25, "A &lt; B"]);
  assert.equal(data[2]?.x[1], 7.4);
  fillTurns(data, [finishedTurn(1, 2)], 0);
  assert.deepEqual([data[1]?.x, data[2]?.x[1]], [[], 4.4]);
});

test("a reply that is being written is joined to the turn before", () => {
  const turns = [finishedTurn(1, 2), newTurn("", ["uncapped", "capped"])];
  const reply = trace("reply", "capped");
  fillTurns([reply], turns, 1);
  assert.equal(liveSeries(reply, turns), null);
  addToken(/** @type {import("../src/types").Turn} */ (turns[1]).replies.capped, token(0.5));
  assert.deepEqual(liveSeries(reply, turns), { x: [1, 2], y: [2, 0.5] });
  fillTurns([reply], [newTurn("", []), ...turns], 2);
  assert.deepEqual(liveSeries(reply, turns), { x: [2], y: [0.5] }, "no reply in the turn before");
  assert.equal(liveSeries(trace("user", "capped"), turns), null);
  assert.equal(liveSeries(frame(), turns), null);
});

/** @returns {import("../src/types").ChartLayout} */
const layout = () => ({
  shapes: [
    { name: "line-floor", type: "line", line: { width: 1 } },
    { name: "band-role", type: "rect", yref: "paper", y0: 0, y1: 0, line: { width: 0 } },
    { name: "band-assistant", type: "rect", yref: "paper", y0: 1, y1: 1, line: { width: 0 } },
  ],
  annotations: [{ name: "label-floor", text: "floor (the cap)", y: 0.6, yanchor: "top" }],
  margin: { l: 48, r: 116, t: 8, b: 36 },
  font: { family: "serif", size: 12, color: "" },
  xaxis: { title: { text: "token" } },
  yaxis: { title: { text: "layer" } },
  meta: {},
});

test("a layout takes the page's colours and text size, and leaves the base as it is", () => {
  const base = layout();
  const themed = themedLayout(base, { ...COLOURS, size: 32 }, false);
  assert.equal(themed.shapes[0]?.line.color, COLOURS.capped);
  assert.equal(themed.shapes[1]?.fillcolor, COLOURS["role-low"]);
  assert.equal(themed.shapes[2]?.fillcolor, COLOURS["role-high"]);
  assert.deepEqual(themed.margin, { l: 96, r: 232, t: 16, b: 72 });
  assert.deepEqual(base, layout());
});

// Random numbers from 0 to 1, the same in every run (Lehmer's generator).
function random(seed = 1) {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

test("labels never overlap, stay in the plotting area and keep their order, wherever their lines are", () => {
  const next = random();
  for (let run = 0; run < 2000; run += 1) {
    const labels = Array.from({ length: 1 + Math.floor(next() * 5) }, () => ({
      centre: Math.round(next() * 200),
      height: [17, 33][Math.floor(next() * 2)] ?? 17,
    }));
    const centres = spread(labels, 200);
    const order = [...labels.keys()].sort((a, b) => (centres[a] ?? 0) - (centres[b] ?? 0));
    let end = 0;
    for (const index of order) {
      const { height } = /** @type {import("../src/marks.js").Label} */ (labels[index]);
      assert.ok((centres[index] ?? 0) - height / 2 >= end - 1e-9, JSON.stringify({ labels, centres }));
      end = (centres[index] ?? 0) + height / 2;
    }
    assert.ok(end <= 200 + 1e-9);
    const wished = order.map((index) => labels[index]?.centre ?? 0);
    for (const [n, wish] of wished.entries()) assert.ok(n === 0 || wish >= (wished[n - 1] ?? 0));
  }
});

test("labels that have room stand at their lines, and two of the same line share the way", () => {
  assert.deepEqual(spread([{ centre: 100, height: 20 }], 200), [100]);
  const apart = [
    { centre: 150, height: 20 },
    { centre: 50, height: 20 },
  ];
  assert.deepEqual(spread(apart, 200), [150, 50]);
  const together = [
    { centre: 100, height: 20 },
    { centre: 100, height: 20 },
  ];
  assert.deepEqual(spread(together, 200), [90, 110]);
  assert.deepEqual(spread([{ centre: 0, height: 20 }], 200), [10], "it stays inside");
});

test("the labels of a chart part at a wide range and stand at their lines at a narrow one", () => {
  const note = (/** @type {string} */ name, /** @type {number} */ y) => ({ name, y, text: name });
  const notes = [note("default", 1), note("floor", 0.75), { ...note("end", 1), yref: "paper" }];
  const scale = (/** @type {import("../src/types").Range} */ range) => ({
    ...axis(range),
    length: 200,
    pixel: scaleOf(range, 200, true),
  });
  const places = (/** @type {import("../src/types").Range} */ range) =>
    placedNotes(notes, scale(range), 12).map(({ y, visible }) => (visible === false ? null : y));
  assert.deepEqual(places([0, 2]), [0.5, 0.375, 1], "shares of the plotting area");
  const [above, below] = places([-10, 10]);
  assert.ok((above ?? 0) > 0.55 && (below ?? 1) < 0.5375);
  assert.deepEqual(places([0.9, 1.1]), [0.5, null, 1], "a line out of sight has no label");
});

test("placed labels are placed again by their values, and do not move at the same range", () => {
  const notes = [{ name: "default", y: 1, text: "default" }];
  const y = { ...axis([0, 4]), pixel: scaleOf([0, 4], 100, true) };
  const once = placedNotes(notes, y, 12);
  assert.deepEqual(placedNotes(once, y, 12), once);
  assert.equal(once[0]?.yref, "paper", "Plotly widens its range for labels in axis units");
  const wider = { ...axis([0, 2]), pixel: scaleOf([0, 2], 100, true) };
  assert.equal(placedNotes(once, wider, 12)[0]?.y, 0.5);
});

test("the bands of the zones reach from their cut point to the end of the axis", () => {
  const ends = (/** @type {import("../src/types").Range} */ range) =>
    placedBands(layout().shapes, axis(range), ZONES).map(({ y0, y1 }) => [y0, y1]);
  assert.deepEqual(ends([0, 1]).slice(1), [
    [0, 0.25],
    [0.75, 1],
  ]);
  assert.deepEqual(ends([0.5, 2.5]).slice(1), [
    [0, 0],
    [0.125, 1],
  ]);
  assert.deepEqual(placedBands(layout().shapes, axis([0, 1]), null), layout().shapes);
});

test("a narrow chart has its labels in a small margin, one word per line", () => {
  const { margin, annotations } = themedLayout(layout(), COLOURS, true);
  assert.ok(margin.r < layout().margin.r);
  assert.equal(annotations[0]?.text, "floor<br>(the<br>cap)");
});

test("a trace takes the colour of its branch, and the frame a neutral one", () => {
  const capped = { ...trace("reply", "capped"), line: {}, marker: { line: {} } };
  colourTrace(capped, COLOURS);
  assert.deepEqual(capped.line, { color: COLOURS.capped });
  assert.deepEqual(capped.marker, { color: COLOURS.capped, line: { color: COLOURS.card } });
  const neutral = { ...frame(), line: {} };
  colourTrace(neutral, COLOURS);
  assert.deepEqual(neutral.line, { color: COLOURS.muted });
});

/** @type {import("../src/types").LayerData} */
const LAYERS = {
  turn: 0,
  branch: "capped",
  probe: 1,
  cap: [1, 2],
  floors: [0.5, 0.25],
  tokens: ["a", "b"],
  reasoning: 0,
  own: [
    [0, 0.5, 1],
    [1, 1, 1],
  ],
  plain: [
    [0, 0.25, 1],
    [1, 1, 0],
  ],
  below: [1, 2],
};

test("the layer view has layers as rows, and can show what the cap changed", () => {
  assert.deepEqual(layerValues(LAYERS, "plain"), [
    [0, 1],
    [0.25, 1],
    [1, 0],
  ]);
  assert.deepEqual(layerValues(LAYERS, "change"), [
    [0, 0],
    [0.25, 0],
    [0, 1],
  ]);
});

test("tokens below the floor of a capped layer are marked above the layers, where they cover nothing", () => {
  const { data } = layerFigure([LAYERS], "own", COLOURS, 12, 2, false);
  const [heatmap, below] = data;
  assert.equal(heatmap?.z?.length, 3);
  assert.deepEqual(below?.x, LAYERS.below);
  assert.ok(below?.y?.every((y) => /** @type {number} */ (y) > 2.5));
  assert.equal(floorAt(LAYERS, 2), 0.25);
  assert.equal(floorAt(LAYERS, 3), null);
  assert.equal(floorAt({ ...LAYERS, floors: [0.5, null] }, 2), null);
});

const UNCAPPED = {
  ...LAYERS,
  branch: /** @type {const} */ ("uncapped"),
  tokens: ["a"],
  own: [[0, 0, 0]],
  plain: [[0, 0, 0]],
  below: [1],
};

test("both replies of a turn have the same axes, colours and band, alone and together", () => {
  const figure = (/** @type {any[]} */ shown, stacked = false) =>
    /** @type {any} */ (layerFigure(shown, "own", COLOURS, 12, 2, stacked));
  const alone = [LAYERS, UNCAPPED].map((data) => figure([data]));
  const together = figure([UNCAPPED, LAYERS]);
  const ranges = [
    ...alone.map(({ layout }) => [layout.xaxis.range, layout.yaxis.range]),
    [together.layout.xaxis.range, together.layout.yaxis.range],
    [together.layout.xaxis2.range, together.layout.yaxis2.range],
  ];
  for (const one of ranges) assert.deepEqual(one, [[0.5, 2.5], ranges[0]?.[1]]);
  const maps = together.data.filter((/** @type {any} */ { type }) => type === "heatmap");
  for (const { zmin, zmax } of [...maps, alone[0].data[0]])
    assert.deepEqual([zmin, zmax], colourRange("own"));
  assert.deepEqual(
    maps.map((/** @type {any} */ { xaxis, meta }) => [xaxis, meta.branch]),
    [
      ["x", "uncapped"],
      ["x2", "capped"],
    ],
  );
  const bands = together.layout.shapes.filter((/** @type {any} */ { type }) => type === "rect");
  assert.deepEqual(
    bands.map((/** @type {any} */ { xref, y0, y1, line }) => [xref, y0, y1, line.dash]),
    [
      ["x domain", 0.5, 2.5, "dash"],
      ["x2 domain", 0.5, 2.5, "solid"],
    ],
  );
});

test("heat maps stand side by side, or the uncapped one above where there is little room", () => {
  const domains = (/** @type {boolean} */ stacked) => {
    const { layout } = /** @type {any} */ (layerFigure([UNCAPPED, LAYERS], "own", COLOURS, 12, 2, stacked));
    return [layout.xaxis.domain, layout.xaxis2.domain, layout.yaxis.domain, layout.yaxis2.domain];
  };
  const [left, right, , up] = domains(false);
  assert.ok(left[1] < right[0]);
  assert.deepEqual([right[1], up], [1, [0, 1]]);
  const [across, , upper, lower] = domains(true);
  assert.ok(upper[0] > lower[1]);
  assert.deepEqual([across, upper[1], lower[0]], [[0, 1], 1, 0]);
});

test("where an answer starts after reasoning is said above the layers", () => {
  const { annotations, margin } = /** @type {any} */ (
    layerFigure([{ ...LAYERS, reasoning: 1 }], "own", COLOURS, 12, 2, false).layout
  );
  const labels = annotations.slice(-2);
  assert.deepEqual(
    labels.map((/** @type {any} */ label) => [label.text, label.yref, label.y, label.yanchor]),
    [
      ["reasoning", "y domain", 1, "bottom"],
      ["answer", "y domain", 1, "bottom"],
    ],
  );
  assert.ok(margin.t > 12);
});

test("the layers offer only replies that are there, and readings that differ", () => {
  const { replies } = newTurn("", ["capped"]);
  assert.deepEqual(branchesToShow(replies, "steered"), ["capped"]);
  assert.deepEqual(branchesToShow(replies, "all"), ["capped"]);
  const two = newTurn("", ["steered", "capped"]).replies;
  assert.deepEqual(branchesToShow(two, "steered"), ["steered"]);
  assert.deepEqual(branchesToShow(two, "all"), ["capped", "steered"]);
  assert.equal(intervened(LAYERS), true);
  assert.equal(intervened({ ...LAYERS, cap: null }), false);
  assert.equal(intervened({ ...LAYERS, branch: "uncapped" }), false);
  assert.equal(intervened({ ...LAYERS, branch: "steered", cap: null }), true);
});

test("the mean by layer is that of the answer, for each reply, with the band and its floors", () => {
  assert.deepEqual(layerMeans(LAYERS, "own"), [0.5, 0.75, 1]);
  assert.deepEqual(layerMeans({ ...LAYERS, reasoning: 1 }, "plain"), [1, 1, 0]);
  assert.deepEqual(layerMeans({ ...LAYERS, reasoning: 2 }, "own"), []);
  const { data, layout } = /** @type {any} */ (meansFigure([UNCAPPED, LAYERS], COLOURS, 12));
  assert.deepEqual(
    data.map((/** @type {any} */ { name, y }) => [name, y]),
    [
      ["floors", [0.5, 0.25]],
      ["uncapped", [0, 0, 0]],
      ["capped, without the cap", [0.5, 0.625, 0.5]],
      ["capped", [0.5, 0.75, 1]],
    ],
  );
  const band = layout.shapes.find((/** @type {any} */ { type }) => type === "rect");
  assert.deepEqual([band.x0, band.x1], [0.5, 2.5]);
});

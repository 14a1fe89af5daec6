import assert from "node:assert/strict";
import test from "node:test";

import {
  boundsOf,
  columns,
  extremeRoles,
  faded,
  fitRanges,
  mapLayout,
  mapTraces,
  trailOf,
  trailPlaces,
} from "../src/map_figure.js";
import { boxesOverlap, labels2d, labels3d, placeLabels } from "../src/map_labels.js";
import { byBranch } from "../src/turns.js";
import { COLOURS, finishedTurn, MAP } from "./helpers.js";

const textWidth = (/** @type {string} */ text) => 6 * text.length;

test("a faded colour is opaque and lies between colour and background", () => {
  assert.equal(faded("#ff0000", "#ffffff", 0.5), "rgb(255,128,128)");
  assert.equal(faded("#102030", "#ffffff", 1), "rgb(16,32,48)");
});

test("a view shows its components, and only the 3-D view has a z", () => {
  assert.deepEqual(columns([[1, 2, 3]], "13"), { x: [1], y: [3] });
  assert.deepEqual(columns([[1, 2, 3]], "3d"), { x: [1], y: [2], z: [3] });
});

test("the roles at both ends of the axis are labelled", () => {
  const names = extremeRoles(MAP.roles).map(([name]) => name);
  assert.deepEqual(names, ["pirate", "poet", "<judge>", "clerk", "editor", "analyst"]);
  assert.equal(extremeRoles(MAP.roles.slice(0, 2)).length, 2);
});

test("a trail holds the last eight turns up to the one that is shown", () => {
  const turns = Array.from({ length: 12 }, (_, n) => {
    const turn = finishedTurn(1, 1);
    if (n !== 5) turn.replies.capped.place = [n, 0, 0];
    return turn;
  });
  const points = trailOf(turns, "capped", 10);
  assert.deepEqual(
    points.map(({ turn }) => turn),
    [2, 3, 4, 6, 7, 8, 9, 10],
  );
  assert.deepEqual(trailOf(turns, "capped", null), []);
  assert.deepEqual(trailOf(turns, "uncapped", 10), []);
});

test("the last point of a trail says whether its reply goes on", () => {
  const points = [
    { place: [1, 2, 3], turn: 0, live: false },
    { place: [4, 5, 6], turn: 1, live: true },
  ];
  assert.deepEqual(trailPlaces(points, "12"), {
    x: [1, 4],
    y: [2, 5],
    customdata: ["turn 1", "turn 2, so far"],
  });
});

test("bounds leave a margin around all places, also around a single one", () => {
  const [x, y] = boundsOf(
    [
      [0, 5, 0],
      [10, 5, 0],
    ],
    "12",
  );
  assert.deepEqual(x, [-0.6, 10.6]);
  assert.deepEqual(y, [4.94, 5.06]);
});

test("a unit is as long across as upwards", () => {
  const [x, y] = fitRanges([0, 10], [0, 2], { width: 500, height: 250 });
  assert.deepEqual(x, [0, 10]);
  assert.equal(y[1] - y[0], 5);
  assert.equal((y[0] + y[1]) / 2, 1);
});

test("labels do not overlap and lie inside", () => {
  const area = { width: 400, height: 300 };
  /** @type {[x: import("../src/types").Range, y: import("../src/types").Range]} */
  const ranges = [
    [-3, 3],
    [-2, 2],
  ];
  const at = labels2d(MAP, "12", ranges, area, textWidth, 14);
  assert.equal(at[0]?.text, "default Assistant");
  assert.ok(at.length > 5);
  const boxes = placeLabels(
    at.map((label) => ({ ...label, at: /** @type {[number, number]} */ ([200, 150]) })),
    [],
    area,
    textWidth,
    14,
  ).map(({ box }) => box);
  assert.ok(boxes.length > 1);
  for (const [n, box] of boxes.entries()) {
    assert.ok(box.left >= 0 && box.right <= area.width && box.top >= 0 && box.bottom <= area.height);
    assert.ok(boxes.slice(n + 1).every((other) => !boxesOverlap(box, other)));
  }
});

test("a label takes the side with the fewest dots, and is left out where it fits nowhere", () => {
  const label = { text: "abc", gap: 2, at: /** @type {[number, number]} */ ([50, 50]) };
  const area = { width: 100, height: 100 };
  const side = (/** @type {[number, number][]} */ dots) =>
    placeLabels([label], dots, area, textWidth, 10)[0]?.side;
  assert.equal(side([]), "middle right");
  assert.equal(side([[60, 50]]), "middle left");
  assert.deepEqual(placeLabels([label], [], { width: 10, height: 100 }, textWidth, 10), []);
});

test("the 3-D map labels the default Assistant and the two outermost roles", () => {
  assert.deepEqual(
    labels3d(MAP).map(({ text }) => text),
    ["default Assistant", "pirate", "analyst"],
  );
});

test("the map's last traces are one per branch, and names contain no markup", () => {
  const trails = byBranch((branch) =>
    branch === "capped" ? [{ place: [1, 0, 0], turn: 0, live: false }] : [],
  );
  for (const view of /** @type {const} */ (["12", "3d"])) {
    const traces = mapTraces(MAP, trails, view, COLOURS, labels3d(MAP), 12);
    assert.deepEqual(
      traces.slice(-3).map(({ meta }) => meta.branch),
      ["uncapped", "capped", "steered"],
    );
    assert.deepEqual(traces.at(-2)?.x, [1]);
    assert.ok(traces.every(({ type }) => type === (view === "3d" ? "scatter3d" : "scatter")));
    assert.ok(!JSON.stringify(traces).includes("<judge>"));
  }
});

test("the layout of the map names components with their shares and keeps the scale of both axes equal", () => {
  /** @type {import("../src/types").Range[]} */
  const ranges = [
    [0, 1],
    [0, 1],
    [0, 1],
  ];
  const flat = /** @type {any} */ (mapLayout(MAP, "13", COLOURS, ranges, 12, 1.5));
  assert.equal(flat.xaxis.title.text, "PC1 (40%), Assistant’s side →");
  assert.equal(flat.yaxis.title.text, "PC3 (10%)");
  assert.equal(flat.yaxis.scaleanchor, "x");
  const solid = /** @type {any} */ (mapLayout(MAP, "3d", COLOURS, ranges, 12, 1.5));
  assert.equal(solid.scene.aspectmode, "data");
  assert.equal(solid.xaxis, undefined);
});

// The labels of the persona map, and where they lie. Uses neither the DOM nor Plotly.

/**
 * @import { MapView } from "./map_figure.js"
 * @import { PersonaMap, Place, Range } from "./types"
 */

/**
 * @typedef {[right: number, down: number]} Pixels
 * @typedef {{ width: number; height: number }} Area
 * @typedef {{ left: number; top: number; right: number; bottom: number }} Box
 * @typedef {{ text: string; gap: number }} Label gap: from the point, in pixels
 * @typedef {Label & { place: Place; side: string }} PlacedLabel
 */

import { scaleOf } from "./axes.js";
import { extremeRoles, MAP_VIEWS } from "./map_figure.js";
import { axisWords } from "./text.js";

/**
 * Where a label can lie beside its point.
 * @type {Record<string, Pixels>}
 */
const LABEL_SIDES = {
  "middle right": [1, 0],
  "middle left": [-1, 0],
  "top center": [0, -1],
  "bottom center": [0, 1],
  "top right": [1, -1],
  "bottom right": [1, 1],
  "top left": [-1, -1],
  "bottom left": [-1, 1],
};

/**
 * @param {Pixels} at the point
 * @param {Pixels} direction
 * @param {number} width
 * @param {number} height
 * @param {number} gap
 * @returns {Box}
 */
function labelBox(at, [right, down], width, height, gap) {
  const x = at[0] + right * (gap + width / 2) - width / 2;
  const y = at[1] + down * (gap + height / 2) - height / 2;
  return { left: x, top: y, right: x + width, bottom: y + height };
}

export const boxesOverlap = (/** @type {Box} */ a, /** @type {Box} */ b) =>
  a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const boxContains = (/** @type {Box} */ box, /** @type {Pixels} */ [x, y]) =>
  box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;

/**
 * Chooses the side of its point for each label, so that no label overlaps another or the edge and as few dots
 * as possible are covered. A label that fits nowhere is left out.
 * @template {Label & { at: Pixels }} L
 * @param {L[]} labels the most important first
 * @param {Pixels[]} dots
 * @param {Area} frame
 * @param {(text: string) => number} textWidth
 * @param {number} lineHeight
 * @returns {(L & { side: string; box: Box })[]}
 */
export function placeLabels(labels, dots, frame, textWidth, lineHeight) {
  /** @type {Box[]} */
  const taken = [];
  const placed = [];
  for (const label of labels) {
    /** @type {(L & { side: string; box: Box; cost: number }) | null} */
    let best = null;
    for (const [side, direction] of Object.entries(LABEL_SIDES)) {
      const box = labelBox(label.at, direction, textWidth(label.text), lineHeight, label.gap);
      const inside = box.left >= 0 && box.top >= 0 && box.right <= frame.width && box.bottom <= frame.height;
      if (!inside || taken.some((other) => boxesOverlap(box, other))) continue;
      const cost = dots.filter((dot) => boxContains(box, dot)).length;
      if (!best || cost < best.cost) best = { ...label, side, box, cost };
    }
    if (!best) continue;
    taken.push(best.box);
    placed.push(best);
  }
  return placed;
}

/**
 * The labels of the 2-D map with their sides, for a plotting area of `area` pixels that shows `ranges`.
 * @param {PersonaMap} map
 * @param {MapView} view
 * @param {[x: Range, y: Range]} ranges
 * @param {Area} area
 * @param {(text: string) => number} textWidth
 * @param {number} lineHeight
 * @returns {PlacedLabel[]}
 */
export function labels2d(map, view, ranges, area, textWidth, lineHeight) {
  const [across = 0, up = 0] = MAP_VIEWS[view];
  const [x, y] = [scaleOf(ranges[0], area.width, false), scaleOf(ranges[1], area.height, true)];
  /** @returns {Pixels} */
  const toPixels = (/** @type {Place} */ place) => [x(place[across] ?? 0), y(place[up] ?? 0)];
  const roles = extremeRoles(map.roles).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
  const wanted = [
    { text: axisWords().default, place: map.default, gap: 9 },
    ...roles.map(([name, place]) => ({ text: name, place, gap: 4 })),
    { text: "average role", place: [0, 0, 0], gap: 7 },
  ];
  const labels = wanted.map((label) => ({ ...label, at: toPixels(label.place) }));
  // The arrow counts as a row of dots.
  const arrow = Array.from({ length: 40 }, (_, step) => map.default.map((value) => (value * step) / 40));
  const dots = [...map.roles.map((role) => role[1]), ...arrow].map(toPixels);
  return placeLabels(labels, dots, area, textWidth, lineHeight);
}

/**
 * In 3-D the user turns the map, so labels cannot be kept apart: only the most important ones are shown.
 * @param {PersonaMap} map
 * @returns {PlacedLabel[]}
 */
export function labels3d(map) {
  const order = extremeRoles(map.roles);
  const ends = [order.slice(0, 1), order.slice(-1)].flat();
  const roles = ends.map(([text, place]) => ({ text, place, side: "bottom center", gap: 3 }));
  return [{ text: axisWords().default, place: map.default, side: "top center", gap: 4 }, ...roles];
}

// The small charts under a reply on a phone: token by token, and turn by turn. Plain SVG, because a class of
// phones should not load a plotting library each.

/** @import { Branch, Token } from "../src/types" */

import { axisWords, number, projections } from "../src/text.js";
import { trailingMean } from "../src/turns.js";

const SVG = "http://www.w3.org/2000/svg";
// The charts always show at least these, in axis units, as the stage's do.
const LEAST = [-0.75, 1.5];
const MARGIN = { left: 4, right: 62, top: 8, bottom: 14 };

/** @typedef {{ branch: Branch; values: (number | null)[]; faint?: boolean; markers?: boolean }} Line */

/**
 * The mean of the last tokens at each token that is shown, of those with a projection.
 * @param {Token[]} tokens
 * @returns {number[]}
 */
export function trailing(tokens) {
  /** @type {number[]} */
  const recent = [];
  /** @type {number[]} */
  const means = [];
  for (const token of tokens) {
    const { after } = projections(token);
    if (token.s || token.r || after === null) continue;
    means.push(trailingMean(recent, after));
  }
  return means;
}

/**
 * @param {(number | null)[]} values
 * @returns {[low: number, high: number]}
 */
export function rangeOf(values) {
  const known = values.filter((value) => value !== null);
  return [Math.min(LEAST[0] ?? 0, ...known), Math.max(LEAST[1] ?? 1, ...known)];
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {string} [text]
 */
function drawn(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text !== undefined) node.textContent = text;
  return node;
}

/**
 * @param {SVGSVGElement} svg
 * @param {object} chart
 * @param {Line[]} chart.lines
 * @param {number | null} chart.floor of the cap; null for none
 * @param {string} chart.below what the horizontal axis counts
 * @param {boolean} chart.labels whether the reference lines are named
 */
export function drawLines(svg, { lines, floor, below, labels }) {
  const width = svg.clientWidth || 300;
  const height = svg.clientHeight || 110;
  const right = labels ? MARGIN.right : 8;
  const count = Math.max(2, ...lines.map(({ values }) => values.length));
  const [low, high] = rangeOf(lines.flatMap(({ values }) => values));
  const x = (/** @type {number} */ n) =>
    MARGIN.left + 4 + ((width - right - MARGIN.left - 8) * n) / (count - 1);
  const y = (/** @type {number} */ value) =>
    MARGIN.top + ((height - MARGIN.top - MARGIN.bottom) * (high - value)) / (high - low);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const words = axisWords();
  const marks = [
    { at: 1, name: words.high, kind: "mark" },
    { at: 0, name: words.low, kind: "mark" },
    ...(floor === null ? [] : [{ at: floor, name: "floor", kind: "mark floor" }]),
  ];
  const nodes = marks.flatMap(({ at, name, kind }) => [
    drawn("line", { class: kind, x1: MARGIN.left, x2: width - right, y1: y(at), y2: y(at) }),
    ...(labels ? [drawn("text", { class: kind, x: width - right + 4, y: y(at) + 4 }, name)] : []),
  ]);
  nodes.push(drawn("text", { class: "below", x: MARGIN.left, y: height - 2 }, below));
  for (const line of lines) nodes.push(...lineNodes(line, x, y));
  svg.replaceChildren(...spread(nodes));
}

/**
 * Labels that would overlap are drawn one above the other.
 * @param {Element[]} nodes
 */
function spread(nodes) {
  const labels = nodes.filter((node) => node.matches("text.mark"));
  labels.sort((a, b) => Number(a.getAttribute("y")) - Number(b.getAttribute("y")));
  let last = Number.NEGATIVE_INFINITY;
  for (const label of labels) {
    last = Math.max(Number(label.getAttribute("y")), last + 12);
    label.setAttribute("y", String(last));
  }
  return nodes;
}

/**
 * @param {Line} line
 * @param {(n: number) => number} x
 * @param {(value: number) => number} y
 */
function lineNodes({ branch, values, faint, markers }, x, y) {
  const kind = `${branch}${faint ? " faint" : ""}`;
  const points = values.flatMap((value, n) => (value === null ? [] : [[x(n), y(value)]]));
  const path = points.map(([px = 0, py = 0], n) => `${n ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`);
  const found = [drawn("path", { class: kind, d: path.join("") || "M0 0" })];
  if (!markers) return found;
  const dots = points.map(([px = 0, py = 0]) => {
    if (branch === "uncapped") return drawn("circle", { class: kind, cx: px, cy: py, r: 4 });
    return drawn("path", { class: `${kind} dot`, d: `M${px} ${py - 5}l5 5l-5 5l-5-5Z` });
  });
  return [...found, ...dots];
}

/**
 * What a chart says, for screen readers.
 * @param {{ branch: Branch; mean: number | null | undefined; zone: string | null | undefined }[]} replies
 */
export function spoken(replies) {
  return replies
    .map(({ branch, mean, zone }) => `${branch}: mean ${number(mean)}${zone ? `, ${zone}` : ""}`)
    .join("; ");
}

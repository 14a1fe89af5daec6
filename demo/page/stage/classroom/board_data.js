// What the board makes of the numbers of a class. Uses neither the DOM nor Plotly.

/** @import { Branch, ChartTrace } from "../src/types" */
/** @import { BoardMessage, Pair, Row } from "./types" */

import { number } from "../src/text.js";

/** @typedef {"uncapped" | "capped"} Either */

/** @type {readonly Either[]} */
export const EITHER = ["uncapped", "capped"];
const UPPER = ["Assistant", "own"]; // the names of the upper zone
// Boxes of a turn stand beside one another.
const BOX_OFFSETS = { uncapped: -0.17, capped: 0.17 };

/** @param {number[]} values */
export function medianOf(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [low, high] = [sorted[middle - 1], sorted[middle]];
  if (high === undefined) return null;
  return sorted.length % 2 || low === undefined ? high : (low + high) / 2;
}

/**
 * The pairs that say something of the cap. Without it the "capped" reply is a second uncapped one, and would water
 * down every number.
 * @param {Pair[]} pairs
 */
export const withCap = (pairs) => pairs.filter(({ cap }) => cap);

/** @param {Row[]} rows */
export const lastTurn = (rows) => Math.max(0, ...rows.map(({ pairs }) => pairs.length));

/**
 * The means of one branch at a turn, over all conversations that have it.
 * @param {Row[]} rows
 * @param {number} turn from 0
 * @param {Either} branch
 */
export function meansAt(rows, turn, branch) {
  return rows.flatMap(({ pairs }) => (pairs[turn]?.cap ? (pairs[turn]?.[branch] ?? []) : []));
}

/**
 * Every conversation as a line; null ends a line.
 * @param {Row[]} rows
 * @param {Either} branch
 * @returns {{ x: (number | null)[]; y: (number | null)[]; names: (string | null)[] }}
 */
export function linesOf(rows, branch) {
  const points = rows.flatMap(({ student, pairs }) => [
    ...pairs.map((pair, n) => ({ x: n + 1, y: pair.cap ? pair[branch] : null, name: `student ${student}` })),
    { x: null, y: null, name: null },
  ]);
  return {
    x: points.map(({ x }) => x),
    y: points.map(({ y }) => y),
    names: points.map(({ name }) => name),
  };
}

/**
 * @param {Row[]} rows
 * @param {Either} branch
 */
export function mediansOf(rows, branch) {
  const turns = Array.from({ length: lastTurn(rows) }, (_, n) => n);
  return { x: turns.map((n) => n + 1), y: turns.map((n) => medianOf(meansAt(rows, n, branch))) };
}

/**
 * @param {Row[]} rows
 * @param {Either} branch
 */
export function boxesOf(rows, branch) {
  const all = rows.flatMap(({ pairs }) =>
    pairs.flatMap((pair, n) =>
      pair[branch] === null || !pair.cap ? [] : [[n + 1 + BOX_OFFSETS[branch], pair[branch]]],
    ),
  );
  return { x: all.map(([x = 0]) => x), y: all.map(([, y = 0]) => y) };
}

/**
 * @param {ChartTrace[]} data of one of the board’s charts
 * @param {Row[]} rows
 */
export function fillBoard(data, rows) {
  const last = Math.max(4, lastTurn(rows)) + 0.4;
  for (const trace of data) {
    const { role, branch } = trace.meta;
    if (!branch) trace.x = [0.6, last];
    else if (branch !== "steered" && role === "all") {
      const { x, y, names } = linesOf(rows, branch);
      Object.assign(trace, { x, y, customdata: names });
    } else if (branch !== "steered")
      Object.assign(trace, (role === "box" ? boxesOf : mediansOf)(rows, branch));
  }
}

/**
 * The share of replies that lie outside the Assistant’s zone, the unclear ones among them; null where none has a
 * zone.
 * @param {Pair[]} pairs
 * @param {Either} branch
 */
export function shareOutside(pairs, branch) {
  const zones = withCap(pairs).flatMap((pair) => pair[`${branch}_zone`] ?? []);
  return zones.length ? zones.filter((zone) => !UPPER.includes(zone)).length / zones.length : null;
}

/** @param {Pair[]} pairs */
export function meanLift(pairs) {
  const lifts = withCap(pairs).flatMap(({ lift }) => lift ?? []);
  return lifts.length ? lifts.reduce((sum, lift) => sum + lift, 0) / lifts.length : null;
}

/**
 * A share as it is read from the back of a room.
 * @param {number | null} share
 */
export const wholePercent = (share) => (share === null ? "–" : `${Math.round(100 * share)}%`);

/**
 * The empty traces of a chart of the board, with the frame that keeps its axes.
 * @param {"lines" | "boxes"} kind
 * @param {ChartTrace} frame
 * @returns {ChartTrace[]}
 */
export function tracesOf(kind, frame) {
  const made = EITHER.flatMap((branch) => (kind === "boxes" ? [boxTrace(branch)] : [lineTrace(branch)]));
  const medians = kind === "boxes" ? [] : EITHER.map(medianTrace);
  return [...made, ...medians, { ...frame, x: [0.6, 4.4] }];
}

/** @param {Branch} branch */
const dashOf = (branch) => (branch === "uncapped" ? "4px,3px" : "solid");
/** @param {Branch} branch */
const symbolOf = (branch) => (branch === "uncapped" ? "circle" : "diamond");

/**
 * @param {Either} branch
 * @returns {ChartTrace}
 */
function lineTrace(branch) {
  return {
    type: "scatter",
    mode: "lines+markers",
    meta: { role: "all", branch },
    x: [],
    y: [],
    opacity: 0.45,
    showlegend: false,
    line: { width: 1.25, dash: dashOf(branch) },
    marker: { symbol: symbolOf(branch), size: 6 },
    hovertemplate: `<b>${branch}</b> %{customdata} · turn %{x}: %{y:.2f}<extra></extra>`,
  };
}

/**
 * @param {Either} branch
 * @returns {ChartTrace}
 */
function medianTrace(branch) {
  return {
    type: "scatter",
    mode: "lines+markers",
    meta: { role: "median", branch },
    x: [],
    y: [],
    showlegend: false,
    line: { width: 4, dash: dashOf(branch) },
    marker: { symbol: symbolOf(branch), size: 11, line: { width: 1.5 } },
    hovertemplate: `<b>${branch}</b> median of turn %{x}: %{y:.2f}<extra></extra>`,
  };
}

/**
 * @param {Either} branch
 * @returns {ChartTrace}
 */
function boxTrace(branch) {
  return {
    type: "box",
    mode: "",
    meta: { role: "box", branch },
    x: [],
    y: [],
    name: branch,
    width: 0.28,
    boxpoints: "all",
    jitter: 0.5,
    pointpos: 0,
    showlegend: false,
    line: { width: 1.5 },
    fillcolor: "rgba(0,0,0,0)",
    marker: { symbol: symbolOf(branch), size: 5, opacity: 0.6 },
    hoverinfo: "y",
  };
}

/**
 * What the tiles say, by name.
 * @param {BoardMessage} board
 * @returns {Record<string, string>}
 */
export function tilesOf({ rows, students, room, guesses: { right, all } }) {
  const pairs = rows.flatMap((row) => row.pairs);
  const without = pairs.length - withCap(pairs).length;
  const here = students.filter(({ present }) => present);
  const waiting = here.filter(({ seated }) => !seated).length;
  const writing = here.filter((one) => one.writing).length;
  const lift = meanLift(pairs);
  return {
    students: `${here.length - waiting} of ${room}`,
    waiting: [waiting ? `${waiting} waiting` : "", writing ? `${writing} being answered` : ""]
      .filter(Boolean)
      .join(", "),
    turns: String(pairs.length),
    "left-out": without ? `${without} without the cap: left out of the rest` : "",
    "outside-uncapped": wholePercent(shareOutside(pairs, "uncapped")),
    "outside-capped": wholePercent(shareOutside(pairs, "capped")),
    lift: lift === null ? "–" : `${lift > 0 ? "+" : ""}${number(lift)}`,
    guesses: all ? `${right} of ${all}` : "–",
    "guess-share": all ? `${wholePercent(right / all)}; by chance 50%` : "which reply was capped?",
  };
}

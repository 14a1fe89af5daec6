// The chart of whole replies, turn by turn. The overlay draws the turn that is being answered; Plotly gets it
// when it is over.

/**
 * @import { Chart } from "./chart.js"
 * @import { Points } from "./overlay.js"
 * @import { Branch, ChartTrace, Turn } from "./types"
 */

import { makeOverlay } from "./overlay.js";
import { describeSeeds } from "./seeds.js";
import { escapeHtml, tokenLabel } from "./text.js";
import { isLive, meanOf, reasoningMeanOf, SYMBOLS } from "./turns.js";

/** @typedef {{ x: number; y: number | null; size?: number }} TurnPoint */

// In turns, to the right of the reply's mean.
const REASONING_OFFSET = -0.15;
/** @type {import("./types").ByBranch<number>} */
const SPREAD_OFFSETS = { uncapped: -0.05, capped: 0.05, steered: 0 };
const TURN_MARGIN = 0.25; // axis units of extra room beyond a marker that left the chart

/**
 * A line through all replies of a branch to one message, the drawn one among them, from the lowest to the
 * highest; null ends a line.
 * @param {Turn[]} turns
 * @param {Branch} branch
 */
export function spreadPoints(turns, branch) {
  return turns.flatMap((turn, index) => {
    const { samples } = turn.replies[branch];
    const x = index + 1 + SPREAD_OFFSETS[branch];
    const others = samples.flatMap(({ mean, text }) =>
      typeof mean === "number" ? [{ x, y: mean, text: tokenLabel(text) }] : [],
    );
    const drawn = meanOf(turn.replies[branch]);
    if (!others.length || drawn === null) return [];
    const all = [...others, { x, y: drawn, text: "the reply that is shown" }];
    return [...all.sort((a, b) => a.y - b.y), { x: null, y: null, text: null }];
  });
}

/**
 * The mean of all seeds of each turn with its interval, as a bar; null ends a bar.
 * @param {Turn[]} turns
 * @param {Branch} branch
 */
export function intervalPoints(turns, branch) {
  return turns.flatMap((turn, index) => {
    const { seedMean } = turn.replies[branch];
    if (!seedMean) return [];
    const [x, text] = [index + 1 + SPREAD_OFFSETS[branch], describeSeeds(seedMean)];
    const ends = [seedMean.low, seedMean.mean, seedMean.high].map((y) => ({ x, y, text }));
    return [...ends, { x: null, y: null, text: null }];
  });
}

/**
 * The replies that are finished. The marker of the turn that is shown is larger. A turn in between without a
 * measured reply has a point without a value, so that the line is interrupted there.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @param {number | null} shown
 * @returns {TurnPoint[]}
 */
export function replyPoints(turns, branch, shown) {
  const points = turns.map((turn, index) => {
    const reply = turn.replies[branch];
    const y = reply.absent || isLive(reply) ? null : meanOf(reply);
    return { x: index + 1, y, size: index === shown ? 13 : 9 };
  });
  const measured = points.map(({ y }) => y !== null);
  return measured.includes(true) ? points.slice(measured.indexOf(true), measured.lastIndexOf(true) + 1) : [];
}

/**
 * A little to the left of the reply's mean.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @returns {TurnPoint[]}
 */
export function reasoningPoints(turns, branch) {
  return turns.flatMap((turn, index) => {
    const y = isLive(turn.replies[branch]) ? null : reasoningMeanOf(turn.replies[branch]);
    return y === null ? [] : [{ x: index + 1 + REASONING_OFFSET, y }];
  });
}

/**
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @returns {TurnPoint[]}
 */
export function userPoints(turns, branch) {
  return turns.flatMap((turn, index) => {
    const y = turn.replies[branch].userMean;
    return y === null ? [] : [{ x: index + 1, y }];
  });
}

/**
 * The mean of each finished reply as the unsteered model reads its words.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @returns {TurnPoint[]}
 */
export function plainPoints(turns, branch) {
  return turns.map((turn, index) => ({ x: index + 1, y: turn.replies[branch].plainMean }));
}

/**
 * The mean of each finished reply along the second direction. A turn with another one interrupts the line.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @param {number | null} shown
 * @returns {TurnPoint[]}
 */
export function secondPoints(turns, branch, shown) {
  const name = turns[shown ?? turns.length - 1]?.settings?.second;
  return turns.map((turn, index) => {
    const { along, second } = turn.replies[branch];
    const same = name !== undefined && turn.settings?.second === name;
    return { x: index + 1, y: same ? (along[second] ?? null) : null };
  });
}

/** @type {Record<string, (turns: Turn[], branch: Branch, shown: number | null) => TurnPoint[]>} */
const POINTS = {
  user: userPoints,
  reasoning: reasoningPoints,
  reply: replyPoints,
  plain: plainPoints,
  second: secondPoints,
};

/**
 * The conversation that is compared with the one that is shown.
 * @typedef {{ title: string; turns: Turn[] }} OtherTurns
 */

/** @type {OtherTurns} */
const NO_OTHER = { title: "", turns: [] };

/**
 * @param {ChartTrace} trace
 * @param {Branch} branch
 * @param {OtherTurns} other
 */
function fillCompared(trace, branch, { title, turns }) {
  const points = replyPoints(turns, branch, null);
  trace.x = points.map((point) => point.x);
  trace.y = points.map((point) => point.y);
  trace.customdata = points.map(() => escapeHtml(title));
}

/**
 * @param {ChartTrace[]} data
 * @param {Turn[]} turns
 * @param {number | null} shown
 * @param {OtherTurns} [other]
 */
export function fillTurns(data, turns, shown, other = NO_OTHER) {
  for (const trace of data) {
    const { role, branch } = trace.meta;
    if (!branch) trace.x[1] = Math.max(4.4, turns.length + 0.4, other.turns.length + 0.4);
    else if (role === "compared") fillCompared(trace, branch, other);
    else if (role === "spread" || role === "interval") {
      const points = (role === "spread" ? spreadPoints : intervalPoints)(turns, branch);
      trace.x = points.map((point) => point.x);
      trace.y = points.map((point) => point.y);
      trace.customdata = points.map((point) => point.text);
    } else {
      const points = POINTS[role]?.(turns, branch, shown) ?? [];
      trace.x = points.map((point) => point.x);
      trace.y = points.map((point) => point.y);
      if (role === "reply") trace.marker.size = points.map((point) => point.size);
    }
  }
}

/**
 * The reply that is being written: a marker at its mean so far, joined to the turn before if the branch has
 * answered in it. Null if there is none.
 * @param {ChartTrace} trace
 * @param {Turn[]} turns
 * @returns {Points | null}
 */
export function liveSeries(trace, turns) {
  const { role, branch } = trace.meta;
  const reply = branch ? turns.at(-1)?.replies[branch] : undefined;
  if (role !== "reply" || !reply || !isLive(reply)) return null;
  const mean = meanOf(reply);
  if (mean === null) return null;
  const before = trace.x.at(-1) === turns.length - 1 ? -1 : trace.x.length;
  return { x: [...trace.x.slice(before), turns.length], y: [...trace.y.slice(before), mean] };
}

/** @param {Chart} chart */
export function makeTurnChart(chart) {
  const overlay = makeOverlay(chart);
  /** @type {{ turns: Turn[]; shown: number | null; other: OtherTurns }} */
  const state = { turns: [], shown: null, other: NO_OTHER };
  let changed = false; // a turn differs from what Plotly holds

  const fill = (/** @type {ChartTrace[]} */ data) => fillTurns(data, state.turns, state.shown, state.other);

  function redraw() {
    changed = false;
    fill(chart.traces());
    const layout = chart.layout();
    if (layout)
      layout.xaxis.dtick = Math.ceil(Math.max(1, state.turns.length, state.other.turns.length) / 10);
    Plotly.redraw(chart.element);
    redrawOverlay();
  }

  function redrawOverlay() {
    overlay.clear();
    for (const trace of chart.traces()) {
      const series = liveSeries(trace, state.turns);
      if (!series || !trace.meta.branch) continue;
      const symbol = `${SYMBOLS[trace.meta.branch]}-open`;
      const marker = { symbol, size: 13, color: trace.marker.color, line: { width: 2 } };
      overlay.draw(trace, series, series.x.length - 1, marker);
    }
  }

  // Plotly draws before the turn is over only where a live marker leaves the axes.
  function advance() {
    const live = chart.traces().map((trace) => liveSeries(trace, state.turns));
    const outside = live.find((series) => series && !overlay.fits(series, series.x.length - 1));
    const last = outside?.y.at(-1) ?? null;
    if (last !== null) extendAxis(last);
    if (changed || outside) redraw();
    else redrawOverlay();
  }

  /** @param {number} y a value that is outside */
  function extendAxis(y) {
    const frame = chart.traces().find((trace) => trace.meta.role === "frame");
    if (!frame) return;
    const [low, high] = frame.y;
    frame.y = [Math.min(low ?? y, y - TURN_MARGIN), Math.max(high ?? y, y + TURN_MARGIN)];
  }

  /**
   * @param {Turn[]} turns
   * @param {number | null} shown
   */
  function show(turns, shown) {
    Object.assign(state, { turns, shown });
    changed = true;
  }

  /** @param {OtherTurns | null} other null: nothing is compared */
  function compareWith(other) {
    state.other = other ?? NO_OTHER;
    changed = true;
  }

  /**
   * How many points of a branch are visible.
   * @param {Branch} branch
   */
  function count(branch) {
    const trace = chart.ready() ? chart.traces()[chart.traceIndex("reply", branch)] : undefined;
    if (!trace) return 0;
    return trace.y.filter((y) => y !== null).length + (liveSeries(trace, state.turns) ? 1 : 0);
  }

  function markChanged() {
    changed = true;
  }

  return { fill, show, compareWith, advance, redrawOverlay, count, markChanged };
}

// The chart of single tokens. Plotly holds the points of finished turns, which can be hovered and zoomed; the
// overlay draws the points of the turn that is streaming.

/**
 * @import { Chart } from "./chart.js"
 * @import { Branch, ChartTrace, Series, SeriesRole, Turn } from "./types"
 */

import { makeOverlay } from "./overlay.js";
import { BRANCHES, turnIsLive } from "./turns.js";

// The least time between two updates of Plotly because the pointer moves over the chart.
const CATCH_UP_MS = 700;
const TOKEN_AXIS = { initial: 48, growth: 1.5, spare: 4 }; // in tokens; growth is a factor

/**
 * The length of the token axis. It leaves room for tokens to come, so that the axis does not change at every
 * token.
 * @param {Turn | null} turn
 * @returns {number}
 */
export function tokenAxisLength(turn) {
  if (!turn || !turnIsLive(turn)) return TOKEN_AXIS.initial;
  const longest = Math.max(...BRANCHES.map((branch) => turn.replies[branch].visibleTokens.length));
  let length = TOKEN_AXIS.initial;
  while (length < longest + TOKEN_AXIS.spare) length = Math.ceil(length * TOKEN_AXIS.growth);
  return length;
}

/**
 * The series of a trace; none for the frame, and while no turn is shown.
 * @param {Turn | null} turn
 * @param {ChartTrace} trace
 * @returns {Series | undefined}
 */
export function seriesOf(turn, { meta: { role, branch } }) {
  return branch ? turn?.replies[branch].series[/** @type {SeriesRole} */ (role)] : undefined;
}

/**
 * Puts all points of a turn into the traces, and sets the length of the axis.
 * @param {ChartTrace[]} data
 * @param {Turn | null} turn
 * @returns {number[]} how many points each trace has
 */
export function fillTokens(data, turn) {
  return data.map((trace) => {
    if (trace.meta.role === "frame") {
      trace.x[1] = tokenAxisLength(turn);
      return 0;
    }
    const series = seriesOf(turn, trace);
    trace.x = series?.x.slice() ?? [];
    trace.y = series?.y.slice() ?? [];
    trace.customdata = series?.customdata.slice() ?? [];
    return trace.x.length;
  });
}

/** @param {Chart} chart */
export function makeTokenChart(chart) {
  const overlay = makeOverlay(chart);
  /** @type {Turn | null} */
  let turn = null;
  let stale = false; // the drawn points belong to another turn
  /**
   * By trace: how many points of its series Plotly holds.
   * @type {number[]}
   */
  let committed = [];
  /**
   * By trace: how many points are visible, counting the overlay's.
   * @type {number[]}
   */
  let drawn = [];
  let caughtUpAt = 0;
  /**
   * The token to be marked once its turn is drawn.
   * @type {{ branch: Branch; position: number } | null}
   */
  let awaited = null;

  /** The end of the axis as it is drawn. */
  const axisEnd = () => chart.traces().find((trace) => trace.meta.role === "frame")?.x[1] ?? 0;

  /** @param {ChartTrace[]} data */
  function fill(data) {
    stale = false;
    committed = fillTokens(data, turn);
    drawn = committed.slice();
  }

  /** @param {Turn | null} next */
  function show(next) {
    turn = next;
    stale = true;
    awaited = null;
  }

  // Hands all points to Plotly.
  function commit() {
    fill(chart.traces());
    Plotly.redraw(chart.element);
    redrawOverlay();
    return true;
  }

  // For use after Plotly has drawn, moved or zoomed.
  function redrawOverlay() {
    overlay.clear();
    drawn = committed.slice();
    if (!stale) drawNew();
    if (awaited && !stale) requestAnimationFrame(markAwaited);
  }

  function markAwaited() {
    if (awaited) hover(awaited.branch, awaited.position);
  }

  function drawNew() {
    let changed = false;
    chart.traces().forEach((trace, index) => {
      const series = seriesOf(turn, trace);
      if (!series || series.x.length === drawn[index]) return;
      overlay.draw(trace, series, drawn[index] ?? 0);
      drawn[index] = series.x.length;
      changed = true;
    });
    return changed;
  }

  const fits = () =>
    chart.traces().every((trace, n) => {
      const series = seriesOf(turn, trace);
      return !series || overlay.fits(series, drawn[n] ?? 0);
    });
  const hasUncommitted = () =>
    chart.traces().some((trace, n) => (seriesOf(turn, trace)?.x.length ?? 0) > (committed[n] ?? 0));

  // Draws everything that has arrived since the last call; true if there was anything.
  function advance() {
    if (stale) return commit();
    if (turn && turnIsLive(turn)) return fits() ? drawNew() : commit();
    return (hasUncommitted() || axisEnd() > tokenAxisLength(turn)) && commit();
  }

  // A pointer that moves over the chart needs hover text for all points; one that rests keeps the text it
  // has.
  function catchUp() {
    if (!chart.ready() || stale || !hasUncommitted() || performance.now() - caughtUpAt < CATCH_UP_MS) return;
    caughtUpAt = performance.now();
    commit();
  }

  /**
   * @param {Branch} branch
   * @param {number | null} position null for none
   */
  function hover(branch, position) {
    const waits = !chart.ready() || stale;
    awaited = waits && position !== null ? { branch, position } : null;
    if (waits) return;
    if (position !== null) catchUp();
    const reply = turn?.replies[branch];
    const token = position === null ? undefined : reply?.visibleTokens[position - 1];
    const role = token?.r ? "reasoning-raw" : "raw";
    const curveNumber = chart.traceIndex(role, branch);
    const pointNumber = position === null ? -1 : (reply?.series[role].x.indexOf(position) ?? -1);
    if (pointNumber < 0) Plotly.Fx.unhover(chart.element);
    else if (pointNumber < (committed[curveNumber] ?? 0))
      Plotly.Fx.hover(chart.element, [{ curveNumber, pointNumber }]);
  }

  chart.element.addEventListener("pointermove", catchUp);
  /**
   * How many points of a branch are visible.
   * @param {Branch} branch
   */
  function count(branch) {
    const drawnIn = (/** @type {SeriesRole} */ role) => drawn[chart.traceIndex(role, branch)] ?? 0;
    return chart.ready() ? drawnIn("raw") + drawnIn("reasoning-raw") : 0;
  }

  return { fill, show, advance, redrawOverlay, hover, count };
}

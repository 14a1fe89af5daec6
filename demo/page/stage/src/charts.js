// Both charts: drawn when Plotly has loaded, then updated at most once per frame.

/**
 * @import { Chart } from "./chart.js"
 * @import { PlotConfig, PlotElement, PlotPoint } from "./plotly"
 * @import { Branch, Figures, Turn } from "./types"
 */

import { makeChart } from "./chart.js";
import { find } from "./dom.js";
import { makeTokenChart } from "./token_chart.js";
import { makeTurnChart } from "./turn_chart.js";
import { byBranch } from "./turns.js";

/**
 * @typedef {object} ChartHooks
 * @property {(index: number) => void} selectTurn
 * @property {(branch: Branch, position: number) => void} flash
 * @property {(branch: Branch | null, position: number | null) => void} highlight
 * @property {() => void} missing Plotly could not be loaded
 */

const PLOTLY_DEADLINE_MS = 60000;
/** @type {(keyof import("./plotly").PlotEvents)[]} */
const EVENTS = ["plotly_hover", "plotly_unhover", "plotly_click", "plotly_afterplot", "plotly_relayouting"];

/**
 * @param {() => void} onLoaded
 * @param {() => void} onMissing
 */
export function whenPlotly(onLoaded, onMissing) {
  // The script is large and loads beside the page. The chat works meanwhile, and also without it.
  const deadline = Date.now() + PLOTLY_DEADLINE_MS;
  (function poll() {
    if (window.Plotly) onLoaded();
    else if (Date.now() > deadline) onMissing();
    else setTimeout(poll, 100);
  })();
}

/** Where a chart is drawn. Plotly gives the element its methods. */
const plotElement = (/** @type {HTMLElement} */ element) => /** @type {PlotElement} */ (element);

/**
 * @param {HTMLElement} root
 * @param {ChartHooks} hooks
 */
export function makeCharts(root, hooks) {
  /** @type {PlotConfig} */
  const config = { displaylogo: false, plotlyServerURL: "", responsive: false, doubleClick: "autosize" };
  const tokenBase = makeChart(plotElement(find(root, "#token-chart")), root, config);
  const turnBase = makeChart(plotElement(find(root, "#turn-chart")), root, {
    ...config,
    displayModeBar: false,
  });
  const tokenChart = makeTokenChart(tokenBase);
  const turnChart = makeTurnChart(turnBase);
  /** @type {{ figures: Figures | null; turns: Turn[] }} */
  const state = { figures: null, turns: [] };
  let scheduled = false;
  let updates = 0;

  const ready = () => tokenBase.ready() && turnBase.ready();

  async function start() {
    if (!window.Plotly || !state.figures) return;
    const { figures } = state;
    await tokenBase.draw(figures.token, tokenChart.fill);
    await turnBase.draw(figures.turn, turnChart.fill);
    // Another turn may have been shown meanwhile, with other reference lines.
    if (state.figures !== figures) {
      tokenBase.relabel(state.figures.token);
      turnBase.relabel(state.figures.turn);
    }
    tokenChart.redrawOverlay();
    turnChart.redrawOverlay();
    listen();
    schedule();
  }

  function listen() {
    const token = tokenBase.element;
    const turn = turnBase.element;
    listenTo(tokenBase, tokenChart.redrawOverlay);
    listenTo(turnBase, turnChart.redrawOverlay);
    token.on("plotly_hover", ({ points: [point] }) => point && hooks.highlight(branchOf(point), point.x));
    token.on("plotly_unhover", () => hooks.highlight(null, null));
    token.on("plotly_click", ({ points: [point] }) => {
      const branch = point && branchOf(point);
      if (branch) hooks.flash(branch, point.x);
    });
    turn.on("plotly_click", ({ points: [point] }) => point && hooks.selectTurn(Math.round(point.x) - 1));
  }

  /**
   * @param {Chart} chart
   * @param {() => void} redrawOverlay
   */
  function listenTo({ element, arrangeMarks }, redrawOverlay) {
    for (const event of EVENTS) element.removeAllListeners(event);
    element.on("plotly_afterplot", () => {
      arrangeMarks();
      redrawOverlay();
    });
    element.on("plotly_relayouting", redrawOverlay);
  }

  /**
   * @param {PlotPoint} point
   * @returns {Branch | null} null for a point that belongs to none
   */
  const branchOf = (point) => point.data.meta.branch || null;

  function draw() {
    scheduled = false;
    if (!ready()) return;
    // The token chart is not drawn while another tab covers it; the next draw after that adds what it missed.
    if (tokenBase.element.offsetWidth && tokenChart.advance()) updates += 1;
    turnChart.advance();
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(draw);
  }

  /**
   * @param {Figures | null | undefined} figures none: the same as before
   * @param {Turn[]} turns
   */
  function reset(figures, turns) {
    Object.assign(state, { figures: figures ?? state.figures, turns });
    tokenChart.show(null);
    turnChart.show(turns, null);
    start();
  }

  /** @param {Figures} figures */
  function relabel(figures) {
    if (figures === state.figures) return;
    state.figures = figures;
    if (!ready()) return;
    tokenBase.relabel(figures.token);
    turnBase.relabel(figures.turn);
  }

  /** @param {number} index */
  function show(index) {
    tokenChart.show(state.turns[index] ?? null);
    turnChart.show(state.turns, index);
    schedule();
  }

  /** @param {boolean} turnsChanged */
  function refresh(turnsChanged) {
    if (turnsChanged) turnChart.markChanged();
    schedule();
  }

  /** @param {import("./turn_chart.js").OtherTurns | null} other */
  function compareWith(other) {
    turnChart.compareWith(other);
    schedule();
  }

  function repaint() {
    tokenBase.repaint();
    turnBase.repaint();
  }

  function counts() {
    return { tokenPoints: byBranch(tokenChart.count), turnPoints: byBranch(turnChart.count), updates };
  }

  whenPlotly(start, () => hooks.missing());
  return { reset, relabel, show, compareWith, refresh, repaint, counts, hover: tokenChart.hover };
}

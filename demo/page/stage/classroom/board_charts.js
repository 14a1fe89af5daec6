// The two charts of the board: every conversation by turn, and the distribution at each turn.

/** @import { Chart } from "../src/chart.js" */
/** @import { PlotElement } from "../src/plotly" */
/** @import { ChartTrace, Figure } from "../src/types" */
/** @import { Row } from "./types" */

import { makeChart } from "../src/chart.js";
import { whenPlotly } from "../src/charts.js";
import { find } from "../src/dom.js";
import { fillBoard, lastTurn, tracesOf } from "./board_data.js";

const KINDS = /** @type {const} */ (["lines", "boxes"]);
const CONFIG = { displaylogo: false, plotlyServerURL: "", responsive: false, displayModeBar: false };

/**
 * @param {HTMLElement} root
 * @param {() => void} missing the plotting script could not be loaded
 */
export function makeBoardCharts(root, missing) {
  const charts = KINDS.map((kind) => {
    const element = /** @type {PlotElement} */ (find(root, `#${kind}-chart`));
    return { kind, element, chart: makeChart(element, root, CONFIG) };
  });
  /** @type {Figure | null} */
  let base = null;
  /** @type {Row[]} */
  let rows = [];
  let scheduled = false;
  /** @type {Set<Chart>} */
  const begun = new Set();
  let drawn = ""; // the rows that the charts show
  let axis = ""; // the figure whose lines and labels they show

  /** @param {ChartTrace[]} data */
  function fill(data) {
    fillBoard(data, rows);
    const frame = data.find(({ meta }) => !meta.branch);
    const values = data.flatMap(({ meta, y }) => (meta.branch ? y : [])).filter((y) => y !== null);
    if (frame) frame.y = [Math.min(-0.75, ...values) - 0.1, Math.max(1.5, ...values) + 0.1];
  }

  /**
   * @param {PlotElement} element
   * @param {Chart} chart
   * @param {Figure} figure
   */
  async function begin(element, chart, figure) {
    if (begun.has(chart)) return; // it is being drawn
    begun.add(chart);
    await chart.draw(figure, fill);
    if (base && base.layout !== figure.layout) chart.relabel(base);
    // Labels and bands follow the range of the axis, which a window of another size changes, too.
    element.on("plotly_afterplot", chart.arrangeMarks);
    schedule();
  }

  function draw() {
    const figure = base;
    if (!figure || !window.Plotly) return;
    const frame = figure.data.find(({ meta }) => !meta.branch);
    for (const { kind, element, chart } of charts) {
      if (!element.offsetWidth || !frame) continue;
      if (!chart.ready()) {
        begin(element, chart, { data: tracesOf(kind, frame), layout: figure.layout });
        continue;
      }
      fill(chart.traces());
      const layout = chart.layout();
      if (layout) layout.xaxis.dtick = Math.ceil(Math.max(1, lastTurn(rows)) / 10);
      Plotly.redraw(element);
    }
  }

  // Several messages that come together are drawn once.
  function schedule() {
    if (scheduled) return;
    scheduled = true;
    setTimeout(() => {
      scheduled = false;
      draw();
    }, 50);
  }

  whenPlotly(schedule, missing);

  return {
    /** @param {Figure} figure */
    prepare(figure) {
      const words = JSON.stringify(figure);
      if (words === axis) return;
      axis = words;
      base = figure;
      // A server that was restarted may have another axis, whose lines and labels are others.
      for (const { chart } of charts) if (chart.ready()) chart.relabel(figure);
      schedule();
    },
    /** @param {Row[]} found */
    show(found) {
      const words = JSON.stringify(found);
      if (words === drawn) return;
      drawn = words;
      rows = found;
      schedule();
    },
    repaint: () => {
      for (const { chart } of charts) chart.repaint();
    },
    /** @param {"svg" | "png"} format */
    picture: (format) => {
      for (const { kind, element } of charts)
        Plotly.downloadImage(element, { format, filename: `class-${kind}` });
    },
  };
}

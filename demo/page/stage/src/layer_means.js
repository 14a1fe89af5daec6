// The mean of a turn's replies at every decoder layer, as Plotly traces and a layout. Their words differ, so that
// only their means can be compared. Takes data and returns figures; uses neither the DOM nor Plotly.

/**
 * @import { PlotLayout, PlotTrace } from "./plotly"
 * @import { LayerData, Palette } from "./types"
 */

import { floorAt, intervened } from "./layer_figure.js";
import { DASHES } from "./turns.js";

/**
 * The mean over the tokens of the answer, by layer; empty for a reply without an answer.
 * @param {LayerData} data
 * @param {"own" | "plain"} mode
 * @returns {number[]}
 */
export function layerMeans(data, mode) {
  const rows = data[mode].slice(data.reasoning);
  if (!rows.length) return [];
  return (rows[0] ?? []).map(
    (_, layer) => rows.reduce((sum, row) => sum + (row[layer] ?? 0), 0) / rows.length,
  );
}

/**
 * @param {LayerData} data
 * @param {"own" | "plain"} mode
 * @param {Palette} colours
 * @returns {PlotTrace}
 */
function meanTrace(data, mode, colours) {
  const y = layerMeans(data, mode);
  const fine = mode === "plain";
  const intervention = data.branch === "steered" ? "steering" : "the cap";
  const color = colours[data.branch];
  return {
    type: "scatter",
    mode: "lines",
    name: fine ? `${data.branch}, without ${intervention}` : data.branch,
    x: y.map((_, layer) => layer),
    y,
    line: fine ? { color, width: 1.25, dash: "dot" } : { color, width: 2, dash: DASHES[data.branch] },
    hovertemplate: `${fine ? `without ${intervention}` : data.branch} · layer %{x}<br>mean %{y:.2f}<extra></extra>`,
    meta: { branch: "" }, // a click leads to no token
  };
}

/**
 * The floors of the cap, each at its layer; none without a cap.
 * @param {LayerData | undefined} data
 * @param {Palette} colours
 * @returns {PlotTrace[]}
 */
function floorTrace(data, colours) {
  if (!data?.cap) return [];
  const [first, last] = data.cap;
  const layers = Array.from({ length: last - first + 1 }, (_, n) => first + n);
  const y = layers.map((layer) => floorAt(data, layer));
  return [
    {
      type: "scatter",
      mode: "markers",
      name: "floors",
      x: layers,
      y,
      marker: { symbol: "line-ew-open", size: 9, color: colours.capped, line: { width: 2 } },
      hovertemplate: "floor at layer %{x}: %{y:.2f}<extra></extra>",
      meta: { branch: "" },
    },
  ];
}

/**
 * The probe layer as a line, the band of the cap shaded, and their labels above.
 * @param {LayerData | undefined} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 */
function bandMarks(data, colours, size) {
  if (!data) return { shapes: [], annotations: [] };
  const { probe, cap } = data;
  const up = { yref: "paper", y0: 0, y1: 1 };
  const note = { yref: "paper", y: 0, yanchor: "bottom", showarrow: false };
  const dotted = { color: colours.text, width: 1.25, dash: "dot" };
  const line = { ...up, type: "line", x0: probe, x1: probe, line: dotted };
  const font = { size, color: colours.text };
  const [first, last] = cap ?? [probe, probe];
  // The labels stand at the bottom, on either side of the probe layer's line: the band may lie on its left.
  const sides = probe > last ? ["left", "right"] : ["right", "left"];
  const shift = (/** @type {string | undefined} */ side) => (side === "left" ? 2 : -2);
  const [own, other] = sides;
  const label = { ...note, x: probe, xanchor: own, xshift: shift(own), text: `probe ${probe}`, font };
  if (!cap) return { shapes: [line], annotations: [label] };
  const shade = { fillcolor: colours.capped, opacity: 0.12, line: { width: 0 }, layer: "below" };
  const band = { ...up, type: "rect", x0: first - 0.5, x1: last + 0.5, ...shade };
  const bandLabel = {
    ...note,
    x: probe > last ? last + 0.5 : Math.max(first - 0.5, probe),
    xanchor: other,
    xshift: shift(other),
    text: `cap ${first}–${last}`,
    font: { size, color: colours.capped },
  };
  return { shapes: [band, line], annotations: [label, bandLabel] };
}

/**
 * @param {LayerData[]} shown
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @returns {{ data: PlotTrace[]; layout: PlotLayout }}
 */
export function meansFigure(shown, colours, size) {
  const marked = shown.find(({ cap }) => cap) ?? shown[0];
  const { shapes, annotations } = bandMarks(marked, colours, size);
  const layers = Math.max(...shown.map(({ plain }) => plain[0]?.length ?? 0));
  const axis = { zeroline: false, gridcolor: colours.grid, color: colours.muted };
  const title = (/** @type {string} */ text) => ({ text, standoff: 4, font: { size, color: colours.muted } });
  return {
    data: [
      ...floorTrace(marked, colours),
      ...shown.flatMap((data) => [
        ...(intervened(data) ? [meanTrace(data, "plain", colours)] : []),
        meanTrace(data, "own", colours),
      ]),
    ],
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 46, r: 10, t: 6, b: 36 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
      shapes,
      annotations,
      font: { size, color: colours.muted },
      showlegend: true,
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size, color: colours.text } },
      uirevision: `${shown[0]?.turn}/means`,
      xaxis: { ...axis, range: [-0.5, layers - 0.5], title: title("decoder layer") },
      yaxis: { ...axis, title: title("mean, axis units") },
    },
  };
}

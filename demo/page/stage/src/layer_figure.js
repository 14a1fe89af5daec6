// The layer view as Plotly traces and a layout: the tokens of one reply at every decoder layer, with the probe
// layer and the capped band marked. Takes data and returns figures; uses neither the DOM nor Plotly.

/**
 * @import { PlotLayout, PlotTrace } from "./plotly"
 * @import { Branch, ByBranch, LayerData, Palette, Reply } from "./types"
 */

import { number, tokenLabel } from "./text.js";
import { BRANCHES, TONE_CENTRE } from "./turns.js";

/** @typedef {"own" | "plain" | "change"} LayerMode */

// In axis units, from the centre of the colour scale to either end. It is the same for all replies, so that
// their colours can be compared.
const LAYER_RANGE = 1.5;
const STRIP = 0.07; // the height of the strip above the layers, as a share of theirs

/**
 * The values of the heat map, layers x tokens.
 * @param {LayerData} data
 * @param {LayerMode} mode
 * @returns {number[][]}
 */
export function layerValues(data, mode) {
  const rows =
    mode === "change"
      ? data.own.map((row, n) => row.map((value, layer) => value - (data.plain[n]?.[layer] ?? Number.NaN)))
      : data[mode];
  return (data.plain[0] ?? []).map((_, layer) => rows.map((row) => row[layer] ?? Number.NaN));
}

/**
 * The tokens that lie below the floor at one capped layer or more, as the unsteered model reads them.
 * @param {LayerData} data
 * @returns {number[]} their positions, from 1
 */
export function belowFloor({ cap, floors, plain }) {
  if (!cap) return [];
  const [first] = cap;
  const below = (/** @type {number[]} */ row) =>
    floors.some((floor, place) => (row[first + place] ?? floor) < floor);
  return plain.flatMap((row, n) => (below(row) ? [n + 1] : []));
}

/**
 * Whether the reply was written under an intervention, so that the unsteered model reads it differently.
 * @param {LayerData} data
 */
export const intervened = ({ branch, cap }) => branch === "steered" || (branch === "capped" && cap !== null);

/**
 * The branch to show: the chosen one, or the first if that has no reply.
 * @param {ByBranch<Reply>} replies
 * @param {Branch} chosen
 * @returns {Branch}
 */
export function branchToShow(replies, chosen) {
  if (!replies[chosen].absent) return chosen;
  return BRANCHES.find((branch) => !replies[branch].absent) ?? chosen;
}

/**
 * The values at the two ends of the colour scale.
 * @param {LayerMode} mode
 * @returns {[low: number, high: number]}
 */
export function colourRange(mode) {
  const centre = mode === "change" ? 0 : TONE_CENTRE;
  return [centre - LAYER_RANGE, centre + LAYER_RANGE];
}

/**
 * @param {LayerData} data
 * @param {number} layer
 * @returns {number | null}
 */
export function floorAt(data, layer) {
  if (!data.cap || layer < data.cap[0] || layer > data.cap[1]) return null;
  return data.floors[layer - data.cap[0]] ?? null;
}

/**
 * @param {LayerData} data
 * @param {LayerMode} mode
 * @param {Palette} colours
 * @returns {PlotTrace[]}
 */
export function layerTraces(data, mode, colours) {
  const [low, high] = colourRange(mode);
  const labels = data.tokens.map(tokenLabel);
  const floorText = (/** @type {number} */ layer) =>
    floorAt(data, layer) === null ? "" : `<br>floor ${number(floorAt(data, layer))}`;
  const z = layerValues(data, mode);
  /** @type {PlotTrace} */
  const heatmap = {
    type: "heatmap",
    z,
    x: labels.map((_, n) => n + 1),
    zmin: low,
    zmax: high,
    colorscale: [
      [0, colours["role-low"]],
      [0.5, colours.card],
      [1, colours["role-high"]],
    ],
    customdata: z.map((row, layer) => row.map((_, n) => [labels[n], floorText(layer)])),
    hovertemplate: "%{customdata[0]} · layer %{y}<br>%{z:.2f} axis units%{customdata[1]}<extra></extra>",
    showscale: false,
    xgap: 0.5,
    ygap: 0.5,
  };
  const marked = belowFloor(data);
  /** @type {PlotTrace} */
  const below = {
    type: "scatter",
    mode: "markers",
    x: marked,
    y: marked.map(() => (0.5 * STRIP + 1) * z.length - 0.5),
    hoverinfo: "skip",
    showlegend: false,
    marker: { symbol: "triangle-down", size: 6, color: colours.capped },
  };
  return [heatmap, below];
}

/**
 * Where the answer starts after reasoning: a line, and above the plot a label on either side of it.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 */
export function answerStart(data, colours, size) {
  if (!data.reasoning || data.reasoning >= data.tokens.length) return { shapes: [], annotations: [] };
  const x = data.reasoning + 0.5;
  const line = { color: colours.text, width: 1.25, dash: "dash" };
  const note = {
    x,
    yref: "paper",
    y: 1,
    yanchor: "bottom",
    showarrow: false,
    font: { size, color: colours.text },
  };
  return {
    shapes: [{ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line }],
    annotations: [
      { ...note, xanchor: "right", xshift: -2, text: "reasoning" },
      { ...note, xanchor: "left", xshift: 2, text: "answer" },
    ],
  };
}

/**
 * The probe layer and the capped layers: lines across the layers, and their labels in the margin. The band is
 * dashed where the cap did not act on the reply.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 */
function layerMarks({ probe, cap, branch }, colours, size) {
  const across = { xref: "paper", x0: 0, x1: 1 };
  const note = { xref: "paper", x: 1, xanchor: "left", xshift: 4, align: "left", showarrow: false };
  const dotted = { color: colours.text, width: 1.25, dash: "dot" };
  const font = { size, color: colours.text };
  const line = { ...across, type: "line", y0: probe, y1: probe, line: dotted };
  const label = { ...note, y: probe, yanchor: "middle", text: `probe ${probe}`, font };
  if (!cap) return { shapes: [line], annotations: [label] };
  const [first, last] = cap;
  const edge = { color: colours.capped, width: 2, dash: branch === "capped" ? "solid" : "dash" };
  const band = { ...across, type: "rect", y0: first - 0.5, y1: last + 0.5, line: edge };
  // At the end of the band that is further from the probe layer's label.
  const above = probe < (first + last) / 2;
  const bandLabel = {
    ...note,
    y: above ? last : first,
    yanchor: above ? "bottom" : "top",
    text: `cap ${first}–${last}`,
    font: { size, color: colours.capped },
  };
  return { shapes: [line, band], annotations: [label, bandLabel] };
}

/**
 * Both axes have the same ranges for all replies of a turn.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @param {number} longest the number of tokens of the turn's longest reply
 * @returns {PlotLayout}
 */
export function layerLayout(data, colours, size, longest) {
  const layers = data.plain[0]?.length ?? 0;
  const marks = layerMarks(data, colours, size);
  const start = answerStart(data, colours, size);
  const axis = { zeroline: false, showgrid: false, color: colours.muted };
  const title = (/** @type {string} */ text) => ({ text, standoff: 4, font: { size, color: colours.muted } });
  const across = [0.5, Math.max(longest, data.tokens.length) + 0.5];
  const up = [-0.5, (1 + STRIP) * layers - 0.5];
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 46, r: 6.5 * size, t: start.annotations.length ? 1.5 * size : 6, b: 36 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
    shapes: [...marks.shapes, ...start.shapes],
    annotations: [...marks.annotations, ...start.annotations],
    font: { size, color: colours.muted },
    uirevision: `${data.turn}`,
    xaxis: { ...axis, range: across, title: title("token") },
    yaxis: { ...axis, range: up, title: title("decoder layer") },
  };
}

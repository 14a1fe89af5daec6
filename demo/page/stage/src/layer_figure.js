// The layer view as Plotly traces and a layout: the tokens of a turn's replies at every decoder layer, with the probe
// layer and the capped band marked. Takes data and returns figures; uses neither the DOM nor Plotly.

/**
 * @import { PlotLayout, PlotTrace } from "./plotly"
 * @import { Branch, ByBranch, LayerData, Palette, Reply } from "./types"
 */

import { number, tokenLabel } from "./text.js";
import { BRANCHES, TONE_CENTRE } from "./turns.js";

/** @typedef {"own" | "plain" | "change" | "means"} LayerMode */
/** @typedef {Branch | "all"} LayerChoice */

/**
 * Where a reply is drawn: as number `n` of `count` heat maps, from 0, below each other or side by side.
 * @typedef {{ n: number; count: number; stacked: boolean }} Slot
 */

// In axis units, from the centre of the colour scale to either end. It is the same for all replies, so that
// their colours can be compared.
const LAYER_RANGE = 1.5;
const STRIP = 0.07; // the height of the strip above the layers, as a share of theirs
// Between two heat maps, as a share of the plot. Below each other there is a title between them.
const GAP = { stacked: 0.12, beside: 0.03 };

/**
 * The values of the heat map, layers x tokens.
 * @param {LayerData} data
 * @param {"own" | "plain" | "change"} mode
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
 * Whether the reply was written under an intervention, so that the unsteered model reads it differently.
 * @param {LayerData} data
 */
export const intervened = ({ branch, cap }) => branch === "steered" || (branch === "capped" && cap !== null);

/**
 * The branches to show: all that have a reply, or the chosen one, or the first if that has none.
 * @param {ByBranch<Reply>} replies
 * @param {LayerChoice} chosen
 * @returns {Branch[]}
 */
export function branchesToShow(replies, chosen) {
  const present = BRANCHES.filter((branch) => !replies[branch].absent);
  if (chosen === "all") return present;
  return present.includes(chosen) ? [chosen] : present.slice(0, 1);
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

/** @param {number} n */
const suffix = (n) => (n ? String(n + 1) : "");

/**
 * @param {LayerData} data
 * @param {"own" | "plain" | "change"} mode
 * @param {Palette} colours
 * @param {number} n which heat map it is, from 0
 * @returns {PlotTrace[]}
 */
function layerTraces(data, mode, colours, n) {
  const axes = { xaxis: `x${suffix(n)}`, yaxis: `y${suffix(n)}`, meta: { branch: data.branch } };
  const [low, high] = colourRange(mode);
  const labels = data.tokens.map(tokenLabel);
  const floorText = (/** @type {number} */ layer) =>
    floorAt(data, layer) === null ? "" : `<br>floor ${number(floorAt(data, layer))}`;
  const z = layerValues(data, mode);
  /** @type {PlotTrace} */
  const heatmap = {
    ...axes,
    type: "heatmap",
    z,
    x: labels.map((_, place) => place + 1),
    zmin: low,
    zmax: high,
    colorscale: [
      [0, colours["role-low"]],
      [0.5, colours.card],
      [1, colours["role-high"]],
    ],
    customdata: z.map((row, layer) => row.map((_, place) => [labels[place], floorText(layer)])),
    hovertemplate: "%{customdata[0]} · layer %{y}<br>%{z:.2f} axis units%{customdata[1]}<extra></extra>",
    showscale: false,
    xgap: 0.5,
    ygap: 0.5,
  };
  /** @type {PlotTrace} */
  const below = {
    ...axes,
    type: "scatter",
    mode: "markers",
    x: data.below,
    y: data.below.map(() => (0.5 * STRIP + 1) * z.length - 0.5),
    hoverinfo: "skip",
    showlegend: false,
    marker: { symbol: "triangle-down", size: 6, color: colours.capped },
  };
  return [heatmap, below];
}

/** @param {LayerData} data */
const startsLater = ({ reasoning, tokens }) => reasoning > 0 && reasoning < tokens.length;

/**
 * Where the answer starts after reasoning: a line, and above a heat map that stands alone a label on either side.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @param {Slot} slot
 */
function answerStart(data, colours, size, { n, count }) {
  if (!startsLater(data)) return { shapes: [], annotations: [] };
  const x = data.reasoning + 0.5;
  const line = { color: colours.text, width: 1.25, dash: "dash" };
  const [xref, yref] = [`x${suffix(n)}`, `y${suffix(n)} domain`];
  const font = { size, color: colours.text };
  const note = { x, xref, yref, y: 1, yanchor: "bottom", showarrow: false, font };
  const labels = [
    { ...note, xanchor: "right", xshift: -2, text: "reasoning" },
    { ...note, xanchor: "left", xshift: 2, text: "answer" },
  ];
  return {
    shapes: [{ type: "line", xref, x0: x, x1: x, yref, y0: 0, y1: 1, line }],
    annotations: count === 1 ? labels : [],
  };
}

/**
 * The probe layer and the capped layers: lines across the layers, and their labels in the margin, beside the last of
 * several heat maps. The band is dashed where the cap did not act on the reply.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @param {Slot} slot
 */
function layerMarks({ probe, cap, branch }, colours, size, { n, count, stacked }) {
  const [xref, yref] = [`x${suffix(n)} domain`, `y${suffix(n)}`];
  const across = { xref, yref, x0: 0, x1: 1 };
  const note = { xref, yref, x: 1, xanchor: "left", xshift: 4, align: "left", showarrow: false };
  const dotted = { color: colours.text, width: 1.25, dash: "dot" };
  const font = { size, color: colours.text };
  const line = { ...across, type: "line", y0: probe, y1: probe, line: dotted };
  const label = { ...note, y: probe, yanchor: "middle", text: `probe ${probe}`, font };
  const labelled = stacked || n === count - 1;
  if (!cap) return { shapes: [line], annotations: labelled ? [label] : [] };
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
  return { shapes: [line, band], annotations: labelled ? [label, bandLabel] : [] };
}

/**
 * The name of the branch above its heat map, where there are several.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @param {Slot} slot
 */
function title(data, colours, size, { n, count }) {
  if (count === 1) return [];
  const at = { xref: `x${suffix(n)} domain`, x: 0, xanchor: "left", yanchor: "bottom" };
  const font = { size, color: colours[data.branch] };
  const text = `${data.branch}${startsLater(data) ? " · dashed: answer" : ""}`;
  return [{ ...at, yref: `y${suffix(n)} domain`, y: 1, showarrow: false, text, font }];
}

/**
 * The shares of the plot that a heat map takes, from the left and from the bottom.
 * @param {Slot} slot
 */
function domains({ n, count, stacked }) {
  const gap = stacked ? GAP.stacked : GAP.beside;
  const part = (1 - gap * (count - 1)) / count;
  const start = (/** @type {number} */ place) => place * (part + gap);
  const whole = [0, 1];
  const upward = count - 1 - n; // the first is the uppermost
  if (stacked) return { x: whole, y: [start(upward), start(upward) + part] };
  return { x: [start(n), start(n) + part], y: whole };
}

/**
 * Both axes of a heat map. All have the same ranges, and are zoomed together.
 * @param {Slot} slot
 * @param {{ across: number[]; up: number[] }} ranges
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 */
function axesOf(slot, { across, up }, colours, size) {
  const { n, count, stacked } = slot;
  const { x, y } = domains(slot);
  const [right, above] = [!stacked && n > 0, stacked && n < count - 1];
  const axis = { zeroline: false, showgrid: false, color: colours.muted };
  const name = (/** @type {string} */ text) => ({ text, standoff: 4, font: { size, color: colours.muted } });
  const together = (/** @type {string} */ first) => (n ? { matches: first } : {});
  return {
    [`xaxis${suffix(n)}`]: {
      ...axis,
      ...together("x"),
      range: across,
      domain: x,
      anchor: `y${suffix(n)}`,
      showticklabels: !above,
      ...(above ? {} : { title: name("token") }),
    },
    [`yaxis${suffix(n)}`]: {
      ...axis,
      ...together("y"),
      range: up,
      domain: y,
      anchor: `x${suffix(n)}`,
      showticklabels: !right,
      ...(right ? {} : { title: name(stacked && count > 1 ? "layer" : "decoder layer") }),
    },
  };
}

/**
 * The heat maps of a turn's replies, all at the same scale.
 * @param {LayerData[]} shown
 * @param {"own" | "plain" | "change"} mode
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @param {number} longest the number of tokens of the turn's longest reply
 * @param {boolean} stacked below each other, not side by side
 * @returns {{ data: PlotTrace[]; layout: PlotLayout }}
 */
export function layerFigure(shown, mode, colours, size, longest, stacked) {
  const layers = Math.max(...shown.map(({ plain }) => plain[0]?.length ?? 0));
  const most = Math.max(longest, ...shown.map(({ tokens }) => tokens.length));
  const ranges = { across: [0.5, most + 0.5], up: [-0.5, (1 + STRIP) * layers - 0.5] };
  const parts = shown.map((data, n) => {
    const slot = { n, count: shown.length, stacked };
    const marks = layerMarks(data, colours, size, slot);
    const start = answerStart(data, colours, size, slot);
    return {
      axes: axesOf(slot, ranges, colours, size),
      shapes: [...marks.shapes, ...start.shapes],
      annotations: [...marks.annotations, ...title(data, colours, size, slot), ...start.annotations],
    };
  });
  const titled = shown.length > 1 || shown.some(({ reasoning }) => reasoning > 0);
  return {
    data: shown.flatMap((data, n) => layerTraces(data, mode, colours, n)),
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 46, r: 6.5 * size, t: titled ? 1.5 * size : 6, b: 36 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
      shapes: parts.flatMap(({ shapes }) => shapes),
      annotations: parts.flatMap(({ annotations }) => annotations),
      font: { size, color: colours.muted },
      uirevision: `${shown[0]?.turn}/${shown.length}/${stacked}`,
      ...Object.assign({}, ...parts.map(({ axes }) => axes)),
    },
  };
}

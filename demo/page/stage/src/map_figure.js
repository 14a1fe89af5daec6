// The persona map as Plotly traces and a layout. Takes data and returns figures; uses neither the DOM nor
// Plotly.

/**
 * @import { PlotLayout, PlotTrace } from "./plotly"
 * @import { Area, PlacedLabel } from "./map_labels.js"
 * @import { Branch, ByBranch, Palette, PersonaMap, Place, Range, Role, Turn } from "./types"
 */

import { axisWords, escapeHtml, number } from "./text.js";
import { BRANCHES, DASHES, SYMBOLS } from "./turns.js";

/**
 * @typedef {"12" | "13" | "3d"} MapView
 * @typedef {{ x?: number[]; y?: number[]; z?: number[] }} Coordinates
 * @typedef {{ place: Place; turn: number; live: boolean }} TrailPoint
 * @typedef {ByBranch<TrailPoint[]>} Trails
 */

/**
 * By view: the components along x, y and z.
 * @type {Record<MapView, number[]>}
 */
export const MAP_VIEWS = { 12: [0, 1], 13: [0, 2], "3d": [0, 1, 2] };
export const MAP_MARGIN = { l: 46, r: 8, t: 6, b: 38 };
const MAP_EXTREMES = 3; // the number of roles labelled at either end of the axis
const TRAIL_TURNS = 8;
const MAP_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
/** @type {(keyof Coordinates)[]} */
const COORDINATES = ["x", "y", "z"];

/** @param {MapView} view */
export const is3d = (view) => MAP_VIEWS[view].length === 3;

/**
 * A colour mixed with its background, and opaque, because WebGL blends translucent lines differently.
 * @param {string} colour #rrggbb
 * @param {string} background #rrggbb
 * @param {number} share of the colour
 */
export function faded(colour, background, share) {
  const part = (/** @type {string} */ hex, /** @type {number} */ start) =>
    Number.parseInt(hex.slice(start, start + 2), 16);
  const mix = (/** @type {number} */ start) =>
    Math.round(share * part(colour, start) + (1 - share) * part(background, start));
  return `rgb(${[1, 3, 5].map(mix).join(",")})`;
}

/**
 * The places as columns of coordinates, z only in 3-D.
 * @param {Place[]} places
 * @param {MapView} view
 * @returns {Coordinates}
 */
export function columns(places, view) {
  const parts = MAP_VIEWS[view];
  return Object.fromEntries(parts.map((part, n) => [COORDINATES[n], places.map((place) => place[part])]));
}

/** @param {Role[]} roles */
export function extremeRoles(roles) {
  const order = [...roles].sort((a, b) => a[2] - b[2]);
  return order.filter((_, index) => index < MAP_EXTREMES || index >= order.length - MAP_EXTREMES);
}

/**
 * The last turns of one branch up to the one that is shown, oldest first. The last point is the current
 * reply.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @param {number | null} shown
 * @returns {TrailPoint[]}
 */
export function trailOf(turns, branch, shown) {
  /** @type {TrailPoint[]} */
  const points = [];
  turns.slice(0, (shown ?? -1) + 1).forEach((turn, index) => {
    const { place, finish } = turn.replies[branch];
    if (place) points.push({ place, turn: index, live: finish === null });
  });
  return points.slice(-TRAIL_TURNS);
}

/**
 * The part of a trail's trace that changes while a reply is being written.
 * @param {TrailPoint[]} points
 * @param {MapView} view
 */
export function trailPlaces(points, view) {
  const customdata = points.map((point) => `turn ${point.turn + 1}${point.live ? ", so far" : ""}`);
  return {
    ...columns(
      points.map((point) => point.place),
      view,
    ),
    customdata,
  };
}

/**
 * @param {TrailPoint[]} points
 * @param {MapView} view
 * @param {string} colour
 * @param {string} background
 */
function trailMarkers(points, view, colour, background) {
  const last = points.length - 1;
  const [large, small] = is3d(view) ? [11, 5] : [17, 7];
  const older = (/** @type {number} */ age) => faded(colour, background, Math.max(0.2, 0.8 - 0.1 * age));
  return {
    size: points.map((_, index) => (index === last ? large : small)),
    color: points.map((_, index) => (index === last ? colour : older(last - index))),
  };
}

/**
 * A box around all places, by component of the view.
 * @param {Place[]} places
 * @param {MapView} view
 * @returns {Range[]}
 */
export function boundsOf(places, view) {
  return MAP_VIEWS[view].map((part) => {
    const values = places.map((place) => place[part] ?? 0);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = 0.06 * (high - low || 1);
    return [low - pad, high + pad];
  });
}

/**
 * Widens one of the two ranges so that a unit is as long in x as in y; otherwise the axis would have a wrong
 * angle.
 * @param {Range} x
 * @param {Range} y
 * @param {Area} area
 * @returns {[x: Range, y: Range]}
 */
export function fitRanges(x, y, { width, height }) {
  const scale = Math.max((x[1] - x[0]) / width, (y[1] - y[0]) / height);
  const widened = (/** @type {Range} */ [low, high], /** @type {number} */ pixels) => {
    const extra = (scale * pixels - (high - low)) / 2;
    return /** @type {Range} */ ([low - extra, high + extra]);
  };
  return [widened(x, width), widened(y, height)];
}

/**
 * @param {PersonaMap} map
 * @param {MapView} view
 * @param {Palette} colours
 * @param {PlotTrace} base
 * @returns {PlotTrace}
 */
function roleTrace(map, view, colours, base) {
  const reach = Math.max(...map.roles.map((role) => Math.abs(role[2])), 1e-6);
  return {
    ...base,
    ...columns(
      map.roles.map((role) => role[1]),
      view,
    ),
    meta: { role: "roles" },
    mode: "markers",
    customdata: map.roles.map(([name, , projection]) => [escapeHtml(name), number(projection)]),
    hovertemplate: "<b>%{customdata[0]}</b><br>projection %{customdata[1]} (axis units)<extra></extra>",
    marker: {
      size: is3d(view) ? 3.5 : 6,
      opacity: 0.8,
      color: map.roles.map((role) => role[2]),
      cmin: -reach,
      cmax: reach,
      colorscale: [
        [0, colours["role-low"]],
        [0.5, colours["role-mid"]],
        [1, colours["role-high"]],
      ],
      showscale: false,
      line: { width: 0 },
    },
  };
}

/**
 * @param {PersonaMap} map
 * @param {MapView} view
 * @param {Palette} colours
 * @param {PlotTrace} base
 * @returns {PlotTrace}
 */
function axisTrace(map, view, colours, base) {
  const arrow = {
    symbol: "arrow",
    angleref: "previous",
    size: [0, 13],
    standoff: [0, 8],
    color: colours.text,
    opacity: 1,
  };
  return {
    ...base,
    ...columns([[0, 0, 0], map.default], view),
    meta: { role: "axis" },
    hoverinfo: "skip",
    mode: is3d(view) ? "lines" : "lines+markers",
    line: { color: colours.text, width: is3d(view) ? 5 : 1.75 },
    ...(is3d(view) ? {} : { marker: arrow }),
  };
}

/**
 * @param {PersonaMap} map
 * @param {MapView} view
 * @param {Palette} colours
 * @param {PlotTrace} base
 * @returns {PlotTrace}
 */
function landmarkTrace(map, view, colours, base) {
  const symbol = is3d(view) ? ["x", "cross"] : ["x-thin-open", "star"];
  return {
    ...base,
    ...columns([[0, 0, 0], map.default], view),
    meta: { role: "landmarks" },
    mode: "markers",
    customdata: ["average role", axisWords().default],
    hovertemplate: "<b>%{customdata}</b><extra></extra>",
    marker: {
      symbol,
      size: is3d(view) ? [4, 7] : [9, 16],
      color: colours.text,
      opacity: 1,
      line: {
        width: is3d(view) ? 0 : [2, 1],
        color: is3d(view) ? colours.card : [colours.text, colours.card],
      },
    },
  };
}

/**
 * @param {PlacedLabel[]} labels
 * @param {MapView} view
 * @param {Palette} colours
 * @param {PlotTrace} base
 * @param {number} size of the text in pixels
 * @returns {PlotTrace}
 */
function labelTrace(labels, view, colours, base, size) {
  const halo = `0 0 2px ${colours.card}, 0 0 4px ${colours.card}`;
  return {
    ...base,
    ...columns(
      labels.map((label) => label.place),
      view,
    ),
    meta: { role: "labels" },
    mode: "markers+text",
    // Invisible: it keeps the text off the point.
    marker: { size: labels.map((label) => 2 * label.gap), opacity: 0 },
    text: labels.map((label) => escapeHtml(label.text)),
    textposition: labels.map((label) => label.side),
    textfont: { size, color: colours.text, ...(is3d(view) ? {} : { shadow: halo }) },
    hoverinfo: "skip",
    ...(is3d(view) ? {} : { cliponaxis: false }),
  };
}

/**
 * @param {TrailPoint[]} points
 * @param {Branch} branch
 * @param {MapView} view
 * @param {Palette} colours
 * @param {PlotTrace} base
 * @returns {PlotTrace}
 */
function branchTrace(points, branch, view, colours, base) {
  const dash = is3d(view) && branch !== "capped" ? "dash" : DASHES[branch];
  return {
    ...base,
    ...trailPlaces(points, view),
    meta: { role: "reply", branch },
    mode: "lines+markers",
    ...(is3d(view) ? {} : { cliponaxis: false }),
    hovertemplate: `<b>${branch}</b> · %{customdata}<br>mean of the reply<extra></extra>`,
    line: { color: faded(colours[branch], colours.card, 0.5), width: is3d(view) ? 3 : 1.5, dash },
    marker: {
      ...trailMarkers(points, view, colours[branch], colours.card),
      symbol: SYMBOLS[branch],
      opacity: 1,
      line: { color: colours.card, width: is3d(view) ? 0 : 1.5 },
    },
  };
}

/**
 * The last traces, one per branch, are the ones that move.
 * @param {PersonaMap} map
 * @param {Trails} trails
 * @param {MapView} view
 * @param {Palette} colours
 * @param {PlacedLabel[]} labels the result of labels2d or labels3d
 * @param {number} size of the text in pixels
 * @returns {PlotTrace[]}
 */
export function mapTraces(map, trails, view, colours, labels, size) {
  /** @type {PlotTrace} */
  const base = { type: is3d(view) ? "scatter3d" : "scatter", showlegend: false };
  const replies = BRANCHES.map((branch) => branchTrace(trails[branch], branch, view, colours, base));
  const fixed = [roleTrace, axisTrace, landmarkTrace].map((build) => build(map, view, colours, base));
  return [...fixed, labelTrace(labels, view, colours, base, size), ...replies];
}

/**
 * @param {PersonaMap} map
 * @param {number} part
 * @param {MapView} view
 */
function componentTitle(map, part, view) {
  const share = map.variance.length ? ` (${Math.round(100 * (map.variance[part] ?? 0))}%)` : "";
  const toward = part === 0 && !is3d(view) ? `, ${axisWords().side} →` : "";
  return `PC${part + 1}${share}${toward}`;
}

/**
 * Far enough away for the names of the axes to be visible in a narrow box.
 * @param {number} ratio the width of the box divided by its height
 */
export function cameraFor(ratio) {
  const far = Math.min(1.8, Math.max(1, 1.3 / ratio));
  return { eye: { x: 0.75 * far, y: -1.95 * far, z: 0.75 * far }, center: { x: -0.02, y: 0, z: -0.12 } };
}

/**
 * @param {PersonaMap} map
 * @param {MapView} view
 * @param {Palette} colours
 * @param {Range[]} ranges one for each axis
 * @param {number} size of the text in pixels
 * @param {number} ratio width divided by height
 * @returns {PlotLayout}
 */
export function mapLayout(map, view, colours, ranges, size, ratio) {
  const font = { family: MAP_FONT, size, color: colours.muted };
  const axes = MAP_VIEWS[view].map((part, n) => ({
    range: ranges[n],
    title: { text: componentTitle(map, part, view), standoff: 4, font },
    gridcolor: colours.grid,
    color: colours.muted,
    zeroline: false,
    showline: false,
    ticks: "",
    nticks: is3d(view) ? 5 : 7,
  }));
  const clear = "rgba(0,0,0,0)";
  const layout = {
    paper_bgcolor: clear,
    plot_bgcolor: clear,
    font,
    showlegend: false,
    hovermode: "closest",
    uirevision: view,
    margin: is3d(view) ? { l: 0, r: 0, t: 0, b: 0 } : MAP_MARGIN,
    modebar: { bgcolor: clear, color: colours.muted, activecolor: colours.text },
    hoverlabel: {
      bgcolor: colours.card,
      bordercolor: colours.border,
      align: "left",
      font: { ...font, color: colours.text, size: size + 1 },
    },
  };
  if (is3d(view)) {
    const [xaxis, yaxis, zaxis] = axes.map((axis) => ({
      ...axis,
      backgroundcolor: clear,
      showspikes: false,
    }));
    return { ...layout, scene: { xaxis, yaxis, zaxis, aspectmode: "data", camera: cameraFor(ratio) } };
  }
  return { ...layout, xaxis: axes[0], yaxis: { ...axes[1], scaleanchor: "x" } };
}

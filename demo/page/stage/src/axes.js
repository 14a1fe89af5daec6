// Where a point lies on a Plotly chart. Everything comes from Plotly's public fields but for one, in
// drawnRange.

/**
 * @import { PlotElement } from "./plotly"
 * @import { ChartLayout, Range } from "./types"
 */

/**
 * One axis as it is drawn.
 * @typedef {object} Axis
 * @property {Range} range the values at its two ends
 * @property {boolean} auto whether Plotly chooses the range
 * @property {number} start from the chart's left or upper edge to the plotting area, in pixels
 * @property {number} length of the plotting area, in pixels
 * @property {(value: number) => number} pixel from the left or upper edge of the plotting area
 */

/** @typedef {{ x: Axis; y: Axis }} Axes */

/**
 * While the user drags an axis, Plotly moves it without noting that in element.layout, which it does at the
 * end. The event of the drag cannot help: for a box that is being drawn it names ranges that do not hold yet.
 * So this reads _fullLayout, which is not public. Without it, the overlay would only stay behind until the
 * drag ends. A test holds the version of plotly.js for which this was written.
 * @param {PlotElement} element
 * @param {"xaxis" | "yaxis"} name
 * @returns {unknown}
 */
function drawnRange(element, name) {
  const { _fullLayout: drawn } = /** @type {{ _fullLayout?: Record<string, { range?: unknown }> }} */ (
    /** @type {unknown} */ (element)
  );
  return drawn?.[name]?.range;
}

/**
 * @param {unknown} value
 * @returns {Range | null}
 */
function asRange(value) {
  if (!Array.isArray(value) || value.length !== 2) return null;
  const [low, high] = value.map(Number);
  return low !== undefined && high !== undefined && low !== high && Number.isFinite(low + high)
    ? [low, high]
    : null;
}

/**
 * @param {Range} range
 * @param {number} length
 * @param {boolean} upwards
 * @returns {(value: number) => number}
 */
export function scaleOf([first, last], length, upwards) {
  return (value) => {
    const along = ((value - first) / (last - first)) * length;
    return upwards ? length - along : along;
  };
}

/**
 * The plotting area between the margins. They are fixed, because no axis has automargin, and Plotly rounds
 * them.
 * @param {{ width: number; height: number }} chart in pixels
 * @param {{ l: number; r: number; t: number; b: number }} margin
 */
export function plottingArea({ width, height }, margin) {
  const [left, top] = [Math.round(margin.l), Math.round(margin.t)];
  return {
    left,
    top,
    width: Math.round(width) - left - Math.round(margin.r),
    height: Math.round(height) - top - Math.round(margin.b),
  };
}

/**
 * The axes of a line chart that Plotly has drawn.
 * @param {PlotElement} element
 * @returns {Axes | null} null where there is no chart
 */
export function axesOf(element) {
  const picture = element.querySelector("svg");
  const layout = /** @type {ChartLayout | undefined} */ (element.layout);
  if (!picture || !layout) return null;
  // The picture has the size for which Plotly has drawn it; the element may have changed since.
  const side = (/** @type {string} */ name) => Number(picture.getAttribute(name));
  const size = { width: side("width"), height: side("height") };
  const area = plottingArea(size, layout.margin);
  const axis = (/** @type {"xaxis" | "yaxis"} */ name) => {
    const vertical = name === "yaxis";
    const range = asRange(drawnRange(element, name)) ?? asRange(layout[name].range) ?? [0, 1];
    const length = vertical ? area.height : area.width;
    const auto = Boolean(layout[name].autorange);
    const start = vertical ? area.top : area.left;
    return { range, auto, start, length, pixel: scaleOf(range, length, vertical) };
  };
  return { x: axis("xaxis"), y: axis("yaxis") };
}

// What changes while a reply streams is drawn on a canvas over the chart: for every new point Plotly would
// draw all its marks again, the overlay draws only the new ones. Plotly gets the points when the turn is
// over, or earlier where the pointer moves over the chart, because the overlay has no hover text.

/**
 * @import { Chart } from "./chart.js"
 * @import { Axes, Axis } from "./axes.js"
 * @import { ChartTrace, LineStyle, MarkerStyle } from "./types"
 */

import { axesOf } from "./axes.js";
import { makeElement } from "./dom.js";

/**
 * The points that the overlay draws. y is null where a line is interrupted.
 * @typedef {{ x: (number | null)[]; y: (number | null)[] }} Points
 */

/**
 * Corners in units of the marker's radius.
 * @type {Record<string, [right: number, down: number][]>}
 */
const MARKER_SHAPES = {
  circle: [], // an arc
  diamond: [
    [0, -1.3],
    [1.3, 0],
    [0, 1.3],
    [-1.3, 0],
  ],
  square: [
    [-1, -1],
    [1, -1],
    [1, 1],
    [-1, 1],
  ],
  "triangle-up": [
    [0, -1],
    [1.15, 0.58],
    [-1.15, 0.58],
  ],
};

/**
 * @param {CanvasRenderingContext2D} context
 * @param {string} name
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 */
function outlineMarker(context, name, x, y, radius) {
  context.beginPath();
  if (name === "circle") context.arc(x, y, radius, 0, 2 * Math.PI);
  else for (const [dx, dy] of MARKER_SHAPES[name] ?? []) context.lineTo(x + dx * radius, y + dy * radius);
  context.closePath();
}

/**
 * Whether a value is visible on an axis. An axis that the user has zoomed counts as showing everything.
 * @param {Axis} axis
 * @param {number | null | undefined} value
 */
const inside = ({ auto, range }, value) =>
  !auto || value === null || value === undefined || (value >= range[0] && value <= range[1]);

/**
 * Whether Plotly can leave its axes as they are for the points of a series from `from` on.
 * @param {Axes} axes
 * @param {Points} series
 * @param {number} from
 */
export function fitsAxes(axes, series, from) {
  for (let n = from; n < series.x.length; n += 1) {
    if (!inside(axes.x, series.x[n]) || !inside(axes.y, series.y[n])) return false;
  }
  return true;
}

/**
 * A point in pixels of the plotting area; null where the line is interrupted.
 * @param {Axes} axes
 * @param {Points} series
 * @param {number} n
 * @returns {[right: number, down: number] | null}
 */
export function pixelsOf(axes, series, n) {
  const [x, y] = [series.x[n] ?? null, series.y[n] ?? null];
  return x === null || y === null ? null : [axes.x.pixel(x), axes.y.pixel(y)];
}

/**
 * The lengths of a line's dashes and gaps in pixels; none for a solid line.
 * @param {string} [dash] as Plotly names it
 * @returns {number[]}
 */
export const dashesOf = (dash) => dash?.match(/[\d.]+/g)?.map(Number) ?? [];

/** @param {Chart} chart */
export function makeOverlay(chart) {
  const canvas = makeElement("canvas", "overlay");
  canvas.setAttribute("aria-hidden", "true");
  chart.element.after(canvas);
  const context = canvas.getContext("2d");
  /**
   * As they were when the overlay was last cleared.
   * @type {Axes | null}
   */
  let axes = null;
  let colours = chart.colours();
  /**
   * By trace: the length of its line in pixels, so that its dashes continue evenly.
   * @type {Map<ChartTrace, number>}
   */
  let lengths = new Map();

  // Empties the canvas and lays it exactly over the chart's plotting area, with the same scales.
  function clear() {
    axes = axesOf(chart.element);
    if (!axes || !context) return;
    const { x, y } = axes;
    const pixelRatio = window.devicePixelRatio || 1;
    colours = chart.colours();
    lengths = new Map();
    canvas.width = Math.round(x.length * pixelRatio); // setting the size also clears the canvas
    canvas.height = Math.round(y.length * pixelRatio);
    const { offsetLeft, offsetTop } = chart.element;
    Object.assign(canvas.style, {
      left: `${offsetLeft + x.start}px`,
      top: `${offsetTop + y.start}px`,
      width: `${x.length}px`,
      height: `${y.length}px`,
    });
    context.scale(pixelRatio, pixelRatio);
    context.lineCap = "butt";
    context.lineJoin = "round";
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Axes} axes
   * @param {ChartTrace} trace
   * @param {Points} series
   * @param {number} from
   */
  function drawLine(context, axes, trace, series, from) {
    /** @type {LineStyle} */
    const { color, width, dash } = trace.line;
    let length = lengths.get(trace) ?? 0;
    let last = null;
    context.globalAlpha = trace.opacity ?? 1;
    context.strokeStyle = color;
    context.lineWidth = width;
    context.setLineDash(dashesOf(dash));
    context.lineDashOffset = length;
    context.beginPath();
    for (let n = Math.max(0, from - 1); n < series.x.length; n += 1) {
      const here = pixelsOf(axes, series, n);
      if (here && last) length += Math.hypot(here[0] - last[0], here[1] - last[1]);
      if (here && last) context.lineTo(...here);
      else if (here) context.moveTo(...here);
      last = here;
    }
    context.stroke();
    context.setLineDash([]);
    lengths.set(trace, length);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Axes} axes
   * @param {Points} series
   * @param {number} from
   * @param {MarkerStyle} marker
   */
  function drawMarkers(context, axes, series, from, { symbol, size, opacity, color, line: edge }) {
    const open = symbol.endsWith("-open");
    const shape = symbol.replace("-open", "");
    context.globalAlpha = opacity ?? 1;
    context.fillStyle = context.strokeStyle = color;
    context.lineWidth = edge?.width || 1;
    for (let n = from; n < series.x.length; n += 1) {
      const here = pixelsOf(axes, series, n);
      if (!here) continue;
      outlineMarker(context, shape, ...here, size / 2);
      if (!open) context.fill();
      if (edge?.width) context.strokeStyle = open ? color : colours.card;
      if (open || edge?.width) context.stroke();
    }
  }

  /**
   * Draws a series from point `from` on in the style of a Plotly trace, joined to the point before.
   * @param {ChartTrace} trace
   * @param {Points} series
   * @param {number} from
   * @param {MarkerStyle} [marker]
   */
  function draw(trace, series, from, marker = trace.marker) {
    if (!context || !axes) return;
    if (trace.mode.includes("lines")) drawLine(context, axes, trace, series, from);
    if (trace.mode.includes("markers") && marker) drawMarkers(context, axes, series, from, marker);
    context.globalAlpha = 1;
  }

  /**
   * False where Plotly would have to extend an axis for a new point.
   * @param {Points} series
   * @param {number} from
   */
  const fits = (series, from) => !axes || fitsAxes(axes, series, from);

  return { clear, draw, fits };
}

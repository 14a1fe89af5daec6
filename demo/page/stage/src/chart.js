// A Plotly chart in the page's colours: drawn once, repainted when the theme or its width changes.

/**
 * @import { PlotConfig, PlotElement, ModeBarButton } from "./plotly"
 * @import { Branch, ChartLayout, ChartTrace, Figure, Palette, PaletteColour } from "./types"
 */

import { axesOf } from "./axes.js";
import { placedBands, placedNotes } from "./marks.js";

const NARROW_PX = 360;
const NARROW_MARGIN = 76; // to the right of a narrow chart, in pixels at the usual text size
/** @type {readonly PaletteColour[]} */
const PALETTE = [
  "uncapped",
  "capped",
  "steered",
  "card",
  "text",
  "muted",
  "grid",
  "border",
  "role-low",
  "role-mid",
  "role-high",
];

/**
 * Only buttons that send nothing to another site. A function, because the icons come with Plotly.
 * @returns {(string | ModeBarButton)[][]}
 */
export function chartButtons() {
  const svg = {
    name: "Download plot as an SVG",
    icon: Plotly.Icons.disk,
    click: (/** @type {PlotElement} */ element) => {
      Plotly.downloadImage(element, { format: "svg", filename: "persona-drift" });
    },
  };
  return [["toImage", svg, "zoom2d", "pan2d", "resetScale2d"]];
}

/**
 * The colours that the style sheet defines for the theme.
 * @param {HTMLElement} root
 * @returns {Palette}
 */
export function palette(root) {
  const style = getComputedStyle(root);
  const colours = PALETTE.map((name) => [name, style.getPropertyValue(`--stage-${name}`).trim()]);
  return { ...Object.fromEntries(colours), size: Number.parseFloat(style.fontSize) };
}

/**
 * A base layout in the page's colours and text size.
 * @param {ChartLayout} base
 * @param {Palette} colours
 * @param {boolean} narrow
 */
export function themedLayout(base, colours, narrow) {
  const { shapes, annotations, margin, font, xaxis, yaxis } = structuredClone(base);
  const small = Math.max(10, colours.size * 0.75);
  const scale = small / 12;
  const right = narrow ? NARROW_MARGIN : margin.r;
  for (const axis of [xaxis, yaxis]) axis.title.font = { size: small, color: colours.muted };
  for (const shape of shapes) {
    if (shape.type === "line")
      shape.line.color = shape.name === "line-floor" ? colours.capped : colours.muted;
    else shape.fillcolor = shape.name === "band-role" ? colours["role-low"] : colours["role-high"];
  }
  for (const note of annotations) {
    const floor = note.name === "label-floor";
    note.font = { size: small, color: floor ? colours.capped : colours.muted };
    // One word per line fits a small margin. The labels of the two ends are short.
    if (narrow && note.yref !== "paper") note.text = note.text.replace(/ /g, "<br>");
  }
  return {
    shapes,
    annotations,
    margin: { l: margin.l * scale, r: right * scale, t: margin.t * scale, b: margin.b * scale },
    font: { ...font, size: small, color: colours.muted },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
    titles: { xaxis: xaxis.title, yaxis: yaxis.title },
    hoverlabel: {
      bgcolor: colours.card,
      bordercolor: colours.border,
      align: "left",
      font: { family: font.family, color: colours.text, size: small + 1 },
    },
  };
}

/**
 * @param {ChartTrace} trace
 * @param {Palette} colours
 */
export function colourTrace(trace, colours) {
  const colour = trace.meta.branch ? colours[trace.meta.branch] : colours.muted;
  if (trace.line) trace.line.color = colour;
  if (!trace.marker) return;
  trace.marker.color = colour;
  if (trace.marker.line) trace.marker.line.color = colours.card; // hollow markers ignore it
}

/** @typedef {ReturnType<typeof makeChart>} Chart */

/**
 * @param {PlotElement} element
 * @param {HTMLElement} root
 * @param {PlotConfig} config
 */
export function makeChart(element, root, config) {
  /** @type {"empty" | "drawing" | "ready"} */
  let state = "empty";
  let narrow = false;
  let colours = palette(root); // as the chart was last painted

  /** The traces that Plotly shows. */
  const traces = () => /** @type {ChartTrace[]} */ (element.data ?? []);
  const layoutOf = () => /** @type {ChartLayout | undefined} */ (element.layout);

  /**
   * @param {Figure} figure
   * @param {ChartTrace[]} data
   * @param {ChartLayout} layout
   */
  function applyTheme(figure, data, layout) {
    colours = palette(root);
    narrow = element.offsetWidth < NARROW_PX;
    const { titles, ...rest } = themedLayout(figure.layout, colours, narrow);
    Object.assign(layout, rest);
    Object.assign(layout.xaxis, { title: titles.xaxis, gridcolor: colours.grid });
    Object.assign(layout.yaxis, { title: titles.yaxis, gridcolor: colours.grid });
    for (const trace of data) colourTrace(trace, colours);
    Object.assign(layout, arranged(layout));
  }

  /**
   * A layout's reference marks for the range that Plotly has drawn; the layout's own where it has drawn none.
   * @param {ChartLayout} layout
   */
  function arranged({ shapes, annotations, meta, font }) {
    const axes = state === "ready" ? axesOf(element) : null;
    if (!axes) return { shapes, annotations };
    return {
      shapes: placedBands(shapes, axes.y, meta.zones),
      annotations: placedNotes(annotations, axes.y, font.size),
    };
  }

  /** @type {Figure | null} */
  let base = null;

  /**
   * @param {Figure} figure
   * @param {(data: ChartTrace[]) => void} fill adds the points
   */
  async function draw(figure, fill) {
    state = "drawing";
    base = figure;
    const { data, layout } = structuredClone(figure);
    applyTheme(figure, data, layout);
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    fill(data);
    const { offsetWidth, offsetHeight } = element;
    await Plotly.newPlot(element, data, layout, { ...config, modeBarButtons: chartButtons() });
    state = "ready";
    // What stands over the chart may have changed its height meanwhile.
    if (element.offsetWidth !== offsetWidth || element.offsetHeight !== offsetHeight) resize();
    arrangeMarks();
  }

  // After every drawing by Plotly: labels and bands follow the range of the axis.
  function arrangeMarks() {
    const layout = layoutOf();
    if (state !== "ready" || !layout) return;
    const { shapes, annotations } = layout;
    const wanted = arranged(layout);
    if (JSON.stringify(wanted) !== JSON.stringify({ shapes, annotations })) Plotly.relayout(element, wanted);
  }

  function repaint() {
    const layout = layoutOf();
    if (state !== "ready" || !base || !layout) return;
    applyTheme(base, traces(), layout);
    Plotly.redraw(element);
  }

  /** @param {Figure} figure */
  function relabel(figure) {
    base = figure;
    const layout = layoutOf();
    if (layout) layout.meta = figure.layout.meta;
    repaint();
  }

  function resize() {
    if (state !== "ready" || element.offsetWidth === 0) return;
    if (narrow !== element.offsetWidth < NARROW_PX) repaint();
    Plotly.Plots.resize(element);
  }

  /**
   * @param {string} role
   * @param {Branch} branch
   */
  function traceIndex(role, branch) {
    return traces().findIndex((trace) => trace.meta.role === role && trace.meta.branch === branch);
  }

  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  return {
    element,
    traces,
    layout: layoutOf,
    draw,
    relabel,
    repaint,
    arrangeMarks,
    traceIndex,
    colours: () => colours,
    ready: () => state === "ready",
  };
}

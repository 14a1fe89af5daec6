// A Plotly chart in the page's colours: drawn once, repainted when the theme or its width changes.

const NARROW_PX = 360;
const SVG_BUTTON = {
  name: "Download plot as an SVG", icon: null,
  click: (element) => Plotly.downloadImage(element, { format: "svg", filename: "persona-drift" }),
};
// Only buttons that send nothing to another site. A function, because the icons come with Plotly.
const chartButtons = () => [["toImage", { ...SVG_BUTTON, icon: Plotly.Icons.disk }, "zoom2d", "pan2d", "resetScale2d"]];

const PALETTE = [
  "uncapped", "capped", "steered", "card", "text", "muted", "grid", "border", "role-low", "role-mid", "role-high",
];

function palette(root) {
  const style = getComputedStyle(root);
  const colours = PALETTE.map((name) => [name, style.getPropertyValue(`--stage-${name}`).trim()]);
  return { ...Object.fromEntries(colours), size: parseFloat(style.fontSize) };
}

function moveLabelsInside(note) {
  // A narrow chart has no room in its margin. Lines are labelled at their left end; the floor at its right end, and
  // below its line where there is more room there.
  if (note.yref === "paper") return;
  const floor = note.name === "label-floor";
  const place = floor ? { xanchor: "right", xshift: -4 } : { x: 0, xanchor: "left", xshift: 4 };
  Object.assign(note, place, { yanchor: floor && note.y >= 0.5 ? "top" : "bottom", yshift: 0 });
  note.text = note.text.replace(" (", "<br>(");
}

function themedLayout(base, colours, narrow) {
  const { shapes, annotations, margin, font, xaxis, yaxis } = structuredClone(base);
  const small = Math.max(10, colours.size * 0.75);
  const scale = small / 12;
  for (const axis of [xaxis, yaxis]) axis.title.font = { size: small, color: colours.muted };
  for (const shape of shapes) {
    if (shape.type === "line") shape.line.color = shape.name === "line-floor" ? colours.capped : colours.muted;
    else shape.fillcolor = colours.muted;
  }
  for (const note of annotations) {
    const floor = note.name === "label-floor";
    note.font = { size: small, color: floor ? colours.capped : colours.muted };
    if (narrow) moveLabelsInside(note);
    else if (floor && note.yanchor === "bottom") note.bgcolor = colours.card + "a0"; // points stay visible through it
  }
  return {
    shapes, annotations,
    margin: { ...margin, l: margin.l * scale, b: margin.b * scale, r: narrow ? 10 : margin.r * scale },
    font: { ...font, size: small, color: colours.muted },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
    titles: { xaxis: xaxis.title, yaxis: yaxis.title },
    hoverlabel: {
      bgcolor: colours.card, bordercolor: colours.border, align: "left",
      font: { family: font.family, color: colours.text, size: small + 1 },
    },
  };
}

function colourTrace(trace, colours) {
  const colour = colours[trace.meta.branch] ?? colours.muted;
  if (trace.line) trace.line.color = colour;
  if (!trace.marker) return;
  trace.marker.color = colour;
  if (trace.marker.line) trace.marker.line.color = colours.card; // hollow markers ignore it
}

function makeChart(element, root, config) {
  let figure = null;
  let state = "empty"; // -> "drawing" -> "ready"
  let narrow = false;
  let colours = null; // as the chart was last painted

  function applyTheme(data, layout) {
    colours = palette(root);
    narrow = element.offsetWidth < NARROW_PX;
    const { titles, ...rest } = themedLayout(figure.layout, colours, narrow);
    Object.assign(layout, rest);
    for (const [name, title] of Object.entries(titles)) Object.assign(layout[name], { title, gridcolor: colours.grid });
    for (const trace of data) colourTrace(trace, colours);
  }

  async function draw(newFigure, fill) {
    state = "drawing";
    figure = newFigure;
    const { data, layout } = structuredClone(figure);
    applyTheme(data, layout);
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    fill(data);
    await Plotly.newPlot(element, data, layout, { ...config, modeBarButtons: chartButtons() });
    state = "ready";
  }

  function repaint() {
    if (state !== "ready") return;
    applyTheme(element.data, element.layout);
    Plotly.redraw(element);
  }

  function relabel(newFigure) {
    figure = newFigure;
    if (element.layout) element.layout.meta = figure.layout.meta;
    repaint();
  }

  function resize() {
    if (state !== "ready" || element.offsetWidth === 0) return;
    if (narrow !== element.offsetWidth < NARROW_PX) repaint();
    Plotly.Plots.resize(element);
  }

  function traceIndex(role, branch) {
    return element.data.findIndex((trace) => trace.meta.role === role && trace.meta.branch === branch);
  }

  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  return { element, draw, relabel, repaint, traceIndex, colours: () => colours, ready: () => state === "ready" };
}

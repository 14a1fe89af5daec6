// A Plotly chart in the page's colours: drawn once, repainted when the theme or its width changes.

const NARROW_PX = 360;
const SVG_BUTTON = {
  name: "Download plot as an SVG", icon: null,
  click: (element) => Plotly.downloadImage(element, { format: "svg", filename: "persona-drift" }),
};
// Nothing that leaves the page. A function, because the icons come with Plotly.
const boardButtons = () => [["toImage", { ...SVG_BUTTON, icon: Plotly.Icons.disk }, "zoom2d", "pan2d", "resetScale2d"]];

function palette(root) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(`--stage-${name}`).trim();
  const names = ["uncapped", "capped", "steered", "card", "ink", "quiet", "grid", "edge", "role-low", "role-mid", "role-high"];
  return { ...Object.fromEntries(names.map((name) => [name, read(name)])), size: parseFloat(style.fontSize) };
}

function moveLabelsInside(note) {
  // A narrow plot has no margin to spare: lines are named at their left end, the floor at its right end, below
  // its line where there is more room there.
  if (note.yref === "paper") return;
  const floor = note.name === "label-floor";
  const place = floor ? { xanchor: "right", xshift: -4 } : { x: 0, xanchor: "left", xshift: 4 };
  Object.assign(note, place, { yanchor: floor && note.y >= 0.5 ? "top" : "bottom", yshift: 0 });
  note.text = note.text.replace(" (", "<br>(");
}

function dressLayout(base, colours, narrow) {
  const { shapes, annotations, margin, font, xaxis, yaxis } = structuredClone(base);
  const small = Math.max(10, colours.size * 0.75);
  for (const axis of [xaxis, yaxis]) axis.title.font = { size: small, color: colours.quiet };
  for (const shape of shapes) {
    if (shape.type === "line") shape.line.color = shape.name === "line-floor" ? colours.capped : colours.quiet;
    else shape.fillcolor = colours.quiet;
  }
  for (const note of annotations) {
    const floor = note.name === "label-floor";
    note.font = { size: small, color: floor ? colours.capped : colours.quiet };
    if (narrow) moveLabelsInside(note);
    else if (floor && note.yanchor === "bottom") note.bgcolor = colours.card + "a0"; // points stay visible through it
  }
  return {
    shapes, annotations,
    margin: { ...margin, l: margin.l * (small / 12), b: margin.b * (small / 12), r: narrow ? 10 : margin.r * (small / 12) },
    font: { ...font, size: small, color: colours.quiet },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.quiet, activecolor: colours.ink },
    titles: { xaxis: xaxis.title, yaxis: yaxis.title },
    hoverlabel: {
      bgcolor: colours.card, bordercolor: colours.edge, align: "left",
      font: { family: font.family, color: colours.ink, size: small + 1 },
    },
  };
}

function paintTrace(trace, colours) {
  const colour = colours[trace.meta.branch] ?? colours.quiet;
  if (trace.line) trace.line.color = colour;
  if (!trace.marker) return;
  trace.marker.color = colour;
  if (trace.marker.line) trace.marker.line.color = colours.card; // hollow marks ignore it
}

function makeBoard(element, root, config) {
  let base = null;
  let state = "empty"; // -> "drawing" -> "ready"
  let narrow = false;
  let painted = null; // the colours of now

  function dress(data, layout) {
    const colours = (painted = palette(root));
    narrow = element.offsetWidth < NARROW_PX;
    const { titles, ...rest } = dressLayout(base.layout, colours, narrow);
    Object.assign(layout, rest);
    for (const [name, title] of Object.entries(titles)) Object.assign(layout[name], { title, gridcolor: colours.grid });
    for (const trace of data) paintTrace(trace, colours);
  }

  async function draw(figure, fill) {
    state = "drawing";
    base = figure;
    const { data, layout } = structuredClone(figure);
    dress(data, layout);
    if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    fill(data);
    await Plotly.newPlot(element, data, layout, { ...config, modeBarButtons: boardButtons() });
    state = "ready";
  }

  function repaint() {
    if (state !== "ready") return;
    dress(element.data, element.layout);
    Plotly.redraw(element);
  }

  function relabel(figure) {
    base = figure;
    if (element.layout) element.layout.meta = figure.layout.meta;
    repaint();
  }

  function resize() {
    if (state !== "ready" || element.offsetWidth === 0) return;
    if (narrow !== element.offsetWidth < NARROW_PX) repaint();
    Plotly.Plots.resize(element);
  }

  function find(role, branch) {
    return element.data.findIndex((trace) => trace.meta.role === role && trace.meta.branch === branch);
  }

  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  return { element, draw, relabel, repaint, find, colours: () => painted, ready: () => state === "ready" };
}

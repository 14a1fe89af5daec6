// What changes while a reply streams is drawn on a canvas over the chart: for every new point Plotly would draw all its
// marks again, the overlay draws only the new ones. Plotly gets the points when the turn is over, or earlier where the
// pointer moves over the chart, because the overlay has no hover text.

// Corners in units of the marker's radius.
const MARKER_SHAPES = {
  circle: [], // an arc
  diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  square: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  "triangle-up": [[0, -1], [1.15, 0.58], [-1.15, 0.58]],
};

function outlineMarker(context, name, x, y, radius) {
  context.beginPath();
  if (name === "circle") context.arc(x, y, radius, 0, 2 * Math.PI);
  else for (const [dx, dy] of MARKER_SHAPES[name]) context.lineTo(x + dx * radius, y + dy * radius);
  context.closePath();
}

function makeOverlay(chart) {
  const canvas = makeElement("canvas", "overlay");
  canvas.setAttribute("aria-hidden", "true");
  chart.element.after(canvas);
  const context = canvas.getContext("2d");
  let axes = null; // as they were when the overlay was last cleared
  let colours = null;
  let lengths = new Map(); // by trace: the length of its line in pixels, so that its dashes continue evenly

  // Empties the canvas and lays it exactly over the chart's plotting area, with the same scales.
  function clear() {
    const { xaxis, yaxis } = chart.element._fullLayout;
    const pixelRatio = window.devicePixelRatio || 1;
    axes = { xaxis, yaxis };
    colours = chart.colours();
    lengths = new Map();
    canvas.width = Math.round(xaxis._length * pixelRatio); // setting the size also clears the canvas
    canvas.height = Math.round(yaxis._length * pixelRatio);
    const { offsetLeft, offsetTop } = chart.element;
    Object.assign(canvas.style, {
      left: `${offsetLeft + xaxis._offset}px`, top: `${offsetTop + yaxis._offset}px`,
      width: `${xaxis._length}px`, height: `${yaxis._length}px`,
    });
    context.scale(pixelRatio, pixelRatio);
    context.lineCap = "butt";
    context.lineJoin = "round";
  }

  function drawLine(trace, series, from) {
    const dashes = (trace.line.dash ?? "solid").match(/[\d.]+/g)?.map(Number) ?? [];
    let length = lengths.get(trace) ?? 0;
    let last = null;
    context.globalAlpha = trace.opacity ?? 1;
    context.strokeStyle = trace.line.color;
    context.lineWidth = trace.line.width;
    context.setLineDash(dashes);
    context.lineDashOffset = length;
    context.beginPath();
    for (let n = Math.max(0, from - 1); n < series.x.length; n += 1) {
      const here = series.y[n] === null ? null : [axes.xaxis.d2p(series.x[n]), axes.yaxis.d2p(series.y[n])];
      if (here && last) length += Math.hypot(here[0] - last[0], here[1] - last[1]);
      if (here && last) context.lineTo(...here);
      else if (here) context.moveTo(...here);
      last = here;
    }
    context.stroke();
    context.setLineDash([]);
    lengths.set(trace, length);
  }

  function drawMarkers(series, from, { symbol, size, opacity, color, line: edge }) {
    const open = symbol.endsWith("-open");
    const shape = symbol.replace("-open", "");
    context.globalAlpha = opacity ?? 1;
    context.fillStyle = context.strokeStyle = color;
    context.lineWidth = edge?.width || 1;
    for (let n = from; n < series.x.length; n += 1) {
      outlineMarker(context, shape, axes.xaxis.d2p(series.x[n]), axes.yaxis.d2p(series.y[n]), size / 2);
      if (!open) context.fill();
      if (edge?.width) context.strokeStyle = open ? color : colours.card;
      if (open || edge?.width) context.stroke();
    }
  }

  // Draws a series from point `from` on in the style of a Plotly trace, joined to the point before.
  function draw(trace, series, from, marker = trace.marker) {
    if (trace.mode.includes("lines")) drawLine(trace, series, from);
    if (trace.mode.includes("markers")) drawMarkers(series, from, marker);
    context.globalAlpha = 1;
  }

  // False where Plotly would have to extend an axis for a new point. Axes that the user has zoomed stay as they are.
  function fits(series, from) {
    const inside = ({ autorange, range }, value) =>
      !autorange || value === null || (value >= range[0] && value <= range[1]);
    for (let n = from; n < series.x.length; n += 1) {
      if (!inside(axes.xaxis, series.x[n]) || !inside(axes.yaxis, series.y[n])) return false;
    }
    return true;
  }

  return { clear, draw, fits };
}

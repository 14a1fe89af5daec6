// What moves while a reply streams is drawn on a canvas over the plot: Plotly draws all its marks anew for every point,
// ink only the new ones. Plotly gets them when the turn is over, or earlier where someone wants to hover them.

const INK_SHAPES = {
  circle: [], // an arc
  diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
  square: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
  "triangle-up": [[0, -1], [1.15, 0.58], [-1.15, 0.58]],
};

function inkShape(pen, name, x, y, radius) {
  pen.beginPath();
  if (name === "circle") pen.arc(x, y, radius, 0, 2 * Math.PI);
  else for (const [dx, dy] of INK_SHAPES[name]) pen.lineTo(x + dx * radius, y + dy * radius);
  pen.closePath();
}

function makeInk(board) {
  const canvas = make("canvas", "ink");
  canvas.setAttribute("aria-hidden", "true");
  board.element.after(canvas);
  const pen = canvas.getContext("2d");
  let axes = null; // as they were when the sheet was laid
  let colours = null;
  let runs = new Map(); // of every dashed line, how long it is by now, so that its dashes go on

  // A clean sheet exactly over the plot's area, in its scales.
  function lay() {
    const { xaxis, yaxis } = board.element._fullLayout;
    const sharp = window.devicePixelRatio || 1;
    axes = { xaxis, yaxis };
    colours = board.colours();
    runs = new Map();
    canvas.width = Math.round(xaxis._length * sharp); // clears it, too
    canvas.height = Math.round(yaxis._length * sharp);
    Object.assign(canvas.style, {
      left: `${board.element.offsetLeft + xaxis._offset}px`, top: `${board.element.offsetTop + yaxis._offset}px`,
      width: `${xaxis._length}px`, height: `${yaxis._length}px`,
    });
    pen.scale(sharp, sharp);
    pen.lineCap = "butt";
    pen.lineJoin = "round";
  }

  function line(trace, series, from) {
    const dashes = (trace.line.dash ?? "solid").match(/[\d.]+/g)?.map(Number) ?? [];
    let run = runs.get(trace) ?? 0;
    let last = null;
    pen.globalAlpha = trace.opacity ?? 1;
    pen.strokeStyle = trace.line.color;
    pen.lineWidth = trace.line.width;
    pen.setLineDash(dashes);
    pen.lineDashOffset = run;
    pen.beginPath();
    for (let n = Math.max(0, from - 1); n < series.x.length; n += 1) {
      const here = series.y[n] === null ? null : [axes.xaxis.d2p(series.x[n]), axes.yaxis.d2p(series.y[n])];
      if (here && last) run += Math.hypot(here[0] - last[0], here[1] - last[1]);
      if (here && last) pen.lineTo(...here);
      else if (here) pen.moveTo(...here);
      last = here;
    }
    pen.stroke();
    pen.setLineDash([]);
    runs.set(trace, run);
  }

  function marks(series, from, { symbol, size, opacity, color, line: edge }) {
    const open = symbol.endsWith("-open");
    const shape = symbol.replace("-open", "");
    pen.globalAlpha = opacity ?? 1;
    pen.fillStyle = pen.strokeStyle = color;
    pen.lineWidth = edge?.width || 1;
    for (let n = from; n < series.x.length; n += 1) {
      inkShape(pen, shape, axes.xaxis.d2p(series.x[n]), axes.yaxis.d2p(series.y[n]), size / 2);
      if (!open) pen.fill();
      if (edge?.width) pen.strokeStyle = open ? color : colours.card;
      if (open || edge?.width) pen.stroke();
    }
  }

  // Points of a series from number `from` on, in the looks of a Plotly trace, joined to the one before.
  function draw(trace, series, from, look = trace.marker) {
    if (trace.mode.includes("lines")) line(trace, series, from);
    if (trace.mode.includes("markers")) marks(series, from, look);
    pen.globalAlpha = 1;
  }

  // False where a point lies outside axes that would make room for it; axes that the viewer has zoomed stay.
  function fits(series, from) {
    const inside = (axis, value) => !axis.autorange || value === null || (value >= axis.range[0] && value <= axis.range[1]);
    for (let n = from; n < series.x.length; n += 1) {
      if (!inside(axes.xaxis, series.x[n]) || !inside(axes.yaxis, series.y[n])) return false;
    }
    return true;
  }

  return { lay, draw, fits };
}

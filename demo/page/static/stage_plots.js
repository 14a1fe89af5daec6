// The two plots. Points already drawn are never sent to Plotly twice: each trace has a cursor into its series.

const TURN_REDRAW_MS = 500;
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

  function dress(data, layout) {
    const colours = palette(root);
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
  return { element, draw, relabel, repaint, find, ready: () => state === "ready" };
}

function makeTokenPlot(board) {
  let turn = null;
  let stale = false; // the drawn points belong to another turn
  let cursors = [];

  const seriesOf = (trace) => turn?.sides[trace.meta.branch]?.series[trace.meta.role];

  function fill(data) {
    stale = false;
    cursors = data.map((trace) => {
      if (trace.meta.role === "frame") return 0;
      const series = seriesOf(trace);
      for (const key of ["x", "y", "customdata"]) trace[key] = series ? series[key].slice() : [];
      return trace.x.length;
    });
  }

  function show(next) {
    turn = next;
    stale = true;
  }

  function replace() {
    fill(board.element.data);
    Plotly.redraw(board.element);
    return true;
  }

  function extend() {
    if (stale) return replace();
    const update = { x: [], y: [], customdata: [] };
    const indices = [];
    board.element.data.forEach((trace, index) => {
      const series = seriesOf(trace);
      if (!series || series.x.length === cursors[index]) return;
      for (const key of Object.keys(update)) update[key].push(series[key].slice(cursors[index]));
      cursors[index] = series.x.length;
      indices.push(index);
    });
    if (indices.length) Plotly.extendTraces(board.element, update, indices);
    return indices.length > 0;
  }

  function hover(branch, position) {
    if (!board.ready() || stale) return;
    const curveNumber = board.find("raw", branch);
    const pointNumber = turn?.sides[branch].series.raw.x.indexOf(position) ?? -1;
    if (pointNumber < 0) Plotly.Fx.unhover(board.element);
    else if (pointNumber < cursors[curveNumber]) Plotly.Fx.hover(board.element, [{ curveNumber, pointNumber }]);
  }

  return { fill, show, extend, hover };
}

// Every answer to one message, joined from the lowest to the highest; null ends a line.
function spreadSeries(trace, turns, branch) {
  const points = turns.flatMap((turn, index) => {
    const { samples } = turn.sides[branch];
    const known = samples.filter((sample) => sample.mean !== null);
    const all = known.map((sample) => ({ x: index + 1, y: sample.mean, text: visibleToken(sample.text) }));
    return all.length ? [...all.sort((a, b) => a.y - b.y), { x: null, y: null, text: null }] : [];
  });
  for (const [key, part] of [["x", "x"], ["y", "y"], ["customdata", "text"]]) trace[key] = points.map((p) => p[part]);
}

function turnSeries(trace, turns, shown) {
  const { role, branch } = trace.meta;
  if (role === "frame") return;
  if (role === "spread") {
    spreadSeries(trace, turns, branch);
    return;
  }
  const points = [];
  turns.forEach((turn, index) => {
    const side = turn.sides[branch];
    const y = role === "user" ? side.userMean : meanOf(side);
    if (y !== null) points.push({ x: index + 1, y, live: side.finish === null, shown: index === shown });
  });
  const symbol = SYMBOLS[branch];
  const column = (pick) => points.map(pick);
  trace.x = column((point) => point.x);
  trace.y = column((point) => point.y);
  if (role === "user") return;
  trace.customdata = column((point) => (point.live ? ", so far" : ""));
  trace.marker.symbol = column((point) => (point.live ? `${symbol}-open` : symbol));
  trace.marker.size = column((point) => (point.shown ? 13 : 9));
}

function fillTurns(data, turns, shown) {
  for (const trace of data) turnSeries(trace, turns, shown);
}

function whenPlotly(found, missing) {
  // The script is large and loads beside the page: the chat works meanwhile, and without it.
  const deadline = Date.now() + 60000;
  (function look() {
    if (window.Plotly) found();
    else if (Date.now() > deadline) missing();
    else setTimeout(look, 100);
  })();
}

function makePlots(root, hooks) {
  const config = {
    displaylogo: false, plotlyServerURL: "", responsive: false, doubleClick: "autosize",
  };
  const tokenBoard = makeBoard(root.querySelector("#token-plot"), root, config);
  const turnBoard = makeBoard(root.querySelector("#turn-plot"), root, { ...config, displayModeBar: false });
  const tokenPlot = makeTokenPlot(tokenBoard);
  const view = { figures: null, turns: [], shown: null };
  let waiting = false;
  let turnsDirty = false;
  let turnsDrawnAt = 0;
  let notBefore = 0;
  let updates = 0;

  async function start() {
    if (!window.Plotly || !view.figures) return;
    await tokenBoard.draw(view.figures.token, tokenPlot.fill);
    await turnBoard.draw(view.figures.turn, (data) => fillTurns(data, view.turns, view.shown));
    listen();
    schedule();
  }

  function listen() {
    const token = tokenBoard.element;
    token.removeAllListeners("plotly_hover");
    token.removeAllListeners("plotly_unhover");
    token.removeAllListeners("plotly_click");
    turnBoard.element.removeAllListeners("plotly_click");
    token.on("plotly_hover", ({ points }) => hooks.light(points[0].data.meta.branch, points[0].x));
    token.on("plotly_unhover", () => hooks.light(null, null));
    token.on("plotly_click", ({ points }) => hooks.flash(points[0].data.meta.branch, points[0].x));
    turnBoard.element.on("plotly_click", ({ points }) => hooks.pick(Math.round(points[0].x) - 1));
  }

  function drawTurns(now) {
    fillTurns(turnBoard.element.data, view.turns, view.shown);
    turnBoard.element.layout.xaxis.dtick = Math.ceil(Math.max(1, view.turns.length) / 10);
    Plotly.redraw(turnBoard.element);
    turnsDirty = false;
    turnsDrawnAt = now;
  }

  function draw() {
    waiting = false;
    if (!tokenBoard.ready() || !turnBoard.ready()) return;
    const began = performance.now();
    // Behind the map the token plot rests; what it missed is drawn when it is back.
    if (tokenBoard.element.offsetWidth && tokenPlot.extend()) updates += 1;
    if (turnsDirty && began - turnsDrawnAt >= TURN_REDRAW_MS) drawTurns(began);
    // A slow machine draws less often instead of falling behind: at most a third of its time goes here.
    const cost = performance.now() - began;
    notBefore = began + 3 * cost;
    if (turnsDirty) schedule(TURN_REDRAW_MS);
  }

  function schedule(atLeast = 0) {
    if (waiting) return;
    waiting = true;
    const pause = Math.max(atLeast, notBefore - performance.now());
    setTimeout(() => requestAnimationFrame(draw), Math.max(0, pause));
  }

  function reset(figures, turns) {
    Object.assign(view, { figures: figures ?? view.figures, turns, shown: null });
    tokenPlot.show(null);
    start();
  }

  function relabel(figures) {
    view.figures = figures;
    if (!tokenBoard.ready() || !turnBoard.ready()) return;
    tokenBoard.relabel(figures.token);
    turnBoard.relabel(figures.turn);
  }

  function show(index) {
    view.shown = index;
    tokenPlot.show(view.turns[index] ?? null);
    touch(true);
  }

  function touch(turnsChanged) {
    turnsDirty ||= turnsChanged;
    schedule();
  }

  function repaint() {
    tokenBoard.repaint();
    turnBoard.repaint();
  }

  function counts() {
    const length = (board, role, branch) => (board.ready() ? board.element.data[board.find(role, branch)].x.length : 0);
    const both = (board, role) => Object.fromEntries(BRANCHES.map((branch) => [branch, length(board, role, branch)]));
    return { tokenPoints: both(tokenBoard, "raw"), turnPoints: both(turnBoard, "reply"), updates };
  }

  whenPlotly(start, () => hooks.missing());
  return { reset, relabel, show, touch, repaint, counts, hover: tokenPlot.hover };
}

// Both plots: drawn when Plotly is there, brought up to date once a frame at most.

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
  const turnPlot = makeTurnPlot(turnBoard);
  const view = { figures: null, turns: [] };
  let waiting = false;
  let updates = 0;

  const ready = () => tokenBoard.ready() && turnBoard.ready();

  async function start() {
    if (!window.Plotly || !view.figures) return;
    await tokenBoard.draw(view.figures.token, tokenPlot.fill);
    await turnBoard.draw(view.figures.turn, turnPlot.fill);
    tokenPlot.overdraw();
    turnPlot.overdraw();
    listen();
    schedule();
  }

  function listen() {
    const token = tokenBoard.element;
    const turn = turnBoard.element;
    for (const [element, plot] of [[token, tokenPlot], [turn, turnPlot]]) {
      for (const name of ["hover", "unhover", "click", "afterplot", "relayouting"]) element.removeAllListeners(`plotly_${name}`);
      element.on("plotly_afterplot", plot.overdraw);
      element.on("plotly_relayouting", plot.overdraw);
    }
    token.on("plotly_hover", ({ points }) => hooks.light(points[0].data.meta.branch, points[0].x));
    token.on("plotly_unhover", () => hooks.light(null, null));
    token.on("plotly_click", ({ points }) => hooks.flash(points[0].data.meta.branch, points[0].x));
    turn.on("plotly_click", ({ points }) => hooks.pick(Math.round(points[0].x) - 1));
  }

  function draw() {
    waiting = false;
    if (!ready()) return;
    // Behind the map the token plot rests; what it missed is drawn when it is back.
    if (tokenBoard.element.offsetWidth && tokenPlot.advance()) updates += 1;
    turnPlot.advance();
  }

  function schedule() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  function reset(figures, turns) {
    Object.assign(view, { figures: figures ?? view.figures, turns });
    tokenPlot.show(null);
    turnPlot.show(turns, null);
    start();
  }

  function relabel(figures) {
    view.figures = figures;
    if (!ready()) return;
    tokenBoard.relabel(figures.token);
    turnBoard.relabel(figures.turn);
  }

  function show(index) {
    tokenPlot.show(view.turns[index] ?? null);
    turnPlot.show(view.turns, index);
    schedule();
  }

  function touch(turnsChanged) {
    if (turnsChanged) turnPlot.change();
    schedule();
  }

  function repaint() {
    tokenBoard.repaint();
    turnBoard.repaint();
  }

  function counts() {
    const both = (plot) => Object.fromEntries(BRANCHES.map((branch) => [branch, plot.count(branch)]));
    return { tokenPoints: both(tokenPlot), turnPoints: both(turnPlot), updates };
  }

  whenPlotly(start, () => hooks.missing());
  return { reset, relabel, show, touch, repaint, counts, hover: tokenPlot.hover };
}

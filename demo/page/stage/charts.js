// Both charts: drawn when Plotly has loaded, then updated at most once per frame.

const PLOTLY_DEADLINE_MS = 60000;

function whenPlotly(onLoaded, onMissing) {
  // The script is large and loads beside the page. The chat works meanwhile, and also without it.
  const deadline = Date.now() + PLOTLY_DEADLINE_MS;
  (function poll() {
    if (window.Plotly) onLoaded();
    else if (Date.now() > deadline) onMissing();
    else setTimeout(poll, 100);
  })();
}

// hooks: selectTurn(index), flash(branch, position), highlight(branch, position), missing()
function makeCharts(root, hooks) {
  const config = { displaylogo: false, plotlyServerURL: "", responsive: false, doubleClick: "autosize" };
  const tokenBase = makeChart(root.querySelector("#token-chart"), root, config);
  const turnBase = makeChart(root.querySelector("#turn-chart"), root, { ...config, displayModeBar: false });
  const tokenChart = makeTokenChart(tokenBase);
  const turnChart = makeTurnChart(turnBase);
  const state = { figures: null, turns: [] };
  let scheduled = false;
  let updates = 0;

  const ready = () => tokenBase.ready() && turnBase.ready();

  async function start() {
    if (!window.Plotly || !state.figures) return;
    await tokenBase.draw(state.figures.token, tokenChart.fill);
    await turnBase.draw(state.figures.turn, turnChart.fill);
    tokenChart.redrawOverlay();
    turnChart.redrawOverlay();
    listen();
    schedule();
  }

  function listen() {
    const token = tokenBase.element;
    const turn = turnBase.element;
    const events = ["hover", "unhover", "click", "afterplot", "relayouting"];
    for (const [element, { redrawOverlay }] of [[token, tokenChart], [turn, turnChart]]) {
      for (const name of events) element.removeAllListeners(`plotly_${name}`);
      element.on("plotly_afterplot", redrawOverlay);
      element.on("plotly_relayouting", redrawOverlay);
    }
    token.on("plotly_hover", ({ points }) => hooks.highlight(points[0].data.meta.branch, points[0].x));
    token.on("plotly_unhover", () => hooks.highlight(null, null));
    token.on("plotly_click", ({ points }) => hooks.flash(points[0].data.meta.branch, points[0].x));
    turn.on("plotly_click", ({ points }) => hooks.selectTurn(Math.round(points[0].x) - 1));
  }

  function draw() {
    scheduled = false;
    if (!ready()) return;
    // The token chart is not drawn while another tab covers it; the next draw after that adds what it missed.
    if (tokenBase.element.offsetWidth && tokenChart.advance()) updates += 1;
    turnChart.advance();
  }

  function schedule() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(draw);
  }

  function reset(figures, turns) {
    Object.assign(state, { figures: figures ?? state.figures, turns });
    tokenChart.show(null);
    turnChart.show(turns, null);
    start();
  }

  function relabel(figures) {
    state.figures = figures;
    if (!ready()) return;
    tokenBase.relabel(figures.token);
    turnBase.relabel(figures.turn);
  }

  function show(index) {
    tokenChart.show(state.turns[index] ?? null);
    turnChart.show(state.turns, index);
    schedule();
  }

  function refresh(turnsChanged) {
    if (turnsChanged) turnChart.markChanged();
    schedule();
  }

  function repaint() {
    tokenBase.repaint();
    turnBase.repaint();
  }

  function counts() {
    const byBranch = (chart) => Object.fromEntries(BRANCHES.map((branch) => [branch, chart.count(branch)]));
    return { tokenPoints: byBranch(tokenChart), turnPoints: byBranch(turnChart), updates };
  }

  whenPlotly(start, () => hooks.missing());
  return { reset, relabel, show, refresh, repaint, counts, hover: tokenChart.hover };
}

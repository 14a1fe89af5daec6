// The chart of single tokens. Plotly holds the points of finished turns, which can be hovered and zoomed; the overlay
// draws the points of the turn that is streaming.

const CATCH_UP_MS = 700; // the least time between two updates of Plotly because the pointer moves over the chart
const TOKEN_AXIS = { initial: 48, growth: 1.5, spare: 4 }; // in tokens; growth is a factor

// The length of the token axis. It leaves room for tokens to come, so that the axis does not change at every token.
function tokenAxisLength(turn) {
  if (!turnIsLive(turn)) return TOKEN_AXIS.initial;
  const longest = Math.max(...BRANCHES.map((branch) => turn.replies[branch].visibleTokens.length));
  let length = TOKEN_AXIS.initial;
  while (length < longest + TOKEN_AXIS.spare) length = Math.ceil(length * TOKEN_AXIS.growth);
  return length;
}

function makeTokenChart(chart) {
  const overlay = makeOverlay(chart);
  let turn = null;
  let stale = false; // the drawn points belong to another turn
  let committed = []; // by trace: how many points of its series Plotly holds
  let drawn = []; // by trace: how many points are visible, counting the overlay's
  let caughtUpAt = 0;

  const seriesOf = (trace) => turn?.replies[trace.meta.branch]?.series[trace.meta.role];
  const frameOf = (data) => data.find((trace) => trace.meta.role === "frame");

  function fill(data) {
    stale = false;
    frameOf(data).x[1] = tokenAxisLength(turn);
    committed = data.map((trace) => {
      if (trace.meta.role === "frame") return 0;
      const series = seriesOf(trace);
      for (const key of ["x", "y", "customdata"]) trace[key] = series ? series[key].slice() : [];
      return trace.x.length;
    });
    drawn = committed.slice();
  }

  function show(next) {
    turn = next;
    stale = true;
  }

  // Hands all points to Plotly.
  function commit() {
    fill(chart.element.data);
    Plotly.redraw(chart.element);
    redrawOverlay();
    return true;
  }

  // For use after Plotly has drawn, moved or zoomed.
  function redrawOverlay() {
    overlay.clear();
    drawn = committed.slice();
    if (!stale) drawNew();
  }

  function drawNew() {
    let changed = false;
    chart.element.data.forEach((trace, index) => {
      const series = seriesOf(trace);
      if (!series || series.x.length === drawn[index]) return;
      overlay.draw(trace, series, drawn[index]);
      drawn[index] = series.x.length;
      changed = true;
    });
    return changed;
  }

  const fits = () =>
    chart.element.data.every((trace, n) => !seriesOf(trace) || overlay.fits(seriesOf(trace), drawn[n]));
  const hasUncommitted = () =>
    chart.element.data.some((trace, n) => seriesOf(trace) && seriesOf(trace).x.length > committed[n]);

  // Draws everything that has arrived since the last call; true if there was anything.
  function advance() {
    if (stale) return commit();
    if (turnIsLive(turn)) return fits() ? drawNew() : commit();
    return (hasUncommitted() || frameOf(chart.element.data).x[1] > tokenAxisLength(turn)) && commit();
  }

  // A pointer that moves over the chart needs hover text for all points; one that rests keeps the text it has.
  function catchUp() {
    if (!chart.ready() || stale || !hasUncommitted() || performance.now() - caughtUpAt < CATCH_UP_MS) return;
    caughtUpAt = performance.now();
    commit();
  }

  function hover(branch, position) {
    if (!chart.ready() || stale) return;
    if (position !== null) catchUp();
    const role = turn?.replies[branch].visibleTokens[position - 1]?.r ? "reasoning-raw" : "raw";
    const curveNumber = chart.traceIndex(role, branch);
    const pointNumber = turn?.replies[branch].series[role].x.indexOf(position) ?? -1;
    if (pointNumber < 0) Plotly.Fx.unhover(chart.element);
    else if (pointNumber < committed[curveNumber]) Plotly.Fx.hover(chart.element, [{ curveNumber, pointNumber }]);
  }

  chart.element.addEventListener("pointermove", catchUp);
  const count = (branch) =>
    chart.ready() ? drawn[chart.traceIndex("raw", branch)] + drawn[chart.traceIndex("reasoning-raw", branch)] : 0;
  return { fill, show, advance, redrawOverlay, hover, count };
}

// The chart of whole replies, turn by turn. The overlay draws the turn that is being answered; Plotly gets it when it
// is over.

const REASONING_OFFSET = 0.15; // turns
const TURN_MARGIN = 0.25; // axis units of extra room beyond a marker that left the chart

// All replies of a branch to one message, joined from the lowest to the highest; null ends a line.
function fillSpread(trace, turns, branch) {
  const points = turns.flatMap((turn, index) => {
    const { samples } = turn.replies[branch];
    const measured = samples.filter((sample) => sample.mean !== null);
    const all = measured.map((sample) => ({ x: index + 1, y: sample.mean, text: tokenLabel(sample.text) }));
    return all.length ? [...all.sort((a, b) => a.y - b.y), { x: null, y: null, text: null }] : [];
  });
  for (const [key, part] of [["x", "x"], ["y", "y"], ["customdata", "text"]]) trace[key] = points.map((p) => p[part]);
}

function replyPoints(turns, branch, shown) {
  return turns.flatMap((turn, index) => {
    const reply = turn.replies[branch];
    const y = isLive(reply) ? null : meanOf(reply);
    return y === null ? [] : [{ x: index + 1, y, size: index === shown ? 13 : 9 }];
  });
}

// A little to the left of the reply's mean.
function reasoningPoints(turns, branch) {
  return turns.flatMap((turn, index) => {
    const y = isLive(turn.replies[branch]) ? null : reasoningMeanOf(turn.replies[branch]);
    return y === null ? [] : [{ x: index + 1 - REASONING_OFFSET, y }];
  });
}

function userPoints(turns, branch) {
  const all = turns.map((turn, index) => ({ x: index + 1, y: turn.replies[branch].userMean }));
  return all.filter((point) => point.y !== null);
}

const POINTS = { user: userPoints, reasoning: reasoningPoints, reply: replyPoints };

function fillTurns(data, turns, shown) {
  for (const trace of data) {
    const { role, branch } = trace.meta;
    if (role === "frame") trace.x[1] = Math.max(4.4, turns.length + 0.4);
    else if (role === "spread") fillSpread(trace, turns, branch);
    else {
      const points = POINTS[role](turns, branch, shown);
      trace.x = points.map((point) => point.x);
      trace.y = points.map((point) => point.y);
      if (role === "reply") trace.marker.size = points.map((point) => point.size);
    }
  }
}

function makeTurnChart(chart) {
  const overlay = makeOverlay(chart);
  const state = { turns: [], shown: null };
  let changed = false; // a turn differs from what Plotly holds

  const fill = (data) => fillTurns(data, state.turns, state.shown);

  function redraw() {
    changed = false;
    fill(chart.element.data);
    chart.element.layout.xaxis.dtick = Math.ceil(Math.max(1, state.turns.length) / 10);
    Plotly.redraw(chart.element);
    redrawOverlay();
  }

  // The reply that is being written: a hollow marker that moves, joined to the turn before. Null if there is none.
  function liveSeries(trace) {
    const { role, branch } = trace.meta;
    const index = state.turns.length - 1;
    const reply = state.turns[index]?.replies[branch];
    if (role !== "reply" || !reply || !isLive(reply) || meanOf(reply) === null) return null;
    const x = [...trace.x.slice(-1), index + 1];
    return { x, y: [...trace.y.slice(-1), meanOf(reply)] };
  }

  function redrawOverlay() {
    overlay.clear();
    for (const trace of chart.element.data) {
      const series = liveSeries(trace);
      if (!series) continue;
      const symbol = `${SYMBOLS[trace.meta.branch]}-open`;
      const marker = { symbol, size: 13, color: trace.marker.color, line: { width: 2 } };
      overlay.draw(trace, series, series.x.length - 1, marker);
    }
  }

  // Plotly draws before the turn is over only where a live marker leaves the axes.
  function advance() {
    const live = chart.element.data.map(liveSeries);
    const outside = live.find((series) => series && !overlay.fits(series, series.x.length - 1));
    if (outside) extendAxis(outside.y.at(-1));
    if (changed || outside) redraw();
    else redrawOverlay();
  }

  function extendAxis(y) {
    const frame = chart.element.data.find((trace) => trace.meta.role === "frame");
    frame.y = [Math.min(frame.y[0], y - TURN_MARGIN), Math.max(frame.y[1], y + TURN_MARGIN)];
  }

  function show(turns, shown) {
    Object.assign(state, { turns, shown });
    changed = true;
  }

  function count(branch) {
    if (!chart.ready()) return 0;
    const trace = chart.element.data[chart.traceIndex("reply", branch)];
    return trace.x.length + (liveSeries(trace) ? 1 : 0);
  }

  return { fill, show, advance, redrawOverlay, count, markChanged: () => (changed = true) };
}

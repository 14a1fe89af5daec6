// The plot of whole replies, turn by turn. The turn that is being answered is ink, and Plotly's when it is over.

const TURN_MARGIN = 0.25; // axis units beyond a mark that left the plot

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

function replyPoints(turns, branch, shown) {
  return turns.flatMap((turn, index) => {
    const side = turn.sides[branch];
    const y = isLive(side) ? null : meanOf(side);
    return y === null ? [] : [{ x: index + 1, y, size: index === shown ? 13 : 9 }];
  });
}

function userPoints(turns, branch) {
  const all = turns.map((turn, index) => ({ x: index + 1, y: turn.sides[branch].userMean }));
  return all.filter((point) => point.y !== null);
}

function fillTurns(data, turns, shown) {
  for (const trace of data) {
    const { role, branch } = trace.meta;
    if (role === "frame") trace.x[1] = Math.max(4.4, turns.length + 0.4);
    else if (role === "spread") spreadSeries(trace, turns, branch);
    else {
      const points = role === "user" ? userPoints(turns, branch) : replyPoints(turns, branch, shown);
      trace.x = points.map((point) => point.x);
      trace.y = points.map((point) => point.y);
      if (role === "reply") trace.marker.size = points.map((point) => point.size);
    }
  }
}

function makeTurnPlot(board) {
  const ink = makeInk(board);
  const view = { turns: [], shown: null };
  let dirty = false;

  const fill = (data) => fillTurns(data, view.turns, view.shown);

  function redraw() {
    dirty = false;
    fill(board.element.data);
    board.element.layout.xaxis.dtick = Math.ceil(Math.max(1, view.turns.length) / 10);
    Plotly.redraw(board.element);
    overdraw();
  }

  // The turn that is being answered: a hollow mark that moves, joined to the turn before.
  function liveSeries(trace) {
    const { role, branch } = trace.meta;
    const index = view.turns.length - 1;
    const side = view.turns[index]?.sides[branch];
    if (role !== "reply" || !side || !isLive(side) || meanOf(side) === null) return null;
    const x = [...trace.x.slice(-1), index + 1];
    return { x, y: [...trace.y.slice(-1), meanOf(side)] };
  }

  function overdraw() {
    ink.lay();
    for (const trace of board.element.data) {
      const series = liveSeries(trace);
      if (!series) continue;
      const look = { symbol: `${SYMBOLS[trace.meta.branch]}-open`, size: 13, color: trace.marker.color, line: { width: 2 } };
      ink.draw(trace, series, series.x.length - 1, look);
    }
  }

  // Only a live mark that leaves the axes makes Plotly draw before the turn is over.
  function advance() {
    const outside = board.element.data.map(liveSeries).find((series) => series && !ink.fits(series, series.x.length - 1));
    if (outside) widen(outside.y.at(-1));
    if (dirty || outside) redraw();
    else overdraw();
  }

  function widen(y) {
    const frame = board.element.data.find((trace) => trace.meta.role === "frame");
    frame.y = [Math.min(frame.y[0], y - TURN_MARGIN), Math.max(frame.y[1], y + TURN_MARGIN)];
  }

  function show(turns, shown) {
    Object.assign(view, { turns, shown });
    dirty = true;
  }

  function count(branch) {
    if (!board.ready()) return 0;
    const trace = board.element.data[board.find("reply", branch)];
    return trace.x.length + (liveSeries(trace) ? 1 : 0);
  }

  return { fill, show, advance, overdraw, count, change: () => (dirty = true) };
}

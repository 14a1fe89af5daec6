// The plot of single tokens. What is over is Plotly's, to hover and to zoom; what still comes is ink.

const CATCH_UP_MS = 700; // between two times that Plotly takes in ink because someone's pointer moves over it
const TOKEN_ROOM = { first: 48, growth: 1.5, spare: 4 };

// Room on the token axis for what is still to come, so that the plot makes way now and then and not at every token.
function roomFor(turn) {
  if (!turnIsLive(turn)) return TOKEN_ROOM.first;
  const longest = Math.max(...BRANCHES.map((branch) => turn.sides[branch].shown.length));
  let room = TOKEN_ROOM.first;
  while (room < longest + TOKEN_ROOM.spare) room = Math.ceil(room * TOKEN_ROOM.growth);
  return room;
}

function makeTokenPlot(board) {
  const ink = makeInk(board);
  let turn = null;
  let stale = false; // the drawn points belong to another turn
  let settled = []; // how much of each trace's series is Plotly's
  let inked = []; // and how much is on the page, with ink
  let caughtUp = 0;

  const seriesOf = (trace) => turn?.sides[trace.meta.branch]?.series[trace.meta.role];
  const frameOf = (data) => data.find((trace) => trace.meta.role === "frame");

  function fill(data) {
    stale = false;
    frameOf(data).x[1] = roomFor(turn);
    settled = data.map((trace) => {
      if (trace.meta.role === "frame") return 0;
      const series = seriesOf(trace);
      for (const key of ["x", "y", "customdata"]) trace[key] = series ? series[key].slice() : [];
      return trace.x.length;
    });
    inked = settled.slice();
  }

  function show(next) {
    turn = next;
    stale = true;
  }

  // Plotly takes all that there is.
  function settle() {
    fill(board.element.data);
    Plotly.redraw(board.element);
    overdraw();
    return true;
  }

  // After Plotly has drawn, moved or zoomed.
  function overdraw() {
    ink.lay();
    inked = settled.slice();
    if (!stale) inkNew();
  }

  function inkNew() {
    let drawn = false;
    board.element.data.forEach((trace, index) => {
      const series = seriesOf(trace);
      if (!series || series.x.length === inked[index]) return;
      ink.draw(trace, series, inked[index]);
      inked[index] = series.x.length;
      drawn = true;
    });
    return drawn;
  }

  const fits = () => board.element.data.every((trace, n) => !seriesOf(trace) || ink.fits(seriesOf(trace), inked[n]));
  const behind = () => board.element.data.some((trace, n) => seriesOf(trace) && seriesOf(trace).x.length > settled[n]);

  // Everything that has come since the last time; true if that was anything.
  function advance() {
    if (stale) return settle();
    if (turnIsLive(turn)) return fits() ? inkNew() : settle();
    return (behind() || frameOf(board.element.data).x[1] > roomFor(turn)) && settle();
  }

  // A pointer that moves over the plot wants to hover what is drawn there; one that rests keeps what it has.
  function catchUp() {
    if (!board.ready() || stale || !behind() || performance.now() - caughtUp < CATCH_UP_MS) return;
    caughtUp = performance.now();
    settle();
  }

  function hover(branch, position) {
    if (!board.ready() || stale) return;
    if (position !== null) catchUp();
    const curveNumber = board.find("raw", branch);
    const pointNumber = turn?.sides[branch].series.raw.x.indexOf(position) ?? -1;
    if (pointNumber < 0) Plotly.Fx.unhover(board.element);
    else if (pointNumber < settled[curveNumber]) Plotly.Fx.hover(board.element, [{ curveNumber, pointNumber }]);
  }

  board.element.addEventListener("pointermove", catchUp);
  const count = (branch) => (board.ready() ? inked[board.find("raw", branch)] : 0);
  return { fill, show, advance, overdraw, hover, count };
}

// What the page knows about every turn, and the numbers the plots draw. No DOM, no Plotly.

const BRANCHES = ["uncapped", "capped", "steered"];
const SYMBOLS = { uncapped: "circle", capped: "diamond", steered: "square" };
const DASHES = { uncapped: "4px,3px", capped: "solid", steered: "1px,3px" };
// Half way between the average role (0) and the default Assistant (1) a token has no colour; these are full ones.
const TONE_CENTRE = 0.5;
const TONE_REACH = 1.25;
const TRAILING_TOKENS = 8;
const FINISH_WORDS = { cancelled: "Stopped", error: "Ended by an error" };

function number(value) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(2);
  // A true minus sign lines up with the digits and cannot break away from them; zero has none.
  return value < 0 && Number(text) > 0 ? `\u2212${text}` : text;
}

function standingWord(mean) {
  if (mean >= 2 / 3) return "Assistant-like";
  return mean <= 1 / 3 ? "role-playing" : "in between";
}

function visibleToken(text) {
  // Plotly reads a little HTML in hover text, so a token must be escaped before it goes there.
  const short = text.length > 40 ? text.slice(0, 40) + "…" : text;
  const shown = short.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "\u00a0");
  return "“" + shown.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;") + "”";
}

// -1 all role, 0 in between, 1 all Assistant; null for a token that was never read.
function toneOf(value) {
  if (value === null || value === undefined) return null;
  return Math.max(-1, Math.min(1, (value - TONE_CENTRE) / TONE_REACH));
}

function describeToken(branch, token) {
  const before = token.b ?? token.a;
  const after = token.a ?? token.b;
  if (before === null || before === undefined) return "projection not recorded";
  if (branch !== "capped") return `projection ${number(after)} (axis units)`;
  if (!token.c) return `projection ${number(after)} (axis units), the cap did not act`;
  if (Math.abs(after - before) > 1e-6) {
    return `cap acted here: projection ${number(before)} → ${number(after)} (axis units)`;
  }
  return `cap acted here at other layers (sum ${number(token.c)}): projection ${number(after)} (axis units)`;
}

function emptySeries() {
  const series = {};
  for (const role of ["raw", "smooth", "lift", "before", "fired"]) series[role] = { x: [], y: [], customdata: [] };
  return series;
}

function newSide(branch) {
  return {
    branch, got: 0, shown: [], series: emptySeries(), recent: [], sum: 0, known: 0, fired: 0, absent: false, samples: [], html: null,
    finish: null, finalMean: null, finalFired: null, finalCount: null, limit: null, userMean: null, place: null,
  };
}

function push(series, x, y, customdata) {
  series.x.push(x);
  series.y.push(y);
  series.customdata.push(customdata);
}

function addToSeries(side, token, position) {
  const after = token.a ?? token.b;
  if (after === null || after === undefined) return;
  const { raw, smooth, lift, before, fired } = side.series;
  const hover = [visibleToken(token.t), describeToken(side.branch, token)];
  side.sum += after;
  side.known += 1;
  side.recent.push(after);
  if (side.recent.length > TRAILING_TOKENS) side.recent.shift();
  push(raw, position, after, hover);
  push(smooth, position, side.recent.reduce((sum, value) => sum + value, 0) / side.recent.length, null);
  if (!token.c) return;
  push(fired, position, after, hover);
  if (token.b === null || token.b === undefined) return;
  push(before, position, token.b, null);
  for (const y of [token.b, after, null]) push(lift, position, y, null);
}

function addToken(side, token) {
  // Template and end tokens are neither shown nor plotted; positions count the tokens one can read.
  side.got += 1;
  if (token.s) return null;
  side.shown.push(token);
  token.c = token.k ? token.k.reduce((sum, value) => sum + value, 0) : 0;
  if (token.c) side.fired += 1;
  addToSeries(side, token, side.shown.length);
  return token;
}

function endSide(side, data) {
  side.finish = data.finish ?? null;
  side.finalMean = data.mean ?? null;
  side.finalFired = data.fired ?? null;
  side.finalCount = data.count ?? null;
  side.limit = data.limit ?? null;
  side.place = data.place ?? null; // on the persona map: [PC1, PC2, PC3]
  side.samples = data.samples ?? side.samples; // the same turn with other random numbers: {mean, fired, count, text}
  side.html = data.html ?? side.html; // the reply as it reads with its markdown
}

function meanOf(side) {
  return side.finalMean ?? (side.known ? side.sum / side.known : null);
}

function firedShare(side) {
  const count = side.finalCount ?? side.shown.length;
  return count ? (side.finalFired ?? side.fired) / count : null;
}

const isLive = (side) => !side.absent && side.finish === null;
const turnIsLive = (turn) => Boolean(turn) && BRANCHES.some((branch) => isLive(turn.sides[branch]));

function finishLine(side) {
  if (side.finish === "length") return `Cut at the token limit (${side.limit ?? side.shown.length})`;
  return FINISH_WORDS[side.finish] ?? null;
}

// branches: those that answer; the others have an empty side, which draws nothing.
function newTurn(user, branches) {
  const turn = { user, sides: Object.fromEntries(BRANCHES.map((branch) => [branch, newSide(branch)])) };
  for (const branch of BRANCHES) turn.sides[branch].absent = !branches.includes(branch);
  return turn;
}

function turnFromData(data) {
  const turn = newTurn(data.user, Object.keys(data.branches ?? {}));
  for (const branch of BRANCHES) {
    const given = data.branches?.[branch];
    if (!given) continue;
    const side = turn.sides[branch];
    for (const token of given.tokens ?? []) addToken(side, token);
    side.userMean = given.user_mean ?? null;
    endSide(side, given);
    if (!data.live) side.finish ??= "stop";
  }
  return turn;
}

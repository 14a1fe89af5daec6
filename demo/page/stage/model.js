// The state of every turn and the series that the charts draw. Uses neither the DOM nor Plotly.

const BRANCHES = ["uncapped", "capped", "steered"];
const SYMBOLS = { uncapped: "circle", capped: "diamond", steered: "square" };
const DASHES = { uncapped: "4px,3px", capped: "solid", steered: "1px,3px" };
// In axis units. A token at the centre, half way between the average role (0) and the default Assistant (1), has no
// colour; a token this far from the centre has the full colour.
const TONE_CENTRE = 0.5;
const TONE_RANGE = 1.25;
const TRAILING_TOKENS = 8;
const FINISH_LABELS = { cancelled: "Stopped", failed: "Ended by an error" };
// The series of the token chart. Those of reasoning are drawn in a lighter shade.
const SERIES_ROLES = [
  "raw", "smooth", "fired", "reasoning-raw", "reasoning-smooth", "reasoning-fired", "lift", "before", "answer-start",
];
// The ends of the line at which a branch's answer starts, in axis units. The charts always show at least these.
const ANSWER_START_LINE = [-0.75, 1.5];

function number(value) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(2);
  // A true minus sign is as wide as a digit and never starts a new line on its own. Zero gets no sign.
  return value < 0 && Number(text) > 0 ? `\u2212${text}` : text;
}

function describeMean(mean) {
  if (mean >= 2 / 3) return "Assistant-like";
  return mean <= 1 / 3 ? "role-playing" : "in between";
}

function tokenLabel(text) {
  // Plotly interprets some HTML in hover text, so a token must be escaped.
  const short = text.length > 40 ? text.slice(0, 40) + "…" : text;
  const shown = short.replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "\u00a0");
  return "“" + shown.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;") + "”";
}

// From -1 (role) over 0 (in between) to 1 (Assistant); null for a token without a projection.
function toneOf(value) {
  if (value === null || value === undefined) return null;
  return Math.max(-1, Math.min(1, (value - TONE_CENTRE) / TONE_RANGE));
}

function describeToken(branch, token) {
  const before = token.b ?? token.a;
  const after = token.a ?? token.b;
  if (before === null || before === undefined) return "projection not recorded";
  if (branch !== "capped") return `projection ${number(after)} (axis units)`;
  if (!token.c) return `projection ${number(after)} (axis units), the cap did not act`;
  if (Math.abs(after - before) > 1e-6) {
    return `the cap acted here: projection ${number(before)} → ${number(after)} (axis units)`;
  }
  return `the cap acted at other layers (sum ${number(token.c)}): projection ${number(after)} (axis units)`;
}

function emptySeries() {
  const series = {};
  for (const role of SERIES_ROLES) series[role] = { x: [], y: [], customdata: [] };
  return series;
}

// Either the answer or the reasoning before it. measured counts the tokens with a projection; recent holds the last.
const newSpan = () => ({ count: 0, fired: 0, sum: 0, measured: 0, recent: [] });

// received counts all tokens; visibleTokens holds those that are shown, the reasoning's and the answer's.
function newReply(branch) {
  return {
    branch, absent: false, received: 0, visibleTokens: [], series: emptySeries(),
    answer: newSpan(), reasoning: newSpan(), samples: [], html: null, finish: null, fault: "",
    finalMean: null, finalReasoningMean: null, finalFired: null, finalCount: null,
    limit: null, userMean: null, place: null,
  };
}

function addPoint(series, x, y, customdata) {
  series.x.push(x);
  series.y.push(y);
  series.customdata.push(customdata);
}

const spanOf = (reply, token) => (token.r ? reply.reasoning : reply.answer);

function markAnswerStart(reply, position) {
  for (const y of ANSWER_START_LINE) addPoint(reply.series["answer-start"], position - 0.5, y, null);
}

function addToSeries(reply, token, position) {
  const after = token.a ?? token.b;
  if (after === null || after === undefined) return;
  const span = spanOf(reply, token);
  const series = (role) => reply.series[token.r ? `reasoning-${role}` : role];
  const { lift, before } = reply.series;
  const hover = [tokenLabel(token.t), describeToken(reply.branch, token)];
  if (!token.r && !span.measured && reply.reasoning.count) markAnswerStart(reply, position);
  span.sum += after;
  span.measured += 1;
  span.recent.push(after);
  if (span.recent.length > TRAILING_TOKENS) span.recent.shift();
  addPoint(series("raw"), position, after, hover);
  const trailing = span.recent.reduce((sum, value) => sum + value, 0) / span.recent.length;
  addPoint(series("smooth"), position, trailing, null);
  if (!token.c) return;
  addPoint(series("fired"), position, after, hover);
  if (token.b === null || token.b === undefined) return;
  addPoint(before, position, token.b, null);
  for (const y of [token.b, after, null]) addPoint(lift, position, y, null);
}

function addToken(reply, token) {
  // Template and end tokens are neither shown nor plotted, so positions count visible tokens only.
  reply.received += 1;
  if (token.s) return null;
  reply.visibleTokens.push(token);
  token.c = token.k ? token.k.reduce((sum, value) => sum + value, 0) : 0;
  const span = spanOf(reply, token);
  span.count += 1;
  if (token.c) span.fired += 1;
  addToSeries(reply, token, reply.visibleTokens.length);
  return token;
}

function finishReply(reply, data) {
  reply.finish = data.finish ?? null;
  reply.fault = data.fault ?? "";
  reply.finalMean = data.mean ?? null;
  reply.finalReasoningMean = data.reasoning_mean ?? null;
  reply.finalFired = data.fired ?? null;
  reply.finalCount = data.count ?? null;
  reply.limit = data.limit ?? null;
  reply.place = data.place ?? null; // on the persona map: [PC1, PC2, PC3]
  reply.samples = data.samples ?? reply.samples; // the turn with other random numbers: {mean, fired, count, text}
  reply.html = data.html ?? reply.html; // the reply with its markdown rendered
}

const spanMean = ({ sum, measured }) => (measured ? sum / measured : null);

// Of the answer; null while a reply has none.
function meanOf(reply) {
  return reply.finalMean ?? spanMean(reply.answer);
}

// Null for a reply without reasoning.
function reasoningMeanOf(reply) {
  return reply.finalReasoningMean ?? spanMean(reply.reasoning);
}

const hasReasoning = (reply) => reply.reasoning.count > 0;

function firedShare(reply) {
  const count = reply.finalCount ?? reply.answer.count;
  return count ? (reply.finalFired ?? reply.answer.fired) / count : null;
}

function reasoningFiredShare({ reasoning }) {
  return reasoning.count ? reasoning.fired / reasoning.count : null;
}

function describeShare(share) {
  return `${share < 0.005 ? "under 1" : Math.round(100 * share)}%`;
}

// What the cap did in a reply; "" while there is nothing to say. brief: for a place with little room.
function describeCapping(reply, brief) {
  const [answer, reasoning] = [firedShare(reply), reasoningFiredShare(reply)];
  if (answer === null && reasoning === null) return "";
  if (!answer && !reasoning) return "cap did not act on this reply";
  const amount = (share) => (share ? describeShare(share) : "none");
  if (reasoning === null) return `cap acted on ${amount(answer)} of this reply’s tokens`;
  if (answer === null) return `cap acted on ${amount(reasoning)} of the reasoning’s tokens`;
  if (brief) return `cap: ${amount(answer)} of answer, ${amount(reasoning)} of reasoning`;
  return `cap acted on ${amount(answer)} of the answer, ${amount(reasoning)} of the reasoning`;
}

const isLive = (reply) => !reply.absent && reply.finish === null;
const turnIsLive = (turn) => Boolean(turn) && BRANCHES.some((branch) => isLive(turn.replies[branch]));

function finishLabel(reply) {
  if (reply.finish === "length") {
    const reached = `Reached the token limit (${reply.limit ?? reply.visibleTokens.length})`;
    return hasReasoning(reply) && !reply.answer.count ? `${reached} before the answer` : reached;
  }
  return reply.fault || (FINISH_LABELS[reply.finish] ?? null);
}

// branches: those that answer. The others get an empty reply, which draws nothing.
function newTurn(user, branches) {
  const turn = { user, replies: Object.fromEntries(BRANCHES.map((branch) => [branch, newReply(branch)])) };
  for (const branch of BRANCHES) turn.replies[branch].absent = !branches.includes(branch);
  return turn;
}

function turnFromData(data) {
  const turn = newTurn(data.user, Object.keys(data.branches ?? {}));
  for (const branch of BRANCHES) {
    const given = data.branches?.[branch];
    if (!given) continue;
    const reply = turn.replies[branch];
    for (const token of given.tokens ?? []) addToken(reply, token);
    reply.userMean = given.user_mean ?? null;
    finishReply(reply, given);
    if (!data.live) reply.finish ??= "stop";
  }
  return turn;
}

// Turns and replies, and the series that the charts draw of them. Uses neither the DOM nor Plotly.

/**
 * @import { Branch, ByBranch, Reply, ReplyData, Series, SeriesRole, Span } from "./types"
 * @import { Token, Turn, TurnData, VisibleToken } from "./types"
 */

import { describeToken, tokenLabel } from "./text.js";

/** @type {readonly Branch[]} */
export const BRANCHES = ["uncapped", "capped", "steered"];
/** @type {ByBranch<string>} */
export const SYMBOLS = { uncapped: "circle", capped: "diamond", steered: "square" };
/** @type {ByBranch<string>} */
export const DASHES = { uncapped: "4px,3px", capped: "solid", steered: "1px,3px" };
// In axis units. A token at the centre, half way between the average role (0) and the default Assistant (1),
// has no colour; a token this far from the centre has the full colour.
export const TONE_CENTRE = 0.5;
const TONE_RANGE = 1.25;
export const TRAILING_TOKENS = 8;
/**
 * The series of the token chart. Those of reasoning are drawn in a lighter shade.
 * @type {readonly SeriesRole[]}
 */
const SERIES_ROLES = [
  "raw",
  "smooth",
  "fired",
  "reasoning-raw",
  "reasoning-smooth",
  "reasoning-fired",
  "lift",
  "before",
  "answer-start",
  "plain",
  "second",
];
// The ends of the line at which a branch's answer starts, in axis units. The charts always show at least
// these.
const ANSWER_START_LINE = [-0.75, 1.5];

/**
 * @template T
 * @param {(branch: Branch) => T} make
 * @returns {ByBranch<T>}
 */
export function byBranch(make) {
  return { uncapped: make("uncapped"), capped: make("capped"), steered: make("steered") };
}

/**
 * From -1 (role) over 0 (in between) to 1 (Assistant); null for a token without a projection.
 * @param {number | null | undefined} value
 * @returns {number | null}
 */
export function toneOf(value) {
  if (value === null || value === undefined) return null;
  return Math.max(-1, Math.min(1, (value - TONE_CENTRE) / TONE_RANGE));
}

// --- one reply

/** @returns {Record<SeriesRole, Series>} */
function emptySeries() {
  const entries = SERIES_ROLES.map((role) => [role, { x: [], y: [], customdata: [] }]);
  return Object.fromEntries(entries);
}

/** @returns {Span} */
const newSpan = () => ({
  count: 0,
  fired: 0,
  sum: 0,
  measured: 0,
  recent: [],
  recentPlain: [],
  recentSecond: [],
});

/**
 * @param {Branch} branch
 * @returns {Reply}
 */
export function newReply(branch) {
  return {
    branch,
    absent: false,
    second: -1,
    received: 0,
    visibleTokens: [],
    series: emptySeries(),
    answer: newSpan(),
    reasoning: newSpan(),
    samples: [],
    html: null,
    finish: null,
    fault: "",
    finalMean: null,
    finalReasoningMean: null,
    finalFired: null,
    finalCount: null,
    limit: null,
    userMean: null,
    start: null,
    place: null,
    plainMean: null,
    along: [],
    seedMean: null,
    shift: null,
    step: null,
    layers: null,
  };
}

/**
 * @param {Series} series
 * @param {number} x
 * @param {number | null} y
 * @param {Series["customdata"][number]} customdata
 */
function addPoint(series, x, y, customdata) {
  series.x.push(x);
  series.y.push(y);
  series.customdata.push(customdata);
}

/**
 * @param {Reply} reply
 * @param {Token} token
 */
const spanOf = (reply, token) => (token.r ? reply.reasoning : reply.answer);

/**
 * @param {Reply} reply
 * @param {number} position
 */
function markAnswerStart(reply, position) {
  for (const y of ANSWER_START_LINE) addPoint(reply.series["answer-start"], position - 0.5, y, null);
}

/**
 * The mean of the last values, with one more.
 * @param {number[]} recent
 * @param {number} value
 */
export function trailingMean(recent, value) {
  recent.push(value);
  if (recent.length > TRAILING_TOKENS) recent.shift();
  return recent.reduce((sum, one) => sum + one, 0) / recent.length;
}

/**
 * The lines beside the projection on the axis: of the answer only.
 * @param {Reply} reply
 * @param {VisibleToken} token
 * @param {number} position
 */
function addBeside({ answer, series }, token, position) {
  const { second } = token;
  if (typeof token.q === "number")
    addPoint(series.plain, position, trailingMean(answer.recentPlain, token.q), null);
  if (second !== null) addPoint(series.second, position, trailingMean(answer.recentSecond, second), null);
}

/**
 * @param {Reply} reply
 * @param {VisibleToken} token
 * @param {number} position
 */
function addToSeries(reply, token, position) {
  const after = token.a ?? token.b;
  if (after === null || after === undefined) return;
  const span = spanOf(reply, token);
  const series = (/** @type {"raw" | "smooth" | "fired"} */ role) =>
    reply.series[token.r ? /** @type {const} */ (`reasoning-${role}`) : role];
  const { lift, before } = reply.series;
  /** @type {[string, string]} */
  const hover = [tokenLabel(token.t), describeToken(reply.branch, token)];
  if (!token.r && !span.measured && reply.reasoning.count) markAnswerStart(reply, position);
  span.sum += after;
  span.measured += 1;
  addPoint(series("raw"), position, after, hover);
  addPoint(series("smooth"), position, trailingMean(span.recent, after), null);
  if (!token.r) addBeside(reply, token, position);
  if (!token.acted) return;
  addPoint(series("fired"), position, after, hover);
  if (token.b === null || token.b === undefined) return;
  addPoint(before, position, token.b, null);
  for (const y of [token.b, after, null]) addPoint(lift, position, y, null);
}

/**
 * Adds a token, and returns it if it is one that is shown.
 * @param {Reply} reply
 * @param {Token} received
 * @returns {VisibleToken | null}
 */
export function addToken(reply, received) {
  // Template and end tokens are neither shown nor plotted, so positions count visible tokens only.
  reply.received += 1;
  if (received.s) return null;
  const c = received.k?.reduce((sum, value) => sum + value, 0) ?? 0;
  const second = received.g?.[reply.second] ?? null;
  const token = Object.assign(received, { c, acted: c > 0 || (received.z ?? 0) > 0, second });
  reply.visibleTokens.push(token);
  const span = spanOf(reply, token);
  span.count += 1;
  if (token.acted) span.fired += 1;
  addToSeries(reply, token, reply.visibleTokens.length);
  return token;
}

/**
 * @param {Reply} reply
 * @param {ReplyData} data
 */
export function finishReply(reply, data) {
  reply.finish = data.finish ?? null;
  reply.fault = data.fault ?? "";
  reply.finalMean = data.mean ?? null;
  reply.finalReasoningMean = data.reasoning_mean ?? null;
  reply.finalFired = data.fired ?? null;
  reply.finalCount = data.count ?? null;
  reply.limit = data.limit ?? null;
  reply.start = data.start ?? reply.start;
  reply.place = data.place ?? null;
  reply.plainMean = data.plain_mean ?? null;
  reply.along = data.along ?? [];
  reply.seedMean = data.seeds ?? null;
  reply.shift = data.shift ?? null;
  reply.step = data.step ?? null;
  reply.samples = data.samples ?? reply.samples;
  reply.layers = data.layers ?? reply.layers;
  reply.html = data.html ?? reply.html;
}

/** @param {Span} span */
const spanMean = ({ sum, measured }) => (measured ? sum / measured : null);

/**
 * The mean of the answer; null while a reply has none.
 * @param {Reply} reply
 * @returns {number | null}
 */
export function meanOf(reply) {
  return reply.finalMean ?? spanMean(reply.answer);
}

/**
 * The mean of the reasoning; null for a reply without reasoning.
 * @param {Reply} reply
 * @returns {number | null}
 */
export function reasoningMeanOf(reply) {
  return reply.finalReasoningMean ?? spanMean(reply.reasoning);
}

/** @param {Reply} reply */
export const hasReasoning = (reply) => reply.reasoning.count > 0;

/**
 * The share of the answer's tokens on which the cap acted; null while there is no answer.
 * @param {Reply} reply
 * @returns {number | null}
 */
export function firedShare(reply) {
  const count = reply.finalCount ?? reply.answer.count;
  return count ? (reply.finalFired ?? reply.answer.fired) / count : null;
}

/**
 * @param {Reply} reply
 * @returns {number | null}
 */
export function reasoningFiredShare({ reasoning }) {
  return reasoning.count ? reasoning.fired / reasoning.count : null;
}

/** @param {Reply} reply */
export const isLive = (reply) => !reply.absent && reply.finish === null;

// --- one turn

/**
 * Where the second direction stands among those that a turn is read along; -1 for none.
 * @param {Turn["settings"]} settings
 */
export const secondOf = (settings) =>
  settings?.second ? (settings.along ?? []).indexOf(settings.second) : -1;

/** @param {Turn} turn */
export const turnIsLive = (turn) => BRANCHES.some((branch) => isLive(turn.replies[branch]));

/**
 * @param {string} user
 * @param {string[]} branches those that answer; the others get an empty reply, which draws nothing
 * @param {Pick<TurnData, "settings" | "marks" | "seed_gap">} [made] how they answer, where it is known
 * @returns {Turn}
 */
export function newTurn(user, branches, { settings, marks, seed_gap } = {}) {
  const turn = {
    user,
    replies: byBranch(newReply),
    settings: settings ?? null,
    marks: marks ?? null,
    seedGap: seed_gap ?? null,
  };
  for (const branch of BRANCHES) {
    turn.replies[branch].absent = !branches.includes(branch);
    turn.replies[branch].second = secondOf(turn.settings);
  }
  return turn;
}

/**
 * @param {TurnData} data
 * @returns {Turn}
 */
export function turnFromData(data) {
  const turn = newTurn(data.user, Object.keys(data.branches ?? {}), data);
  fillReplies(turn, data.branches);
  for (const branch of BRANCHES) {
    if (data.branches?.[branch] && !data.live) turn.replies[branch].finish ??= "stop";
  }
  return turn;
}

/**
 * Fills replies of a new turn.
 * @param {Turn} turn
 * @param {TurnData["branches"]} given by branch; the others stay as they are
 */
export function fillReplies(turn, given) {
  for (const branch of BRANCHES) {
    const data = given?.[branch];
    if (!data) continue;
    const reply = turn.replies[branch];
    for (const token of data.tokens ?? []) addToken(reply, token);
    reply.userMean = data.user_mean ?? null;
    finishReply(reply, data);
  }
}

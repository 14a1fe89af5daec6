// What a reply and a conversation amount to, in numbers and sentences. Uses neither the DOM nor Plotly.

/** @import { Branch, Finish, Reply, Turn, Zones } from "./types" */

import { number, zoneOf } from "./text.js";
import { thresholdIn } from "./turn_settings.js";
import { BRANCHES, firedShare, hasReasoning, meanOf, reasoningFiredShare } from "./turns.js";

/** @type {Partial<Record<Finish, string>>} */
const FINISH_LABELS = { cancelled: "Stopped", failed: "Ended by an error" };
const READ = "Both panes show the same words, which were read and not generated.";
const TREND_TURNS = 3;
// In axis units: a smaller change between the first and the last of these turns counts as none.
const TREND_FLAT = 0.1;

/**
 * @typedef {"rising" | "falling" | "steady"} TrendWord
 * @typedef {{ change: number; turns: number; word: TrendWord }} Trend
 * @typedef {{ branch: Branch; mean: number; trend: Trend | null }} BranchSummary
 * @typedef {{ name: string; values: Partial<Record<Branch, number>> }} AlongSummary
 * @typedef {{ items: BranchSummary[]; gap: number | null; share: number | null; along: AlongSummary[];
 *   sentence: string }} Summary
 */

/** @param {number} share */
export function describeShare(share) {
  return `${share < 0.005 ? "under 1" : Math.round(100 * share)}%`;
}

/**
 * Whether a reply begins below the threshold of its cap. Both are rounded, so where they are equal it is what the
 * cap did that tells.
 * @param {number} start
 * @param {number} threshold
 * @param {Reply} reply
 */
const beginsBelow = (start, threshold, reply) =>
  start === threshold ? reply.visibleTokens.some(({ acted }) => acted) : start < threshold;

/**
 * Whether the cap leaves a reply as the model writes it, because of where the reply begins. False while that is not
 * known.
 * @param {Reply} reply
 * @param {number | null} threshold see `thresholdIn`
 */
export const isLeftAlone = (reply, threshold) =>
  reply.start !== null && threshold !== null && !beginsBelow(reply.start, threshold, reply);

/**
 * Where a reply begins, and what follows for a cap that acts only on replies that begin below a threshold; "" for
 * any other cap.
 * @param {Reply} reply
 * @param {number | null} threshold see `thresholdIn`
 */
export function describeBeginning(reply, threshold) {
  const { start } = reply;
  if (start === null || threshold === null) return "";
  const digits = number(start) === number(threshold) ? 4 : 2;
  const [begins, limit] = [number(start, digits), number(threshold, digits)];
  if (isLeftAlone(reply, threshold))
    return `Begins at ${begins}, not below ${limit}: the cap leaves it alone.`;
  return `Begins at ${begins}, below ${limit}.`;
}

/**
 * What the cap did in a reply; "" while there is nothing to say.
 * @param {Reply} reply
 * @param {boolean} brief for a place with little room
 * @param {number | null} [threshold] see `thresholdIn`
 * @returns {string}
 */
export function describeCapping(reply, brief, threshold = null) {
  if (isLeftAlone(reply, threshold)) return `cap leaves ${brief ? "this" : "the capped"} reply alone`;
  const [answer, reasoning] = [firedShare(reply), reasoningFiredShare(reply)];
  if (answer === null && reasoning === null) return "";
  if (!answer && !reasoning) return "cap did not act on this reply";
  const amount = (/** @type {number | null} */ share) => (share ? describeShare(share) : "none");
  if (reasoning === null)
    return `cap acted on ${amount(answer)} of ${brief ? "its" : "the capped reply’s"} tokens`;
  if (answer === null) return `cap acted on ${amount(reasoning)} of the reasoning’s tokens`;
  if (brief) return `cap: ${amount(answer)} of answer, ${amount(reasoning)} of reasoning`;
  return `cap acted on ${amount(answer)} of the answer, ${amount(reasoning)} of the reasoning`;
}

/**
 * How a reply ended, if not as usual.
 * @param {Reply} reply
 * @returns {string | null}
 */
export function finishLabel(reply) {
  if (reply.finish === "length") {
    const reached = `Reached the token limit (${reply.limit ?? reply.visibleTokens.length})`;
    return hasReasoning(reply) && !reply.answer.count ? `${reached} before the answer` : reached;
  }
  if (reply.fault) return reply.fault;
  return (reply.finish && FINISH_LABELS[reply.finish]) ?? null;
}

/**
 * @param {number} change
 * @returns {TrendWord}
 */
function trendWord(change) {
  if (change > TREND_FLAT) return "rising";
  return change < -TREND_FLAT ? "falling" : "steady";
}

/**
 * How a branch's mean has changed over the last turns up to `index`; null with fewer than two replies.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @param {number} index
 * @returns {Trend | null}
 */
export function trendOf(turns, branch, index) {
  const all = turns.slice(0, index + 1).map((turn) => turn.replies[branch]);
  const replies = all.filter((reply) => !reply.absent);
  const means = replies.map(meanOf).filter((mean) => mean !== null);
  const last = means.slice(-TREND_TURNS);
  const [oldest, newest] = [last[0], last.at(-1)];
  if (last.length < 2 || oldest === undefined || newest === undefined) return null;
  const change = newest - oldest;
  return { change, turns: last.length, word: trendWord(change) };
}

/** @param {Reply} reply */
const answerOf = (reply) =>
  reply.visibleTokens
    .filter((token) => !token.r)
    .map((token) => token.t)
    .join("");

// Not every language separates its words by spaces. Some older browsers cannot tell words apart.
const WORDS =
  typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

/**
 * The words and punctuation marks of a text.
 * @param {string} text
 */
function piecesOf(text) {
  const pieces = WORDS ? Array.from(WORDS.segment(text), ({ segment }) => segment) : text.split(/\s+/);
  return pieces.filter((piece) => piece.trim());
}

/**
 * Where two answers part; nothing while either of them is empty or being written.
 * @param {Reply} uncapped
 * @param {Reply} capped
 */
function wordsSentence(uncapped, capped) {
  if (!uncapped.finish || !capped.finish) return "";
  const [left, right] = [piecesOf(answerOf(uncapped)), piecesOf(answerOf(capped))];
  if (!left.length || !right.length) return "";
  const parting = left.findIndex((piece, n) => piece !== right[n]);
  if (parting < 0 && left.length === right.length) return "Both replies are the same, word for word.";
  const shared = parting < 0 ? left : left.slice(0, parting);
  const count = shared.filter((piece) => /[\p{L}\p{N}]/u.test(piece)).length;
  if (count === 0) return "The replies differ from the first word on.";
  return `The replies share their first ${count === 1 ? "word" : `${count} words`} and then differ.`;
}

/**
 * @param {BranchSummary[]} items
 * @param {Zones | null | undefined} zones
 */
function zonesSentence(items, zones) {
  if (!zones || !items.length) return "";
  const names = items.map(({ mean }) => zoneOf(mean, zones));
  if (items.length > 1 && new Set(names).size === 1) {
    return `On the axis ${items.length === 2 ? "both" : "all"} read as ${names[0]}.`;
  }
  return `On the axis: ${items.map(({ branch }, n) => `${branch} ${names[n]}`).join(", ")}.`;
}

/**
 * @param {Turn} turn
 * @param {boolean} off
 */
function capSentence({ replies: { capped }, settings }, off) {
  if (capped.absent) return "";
  if (off) return "The cap is off.";
  const capping = describeCapping(capped, false, thresholdIn(settings, "capped"));
  return capping && `The ${capping}.`;
}

/**
 * Drift at a glance, for one turn.
 * @param {Turn[]} turns
 * @param {number | null} index
 * @param {boolean} capOff
 * @param {Zones | null | undefined} zones
 * @returns {Summary}
 */
export function summarise(turns, index, capOff, zones) {
  const turn = index === null ? undefined : turns[index];
  if (!turn || index === null) return { items: [], gap: null, share: null, along: [], sentence: "" };
  const mean = (/** @type {Branch} */ branch) =>
    turn.replies[branch].absent ? null : meanOf(turn.replies[branch]);
  const items = BRANCHES.flatMap((branch) => {
    const value = mean(branch);
    return value === null ? [] : [{ branch, mean: value, trend: trendOf(turns, branch, index) }];
  });
  const { uncapped: left, capped: right } = turn.replies;
  const words = turn.settings?.read ? READ : wordsSentence(left, right);
  const sentences = [words, zonesSentence(items, zones), capSentence(turn, capOff)];
  const [uncapped, capped] = [mean("uncapped"), mean("capped")];
  const gap = uncapped === null || capped === null ? null : capped - uncapped;
  const share = left.shift?.length ? left.shift.share : null;
  return { items, gap, share, along: alongOf(turn), sentence: sentences.filter(Boolean).join(" ") };
}

/**
 * The means of a turn's replies along each direction that is read along.
 * @param {Turn} turn
 * @returns {AlongSummary[]}
 */
function alongOf(turn) {
  return (turn.settings?.along ?? []).map((name, n) => {
    const values = BRANCHES.flatMap((branch) => {
      const value = turn.replies[branch].along[n];
      return value === undefined ? [] : [[branch, value]];
    });
    return { name: name.replace(/_/g, " "), values: Object.fromEntries(values) };
  });
}

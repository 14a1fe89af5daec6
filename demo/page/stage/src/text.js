// Numbers and tokens as text. Uses neither the DOM nor Plotly.

/** @import { Branch, Token, Zones } from "./types" */

/**
 * @param {number | null | undefined} value
 * @param {number} [digits] after the point
 * @returns {string}
 */
export function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  // A true minus sign is as wide as a digit and never starts a new line on its own. Zero gets no sign.
  return value < 0 && Number(text) > 0 ? `\u2212${text}` : text;
}

/**
 * A count with its noun, such as "1 token" and "2 tokens".
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

const ASSISTANT = {
  default: "default Assistant",
  side: "Assistant’s side",
  low: "role",
  high: "Assistant",
  persona: "its Assistant persona",
  axis: "Assistant Axis",
};
const MEASURED = {
  default: "own replies",
  side: "own replies’ side",
  low: "role-played",
  high: "own",
  persona: "its own way of answering",
  axis: "axis from role-played to own replies",
};

let assistant = true;

/**
 * Whether the axis that is shown may be called by the Assistant's name. One that orders the roles otherwise is
 * called by what was measured: own replies against role-played ones.
 * @param {boolean} may
 */
export function nameAxis(may) {
  assistant = may;
}

/** What lies at 1, and the axis's upper side. */
export const axisWords = () => (assistant ? ASSISTANT : MEASURED);

/**
 * The zone of a reply's mean, as `Zones.name_of` in demo/axis/zones.py says it; "" where none was measured.
 * @param {number} mean
 * @param {Zones | null | undefined} zones
 * @returns {string}
 */
export function zoneOf(mean, zones) {
  if (!zones) return "";
  if (mean < zones.low) return zones.names[0];
  return mean > zones.high ? zones.names[2] : zones.names[1];
}

/**
 * What a zone is worth as evidence about a reply of a branch.
 * @param {Branch} branch
 * @param {Zones | null | undefined} zones
 * @returns {string}
 */
export function describeZones(branch, zones) {
  if (!zones) return "Which means count as role-played was not measured for this axis.";
  if (branch === "uncapped") return zones.measured;
  const what = branch === "capped" ? "the cap" : "steering";
  return `${zones.measured} These replies were read without a cap or steering: here ${what} may have moved the mean.`;
}

/**
 * Many chat templates add a system prompt of their own where none is given.
 * @param {string} prompt
 */
export const describePrompt = (prompt) => prompt.trim() || "the model’s own default";

/**
 * Plotly interprets some HTML in its texts.
 * @param {string} text
 */
export const escapeHtml = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

/**
 * A token's text for hover texts.
 * @param {string} text
 * @returns {string}
 */
export function tokenLabel(text) {
  const short = text.length > 40 ? `${text.slice(0, 40)}…` : text;
  const shown = short.replace(/\n/g, "\\n").replace(/\t/g, "\\t").replace(/ /g, "\u00a0");
  return `“${escapeHtml(shown)}”`;
}

/**
 * The projection before and after the cap; both null if it was not recorded.
 * @param {Token} token
 * @returns {{ before: number; after: number } | { before: null; after: null }}
 */
export function projections(token) {
  const before = token.b ?? token.a ?? null;
  const after = token.a ?? token.b ?? null;
  return before === null || after === null ? { before: null, after: null } : { before, after };
}

/**
 * @param {Branch} branch
 * @param {Token & { c?: number, acted?: boolean }} token
 * @returns {string}
 */
export function describeToken(branch, token) {
  const { before, after } = projections(token);
  if (before === null) return "projection not recorded";
  const acted = token.acted ?? token.c;
  if (branch === "uncapped" || (branch === "steered" && !acted))
    return `projection ${number(after)} (axis units)`;
  if (!acted) return `projection ${number(after)} (axis units), the cap did not act`;
  if (Math.abs(after - before) > 1e-6) {
    return `the cap acted here: projection ${number(before)} → ${number(after)} (axis units)`;
  }
  if (!token.c) return `the cap acted along another direction: projection ${number(after)} (axis units)`;
  return `the cap acted at other layers (sum ${number(token.c)}): projection ${number(after)} (axis units)`;
}

/** @param {number} share */
export function percent(share) {
  return share < 0.001 ? "under 0.1%" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
}

/**
 * A token's text where white space must be seen.
 * @param {string} text
 */
export function shownToken(text) {
  if (!text) return "end of the reply";
  return text.trim() ? text : JSON.stringify(text);
}

/** @typedef {{ id: number, text: string, own: number | undefined, plain: number | undefined }} Choice */

const MOST_CHOICES = 8;

/**
 * The likeliest tokens at a token's place, the likeliest of either kind first. `own`: probability in the
 * reply's own model; `plain`: without the cap. Undefined where it is too small to be recorded.
 * @param {Token} token
 * @returns {Choice[]}
 */
export function choices(token) {
  /** @type {Map<number, Choice>} */
  const rows = new Map();
  for (const [id, text, own] of token.l ?? []) rows.set(id, { id, text, own, plain: undefined });
  for (const [id, text, plain] of token.o ?? []) rows.set(id, { id, text, own: rows.get(id)?.own, plain });
  const most = (/** @type {Choice} */ row) => Math.max(row.own ?? 0, row.plain ?? 0);
  return [...rows.values()].sort((one, other) => most(other) - most(one)).slice(0, MOST_CHOICES);
}

/**
 * What the cap did to the choice of a token; null where its words were not read without the cap, or where it cannot
 * be found among the likeliest.
 * @param {Token} token
 */
export function effectOnChoice(token) {
  const [likeliest] = token.o ?? [];
  if (!likeliest || typeof token.p !== "number") return null;
  const chosen = choices(token).filter(({ text }) => text === token.t);
  // A part of a character has no text of its own, so it cannot be found among them.
  if (!chosen[0] || chosen.length > 1) return null;
  const { plain } = chosen[0];
  const change =
    plain === undefined
      ? `${percent(token.p)} with the cap, not among the likeliest without it`
      : `${percent(plain)} without the cap, ${percent(token.p)} with it`;
  const instead =
    likeliest[1] === token.t ? "" : ` Without it, ${JSON.stringify(likeliest[1])} is likeliest.`;
  return `This token: ${change}.${instead}`;
}

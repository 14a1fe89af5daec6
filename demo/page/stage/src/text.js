// Numbers and tokens as text. Uses neither the DOM nor Plotly.

/** @import { Branch, Token, Zones } from "./types" */

/**
 * @param {number | null | undefined} value
 * @returns {string}
 */
export function number(value) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(2);
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
  return `${zones.measured} These replies were read without a cap or steering: here ${what} has moved the mean.`;
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
  if (branch !== "capped") return `projection ${number(after)} (axis units)`;
  if (!(token.acted ?? token.c)) return `projection ${number(after)} (axis units), the cap did not act`;
  if (Math.abs(after - before) > 1e-6) {
    return `the cap acted here: projection ${number(before)} → ${number(after)} (axis units)`;
  }
  if (!token.c) return `the cap acted along another direction: projection ${number(after)} (axis units)`;
  return `the cap acted at other layers (sum ${number(token.c)}): projection ${number(after)} (axis units)`;
}

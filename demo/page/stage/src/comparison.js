// Two branches side by side, of two conversations or of one: the turns, what differs in how they were answered,
// and the whole as Markdown. Uses neither the DOM nor Plotly.

/** @import { Branch, ComparedData, Reply, Side, Turn } from "./types" */

import { describeShare } from "./summary.js";
import { number } from "./text.js";
import { settingsRows } from "./turn_settings.js";
import { BRANCHES, firedShare, isLive, meanOf, turnFromData } from "./turns.js";

/** What one side says in a turn. `reply` is null where its branch does not answer. */
/** @typedef {{ turn: Turn; reply: Reply | null }} Half */
/** A turn that one side does not have is null there. `difference`: right mean minus left mean. */
/** @typedef {{ index: number; left: Half | null; right: Half | null; difference: number | null }} Row */
/** @typedef {{ name: string; left: string; right: string }} SettingDifference */
/** @typedef {{ left: Side; right: Side; sameAxis: boolean }} Comparison */

/**
 * What a setting that a reply does not list means; any other means "none".
 * @type {Record<string, string>}
 */
const UNLISTED = { Attempt: "1", Thinking: "off", "End at a sentence after": "off" };

/**
 * Another conversation as the server sends it.
 * @param {ComparedData} data
 * @param {Branch} branch
 * @returns {Side}
 */
export const sideOf = (data, branch) => ({
  title: data.title,
  model: data.model,
  probeLayer: data.probe_layer,
  branch,
  turns: data.turns.map(turnFromData),
});

/**
 * The branches that answer in any of these turns.
 * @param {Turn[]} turns
 */
export const branchesOf = (turns) =>
  BRANCHES.filter((branch) => turns.some((turn) => !turn.replies[branch].absent));

/** @param {Side} side */
export const sideName = ({ title, branch }) => `${title}, ${branch}`;

/**
 * @param {Reply} reply
 * @param {boolean} reasoning its reasoning, not its answer
 */
export const textOf = (reply, reasoning) =>
  reply.visibleTokens
    .filter((token) => Boolean(token.r) === reasoning)
    .map((token) => token.t)
    .join("");

/**
 * @param {Side} side
 * @param {number} index
 * @returns {Half | null}
 */
function halfOf({ turns, branch }, index) {
  const turn = turns[index];
  if (!turn) return null;
  const reply = turn.replies[branch];
  return { turn, reply: reply.absent ? null : reply };
}

/** @param {Half | null} half */
const finalMean = (half) => (half?.reply && !isLive(half.reply) ? meanOf(half.reply) : null);

/**
 * @param {Comparison} comparison
 * @returns {Row[]}
 */
export function rowsOf({ left, right, sameAxis }) {
  const count = Math.max(left.turns.length, right.turns.length);
  return Array.from({ length: count }, (_, index) => {
    const [one, other] = [halfOf(left, index), halfOf(right, index)];
    const [from, to] = [finalMean(one), finalMean(other)];
    const difference = sameAxis && from !== null && to !== null ? to - from : null;
    return { index, left: one, right: other, difference };
  });
}

/**
 * Why no differences of means are given; "" where they are.
 * @param {Comparison} comparison
 */
export function unitsNote({ left, right, sameAxis }) {
  if (sameAxis) return "";
  const name = (/** @type {Side} */ { model, probeLayer }) =>
    `${model || "unknown model"}${probeLayer === undefined ? "" : ` at layer ${probeLayer}`}`;
  return (
    `The two sides were read along different axes (left: ${name(left)}; right: ${name(right)}), ` +
    "so each mean is in the units of its own axis, and their difference is not given."
  );
}

// --- settings

/**
 * The values of a setting by turn, in few words.
 * @param {[turn: number, value: string][]} values turns from 0
 */
export function overTurns(values) {
  /** @type {{ first: number; last: number; value: string }[]} */
  const runs = [];
  for (const [turn, value] of values) {
    const run = runs.at(-1);
    if (run?.value === value) run.last = turn;
    else runs.push({ first: turn, last: turn, value });
  }
  if (runs.length < 2) return runs[0]?.value ?? "";
  if (runs.length === values.length) return `${runs.map(({ value }) => value).join("; ")} (turn by turn)`;
  const when = (/** @type {number} */ first, /** @type {number} */ last) =>
    first === last ? `turn ${first + 1}` : `turns ${first + 1}–${last + 1}`;
  return runs.map(({ first, last, value }) => `${value} (${when(first, last)})`).join("; ");
}

/**
 * The settings of one side's reply by name; null where they are not known.
 * @param {Half} half
 * @param {Branch} branch
 */
const listed = ({ turn }, branch) => (turn.settings ? new Map(settingsRows(turn.settings, branch)) : null);

/**
 * The settings that differ in any turn that both sides have.
 * @param {Comparison} comparison
 * @returns {SettingDifference[]}
 */
export function settingsDifferences(comparison) {
  const { left, right } = comparison;
  const known = rowsOf(comparison).flatMap((row) => {
    const one = row.left?.reply ? listed(row.left, left.branch) : null;
    const other = row.right?.reply ? listed(row.right, right.branch) : null;
    return one && other ? [{ index: row.index, one, other }] : [];
  });
  const names = new Set(known.flatMap(({ one, other }) => [...one.keys(), ...other.keys()]));
  const differences = [...names].flatMap((name) => {
    const value = (/** @type {Map<string, string>} */ rows) => rows.get(name) ?? UNLISTED[name] ?? "none";
    if (known.every(({ one, other }) => value(one) === value(other))) return [];
    const over = (/** @type {"one" | "other"} */ side) =>
      overTurns(known.map((row) => [row.index, value(row[side])]));
    return [{ name, left: over("one"), right: over("other") }];
  });
  const models = left.model === right.model ? [] : [{ name: "Model", left: left.model, right: right.model }];
  return [...models, ...differences];
}

/**
 * What the list of differing settings leaves open; "" for nothing.
 * @param {Comparison} comparison
 */
export function settingsNote(comparison) {
  const shared = rowsOf(comparison).filter(({ left, right }) => left?.reply && right?.reply);
  const unknown = shared.filter(({ left, right }) => !left?.turn.settings || !right?.turn.settings);
  if (!shared.length) return "The two sides have no turn in which both answer.";
  if (!unknown.length)
    return settingsDifferences(comparison).length
      ? ""
      : "In the turns that both sides have, their settings are the same.";
  const turns = unknown.map(({ index }) => index + 1).join(", ");
  return `Settings cannot be compared where a file does not say them: turn ${turns}.`;
}

// --- Markdown

/**
 * A text as one cell of a table.
 * @param {string} text
 */
const cell = (text) => text.replace(/\s+/g, " ").replace(/[\\|`*_<[\]]/g, "\\$&");

/** @param {string[]} cells */
const tableRow = (cells) => `| ${cells.join(" | ")} |`;

/**
 * @param {string[]} head
 * @param {string[][]} rows
 */
const table = (head, rows) => [tableRow(head), tableRow(head.map(() => "---")), ...rows.map(tableRow)];

/** @param {Half | null} half */
function meanCell(half) {
  if (!half) return "no such turn";
  if (!half.reply) return "no reply";
  return isLive(half.reply) ? "being written" : number(meanOf(half.reply));
}

/** @param {Half | null} half */
function capCell(half) {
  const reply = half?.reply;
  if (reply?.branch !== "capped" || isLive(reply)) return "–";
  const share = firedShare(reply);
  if (share === null) return "–";
  return share ? describeShare(share) : "none";
}

/**
 * The comparison for a document: its titles, the settings that differ, and the means by turn.
 * @param {Comparison} comparison
 */
export function comparisonMarkdown(comparison) {
  const [left, right] = [cell(sideName(comparison.left)), cell(sideName(comparison.right))];
  const settings = settingsDifferences(comparison).map((row) => [row.name, row.left, row.right].map(cell));
  const means = rowsOf(comparison).map((row) => [
    String(row.index + 1),
    meanCell(row.left),
    meanCell(row.right),
    number(row.difference),
    capCell(row.left),
    capCell(row.right),
  ]);
  const notes = [settingsNote(comparison), unitsNote(comparison)].filter(Boolean).map(cell);
  const head = ["turn", "left mean", "right mean", "right − left", "cap acted, left", "cap acted, right"];
  const parts = [
    ["# Comparison of two conversations"],
    [`- left: ${left}`, `- right: ${right}`],
    ...(settings.length ? [table(["setting", "left", "right"], settings)] : []),
    ...notes.map((note) => [note]),
    table(head, means),
    ["Means are projections in axis units; the cap’s share is that of the answer’s tokens."],
  ];
  return `${parts.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}

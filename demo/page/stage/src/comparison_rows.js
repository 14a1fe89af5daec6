// What the comparison shows: the turns of both sides, and the words and settings that differ.

/**
 * @import { Comparison, Half, Row } from "./comparison.js"
 * @import { DifferencePart, Reply } from "./types"
 */

import { settingsDifferences, settingsNote, textOf } from "./comparison.js";
import { wordDifference } from "./difference.js";
import { makeElement } from "./dom.js";
import { describeCapping, finishLabel } from "./summary.js";
import { number } from "./text.js";
import { thresholdIn } from "./turn_settings.js";
import { isLive, meanOf, reasoningMeanOf } from "./turns.js";

/** @typedef {"left" | "right"} SideName */

/** @type {readonly SideName[]} */
export const SIDES = ["left", "right"];

// --- words

/** @param {string} text */
const spoken = (text) => makeElement("span", "spoken", text);

/**
 * A passage that one side alone has. White space around it is not marked.
 * @param {string} text
 * @param {SideName} side
 */
function markedPassage(text, side) {
  const words = text.trim();
  if (!words) return [text];
  const start = text.indexOf(words);
  const mark = makeElement("mark", side);
  mark.append(spoken(`only ${side}: `), words, spoken(" (end) "));
  return [text.slice(0, start), mark, text.slice(start + words.length)];
}

/**
 * Whether any passage is the same, and not only a full stop at the end.
 * @param {DifferencePart[]} parts
 */
const haveCommonPassage = (parts) =>
  parts.some(({ kind, text }) => kind === "same" && /[\p{L}\p{N}]/u.test(text));

/**
 * The text of one side. Where no passage is the same, nothing is marked.
 * @param {DifferencePart[]} parts
 * @param {SideName} side
 * @param {string} className
 */
function markedText(parts, side, className) {
  const box = makeElement("div", className);
  const marks = haveCommonPassage(parts);
  for (const { kind, text } of parts) {
    if (kind === "same" || (kind === side && !marks)) box.append(text);
    else if (kind === side) box.append(...markedPassage(text, side));
  }
  return box;
}

/** @param {DifferencePart[]} parts */
function describeWords(parts) {
  if (!parts.length) return "";
  if (parts.every(({ kind }) => kind === "same")) return "the same words";
  return haveCommonPassage(parts) ? "" : "the replies differ throughout, so nothing is marked";
}

/**
 * A reply's figures in words.
 * @param {Half | null} half
 * @param {SideName} side
 */
function figuresOf(half, side) {
  const line = makeElement("p", "compared-figures", `${side}: `);
  if (!half) line.append("no such turn on this side");
  else if (!half.reply) line.append("no reply of this branch");
  else {
    const { reply, turn } = half;
    const threshold = thresholdIn(turn.settings, reply.branch);
    const cap = reply.branch === "capped" ? describeCapping(reply, true, threshold) : "";
    const end = isLive(reply) ? "being written" : finishLabel(reply);
    line.append("mean ", makeElement("b", reply.branch, number(meanOf(reply))));
    for (const text of [cap, end]) if (text) line.append(` · ${text}`);
  }
  return line;
}

/**
 * The reasoning before an answer, folded; null for a reply without.
 * @param {Reply | null | undefined} reply
 * @param {DifferencePart[]} parts
 * @param {SideName} side
 */
function reasoningOf(reply, parts, side) {
  if (!reply?.reasoning.count) return null;
  const details = makeElement("details", "compared-reasoning");
  const summary = makeElement("summary", "", `Reasoning, mean ${number(reasoningMeanOf(reply))}`);
  details.append(summary, markedText(parts, side, "compared-text"));
  return details;
}

// --- one turn

/** @param {Row} row */
function rowHead({ index, difference }, /** @type {string} */ words) {
  const head = makeElement("h3", "", `Turn ${index + 1}`);
  const parts = [difference === null ? "" : `right mean minus left mean: ${number(difference)}`, words];
  const text = parts.filter(Boolean).join(" · ");
  if (text) head.append(makeElement("span", "compared-gap", text));
  return head;
}

/**
 * The user's message: once where both sides have the same.
 * @param {Row} row
 */
function messagesOf({ left, right }) {
  const [one, other] = [left?.turn.user, right?.turn.user];
  const label = () => makeElement("span", "spoken", "You: ");
  if (one === other || one === undefined || other === undefined) {
    const message = makeElement("div", "user", one ?? other);
    message.prepend(label());
    return [message];
  }
  const parts = wordDifference(one, other);
  return SIDES.map((side) => {
    const message = markedText(parts, side, "user half");
    message.prepend(label());
    return message;
  });
}

/**
 * Whether both sides have a reply that is finished, so that their words can be compared.
 * @param {Row} row
 */
const isComplete = (row) => SIDES.every((side) => row[side]?.reply && !isLive(row[side].reply));

/**
 * Both texts of a turn, by part of the reply.
 * @param {Row} row
 * @param {boolean} reasoning
 * @returns {DifferencePart[]}
 */
function differenceOf(row, reasoning) {
  const text = (/** @type {SideName} */ side) => {
    const reply = row[side]?.reply;
    return reply ? textOf(reply, reasoning) : "";
  };
  if (isComplete(row)) return wordDifference(text("left"), text("right"));
  return SIDES.map((side) => ({ kind: side, text: text(side) }));
}

/** @param {Row} row */
function rowElement(row) {
  const section = makeElement("section", "compared-turn");
  const [answer, reasoning] = [differenceOf(row, false), differenceOf(row, true)];
  section.append(rowHead(row, isComplete(row) ? describeWords(answer) : ""), ...messagesOf(row));
  for (const side of SIDES) {
    const half = makeElement("div", "compared-reply");
    half.dataset.side = side;
    const thoughts = reasoningOf(row[side]?.reply, reasoning, side);
    half.append(
      figuresOf(row[side], side),
      ...(thoughts ? [thoughts] : []),
      markedText(answer, side, "compared-text"),
    );
    section.append(half);
  }
  return section;
}

/**
 * What the look of one side of a turn depends on.
 * @param {Half | null} half
 */
function keyOf(half) {
  if (!half?.reply) return `${half ? half.turn.user : null}`;
  const { reply, turn } = half;
  const { branch, finish, finalMean, finalFired, visibleTokens } = reply;
  return JSON.stringify([turn.user, branch, finish, finalMean, finalFired, visibleTokens.length]);
}

/**
 * The turns, each built again only when something about it has changed.
 * @param {HTMLElement} box
 */
export function makeRows(box) {
  /** @type {{ row: Row; key: string; element: HTMLElement }[]} */
  let built = [];

  /** @param {Row[]} rows */
  function show(rows) {
    built = rows.map((row, index) => {
      const key = [keyOf(row.left), keyOf(row.right), row.difference].join("\n");
      const old = built[index];
      const same =
        old?.key === key && old.row.left?.turn === row.left?.turn && old.row.right?.turn === row.right?.turn;
      return old && same ? old : { row, key, element: rowElement(row) };
    });
    const elements = built.map(({ element }) => element);
    if (elements.length !== box.children.length || elements.some((one, n) => one !== box.children[n]))
      box.replaceChildren(...elements);
  }

  return { show, element: (/** @type {number} */ index) => built[index]?.element };
}

// --- settings

/**
 * @param {HTMLElement} box
 * @param {Comparison} comparison
 */
export function showSettings(box, comparison) {
  const differences = settingsDifferences(comparison);
  const note = settingsNote(comparison);
  const key = JSON.stringify([differences, note]);
  if (box.dataset.key === key) return; // it stays as it is while a reply is being written
  box.dataset.key = key;
  const list = makeElement("dl", "");
  for (const { name, left, right } of differences) {
    const values = makeElement("dd", "");
    const value = (/** @type {SideName} */ side, /** @type {string} */ text) => {
      const part = makeElement("span", "", text);
      part.prepend(makeElement("i", "", `${side}: `));
      return part;
    };
    values.append(value("left", left), value("right", right));
    list.append(makeElement("dt", "", name), values);
  }
  const head = differences.length ? [makeElement("h3", "", "Settings that differ"), list] : [];
  box.replaceChildren(...head, ...(note ? [makeElement("p", "", note)] : []));
}

// The comparison: another open conversation, or another branch of this one, beside the one that is shown. It stands
// in the place of the panes, and its means are lines in the chart of turns.

/**
 * @import { Comparison, Half, Row } from "./comparison.js"
 * @import { Conversation } from "./model.js"
 * @import { OtherTurns } from "./turn_chart.js"
 * @import { Branch, ComparedData, DifferencePart, Operations, Reply, SendRequest, Side } from "./types"
 */

import {
  branchesOf,
  comparisonMarkdown,
  rowsOf,
  settingsDifferences,
  settingsNote,
  sideName,
  sideOf,
  textOf,
  unitsNote,
} from "./comparison.js";
import { wordDifference } from "./difference.js";
import { find, findAs, makeElement } from "./dom.js";
import { showNotice } from "./notices.js";
import { describeCapping, finishLabel } from "./summary.js";
import { number } from "./text.js";
import { isLive, meanOf, reasoningMeanOf, turnIsLive } from "./turns.js";

/** @typedef {"left" | "right"} SideName */
/** @typedef {Operations["conversations"]} OpenConversations */
/** @typedef {ReturnType<typeof makeCompare>} Compare */

/** Stands for the conversation that is shown, whichever it is. */
const OWN = "own";
/** @type {readonly SideName[]} */
const SIDES = ["left", "right"];
const ASK_AGAIN_MS = 1000; // while a reply of the other conversation is being stopped

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
 * Whether the texts have any words in common, and not only a full stop at the end.
 * @param {DifferencePart[]} parts
 */
const haveCommonWords = (parts) =>
  parts.some(({ kind, text }) => kind === "same" && /[\p{L}\p{N}]/u.test(text));

/**
 * The text of one side. Where no words are the same, nothing is marked.
 * @param {DifferencePart[]} parts
 * @param {SideName} side
 * @param {string} className
 */
function markedText(parts, side, className) {
  const box = makeElement("div", className);
  const marks = haveCommonWords(parts);
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
  return haveCommonWords(parts) ? "" : "no words are the same";
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
    const { reply } = half;
    const cap = reply.branch === "capped" ? describeCapping(reply, true) : "";
    const end = isLive(reply) ? "being written" : finishLabel(reply);
    line.append("mean ", makeElement("b", reply.branch, isLive(reply) ? "–" : number(meanOf(reply))));
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
 * Both texts of a turn, by part of the reply. While one is being written its words are not compared.
 * @param {Row} row
 * @param {boolean} reasoning
 */
function differenceOf({ left, right }, reasoning) {
  const [one, other] = [left?.reply, right?.reply];
  const text = (/** @type {Reply | null | undefined} */ reply) =>
    reply && !isLive(reply) ? textOf(reply, reasoning) : "";
  return wordDifference(text(one), text(other));
}

/** @param {Row} row */
function rowElement(row) {
  const section = makeElement("section", "compared-turn");
  const [answer, reasoning] = [differenceOf(row, false), differenceOf(row, true)];
  const both = row.left?.reply && row.right?.reply && !isLive(row.left.reply) && !isLive(row.right.reply);
  section.append(rowHead(row, both ? describeWords(answer) : ""), ...messagesOf(row));
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
 * What a turn shows depends on; the words of a reply that is being written are not shown.
 * @param {Half | null} half
 */
function keyOf(half) {
  if (!half?.reply) return `${half ? half.turn.user : null}`;
  const { reply, turn } = half;
  const words = isLive(reply) ? 0 : reply.visibleTokens.length;
  return JSON.stringify([turn.user, reply.branch, reply.finish, reply.finalMean, reply.finalFired, words]);
}

/**
 * The turns, each built again only when something about it has changed.
 * @param {HTMLElement} box
 */
function makeRows(box) {
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
function showSettings(box, comparison) {
  const differences = settingsDifferences(comparison);
  const note = settingsNote(comparison);
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

/**
 * Copies a text. False if the browser does not allow it.
 * @param {string} text
 */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Pages without https have no clipboard; the older way asks for no permission.
    const box = makeElement("textarea", "spoken", text);
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}

// --- the view

/**
 * @param {HTMLElement} root
 * @param {Conversation} conversation
 * @param {{ sendRequest: SendRequest; chart: (other: OtherTurns | null) => void; ended: () => void }} hooks
 *   ended: the panes stand in their place again
 */
export function makeCompare(root, conversation, hooks) {
  const view = find(root, ".comparison");
  const select = findAs(root, ".compare-with", HTMLSelectElement);
  const rows = makeRows(find(view, ".compared-turns"));
  const heads = {
    left: find(view, '.compared-head[data-side="left"]'),
    right: find(view, '.compared-head[data-side="right"]'),
  };
  /** @type {OpenConversations | null} */
  let open = null;
  /** @type {string | null} the id of the other conversation, or OWN; null while nothing is compared */
  let other = null;
  /** @type {{ data: ComparedData; side: Side } | null} */
  let received = null;
  /** @type {Record<SideName, Branch>} */
  const chosen = { left: "capped", right: "capped" };
  let inSight = -1; // the turn that was last brought into sight
  let scheduled = false;

  const shownId = () => open?.ids[open.current] ?? "";
  const turnsOf = (/** @type {string} */ id) => open?.turns[open.ids.indexOf(id)] ?? 0;

  /**
   * The branch to show of a side: the chosen one, if it answers there.
   * @param {SideName} side
   * @param {import("./types").Turn[]} turns
   */
  function branchOf(side, turns) {
    const branches = branchesOf(turns);
    return branches.includes(chosen[side]) ? chosen[side] : (branches[0] ?? chosen[side]);
  }

  /** @returns {Comparison | null} */
  function current() {
    const { turns, meta, chartMeta } = conversation;
    if (other === null || !turns.length || (other !== OWN && !received)) return null;
    const title = open?.list[open.current] ?? "";
    const own = { title, model: meta.model ?? "", probeLayer: chartMeta.probe_layer, turns };
    const left = { ...own, branch: branchOf("left", turns) };
    if (other === OWN || !received)
      return { left, right: { ...own, branch: branchOf("right", turns) }, sameAxis: true };
    const { side, data } = received;
    return { left, right: { ...side, branch: branchOf("right", side.turns) }, sameAxis: data.same_axis };
  }

  // --- showing

  /**
   * @param {SideName} side
   * @param {Side} content
   */
  function showHead(side, { title, branch, turns }) {
    const list = findAs(heads[side], "select", HTMLSelectElement);
    const branches = branchesOf(turns);
    if (branches.join() !== Array.from(list.options, (option) => option.value).join())
      list.replaceChildren(...branches.map((name) => new Option(name, name)));
    list.value = branch;
    const name = find(heads[side], ".compared-title");
    name.textContent = title;
    name.title = title;
    heads[side].dataset.shows = branch;
  }

  function show() {
    scheduled = false;
    const comparison = current();
    view.hidden = comparison === null;
    root.classList.toggle("comparing", comparison !== null);
    if (!comparison) return;
    for (const side of SIDES) showHead(side, comparison[side]);
    const note = find(view, ".units-note");
    note.textContent = unitsNote(comparison);
    note.hidden = comparison.sameAxis;
    showSettings(find(view, ".compared-settings"), comparison);
    rows.show(rowsOf(comparison));
    const { shown } = conversation;
    if (shown !== null && shown !== inSight) rows.element(shown)?.scrollIntoView({ block: "nearest" });
    inSight = shown ?? -1;
  }

  function refresh() {
    if (other === null || scheduled) return;
    scheduled = true;
    requestAnimationFrame(show);
  }

  function showInChart() {
    const key = find(root, ".compared-key");
    key.hidden = !received;
    const units = received?.data.same_axis === false ? ", in its own units" : "";
    find(key, ".compared-name").textContent = received ? `${received.data.title}${units}` : "";
    hooks.chart(received ? { title: received.data.title, turns: received.side.turns } : null);
  }

  // --- what is compared

  function ask() {
    if (other !== null && other !== OWN) hooks.sendRequest("compare", { conversation: other });
  }

  /** @param {string | null} id */
  function begin(id) {
    [other, received, inSight] = [id, null, conversation.shown ?? -1];
    select.value = id ?? "";
    Object.assign(chosen, { left: id === OWN ? "uncapped" : "capped", right: "capped" });
    showInChart();
    ask();
    refresh();
  }

  /** @param {string} [why] in one sentence */
  function end(why) {
    begin(null);
    show();
    hooks.ended();
    if (why) showNotice(root, why);
  }

  /** @param {ComparedData} data */
  function receive(data) {
    if (data.id !== other) return;
    received = { data, side: sideOf(data, chosen.right) };
    showInChart();
    refresh();
    // A reply that was being written when the user went on to another conversation ends with its next token.
    if (received.side.turns.some(turnIsLive)) setTimeout(ask, ASK_AGAIN_MS);
  }

  /**
   * The conversations to choose from: all that have turns, once there are two.
   * @param {OpenConversations} fields
   */
  function offer({ list, ids, turns, current: shown }) {
    const others = ids.flatMap((id, n) =>
      n !== shown && turns[n] ? [new Option(`${n + 1}. ${list[n]}`, id)] : [],
    );
    select.hidden = !turns[shown] || !others.length;
    select.replaceChildren(new Option("Compare with…", ""), new Option("this conversation", OWN), ...others);
    select.value = other ?? "";
  }

  /**
   * The list of open conversations has changed, or another one is shown.
   * @param {OpenConversations} fields
   */
  function updateList(fields) {
    const [before, shownBefore] = [open, shownId()];
    open = fields;
    const shown = shownId();
    const changed = shown !== shownBefore;
    // The user has gone to the other conversation, so the one before takes its place.
    if (other === shown) [other, received] = [shownBefore, null];
    offer(fields);
    if (other === null) return;
    if (other !== OWN && !fields.ids.includes(other))
      return end(`“${before?.list[before.ids.indexOf(other)]}” was closed, so the comparison has ended.`);
    if (!turnsOf(shown) || (other !== OWN && !turnsOf(other)))
      return end("A conversation without turns cannot be compared, so the comparison has ended.");
    const grown = other !== OWN && before?.turns[before.ids.indexOf(other)] !== turnsOf(other);
    if (changed || grown) ask();
    if (changed) showInChart();
    refresh();
  }

  async function copy() {
    const comparison = current();
    if (!comparison) return;
    const done = await copyText(comparisonMarkdown(comparison));
    const what = `${sideName(comparison.left)} and ${sideName(comparison.right)}`;
    find(view, ".compared-status").textContent = done ? `Copied the comparison of ${what}.` : "";
    if (!done) showNotice(root, "This browser does not let the page copy a text; try another one.", "error");
  }

  select.addEventListener("change", () => (select.value ? begin(select.value) : end()));
  for (const side of SIDES) {
    const list = findAs(heads[side], "select", HTMLSelectElement);
    list.addEventListener("change", () => {
      chosen[side] = /** @type {Branch} */ (list.value);
      refresh();
    });
  }
  find(view, ".copy-comparison").addEventListener("click", copy);
  find(view, ".end-comparison").addEventListener("click", () => end());
  return { updateList, receive, refresh };
}

// The comparison: another open conversation, or another branch of this one, beside the one that is shown. It
// stands in the place of the panes, and its means are lines in the chart of turns.

/**
 * @import { Comparison } from "./comparison.js"
 * @import { SideName } from "./comparison_rows.js"
 * @import { Conversation } from "./model.js"
 * @import { OtherTurns } from "./turn_chart.js"
 * @import { Branch, ComparedData, Operations, SendRequest, Side, Turn } from "./types"
 */

import { copyText } from "./clipboard.js";
import { branchesOf, comparisonMarkdown, rowsOf, sideName, sideOf, unitsNote } from "./comparison.js";
import { makeRows, SIDES, showSettings } from "./comparison_rows.js";
import { find, findAs } from "./dom.js";
import { showNotice } from "./notices.js";
import { turnIsLive } from "./turns.js";

/** @typedef {Operations["conversations"]} OpenConversations */

/** Stands for the conversation that is shown, whichever it is. */
const OWN = "own";
const END_PX = 16; // within so much of its end, the view follows a reply that is being written
const ASK_AGAIN_MS = 1000; // while a reply of the other conversation is being stopped

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
  const body = find(view, ".compared-body");
  const rows = makeRows(find(body, ".compared-turns"));
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
  let timer = 0; // of the next request

  const shownId = () => open?.ids[open.current] ?? "";
  const turnsOf = (/** @type {string} */ id) => open?.turns[open.ids.indexOf(id)] ?? 0;

  /**
   * The branch to show of a side: the chosen one, if it answers there.
   * @param {SideName} side
   * @param {Turn[]} turns
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
    const atEnd = body.scrollTop + body.clientHeight > body.scrollHeight - END_PX;
    rows.show(rowsOf(comparison));
    if (!root.classList.contains("veiled")) bringIntoSight(atEnd);
  }

  /** @param {boolean} atEnd the last turn was in sight */
  function bringIntoSight(atEnd) {
    const { shown, busy } = conversation;
    if (shown !== null && shown !== inSight) rows.element(shown)?.scrollIntoView({ block: "nearest" });
    else if (busy && atEnd) body.scrollTop = body.scrollHeight;
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
    clearTimeout(timer);
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
    if (received.side.turns.some(turnIsLive)) timer = window.setTimeout(ask, ASK_AGAIN_MS);
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
  addEventListener("resize", refresh); // also sent when the veil is lifted
  find(view, ".copy-comparison").addEventListener("click", copy);
  find(view, ".end-comparison").addEventListener("click", () => end());
  return { updateList, receive, refresh, begin };
}

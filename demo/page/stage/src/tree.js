// The tree of forks: all open conversations, where each left another, what was noted of them, and a filter.

/** @import { Operations, SendRequest, TreeNode } from "./types" */

import { find, findAll, findAs, makeButton, makeElement } from "./dom.js";
import { number, shownToken } from "./text.js";
import { wireDialog } from "./toolbar.js";
import { BRANCHES } from "./turns.js";

const FILTER_MS = 250;
const [WIDTH, HEIGHT] = [90, 26];
// The charts' usual range, in axis units.
const [LOW, HIGH] = [-1, 2];

/**
 * The children of each conversation, by its index; -1 for those that were not forked from an open one.
 * @param {TreeNode[]} nodes
 * @returns {Map<number, number[]>}
 */
export function childrenOf(nodes) {
  /** @type {Map<number, number[]>} */
  const children = new Map();
  nodes.forEach(({ parent }, index) => {
    const key = parent ?? -1;
    children.set(key, [...(children.get(key) ?? []), index]);
  });
  return children;
}

const quoted = (/** @type {string} */ text) => `“${shownToken(text).trim()}”`;

/**
 * Where a fork leaves its parent, in words.
 * @param {TreeNode["point"]} point
 */
export function describePoint(point) {
  if (!point) return "";
  if (!point.branch) return `after turn ${point.turn}`;
  const words = point.words ? quoted(point.words) : "another token";
  return `turn ${point.turn + 1}, ${point.branch}, token ${point.token}: ${quoted(point.was ?? "")} → ${words}`;
}

/**
 * The points of a line of means by turn.
 * @param {(number | null)[]} means
 * @param {number} turns how many turns the widest line has
 */
export function linePoints(means, turns) {
  const step = turns > 1 ? (WIDTH - 6) / (turns - 1) : 0;
  const height = (/** @type {number} */ mean) =>
    HEIGHT - ((Math.min(HIGH, Math.max(LOW, mean)) - LOW) / (HIGH - LOW)) * HEIGHT;
  return means.flatMap((mean, n) =>
    mean === null ? [] : [`${(3 + n * step).toFixed(1)},${height(mean).toFixed(1)}`],
  );
}

/**
 * A small chart of the means by turn.
 * @param {TreeNode} node
 * @param {number} turns
 */
function sparkline({ means }, turns) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("class", "sparkline");
  svg.setAttribute("aria-hidden", "true");
  for (const branch of BRANCHES) {
    const points = linePoints(means[branch] ?? [], turns);
    if (!points.length) continue;
    const line = document.createElementNS(svg.namespaceURI, "polyline");
    line.setAttribute("class", branch);
    line.setAttribute("points", points.join(" "));
    const [x = "0", y = "0"] = (points.at(-1) ?? "").split(",");
    const end = document.createElementNS(svg.namespaceURI, "circle");
    for (const [name, value] of Object.entries({ class: branch, cx: x, cy: y, r: "2.5" }))
      end.setAttribute(name, value);
    svg.append(line, end);
  }
  return svg;
}

/**
 * How many turns a conversation has.
 * @param {TreeNode} node
 */
const countTurns = ({ means }) => Math.max(0, ...Object.values(means).map((all) => all.length));

/**
 * The means of the last turn, in words.
 * @param {TreeNode} node
 */
export function lastMeans({ means }) {
  const parts = BRANCHES.flatMap((branch) => {
    const last = (means[branch] ?? []).filter((mean) => mean !== null).at(-1);
    return last === undefined ? [] : [`${branch} ${number(last)}`];
  });
  return parts.join(", ") || "no replies yet";
}

/**
 * Builds a list anew. The control that has the focus keeps it, with what has been typed there.
 * @param {HTMLElement} list
 * @param {() => void} build
 */
function keepFocus(list, build) {
  const controls = () => findAll(list, "button, input");
  const focused = document.activeElement;
  const at = focused instanceof HTMLElement ? controls().indexOf(focused) : -1;
  const before = controls()[at];
  const typed = before instanceof HTMLInputElement ? before.value : null;
  build();
  const after = controls()[at];
  if (!after) return;
  after.focus();
  if (after instanceof HTMLInputElement && typed !== null) after.value = typed;
}

/**
 * @param {HTMLElement} root
 * @param {SendRequest} sendRequest
 * @param {(id: string) => void} compare shows a conversation beside the current one
 */
export function makeTree(root, sendRequest, compare) {
  const dialog = findAs(root, "dialog.forks", HTMLDialogElement);
  const list = find(dialog, ".tree");
  const words = findAs(dialog, ".tree-words", HTMLInputElement);
  const below = findAs(dialog, ".tree-below", HTMLInputElement);
  const starred = findAs(dialog, ".tree-starred", HTMLInputElement);
  const button = find(root, ".tree-button");
  let timer = 0;
  wireDialog(dialog);

  function filter() {
    const limit = below.value.trim() === "" ? null : below.valueAsNumber;
    return { words: words.value, below: Number.isNaN(limit) ? null : limit };
  }

  const ask = () => sendRequest("tree", filter());

  function open() {
    // Nothing is said of replies under the veil.
    if (button.hidden || root.classList.contains("veiled")) return;
    ask();
    if (!dialog.open) dialog.showModal();
  }

  /**
   * @param {TreeNode} node
   * @param {number} index
   */
  function starAndNote(node, index) {
    const box = makeElement("span", "notes-of");
    const star = makeButton("star", node.star ? "starred" : "star", "Star this conversation");
    star.setAttribute("aria-pressed", String(node.star));
    const note = makeElement("input");
    note.type = "text";
    note.value = node.note;
    note.placeholder = "note";
    note.maxLength = 2000;
    note.setAttribute("aria-label", `Note on ${node.title}`);
    const save = (/** @type {boolean} */ marked) =>
      sendRequest("note", { conversation: index, star: Number(marked), note: note.value, ...filter() });
    star.addEventListener("click", () => save(!node.star));
    note.addEventListener("change", () => save(node.star));
    note.addEventListener("keydown", (event) => event.stopPropagation());
    box.append(star, note);
    return box;
  }

  /**
   * @param {TreeNode} node
   * @param {number} index
   * @param {{ current: number, turns: number, comparable: boolean }} shown
   */
  function row(node, index, { current, turns, comparable }) {
    const line = makeElement("div", "tree-row");
    const found = node.found && (node.star || !starred.checked);
    line.classList.toggle("not-found", !found);
    line.classList.toggle("current", index === current);
    const select = makeButton("", node.title, `Show conversation ${index + 1}: ${node.title}`);
    if (index === current) select.setAttribute("aria-current", "true");
    select.addEventListener("click", () => {
      dialog.close();
      if (index !== current) sendRequest("switch", { conversation: index });
    });
    const where = makeElement("span", "where", describePoint(node.point));
    line.append(select, where, sparkline(node, turns), makeElement("span", "means", lastMeans(node)));
    if (comparable && index !== current && countTurns(node)) {
      const beside = makeButton("", "compare", `Compare ${node.title} with the conversation that is shown`);
      beside.addEventListener("click", () => {
        dialog.close();
        compare(node.id);
      });
      line.append(beside);
    }
    if (!found) line.append(makeElement("span", "hidden-status", "(not among those found)"));
    line.append(starAndNote(node, index));
    return line;
  }

  /** @param {Operations["tree"]} fields */
  function show({ nodes, current }) {
    const children = childrenOf(nodes);
    const turns = Math.max(0, ...nodes.map(countTurns));
    const shown = nodes[current];
    const comparable = shown !== undefined && countTurns(shown) > 0;
    const branch = (/** @type {number} */ parent) => {
      const items = makeElement("ul");
      for (const index of children.get(parent) ?? []) {
        const node = nodes[index];
        if (!node) continue;
        const item = makeElement("li");
        item.append(row(node, index, { current, turns, comparable }));
        if (children.has(index)) item.append(branch(index));
        items.append(item);
      }
      return items;
    };
    keepFocus(list, () => list.replaceChildren(branch(-1)));
    const count = nodes.filter(({ found, star }) => found && (star || !starred.checked)).length;
    find(dialog, ".tree-count").textContent = `${count} of ${nodes.length} conversations`;
  }

  const later = () => {
    clearTimeout(timer);
    timer = window.setTimeout(ask, FILTER_MS);
  };
  for (const input of [words, below]) {
    input.addEventListener("input", later);
    input.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
  }
  starred.addEventListener("change", ask);
  button.addEventListener("click", open);
  return {
    show,
    open,
    /** @param {number} count of open conversations */
    offer: (count) => {
      button.hidden = count < 2 || !sendRequest.available;
    },
  };
}

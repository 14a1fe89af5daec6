// The path of a conversation: how far each reply's mean state lies from that of the reply before it, and the sum
// of these steps, by turn.

/** @import { Branch, Reply, Shift, Turn } from "./types" */

import { find, findAs, makeElement } from "./dom.js";
import { number } from "./text.js";
import { BRANCHES, meanOf } from "./turns.js";

/**
 * A point of the path. `length`: the sum of the steps so far, from turn number `since` (from 0) on. `step`: null for
 * the first reply, and for one whose step is not known.
 * @typedef {{ step: Shift | null; length: number; since: number }} PathPoint
 */

/**
 * The reply in a branch's history. That of the steered branch holds the uncapped replies to the turns before it was
 * switched on.
 * @param {Turn} turn
 * @param {Branch} branch
 * @returns {Reply}
 */
function replyIn({ replies }, branch) {
  const present = BRANCHES.filter((one) => !replies[one].absent);
  if (branch !== "steered" || !replies.steered.absent || present.length < 2) return replies[branch];
  return replies.uncapped;
}

/** @param {Reply} reply */
const isPlaced = ({ finish }) => finish === "stop" || finish === "sentence" || finish === "length";

/**
 * By turn: the point of the branch's reply; null for a turn without one, whose reply was stopped or is being written.
 * @param {Turn[]} turns
 * @param {Branch} branch
 * @returns {(PathPoint | null)[]}
 */
export function pathOf(turns, branch) {
  /** @type {PathPoint | null} */
  let now = null;
  return turns.map((turn, index) => {
    const reply = replyIn(turn, branch);
    if (reply.absent || !isPlaced(reply) || meanOf(reply) === null) return null;
    const { step } = reply;
    now =
      step && now
        ? { step, length: now.length + step.length, since: now.since }
        : { step: null, length: 0, since: index };
    return now;
  });
}

/**
 * The paths of the branches that answer in a conversation, up to a turn; empty while none of them has a step.
 * @param {Turn[]} turns
 * @param {number | null} index
 * @returns {{ branch: Branch; points: (PathPoint | null)[] }[]}
 */
export function pathsTo(turns, index) {
  if (index === null) return [];
  const shown = turns.slice(0, index + 1);
  const paths = BRANCHES.filter((branch) => shown.some((turn) => !turn.replies[branch].absent)).map(
    (branch) => ({ branch, points: pathOf(shown, branch) }),
  );
  return paths.some(({ points }) => points.some((point) => point?.step)) ? paths : [];
}

/** @param {(PathPoint | null)[]} points */
const lastOf = (points) => points.filter((point) => point !== null).at(-1);

/**
 * Where the paths do not begin with their first reply; "" if all do.
 * @param {ReturnType<typeof pathsTo>} paths
 */
export function describeSince(paths) {
  const parts = paths.flatMap(({ branch, points }) => {
    const first = points.findIndex((point) => point !== null);
    const last = lastOf(points);
    return last && last.since > first ? [`the ${branch} path from turn ${last.since + 1}`] : [];
  });
  return parts.length
    ? `Counted anew: ${parts.join(", ")}, because the step to that reply was not measured.`
    : "";
}

/**
 * @param {HTMLTableElement} table
 * @param {ReturnType<typeof pathsTo>} paths
 */
function fillTable(table, paths) {
  const [branches, columns] = [makeElement("tr"), makeElement("tr")];
  branches.append(makeElement("td"));
  columns.append(makeElement("th", "", "turn"));
  for (const { branch } of paths) {
    const head = makeElement("th", branch, branch);
    head.colSpan = 3;
    branches.append(head);
    columns.append(...["step", "along", "path"].map((name) => makeElement("th", "", name)));
  }
  const head = makeElement("thead");
  head.append(branches, columns);
  const body = makeElement("tbody");
  for (const turn of paths[0]?.points.keys() ?? []) {
    const row = makeElement("tr");
    row.append(makeElement("th", "", String(turn + 1)));
    for (const { points } of paths) {
      const point = points[turn] ?? null;
      const cells = [point?.step?.length ?? null, point?.step?.along ?? null, point?.length ?? null];
      row.append(...cells.map((value) => makeElement("td", "", value === null ? "–" : number(value))));
    }
    body.append(row);
  }
  table.replaceChildren(head, body);
}

/** @param {HTMLElement} root */
export function makePath(root) {
  const box = findAs(root, ".summary-bar .path", HTMLDetailsElement);
  const lengths = find(box, ".lengths");
  const table = findAs(box, "table", HTMLTableElement);
  const since = find(box, ".since");
  let drawn = ""; // what the table holds, so that it is not built again for every token

  document.addEventListener("click", ({ target }) => {
    if (target instanceof Node && !box.contains(target)) box.open = false;
  });

  /**
   * @param {Turn[]} turns
   * @param {number | null} index the turn that is shown
   */
  function show(turns, index) {
    const paths = pathsTo(turns, index);
    const key = JSON.stringify(paths);
    if (key === drawn) return;
    drawn = key;
    box.hidden = !paths.length;
    if (box.hidden) box.open = false;
    const parts = paths.map(({ branch, points }) => {
      const last = lastOf(points);
      return makeElement("span", branch, last ? number(last.length) : "–");
    });
    lengths.replaceChildren(...parts.flatMap((part, n) => (n ? [" / ", part] : [part])));
    fillTable(table, paths);
    since.textContent = describeSince(paths);
    since.hidden = !since.textContent;
  }

  return { show };
}

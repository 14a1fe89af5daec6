// What stands over the panes and in their place: notices, and the words of a page without turns.

import { find, makeButton, makeElement } from "./dom.js";
import { axisWords } from "./text.js";

/** What stands in the place of the panes before the first turn. */
const emptyNote = () =>
  [
    "One model answers every message twice.",
    `Left: unchanged. Right: kept from drifting away from ${axisWords().persona}.`,
    `Below: where each token lies on the ${axisWords().axis}. Click a scenario above, or write a message.`,
  ].join("\n");

/**
 * Scrolls the page to the panes where it is longer than the screen, as on a phone.
 * @param {HTMLElement} root
 */
export function bringPanesIntoSight(root) {
  find(root, ".panes").scrollIntoView({ block: "nearest" });
}

/**
 * @param {HTMLElement} root
 * @param {string | null | undefined} note
 * @param {boolean} visible
 */
export function showEmpty(root, note, visible) {
  const box = find(root, ".empty");
  box.hidden = !visible;
  box.replaceChildren(...(note || emptyNote()).split("\n").map((line) => makeElement("p", "", line)));
}

/**
 * @param {HTMLElement} root
 * @param {string} text
 * @param {string} [level]
 */
export function showNotice(root, text, level) {
  const list = find(root, ".notices");
  for (const old of [...list.children]) if (old.firstChild?.textContent === text) old.remove();
  while (list.children.length > 2) list.firstChild?.remove();
  const notice = makeElement("div", level === "error" ? "notice error" : "notice");
  notice.setAttribute("role", "alert");
  const close = makeButton("", "×", "Dismiss this notice");
  close.addEventListener("click", () => notice.remove());
  notice.append(makeElement("span", "", text), close);
  list.append(notice);
}

// The list of turns, with arrows to the one before and the next: it chooses the turn that the charts show.

/** @import { Turn } from "./types" */

import { find, findAs } from "./dom.js";
import { turnName } from "./replay.js";

/**
 * @param {HTMLElement} root
 * @param {(index: number) => void} select
 */
export function makeTurnList(root, select) {
  const box = find(root, ".turn-list");
  const list = findAs(box, "select", HTMLSelectElement);
  const back = findAs(box, ".back", HTMLButtonElement);
  const on = findAs(box, ".on", HTMLButtonElement);
  let shown = -1;
  let count = 0;

  /** @param {number} step */
  function move(step) {
    const index = shown + step;
    if (index >= 0 && index < count) select(index);
  }

  /**
   * @param {Turn[]} turns
   * @param {number | null} index of the turn that is shown
   */
  function show(turns, index) {
    const names = turns.map(turnName);
    const known = Array.from(list.options, (option) => option.text);
    if (names.join("\n") !== known.join("\n")) {
      list.replaceChildren(...names.map((name, n) => new Option(name, String(n))));
    }
    [shown, count] = [index ?? -1, turns.length];
    list.value = String(shown);
    box.hidden = count < 2;
    back.disabled = shown <= 0;
    on.disabled = shown + 1 >= count;
  }

  list.addEventListener("change", () => select(Number(list.value)));
  back.addEventListener("click", () => move(-1));
  on.addEventListener("click", () => move(1));
  return { show, back: () => move(-1), on: () => move(1) };
}

// What the colours of the tokens show: the axis, or the second direction.

import { find, findAs } from "./dom.js";
import { axisWords } from "./text.js";

/** @typedef {ReturnType<typeof makeLens>} Lens */

/** @param {HTMLElement} root */
export function makeLens(root) {
  const key = find(root, ".tone-key");
  const choice = findAs(key, ".lens-of", HTMLSelectElement);
  const second = find(choice, '[value="second"]');

  function show() {
    const axis = choice.value === "axis";
    root.dataset.lens = choice.value;
    find(key, ".low-end").textContent = axis ? axisWords().low : "0";
    find(key, ".high-end").textContent = axis ? axisWords().high : "1";
  }

  /**
   * Offers the second direction; without a name, the colours show the axis again.
   * @param {string} name
   */
  function offer(name) {
    choice.hidden = !name;
    second.textContent = name;
    if (!name) choice.value = "axis";
    show();
  }

  choice.addEventListener("change", show);
  show();
  return { offer };
}

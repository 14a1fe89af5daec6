// What to see in one turn: the gap between the branches, and a plain sentence. The means stand in the panes.

/** @import { Summary } from "./summary.js" */

import { find } from "./dom.js";
import { number } from "./text.js";

/** @param {HTMLElement} root */
export function makeSummaryBar(root) {
  const bar = find(root, ".summary-bar");
  const gapBox = find(bar, ".gap");
  const sentenceBox = find(bar, ".sentence");

  /** @param {Summary} summary */
  function show({ items, gap, sentence }) {
    bar.hidden = items.length === 0;
    gapBox.textContent = gap === null ? "" : `gap ${number(gap)}`;
    gapBox.title = "Capped mean minus uncapped mean, in axis units";
    // A screen reader would read an unchanged text again.
    if (sentenceBox.textContent !== sentence) sentenceBox.textContent = sentence;
  }

  return { show };
}

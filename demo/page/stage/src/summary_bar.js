// What to see in one turn: the gap between the branches, and a plain sentence. The means stand in the panes.

/** @import { Summary } from "./summary.js" */

import { find, makeElement } from "./dom.js";
import { describeShare } from "./summary.js";
import { number } from "./text.js";

/** @param {HTMLElement} root */
export function makeSummaryBar(root) {
  const bar = find(root, ".summary-bar");
  const gapBox = find(bar, ".gap");
  const sentenceBox = find(bar, ".sentence");
  const shareBox = find(bar, ".share");
  const alongBox = find(bar, ".along");
  alongBox.title =
    "Means along further directions, each on its own scale. The cap along the axis does not aim at them.";

  /** @param {Summary["along"]} along */
  function showAlong(along) {
    alongBox.hidden = !along.some(({ values }) => Object.keys(values).length);
    const parts = along.map(({ name, values }) => {
      const numbers = Object.entries(values).map(([branch, value]) => {
        const part = makeElement("span", branch, number(value));
        part.title = `${branch} mean along ${name}`;
        return part;
      });
      const item = makeElement("span", "direction");
      item.append(`${name} `, ...numbers.flatMap((part, n) => (n ? [" / ", part] : [part])));
      return item;
    });
    alongBox.replaceChildren("read along: ", ...parts);
  }

  /** @param {Summary} summary */
  function show({ items, gap, share, along, sentence }) {
    showAlong(along);
    shareBox.textContent = share === null ? "" : `${describeShare(share)} of the shift on the axis`;
    bar.hidden = items.length === 0;
    gapBox.textContent = gap === null ? "" : `gap ${number(gap)}`;
    gapBox.title = "Capped mean minus uncapped mean, in axis units";
    // A screen reader would read an unchanged text again.
    if (sentenceBox.textContent !== sentence) sentenceBox.textContent = sentence;
  }

  return { show };
}

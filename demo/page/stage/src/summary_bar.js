// Drift at a glance: the current mean of each branch, its trend, the gap between the branches, and a plain
// sentence.

/**
 * @import { BranchSummary, TrendWord } from "./summary.js"
 * @import { Turn } from "./types"
 */

import { find, makeElement } from "./dom.js";
import { summarise } from "./summary.js";
import { number } from "./text.js";

/** @type {Record<TrendWord, string>} */
const TREND_SIGNS = { rising: "↗", falling: "↘", steady: "→" };

/** @param {BranchSummary} summary */
function makeItem({ branch, mean, trend }) {
  const item = makeElement("span", `branch-mean ${branch}`);
  item.append(makeElement("b", "", number(mean)), makeElement("span", "", ` ${branch}`));
  if (trend) {
    const sign = makeElement("span", "trend", TREND_SIGNS[trend.word]);
    sign.title = `${trend.word}: ${number(trend.change)} over the last ${trend.turns} turns`;
    sign.append(makeElement("span", "hidden-status", ` ${trend.word}`));
    item.append(sign);
  }
  return item;
}

/** @param {HTMLElement} root */
export function makeSummaryBar(root) {
  const bar = find(root, ".summary-bar");
  const numbers = find(bar, ".numbers");
  const sentence = find(bar, ".sentence");

  /**
   * @param {Turn[]} turns
   * @param {number | null} index
   * @param {boolean} capOff
   */
  function show(turns, index, capOff) {
    const summary = summarise(turns, index, capOff);
    bar.hidden = summary.items.length === 0;
    numbers.replaceChildren(...summary.items.map(makeItem));
    if (summary.gap !== null) numbers.append(makeElement("span", "gap", `gap ${number(summary.gap)}`));
    if (sentence.textContent !== summary.sentence) sentence.textContent = summary.sentence;
  }

  return { show };
}

// The header of a pane: the mean of a reply, its trend, and what the cap did to it.

/**
 * @import { Trend, TrendWord } from "./summary.js"
 * @import { Branch, Reply, Zones } from "./types"
 */

import { find, makeElement } from "./dom.js";
import { axisWords, describeZones, number, zoneOf } from "./text.js";
import { meanOf, reasoningMeanOf } from "./turns.js";

/** @type {Record<TrendWord, string>} */
const TREND_SIGNS = { rising: "\u2197", falling: "\u2198", steady: "\u2192" };

/**
 * How the mean has changed over the last turns.
 * @param {HTMLElement} pane
 * @param {Trend | null} trend
 */
export function showTrend(pane, trend) {
  const sign = find(pane, ".trend");
  sign.hidden = trend === null;
  if (!trend) return;
  sign.title = `${trend.word}: ${number(trend.change)} over the last ${trend.turns} turns`;
  sign.replaceChildren(TREND_SIGNS[trend.word], makeElement("span", "hidden-status", ` ${trend.word}`));
}

/**
 * The mean of a reply, as a number, in words and on the gauge.
 * @param {HTMLElement} pane
 * @param {Branch} branch
 * @param {Reply | undefined} reply
 * @param {string} prefix
 * @param {Zones | null | undefined} zones
 */
export function showMean(pane, branch, reply, prefix, zones) {
  const answer = reply ? meanOf(reply) : null;
  const mean = answer ?? (reply ? reasoningMeanOf(reply) : null);
  const part = mean !== null && answer === null ? "reasoning " : "";
  const chip = find(pane, ".chip");
  const marker = find(pane, ".gauge i");
  // The zones are those of answers, so reasoning has none.
  const zone = part || mean === null ? "" : zoneOf(mean, zones);
  if (mean === null) chip.textContent = "–";
  else chip.replaceChildren(`${prefix}${part}`, makeElement("b", "", number(mean)), zone && ` · ${zone}`);
  const measured = part ? "the reasoning before this reply" : "this reply";
  const units = `Mean projection of ${measured} in axis units: 0 = average role, 1 = ${axisWords().default}.`;
  chip.title = part ? units : `${units} ${describeZones(branch, zones)}`;
  marker.hidden = mean === null;
  // The gauge runs from -1 to 2, so that 0 and 1 lie at its thirds, where the ticks are.
  if (mean !== null) marker.style.left = `${Math.min(100, Math.max(0, ((mean + 1) / 3) * 100))}%`;
}

/**
 * @param {HTMLElement} pane
 * @param {string} text
 */
export function showCapAction(pane, text) {
  find(pane, ".cap-action").textContent = text;
}

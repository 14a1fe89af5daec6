// What the colours of the tokens show: the axis, the second direction, how surprising a token was, or what the
// cap added.

/** @import { Token, VisibleToken } from "./types" */

import { find, findAs } from "./dom.js";
import { axisWords } from "./text.js";

/** @typedef {ReturnType<typeof makeLens>} Lens */
/** @typedef {{ low: string; high: string; more: string }} KeyWords */

/** A token has the full colour from here on: this many bits, or axis units added by the cap. */
export const FULL = { surprise: 6, lift: 2 };
const NOTABLE = 0.5; // from this share of the full colour on, a token is marked by more than colour
const LEAST = 0.00005; // smaller probabilities arrive as 0

/**
 * The surprise of a token in bits, −log2 of its probability; null where that is not known. `over`: it is more.
 * @param {Pick<Token, "p">} token
 * @returns {{ bits: number; over: boolean } | null}
 */
export function surpriseOf({ p }) {
  if (p === null || p === undefined) return null;
  return { bits: Math.max(0, -Math.log2(Math.max(p, LEAST))), over: p < LEAST };
}

/** @param {Pick<Token, "p">} token */
export function surpriseText(token) {
  const found = surpriseOf(token);
  if (!found) return null;
  return found.over ? `over ${Math.floor(found.bits)} bits` : `${found.bits.toFixed(1)} bits`;
}

/**
 * How strongly a token is coloured, from 0 to 1, by what it shows; left out where nothing is to be shown.
 * @param {Pick<VisibleToken, "p" | "c">} token
 * @returns {[kind: "surprise" | "lift", share: number][]}
 */
export function amountsOf(token) {
  /** @type {[kind: "surprise" | "lift", share: number][]} */
  const found = [];
  const surprise = surpriseOf(token);
  if (surprise) found.push(["surprise", Math.min(1, surprise.bits / FULL.surprise)]);
  if (token.c > 0) found.push(["lift", Math.min(1, token.c / FULL.lift)]);
  return found;
}

/**
 * The style sheet turns these into a colour where the lens shows them.
 * @param {HTMLElement} span
 * @param {VisibleToken} token
 */
export function showAmounts(span, token) {
  for (const [kind, share] of amountsOf(token)) {
    span.style.setProperty(`--${kind}`, `${Math.round(100 * share)}%`);
    span.classList.add(`has-${kind}`);
    span.classList.toggle(`much-${kind}`, share >= NOTABLE);
  }
}

/**
 * The words at the ends of the key, and what explains them.
 * @param {string} lens
 * @returns {KeyWords}
 */
export function keyWords(lens) {
  const { low, high } = axisWords();
  if (lens === "axis") return { low, high, more: "Projection on the axis, in axis units" };
  if (lens === "surprise") {
    const more =
      "Surprise: −log2 of the token’s probability at temperature 1. 0 bits: it was certain; " +
      `${FULL.surprise} bits: a chance of 1 in ${2 ** FULL.surprise}. ` +
      `Underlined twice from ${FULL.surprise * NOTABLE} bits on; no colour where the probability is not known.`;
    return { low: "0 bits", high: `${FULL.surprise} bits or more`, more };
  }
  if (lens === "lift") {
    const more =
      "What the cap along the axis added to the token, the sum over its layers in axis units of each. " +
      "No colour where it added nothing.";
    return { low: "nothing added", high: `${FULL.lift} axis units or more`, more };
  }
  return { low: "0", high: "1", more: "Projection along the second direction, in its own units" };
}

/** @param {HTMLElement} root */
export function makeLens(root) {
  const key = find(root, ".tone-key");
  const choice = findAs(key, ".lens-of", HTMLSelectElement);
  const second = findAs(choice, '[value="second"]', HTMLOptionElement);

  function show() {
    const { low, high, more } = keyWords(choice.value);
    root.dataset.lens = choice.value;
    find(key, ".low-end").textContent = low;
    find(key, ".high-end").textContent = high;
    key.title = more;
  }

  /**
   * Offers the second direction; without a name, colours that showed it show the axis again.
   * @param {string} name
   */
  function offer(name) {
    second.hidden = second.disabled = !name;
    second.textContent = name;
    if (!name && choice.value === "second") choice.value = "axis";
    show();
  }

  choice.addEventListener("change", show);
  show();
  return { offer };
}

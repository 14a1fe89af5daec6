// The replies of a turn with several seeds: the pane shows the first, and a list has all of them.

/** @import { Reply } from "./types" */

import { makeButton, makeElement } from "./dom.js";
import { number } from "./text.js";
import { meanOf } from "./turns.js";

/**
 * All replies to one message, in the order of their seeds. The first is the one in the pane, which the
 * conversation continues from.
 * @param {Reply} reply
 * @returns {{ mean: number | null; text: string }[]}
 */
export function allSeeds(reply) {
  const answer = reply.visibleTokens.filter((token) => !token.r).map((token) => token.t);
  const others = reply.samples.map(({ mean, text }) => ({ mean: mean ?? null, text }));
  return [{ mean: meanOf(reply), text: answer.join("") }, ...others];
}

/** @param {Reply} reply */
function seedList(reply) {
  const list = makeElement("ol", "seeds");
  allSeeds(reply).forEach(({ mean, text }, n) => {
    const item = makeElement("li");
    const shown = n === 0 ? ", shown above" : "";
    item.append(
      makeElement("b", "", `reply ${n + 1}${shown} · mean ${number(mean)}`),
      makeElement("p", "", text.trim() || "no text"),
    );
    list.append(item);
  });
  return list;
}

/**
 * A button that opens and closes the list of all seeds below a turn's reply; null for a turn with one seed.
 * @param {Reply} reply
 * @returns {HTMLElement | null}
 */
export function makeSeedsButton(reply) {
  const count = reply.samples.length + 1;
  if (count < 2) return null;
  const button = makeButton("seeds-button", `1 of ${count} seeds`, `1 of ${count} seeds: read all replies`);
  button.setAttribute("aria-expanded", "false");
  /** @type {HTMLElement | null} */
  let list = null;
  button.addEventListener("click", () => {
    if (list) {
      list.remove();
      list = null;
    } else {
      list = seedList(reply);
      button.closest(".turn")?.append(list);
    }
    button.setAttribute("aria-expanded", String(list !== null));
  });
  return button;
}

// The replies of a turn with several seeds: the pane shows the first, and a list has all of them.

/** @import { Reply, SampleData, SeedMean, Turn, TurnSettings } from "./types" */

import { makeButton, makeElement } from "./dom.js";
import { counted, number, percent } from "./text.js";
import { firedShare, meanOf } from "./turns.js";

const SEED_STEP = 1000; // between the seeds of a turn's answers; see demo/conversation/settings.py

/**
 * The seed of answer number `n` of a turn; 0 is the one in the pane.
 * @param {TurnSettings} settings
 * @param {number} n
 */
export const seedOf = ({ seed }, n) => seed + SEED_STEP * n;

/**
 * A mean over seeds, in words.
 * @param {SeedMean} found
 */
export function describeSeeds({ count, mean, low, high }) {
  return `mean of ${counted(count, "seed")}: ${number(mean)}, 95% interval ${number(low)} to ${number(high)}`;
}

/** @param {SampleData} sample */
const sampleShare = ({ count, fired }) => (count ? (fired ?? 0) / count : null);

/**
 * All replies to one message, in the order of their seeds. The first is the one in the pane, which the
 * conversation continues from.
 * @param {Reply} reply
 * @returns {{ mean: number | null; text: string; share: number | null }[]}
 */
export function allSeeds(reply) {
  const answer = reply.visibleTokens.filter((token) => !token.r).map((token) => token.t);
  const others = reply.samples.map((sample) => ({
    mean: sample.mean ?? null,
    text: sample.text,
    share: sampleShare(sample),
  }));
  return [{ mean: meanOf(reply), text: answer.join(""), share: firedShare(reply) }, ...others];
}

/**
 * @param {Reply} reply
 * @param {Turn} turn
 */
function seedList(reply, turn) {
  const box = makeElement("div", "seeds");
  if (reply.seedMean) box.append(makeElement("p", "", `The ${describeSeeds(reply.seedMean)}.`));
  if (reply.branch === "capped" && turn.seedGap) {
    const { count, mean, low, high } = turn.seedGap;
    const range = `95% interval ${number(low)} to ${number(high)}`;
    const pairs = counted(count, "pair");
    box.append(makeElement("p", "", `Capped minus uncapped, over ${pairs}: ${number(mean)}, ${range}.`));
  }
  const list = makeElement("ol");
  allSeeds(reply).forEach(({ mean, text, share }, n) => {
    const item = makeElement("li");
    const name = turn.settings ? `seed ${seedOf(turn.settings, n)}` : `reply ${n + 1}`;
    const shown = n === 0 ? ", shown above" : "";
    const acted = reply.branch === "capped" && share !== null ? ` · cap acted on ${percent(share)}` : "";
    item.append(
      makeElement("b", "", `${name}${shown} · mean ${number(mean)}${acted}`),
      makeElement("p", "", text.trim() || "no text"),
    );
    list.append(item);
  });
  box.append(list);
  return box;
}

/**
 * A button that opens and closes the list of all seeds below a turn's reply; null for a turn with one seed.
 * @param {Reply} reply
 * @param {Turn} turn
 * @returns {HTMLElement | null}
 */
export function makeSeedsButton(reply, turn) {
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
      list = seedList(reply, turn);
      button.closest(".turn")?.append(list);
    }
    button.setAttribute("aria-expanded", String(list !== null));
  });
  return button;
}

// The reasoning before a reply: a block of its own above the answer, open while it is being written.

/** @import { Reply } from "./types" */

import { makeElement } from "./dom.js";
import { counted } from "./text.js";
import { hasReasoning } from "./turns.js";

/** @typedef {ReturnType<typeof makeReasoning>} ReasoningBlock */

/**
 * @param {HTMLElement} box
 * @param {HTMLElement[]} spans
 * @param {boolean} trim leave out line breaks at the beginning, which would leave a gap between reasoning
 *   and answer
 */
export function appendSpans(box, spans, trim) {
  let begun = !trim || box.textContent !== "";
  for (const span of spans) {
    if (!begun) span.textContent = (span.textContent ?? "").trimStart();
    begun ||= span.textContent !== "";
  }
  box.append(...spans);
}

export function makeReasoning() {
  const block = makeElement("details", "reasoning");
  const heading = makeElement("summary", "", "Reasoning…");
  const box = makeElement("div", "thoughts");
  let settled = false; // it stays as it is: the user has opened or closed it, or is reading it
  let ended = false;
  block.hidden = true;
  block.append(heading, box);
  heading.addEventListener("click", () => {
    settled = true; // a click by keyboard, too
  });

  /** @param {HTMLElement[]} spans */
  function append(spans) {
    block.hidden = false;
    if (!settled && !ended) block.open = true;
    appendSpans(box, spans, true);
  }

  function end() {
    ended = true;
    heading.textContent = `Reasoning · ${counted(box.children.length, "token")}`;
  }

  /**
   * A reader who has scrolled back is not interrupted.
   * @param {boolean} following whether the log scrolls along
   */
  function answerBegins(following) {
    if (ended) return;
    if (!following) settled = true;
    if (!settled) block.open = false;
    end();
  }

  /** @param {Reply} reply */
  function finish(reply) {
    if (hasReasoning(reply)) end();
  }

  /**
   * Takes the state of the block that this one replaces.
   * @param {{ block: HTMLDetailsElement }} old
   */
  function keep(old) {
    if (old.block.hidden) return;
    block.open = old.block.open;
    settled = true;
  }

  /**
   * Opens the block if it holds the token.
   * @param {HTMLElement} token
   */
  function reveal(token) {
    if (!box.contains(token)) return;
    block.open = settled = true;
  }

  return { block, append, answerBegins, finish, keep, reveal };
}

// The system prompt as the first thing in a pane: every reply depends on it, so it must not be hidden.

import { makeButton, makeElement } from "./dom.js";
import { editText } from "./toolbar.js";

/**
 * The system prompts of a conversation.
 * @typedef {object} SystemPrompts
 * @property {string} first the one it began with, or will begin with
 * @property {string | null} next the one that the next message gets; null if it is that of the last turn
 * @property {boolean} editable
 */

/** @param {string} text */
const lineOf = (text) => text.trim() || "none";

/** @param {(text: string) => void} save called with a new system prompt for the next message */
export function makeSystemPrompt(save) {
  const element = makeElement("div", "system");
  element.hidden = true;

  /** @param {SystemPrompts} prompts */
  function show({ first, next, editable }) {
    if (element.querySelector("form")) return; // it is being edited
    element.hidden = !editable && !first.trim();
    const line = makeElement("p", "text");
    line.append(makeElement("span", "label", "System prompt: "), lineOf(first));
    element.replaceChildren(line);
    if (next !== null) {
      element.append(makeElement("p", "next", `From your next message on: ${lineOf(next)}`));
    }
    if (!editable) return;
    const shown = next ?? first;
    const button = makeButton(
      "",
      shown.trim() ? "edit" : "add",
      "Change the system prompt for the next message",
    );
    button.addEventListener("click", () => {
      const words = { label: "System prompt", action: "Use from the next message on", mayBeEmpty: true };
      editText(line, shown, words, save);
    });
    line.append(" ", button);
  }

  return { element, show };
}

/**
 * The line over a turn whose system prompt differs from that of the turn before.
 * @param {string} text
 */
export function makePromptChange(text) {
  return makeElement("p", "system changed", `System prompt from here on: ${lineOf(text)}`);
}

const TYPED_MS = 200;

/**
 * Calls back when the system prompt is typed or pasted into the settings. Gradio's own event comes with keys only.
 * @param {(text: string) => void} typed
 */
export function watchPromptBox(typed) {
  let timer = 0;
  const isBox = (/** @type {EventTarget | null} */ target) =>
    target instanceof HTMLTextAreaElement && target.closest("#system-prompt") ? target : null;
  document.addEventListener("input", ({ target }) => {
    const box = isBox(target);
    if (!box) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => typed(box.value), TYPED_MS);
  });
  // The box is left, perhaps for another conversation.
  document.addEventListener("change", ({ target }) => {
    const box = isBox(target);
    if (!box) return;
    clearTimeout(timer);
    typed(box.value);
  });
}

// The system prompt as the first thing in a pane: every reply depends on it, so it must not be hidden.

import { makeButton, makeElement } from "./dom.js";
import { describePrompt } from "./text.js";
import { editText } from "./toolbar.js";

/**
 * The system prompts of a conversation.
 * @typedef {object} SystemPrompts
 * @property {string} first the one it began with, or will begin with
 * @property {string | null} next the one that the next message gets; null if it is that of the last turn
 * @property {boolean} own the pane has one for itself, which is changed in the settings
 * @property {boolean} editable
 */

/** @param {(text: string) => void} save called with a new system prompt for the next message */
export function makeSystemPrompt(save) {
  const element = makeElement("div", "system");
  element.hidden = true;

  /** @param {SystemPrompts} prompts */
  function show({ first, next, own, editable }) {
    if (element.querySelector("form")) return; // it is being edited
    element.hidden = !editable && !first.trim();
    const line = makeElement("p", "text");
    const label = own ? "System prompt of this pane: " : "System prompt: ";
    line.append(makeElement("span", "label", label), describePrompt(first));
    element.replaceChildren(line);
    if (next !== null) {
      element.append(makeElement("p", "next", `From your next message on: ${describePrompt(next)}`));
    }
    if (!editable || own) return;
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
  return makeElement("p", "system changed", `System prompt from here on: ${describePrompt(text)}`);
}

const TYPED_MS = 200;

/**
 * Calls back when the system prompt is typed or pasted into the settings. Gradio's own event comes with keys only.
 * @param {(text: string) => void} typed
 */
export function watchPromptBox(typed) {
  let timer = 0;
  let waiting = ""; // what has been typed and not told yet
  const tell = () => {
    clearTimeout(timer);
    timer = 0;
    typed(waiting);
  };
  document.addEventListener("input", ({ target }) => {
    if (!(target instanceof HTMLTextAreaElement) || !target.closest("#system-prompt")) return;
    waiting = target.value;
    clearTimeout(timer);
    timer = window.setTimeout(tell, TYPED_MS);
  });
  // The box is left, perhaps for another conversation.
  document.addEventListener("focusout", () => timer && tell());
}

// Keyboard shortcuts and the presentation mode. Letters are shortcuts only while the user is not typing.

import { find, findAs, targetOf } from "./dom.js";
import { wireDialog } from "./toolbar.js";

const TYPING = "input, textarea, select, [contenteditable=true], dialog[open] *";

/**
 * @typedef {object} Actions
 * @property {() => void} next
 * @property {() => void} undo
 * @property {() => void} again
 * @property {() => void} nextDisplay
 * @property {() => void} autoplay
 * @property {() => void} replay
 */

/**
 * What a key press is as a shortcut; null if it is none.
 * @param {Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey">} event
 * @param {{ typing: boolean; onControl: boolean }} where whether the user is typing, and whether a control
 *   has the focus, which the space bar then operates
 * @returns {string | null}
 */
export function shortcutOf({ key, ctrlKey, metaKey, altKey }, { typing, onControl }) {
  if (ctrlKey || metaKey || altKey || typing) return null;
  if (key === " " && onControl) return null;
  return key.length === 1 ? key.toLowerCase() : key;
}

/** @param {string} selector */
function clickOn(selector) {
  const target = document.querySelector(selector);
  if (target instanceof HTMLElement && target.offsetParent !== null) target.click();
}

/**
 * @param {HTMLElement} root
 * @param {Actions} actions
 */
export function makeKeyboard(root, actions) {
  const help = findAs(root, "dialog.keys", HTMLDialogElement);
  const presentButton = find(root, ".present-button");
  wireDialog(help);
  find(root, ".help-button").addEventListener("click", () => help.showModal());
  presentButton.addEventListener("click", togglePresenting);

  function togglePresenting() {
    const presenting = document.body.classList.toggle("presenting");
    presentButton.setAttribute("aria-pressed", String(presenting));
    dispatchEvent(new Event("resize"));
  }

  function toggleCap() {
    const box = document.querySelector("#cap-on input");
    if (box instanceof HTMLElement) box.click();
  }

  function focusMessage() {
    const box = document.querySelector("#message textarea");
    if (box instanceof HTMLElement) box.focus();
  }

  /** @type {Map<string, () => void>} */
  const shortcuts = new Map([
    ["n", actions.next],
    ["s", () => clickOn("#stop")],
    ["c", toggleCap],
    ["u", actions.undo],
    ["r", actions.again],
    ["l", actions.nextDisplay],
    ["a", actions.autoplay],
    ["p", togglePresenting],
    [" ", actions.replay],
    ["?", () => help.showModal()],
    ["/", focusMessage],
  ]);

  document.addEventListener("keydown", (event) => {
    const target = targetOf(event);
    if (event.key === "Escape" && !target.closest("dialog")) clickOn("#stop");
    const where = {
      typing: target.closest(TYPING) !== null,
      onControl: target.closest("button, [tabindex]") !== null,
    };
    const action = shortcuts.get(shortcutOf(event, where) ?? "");
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// Keyboard shortcuts and the presentation mode. Letters are shortcuts only while the user is not typing.

import { closestOf, find, findAs, targetOf } from "./dom.js";
import { wireDialog } from "./toolbar.js";

const TYPING = "input, textarea, select, [contenteditable=true], dialog[open] *";

/**
 * @typedef {object} Actions
 * @property {() => void} next
 * @property {() => void} undo
 * @property {() => void} again
 * @property {() => void} nextDisplay
 * @property {() => void} forks opens the tree of forks
 * @property {() => void} autoplay
 * @property {() => void} replay
 * @property {() => void} presented after the presentation mode was entered or left
 * @property {() => void} veil lifts the veil over the replies, or turns it on or off for those that follow
 * @property {() => void} larger
 * @property {() => void} smaller
 * @property {() => void} turnBefore
 * @property {() => void} nextTurn
 * @property {() => void} sent after the user has sent a message
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

// The page has this button only while a reply is being written. It works in the presentation mode, too, where it
// is not visible.
function stopReply() {
  const button = document.querySelector("#stop");
  if (button instanceof HTMLElement) button.click();
}

function messageBox() {
  const box = document.querySelector("#message textarea");
  return box instanceof HTMLTextAreaElement ? box : null;
}

const hasClass = (/** @type {string} */ name) => document.body.classList.contains(name);

/**
 * In the presentation mode the message box is hidden until a key opens it.
 * @param {boolean} open
 */
function showMessageBox(open) {
  document.body.classList.toggle("writing", open && hasClass("presenting"));
  if (open) messageBox()?.focus();
  else messageBox()?.blur();
}

/**
 * Calls back when the user sends a message, or starts a scenario, which sends its first message.
 * @param {() => void} sent
 */
function watchSending(sent) {
  document.addEventListener("keydown", (event) => {
    const { key, shiftKey, isComposing } = event;
    if (key !== "Enter" || shiftKey || isComposing || event.target !== messageBox()) return;
    // Afterwards: Gradio sends the message with an event that follows this one.
    if (messageBox()?.value.trim()) setTimeout(sent);
  });
  document.addEventListener("click", (event) => {
    if (closestOf(event, "#send, .scenario, .script .next")) sent();
  });
}

/**
 * @param {HTMLElement} root
 * @param {Actions} actions
 */
export function makeKeyboard(root, actions) {
  const help = findAs(root, "dialog.keys", HTMLDialogElement);
  const presentButton = find(root, ".present-button");
  wireDialog(help);
  find(root, ".help-button").addEventListener("click", showHelp);
  presentButton.addEventListener("click", togglePresenting);
  const { textContent: presentLabel, title: presentTitle } = presentButton;
  watchSending(() => {
    if (hasClass("writing")) showMessageBox(false);
    // The keyboard on the screen would cover the reply.
    else if (matchMedia("(pointer: coarse)").matches) messageBox()?.blur();
    actions.sent();
  });

  function showHelp() {
    // A page without a model has no message box.
    find(help, ".with-model").hidden = messageBox() === null;
    help.showModal();
  }

  function togglePresenting() {
    const presenting = document.body.classList.toggle("presenting");
    showMessageBox(false);
    presentButton.textContent = presenting ? "Leave presentation" : presentLabel;
    presentButton.title = presenting ? "Show the controls again (p or Esc)" : presentTitle;
    dispatchEvent(new Event("resize"));
    actions.presented();
  }

  // What was opened last is left first.
  function leaveLast() {
    if (hasClass("writing")) showMessageBox(false);
    else if (hasClass("presenting")) togglePresenting();
    else stopReply();
  }

  function toggleCap() {
    const box = document.querySelector("#cap-on input");
    if (box instanceof HTMLElement) box.click();
  }

  /** @type {Map<string, () => void>} */
  const shortcuts = new Map([
    ["n", actions.next],
    ["s", stopReply],
    ["c", toggleCap],
    ["u", actions.undo],
    ["r", actions.again],
    ["l", actions.nextDisplay],
    ["a", actions.autoplay],
    ["f", actions.forks],
    ["p", togglePresenting],
    ["v", actions.veil],
    ["+", actions.larger],
    ["=", actions.larger], // the key of the plus sign, without Shift
    ["-", actions.smaller],
    ["[", actions.turnBefore],
    ["]", actions.nextTurn],
    [" ", actions.replay],
    ["?", showHelp],
    ["/", () => showMessageBox(true)],
  ]);

  document.addEventListener("keydown", (event) => {
    const target = targetOf(event);
    if (event.key === "Escape" && !target.closest("dialog")) leaveLast();
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

// The buttons under the list of how a reply was made: copy a command that makes it again, and copy a link to it.

/** @import { Again } from "./command.js" */

import { copyText } from "./clipboard.js";
import { makeButton, makeElement } from "./dom.js";

/**
 * @typedef {object} HowHooks
 * @property {() => Again} command
 * @property {() => string | null} link an address that also works for others; null where there is none
 */

/** @param {HowHooks} hooks */
export function makeHowActions(hooks) {
  const box = makeElement("div", "how-actions");
  const text = makeElement("pre", "how-copied");
  const status = makeElement("p", "how-status");
  status.setAttribute("role", "status");
  text.hidden = true;

  /**
   * @param {string | null} value
   * @param {string[]} notes
   */
  async function copy(value, notes) {
    text.hidden = value === null;
    text.textContent = value ?? "";
    const copied = value !== null && (await copyText(value));
    const result = copied ? ["Copied."] : ["This browser does not let the page copy; select the text."];
    const words = [...(value === null ? [] : result), ...notes];
    status.textContent = words.join(" ");
    box.scrollIntoView({ block: "nearest" });
  }

  const command = makeButton(
    "",
    "Copy as a command",
    "Copy a command that makes this reply again in a shell",
  );
  command.addEventListener("click", () => {
    const again = hooks.command();
    copy(again.command, again.notes);
  });
  const buttons = makeElement("p");
  buttons.append(command);
  if (hooks.link() !== null) {
    const link = makeButton("", "Copy link", "Copy a link that opens this session at this reply");
    link.addEventListener("click", () => copy(hooks.link(), []));
    buttons.append(link);
  }
  box.append(buttons, status, text);
  return box;
}

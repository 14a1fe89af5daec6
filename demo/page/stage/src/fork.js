// What a user can do at a token: let the reply go on from there with something else, in a fork.

/** @import { Branch, Finish, SendRequest, Token } from "./types" */

import { makeButton, makeElement } from "./dom.js";
import { choices, percent, shownToken } from "./text.js";

/** The ends of a reply that was cut. `can_go_on` in demo/conversation/forks.py has the same list. */
/** @type {readonly (Finish | null)[]} */
const CUT = ["length", "sentence", "cancelled"];

/** @param {Finish | null} finish */
export const wasCut = (finish) => CUT.includes(finish);

/**
 * @typedef {object} Place
 * @property {Branch} branch
 * @property {number} turn
 * @property {number} position of the token among those that are shown, from 1
 * @property {boolean} several whether other branches answered this turn, too
 */

/**
 * The form under a token's figures: the tokens that could have come, and a box for any other text.
 * @param {Place} place
 * @param {Token} token
 * @param {SendRequest} sendRequest
 * @param {() => void} done
 */
export function makeForkForm({ branch, turn, position, several }, token, sendRequest, done) {
  const form = makeElement("form", "fork-form");
  const everywhere = makeElement("input");
  everywhere.type = "checkbox";
  const fork = (/** @type {number | null} */ id, /** @type {string} */ text) => {
    const where = everywhere.checked ? "all" : "branch";
    sendRequest("fork_at", { turn, branch, token: position, id, text, where });
    done();
  };
  form.append(makeElement("p", "", "In a fork, let the reply go on from here with"));
  const known = makeElement("p", "choices");
  for (const { id, text, own, plain } of choices(token)) {
    if (text === token.t) continue;
    const button = makeButton("", shownToken(text), `Fork with this token (${percent(own ?? plain ?? 0)})`);
    button.addEventListener("click", () => fork(id, ""));
    known.append(button);
  }
  const box = makeElement("input");
  box.type = "text";
  box.placeholder = "or with your own words";
  box.setAttribute("aria-label", "Your own words in the place of this token");
  const line = makeElement("p", "own-words");
  line.append(box, makeElement("button", "", "Fork"));
  form.append(known, line);
  if (several) {
    const label = makeElement("label");
    label.append(everywhere, " begin the other replies with the same words");
    form.append(label);
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (box.value.trim()) fork(null, box.value);
    else box.focus();
  });
  // Letters are shortcuts elsewhere, and the arrow keys move from token to token.
  form.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
  return form;
}

/**
 * Under a reply that was cut: a button that lets it go on.
 * @param {Branch} branch
 * @param {number} turn
 * @param {SendRequest} sendRequest
 */
export function makeGoOnButton(branch, turn, sendRequest) {
  const button = makeButton("go-on", "continue", "This reply was cut: let it go on from its end");
  button.addEventListener("click", () => sendRequest("go_on", { turn, branch }));
  return button;
}

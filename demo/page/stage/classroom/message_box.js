// The box of a student's message: what the script puts into it, what is on its way, and how high it is.

import { findAs } from "../src/dom.js";
import { newId } from "./wire.js";

/**
 * Says what of a script goes into the box. Each line is offered once, so that one that the student has deleted,
 * or has just sent, does not come back with the next message of the server.
 */
export function makeSuggestions() {
  let offered = "";
  let last = "";
  return {
    /**
     * @param {string} place the conversation and the number of its next turn
     * @param {string} line of the script; empty for none
     * @param {string} value what the box holds
     * @returns {string | null} what it should hold; null to leave it
     */
    next(place, line, value) {
      const key = `${place} ${line}`;
      if (key === offered) return null;
      offered = key;
      if (value && value !== last) return null; // the student's own words
      last = line;
      return line;
    },
    /** @param {string} value */
    isOwn: (value) => Boolean(value) && value !== last,
  };
}

/** @typedef {{ text: string; id: string }} Message */

/**
 * @param {HTMLFormElement} form
 * @param {(message: Message) => Promise<boolean>} send whether the server has taken it
 */
export function makeMessageBox(form, send) {
  const box = findAs(form, "textarea", HTMLTextAreaElement);
  const button = findAs(form, ".send", HTMLButtonElement);
  const suggestions = makeSuggestions();
  let sending = false;
  let blocked = true;
  /** @type {Message | null} */
  let message = null; // the latest one, until its turn has begun
  let onItsWay = ""; // its text, unless the server has refused it

  function show() {
    button.disabled = blocked || sending;
    button.textContent = sending ? "Sending…" : "Send";
    grow();
  }

  function grow() {
    if (CSS.supports("field-sizing", "content")) return;
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + 2}px`;
  }

  /** @param {string} text */
  function fill(text) {
    box.value = text;
    grow();
  }

  /** @param {Message} taken */
  function settle(taken) {
    if (message !== taken) return;
    message = null;
    if (box.value === taken.text) fill("");
  }

  async function submit() {
    const text = box.value;
    if (!text.trim() || sending || blocked) return;
    // A retry keeps its name, so that the server takes it once even where its first answer was lost.
    if (message?.text !== text) message = { text, id: newId() };
    const mine = message;
    sending = true;
    onItsWay = text;
    if (document.activeElement === button) box.focus();
    show();
    const taken = await send(mine);
    sending = false;
    if (taken) settle(mine);
    show();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  box.addEventListener("input", grow);
  // A tap on the button leaves the box its focus, and a phone its keyboard.
  button.addEventListener("mousedown", (event) => event.preventDefault());

  return {
    /** @param {boolean} on whether no message may be sent now */
    block(on) {
      blocked = on;
      show();
    },
    /**
     * @param {string} place
     * @param {string} line
     */
    suggest(place, line) {
      const found = suggestions.next(place, line, box.value);
      if (found !== null) fill(found);
    },
    /**
     * A message whose replies are not coming goes back, unless the student has written something else.
     * @param {string} text
     */
    putBack(text) {
      if (!suggestions.isOwn(box.value)) fill(text);
    },
    /** @param {string} user the message of a turn that has begun */
    began(user) {
      onItsWay = "";
      if (message?.text === user) settle(message);
    },
    /** The server has refused what was sent. */
    refused() {
      onItsWay = "";
    },
    onItsWay: () => onItsWay,
  };
}

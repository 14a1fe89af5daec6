// The toolbar above the panes: conversations, the scripted scenario, how replies are displayed, saving and
// opening.

/** @import { Operations, SendRequest } from "./types" */

import { datasetOf, find, findAll, findAs, makeButton, makeElement, targetOf } from "./dom.js";

/** @typedef {Operations["download"]} FileToSave */

const AUTOPLAY_MS = 1500;
/** The first is the one at the start. */
const DISPLAY_MODES = ["marks", "lens", "prose"];

/** @param {FileToSave} file */
function downloadFile({ name, mime, text }) {
  const link = makeElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/**
 * A saved page contains Plotly's script. The browser inserts it, because it has loaded the script already.
 * @param {string} text
 */
async function withPlotly(text) {
  const script = [...document.scripts].find((one) => one.src.includes("plotly"));
  const source = script ? await (await fetch(script.src)).text() : "";
  return text.replace("/*plotly*/", () => source.replace(/<\/script/gi, "<\\/script"));
}

/**
 * The text of a file in UTF-8 or UTF-16, with or without a byte-order mark; null for any other file.
 * @param {Uint8Array} bytes
 */
export function decodeText(bytes) {
  const [first = 1, second = 1] = bytes;
  // The text is JSON and begins with an ASCII character, so a zero byte tells which half of UTF-16 comes first.
  const little = (first === 0xff && second === 0xfe) || second === 0;
  const big = (first === 0xfe && second === 0xff) || first === 0;
  try {
    return new TextDecoder(little ? "utf-16le" : big ? "utf-16be" : "utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/**
 * A dialog closes with its own button and with a click outside it.
 * @param {HTMLDialogElement} dialog
 */
export function wireDialog(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || targetOf(event).closest(".close")) dialog.close();
  });
}

/**
 * @param {HTMLElement} root
 * @param {{ sendRequest: SendRequest; busy: () => boolean }} hooks busy: whether a reply is being written
 */
export function makeToolbar(root, hooks) {
  const conversations = find(root, ".conversations");
  const scriptBox = find(root, ".script");
  const autoplay = findAs(scriptBox, "input", HTMLInputElement);
  const openDialog = findAs(root, "dialog.open-session", HTMLDialogElement);
  const pasteBox = findAs(openDialog, "textarea", HTMLTextAreaElement);
  const fileInput = findAs(openDialog, "input[type=file]", HTMLInputElement);
  const fileProblem = find(openDialog, ".file-problem");
  const keptEnd = findAs(openDialog, ".kept-end", HTMLSelectElement);
  const chatChoice = findAs(openDialog, ".which-chat", HTMLSelectElement);
  const saveMenu = findAs(root, ".save", HTMLSelectElement);
  const shipped = findAs(root, ".shipped", HTMLSelectElement);
  let autoplayTimer = 0;

  /** @param {string} mode */
  function setDisplay(mode) {
    root.dataset.display = mode;
    for (const button of findAll(root, ".display-modes button")) {
      button.setAttribute("aria-pressed", String(button.dataset.display === mode));
    }
  }

  function nextDisplay() {
    const at = DISPLAY_MODES.indexOf(root.dataset.display ?? "");
    setDisplay(DISPLAY_MODES[(at + 1) % DISPLAY_MODES.length] ?? "marks");
  }

  /**
   * @param {string} title
   * @param {number} index
   * @param {number} current
   * @param {number} count of conversations
   */
  function conversationTab(title, index, current, count) {
    const tab = makeElement("span", index === current ? "conversation current" : "conversation");
    const select = makeButton("", title, `Conversation ${index + 1}: ${title}`);
    if (index === current) select.setAttribute("aria-current", "true");
    select.addEventListener("click", () => {
      if (index !== current) hooks.sendRequest("switch", { conversation: index });
    });
    tab.append(select);
    if (count > 1) {
      const close = makeButton("close", "×", `Close conversation ${index + 1}`);
      close.addEventListener("click", () => hooks.sendRequest("close", { conversation: index }));
      tab.append(close);
    }
    return tab;
  }

  /**
   * @param {Operations["conversations"]} fields
   * @param {number} turns how many the current conversation has
   */
  function show({ list, current, script }, turns) {
    conversations.replaceChildren(...list.map((title, n) => conversationTab(title, n, current, list.length)));
    conversations.hidden = list.length < 2;
    scriptBox.hidden = !script.of && !script.blurb;
    find(scriptBox, "b").textContent = script.title;
    find(scriptBox, ".blurb").textContent = script.blurb;
    if (!script.said) findAs(scriptBox, "details", HTMLDetailsElement).open = false;
    const warning = find(scriptBox, ".content-warning");
    warning.textContent = script.content_warning;
    warning.hidden = !script.content_warning;
    const unfinished = script.said < script.of;
    find(scriptBox, ".steps").textContent = script.of ? `${script.said} of ${script.of}` : "";
    for (const part of [".next", "label"]) find(scriptBox, part).hidden = !unfinished;
    clearTimeout(autoplayTimer);
    if (unfinished && turns > 0 && autoplay.checked) autoplayTimer = window.setTimeout(sendNext, AUTOPLAY_MS);
  }

  // Sends the message box's content: the server has put the script's next message there.
  function sendNext() {
    const [box, send] = [document.querySelector("#message textarea"), document.querySelector("#send")];
    if (!(box instanceof HTMLTextAreaElement) || !(send instanceof HTMLElement)) return;
    if (box.value.trim() && !hooks.busy()) send.click();
  }

  function toggleAutoplay() {
    autoplay.checked = !autoplay.checked;
    autoplay.dispatchEvent(new Event("change"));
  }

  /** @param {string[]} names */
  function listRecordings(names) {
    find(root, ".pick-shipped").hidden = names.length === 0;
    const options = names.map((name) => new Option(name.replace(/-/g, " "), name));
    shipped.replaceChildren(new Option("choose…", ""), ...options);
  }

  /** The dialog holds another text: what was said about the one before no longer applies. */
  function textChanged() {
    fileProblem.hidden = true;
    find(openDialog, ".pick-chat").hidden = true;
    chatChoice.replaceChildren();
  }

  /** @param {File} file */
  async function readFile(file) {
    const text = decodeText(new Uint8Array(await file.arrayBuffer()));
    pasteBox.value = text ?? "";
    textChanged();
    fileProblem.hidden = text !== null;
  }

  /**
   * Asks which of the chats in a file to open.
   * @param {Operations["chats"]} fields
   */
  function offerChats({ titles, count }) {
    const shown = titles.length < count ? `, the first ${titles.length.toLocaleString("en")} are listed` : "";
    find(openDialog, ".chat-count").textContent =
      `This file holds ${count.toLocaleString("en")} chats${shown}. Choose one, and open it:`;
    chatChoice.replaceChildren(...titles.map((title, n) => new Option(`${n + 1}. ${title}`, String(n))));
    find(openDialog, ".pick-chat").hidden = false;
    if (!openDialog.open) openDialog.showModal();
    chatChoice.focus();
  }

  function openText(/** @type {string} */ how) {
    const keep = keptEnd.value === "end" ? "end" : "beginning";
    const chat = chatChoice.value ? Number(chatChoice.value) : null;
    hooks.sendRequest("open", { how, text: pasteBox.value, keep, chat });
    openDialog.close(); // the text stays in it, for another chat of the file or its other end
  }

  /** @param {FileToSave} file */
  async function save(file) {
    downloadFile(file.mime === "text/html" ? { ...file, text: await withPlotly(file.text) } : file);
  }

  autoplay.addEventListener("change", () => (autoplay.checked ? sendNext() : clearTimeout(autoplayTimer)));
  find(scriptBox, ".next").addEventListener("click", sendNext);
  find(root, ".display-modes").addEventListener("click", (event) => {
    const { display } = datasetOf(event);
    if (display) setDisplay(display);
  });
  saveMenu.addEventListener("change", () => {
    hooks.sendRequest("save", { kind: saveMenu.value });
    saveMenu.value = "";
  });
  find(root, ".open-button").addEventListener("click", () => {
    openDialog.showModal();
    pasteBox.select();
  });
  pasteBox.addEventListener("input", textChanged);
  fileInput.addEventListener("change", async () => {
    const file = fileInput.files?.[0];
    if (file) await readFile(file);
    fileInput.value = "";
  });
  find(openDialog, ".dialog-actions").addEventListener("click", (event) => {
    const { how } = datasetOf(event);
    if (how && pasteBox.value.trim()) openText(how);
  });
  shipped.addEventListener("change", () => {
    if (shipped.value) hooks.sendRequest("recorded", { name: shipped.value });
    shipped.value = "";
    openDialog.close();
  });
  wireDialog(openDialog);
  setDisplay("marks");
  return { show, listRecordings, offerChats, save, nextDisplay, sendNext, toggleAutoplay };
}

/**
 * The buttons under a turn's reply.
 * @param {number} index
 * @param {boolean} last whether it is the last turn
 * @param {{ sendRequest: SendRequest; edit: (turn: number) => void }} hooks
 */
export function turnTools(index, last, hooks) {
  const box = makeElement("span", "tools");
  /**
   * @param {string} text
   * @param {string} label
   * @param {() => void} action
   */
  const add = (text, label, action) => {
    const button = makeButton("", text, label);
    button.addEventListener("click", action);
    box.append(button);
  };
  const again = () => hooks.sendRequest("regenerate", { turn: index });
  add("again", "Answer this message again with other random numbers", again);
  add("edit", "Edit your message and continue from here", () => hooks.edit(index));
  add("fork", "Continue from here in a new conversation", () => hooks.sendRequest("fork", { turn: index }));
  if (last)
    add("undo", "Undo this turn; your message returns to the message box", () => hooks.sendRequest("undo"));
  return box;
}

/**
 * Replaces a user message by a form until it is sent or cancelled.
 * @param {HTMLElement} message
 * @param {string} text
 * @param {(text: string) => void} send
 */
export function editMessage(message, text, send) {
  editText(message, text, { label: "Your message", action: "Send", mayBeEmpty: false }, send);
}

/**
 * A box in the place of an element, with a text to be changed.
 * @param {HTMLElement} element
 * @param {string} text
 * @param {{ label: string; action: string; mayBeEmpty: boolean }} words
 * @param {(text: string) => void} done
 */
export function editText(element, text, { label, action, mayBeEmpty }, done) {
  const form = makeElement("form", "edit-form");
  const box = makeElement("textarea");
  box.value = text;
  box.setAttribute("aria-label", label);
  const cancel = makeButton("", "Cancel");
  form.append(box, makeElement("button", "", action), cancel);
  const close = () => form.replaceWith(element);
  cancel.addEventListener("click", close);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!mayBeEmpty && !box.value.trim()) return;
    close();
    done(box.value);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && !event.shiftKey) form.requestSubmit();
    event.stopPropagation();
  });
  element.replaceWith(form);
  box.focus();
}

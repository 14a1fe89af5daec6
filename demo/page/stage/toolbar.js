// The toolbar above the panes: conversations, the scripted scenario, how replies are displayed, saving and opening.

const AUTOPLAY_MS = 1500;
const DISPLAY_MODES = ["marks", "lens", "prose"];

function downloadFile({ name, mime, text }) {
  const link = makeElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A saved page contains Plotly's script. The browser inserts it, because it has loaded the script already.
async function withPlotly(text) {
  const script = [...document.scripts].find((one) => one.src.includes("plotly"));
  const source = script ? await (await fetch(script.src)).text() : "";
  return text.replace("/*plotly*/", () => source.replace(/<\/script/gi, "<\\/script"));
}

// A dialog closes with its own button and with a click outside it.
function wireDialog(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
}

// hooks: sendRequest(name, fields), busy() -> whether a reply is being written
function makeToolbar(root, hooks) {
  const conversations = root.querySelector(".conversations");
  const scriptBox = root.querySelector(".script");
  const autoplay = scriptBox.querySelector("input");
  const openDialog = root.querySelector("dialog.open-session");
  const pasteBox = openDialog.querySelector("textarea");
  let autoplayTimer = null;

  function setDisplay(mode) {
    root.dataset.display = mode;
    for (const button of root.querySelectorAll(".display-modes button")) {
      button.setAttribute("aria-pressed", String(button.dataset.display === mode));
    }
  }

  function nextDisplay() {
    setDisplay(DISPLAY_MODES[(DISPLAY_MODES.indexOf(root.dataset.display) + 1) % DISPLAY_MODES.length]);
  }

  function conversationTab(title, index, current, count) {
    const tab = makeElement("span", index === current ? "conversation current" : "conversation");
    const select = makeButton("", title, `Conversation ${index + 1}: ${title}`);
    if (index === current) select.setAttribute("aria-current", "true");
    select.addEventListener("click", () => index !== current && hooks.sendRequest("switch", { conversation: index }));
    tab.append(select);
    if (count > 1) {
      const close = makeButton("close", "×", `Close conversation ${index + 1}`);
      close.addEventListener("click", () => hooks.sendRequest("close", { conversation: index }));
      tab.append(close);
    }
    return tab;
  }

  // turns: the number of turns that the current conversation has.
  function show({ list, current, script }, turns) {
    conversations.replaceChildren(...list.map((title, n) => conversationTab(title, n, current, list.length)));
    conversations.hidden = list.length < 2;
    scriptBox.hidden = !script.of && !script.blurb;
    scriptBox.querySelector("b").textContent = script.title;
    scriptBox.querySelector(".blurb").textContent = script.blurb;
    const warning = scriptBox.querySelector(".content-warning");
    warning.textContent = script.content_warning;
    warning.hidden = !script.content_warning;
    const unfinished = turns < script.of;
    scriptBox.querySelector(".steps").textContent = script.of ? `${turns} of ${script.of}` : "";
    scriptBox.querySelector(".next").hidden = scriptBox.querySelector("label").hidden = !unfinished;
    clearTimeout(autoplayTimer);
    if (unfinished && turns > 0 && autoplay.checked) autoplayTimer = setTimeout(sendNext, AUTOPLAY_MS);
  }

  // Sends the message box's content: the server has put the script's next message there.
  function sendNext() {
    const [box, send] = [document.querySelector("#message textarea"), document.querySelector("#send")];
    if (!box?.value.trim() || !send || hooks.busy()) return false;
    send.click();
    return true;
  }

  function toggleAutoplay() {
    autoplay.checked = !autoplay.checked;
    autoplay.dispatchEvent(new Event("change"));
  }

  function listRecordings(names) {
    const list = root.querySelector(".shipped");
    root.querySelector(".pick-shipped").hidden = names.length === 0;
    const options = names.map((name) => new Option(name.replace(/-/g, " "), name));
    list.replaceChildren(new Option("choose…", ""), ...options);
  }

  async function save(file) {
    downloadFile(file.mime === "text/html" ? { ...file, text: await withPlotly(file.text) } : file);
  }

  autoplay.addEventListener("change", () => (autoplay.checked ? sendNext() : clearTimeout(autoplayTimer)));
  scriptBox.querySelector(".next").addEventListener("click", sendNext);
  root.querySelector(".display-modes").addEventListener("click", (event) => {
    if (event.target.dataset.display) setDisplay(event.target.dataset.display);
  });
  root.querySelector(".save").addEventListener("change", (event) => {
    hooks.sendRequest("save", { kind: event.target.value });
    event.target.value = "";
  });
  root.querySelector(".open-button").addEventListener("click", () => openDialog.showModal());
  openDialog.querySelector("input[type=file]").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) pasteBox.value = await file.text();
    event.target.value = "";
  });
  openDialog.querySelector(".dialog-actions").addEventListener("click", (event) => {
    const { how } = event.target.dataset;
    if (!how || !pasteBox.value.trim()) return;
    hooks.sendRequest("open", { how, text: pasteBox.value });
    pasteBox.value = "";
    openDialog.close();
  });
  root.querySelector(".shipped").addEventListener("change", (event) => {
    if (event.target.value) hooks.sendRequest("recorded", { name: event.target.value });
    event.target.value = "";
    openDialog.close();
  });
  wireDialog(openDialog);
  setDisplay("marks");
  return { show, listRecordings, save, nextDisplay, sendNext, toggleAutoplay };
}

// The buttons under a turn's reply. last: whether it is the last turn. hooks: sendRequest(name, fields), edit(turn)
function turnTools(index, last, hooks) {
  const box = makeElement("span", "tools");
  const add = (text, label, action) => {
    const button = makeButton("", text, label);
    button.addEventListener("click", action);
    box.append(button);
  };
  const again = () => hooks.sendRequest("regenerate", { turn: index });
  add("again", "Answer this message again with other random numbers", again);
  add("edit", "Edit your message and continue from here", () => hooks.edit(index));
  add("fork", "Continue from here in a new conversation", () => hooks.sendRequest("fork", { turn: index }));
  if (last) add("undo", "Undo this turn; your message returns to the message box", () => hooks.sendRequest("undo"));
  return box;
}

// Replaces a user message by a form until it is sent or cancelled.
function editMessage(message, text, send) {
  const form = makeElement("form", "edit-form");
  const box = makeElement("textarea");
  box.value = text;
  box.setAttribute("aria-label", "Your message");
  const cancel = makeButton("", "Cancel");
  form.append(box, makeElement("button", "", "Send"), cancel);
  const close = () => form.replaceWith(message);
  cancel.addEventListener("click", close);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!box.value.trim()) return;
    close();
    send(box.value);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (event.key === "Enter" && !event.shiftKey) form.requestSubmit();
    event.stopPropagation();
  });
  message.replaceWith(form);
  box.focus();
}

// The bar above the panes: conversations, how replies are shown, saving and opening, and the script that is followed.

const AUTOPLAY_MS = 1500;
const VIEWS = ["marks", "lens", "prose"];

function download({ name, mime, text }) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: mime }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A saved page carries the plotting script along; this browser has it already.
async function withPlotly(text) {
  const script = [...document.scripts].find((one) => one.src.includes("plotly"));
  const source = script ? await (await fetch(script.src)).text() : "";
  return text.replace("/*plotly*/", () => source.replace(/<\/script/gi, "<\\/script"));
}

function wireDialog(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest(".close")) dialog.close();
  });
}

// hooks: ask(request) -> whether there is anyone to ask, busy() -> whether a reply is being written
function makeBar(root, hooks) {
  const talks = root.querySelector(".talks");
  const script = root.querySelector(".script");
  const autoplay = script.querySelector("input");
  const opener = root.querySelector("dialog.open-session");
  const paste = opener.querySelector("textarea");
  let waiting = null;

  function setView(name) {
    root.dataset.view = name;
    for (const button of root.querySelectorAll(".looks button")) {
      button.setAttribute("aria-pressed", String(button.dataset.look === name));
    }
  }

  function nextView() {
    setView(VIEWS[(VIEWS.indexOf(root.dataset.view) + 1) % VIEWS.length]);
  }

  function talkTab(title, index, current, count) {
    const box = make("span", index === current ? "talk current" : "talk");
    const pick = makeButton("", title, `Conversation ${index + 1}: ${title}`);
    if (index === current) pick.setAttribute("aria-current", "true");
    pick.addEventListener("click", () => index !== current && hooks.ask({ do: "switch", talk: index }));
    box.append(pick);
    if (count > 1) {
      const drop = makeButton("drop", "×", `Close conversation ${index + 1}`);
      drop.addEventListener("click", () => hooks.ask({ do: "drop", talk: index }));
      box.append(drop);
    }
    return box;
  }

  function show(overview, turns) {
    const { list, current, script: told } = overview;
    talks.replaceChildren(...list.map((title, index) => talkTab(title, index, current, list.length)));
    talks.hidden = list.length < 2;
    script.hidden = !told.of && !told.blurb;
    script.querySelector("b").textContent = told.title;
    script.querySelector(".blurb").textContent = told.blurb;
    script.querySelector(".care").textContent = told.care;
    script.querySelector(".care").hidden = !told.care;
    const left = turns < told.of;
    script.querySelector(".steps").textContent = told.of ? `${turns} of ${told.of}` : "";
    script.querySelector(".next").hidden = script.querySelector("label").hidden = !left;
    clearTimeout(waiting);
    if (left && turns > 0 && autoplay.checked) waiting = setTimeout(sendNext, AUTOPLAY_MS);
  }

  // The next line of the script waits in the message box.
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

  function offer(names) {
    const list = root.querySelector(".shipped");
    root.querySelector(".pick-shipped").hidden = names.length === 0;
    list.replaceChildren(new Option("choose…", ""), ...names.map((name) => new Option(name.replace(/-/g, " "), name)));
  }

  async function take(file) {
    download(file.mime === "text/html" ? { ...file, text: await withPlotly(file.text) } : file);
  }

  autoplay.addEventListener("change", () => (autoplay.checked ? sendNext() : clearTimeout(waiting)));
  script.querySelector(".next").addEventListener("click", sendNext);
  root.querySelector(".looks").addEventListener("click", (event) => event.target.dataset.look && setView(event.target.dataset.look));
  root.querySelector(".save").addEventListener("change", (event) => {
    hooks.ask({ do: "save", kind: event.target.value });
    event.target.value = "";
  });
  root.querySelector(".opener").addEventListener("click", () => opener.showModal());
  opener.querySelector("input[type=file]").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    if (file) paste.value = await file.text();
    event.target.value = "";
  });
  opener.querySelector(".ways").addEventListener("click", (event) => {
    const { how } = event.target.dataset;
    if (!how || !paste.value.trim()) return;
    hooks.ask({ do: "open", how, text: paste.value });
    paste.value = "";
    opener.close();
  });
  root.querySelector(".shipped").addEventListener("change", (event) => {
    if (event.target.value) hooks.ask({ do: "recorded", name: event.target.value });
    event.target.value = "";
    opener.close();
  });
  wireDialog(opener);
  setView("marks");
  return { show, offer, take, nextView, sendNext, toggleAutoplay };
}

// What can be done with a turn, under its reply. hooks: ask(request), edit(turn)
function turnTools(index, last, hooks) {
  const box = make("span", "tools");
  const add = (text, label, act) => {
    const button = makeButton("", text, label);
    button.addEventListener("click", act);
    box.append(button);
  };
  add("again", "Answer this message again, with other random numbers", () => hooks.ask({ do: "regenerate", turn: index }));
  add("edit", "Change your message and go on from here", () => hooks.edit(index));
  add("fork", "Go on from here in another conversation", () => hooks.ask({ do: "fork", turn: index }));
  if (last) add("undo", "Take this turn back; your message returns to the box", () => hooks.ask({ do: "undo" }));
  return box;
}

function editBubble(bubble, text, save) {
  const form = make("form", "rewrite");
  const box = make("textarea");
  box.value = text;
  box.setAttribute("aria-label", "Your message");
  const send = make("button", "", "Send");
  const cancel = makeButton("", "Cancel");
  form.append(box, send, cancel);
  const done = () => form.replaceWith(bubble);
  cancel.addEventListener("click", done);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!box.value.trim()) return;
    done();
    save(box.value);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape") done();
    if (event.key === "Enter" && !event.shiftKey) form.requestSubmit();
    event.stopPropagation();
  });
  bubble.replaceWith(form);
  box.focus();
}

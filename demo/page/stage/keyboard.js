// Everything by keyboard, and the presentation mode. Letters act only where nobody is typing.

const TYPING = "input, textarea, select, [contenteditable=true], dialog[open] *";

function clickOn(selector) {
  const target = document.querySelector(selector);
  if (target && target.offsetParent !== null) target.click();
  return Boolean(target);
}

// acts: key -> function; hooks.help is the dialog that lists them
function makeKeys(root, acts) {
  const help = root.querySelector("dialog.keys");
  wireDialog(help);
  root.querySelector(".helper").addEventListener("click", () => help.showModal());
  root.querySelector(".presenter").addEventListener("click", present);

  function present() {
    const on = document.body.classList.toggle("presenting");
    root.querySelector(".presenter").setAttribute("aria-pressed", String(on));
    dispatchEvent(new Event("resize"));
  }

  const keys = {
    n: acts.next, s: () => clickOn("#stop"), c: () => document.querySelector("#cap-on input")?.click(), u: acts.undo,
    r: acts.again, l: acts.look, a: acts.autoplay, p: present, " ": acts.replay, "?": () => help.showModal(),
    "/": () => document.querySelector("#message textarea")?.focus(),
  };

  function onKey(event) {
    if (event.key === "Escape" && !event.target.closest("dialog")) clickOn("#stop");
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPING)) return;
    if (event.key === " " && event.target.closest("button, [tabindex]")) return;
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  document.addEventListener("keydown", onKey);
}

// Keyboard shortcuts and the presentation mode. Letters are shortcuts only while the user is not typing.

const TYPING = "input, textarea, select, [contenteditable=true], dialog[open] *";

function clickOn(selector) {
  const target = document.querySelector(selector);
  if (target && target.offsetParent !== null) target.click();
}

// actions: next, undo, again, nextDisplay, autoplay, replay
function makeKeyboard(root, actions) {
  const help = root.querySelector("dialog.keys");
  wireDialog(help);
  root.querySelector(".help-button").addEventListener("click", () => help.showModal());
  root.querySelector(".present-button").addEventListener("click", togglePresenting);

  function togglePresenting() {
    const presenting = document.body.classList.toggle("presenting");
    root.querySelector(".present-button").setAttribute("aria-pressed", String(presenting));
    dispatchEvent(new Event("resize"));
  }

  const shortcuts = {
    n: actions.next,
    s: () => clickOn("#stop"),
    c: () => document.querySelector("#cap-on input")?.click(),
    u: actions.undo,
    r: actions.again,
    l: actions.nextDisplay,
    a: actions.autoplay,
    p: togglePresenting,
    " ": actions.replay,
    "?": () => help.showModal(),
    "/": () => document.querySelector("#message textarea")?.focus(),
  };

  function onKey(event) {
    if (event.key === "Escape" && !event.target.closest("dialog")) clickOn("#stop");
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest(TYPING)) return;
    if (event.key === " " && event.target.closest("button, [tabindex]")) return;
    const action = shortcuts[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  document.addEventListener("keydown", onKey);
}

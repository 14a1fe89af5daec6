// Made from its sources by `npm run build`; do not edit.
// Sources: fc7e41100d45dc3712c45c185d8d397b374d7011dc66aff90faa9c15ae018a72
// Bundle: c4df2c59c9572f45997af727c1bda9a1ab6ec6c0347cf3ef78cd97eb15b877a6
(() => {
  // src/dom.js
  function find(root, selector) {
    return findAs(root, selector, HTMLElement);
  }
  function findAs(root, selector, kind) {
    const element = root.querySelector(selector);
    if (!(element instanceof kind)) throw new Error(`The stage has no ${kind.name} ${selector}.`);
    return element;
  }
  function findAll(root, selector) {
    return [...root.querySelectorAll(selector)].filter((element) => element instanceof HTMLElement);
  }

  // src/mirror.js
  function choose(list, value) {
    if (value === void 0 || list.value === value) return;
    if (![...list.options].some((option) => option.value === value)) return;
    list.value = value;
    list.dispatchEvent(new Event("change"));
  }
  function press(root, selector) {
    const button = findAll(root, selector)[0];
    const on = button?.getAttribute("aria-pressed") ?? button?.getAttribute("aria-selected");
    if (button && on !== "true") button.click();
  }
  function showView(root, view) {
    const quoted = (value) => `"${CSS.escape(value ?? "")}"`;
    choose(findAs(root, ".turn-list select", HTMLSelectElement), view.turn);
    press(root, `.charts [role="tab"][id=${quoted(view.panel)}]`);
    press(root, `.display-modes [data-display=${quoted(view.display)}]`);
    choose(findAs(root, ".lens-of", HTMLSelectElement), view.lens);
    press(root, `#map-view [data-view=${quoted(view.map)}]`);
    press(root, `#layer-view .views:not(.modes) [data-branch=${quoted(view.reply)}]`);
    press(root, `#layer-view .modes [data-mode=${quoted(view.mode)}]`);
  }

  // classroom/wire.js
  var RefusedError = class extends Error {
    /**
     * @param {string} detail
     * @param {number} status
     */
    constructor(detail, status) {
      super(detail);
      this.status = status;
    }
  };
  var SILENCE_MS = 4e4;
  var base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;
  var addressOf = (path) => `${base()}class/${path}`;
  var pause = (ms) => new Promise((done) => setTimeout(done, ms));
  async function checked(answer) {
    if (answer.ok) return answer;
    const { detail = "" } = await answer.json().catch(() => ({}));
    throw new RefusedError(detail || `The server answered with status ${answer.status}.`, answer.status);
  }
  function eventsIn(text) {
    const parts = text.split("\n\n");
    const rest = parts.pop() ?? "";
    const lines = parts.filter((part) => part.startsWith("data: "));
    return { messages: lines.map((line) => JSON.parse(line.slice(6))), rest };
  }
  async function listen(path, token, take2, signal) {
    const init = { headers: { "X-Class-Token": token }, cache: (
      /** @type {const} */
      "no-store"
    ) };
    const answer = await checked(await fetch(addressOf(path), signal ? { ...init, signal } : init));
    if (!answer.body) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (; ; ) {
      const silence = setTimeout(() => reader.cancel().catch(() => {
      }), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const { messages, rest } = eventsIn(text + value);
      text = rest;
      for (const message of messages) {
        try {
          take2(
            /** @type {T} */
            message
          );
        } catch (error) {
          reportError(error);
        }
      }
    }
  }
  function stored(name) {
    try {
      return JSON.parse(sessionStorage.getItem(name) ?? "null");
    } catch {
      return null;
    }
  }
  var STUDENT = "persona-drift-class-student";

  // classroom/follow.js
  var AGAIN_MS = 1e3;
  var stage = find(document.body, "#stage");
  var seq = 0;
  function take({ ops, view }) {
    seq += 1;
    if (ops.length) window.receiveStage?.(JSON.stringify({ seq, ops }));
    showView(stage, view);
  }
  async function follow() {
    for (; ; ) {
      const own = stored(STUDENT);
      if (!own) return;
      try {
        await listen("follow", own.token, take);
      } catch (error) {
        if (error instanceof RefusedError) return;
      }
      await pause(AGAIN_MS);
    }
  }
  follow();
})();

// Made from its sources by `npm run build`; do not edit.
// Sources: e145a005621197c761ccac5814664559487825476cfa35ca566b80bd0a3cbe5b
// Bundle: 00478797012bf72ca6ba1b120b32078de767bfa28c912b631193a4802ab375f3
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

  // classroom/wire.js
  var STUDENT = "persona-drift-class-student";
  var RefusedError = class extends Error {
    /**
     * @param {string} detail
     * @param {number} status
     */
    constructor(detail, status) {
      super(detail);
      this.status = status;
    }
    /**
     * Whether the server of the class says that it does not know this tab, or no longer. Any other status may come
     * from a proxy, or pass.
     */
    get unknown() {
      return [401, 404, 410].includes(this.status);
    }
    /** Whether the speaker has removed the student. */
    get removed() {
      return this.status === 410;
    }
  };
  var SILENCE_MS = 4e4;
  var base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;
  var pause = (ms) => new Promise((done) => setTimeout(done, ms));
  async function checked(answer) {
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({}));
    const said = typeof detail === "string" && detail;
    throw new RefusedError(said || `The server answered with status ${answer.status}.`, answer.status);
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
    const answer = await checked(await fetch(`${base()}class/${path}`, signal ? { ...init, signal } : init));
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

  // classroom/following.js
  var FOLLOW = "persona-drift-follow";

  // classroom/follow.js
  var AGAIN_MS = 1500;
  var stage = find(document.body, "#stage");
  var waiting = find(document.body, ".waiting");
  var seq = 0;
  var looked = true;
  var stream = new AbortController();
  var goOn = () => {
  };
  function take({ ops, view }) {
    waiting.hidden = true;
    seq += 1;
    if (ops?.length) window.receiveStage?.(JSON.stringify({ seq, ops }));
    if (view) showView(stage, view);
  }
  async function follow() {
    for (; ; ) {
      if (!looked)
        await new Promise((done) => {
          goOn = () => done(void 0);
        });
      const own = stored(STUDENT);
      stream = new AbortController();
      try {
        if (own) await listen("follow", own.token, take, stream.signal);
      } catch {
      }
      if (!looked) continue;
      waiting.hidden = false;
      await pause(AGAIN_MS);
    }
  }
  addEventListener("message", ({ data, origin, source }) => {
    if (source !== parent || origin !== location.origin || typeof data?.[FOLLOW] !== "boolean") return;
    looked = data[FOLLOW];
    if (looked) goOn();
    else stream.abort();
  });
  follow();
})();

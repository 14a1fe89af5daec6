// The speaker's stage on the phones of a class: this tab passes on what it was sent and what it shows, and a
// phone shows the same. Only the tab of a speaker has the secret that the server asks for.

/** @import { Operation, SendRequest } from "./types" */

import { find, findAll, findAs, makeButton } from "./dom.js";

/** What a speaker's tab keeps: the secret, and the address of the page. */
export const SPEAKER = "persona-drift-class-speaker";

const EVERY_MS = 120;
const LEFT_OUT = new Set(["persist", "download", "chats", "restored", "tree", "notice", "compared", "load"]);

/**
 * What of a stage its viewers are to see, by name; the same names as for showView.
 * @param {HTMLElement} root
 * @returns {Record<string, string>}
 */
export function readView(root) {
  const pressed = (/** @type {string} */ within) =>
    findAll(root, `${within} [aria-pressed="true"]`).map(
      ({ dataset }) => dataset.view ?? dataset.branch ?? dataset.mode,
    )[0] ?? "";
  return {
    turn: findAs(root, ".turn-list select", HTMLSelectElement).value,
    panel: findAll(root, '.charts [role="tab"][aria-selected="true"]')[0]?.id ?? "",
    display: root.dataset.display ?? "",
    lens: findAs(root, ".lens-of", HTMLSelectElement).value,
    map: pressed("#map-view .views"),
    reply: pressed("#layer-view .views:not(.modes)"),
    mode: pressed("#layer-view .modes"),
  };
}

/**
 * @param {HTMLSelectElement} list
 * @param {string | undefined} value
 */
function choose(list, value) {
  if (value === undefined || list.value === value) return;
  if (![...list.options].some((option) => option.value === value)) return;
  list.value = value;
  list.dispatchEvent(new Event("change"));
}

/**
 * Presses a button, unless it is pressed.
 * @param {HTMLElement} root
 * @param {string} selector
 */
function press(root, selector) {
  const button = findAll(root, selector)[0];
  const on = button?.getAttribute("aria-pressed") ?? button?.getAttribute("aria-selected");
  if (button && on !== "true") button.click();
}

/**
 * Shows what a speaker's stage shows. The values may be anything.
 * @param {HTMLElement} root
 * @param {Record<string, string>} view
 */
export function showView(root, view) {
  const quoted = (/** @type {string | undefined} */ value) => `"${CSS.escape(value ?? "")}"`;
  choose(findAs(root, ".turn-list select", HTMLSelectElement), view.turn);
  press(root, `.charts [role="tab"][id=${quoted(view.panel)}]`);
  press(root, `.display-modes [data-display=${quoted(view.display)}]`);
  choose(findAs(root, ".lens-of", HTMLSelectElement), view.lens);
  press(root, `#map-view [data-view=${quoted(view.map)}]`);
  press(root, `#layer-view .views:not(.modes) [data-branch=${quoted(view.reply)}]`);
  press(root, `#layer-view .modes [data-mode=${quoted(view.mode)}]`);
}

/** @returns {{ secret: string; base: string } | null} */
function speaker() {
  try {
    return JSON.parse(sessionStorage.getItem(SPEAKER) ?? "null");
  } catch {
    return null; // a saved page, or a browser that keeps nothing
  }
}

/**
 * Does nothing in a tab that is no speaker's.
 * @param {HTMLElement} root
 * @param {SendRequest} sendRequest
 */
export function makeMirror(root, sendRequest) {
  const own = sendRequest.available ? speaker() : null;
  /** @type {Operation[]} */
  let waiting = [];
  let shown = "";
  let on = false;
  const words = () => (on ? "Phones follow" : "Let phones follow");
  const button = makeButton("mirror-button", words(), "The phones of the class show this stage");

  /** @param {string} path @param {object} body */
  async function send(path, body) {
    const headers = { "Content-Type": "application/json", "X-Class-Token": own?.secret ?? "" };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    const answer = await fetch(`${own?.base}class/${path}`, init);
    if (!answer.ok) throw new Error(String(answer.status));
    return answer.json();
  }

  async function pass() {
    const view = readView(root);
    const now = JSON.stringify(view);
    if (!waiting.length && now === shown) return;
    const ops = waiting;
    waiting = [];
    const { again } = await send("mirror", { ops, view });
    shown = now;
    if (again) sendRequest("show"); // everything comes once more
  }

  async function keepPassing() {
    while (on) {
      try {
        await pass();
      } catch {
        shown = "";
        if (on) toggle(); // the class is over, or the server was restarted
      }
      await new Promise((done) => setTimeout(done, EVERY_MS));
    }
  }

  function toggle() {
    on = !on;
    button.textContent = words();
    button.setAttribute("aria-pressed", String(on));
    waiting = [];
    shown = "";
    if (!on) send("speaker", { do: "unfollow" }).catch(() => {});
    else {
      sendRequest("show");
      keepPassing();
    }
  }

  if (own?.secret) {
    button.addEventListener("click", toggle);
    button.setAttribute("aria-pressed", "false");
    find(root, ".actions").append(button);
  }
  return {
    /**
     * What the server has sent to this stage.
     * @param {Operation[]} ops
     */
    took(ops) {
      if (on) waiting.push(...ops.filter(({ op }) => !LEFT_OUT.has(op)));
    },
  };
}

// The speaker's stage on the phones of a class: this tab passes on what it was sent and what it shows, and a
// phone shows the same. Only the tab of a speaker has the secret that the server asks for.

/** @import { StoredClass } from "../classroom/types" */
/** @import { Operation, SendRequest } from "./types" */

import { pause, post, RefusedError, SPEAKER, sentenceOf, store, stored } from "../classroom/wire.js";
import { find, findAll, findAs, makeButton } from "./dom.js";
import { showNotice } from "./notices.js";

const EVERY_MS = 120;
const AGAIN_MS = 1500; // after a request that was lost
const RETURNS_MS = 60_000; // so long the board may take to bring a class back
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

/**
 * What the speaker's tab keeps. After a restart of the server the board, from which this tab was opened, knows the
 * new secret first.
 * @returns {StoredClass | null}
 */
function speaker() {
  try {
    const board = JSON.parse(window.opener?.sessionStorage.getItem(SPEAKER) ?? "null");
    if (board?.secret) store(SPEAKER, { ...board, board: null });
  } catch {
    // The board is closed, or is no page of this server.
  }
  return stored(SPEAKER);
}

/**
 * Does nothing in a tab that is no speaker's.
 * @param {HTMLElement} root
 * @param {SendRequest} sendRequest
 */
export function makeMirror(root, sendRequest) {
  let own = sendRequest.available ? speaker() : null;
  /** @type {Operation[]} */
  let waiting = [];
  let shown = "";
  let on = false;
  let round = 0; // of passing on; a later one ends those before
  let unknown = 0; // since when the server does not know the secret
  const words = () => (on ? "Phones follow" : "Let phones follow");
  const button = makeButton("mirror-button", words(), "The phones of the class show this page");

  /** @param {string} path @param {object} body */
  const send = (path, body) => post(path, body, own?.secret, own?.base);

  async function pass() {
    const view = readView(root);
    const now = JSON.stringify(view);
    if (!waiting.length && now === shown) return;
    const ops = waiting;
    waiting = [];
    try {
      const { again } = await send("mirror", { ops, view });
      shown = now;
      unknown = 0;
      if (again) sendRequest("show"); // everything comes once more
    } catch (error) {
      waiting = [...ops, ...waiting];
      throw error;
    }
  }

  /**
   * How long to wait until the next attempt, in milliseconds; null to end.
   * @param {unknown} error
   */
  function patience(error) {
    if (!(error instanceof RefusedError)) return AGAIN_MS;
    if (error.status === 400 || error.status === 413) return null; // too large, or no operations of a stage
    if (!error.unknown && error.status !== 403) return AGAIN_MS; // of a proxy, or too much at once
    own = speaker();
    unknown ||= Date.now();
    return Date.now() - unknown < RETURNS_MS ? AGAIN_MS : null;
  }

  async function keepPassing() {
    round += 1;
    const mine = round;
    while (on && mine === round) {
      /** @type {number | null} */
      let wait = EVERY_MS;
      try {
        await pass();
      } catch (error) {
        if (mine !== round) return;
        wait = patience(error);
        if (wait === null) {
          toggle();
          showNotice(root, `Phones no longer follow. ${sentenceOf(error)}`, "error");
          return;
        }
      }
      await pause(wait);
    }
  }

  function toggle() {
    on = !on;
    button.textContent = words();
    button.setAttribute("aria-pressed", String(on));
    waiting = [];
    shown = "";
    unknown = 0;
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

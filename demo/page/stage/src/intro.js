// What a visitor sees first: a recorded session that plays under three lines of explanation, until something
// is said or another conversation is shown.

/** @import { Intro, Meta, TurnData } from "./types" */

import { find, findAs } from "./dom.js";
import { sessionName } from "./links.js";
import { LIVE } from "./live.js";
import { hasStored } from "./persistence.js";
import { turnFromData } from "./turns.js";

const ASK_EVERY_MS = 500;

/** Starts the first scenario, as a click on its button would. False where the page has no scenarios. */
function startFirstScenario() {
  const button = document.querySelector("button.scenario");
  if (button instanceof HTMLElement) button.click();
  return button !== null;
}

const MAKING = 409; // the model has no axis yet, and another page offers to make one

/**
 * Whether the live page is there. Where its model has no axis, the page that offers to make one is opened.
 * @param {string} address
 */
async function isThere(address) {
  try {
    const { ok, status } = await fetch(address, { cache: "no-store" });
    if (status === MAKING) location.reload();
    return ok;
  } catch {
    return false; // between the two servers there is none
  }
}

/** @param {string} address */
async function untilThere(address) {
  while (!(await isThere(address))) await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
}

/**
 * @param {HTMLElement} root
 * @param {import("./model.js").Conversation} conversation
 * @param {object} hooks
 * @param {(turns: import("./types").Turn[]) => void} hooks.showTurns
 * @param {{ load: (turns: TurnData[]) => void; toggle: () => void }} hooks.replay
 */
export function makeIntro(root, conversation, { showTurns, replay }) {
  const box = find(root, ".intro");
  const askedForLive = location.hash === LIVE;
  // A reload must not ask again.
  if (askedForLive) history.replaceState(null, "", location.pathname + location.search);
  const tryLive = findAs(box, ".try-live", HTMLButtonElement);
  /** The page's own figures and facts while the intro's are shown. @type {Meta | null} */
  let own = null;

  /** The intro is over, and what comes next shows itself. */
  function end() {
    if (own) conversation.meta = own;
    own = null;
    box.hidden = true;
    root.classList.remove("in-intro");
  }

  /** @param {Intro} recorded */
  function show({ meta, turns }) {
    own = conversation.meta;
    conversation.meta = { ...own, ...meta, watch_only: true };
    conversation.recorded = turns;
    find(box, ".recorded-with").textContent = meta.model ?? "";
    box.hidden = false;
    root.classList.add("in-intro");
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    showTurns(still ? turns.map(turnFromData) : []);
    replay.load(turns);
    if (!still) replay.toggle();
    if (own.ready) untilThere(own.ready);
  }

  /** Something is said: the recording makes room for it. */
  function leave() {
    if (!own) return;
    end();
    conversation.recorded = [];
    replay.load([]);
    showTurns([]);
  }

  /**
   * The page has opened without a conversation.
   * @param {Intro | undefined} recorded
   */
  function open(recorded) {
    if (askedForLive && startFirstScenario()) return;
    if (recorded) show(recorded);
    // Somebody who was in the middle of a conversation when the server was started again, or who comes for a
    // session that only the live page opens.
    if (hasStored() || sessionName() !== null) openWhenReady(false);
  }

  /**
   * Opens the live page as soon as its model is loaded.
   * @param {boolean} live whether to start the first scenario there
   */
  async function openWhenReady(live) {
    const { ready } = own ?? {};
    if (!ready) return;
    Object.assign(tryLive, { disabled: true, textContent: "Loading the model\u2026" });
    await untilThere(ready);
    if (live) location.hash = LIVE;
    location.reload();
  }

  tryLive.addEventListener("click", () => startFirstScenario() || openWhenReady(true));
  return {
    open,
    end,
    leave,
    get shown() {
      return own !== null;
    },
    /** The facts of the page itself. */
    get ownMeta() {
      return own ?? conversation.meta;
    },
  };
}

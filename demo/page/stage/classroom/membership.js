// Being in a class: joining, listening, and coming back after a restart of the server with what the tab has kept.

/** @import { PhoneMessage, SessionHead, StateMessage, StoredStudent, TurnView } from "./types" */
/** @import { Kind } from "./notices.js" */

import { draftOf, keptTurns } from "./turn_data.js";
import { get, listen, pause, post, RefusedError, STUDENT, sentenceOf, store, stored } from "./wire.js";

const AGAIN_MS = 1500; // between two attempts to connect
const GRACE_MS = 20_000; // so long the speaker's tab may take to bring a class back
const REMOVED = "The speaker has removed you from the class.";
const NEW_CLASS = "A new class is open here; enter its code.";
const BACK =
  "The server was restarted. Your conversation comes back as soon as the speaker’s page has brought the class back.";
const NOT_KEPT =
  "This tab has no room left to keep your conversation; save it before you close or reload it.";
const LOST = "The connection was lost; trying again…";

/**
 * @typedef {object} Hooks
 * @property {(message: PhoneMessage) => void} take
 * @property {(sentence: string) => void} left the tab is in no class; the first page says why
 * @property {(kind: Kind, text: string) => void} say
 * @property {() => boolean} shows whether the page shows a class
 * @property {(draft: string, problem: string) => void} returned the tab has joined again; problem: what it could
 *   not take with it
 */

/** A code as it is compared. @param {string} code */
export const tidy = (code) => code.toUpperCase().replace(/\s+/g, "");

/**
 * What a tab gives back of its conversation.
 * @param {StoredStudent | null} known
 */
export function givenBack(known) {
  if (!known?.turns.length) return {};
  return {
    session: { ...known.head, turns: known.turns.map(({ data }) => data) },
    guesses: known.turns.map(({ verdict }) => verdict),
    scenarios: known.turns.map(({ scenario }) => scenario),
    taken: known.turns.map(({ taken }) => taken ?? false),
  };
}

/** @param {Hooks} hooks */
export function makeMembership(hooks) {
  /** @type {StoredStudent | null} */
  let own = stored(STUDENT);
  let round = 0; // of listening; a later one ends those before
  let inside = false; // the tab is connected, or tries to be
  let stream = new AbortController();
  let missing = 0; // since when the server has not known the class
  let told = ""; // what the first page says of it

  /** @param {Partial<StoredStudent>} changed */
  function keep(changed) {
    if (!own) return;
    own = { ...own, ...changed };
    hooks.say("room", store(STUDENT, own) ? "" : NOT_KEPT);
  }

  /**
   * Back to the first page.
   * @param {string} sentence
   * @param {boolean} ended whether the tab forgets what it has kept
   */
  function leave(sentence, ended) {
    if (ended) {
      own = null;
      store(STUDENT, null);
    }
    round += 1;
    inside = false;
    stream.abort();
    hooks.left(sentence);
  }

  /**
   * What keeps the tab waiting. On the first page it is said once, so that it does not replace what an attempt to
   * join has brought.
   * @param {string} sentence
   */
  function tell(sentence) {
    if (hooks.shows()) hooks.say("lost", sentence);
    else if (told !== sentence) hooks.left(sentence);
    told = sentence;
  }

  /**
   * @param {string} code
   * @param {StoredStudent | null} known what the tab takes into the class
   * @returns {Promise<string>} what it could not take, in one sentence
   */
  async function join(code, known) {
    const body = { code, token: known?.token ?? "", class: known?.class ?? "", ...givenBack(known) };
    const found = await post("join", body);
    const problem = String(found.problem ?? "");
    own = {
      class: known?.class ?? "",
      code: tidy(code),
      token: String(found.token),
      head: /** @type {SessionHead} */ (found.head),
      chat: "",
      turns: problem ? [] : (known?.turns ?? []),
      draft: "",
    };
    missing = 0;
    told = "";
    store(STUDENT, own);
    return problem;
  }

  async function hello() {
    return (await get("hello", { "X-Class-Id": own?.class ?? "" })).json();
  }

  /** The server does not know this tab: give it back what the tab has kept, once its class is there. */
  async function giveBack() {
    const { open, same } = await hello();
    if (same && own) {
      const { draft } = own;
      hooks.returned(draft, await join(own.code, own));
      return;
    }
    missing ||= Date.now();
    const isOver = open && (!hooks.shows() || Date.now() - missing > GRACE_MS);
    if (isOver && hooks.shows()) hooks.left("");
    tell(isOver ? NEW_CLASS : BACK);
  }

  /** @param {unknown} error */
  async function reconnect(error) {
    if (!(error instanceof RefusedError) || !error.unknown) {
      tell(sentenceOf(error, LOST));
      return;
    }
    if (error.removed) {
      leave(REMOVED, true);
      return;
    }
    try {
      await giveBack();
    } catch (refused) {
      if (!(refused instanceof RefusedError)) tell(LOST);
      else if (refused.removed) leave(REMOVED, true);
      // What the class itself refuses; a proxy has other numbers.
      else if (refused.unknown || refused.status === 400) leave(refused.message, false);
      else tell(refused.message);
    }
  }

  /** @param {PhoneMessage} message */
  function take(message) {
    if (message.type === "gone") leave(REMOVED, true);
    else hooks.take(message);
  }

  async function connect() {
    round += 1;
    const mine = round;
    inside = true;
    stream.abort();
    while (mine === round && own) {
      stream = new AbortController();
      try {
        await listen("events", own.token, take, stream.signal);
        if (mine === round) tell(LOST);
      } catch (error) {
        if (mine === round) await reconnect(error);
      }
      // Not all phones of a class at once.
      if (mine === round) await pause(AGAIN_MS * (0.75 + Math.random() / 2));
    }
  }

  return {
    own: () => own,
    keep,
    /**
     * @param {StateMessage} state
     * @param {(TurnView | undefined)[]} turns
     * @param {string} onItsWay
     */
    keepChat(state, turns, onItsWay) {
      const draft = draftOf(turns) || onItsWay;
      keep({ class: state.class, chat: state.chat, turns: keptTurns(turns), draft });
    },
    removed: () => leave(REMOVED, true),
    /**
     * With a code. The conversation that the tab has kept goes only into the class that it is from.
     * @param {string} code
     */
    async enter(code) {
      const same = own ? (await hello()).same : false;
      hooks.returned("", await join(code, same ? own : null));
      history.replaceState(null, "", location.pathname);
      connect();
    },
    /**
     * Whether the tab is in the class of this code already, or in any for none; then it listens.
     * @param {string} code
     */
    returns(code) {
      if (!own || (code && tidy(code) !== tidy(own.code))) return false;
      history.replaceState(null, "", location.pathname);
      if (!inside) connect();
      return true;
    },
  };
}

// The browser tab stores its conversations in its session storage, and returns them to the server after a
// reload or a restart of the server. They are deleted when the tab is closed, and no other tab sees them.

/** @import { Operations, SendRequest } from "./types" */

import { BRANCHES } from "./turns.js";

/** @typedef {{ head: Record<string, unknown>; turns: unknown[] }} StoredConversation */
/** @typedef {{ ids: string[]; current: number }} StoredList */

/**
 * @typedef {object} TabStorage
 * @property {(name: string) => string | null} get
 * @property {(name: string, text: string) => boolean} set false if the storage is full
 * @property {(name: string) => void} remove
 */

const STORAGE_PREFIX = "persona-drift:";
const STATES_KEPT = 2; // of the last turns; as in demo/conversation/path.py
const LEGACY_PREFIX = "talk:"; // of conversations that an earlier version of the page stored

/**
 * Turns without the mean states that nothing is measured from any more: of each branch the first and the last two
 * stay, as in a session file. They are large.
 * @param {unknown[]} turns in the form of a session file
 * @returns {unknown[]}
 */
export function withoutMiddleStates(turns) {
  const copies = turns.map((turn) => (turn && typeof turn === "object" ? { ...turn } : turn));
  for (const branch of BRANCHES) {
    const known = copies.filter((turn) => /** @type {any} */ (turn)?.branches?.[branch]?.state);
    for (const turn of /** @type {any[]} */ (known.slice(1, -STATES_KEPT))) {
      const { state, ...reply } = turn.branches[branch];
      turn.branches = { ...turn.branches, [branch]: reply };
    }
  }
  return copies;
}

/** @returns {TabStorage | null} */
function openStorage() {
  /** @type {Storage} */
  let storage;
  try {
    storage = window.sessionStorage; // a browser may throw at the mere access
  } catch {
    return null;
  }
  return {
    get: (name) => storage.getItem(STORAGE_PREFIX + name),
    set(name, text) {
      try {
        storage.setItem(STORAGE_PREFIX + name, text);
        return true;
      } catch {
        return false;
      }
    },
    remove: (name) => storage.removeItem(STORAGE_PREFIX + name),
  };
}

/** Whether this tab has stored a conversation, which the live page brings back. */
export function hasStored() {
  const storage = openStorage();
  return storage !== null && (storage.get("list") !== null || storage.get("draft") !== null);
}

/**
 * Null where there is no storage or no server.
 * @param {{ sendRequest: SendRequest; warn: (text: string) => void }} hooks
 * @param {TabStorage | null} [storage]
 */
export function makePersistence(hooks, storage = openStorage()) {
  return storage && hooks.sendRequest.available ? persistenceIn(storage, hooks) : null;
}

/**
 * @param {TabStorage} storage
 * @param {{ sendRequest: SendRequest; warn: (text: string) => void }} hooks
 */
function persistenceIn(storage, hooks) {
  /**
   * By id: what the storage holds, as objects.
   * @type {Map<string, StoredConversation>}
   */
  const conversations = new Map();
  let restoring = false;
  let warned = false;

  const readConversation = (/** @type {string} */ id) =>
    storage.get(`conversation:${id}`) ?? storage.get(LEGACY_PREFIX + id);

  /**
   * False, and nothing has changed, if the storage is full. The legacy entry goes first: there may be no room
   * for both.
   * @param {string} id
   * @param {string} text
   */
  function writeConversation(id, text) {
    const legacy = storage.get(LEGACY_PREFIX + id);
    storage.remove(LEGACY_PREFIX + id);
    if (storage.set(`conversation:${id}`, text)) return true;
    if (legacy !== null) storage.set(LEGACY_PREFIX + id, legacy);
    return false;
  }

  /** @param {string} id */
  function removeConversation(id) {
    storage.remove(`conversation:${id}`);
    storage.remove(LEGACY_PREFIX + id);
  }

  /** @returns {StoredList} */
  function storedList() {
    try {
      return JSON.parse(storage.get("list") ?? "null") ?? { ids: [], current: 0 };
    } catch {
      return { ids: [], current: 0 };
    }
  }

  /**
   * @param {string} id
   * @param {StoredConversation} conversation
   */
  function store(id, { head, turns }) {
    if (!turns.length) {
      removeConversation(id);
      return;
    }
    const text = JSON.stringify({ ...head, id, turns });
    if (writeConversation(id, text)) return;
    // The storage is full: the conversation in use matters most.
    for (const other of storedList().ids) if (other !== id) removeConversation(other);
    if (writeConversation(id, text) || warned) return;
    warned = true;
    hooks.warn(
      "This conversation is too long for the browser to store; " +
        "save it as a file so that a reload does not lose it.",
    );
  }

  return {
    /**
     * The page has loaded. If it shows no turns, the stored conversations are sent to the server, and the
     * message whose reply was being written, which may be the first of all.
     * @param {number} turns how many it shows
     * @returns {boolean} whether anything was sent
     */
    start(turns) {
      const { ids, current } = storedList();
      const texts = ids.map(readConversation);
      const stored = texts.filter((text) => text !== null);
      const draft = storage.get("draft");
      if (turns || (!stored.length && draft === null)) return false;
      const before = texts.slice(0, current).filter((text) => text !== null).length;
      restoring = true;
      hooks.sendRequest("restore", { conversations: stored, current: before, draft });
      return true;
    },
    restored() {
      restoring = false;
      const draft = storage.get("draft");
      storage.remove("draft");
      const back = "Your conversation is back";
      const lost = "The reply that was being written is lost; your message is back in the box.";
      if (draft === null) hooks.warn(`${back}, as this browser tab had stored it.`);
      else
        hooks.warn(storedList().ids.some((id) => readConversation(id) !== null) ? `${back}. ${lost}` : lost);
    },
    /** @param {Operations["persist"]} fields */
    persist({ id, head, from, turns }) {
      const stored = conversations.get(id)?.turns ?? [];
      const conversation = { head, turns: withoutMiddleStates([...stored.slice(0, from), ...turns]) };
      conversations.set(id, conversation);
      if (!restoring) store(id, conversation);
    },
    /** @param {StoredList} list */
    updateList({ ids, current }) {
      // A page without a model stores nothing, and must not delete what another page stored.
      if (restoring || !conversations.size) return;
      for (const old of storedList().ids) if (!ids.includes(old)) removeConversation(old);
      storage.set("list", JSON.stringify({ ids, current }));
    },
    /** @param {string} text of the user message */
    turnStarted(text) {
      restoring = false;
      storage.set("draft", text);
    },
    turnEnded: () => storage.remove("draft"),
  };
}

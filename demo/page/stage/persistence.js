// The browser tab stores its conversations in its session storage, and returns them to the server after a reload or a
// restart of the server. They are deleted when the tab is closed, and no other tab sees them.

const STORAGE_PREFIX = "persona-drift:";
const LEGACY_PREFIX = "talk:"; // of conversations that an earlier version of the page stored

function openStorage() {
  let storage = null;
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
        return false; // the storage is full
      }
    },
    remove: (name) => storage.removeItem(STORAGE_PREFIX + name),
  };
}

// hooks: sendRequest(name, fields), warn(text). Null where there is no storage or no server.
function makePersistence(hooks) {
  const storage = openStorage();
  if (!storage || !hooks.sendRequest.available) return null;
  const conversations = new Map(); // by id: what the storage holds, as objects
  let restoring = false;
  let warned = false;

  const readConversation = (id) => storage.get(`conversation:${id}`) ?? storage.get(LEGACY_PREFIX + id);

  // False, and nothing has changed, if the storage is full. The legacy entry goes first: there may be no room for both.
  function writeConversation(id, text) {
    const legacy = storage.get(LEGACY_PREFIX + id);
    storage.remove(LEGACY_PREFIX + id);
    if (storage.set(`conversation:${id}`, text)) return true;
    if (legacy !== null) storage.set(LEGACY_PREFIX + id, legacy);
    return false;
  }

  function removeConversation(id) {
    storage.remove(`conversation:${id}`);
    storage.remove(LEGACY_PREFIX + id);
  }

  function storedList() {
    try {
      return JSON.parse(storage.get("list")) ?? { ids: [], current: 0 };
    } catch {
      return { ids: [], current: 0 };
    }
  }

  function store(id) {
    const { head, turns } = conversations.get(id);
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
      "This conversation is too long for the browser to store; save it as a file so that a reload does not lose it.",
    );
  }

  return {
    // The page has loaded and shows so many turns. If there are none, the stored conversations are sent to the server.
    start(turns) {
      const { ids, current } = storedList();
      const texts = ids.map(readConversation);
      if (turns || !texts.some(Boolean)) return;
      const before = texts.slice(0, current).filter(Boolean).length;
      restoring = true;
      const draft = storage.get("draft");
      hooks.sendRequest("restore", { conversations: texts.filter(Boolean), current: before, draft });
    },
    restored() {
      restoring = false;
      const draft = storage.get("draft");
      storage.remove("draft");
      hooks.warn(
        draft
          ? "Your conversation is back. The reply that was being written is lost; your message is back in the box."
          : "Your conversation is back, as this browser tab had stored it.",
      );
    },
    persist({ id, head, from, turns }) {
      const stored = conversations.get(id)?.turns ?? [];
      conversations.set(id, { head, turns: [...stored.slice(0, from), ...turns] });
      if (!restoring) store(id);
    },
    updateList({ ids, current }) {
      // A page without a model stores nothing, and must not delete what another page stored.
      if (restoring || !conversations.size) return;
      for (const old of storedList().ids) if (!ids.includes(old)) removeConversation(old);
      storage.set("list", JSON.stringify({ ids, current }));
    },
    turnStarted(text) {
      restoring = false;
      storage.set("draft", text);
    },
    turnEnded: () => storage.remove("draft"),
  };
}

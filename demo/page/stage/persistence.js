// The tab keeps its conversations itself, in its session storage: a reload or a server that was started anew gets them back. They go
// when the tab is closed, and no other tab sees them.

const KEPT = "persona-drift:";

function makeStore() {
  let store = null;
  try {
    store = window.sessionStorage; // a browser may refuse even to name it
  } catch {
    return null;
  }
  return {
    get: (name) => store.getItem(KEPT + name),
    put(name, text) {
      try {
        store.setItem(KEPT + name, text);
        return true;
      } catch {
        return false; // full
      }
    },
    drop: (name) => store.removeItem(KEPT + name),
  };
}

function keptList(store) {
  try {
    return JSON.parse(store.get("list")) ?? { ids: [], current: 0 };
  } catch {
    return { ids: [], current: 0 };
  }
}

// hooks: ask(request), warn(text)
function makeKeep(hooks) {
  const store = makeStore();
  if (!store || !hooks.ask.possible) return null;
  const talks = new Map(); // by id: what is in the store, as objects
  let restoring = false;
  let warned = false;

  function write(id) {
    const { head, turns } = talks.get(id);
    if (!turns.length) return store.drop(`talk:${id}`);
    const text = JSON.stringify({ ...head, id, turns });
    if (store.put(`talk:${id}`, text)) return;
    for (const other of keptList(store).ids) if (other !== id) store.drop(`talk:${other}`); // the one in use matters most
    if (store.put(`talk:${id}`, text) || warned) return;
    warned = true;
    hooks.warn("This conversation has become too long for the browser to keep; save it as a file, so that a reload cannot lose it.");
  }

  return {
    // The page is there, with so many turns: with none, those of before are asked back.
    begin(turns) {
      const { ids, current } = keptList(store);
      const found = ids.map((id) => store.get(`talk:${id}`));
      if (turns || !found.some(Boolean)) return;
      const before = found.slice(0, current).filter(Boolean).length;
      restoring = true;
      hooks.ask({ do: "restore", talks: found.filter(Boolean), current: before, draft: store.get("draft") });
    },
    restored() {
      restoring = false;
      const draft = store.get("draft");
      store.drop("draft");
      hooks.warn(
        draft
          ? "Your conversation is back. The reply that was being written is lost; its message is in the box."
          : "Your conversation is back, as this tab had kept it.",
      );
    },
    take({ talk, head, from, turns }) {
      const had = talks.get(talk)?.turns ?? [];
      talks.set(talk, { head, turns: [...had.slice(0, from), ...turns] });
      if (!restoring) write(talk);
    },
    list({ ids, current }) {
      if (restoring || !talks.size) return; // a page without a model keeps nothing, and takes nothing away
      for (const old of keptList(store).ids) if (!ids.includes(old)) store.drop(`talk:${old}`);
      store.put("list", JSON.stringify({ ids, current }));
    },
    asked(text) {
      restoring = false;
      store.put("draft", text);
    },
    answered: () => store.drop("draft"),
  };
}

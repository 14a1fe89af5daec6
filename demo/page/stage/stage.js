// Entry: applies the operations Python sends and keeps panes, plots and headers in step with the turns.

const HEAL_MS = 4000;

function makeStage(root, ask) {
  let turns = [];
  let meta = {};
  let lastSeq = -1;
  let shown = null;
  let pinned = false;
  let opened = false; // the first reset has come
  let settled = 0; // turns that have come to their end
  const panes = {};
  const hooks = { pick: (index) => pick(index), tools: (index, turn) => toolsFor(index, turn) };
  for (const branch of BRANCHES) panes[branch] = makePane(root, branch, hooks);
  const plots = makePlots(root, {
    pick: (index) => pick(index, true),
    flash,
    light: (branch, position) => BRANCHES.forEach((b) => panes[b].light(shown, b === branch ? position : null)),
    missing: () => showNotice(root, "The plotting script could not be loaded; the chat works without it.", "error"),
  });
  const map = makeMap(root, { pick: (index) => pick(index, true) });
  const layers = makeLayers(root, { ask, flash, shown: () => ({ turn: shown, sides: turns[shown]?.sides }) });
  const strip = makeStrip(root);
  const bar = makeBar(root, { ask, busy });
  const keep = makeKeep({ ask, warn: (text) => showNotice(root, text) });
  const replay = makeReplay(root, {
    begin: () => clearTurns(0),
    start: (index, data) => apply.turn_start({ turn: index, user: data.user, branches: Object.keys(data.branches) }),
    token: (index, branch, token) => apply.tokens({ turn: index, branch, at: Infinity, tokens: [{ ...token }] }),
    end: (index, data) => put(index, turnFromData(data)),
    all: () => restore(meta.recorded.map(turnFromData)),
  });
  makeTip(root, Object.values(panes), {
    token: (branch, index, position) => turns[index]?.sides[branch].shown[position - 1],
    capLayers: () => meta.figures?.token?.layout?.meta?.cap_layers,
    hover: (branch, position, index) => index === shown && plots.hover(branch, position),
  });
  makeKeys(root, {
    next: bar.sendNext, look: bar.nextView, autoplay: bar.toggleAutoplay, replay: replay.toggle,
    undo: () => turns.length && ask({ do: "undo" }),
    again: () => turns.length && ask({ do: "regenerate", turn: turns.length - 1 }),
  });
  makeTabs(root, () => {
    plots.touch(false);
    map.touch();
    layers.touch();
  });
  const loadLine = root.querySelector(".load");
  const latestButton = root.querySelector(".latest");
  latestButton.addEventListener("click", () => pick(turns.length - 1, true));

  const plotMeta = () => meta.figures?.token?.layout?.meta ?? {};
  const capIsOff = () => plotMeta().floor === null;

  function toolsFor(index, turn) {
    const first = BRANCHES.find((branch) => !turn.sides[branch].absent);
    // In one pane only, and only on a page that can do it.
    if (!ask.possible || meta.watch_only || !hooks.current || hooks.current !== first) return null;
    return turnTools(index, index === turns.length - 1, { ask, edit });
  }

  function edit(index) {
    const branch = BRANCHES.find((one) => !turns[index].sides[one].absent);
    const bubble = panes[branch].userBubble(index);
    if (bubble) editBubble(bubble, turns[index].user, (text) => ask({ do: "edit", turn: index, text }));
  }

  function busy() {
    return turns.some(turnIsLive);
  }

  function flash(branch, position, index = shown) {
    panes[branch].flash(index, position);
  }

  function capAction(side) {
    const share = side && !side.absent ? firedShare(side) : null;
    if (capIsOff()) return "cap off";
    if (share === null) return "activation capping";
    if (share === 0) return "cap did not act on this reply";
    const words = share < 0.005 ? "under 1" : String(Math.round(share * 100));
    return `cap acted on ${words}% of this reply’s tokens`;
  }

  function refreshHeaders() {
    const behind = shown !== null && shown !== turns.length - 1;
    const prefix = behind ? `turn ${shown + 1}: ` : "";
    for (const branch of BRANCHES) panes[branch].standing(turns[shown]?.sides[branch], prefix);
    panes.capped.action(capAction(turns[shown]?.sides.capped));
    root.querySelector(".which").textContent = shown === null ? "" : ` · turn ${shown + 1}`;
    latestButton.hidden = !behind;
    strip.show(turns, shown, plotMeta().default_range, capIsOff());
  }

  function arrange() {
    const steered = turns.some((turn) => !turn.sides.steered.absent);
    panes.steered.pane.hidden = !steered;
    root.classList.toggle("three", steered);
  }

  function show(index) {
    shown = index;
    for (const branch of BRANCHES) panes[branch].mark(index);
    plots.show(index);
    map.show(index);
    layers.touch();
    refreshHeaders();
  }

  function touch(turnsChanged = true) {
    plots.touch(turnsChanged);
    map.touch();
  }

  function pick(index, reveal = false) {
    if (!turns[index]) return;
    pinned = index !== turns.length - 1;
    if (index !== shown) show(index);
    if (reveal) for (const branch of BRANCHES) panes[branch].reveal(index);
  }

  function mountAll(index) {
    for (const branch of BRANCHES) {
      hooks.current = branch;
      panes[branch].mount(index, turns[index]);
    }
  }

  function put(index, turn) {
    turns[index] = turn;
    if (index > 0 && index === turns.length - 1) mountAll(index - 1); // it is no longer the last, which can be undone
    mountAll(index);
    arrange();
    showEmpty(root, meta.empty_note, false);
    if (!pinned || index === shown) show(pinned ? index : turns.length - 1);
    else touch();
  }

  function announce(index, branch, side) {
    const mean = meanOf(side);
    const standing = mean === null ? "" : `, mean ${number(mean)}, ${standingWord(mean)}`;
    root.querySelector("p.hidden-status").textContent = `Turn ${index + 1}, ${branch} reply finished${standing}`;
  }

  function clearTurns(from) {
    turns.length = from;
    for (const branch of BRANCHES) panes[branch].cut(from);
    pinned = false;
    layers.reset();
    if (from) show(from - 1);
    else {
      shown = null;
      plots.reset(null, turns);
      map.reset(meta.map, turns);
      refreshHeaders();
    }
  }

  function restore(all) {
    turns = all;
    shown = null;
    pinned = false;
    layers.reset();
    for (const branch of BRANCHES) panes[branch].clear();
    turns.forEach((_, index) => mountAll(index));
    arrange();
    showEmpty(root, meta.empty_note, turns.length === 0);
    plots.reset(meta.figures, turns);
    map.reset(meta.map, turns);
    if (turns.length) show(turns.length - 1);
    else refreshHeaders();
  }

  // While the page is still being built two values may reach it as one, and the earlier is lost: it asks for all that there is.
  function heal() {
    const at = lastSeq;
    setTimeout(() => (!opened || (lastSeq === at && busy())) && ask({ do: "show" }), HEAL_MS);
  }

  // The very first reset may be overtaken by a message that was sent at once: what came of that is kept.
  function open(kept) {
    if (!meta.watch_only) keep?.begin(kept.length);
    opened = true;
    const live = kept.filter(turnIsLive).length;
    settled += turns.length ? 0 : kept.length - live;
    if (live) heal();
    else if (kept.length) keep?.answered();
  }

  const apply = {
    reset(op, late) {
      const kept = late && !opened && turns.length ? turns : (op.turns ?? []).map(turnFromData);
      meta = { ...op.meta };
      if (!opened) open(kept);
      root.querySelector(".notices").replaceChildren();
      meta.recorded = op.turns ?? [];
      replay.load([]);
      bar.offer(meta.shipped ?? []);
      restore(kept);
    },
    talks(op) {
      bar.show(op, turns.length);
      keep?.list(op);
      if (op.recorded) replay.load(meta.recorded);
    },
    replay() {
      replay.toggle();
    },
    download: bar.take,
    keep: (op) => keep?.take(op),
    restored: () => keep?.restored(),
    layers: layers.take,
    marks(op) {
      meta.figures = op.figures;
      plots.relabel(op.figures);
      refreshHeaders();
    },
    turn_start(op) {
      // Whatever stood in the way before does so no longer.
      root.querySelector(".notices").replaceChildren();
      keep?.asked(op.user);
      // A message that was edited, or another try: what stood here and after it is gone.
      if (op.turn < turns.length) clearTurns(op.turn);
      pinned = false;
      put(op.turn, newTurn(op.user, op.branches ?? ["uncapped", "capped"]));
      for (const branch of BRANCHES) panes[branch].wait(op.turn);
    },
    waiting(op) {
      for (const branch of BRANCHES) panes[branch].queue(op.turn, op.ahead);
    },
    // Of interest where others are there too.
    load(op) {
      const own = turns.some(turnIsLive) ? BRANCHES.filter((b) => !turns.at(-1).sides[b].absent).length : 0;
      loadLine.hidden = op.waiting === 0 && op.running <= own;
      loadLine.textContent =
        `${op.running} replies are being written on this machine, ${op.waiting || "none"} waiting · ` +
        `KV cache ${op.mib} of ${op.budget} MiB`;
    },
    prompt(op) {
      const side = turns[op.turn]?.sides[op.branch];
      if (!side) return;
      side.userMean = op.user_mean ?? null;
      plots.touch(true);
    },
    tokens(op) {
      const side = turns[op.turn]?.sides[op.branch];
      if (!side || side.finish !== null) return;
      const fresh = op.tokens.slice(Math.max(0, side.got - op.at)); // a reset in between may have brought some already
      panes[op.branch].appendTokens(op.turn, fresh.filter((token) => addToken(side, token)));
      side.place = op.place ?? side.place;
      if (op.turn === shown) refreshHeaders();
      touch(false);
    },
    turn_end(op) {
      const side = turns[op.turn]?.sides[op.branch];
      if (!side) return;
      endSide(side, op);
      panes[op.branch].settle(op.turn, side);
      announce(op.turn, op.branch, side);
      if (op.turn === shown) refreshHeaders();
      touch();
    },
    turn(op) {
      settled += 1;
      keep?.answered();
      put(op.turn, turnFromData(op.data));
      if (!opened) heal();
    },
    lost(op) {
      showEmpty(root, null, false);
      keep?.answered();
      for (const branch of op.branches) panes[branch]?.lost(op.text);
    },
    notice(op) {
      showNotice(root, op.text, op.level);
    },
  };

  function receive(value) {
    if (!value || !Array.isArray(value.ops)) return;
    const start = value.ops.findIndex((op) => op.op === "reset");
    const seen = value.seq <= lastSeq;
    if (seen && start < 0) return;
    lastSeq = Math.max(lastSeq, value.seq);
    for (const op of seen ? value.ops.slice(start) : value.ops) apply[op.op]?.(op, seen);
  }

  function repaint() {
    plots.repaint();
    map.repaint();
    layers.repaint();
  }

  // Gradio marks the dark theme with a class on the body.
  new MutationObserver(repaint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  showEmpty(root, null, true);
  return { receive, counts: () => ({ ...plots.counts(), settled }) };
}

const stage = makeStage(element.querySelector("#stage"), makeAsk());
window.personaStage = { counts: stage.counts };
// The value is JSON text: Gradio would otherwise send differences of nested lists, and apply them wrongly.
const receiveText = () => stage.receive(props.value ? JSON.parse(props.value) : null);
watch("value", receiveText);
receiveText();

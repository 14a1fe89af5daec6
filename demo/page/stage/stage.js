// Entry point: applies the operations that the server sends, and keeps panes, charts and headers up to date.

const HEAL_MS = 4000;

function makeStage(root, sendRequest) {
  let turns = [];
  let meta = {};
  let lastSeq = -1;
  let shown = null; // the turn that the charts show
  let pinned = false; // the user has selected an earlier turn, which stays shown when a new one begins
  let opened = false; // the first reset has arrived
  let settled = 0; // the number of turns that have ended
  let toolsBranch = null; // while turns are mounted: the branch whose pane is being filled
  const panes = {};
  const paneHooks = { selectTurn: (index) => selectTurn(index), tools: (index, turn) => toolsFor(index, turn) };
  for (const branch of BRANCHES) panes[branch] = makePane(root, branch, paneHooks);
  const charts = makeCharts(root, {
    selectTurn: (index) => selectTurn(index, true),
    flash,
    highlight: (branch, position) => {
      for (const one of BRANCHES) panes[one].highlight(shown, one === branch ? position : null);
    },
    missing: () => showNotice(root, "The plotting script could not be loaded; the chat works without it.", "error"),
  });
  const map = makeMap(root, { selectTurn: (index) => selectTurn(index, true) });
  const shownTurn = () => ({ turn: shown, replies: turns[shown]?.replies });
  const layers = makeLayers(root, { sendRequest, flash, shown: shownTurn });
  const summaryBar = makeSummaryBar(root);
  const toolbar = makeToolbar(root, { sendRequest, busy });
  const persistence = makePersistence({ sendRequest, warn: (text) => showNotice(root, text) });
  const replay = makeReplay(root, {
    begin: () => removeTurns(0),
    startTurn: (turn, data) => handlers.turn_start({ turn, user: data.user, branches: Object.keys(data.branches) }),
    addToken: (turn, branch, token) => handlers.tokens({ turn, branch, at: Infinity, tokens: [{ ...token }] }),
    endTurn: (turn, data) => putTurn(turn, turnFromData(data)),
    showAll: () => showTurns(meta.recorded.map(turnFromData)),
  });
  makeTooltip(root, Object.values(panes), {
    token: (branch, index, position) => turns[index]?.replies[branch].visibleTokens[position - 1],
    capLayers: () => chartMeta().cap_layers,
    hover: (branch, position, index) => index === shown && charts.hover(branch, position),
  });
  makeKeyboard(root, {
    next: toolbar.sendNext, nextDisplay: toolbar.nextDisplay, autoplay: toolbar.toggleAutoplay, replay: replay.toggle,
    undo: () => turns.length && sendRequest("undo"),
    again: () => turns.length && sendRequest("regenerate", { turn: turns.length - 1 }),
  });
  makeTabs(root, () => {
    charts.refresh(false);
    map.refresh();
    layers.refresh();
  });
  const leftOut = root.querySelector(".left-out");
  const loadLine = root.querySelector(".load");
  const latestButton = root.querySelector(".latest");
  latestButton.addEventListener("click", () => selectTurn(turns.length - 1, true));

  const chartMeta = () => meta.figures?.token?.layout?.meta ?? {};
  const capIsOff = () => chartMeta().floor === null;
  const firstBranch = (turn) => BRANCHES.find((branch) => !turn.replies[branch].absent);

  // In one pane only, and only on a page that can carry the requests out.
  function toolsFor(index, turn) {
    if (!sendRequest.available || meta.watch_only || !toolsBranch || toolsBranch !== firstBranch(turn)) return null;
    return turnTools(index, index === turns.length - 1, { sendRequest, edit });
  }

  function edit(index) {
    const message = panes[firstBranch(turns[index])].userMessage(index);
    if (message) editMessage(message, turns[index].user, (text) => sendRequest("edit", { turn: index, text }));
  }

  function busy() {
    return turns.some(turnIsLive);
  }

  function flash(branch, position, index = shown) {
    panes[branch].flash(index, position);
  }

  function capAction(reply) {
    if (capIsOff()) return "cap off";
    return (reply && !reply.absent && describeCapping(reply, true)) || "activation capping";
  }

  function refreshHeaders() {
    const earlier = shown !== null && shown !== turns.length - 1;
    const prefix = earlier ? `turn ${shown + 1}: ` : "";
    for (const branch of BRANCHES) panes[branch].showMean(turns[shown]?.replies[branch], prefix);
    panes.capped.showCapAction(capAction(turns[shown]?.replies.capped));
    root.querySelector(".turn-label").textContent = shown === null ? "" : ` · turn ${shown + 1}`;
    latestButton.hidden = !earlier;
    summaryBar.show(turns, shown, chartMeta().default_range, capIsOff());
  }

  function arrangePanes() {
    const steered = turns.some((turn) => !turn.replies.steered.absent);
    panes.steered.pane.hidden = !steered;
    root.classList.toggle("three", steered);
    showReasoningKeys();
  }

  // The charts' keys name what they show.
  function showReasoningKeys() {
    const any = turns.some((turn) => BRANCHES.some((branch) => hasReasoning(turn.replies[branch])));
    for (const item of root.querySelectorAll(".reasoning-key")) item.hidden = !any;
  }

  function showTurn(index) {
    shown = index;
    for (const branch of BRANCHES) panes[branch].markShown(index);
    charts.show(index);
    map.show(index);
    layers.refresh();
    refreshHeaders();
  }

  function refreshCharts(turnsChanged = true) {
    charts.refresh(turnsChanged);
    map.refresh();
  }

  function selectTurn(index, scroll = false) {
    if (!turns[index]) return;
    pinned = index !== turns.length - 1;
    if (index !== shown) showTurn(index);
    if (scroll) for (const branch of BRANCHES) panes[branch].scrollToTurn(index);
  }

  function mountTurn(index) {
    for (const branch of BRANCHES) {
      toolsBranch = branch;
      panes[branch].mount(index, turns[index]);
    }
  }

  function putTurn(index, turn) {
    turns[index] = turn;
    // The turn before is no longer the last, so it loses its undo button.
    if (index > 0 && index === turns.length - 1) mountTurn(index - 1);
    mountTurn(index);
    arrangePanes();
    showEmpty(root, meta.empty_note, false);
    if (!pinned || index === shown) showTurn(pinned ? index : turns.length - 1);
    else refreshCharts();
  }

  function announce(index, branch, reply) {
    const mean = meanOf(reply);
    const result = mean === null ? "" : `, mean ${number(mean)}, ${describeMean(mean)}`;
    const end = reply.finish === "failed" ? `failed: ${finishLabel(reply)}` : "finished";
    root.querySelector("p.hidden-status").textContent = `Turn ${index + 1}, ${branch} reply ${end}${result}`;
  }

  function removeTurns(from) {
    turns.length = from;
    for (const branch of BRANCHES) panes[branch].removeFrom(from);
    pinned = false;
    layers.reset();
    if (from) showTurn(from - 1);
    else {
      shown = null;
      charts.reset(null, turns);
      map.reset(meta.map, turns);
      refreshHeaders();
    }
  }

  function showTurns(all) {
    turns = all;
    shown = null;
    pinned = false;
    layers.reset();
    for (const branch of BRANCHES) panes[branch].clear();
    turns.forEach((_, index) => mountTurn(index));
    arrangePanes();
    showEmpty(root, meta.empty_note, turns.length === 0);
    charts.reset(meta.figures, turns);
    map.reset(meta.map, turns);
    if (turns.length) showTurn(turns.length - 1);
    else refreshHeaders();
  }

  // While the page is still being built, Gradio may deliver two values as one, and the earlier is lost. If nothing
  // arrives for a while, the stage requests everything once more.
  function heal() {
    const seq = lastSeq;
    setTimeout(() => (!opened || (lastSeq === seq && busy())) && sendRequest("show"), HEAL_MS);
  }

  function open(firstTurns) {
    if (!meta.watch_only) persistence?.start(firstTurns.length);
    opened = true;
    const live = firstTurns.filter(turnIsLive).length;
    settled += turns.length ? 0 : firstTurns.length - live;
    if (live) heal();
    else if (firstTurns.length) persistence?.turnEnded();
  }

  // By operation. protocol.json describes the fields.
  const handlers = {
    reset(op, late) {
      // A message that was sent at once may overtake the very first reset. Its turn stays.
      const keepsTurns = late && !opened && turns.length;
      const newTurns = keepsTurns ? turns : (op.turns ?? []).map(turnFromData);
      meta = { ...op.meta };
      if (!opened) open(newTurns);
      root.querySelector(".notices").replaceChildren();
      leftOut.hidden = true;
      meta.recorded = op.turns ?? [];
      replay.load([]);
      toolbar.listRecordings(meta.shipped ?? []);
      showTurns(newTurns);
    },
    conversations(op) {
      toolbar.show(op, turns.length);
      persistence?.updateList(op);
      if (op.recorded) replay.load(meta.recorded);
    },
    download: toolbar.save,
    persist: (op) => persistence?.persist(op),
    restored: () => persistence?.restored(),
    layers: layers.receive,
    marks(op) {
      meta.figures = op.figures;
      charts.relabel(op.figures);
      refreshHeaders();
    },
    turn_start(op) {
      // Earlier notices no longer apply.
      root.querySelector(".notices").replaceChildren();
      persistence?.turnStarted(op.user);
      // After an edited message or another try, this turn and all after it are replaced.
      if (op.turn < turns.length) removeTurns(op.turn);
      pinned = false;
      putTurn(op.turn, newTurn(op.user, op.branches ?? ["uncapped", "capped"]));
      for (const branch of BRANCHES) panes[branch].showWaiting(op.turn);
    },
    waiting(op) {
      for (const branch of BRANCHES) panes[branch].showQueue(op.turn, op.ahead);
    },
    left_out(op) {
      leftOut.hidden = !op.text;
      leftOut.textContent = op.text;
    },
    load(op) {
      // Shown only while others use the machine, too.
      const own = turns.some(turnIsLive) ? BRANCHES.filter((b) => !turns.at(-1).replies[b].absent).length : 0;
      loadLine.hidden = op.waiting === 0 && op.running <= own;
      loadLine.textContent =
        `${op.running} replies are being written on this machine, ${op.waiting || "none"} waiting · ` +
        `KV cache ${op.mib} of ${op.budget} MiB`;
    },
    prompt(op) {
      const reply = turns[op.turn]?.replies[op.branch];
      if (!reply) return;
      reply.userMean = op.user_mean ?? null;
      charts.refresh(true);
    },
    tokens(op) {
      const reply = turns[op.turn]?.replies[op.branch];
      if (!reply || reply.finish !== null) return;
      const fresh = op.tokens.slice(Math.max(0, reply.received - op.at)); // a reset may have brought some already
      panes[op.branch].appendTokens(op.turn, fresh.filter((token) => addToken(reply, token)));
      reply.place = op.place ?? reply.place;
      if (hasReasoning(reply)) showReasoningKeys();
      if (op.turn === shown) refreshHeaders();
      refreshCharts(false);
    },
    turn_end(op) {
      const reply = turns[op.turn]?.replies[op.branch];
      if (!reply) return;
      finishReply(reply, op);
      panes[op.branch].showFinished(op.turn, reply);
      announce(op.turn, op.branch, reply);
      if (op.turn === shown) refreshHeaders();
      refreshCharts();
    },
    turn(op) {
      settled += 1;
      persistence?.turnEnded();
      putTurn(op.turn, turnFromData(op.data));
      if (!opened) heal();
    },
    lost(op) {
      showEmpty(root, null, false);
      persistence?.turnEnded();
      for (const branch of op.branches) panes[branch]?.showLost(op.text);
    },
    notice(op) {
      showNotice(root, op.text, op.level);
    },
  };
  checkProtocol(handlers);

  function apply(op, late) {
    const name = op.op;
    if (!Object.hasOwn(PROTOCOL.operations, name)) throw new Error(`The operation "${name}" is not in protocol.json.`);
    if (!Object.hasOwn(handlers, name)) throw new Error(`The operation "${name}" has no handler.`);
    handlers[name](op, late);
  }

  // A value may arrive more than once, or after a newer one. Then only its reset counts, and what follows it.
  function receive(value) {
    if (!value || !Array.isArray(value.ops)) return;
    const start = value.ops.findIndex((op) => op.op === "reset");
    const late = value.seq <= lastSeq;
    if (late && start < 0) return;
    lastSeq = Math.max(lastSeq, value.seq);
    for (const op of late ? value.ops.slice(start) : value.ops) apply(op, late);
  }

  function repaint() {
    charts.repaint();
    map.repaint();
    layers.repaint();
  }

  // Gradio marks the dark theme with a class on the body.
  new MutationObserver(repaint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  showEmpty(root, null, true);
  return { receive, counts: () => ({ ...charts.counts(), settled }) };
}

// The handlers and protocol.json must name the same operations.
function checkProtocol(handlers) {
  const missing = Object.keys(PROTOCOL.operations).filter((name) => !Object.hasOwn(handlers, name));
  const unknown = Object.keys(handlers).filter((name) => !Object.hasOwn(PROTOCOL.operations, name));
  if (missing.length) throw new Error(`These operations of protocol.json have no handler: ${missing.join(", ")}.`);
  if (unknown.length) throw new Error(`These operations are not in protocol.json: ${unknown.join(", ")}.`);
}

const stage = makeStage(element.querySelector("#stage"), makeRequests());
window.personaStage = { counts: stage.counts };
// The value is JSON text, because Gradio would send differences of nested lists and apply them wrongly.
const receiveText = () => stage.receive(props.value ? JSON.parse(props.value) : null);
watch("value", receiveText);
receiveText();

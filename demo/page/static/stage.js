// Entry: applies the operations Python sends and keeps panes, plots and headers in step with the turns.

function makeStage(root) {
  let turns = [];
  let meta = {};
  let lastSeq = -1;
  let shown = null;
  let pinned = false;
  const panes = {};
  for (const branch of BRANCHES) panes[branch] = makePane(root, branch, (index) => pick(index));
  const plots = makePlots(root, {
    pick: (index) => pick(index, true),
    light: (branch, position) => BRANCHES.forEach((b) => panes[b].light(shown, b === branch ? position : null)),
    missing: () => showNotice(root, "The plotting script could not be loaded; the chat works without it.", "error"),
  });
  const map = makeMap(root, { pick: (index) => pick(index, true) });
  makeTabs(root, () => {
    plots.touch(false);
    map.touch();
  });
  const latestButton = root.querySelector(".latest");
  latestButton.addEventListener("click", () => pick(turns.length - 1, true));

  function capIsOff() {
    return meta.figures?.token?.layout?.meta?.floor === null;
  }

  function capAction(side) {
    const share = side ? firedShare(side) : null;
    if (capIsOff()) return "cap off";
    if (share === null) return "activation capping";
    if (share === 0) return "cap did not act on this reply";
    const percent = share < 0.005 ? "under 1" : String(Math.round(share * 100));
    return `cap acted on ${percent}% of this reply’s tokens`;
  }

  function refreshHeaders() {
    const behind = shown !== null && shown !== turns.length - 1;
    const prefix = behind ? `turn ${shown + 1}: ` : "";
    for (const branch of BRANCHES) panes[branch].standing(turns[shown]?.sides[branch], prefix);
    panes.capped.action(capAction(turns[shown]?.sides.capped));
    root.querySelector(".which").textContent = shown === null ? "" : ` · turn ${shown + 1}`;
    latestButton.hidden = !behind;
  }

  function show(index) {
    shown = index;
    for (const branch of BRANCHES) panes[branch].mark(index);
    plots.show(index);
    map.show(index);
    refreshHeaders();
  }

  function touch() {
    plots.touch(true);
    map.touch();
  }

  function pick(index, reveal = false) {
    if (!turns[index]) return;
    pinned = index !== turns.length - 1;
    if (index !== shown) show(index);
    if (reveal) for (const branch of BRANCHES) panes[branch].reveal(index);
  }

  function put(index, turn) {
    turns[index] = turn;
    for (const branch of BRANCHES) panes[branch].mount(index, turn);
    showEmpty(root, meta.empty_note, false);
    if (!pinned || index === shown) show(pinned ? index : turns.length - 1);
    else touch();
  }

  function announce(index, branch, side) {
    const mean = meanOf(side);
    const standing = mean === null ? "" : `, mean ${number(mean)}, ${standingWord(mean)}`;
    root.querySelector("p.hidden-status").textContent = `Turn ${index + 1}, ${branch} reply finished${standing}`;
  }

  const apply = {
    reset(op) {
      turns = (op.turns ?? []).map(turnFromData);
      meta = op.meta ?? {};
      shown = null;
      pinned = false;
      root.querySelector(".notices").replaceChildren();
      for (const branch of BRANCHES) {
        panes[branch].clear();
        turns.forEach((turn, index) => panes[branch].mount(index, turn));
      }
      showEmpty(root, meta.empty_note, turns.length === 0);
      plots.reset(meta.figures, turns);
      map.reset(meta.map, turns);
      if (turns.length) show(turns.length - 1);
      else refreshHeaders();
    },
    marks(op) {
      meta.figures = op.figures;
      plots.relabel(op.figures);
      refreshHeaders();
    },
    turn_start(op) {
      if (turns[op.turn]) return;
      pinned = false;
      put(op.turn, newTurn(op.user));
      for (const branch of BRANCHES) panes[branch].wait(op.turn);
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
      panes[op.branch].appendTokens(op.turn, op.tokens.filter((token) => addToken(side, token)));
      side.place = op.place ?? side.place;
      if (op.turn === shown) refreshHeaders();
      touch();
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
      put(op.turn, turnFromData(op.data));
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
    lastSeq = value.seq;
    for (const op of seen ? value.ops.slice(start) : value.ops) apply[op.op]?.(op);
  }

  function repaint() {
    plots.repaint();
    map.repaint();
  }

  function onTokenHover(event) {
    const token = event.target.closest(".tok");
    if (!token || Number(token.closest(".turn").dataset.turn) !== shown) return;
    plots.hover(token.closest(".pane").dataset.branch, Number(token.dataset.i));
  }

  for (const branch of BRANCHES) panes[branch].log.addEventListener("pointerover", onTokenHover, { passive: true });
  // Gradio marks the dark theme with a class on the body.
  new MutationObserver(repaint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  showEmpty(root, null, true);
  return { receive, counts: plots.counts };
}

const stage = makeStage(element.querySelector("#stage"));
window.personaStage = { counts: stage.counts };
// The value is JSON text: Gradio would otherwise send differences of nested lists, and apply them wrongly.
const receiveText = () => stage.receive(props.value ? JSON.parse(props.value) : null);
watch("value", receiveText);
receiveText();

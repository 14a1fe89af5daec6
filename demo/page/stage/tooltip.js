// The tooltip of a token: its projection before and after the cap, what each capped layer added, and its probability.

const TOOLTIP_GAP = 8; // pixels between the token and the tooltip

function addRow(list, name, value) {
  list.append(makeElement("dt", "", name), makeElement("dd", "", value));
}

function percent(share) {
  return share < 0.001 ? "under 0.1%" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
}

function liftBars(token, first) {
  const box = makeElement("div", "lifts");
  const most = Math.max(...token.k);
  token.k.forEach((value, n) => {
    const bar = makeElement("i");
    bar.style.height = `${most > 0 ? Math.max(4, (100 * value) / most) : 4}%`;
    bar.title = `layer ${first + n}: +${number(value)}`;
    box.append(bar);
  });
  return box;
}

function fillTooltip(tooltip, branch, token, position, capLayers) {
  const list = makeElement("dl");
  if (token.r) addRow(list, "part", "reasoning");
  const [before, after] = [token.b ?? token.a, token.a ?? token.b];
  addRow(list, "token", `${position}: ${JSON.stringify(token.t)}`);
  if (before === null || before === undefined) addRow(list, "projection", "not recorded");
  else if (Math.abs(after - before) > 1e-6) addRow(list, "projection", `${number(before)} → ${number(after)}`);
  else addRow(list, "projection", number(after));
  if (token.p !== null && token.p !== undefined) addRow(list, "probability", percent(token.p));
  tooltip.replaceChildren(list);
  if (branch !== "capped") return;
  if (!token.k) {
    tooltip.append(makeElement("p", "", "The cap did not act."));
    return;
  }
  const first = capLayers?.[0] ?? 0;
  const layers = token.k.map((value, n) => [first + n, value]).filter(([, value]) => value > 0);
  const summary = `Lifted at ${layers.length} of ${token.k.length} layers (in axis units of each layer)`;
  const details = layers.map(([layer, value]) => `${layer}: +${number(value)}`).join(", ");
  tooltip.append(makeElement("p", "", summary), liftBars(token, first), makeElement("p", "small", details));
}

// hooks: token(branch, turn, position) -> the token's data; capLayers(); hover(branch, position, turn)
function makeTooltip(root, panes, hooks) {
  const tooltip = makeElement("div", "tooltip");
  tooltip.setAttribute("role", "tooltip");
  tooltip.hidden = true;
  root.append(tooltip);
  let current = null;

  function locate(span) {
    return {
      branch: span.closest(".pane").dataset.branch,
      turn: Number(span.closest(".turn").dataset.turn),
      position: Number(span.dataset.i),
    };
  }

  function show(span) {
    const { branch, turn, position } = locate(span);
    const token = hooks.token(branch, turn, position);
    if (!token) return;
    current?.classList.remove("current");
    current = span;
    span.classList.add("current");
    fillTooltip(tooltip, branch, token, position, hooks.capLayers());
    tooltip.hidden = false;
    const [box, frame] = [span.getBoundingClientRect(), root.getBoundingClientRect()];
    const left = Math.min(Math.max(box.left - frame.left, 0), Math.max(0, frame.width - tooltip.offsetWidth));
    const fitsBelow = box.bottom + tooltip.offsetHeight + TOOLTIP_GAP < innerHeight;
    const below = box.bottom - frame.top + TOOLTIP_GAP;
    const above = box.top - frame.top - tooltip.offsetHeight - TOOLTIP_GAP;
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${fitsBelow ? below : above}px`;
    hooks.hover(branch, position, turn);
  }

  function hide() {
    tooltip.hidden = true;
    current?.classList.remove("current");
    current = null;
  }

  // With the keyboard: the arrow keys move along the tokens of a focused pane.
  function onKey(event, log) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = [...log.querySelectorAll(".turn.shown .tok")].filter((span) => !span.closest("details:not([open])"));
    if (!all.length) return;
    const at = current && all.includes(current) ? all.indexOf(current) + step : step > 0 ? 0 : all.length - 1;
    const next = all[Math.max(0, Math.min(all.length - 1, at))];
    next.scrollIntoView({ block: "nearest" });
    show(next);
    event.preventDefault();
  }

  for (const { log } of panes) {
    log.addEventListener("pointerover", (event) => {
      const span = event.target.closest(".tok");
      if (span) show(span);
      else hide();
    }, { passive: true });
    log.addEventListener("pointerleave", hide, { passive: true });
    log.addEventListener("scroll", () => current && !current.matches(":hover") && hide(), { passive: true });
    log.addEventListener("keydown", (event) => onKey(event, log));
    log.addEventListener("blur", hide);
  }
}

// The card beside a token: its projection before and after the cap, what each capped layer added, how likely it was.

const TIP_GAP = 8;

function tipRow(list, name, value) {
  list.append(make("dt", "", name), make("dd", "", value));
}

function percent(share) {
  return share < 0.001 ? "under 0.1%" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
}

function liftBars(token, first) {
  const box = make("div", "lifts");
  const most = Math.max(...token.k);
  token.k.forEach((value, n) => {
    const bar = make("i");
    bar.style.height = `${most > 0 ? Math.max(4, (100 * value) / most) : 4}%`;
    bar.title = `layer ${first + n}: +${number(value)}`;
    box.append(bar);
  });
  return box;
}

function fillTip(tip, branch, token, position, capLayers) {
  const list = make("dl");
  const [before, after] = [token.b ?? token.a, token.a ?? token.b];
  tipRow(list, "token", `${position}: ${JSON.stringify(token.t)}`);
  if (before === null || before === undefined) tipRow(list, "projection", "not recorded");
  else if (Math.abs(after - before) > 1e-6) tipRow(list, "projection", `${number(before)} → ${number(after)}`);
  else tipRow(list, "projection", number(after));
  if (token.p !== null && token.p !== undefined) tipRow(list, "probability", percent(token.p));
  tip.replaceChildren(list);
  if (branch !== "capped") return;
  if (!token.k) {
    tip.append(make("p", "", "The cap did not act."));
    return;
  }
  const first = capLayers?.[0] ?? 0;
  const layers = token.k.map((value, n) => [first + n, value]).filter(([, value]) => value > 0);
  const words = layers.map(([layer, value]) => `${layer}: +${number(value)}`).join(", ");
  tip.append(make("p", "", `Lifted at ${layers.length} of ${token.k.length} layers (axis units of each)`), liftBars(token, first));
  tip.append(make("p", "small", words));
}

// hooks: token(branch, turn, position) -> the token's data; capLayers(); hover(branch, position or null, turn)
function makeTip(root, panes, hooks) {
  const tip = make("div", "tip");
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  root.append(tip);
  let current = null;

  function placeOf(span) {
    return { branch: span.closest(".pane").dataset.branch, turn: Number(span.closest(".turn").dataset.turn), position: Number(span.dataset.i) };
  }

  function show(span) {
    const { branch, turn, position } = placeOf(span);
    const token = hooks.token(branch, turn, position);
    if (!token) return;
    current?.classList.remove("here");
    current = span;
    span.classList.add("here");
    fillTip(tip, branch, token, position, hooks.capLayers());
    tip.hidden = false;
    const [box, frame] = [span.getBoundingClientRect(), root.getBoundingClientRect()];
    const left = Math.min(Math.max(box.left - frame.left, 0), Math.max(0, frame.width - tip.offsetWidth));
    const below = box.bottom + tip.offsetHeight + TIP_GAP < innerHeight;
    tip.style.left = `${left}px`;
    tip.style.top = `${below ? box.bottom - frame.top + TIP_GAP : box.top - frame.top - tip.offsetHeight - TIP_GAP}px`;
    hooks.hover(branch, position, turn);
  }

  function hide() {
    tip.hidden = true;
    current?.classList.remove("here");
    current = null;
  }

  // With the keyboard: arrows walk along the tokens of a focused pane.
  function walk(event, log) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = [...log.querySelectorAll(".turn.shown .tok")];
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
    log.addEventListener("keydown", (event) => walk(event, log));
    log.addEventListener("blur", hide);
  }
  return { hide };
}

// The chat panes. Model and user text enters the page as text nodes; a reply's markdown comes rendered and escaped.

const DEFAULT_EMPTY_NOTE = [
  "One model answers every message twice.",
  "Left: as it is. Right: kept from drifting away from its Assistant persona.",
  "Below: where each token lies on the Assistant Axis. Click a scenario above, or write a message.",
].join("\n");

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function makeButton(className, text, label) {
  const button = make("button", className, text);
  button.type = "button";
  if (label) {
    button.title = label;
    button.setAttribute("aria-label", label);
  }
  return button;
}

// hooks: pick(turn), tools(turn, turn data) -> element or null
function makePane(root, branch, hooks) {
  const pane = root.querySelector(`.pane[data-branch="${branch}"]`);
  const log = pane.querySelector(".log");
  const sections = new Map();
  let stick = true;
  let lastTop = 0; // where following left the log
  let pulse = null;
  let gone = null; // says that a reply was lost

  log.addEventListener("scroll", () => {
    stick = log.scrollHeight - log.scrollTop - log.clientHeight < 12;
    lastTop = log.scrollTop;
  }, { passive: true });
  new ResizeObserver(() => toEnd()).observe(log);
  log.addEventListener("click", (event) => {
    const section = event.target.closest(".turn");
    if (section && !event.target.closest("button, textarea") && !String(getSelection())) {
      hooks.pick(Number(section.dataset.turn));
    }
  });

  function yieldToReader() {
    // Tokens may arrive between the reader's scroll and its event: a log found higher than it was left stays there.
    if (log.scrollTop < lastTop - 4) stick = false;
    lastTop = 0;
  }

  function toEnd() {
    if (!stick) return;
    log.scrollTop = log.scrollHeight;
    lastTop = log.scrollTop;
  }

  function build(index, turn) {
    const section = make("section", "turn");
    section.dataset.turn = index;
    const user = make("p", "user");
    user.append(make("span", "hidden-status", "You: "), document.createTextNode(turn.user ?? ""));
    const reply = make("div", "reply");
    reply.dataset.turn = index;
    const prose = make("div", "prose");
    const wait = make("p", "wait", "reading the prompt…");
    const finish = make("p", "finish");
    const foot = make("p", "foot");
    const pick = makeButton("pick");
    finish.hidden = foot.hidden = true;
    foot.append(pick);
    const tools = hooks.tools(index, turn);
    if (tools) foot.append(tools);
    section.append(user, reply, prose, wait, finish, foot);
    return { section, user, reply, prose, wait, finish, foot, pick, count: 0 };
  }

  function mount(index, turn) {
    const old = sections.get(index);
    if (turn.sides[branch].absent) {
      old?.section.remove();
      sections.delete(index);
      return;
    }
    yieldToReader();
    gone?.remove();
    const fresh = build(index, turn);
    if (old) old.section.replaceWith(fresh.section);
    else log.append(fresh.section);
    if (old?.section.classList.contains("shown")) fresh.section.classList.add("shown");
    sections.set(index, fresh);
    appendTokens(index, turn.sides[branch].shown);
    settle(index, turn.sides[branch]);
  }

  function tokenSpan(token, position) {
    const span = make("span", token.c ? "tok fired" : "tok", token.t);
    span.dataset.i = position;
    const tone = toneOf(token.a ?? token.b);
    if (tone !== null) {
      // The sheet turns these into a colour where the lens is on.
      span.style.setProperty("--tone", `${Math.round(Math.abs(tone) * 100)}%`);
      span.classList.add(tone < 0 ? "low" : "high");
    }
    return span;
  }

  function appendTokens(index, tokens) {
    const entry = sections.get(index);
    if (!entry || !tokens.length) return;
    yieldToReader();
    const batch = document.createDocumentFragment();
    for (const token of tokens) batch.append(tokenSpan(token, (entry.count += 1)));
    entry.reply.append(batch);
    entry.wait.hidden = true;
    stopPulse();
    toEnd();
  }

  function settle(index, side) {
    const entry = sections.get(index);
    if (!entry || side.finish === null) return;
    yieldToReader();
    const line = finishLine(side);
    entry.wait.hidden = true;
    stopPulse();
    entry.finish.hidden = line === null;
    entry.finish.textContent = line ?? "";
    if (side.html) {
      entry.prose.innerHTML = side.html; // made by a markdown renderer that lets no HTML of the text through
      entry.section.classList.add("has-prose");
    }
    entry.foot.hidden = false;
    entry.pick.textContent = `turn ${index + 1} · mean ${number(meanOf(side))} · ${side.shown.length} tokens`;
    entry.pick.title = "Show this turn in the token plot";
    toEnd();
  }

  function wait(index) {
    stick = true;
    toEnd();
    const entry = sections.get(index);
    if (!entry || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const frames = [{ opacity: 1 }, { opacity: 0.45 }];
    const timing = { duration: 900, iterations: Infinity, direction: "alternate", easing: "ease-in-out" };
    pulse = entry.wait.animate(frames, timing);
  }

  // What was said of a reply that never ended is no part of the conversation, so it is not left standing.
  function lost(text) {
    gone?.remove();
    gone = make("p", "notice error", text);
    log.append(gone);
    stick = true;
    toEnd();
  }

  // Others come first: how many conversations, until this one's prompt is read.
  function queue(index, ahead) {
    const entry = sections.get(index);
    if (!entry) return;
    const others = ahead === 1 ? "1 conversation comes" : `${ahead} conversations come`;
    entry.wait.textContent = ahead ? `waiting for room: ${others} first…` : "reading the prompt…";
  }

  function stopPulse() {
    pulse?.cancel();
    pulse = null;
  }

  function standing(side, prefix) {
    const mean = side ? meanOf(side) : null;
    const chip = pane.querySelector(".chip");
    const mark = pane.querySelector(".gauge i");
    chip.textContent = mean === null ? "–" : `${prefix}${number(mean)} · ${standingWord(mean)}`;
    chip.title = "Mean projection of this reply in axis units: 0 = average role-playing, 1 = default Assistant";
    mark.hidden = mean === null;
    // The gauge runs from -1 to 2, so that 0 and 1 sit at its thirds, where the ticks are.
    if (mean !== null) mark.style.left = `${Math.min(100, Math.max(0, ((mean + 1) / 3) * 100))}%`;
  }

  function action(text) {
    pane.querySelector(".action").textContent = text;
  }

  function mark(index) {
    log.querySelector(".turn.shown")?.classList.remove("shown");
    sections.get(index)?.section.classList.add("shown");
  }

  function reveal(index) {
    const entry = sections.get(index);
    if (entry) log.scrollTop = entry.section.offsetTop - log.offsetTop - 8;
  }

  function tokenAt(index, position) {
    return sections.get(index)?.reply.children[position - 1] ?? null;
  }

  function light(index, position) {
    log.querySelector(".tok.lit")?.classList.remove("lit");
    if (position) tokenAt(index, position)?.classList.add("lit");
  }

  function flash(index, position) {
    const token = tokenAt(index, position);
    if (!token) return;
    stick = false;
    log.scrollTop = token.offsetTop - log.offsetTop - log.clientHeight / 2;
    token.classList.remove("flash");
    void token.offsetWidth; // restarts the animation
    token.classList.add("flash");
  }

  function cut(from) {
    for (const [index, entry] of sections) {
      if (index < from) continue;
      entry.section.remove();
      sections.delete(index);
    }
  }

  function clear() {
    stopPulse();
    log.replaceChildren();
    sections.clear();
    stick = true;
    lastTop = 0;
  }

  function userBubble(index) {
    return sections.get(index)?.user ?? null;
  }

  return {
    pane, log, mount, appendTokens, settle, wait, lost, queue, standing, action, mark, reveal, light, flash, tokenAt, cut, clear,
    userBubble,
  };
}

function showEmpty(root, note, visible) {
  const box = root.querySelector(".empty");
  box.hidden = !visible;
  box.replaceChildren(...(note || DEFAULT_EMPTY_NOTE).split("\n").map((line) => make("p", "", line)));
}

function showNotice(root, text, level) {
  const list = root.querySelector(".notices");
  for (const old of [...list.children]) if (old.firstChild.textContent === text) old.remove();
  while (list.children.length > 2) list.firstChild.remove();
  const notice = make("div", level === "error" ? "notice error" : "notice");
  notice.setAttribute("role", "alert");
  const close = makeButton("", "×", "Dismiss this notice");
  close.addEventListener("click", () => notice.remove());
  notice.append(make("span", "", text), close);
  list.append(notice);
}

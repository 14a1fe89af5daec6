// The two chat panes. Model and user text enters the page as text nodes only, never as HTML.

const DEFAULT_EMPTY_NOTE = [
  "One model answers every message twice.",
  "Left: as it is. Right: kept from drifting away from its Assistant persona.",
  "Below: where each token lies on the Assistant Axis. Write a message to begin.",
].join("\n");

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function makePane(root, branch, onPick) {
  const pane = root.querySelector(`.pane[data-branch="${branch}"]`);
  const log = pane.querySelector(".log");
  const sections = new Map();
  let stick = true;
  let lastTop = 0; // where following left the log
  let pulse = null;

  log.addEventListener("scroll", () => {
    stick = log.scrollHeight - log.scrollTop - log.clientHeight < 12;
    lastTop = log.scrollTop;
  }, { passive: true });
  new ResizeObserver(() => toEnd()).observe(log);
  log.addEventListener("click", (event) => {
    const section = event.target.closest(".turn");
    if (section && !String(getSelection())) onPick(Number(section.dataset.turn));
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
    const wait = make("p", "wait", "reading the prompt…");
    const finish = make("p", "finish");
    const pick = make("button", "pick");
    pick.type = "button";
    finish.hidden = pick.hidden = true;
    section.append(user, reply, wait, finish, pick);
    return { section, reply, wait, finish, pick, count: 0 };
  }

  function mount(index, turn) {
    yieldToReader();
    const fresh = build(index, turn);
    const old = sections.get(index);
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
    span.title = `Token ${position}: ${describeToken(branch, token)}`;
    return span;
  }

  function appendTokens(index, tokens) {
    const entry = sections.get(index);
    if (!tokens.length) return;
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
    if (side.finish === null) return;
    yieldToReader();
    const line = finishLine(side);
    entry.wait.hidden = true;
    stopPulse();
    entry.finish.hidden = line === null;
    entry.finish.textContent = line ?? "";
    entry.pick.hidden = false;
    entry.pick.textContent = `turn ${index + 1} · mean ${number(meanOf(side))} · ${side.shown.length} tokens`;
    entry.pick.title = "Show this turn in the token plot";
    toEnd();
  }

  function wait(index) {
    stick = true;
    toEnd();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const frames = [{ opacity: 1 }, { opacity: 0.45 }];
    const timing = { duration: 900, iterations: Infinity, direction: "alternate", easing: "ease-in-out" };
    pulse = sections.get(index).wait.animate(frames, timing);
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

  function light(index, position) {
    log.querySelector(".tok.lit")?.classList.remove("lit");
    if (position) sections.get(index)?.reply.children[position - 1]?.classList.add("lit");
  }

  function clear() {
    stopPulse();
    log.replaceChildren();
    sections.clear();
    stick = true;
    lastTop = 0;
  }

  function has(index) {
    return sections.has(index);
  }

  return { log, mount, appendTokens, settle, wait, standing, action, mark, reveal, light, clear, has };
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
  const close = make("button", "", "×");
  close.type = "button";
  close.setAttribute("aria-label", "Dismiss this notice");
  close.addEventListener("click", () => notice.remove());
  notice.append(make("span", "", text), close);
  list.append(notice);
}

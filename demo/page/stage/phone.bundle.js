// Made from its sources by `npm run build`; do not edit.
// Sources: fc7e41100d45dc3712c45c185d8d397b374d7011dc66aff90faa9c15ae018a72
// Bundle: c769d66cc6d74c0f8a8c0eea7f07e52a5541c1fc781bf8c9f83c90273fca90d3
(() => {
  // src/dom.js
  function makeElement(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text) node.textContent = text;
    return node;
  }
  function find(root2, selector) {
    return findAs(root2, selector, HTMLElement);
  }
  function findAs(root2, selector, kind) {
    const element = root2.querySelector(selector);
    if (!(element instanceof kind)) throw new Error(`The stage has no ${kind.name} ${selector}.`);
    return element;
  }
  function findAll(root2, selector) {
    return [...root2.querySelectorAll(selector)].filter((element) => element instanceof HTMLElement);
  }

  // src/text.js
  function number(value, digits = 2) {
    if (value === null || value === void 0) return "–";
    const text = Math.abs(value).toFixed(digits);
    return value < 0 && Number(text) > 0 ? `−${text}` : text;
  }
  var ASSISTANT = {
    default: "default Assistant",
    side: "Assistant’s side",
    low: "role",
    high: "Assistant",
    persona: "its Assistant persona",
    axis: "Assistant Axis"
  };
  var MEASURED = {
    default: "own replies",
    side: "own replies’ side",
    low: "role-played",
    high: "own",
    persona: "its own way of answering",
    axis: "axis from role-played to own replies"
  };
  var assistant = true;
  function nameAxis(may) {
    assistant = may;
  }
  var axisWords = () => assistant ? ASSISTANT : MEASURED;
  function projections(token) {
    const before = token.b ?? token.a ?? null;
    const after = token.a ?? token.b ?? null;
    return before === null || after === null ? { before: null, after: null } : { before, after };
  }
  function describeToken(branch, token) {
    const { before, after } = projections(token);
    if (before === null) return "projection not recorded";
    const acted = token.acted ?? token.c;
    if (branch === "uncapped" || branch === "steered" && !acted)
      return `projection ${number(after)} (axis units)`;
    if (!acted) return `projection ${number(after)} (axis units), the cap did not act`;
    if (Math.abs(after - before) > 1e-6) {
      return `the cap acted here: projection ${number(before)} → ${number(after)} (axis units)`;
    }
    if (!token.c) return `the cap acted along another direction: projection ${number(after)} (axis units)`;
    return `the cap acted at other layers (sum ${number(token.c)}): projection ${number(after)} (axis units)`;
  }

  // src/turns.js
  var TONE_CENTRE = 0.5;
  var TONE_RANGE = 1.25;
  var TRAILING_TOKENS = 8;
  function toneOf(value) {
    if (value === null || value === void 0) return null;
    return Math.max(-1, Math.min(1, (value - TONE_CENTRE) / TONE_RANGE));
  }

  // classroom/line.js
  var SVG = "http://www.w3.org/2000/svg";
  var LEAST = [-0.75, 1.5];
  var MARGIN = { left: 4, right: 62, top: 8, bottom: 14 };
  function trailing(tokens) {
    const seen = [];
    const means = [];
    for (const token of tokens) {
      const { after } = projections(token);
      if (token.s || token.r || after === null) continue;
      seen.push(after);
      const last = seen.slice(-TRAILING_TOKENS);
      means.push(last.reduce((sum, value) => sum + value, 0) / last.length);
    }
    return means;
  }
  function rangeOf(values) {
    const known = values.filter((value) => value !== null);
    return [Math.min(LEAST[0] ?? 0, ...known), Math.max(LEAST[1] ?? 1, ...known)];
  }
  function drawn(tag, attributes, text) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
    if (text !== void 0) node.textContent = text;
    return node;
  }
  function drawLines(svg, { lines, floor, below, labels }) {
    const width = svg.clientWidth || 300;
    const height = svg.clientHeight || 110;
    const right = labels ? MARGIN.right : 8;
    const count = Math.max(2, ...lines.map(({ values }) => values.length));
    const [low, high] = rangeOf(lines.flatMap(({ values }) => values));
    const x = (n) => MARGIN.left + 4 + (width - right - MARGIN.left - 8) * n / (count - 1);
    const y = (value) => MARGIN.top + (height - MARGIN.top - MARGIN.bottom) * (high - value) / (high - low);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const words = axisWords();
    const marks = [
      { at: 1, name: words.high, kind: "mark" },
      { at: 0, name: words.low, kind: "mark" },
      ...floor === null ? [] : [{ at: floor, name: "floor", kind: "mark floor" }]
    ];
    const nodes = marks.flatMap(({ at, name, kind }) => [
      drawn("line", { class: kind, x1: MARGIN.left, x2: width - right, y1: y(at), y2: y(at) }),
      ...labels ? [drawn("text", { class: kind, x: width - right + 4, y: y(at) + 4 }, name)] : []
    ]);
    nodes.push(drawn("text", { class: "below", x: MARGIN.left, y: height - 2 }, below));
    for (const line of lines) nodes.push(...lineNodes(line, x, y));
    svg.replaceChildren(...spread(nodes));
  }
  function spread(nodes) {
    const labels = nodes.filter((node) => node.matches("text.mark"));
    labels.sort((a, b) => Number(a.getAttribute("y")) - Number(b.getAttribute("y")));
    let last = Number.NEGATIVE_INFINITY;
    for (const label of labels) {
      last = Math.max(Number(label.getAttribute("y")), last + 12);
      label.setAttribute("y", String(last));
    }
    return nodes;
  }
  function lineNodes({ branch, values, faint, markers }, x, y) {
    const kind = `${branch}${faint ? " faint" : ""}`;
    const points = values.flatMap((value, n) => value === null ? [] : [[x(n), y(value)]]);
    const path = points.map(([px = 0, py = 0], n) => `${n ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`);
    const found = [drawn("path", { class: kind, d: path.join("") || "M0 0" })];
    if (!markers) return found;
    const dots = points.map(([px = 0, py = 0]) => {
      if (branch === "uncapped") return drawn("circle", { class: kind, cx: px, cy: py, r: 4 });
      return drawn("path", { class: `${kind} dot`, d: `M${px} ${py - 5}l5 5l-5 5l-5-5Z` });
    });
    return [...found, ...dots];
  }
  function spoken(replies) {
    return replies.map(({ branch, mean, zone }) => `${branch}: mean ${number(mean)}${zone ? `, ${zone}` : ""}`).join("; ");
  }

  // classroom/turn_data.js
  var PANES = ["a", "b"];
  var NAMES = { uncapped: "Uncapped", capped: "Capped", steered: "Steered" };
  function tokensOf({ panes, data }, pane) {
    const { branch, tokens } = panes[pane];
    const all = tokens ?? (branch && data?.branches[branch]?.tokens) ?? [];
    return all.filter((token) => !token.s);
  }
  function nameOf({ panes }, pane) {
    const { branch } = panes[pane];
    return branch ? NAMES[branch] : pane.toUpperCase();
  }
  function meanText({ panes }, pane) {
    const { mean, zone } = panes[pane];
    if (mean === void 0 || mean === null) return "";
    return `${number(mean)}${zone ? ` · ${zone}` : ""}`;
  }
  var isToGuess = (view2) => view2.asks && view2.ended && !view2.revealed;
  function answerOf(view2) {
    if (!view2.ended || !view2.revealed) return "";
    if (view2.same) return "Both replies are the same, so there was nothing to guess.";
    const capped = PANES.find((pane) => view2.panes[pane].branch === "capped")?.toUpperCase() ?? "";
    const where = view2.asks ? `${capped} was the capped reply.` : "";
    if (view2.verdict === "right") return `Right: ${where}`;
    if (view2.verdict === "wrong") return `Not this time: ${where}`;
    return where;
  }
  function meansOf(turns2, branch) {
    return turns2.map((view2) => {
      const pane = view2 && PANES.find((one) => view2.panes[one].branch === branch);
      return (pane && view2.panes[pane].mean) ?? null;
    });
  }
  function keptTurns(turns2) {
    const end = turns2.findIndex((view2) => !view2?.data);
    const whole = end < 0 ? turns2 : turns2.slice(0, end);
    return whole.flatMap(
      (view2) => view2?.data ? [{ data: view2.data, verdict: view2.verdict ?? "", scenario: view2.scenario ?? "" }] : []
    );
  }
  var draftOf = (turns2) => turns2.find((view2) => view2 && !view2.data)?.user ?? "";

  // classroom/phone_view.js
  var SHOWN = {
    "": "Show this to the class",
    asked: "The speaker was asked to show it: take it back",
    shown: "The class sees it: take it down",
    refused: "The speaker does not show it"
  };
  function tokenSpan(token, branch) {
    const span = makeElement("span", token.r ? "thought" : "", token.t);
    if (!branch) return span;
    const tone = toneOf(token.a ?? token.b);
    if (tone !== null && !token.r) {
      span.classList.add(tone < 0 ? "low" : "high");
      span.style.setProperty("--tone", `${Math.round(100 * Math.abs(tone))}%`);
    }
    const lift = (token.k ?? []).reduce((sum, value) => sum + value, 0);
    if (lift > 0) span.classList.add("fired");
    span.title = describeToken(branch, { ...token, c: lift });
    return span;
  }
  function makePhoneView(root2, hooks) {
    const panes = find(root2, ".panes");
    const box = { a: find(root2, "#pane-a"), b: find(root2, "#pane-b") };
    const tab = {
      a: findAs(root2, "#tab-a", HTMLButtonElement),
      b: findAs(root2, "#tab-b", HTMLButtonElement)
    };
    let inView = "a";
    const shown = { a: { key: "", count: 0 }, b: { key: "", count: 0 } };
    function markTab(pane) {
      inView = pane;
      for (const one of PANES) {
        tab[one].setAttribute("aria-selected", String(one === pane));
        tab[one].tabIndex = one === pane ? 0 : -1;
      }
    }
    function look(pane, smooth = true) {
      const still = !smooth || matchMedia("(prefers-reduced-motion: reduce)").matches;
      panes.scrollTo({ left: pane === "a" ? 0 : panes.scrollWidth, behavior: still ? "instant" : "smooth" });
      markTab(pane);
      hooks.turned();
    }
    panes.addEventListener("scroll", () => {
      const pane = panes.scrollLeft > panes.clientWidth / 2 ? "b" : "a";
      if (pane === inView) return;
      markTab(pane);
      hooks.turned();
    });
    for (const pane of PANES) {
      tab[pane].addEventListener("click", () => look(pane));
      tab[pane].addEventListener("keydown", ({ key }) => {
        if (key !== "ArrowLeft" && key !== "ArrowRight") return;
        const next = pane === "a" ? "b" : "a";
        look(next);
        tab[next].focus();
      });
    }
    function showPane(view2, pane, key) {
      const { branch, fault } = view2.panes[pane];
      const tokens = tokensOf(view2, pane);
      const reply = find(box[pane], ".reply");
      const own2 = `${key}/${branch ?? ""}`;
      if (shown[pane].key !== own2 || shown[pane].count > tokens.length || !shown[pane].count) {
        reply.replaceChildren();
        shown[pane] = { key: own2, count: 0 };
      }
      reply.append(...tokens.slice(shown[pane].count).map((token) => tokenSpan(token, branch)));
      shown[pane].count = tokens.length;
      if (!tokens.length) reply.append(makeElement("span", "wait", view2.ended ? "no words" : "reading…"));
      if (fault && !reply.querySelector(".fault")) reply.append(makeElement("p", "fault", fault));
      box[pane].dataset.branch = tab[pane].dataset.branch = branch ?? "";
      tab[pane].textContent = nameOf(view2, pane);
      find(box[pane], ".mean").textContent = meanText(view2, pane);
    }
    function showLine(turns2, view2, head) {
      const figure = find(root2, ".line");
      figure.hidden = !PANES.every((pane) => view2.panes[pane].branch);
      if (figure.hidden) return;
      const floor = head?.marks.floor ?? null;
      const lines = PANES.map((pane) => ({
        branch: view2.panes[pane].branch ?? "uncapped",
        values: trailing(tokensOf(view2, pane)),
        faint: pane !== inView
      }));
      lines.sort((one) => one.faint ? -1 : 1);
      const [byToken, byTurn] = [svgOf(".tokens"), svgOf(".turns")];
      if (byToken) drawLines(byToken, { lines, floor, below: "token by token", labels: false });
      const branches = (
        /** @type {Branch[]} */
        ["uncapped", "capped"]
      );
      const means = branches.map((branch) => ({ branch, values: meansOf(turns2, branch), markers: true }));
      if (byTurn) drawLines(byTurn, { lines: means, floor, below: "turn by turn", labels: true });
      const replies = PANES.map((pane) => ({
        ...view2.panes[pane],
        branch: view2.panes[pane].branch ?? "uncapped"
      }));
      const words = spoken(replies.map(({ branch, mean, zone }) => ({ branch, mean, zone })));
      byTurn?.setAttribute("aria-label", `Turn by turn. This turn: ${words}`);
    }
    function svgOf(name) {
      const found = root2.querySelector(`.line ${name}`);
      return found instanceof SVGSVGElement ? found : null;
    }
    function showAnswer(view2) {
      find(root2, ".guess").hidden = !isToGuess(view2);
      const answer = find(root2, ".answer");
      answer.textContent = answerOf(view2);
      answer.hidden = !answer.textContent;
      const show2 = findAs(root2, ".show", HTMLButtonElement);
      show2.textContent = SHOWN[view2.shown];
      show2.disabled = view2.shown === "refused";
      show2.hidden = !view2.ended || !view2.revealed;
    }
    function show(turns2, index2, chat, head) {
      const view2 = turns2[index2];
      for (const part of [".turn-bar", ".panes", ".user", ".actions"]) find(root2, part).hidden = !view2;
      find(root2, ".empty").hidden = Boolean(view2);
      if (!view2) {
        for (const part of [".guess", ".answer", ".line"]) find(root2, part).hidden = true;
        for (const pane of PANES) shown[pane] = { key: "", count: 0 };
        return;
      }
      find(root2, ".which").textContent = `Turn ${index2 + 1} of ${turns2.length}`;
      findAs(root2, ".back", HTMLButtonElement).disabled = index2 <= 0;
      findAs(root2, ".on", HTMLButtonElement).disabled = index2 >= turns2.length - 1;
      find(root2, ".user").textContent = view2.user;
      for (const pane of PANES) showPane(view2, pane, `${chat}/${index2}`);
      showLine(turns2, view2, head);
      showAnswer(view2);
    }
    function toTop() {
      for (const element of findAll(root2, ".panes > div")) element.scrollTop = 0;
    }
    return { show, look, toTop };
  }

  // classroom/wire.js
  var RefusedError = class extends Error {
    /**
     * @param {string} detail
     * @param {number} status
     */
    constructor(detail, status) {
      super(detail);
      this.status = status;
    }
  };
  var SILENCE_MS = 4e4;
  var base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;
  var addressOf = (path) => `${base()}class/${path}`;
  var pause = (ms) => new Promise((done) => setTimeout(done, ms));
  async function checked(answer) {
    if (answer.ok) return answer;
    const { detail = "" } = await answer.json().catch(() => ({}));
    throw new RefusedError(detail || `The server answered with status ${answer.status}.`, answer.status);
  }
  async function post(path, body, token = "") {
    const headers = { "Content-Type": "application/json", "X-Class-Token": token };
    const answer = await fetch(addressOf(path), { method: "POST", headers, body: JSON.stringify(body) });
    return (await checked(answer)).json();
  }
  async function get(path, token = "") {
    return checked(await fetch(addressOf(path), { headers: { "X-Class-Token": token }, cache: "no-store" }));
  }
  function eventsIn(text) {
    const parts = text.split("\n\n");
    const rest = parts.pop() ?? "";
    const lines = parts.filter((part) => part.startsWith("data: "));
    return { messages: lines.map((line) => JSON.parse(line.slice(6))), rest };
  }
  async function listen(path, token, take2, signal) {
    const init = { headers: { "X-Class-Token": token }, cache: (
      /** @type {const} */
      "no-store"
    ) };
    const answer = await checked(await fetch(addressOf(path), signal ? { ...init, signal } : init));
    if (!answer.body) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (; ; ) {
      const silence = setTimeout(() => reader.cancel().catch(() => {
      }), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const { messages, rest } = eventsIn(text + value);
      text = rest;
      for (const message of messages) {
        try {
          take2(
            /** @type {T} */
            message
          );
        } catch (error) {
          reportError(error);
        }
      }
    }
  }
  function stored(name) {
    try {
      return JSON.parse(sessionStorage.getItem(name) ?? "null");
    } catch {
      return null;
    }
  }
  function store(name, value) {
    try {
      if (value === null) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }
  function save(name, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
  }
  var STUDENT = "persona-drift-class-student";

  // classroom/phone.js
  var AGAIN_MS = 1500;
  var GONE = "The speaker has ended your part in this class. You may join again with the code.";
  var BACK = "The server was restarted. Your conversation comes back as soon as the speaker’s page has brought the class back.";
  var LOST = "The server was restarted before the answer was shown; your message is back in the box.";
  var root = document.body;
  var joinForm = findAs(root, ".join-form", HTMLFormElement);
  var codeBox = findAs(joinForm, "input", HTMLInputElement);
  var sayForm = findAs(root, ".say", HTMLFormElement);
  var sayBox = findAs(sayForm, "textarea", HTMLTextAreaElement);
  var frame = findAs(root, "iframe", HTMLIFrameElement);
  var own = stored(STUDENT);
  var state = null;
  var turns = [];
  var index = -1;
  var following = false;
  var lastProblem = 0;
  var sent = "";
  var suggested = "";
  var view = makePhoneView(root, { turned: () => showTurn() });
  function notice(text, error = false) {
    const line = find(root, ".notice");
    line.textContent = text;
    line.hidden = !text;
    line.classList.toggle("error", error);
  }
  function showJoin(sentence) {
    find(root, ".join").hidden = false;
    find(root, ".class").hidden = true;
    find(root, ".sentence").textContent = sentence;
  }
  function showTurn() {
    view.show(turns, index, state?.chat ?? "", own?.head ?? null);
  }
  function standing() {
    if (!state) return "";
    const { place, paused, writing, ahead } = state;
    if (place === 1) return "The class is full. You are the next who gets a place.";
    if (place > 1) return `The class is full. You wait at place ${place}; this page goes on by itself.`;
    if (paused) return "The speaker has paused the class.";
    if (writing && ahead > 0)
      return `Waiting: ${ahead} ${ahead === 1 ? "conversation is" : "conversations are"} ahead…`;
    return "";
  }
  function showState(found) {
    const { lesson, place, paused, writing } = found;
    find(root, ".join").hidden = true;
    find(root, ".class").hidden = false;
    find(root, "#class-title").textContent = lesson.title || "Class";
    find(root, ".who").textContent = `Student ${found.student}`;
    find(root, ".modes").hidden = !found.mirrored;
    if (!found.mirrored && following) follow(false);
    const details = find(root, ".lesson");
    details.hidden = !lesson.blurb && !lesson.system_prompt;
    find(details, "summary").textContent = lesson.content_warning || lesson.blurb || "The system prompt";
    find(details, "p").textContent = lesson.system_prompt ? `System prompt: ${lesson.system_prompt}` : lesson.blurb;
    const busy = writing || paused || place > 0;
    findAs(sayForm, ".send", HTMLButtonElement).disabled = busy;
    find(sayForm, ".send").hidden = writing;
    find(sayForm, ".stop").hidden = !writing;
    findAs(root, ".again", HTMLButtonElement).disabled = writing;
    notice(standing());
  }
  function suggest() {
    if (!state || state.writing) return;
    const line = state.lesson.script[state.turns] ?? "";
    if (sayBox.value && sayBox.value !== suggested) return;
    sayBox.value = suggested = line;
  }
  function takeState(found) {
    if (found.chat !== state?.chat) {
      turns = [];
      index = -1;
    }
    const fresh = found.turns > turns.length;
    if (found.turns < turns.length) turns.length = found.turns;
    index = fresh ? found.turns - 1 : Math.min(index, found.turns - 1);
    state = found;
    showState(found);
    suggest();
    showTurn();
    const { problem } = found;
    if (problem && problem.number !== lastProblem) {
      lastProblem = problem.number;
      if (!sayBox.value || sayBox.value === suggested) sayBox.value = problem.message;
      notice(problem.text, true);
    }
    keep();
  }
  function take(message) {
    if (message.type === "state") takeState(message);
    else if (message.type === "gone") leave(GONE, true);
    else if (message.type === "turn") {
      const isNew = !turns[message.turn];
      turns[message.turn] = message.view;
      sent = "";
      if (message.turn >= index) index = message.turn;
      if (isNew) view.toTop();
      showTurn();
      keep();
    } else {
      const known = turns[message.turn];
      if (!known) return;
      for (const [pane, { tokens }] of Object.entries(message.panes))
        known.panes[
          /** @type {"a" | "b"} */
          pane
        ].tokens?.push(...tokens);
      if (message.turn === index) showTurn();
    }
  }
  function keep() {
    if (!own || !state) return;
    own = {
      ...own,
      class: state.class,
      chat: state.chat,
      turns: keptTurns(turns),
      draft: draftOf(turns) || sent
    };
    store(STUDENT, own);
  }
  function leave(sentence, ended) {
    if (ended) {
      own = null;
      store(STUDENT, null);
    }
    state = null;
    inside = false;
    follow(false);
    showJoin(sentence);
  }
  async function join(code, draft = "") {
    const known = own?.turns ?? [];
    const session = known.length ? { ...own?.head, turns: known.map(({ data }) => data) } : null;
    const guesses = known.map(({ verdict }) => verdict);
    const scenarios = known.map(({ scenario }) => scenario);
    const body = { code, token: own?.token ?? "", class: own?.class ?? "", session, guesses, scenarios };
    const found = await post("join", body);
    const head = (
      /** @type {SessionHead} */
      found.head
    );
    const empty = { class: "", chat: "", turns: [], draft: "" };
    own = { ...empty, ...own, code, token: String(found.token), head };
    store(STUDENT, own);
    if (draft && !sayBox.value) sayBox.value = draft;
    lostDraft = draft;
  }
  async function giveBack() {
    const known = await (await get(`hello?class=${encodeURIComponent(own?.class ?? "")}`)).json();
    if (known.same && own) await join(own.code, own.draft);
    else if (find(root, ".class").hidden) showJoin(BACK);
    else notice(BACK, true);
  }
  var lostDraft = "";
  var inside = false;
  async function connect() {
    if (inside) return;
    inside = true;
    while (inside && own) {
      try {
        if (own.head.marks) nameAxis(own.head.marks.assistant !== false);
        await listen("events", own.token, (message) => {
          take(message);
          if (lostDraft && message.type === "state") notice(LOST);
          if (message.type === "state") lostDraft = "";
        });
        if (inside) notice("The connection was lost; trying again…", true);
      } catch (error) {
        await reconnect(error);
      }
      if (inside) await pause(AGAIN_MS);
    }
  }
  async function reconnect(error) {
    if (!(error instanceof RefusedError) || ![401, 404].includes(error.status)) {
      notice(error instanceof RefusedError ? error.message : "The connection was lost; trying again…", true);
      return;
    }
    try {
      await giveBack();
    } catch (refused) {
      if (refused instanceof RefusedError) leave(refused.message, false);
    }
  }
  async function act(path, body = {}) {
    try {
      await post(path, body, own?.token);
      return true;
    } catch (error) {
      const text = error instanceof RefusedError ? error.message : "The connection was lost; try again.";
      notice(text, true);
      return false;
    }
  }
  function follow(on) {
    following = on;
    find(root, ".own").hidden = on;
    sayForm.hidden = on;
    find(root, ".following").hidden = !on;
    find(root, ".modes .try").setAttribute("aria-pressed", String(!on));
    find(root, ".modes .follow").setAttribute("aria-pressed", String(on));
    const wanted = on ? `${root.dataset.root ?? ""}/class/stage` : "about:blank";
    if (frame.getAttribute("src") !== wanted) frame.src = wanted;
  }
  async function send() {
    const text = sayBox.value;
    if (!text.trim() || state?.writing) return;
    sent = text;
    if (await act("say", { text })) {
      keep();
      sayBox.value = suggested = "";
      suggest();
    } else sent = "";
  }
  joinForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await join(codeBox.value);
      history.replaceState(null, "", location.pathname);
      connect();
    } catch (error) {
      showJoin(error instanceof RefusedError ? error.message : "The server does not answer; try again.");
    }
  });
  sayForm.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  sayBox.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  find(sayForm, ".stop").addEventListener("click", () => act("stop"));
  find(root, ".again").addEventListener("click", () => act("again"));
  find(root, ".show").addEventListener("click", () => {
    const shown = turns[index]?.shown;
    act(shown ? "withdraw" : "show", { turn: index });
  });
  find(root, ".save").addEventListener("click", () => {
    const session = { ...own?.head, turns: keptTurns(turns).map(({ data }) => data) };
    save("my-class.session.json", new Blob([JSON.stringify(session)], { type: "application/json" }));
  });
  for (const button of findAll(root, ".guess button"))
    button.addEventListener("click", () => act("guess", { turn: index, pane: button.dataset.pane ?? "" }));
  for (
    const [name, step] of
    /** @type {const} */
    [
      [".turn-bar .back", -1],
      [".turn-bar .on", 1]
    ]
  )
    find(root, name).addEventListener("click", () => {
      index += step;
      view.toTop();
      showTurn();
    });
  find(root, ".modes .try").addEventListener("click", () => follow(false));
  find(root, ".modes .follow").addEventListener("click", () => follow(true));
  find(root, ".alone").addEventListener("click", () => follow(false));
  find(root, ".from-here").addEventListener("click", async () => {
    if (await act("alone")) follow(false);
  });
  addEventListener("resize", () => showTurn());
  var given = decodeURIComponent(location.hash.slice(1)).trim();
  if (own && (!given || given === own.code)) connect();
  else {
    own = null;
    codeBox.value = given;
    showJoin("");
    if (given) joinForm.requestSubmit();
  }
})();

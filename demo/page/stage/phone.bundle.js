// Made from its sources by `npm run build`; do not edit.
// Sources: e145a005621197c761ccac5814664559487825476cfa35ca566b80bd0a3cbe5b
// Bundle: adb74b2e87c68752d0e2312635664fc43354df9c9dc84ab482d70814d0362be7
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
  function counted(count, one, many = `${one}s`) {
    return `${count} ${count === 1 ? one : many}`;
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

  // classroom/asking.js
  var WAIT_MS = 4e3;
  function askTwice(button, question, act2) {
    let words = "";
    let timer = 0;
    function stop() {
      clearTimeout(timer);
      timer = 0;
      button.textContent = words;
      button.classList.remove("asks");
    }
    button.addEventListener("click", () => {
      const asked = question();
      if (timer || !asked) {
        if (timer) stop();
        act2();
        return;
      }
      words = button.textContent ?? "";
      button.textContent = asked;
      button.classList.add("asks");
      timer = window.setTimeout(stop, WAIT_MS);
    });
  }

  // classroom/class_words.js
  function standingOf({ place, paused, writing, ahead }) {
    if (place === 1) return "The class is full. You are next in line.";
    if (place > 1) return `The class is full. You are number ${place} in line; this page goes on by itself.`;
    if (writing && ahead > 0)
      return `Waiting: ${counted(ahead, "conversation")} ${ahead === 1 ? "is" : "are"} ahead…`;
    return paused ? "The speaker has paused the class." : "";
  }
  var self = () => axisWords().high === "Assistant" ? "the Assistant" : "the model’s own way of answering";
  var capInGeneral = () => `Capped: the reply is held near ${self()} where it would drift away.`;
  function capSentence(settings) {
    if (!settings) return capInGeneral();
    if (!settings.cap) return "The cap was off.";
    const { only_below: below } = settings.cap;
    const which = typeof below === "number" ? `a reply that begins below ${number(below)}` : "the reply";
    return `Capped: ${which} is held near ${self()} wherever it falls below the floor.`;
  }
  function emptyLines({ cap, guess }) {
    if (!cap) return ["Two replies come. The cap is off, so both are answered in the same way."];
    if (!guess) return ["Two replies come, uncapped and capped. Swipe from one to the other.", capInGeneral()];
    return [
      "Two replies come, A and B, and one of them is capped. Swipe from one to the other, and guess which.",
      capInGeneral()
    ];
  }

  // classroom/wire.js
  var STUDENT = "persona-drift-class-student";
  var NO_ANSWER = "The server does not answer; try again.";
  var RefusedError = class extends Error {
    /**
     * @param {string} detail
     * @param {number} status
     */
    constructor(detail, status) {
      super(detail);
      this.status = status;
    }
    /**
     * Whether the server of the class says that it does not know this tab, or no longer. Any other status may come
     * from a proxy, or pass.
     */
    get unknown() {
      return [401, 404, 410].includes(this.status);
    }
    /** Whether the speaker has removed the student. */
    get removed() {
      return this.status === 410;
    }
  };
  var sentenceOf = (error, otherwise = NO_ANSWER) => error instanceof RefusedError ? error.message : otherwise;
  var SILENCE_MS = 4e4;
  var base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;
  function fragment() {
    try {
      return decodeURIComponent(location.hash.slice(1)).trim();
    } catch {
      return "";
    }
  }
  var newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(
    ""
  );
  var pause = (ms) => new Promise((done) => setTimeout(done, ms));
  async function checked(answer) {
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({}));
    const said = typeof detail === "string" && detail;
    throw new RefusedError(said || `The server answered with status ${answer.status}.`, answer.status);
  }
  async function post(path, body, token = "", at = base()) {
    const headers = { "Content-Type": "application/json", "X-Class-Token": token };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    return (await checked(await fetch(`${at}class/${path}`, init))).json();
  }
  async function get(path, headers) {
    return checked(await fetch(`${base()}class/${path}`, { headers, cache: "no-store" }));
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
    const answer = await checked(await fetch(`${base()}class/${path}`, signal ? { ...init, signal } : init));
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

  // classroom/following.js
  var FOLLOW = "persona-drift-follow";
  function makeFollowing(root2) {
    const frame = findAs(root2, "iframe", HTMLIFrameElement);
    let loaded = false;
    let following2 = false;
    function tell() {
      frame.contentWindow?.postMessage({ [FOLLOW]: following2 }, location.origin);
    }
    function follow(on) {
      if (on === following2) return;
      following2 = on;
      find(root2, ".own").hidden = on;
      find(root2, ".say").hidden = on;
      find(root2, ".following").hidden = !on;
      find(root2, ".modes .try").setAttribute("aria-pressed", String(!on));
      find(root2, ".modes .follow").setAttribute("aria-pressed", String(on));
      if (loaded) tell();
      else if (on) {
        loaded = true;
        frame.contentWindow?.location.replace(`${base()}class/stage`);
      }
    }
    frame.addEventListener("load", () => loaded && tell());
    return { follow, isOn: () => following2 };
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
  function placesOf({ asks, panes }) {
    const capped = PANES.find((pane) => panes[pane].branch === "capped");
    if (!asks || !capped) return "";
    const other = capped === "a" ? "B" : "A";
    return `${capped.toUpperCase()} was capped, ${other} was not.`;
  }
  function sameSentence({ asks, data }) {
    const words = "Both replies are the same";
    if (data?.settings && !data.settings.cap) return `${words}: the cap was off.`;
    return asks ? `${words}, so there was nothing to guess.` : `${words}: the cap did not change the words.`;
  }
  function answerOf(view2) {
    if (!view2.ended || !view2.revealed) return "";
    if (view2.same) return sameSentence(view2);
    const where = placesOf(view2);
    if (view2.verdict === "right") return `Right: ${where || "you found the capped reply."}`;
    if (view2.verdict === "wrong")
      return `Not this time: ${where || "you took the uncapped reply for the capped one."}`;
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
    return whole.flatMap((view2) => view2?.data ? [keptTurn(view2, view2.data)] : []);
  }
  function keptTurn({ verdict, scenario, taken }, data) {
    return { data, verdict: verdict ?? "", scenario: scenario ?? "", taken: taken ?? false };
  }
  var draftOf = (turns2) => turns2.find((view2) => view2 && !view2.data)?.user ?? "";

  // classroom/membership.js
  var AGAIN_MS = 1500;
  var GRACE_MS = 2e4;
  var REMOVED = "The speaker has removed you from the class.";
  var NEW_CLASS = "A new class is open here; enter its code.";
  var BACK = "The server was restarted. Your conversation comes back as soon as the speaker’s page has brought the class back.";
  var NOT_KEPT = "This tab has no room left to keep your conversation; save it before you close or reload it.";
  var LOST = "The connection was lost; trying again…";
  var tidy = (code) => code.toUpperCase().replace(/\s+/g, "");
  function givenBack(known) {
    if (!known?.turns.length) return {};
    return {
      session: { ...known.head, turns: known.turns.map(({ data }) => data) },
      guesses: known.turns.map(({ verdict }) => verdict),
      scenarios: known.turns.map(({ scenario }) => scenario),
      taken: known.turns.map(({ taken }) => taken ?? false)
    };
  }
  function makeMembership(hooks) {
    let own = stored(STUDENT);
    let round = 0;
    let inside = false;
    let stream = new AbortController();
    let missing = 0;
    let told = "";
    function keep2(changed) {
      if (!own) return;
      own = { ...own, ...changed };
      hooks.say("room", store(STUDENT, own) ? "" : NOT_KEPT);
    }
    function leave(sentence, ended) {
      if (ended) {
        own = null;
        store(STUDENT, null);
      }
      round += 1;
      inside = false;
      stream.abort();
      hooks.left(sentence);
    }
    function tell(sentence) {
      if (hooks.shows()) hooks.say("lost", sentence);
      else if (told !== sentence) hooks.left(sentence);
      told = sentence;
    }
    async function join(code, known) {
      const body = { code, token: known?.token ?? "", class: known?.class ?? "", ...givenBack(known) };
      const found = await post("join", body);
      const problem = String(found.problem ?? "");
      own = {
        class: known?.class ?? "",
        code: tidy(code),
        token: String(found.token),
        head: (
          /** @type {SessionHead} */
          found.head
        ),
        chat: "",
        turns: problem ? [] : known?.turns ?? [],
        draft: ""
      };
      missing = 0;
      told = "";
      store(STUDENT, own);
      return problem;
    }
    async function hello() {
      return (await get("hello", { "X-Class-Id": own?.class ?? "" })).json();
    }
    async function giveBack() {
      const { open, same } = await hello();
      if (same && own) {
        const { draft } = own;
        hooks.returned(draft, await join(own.code, own));
        return;
      }
      missing ||= Date.now();
      const isOver = open && (!hooks.shows() || Date.now() - missing > GRACE_MS);
      if (isOver && hooks.shows()) hooks.left("");
      tell(isOver ? NEW_CLASS : BACK);
    }
    async function reconnect(error) {
      if (!(error instanceof RefusedError) || !error.unknown) {
        tell(sentenceOf(error, LOST));
        return;
      }
      if (error.removed) {
        leave(REMOVED, true);
        return;
      }
      try {
        await giveBack();
      } catch (refused) {
        if (!(refused instanceof RefusedError)) tell(LOST);
        else if (refused.removed) leave(REMOVED, true);
        else if (refused.unknown || refused.status === 400) leave(refused.message, false);
        else tell(refused.message);
      }
    }
    function take2(message) {
      if (message.type === "gone") leave(REMOVED, true);
      else hooks.take(message);
    }
    async function connect() {
      round += 1;
      const mine = round;
      inside = true;
      stream.abort();
      while (mine === round && own) {
        stream = new AbortController();
        try {
          await listen("events", own.token, take2, stream.signal);
          if (mine === round) tell(LOST);
        } catch (error) {
          if (mine === round) await reconnect(error);
        }
        if (mine === round) await pause(AGAIN_MS * (0.75 + Math.random() / 2));
      }
    }
    return {
      own: () => own,
      keep: keep2,
      /**
       * @param {StateMessage} state
       * @param {(TurnView | undefined)[]} turns
       * @param {string} onItsWay
       */
      keepChat(state2, turns2, onItsWay) {
        const draft = draftOf(turns2) || onItsWay;
        keep2({ class: state2.class, chat: state2.chat, turns: keptTurns(turns2), draft });
      },
      removed: () => leave(REMOVED, true),
      /**
       * With a code. The conversation that the tab has kept goes only into the class that it is from.
       * @param {string} code
       */
      async enter(code) {
        const same = own ? (await hello()).same : false;
        hooks.returned("", await join(code, same ? own : null));
        history.replaceState(null, "", location.pathname);
        connect();
      },
      /**
       * Whether the tab is in the class of this code already, or in any for none; then it listens.
       * @param {string} code
       */
      returns(code) {
        if (!own || code && tidy(code) !== tidy(own.code)) return false;
        history.replaceState(null, "", location.pathname);
        if (!inside) connect();
        return true;
      }
    };
  }

  // classroom/message_box.js
  function makeSuggestions() {
    let offered = "";
    let last = "";
    return {
      /**
       * @param {string} place the conversation and the number of its next turn
       * @param {string} line of the script; empty for none
       * @param {string} value what the box holds
       * @returns {string | null} what it should hold; null to leave it
       */
      next(place, line, value) {
        const key = `${place} ${line}`;
        if (key === offered) return null;
        offered = key;
        if (value && value !== last) return null;
        last = line;
        return line;
      },
      /** @param {string} value */
      isOwn: (value) => Boolean(value) && value !== last
    };
  }
  function makeMessageBox(form, send) {
    const box2 = findAs(form, "textarea", HTMLTextAreaElement);
    const button = findAs(form, ".send", HTMLButtonElement);
    const suggestions = makeSuggestions();
    let sending = false;
    let blocked = true;
    let message = null;
    let onItsWay = "";
    function show() {
      button.disabled = blocked || sending;
      button.textContent = sending ? "Sending…" : "Send";
      grow();
    }
    function grow() {
      if (CSS.supports("field-sizing", "content")) return;
      box2.style.height = "auto";
      box2.style.height = `${box2.scrollHeight + 2}px`;
    }
    function fill(text) {
      box2.value = text;
      grow();
    }
    function settle(taken) {
      if (message !== taken) return;
      message = null;
      if (box2.value === taken.text) fill("");
    }
    async function submit() {
      const text = box2.value;
      if (!text.trim() || sending || blocked) return;
      if (message?.text !== text) message = { text, id: newId() };
      const mine = message;
      sending = true;
      onItsWay = text;
      if (document.activeElement === button) box2.focus();
      show();
      const taken = await send(mine);
      sending = false;
      if (taken) settle(mine);
      show();
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      submit();
    });
    box2.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      submit();
    });
    box2.addEventListener("input", grow);
    button.addEventListener("mousedown", (event) => event.preventDefault());
    return {
      /** @param {boolean} on whether no message may be sent now */
      block(on) {
        blocked = on;
        show();
      },
      /**
       * @param {string} place
       * @param {string} line
       */
      suggest(place, line) {
        const found = suggestions.next(place, line, box2.value);
        if (found !== null) fill(found);
      },
      /**
       * A message whose replies are not coming goes back, unless the student has written something else.
       * @param {string} text
       */
      putBack(text) {
        if (!suggestions.isOwn(box2.value)) fill(text);
      },
      /** @param {string} user the message of a turn that has begun */
      began(user) {
        onItsWay = "";
        if (message?.text === user) settle(message);
      },
      /** The server has refused what was sent. */
      refused() {
        onItsWay = "";
      },
      onItsWay: () => onItsWay
    };
  }

  // classroom/notices.js
  var ORDER = ["lost", "fault", "news", "room"];
  function makeNotices(line, otherwise = () => "") {
    const said = { lost: "", fault: "", news: "", room: "" };
    function show() {
      const kind = ORDER.find((one) => said[one]);
      const text = kind ? said[kind] : otherwise();
      if (line.textContent !== text) line.textContent = text;
      line.classList.toggle("error", Boolean(kind) && kind !== "news");
    }
    return {
      show,
      /**
       * @param {Kind} kind
       * @param {string} text empty to take it back
       */
      say(kind, text) {
        said[kind] = text;
        show();
      }
    };
  }

  // src/turns.js
  var TONE_CENTRE = 0.5;
  var TONE_RANGE = 1.25;
  var TRAILING_TOKENS = 8;
  function toneOf(value) {
    if (value === null || value === void 0) return null;
    return Math.max(-1, Math.min(1, (value - TONE_CENTRE) / TONE_RANGE));
  }
  function trailingMean(recent, value) {
    recent.push(value);
    if (recent.length > TRAILING_TOKENS) recent.shift();
    return recent.reduce((sum, one) => sum + one, 0) / recent.length;
  }

  // classroom/line.js
  var SVG = "http://www.w3.org/2000/svg";
  var LEAST = [-0.75, 1.5];
  var MARGIN = { left: 4, right: 62, top: 8, bottom: 14 };
  function trailing(tokens) {
    const recent = [];
    const means = [];
    for (const token of tokens) {
      const { after } = projections(token);
      if (token.s || token.r || after === null) continue;
      means.push(trailingMean(recent, after));
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

  // classroom/pager.js
  var LONGEST_MS = 1e3;
  function makePager(root2, turned) {
    const panes = find(root2, ".panes");
    const box2 = { a: find(root2, "#pane-a"), b: find(root2, "#pane-b") };
    const tab = {
      a: findAs(root2, "#tab-a", HTMLButtonElement),
      b: findAs(root2, "#tab-b", HTMLButtonElement)
    };
    let inView = "a";
    let moving = 0;
    function select(pane) {
      inView = pane;
      for (const one of PANES) {
        tab[one].setAttribute("aria-selected", String(one === pane));
        tab[one].tabIndex = one === pane ? 0 : -1;
      }
      turned();
    }
    const paneAt = () => panes.scrollLeft > panes.clientWidth / 2 ? "b" : "a";
    function arrived() {
      clearTimeout(moving);
      moving = 0;
      if (paneAt() !== inView) select(paneAt());
    }
    function look(pane) {
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      clearTimeout(moving);
      moving = window.setTimeout(arrived, LONGEST_MS);
      panes.scrollTo({ left: pane === "a" ? 0 : panes.scrollWidth, behavior: still ? "instant" : "smooth" });
      select(pane);
    }
    panes.addEventListener("scroll", () => {
      if (moving) {
        const there = inView === "a" ? 0 : panes.scrollWidth - panes.clientWidth;
        if (Math.abs(panes.scrollLeft - there) < 2) arrived();
      } else if (paneAt() !== inView) select(paneAt());
    });
    panes.addEventListener("scrollend", () => moving && arrived());
    panes.addEventListener(
      "touchstart",
      () => {
        clearTimeout(moving);
        moving = 0;
      },
      { passive: true }
    );
    for (const pane of PANES) {
      tab[pane].addEventListener("click", () => look(pane));
      tab[pane].addEventListener("keydown", ({ key }) => {
        if (key !== "ArrowLeft" && key !== "ArrowRight") return;
        const next = pane === "a" ? "b" : "a";
        look(next);
        tab[next].focus();
      });
    }
    return { box: box2, tab, inView: () => inView };
  }

  // classroom/phone_view.js
  var NEAR_PX = 24;
  var SHOWN = {
    "": "Show this to the class",
    asked: "Asked: take it back",
    shown: "Shown: take it down",
    refused: "Not shown by the speaker"
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
    const pager = makePager(root2, hooks.turned);
    const { box: box2, tab } = pager;
    let awaited = false;
    const shown = { a: { key: "", count: 0 }, b: { key: "", count: 0 } };
    function showPane(view2, pane, key) {
      const { branch, fault } = view2.panes[pane];
      const tokens = tokensOf(view2, pane);
      const reply = find(box2[pane], ".reply");
      const own = `${key}/${branch ?? ""}`;
      if (shown[pane].key !== own || shown[pane].count > tokens.length || !shown[pane].count) {
        reply.replaceChildren();
        shown[pane] = { key: own, count: 0 };
      }
      const atEnd = box2[pane].scrollTop + box2[pane].clientHeight >= box2[pane].scrollHeight - NEAR_PX;
      reply.append(...tokens.slice(shown[pane].count).map((token) => tokenSpan(token, branch)));
      shown[pane].count = tokens.length;
      if (atEnd && !view2.ended) box2[pane].scrollTop = box2[pane].scrollHeight;
      if (!tokens.length) reply.append(makeElement("span", "wait", view2.ended ? "no words" : "reading…"));
      if (fault && !reply.querySelector(".fault")) reply.append(makeElement("p", "fault", fault));
      box2[pane].dataset.branch = tab[pane].dataset.branch = branch ?? "";
      tab[pane].textContent = nameOf(view2, pane);
      find(box2[pane], ".mean").textContent = meanText(view2, pane);
    }
    function showLine2(turns2, view2, head) {
      const figure = find(root2, ".line");
      figure.hidden = !PANES.every((pane) => view2.panes[pane].branch);
      if (figure.hidden) return;
      find(root2, ".means").textContent = capSentence(view2.data?.settings);
      const isOff = view2.data?.settings && !view2.data.settings.cap;
      const floor = isOff ? null : head?.marks.floor ?? null;
      const lines = PANES.map((pane) => ({
        branch: view2.panes[pane].branch ?? "uncapped",
        values: trailing(tokensOf(view2, pane)),
        faint: pane !== pager.inView()
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
      if (awaited && view2.revealed && !answer.hidden) answer.focus();
      if (view2.revealed) awaited = false;
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
      showLine2(turns2, view2, head);
      showAnswer(view2);
    }
    function toTop() {
      for (const element of findAll(root2, ".panes > div")) element.scrollTop = 0;
    }
    return {
      show,
      toTop,
      /** The student has guessed; the answer gets the focus when it comes. */
      expectAnswer() {
        awaited = true;
      },
      /**
       * For screen readers: how far the replies are.
       * @param {TurnView} view
       */
      announce(view2) {
        const words = isToGuess(view2) ? "Which one was capped?" : answerOf(view2);
        find(root2, ".spoken").textContent = view2.ended ? `Both replies are there. ${words}`.trim() : "";
      }
    };
  }

  // classroom/screen.js
  var SHORT_PX = 480;
  function watchScreen(root2, changed) {
    const screen = window.visualViewport;
    function fit() {
      const height = screen?.height ?? innerHeight;
      if (screen && Math.abs(screen.scale - 1) > 0.01) return;
      root2.style.setProperty("--view-height", `${height}px`);
      root2.style.setProperty("--view-top", `${screen?.offsetTop ?? 0}px`);
      root2.classList.toggle("short", height < SHORT_PX);
      changed();
    }
    screen?.addEventListener("resize", fit);
    screen?.addEventListener("scroll", fit);
    addEventListener("resize", fit);
    fit();
  }

  // classroom/phone.js
  var LOST2 = "The server was restarted before the answer was shown; your message is back in the box.";
  var DROPS = "Sure? Press again";
  var root = document.body;
  var joinForm = findAs(root, ".join-form", HTMLFormElement);
  var codeBox = findAs(joinForm, "input", HTMLInputElement);
  var sayForm = findAs(root, ".say", HTMLFormElement);
  var state = null;
  var turns = [];
  var index = -1;
  var lastProblem = 0;
  var view = makePhoneView(root, { turned: () => showTurn() });
  var notices = makeNotices(find(root, ".notice"), () => state ? standingOf(state) : "");
  var following = makeFollowing(root);
  var box = makeMessageBox(sayForm, async (message) => {
    keep();
    const { taken, refused } = await act("say", message);
    if (refused) box.refused();
    keep();
    return taken;
  });
  var membership = makeMembership({
    take,
    left: (sentence) => showJoin(sentence),
    say: notices.say,
    shows: () => !find(root, ".class").hidden,
    returned: (draft, problem) => {
      if (draft) box.putBack(draft);
      notices.say("news", problem || (draft ? LOST2 : ""));
    }
  });
  function showJoin(sentence) {
    following.follow(false);
    find(root, ".join").hidden = false;
    find(root, ".class").hidden = true;
    find(root, ".sentence").textContent = sentence;
  }
  function showTurn() {
    view.show(turns, index, state?.chat ?? "", membership.own()?.head ?? null);
    findAs(root, ".save", HTMLButtonElement).disabled = !keptTurns(turns).length;
  }
  function showLine(selector, text) {
    const line = find(root, selector);
    line.hidden = !text;
    (line.querySelector("span") ?? line).textContent = text;
  }
  function showLesson(lesson) {
    find(root, "#class-title").textContent = lesson.title || "Class";
    showLine(".warning", lesson.content_warning);
    showLine(".lesson .blurb", lesson.blurb);
    showLine(".lesson .prompt", lesson.system_prompt);
    find(root, ".lesson").hidden = !lesson.blurb && !lesson.system_prompt;
    const lines = emptyLines(lesson).map((line) => makeElement("p", "", line));
    find(root, ".empty .how").replaceChildren(...lines);
  }
  function showState(found) {
    const { lesson, place, paused, writing } = found;
    find(root, ".join").hidden = true;
    find(root, ".class").hidden = false;
    find(root, ".who").textContent = `Student ${found.student}`;
    find(root, ".modes").hidden = !found.mirrored;
    if (!found.mirrored) following.follow(false);
    showLesson(lesson);
    find(sayForm, ".send").hidden = writing;
    find(sayForm, ".stop").hidden = !writing;
    box.block(writing || paused || place > 0);
    findAs(root, ".again", HTMLButtonElement).disabled = writing;
    notices.show();
  }
  function showNames() {
    nameAxis(membership.own()?.head.marks?.assistant !== false);
    const words = axisWords();
    find(root, ".tones .low-end").textContent = words.low;
    find(root, ".tones .high-end").textContent = words.high;
    if (state) showLesson(state.lesson);
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
    takeProblem(found);
    showState(found);
    const line = found.lesson.script[found.turns] ?? "";
    if (!found.writing) box.suggest(`${found.chat} ${found.turns}`, line);
    showTurn();
    keep();
  }
  function takeProblem({ problem }) {
    if (!problem) lastProblem = 0;
    else if (problem.number !== lastProblem) {
      lastProblem = problem.number;
      box.putBack(problem.message);
      notices.say("fault", problem.text);
    }
  }
  function takeTurn(turn, found) {
    const before = turns[turn];
    const isAnswer = before ? !before.ended : box.onItsWay() === found.user;
    turns[turn] = found;
    if (!before) {
      box.began(found.user);
      if (turn >= index) {
        index = turn;
        view.toTop();
      }
    }
    showTurn();
    if (isAnswer) view.announce(found);
    keep();
  }
  function take(message) {
    notices.say("lost", "");
    if (message.type === "state") takeState(message);
    else if (message.type === "head") {
      membership.keep({ head: message.head });
      showNames();
      showTurn();
    } else if (message.type === "turn") takeTurn(message.turn, message.view);
    else if (message.type === "tokens") {
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
    if (!state || turns.filter(Boolean).length < state.turns) return;
    membership.keepChat(state, turns, box.onItsWay());
  }
  async function act(path, body = {}) {
    notices.say("fault", "");
    notices.say("news", "");
    try {
      await post(path, body, membership.own()?.token);
      return { taken: true, refused: false };
    } catch (error) {
      const refused = error instanceof RefusedError && error.status < 500;
      if (error instanceof RefusedError && error.removed) membership.removed();
      else notices.say("fault", sentenceOf(error, "The connection was lost; try again."));
      return { taken: false, refused };
    }
  }
  function turnBy(step) {
    index += step;
    view.toTop();
    showTurn();
  }
  joinForm.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await membership.enter(codeBox.value);
    } catch (error) {
      showJoin(sentenceOf(error));
    }
  });
  find(sayForm, ".stop").addEventListener("click", () => act("stop"));
  askTwice(
    findAs(root, ".again", HTMLButtonElement),
    () => turns.length ? DROPS : "",
    () => act("again")
  );
  find(root, ".show").addEventListener("click", () => {
    act(turns[index]?.shown ? "withdraw" : "show", { turn: index });
  });
  find(root, ".save").addEventListener("click", () => {
    const session = { ...membership.own()?.head, turns: keptTurns(turns).map(({ data }) => data) };
    save("my-class.session.json", new Blob([JSON.stringify(session)], { type: "application/json" }));
  });
  for (const button of findAll(root, ".guess button"))
    button.addEventListener("click", () => {
      view.expectAnswer();
      act("guess", { turn: index, pane: button.dataset.pane ?? "" });
    });
  find(root, ".turn-bar .back").addEventListener("click", () => turnBy(-1));
  find(root, ".turn-bar .on").addEventListener("click", () => turnBy(1));
  find(root, ".modes .try").addEventListener("click", () => following.follow(false));
  find(root, ".modes .follow").addEventListener("click", () => following.follow(true));
  find(root, ".alone").addEventListener("click", () => following.follow(false));
  askTwice(
    findAs(root, ".from-here", HTMLButtonElement),
    () => turns.length ? "Drop my chat? Press again" : "",
    async () => {
      if ((await act("alone")).taken) following.follow(false);
    }
  );
  watchScreen(root, () => showTurn());
  function arrive() {
    const given = fragment();
    if (membership.returns(given)) return;
    codeBox.value = given;
    showJoin("");
    if (given) joinForm.requestSubmit();
  }
  addEventListener("hashchange", arrive);
  showNames();
  arrive();
})();

// Made from its sources by `npm run build`; do not edit.
// Sources: e145a005621197c761ccac5814664559487825476cfa35ca566b80bd0a3cbe5b
// Bundle: 5dd9652531c02e53b463ac9f9a4fa760e9afe50d818860cdfd108bd2eeccd787
(() => {
  // protocol.json
  var protocol_default = {
    about: "What travels between the server and the stage. Python (demo/page/updates.py, demo/page/stage_handlers.py) and the script (src/protocol.js) both check against this file: a name that is not in it is an error on either side. The types of the script (src/types.d.ts) must agree with it. A question mark: the field may be missing.",
    operations: {
      reset: {
        about: "show a conversation from scratch",
        fields: { meta: "object", "turns?": "list" }
      },
      conversations: {
        about: "the list of open conversations, and script and system prompt of the current one",
        fields: {
          list: "list",
          ids: "list",
          turns: "list",
          current: "integer",
          fork: "integer",
          watch_only: "boolean",
          recorded: "boolean",
          script: "object",
          system_prompt: "string"
        }
      },
      turn_start: {
        about: "a turn begins",
        fields: {
          turn: "integer",
          user: "string",
          "branches?": "list",
          "kept?": "object",
          "settings?": "object",
          "marks?": "object"
        }
      },
      waiting: {
        about: "the turn waits for the engine",
        fields: { turn: "integer", ahead: "integer" }
      },
      prompt: {
        about: "a branch has read its prompt",
        fields: { turn: "integer", branch: "string", "user_mean?": "number or null", "start?": "number" }
      },
      tokens: {
        about: "new tokens of one branch",
        fields: { turn: "integer", branch: "string", at: "integer", tokens: "list", "place?": "list" }
      },
      turn_end: {
        about: "one branch has finished",
        fields: {
          turn: "integer",
          branch: "string",
          "finish?": "string or null",
          "fault?": "string",
          "mean?": "number or null",
          "reasoning_mean?": "number or null",
          "user_mean?": "number or null",
          "start?": "number",
          "fired?": "integer or null",
          "count?": "integer or null",
          "limit?": "integer or null",
          "place?": "list or null",
          "plain_mean?": "number",
          "along?": "list",
          "seeds?": "object",
          "shift?": "object",
          "step?": "object"
        }
      },
      turn: {
        about: "the whole turn once more, so that a lost update heals itself",
        fields: { turn: "integer", data: "object" }
      },
      lost: {
        about: "a turn failed and was taken out again",
        fields: { branches: "list", text: "string" }
      },
      marks: { about: "new reference lines for the charts", fields: { figures: "object" } },
      layers: {
        about: "one reply at every decoder layer; the id of its conversation",
        fields: {
          conversation: "string",
          turn: "integer",
          branch: "string",
          probe: "integer",
          cap: "list or null",
          floors: "list",
          tokens: "list",
          reasoning: "integer",
          own: "list",
          plain: "list",
          below: "list"
        }
      },
      layers_failed: {
        about: "the layers of a reply could not be read; a notice says why",
        fields: { conversation: "string", turn: "integer", branch: "string" }
      },
      compared: {
        about: "another open conversation, to be compared with the one that is shown",
        fields: {
          id: "string",
          title: "string",
          model: "string",
          probe_layer: "integer",
          same_axis: "boolean",
          turns: "list"
        }
      },
      chats: {
        about: "which of the chats in a file is to be opened; the titles of the first ones",
        fields: { titles: "list", count: "integer" }
      },
      pane_prompts: {
        about: "the system prompts that the next message gets in single panes, by branch",
        fields: { prompts: "object" }
      },
      tree: {
        about: "all open conversations as a tree, and which of them a filter finds",
        fields: { nodes: "list", current: "integer" }
      },
      left_out: {
        about: "what the chat template leaves out of the prompts of this conversation",
        fields: { text: "string" }
      },
      load: {
        about: "how busy the engine is",
        fields: { running: "integer", waiting: "integer", mib: "integer", budget: "integer" }
      },
      notice: { about: "a sentence for the user", fields: { text: "string", "level?": "string" } },
      download: {
        about: "a file for the browser to save",
        fields: { name: "string", mime: "string", text: "string" }
      },
      persist: {
        about: "what the browser tab stores of a conversation",
        fields: { id: "string", head: "object", from: "integer", turns: "list" }
      },
      restored: { about: "the stored conversations are shown again", fields: {} }
    },
    requests: {
      show: { needs_model: false, fields: {} },
      undo: { needs_model: false, fields: {} },
      fork: { needs_model: false, fields: { turn: "integer" } },
      tree: { needs_model: false, fields: { words: "string", below: "number or null" } },
      note: {
        needs_model: false,
        fields: {
          conversation: "integer",
          star: "integer",
          note: "string",
          words: "string",
          below: "number or null"
        }
      },
      switch: { needs_model: false, fields: { conversation: "integer" } },
      close: { needs_model: false, fields: { conversation: "integer" } },
      compare: { needs_model: false, fields: { conversation: "string" } },
      recorded: { needs_model: false, fields: { name: "string" } },
      shared: { needs_model: false, fields: { name: "string" } },
      system_prompt: { needs_model: false, fields: { text: "string" } },
      typed_prompt: { needs_model: false, fields: { conversation: "string", text: "string" } },
      save: { needs_model: false, fields: { kind: "string" } },
      restore: {
        needs_model: false,
        fields: { conversations: "list", current: "integer", draft: "string or null" }
      },
      regenerate: { needs_model: true, fields: { turn: "integer" } },
      fork_at: {
        needs_model: true,
        fields: {
          turn: "integer",
          branch: "string",
          token: "integer",
          id: "integer or null",
          text: "string",
          where: "string"
        }
      },
      go_on: { needs_model: true, fields: { turn: "integer", branch: "string" } },
      edit: { needs_model: true, fields: { turn: "integer", text: "string" } },
      layers: { needs_model: true, fields: { turn: "integer", branch: "string" } },
      open: {
        needs_model: true,
        fields: {
          text: "string",
          how: "string or null",
          keep: "string or null",
          chat: "integer or null"
        }
      }
    }
  };

  // src/dom.js
  function makeElement(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text) node.textContent = text;
    return node;
  }
  function makeButton(className, text, label) {
    const button = makeElement("button", className, text);
    button.type = "button";
    if (label) {
      button.title = label;
      button.setAttribute("aria-label", spokenName(text ?? "", label));
    }
    return button;
  }
  function spokenName(text, label) {
    const seen = text.trim();
    const hasWords = /[\p{L}\p{N}]/u.test(seen);
    return hasWords && !label.toLowerCase().includes(seen.toLowerCase()) ? `${seen}: ${label}` : label;
  }
  function find(root, selector) {
    return findAs(root, selector, HTMLElement);
  }
  function findAs(root, selector, kind) {
    const element2 = root.querySelector(selector);
    if (!(element2 instanceof kind)) throw new Error(`The stage has no ${kind.name} ${selector}.`);
    return element2;
  }
  function findAll(root, selector) {
    return [...root.querySelectorAll(selector)].filter((element2) => element2 instanceof HTMLElement);
  }
  function targetOf(event) {
    return event.target instanceof Element ? event.target : document.documentElement;
  }
  function datasetOf(event) {
    return event.target instanceof HTMLElement ? event.target.dataset : {};
  }
  function closestOf(event, selector) {
    const element2 = targetOf(event).closest(selector);
    return element2 instanceof HTMLElement ? element2 : null;
  }

  // src/protocol.js
  function makeRequests(protocol, trigger2) {
    function sendRequest(name, fields = {}) {
      if (!Object.hasOwn(protocol.requests, name)) {
        throw new Error(`The request "${name}" is not in protocol.json.`);
      }
      if (typeof trigger2 !== "function") return false;
      trigger2(protocol.requests[name].needs_model ? "submit" : "select", { do: name, ...fields });
      return true;
    }
    return Object.assign(sendRequest, { available: typeof trigger2 === "function" });
  }
  function handlerOf(protocol, handlers, name) {
    if (!Object.hasOwn(protocol.operations, name)) {
      throw new Error(`The operation "${name}" is not in protocol.json.`);
    }
    if (!Object.hasOwn(handlers, name)) throw new Error(`The operation "${name}" has no handler.`);
    return handlers[
      /** @type {keyof Handlers} */
      name
    ];
  }
  function checkProtocol(protocol, handlers) {
    const missing = Object.keys(protocol.operations).filter((name) => !Object.hasOwn(handlers, name));
    const unknown = Object.keys(handlers).filter((name) => !Object.hasOwn(protocol.operations, name));
    if (missing.length) {
      throw new Error(`These operations of protocol.json have no handler: ${missing.join(", ")}.`);
    }
    if (unknown.length) throw new Error(`These operations are not in protocol.json: ${unknown.join(", ")}.`);
  }

  // src/arrival.js
  var Arrival = class {
    /** @type {Step} */
    #step = "first";
    /**
     * @param {object} hooks
     * @param {string | null} hooks.name of the session that the address names
     * @param {(name: string) => boolean} hooks.ask for that session; false where nobody can be asked
     * @param {() => void} hooks.follow the link
     */
    constructor(hooks) {
      this.hooks = hooks;
    }
    /** The session that the address names is on its way. */
    get waits() {
      return this.#step === "asked";
    }
    /**
     * A conversation is shown.
     * @param {number} turns how many it has
     * @param {boolean} restoring whether the tab's conversations have been asked for
     */
    shown(turns, restoring) {
      if (this.#step === "first" && restoring) this.#step = "restoring";
      else if (this.#step === "first") this.#askForSession();
      else if (this.#step === "asked" && turns) this.#step = "there";
    }
    /** The tab's conversations are back. */
    restored() {
      if (this.#step === "restoring") this.#askForSession();
    }
    /** What was asked for is refused; a notice says why. */
    refused() {
      if (this.#step === "restoring") this.#askForSession();
      else if (this.#step === "asked") this.#step = "done";
    }
    /** An update has been applied as a whole. */
    updated() {
      if (this.#step !== "there") return;
      this.#step = "done";
      this.hooks.follow();
    }
    #askForSession() {
      const { name, ask } = this.hooks;
      this.#step = name !== null && ask(name) ? "asked" : "there";
    }
  };

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
  function zoneOf(mean, zones) {
    if (!zones) return "";
    if (mean < zones.low) return zones.names[0];
    return mean > zones.high ? zones.names[2] : zones.names[1];
  }
  function describeZones(branch, zones) {
    if (!zones) return "Which means count as role-played was not measured for this axis.";
    if (branch === "uncapped") return zones.measured;
    const what = branch === "capped" ? "the cap" : "steering";
    return `${zones.measured} These replies were read without a cap or steering: here ${what} may have moved the mean.`;
  }
  var describePrompt = (prompt) => prompt.trim() || "the model’s own default";
  var escapeHtml = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  function tokenLabel(text) {
    const short = text.length > 40 ? `${text.slice(0, 40)}…` : text;
    const shown = short.replace(/\n/g, "\\n").replace(/\t/g, "\\t").replace(/ /g, " ");
    return `“${escapeHtml(shown)}”`;
  }
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
  function percent(share) {
    return share < 1e-3 ? "under 0.1%" : `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;
  }
  function shownToken(text) {
    if (!text) return "end of the reply";
    return text.trim() ? text : JSON.stringify(text);
  }
  var MOST_CHOICES = 8;
  function choices(token) {
    const rows = /* @__PURE__ */ new Map();
    for (const [id, text, own] of token.l ?? []) rows.set(id, { id, text, own, plain: void 0 });
    for (const [id, text, plain] of token.o ?? []) rows.set(id, { id, text, own: rows.get(id)?.own, plain });
    const most = (row) => Math.max(row.own ?? 0, row.plain ?? 0);
    return [...rows.values()].sort((one, other) => most(other) - most(one)).slice(0, MOST_CHOICES);
  }
  function effectOnChoice(token) {
    const [likeliest] = token.o ?? [];
    if (!likeliest || typeof token.p !== "number") return null;
    const chosen = choices(token).filter(({ text }) => text === token.t);
    if (!chosen[0] || chosen.length > 1) return null;
    const { plain } = chosen[0];
    const change = plain === void 0 ? `${percent(token.p)} with the cap, not among the likeliest without it` : `${percent(plain)} without the cap, ${percent(token.p)} with it`;
    const instead = likeliest[1] === token.t ? "" : ` Without it, ${JSON.stringify(likeliest[1])} is likeliest.`;
    return `This token: ${change}.${instead}`;
  }

  // src/turns.js
  var BRANCHES = ["uncapped", "capped", "steered"];
  var SYMBOLS = { uncapped: "circle", capped: "diamond", steered: "square" };
  var DASHES = { uncapped: "4px,3px", capped: "solid", steered: "1px,3px" };
  var TONE_CENTRE = 0.5;
  var TONE_RANGE = 1.25;
  var TRAILING_TOKENS = 8;
  var SERIES_ROLES = [
    "raw",
    "smooth",
    "fired",
    "reasoning-raw",
    "reasoning-smooth",
    "reasoning-fired",
    "lift",
    "before",
    "answer-start",
    "plain",
    "second"
  ];
  var ANSWER_START_LINE = [-0.75, 1.5];
  function byBranch(make) {
    return { uncapped: make("uncapped"), capped: make("capped"), steered: make("steered") };
  }
  function toneOf(value) {
    if (value === null || value === void 0) return null;
    return Math.max(-1, Math.min(1, (value - TONE_CENTRE) / TONE_RANGE));
  }
  function emptySeries() {
    const entries = SERIES_ROLES.map((role) => [role, { x: [], y: [], customdata: [] }]);
    return Object.fromEntries(entries);
  }
  var newSpan = () => ({
    count: 0,
    fired: 0,
    sum: 0,
    measured: 0,
    recent: [],
    recentPlain: [],
    recentSecond: []
  });
  function newReply(branch) {
    return {
      branch,
      absent: false,
      second: -1,
      received: 0,
      visibleTokens: [],
      series: emptySeries(),
      answer: newSpan(),
      reasoning: newSpan(),
      samples: [],
      html: null,
      finish: null,
      fault: "",
      finalMean: null,
      finalReasoningMean: null,
      finalFired: null,
      finalCount: null,
      limit: null,
      userMean: null,
      start: null,
      place: null,
      plainMean: null,
      along: [],
      seedMean: null,
      shift: null,
      step: null,
      layers: null
    };
  }
  function addPoint(series, x, y, customdata) {
    series.x.push(x);
    series.y.push(y);
    series.customdata.push(customdata);
  }
  var spanOf = (reply, token) => token.r ? reply.reasoning : reply.answer;
  function markAnswerStart(reply, position) {
    for (const y of ANSWER_START_LINE) addPoint(reply.series["answer-start"], position - 0.5, y, null);
  }
  function trailingMean(recent, value) {
    recent.push(value);
    if (recent.length > TRAILING_TOKENS) recent.shift();
    return recent.reduce((sum, one) => sum + one, 0) / recent.length;
  }
  function addBeside({ answer, series }, token, position) {
    const { second } = token;
    if (typeof token.q === "number")
      addPoint(series.plain, position, trailingMean(answer.recentPlain, token.q), null);
    if (second !== null) addPoint(series.second, position, trailingMean(answer.recentSecond, second), null);
  }
  function addToSeries(reply, token, position) {
    const after = token.a ?? token.b;
    if (after === null || after === void 0) return;
    const span = spanOf(reply, token);
    const series = (role) => reply.series[token.r ? (
      /** @type {const} */
      `reasoning-${role}`
    ) : role];
    const { lift, before } = reply.series;
    const hover = [tokenLabel(token.t), describeToken(reply.branch, token)];
    if (!token.r && !span.measured && reply.reasoning.count) markAnswerStart(reply, position);
    span.sum += after;
    span.measured += 1;
    addPoint(series("raw"), position, after, hover);
    addPoint(series("smooth"), position, trailingMean(span.recent, after), null);
    if (!token.r) addBeside(reply, token, position);
    if (!token.acted) return;
    addPoint(series("fired"), position, after, hover);
    if (token.b === null || token.b === void 0) return;
    addPoint(before, position, token.b, null);
    for (const y of [token.b, after, null]) addPoint(lift, position, y, null);
  }
  function addToken(reply, received) {
    reply.received += 1;
    if (received.s) return null;
    const c = received.k?.reduce((sum, value) => sum + value, 0) ?? 0;
    const second = received.g?.[reply.second] ?? null;
    const token = Object.assign(received, { c, acted: c > 0 || (received.z ?? 0) > 0, second });
    reply.visibleTokens.push(token);
    const span = spanOf(reply, token);
    span.count += 1;
    if (token.acted) span.fired += 1;
    addToSeries(reply, token, reply.visibleTokens.length);
    return token;
  }
  function finishReply(reply, data) {
    reply.finish = data.finish ?? null;
    reply.fault = data.fault ?? "";
    reply.finalMean = data.mean ?? null;
    reply.finalReasoningMean = data.reasoning_mean ?? null;
    reply.finalFired = data.fired ?? null;
    reply.finalCount = data.count ?? null;
    reply.limit = data.limit ?? null;
    reply.start = data.start ?? reply.start;
    reply.place = data.place ?? null;
    reply.plainMean = data.plain_mean ?? null;
    reply.along = data.along ?? [];
    reply.seedMean = data.seeds ?? null;
    reply.shift = data.shift ?? null;
    reply.step = data.step ?? null;
    reply.samples = data.samples ?? reply.samples;
    reply.layers = data.layers ?? reply.layers;
    reply.html = data.html ?? reply.html;
  }
  var spanMean = ({ sum, measured }) => measured ? sum / measured : null;
  function meanOf(reply) {
    return reply.finalMean ?? spanMean(reply.answer);
  }
  function reasoningMeanOf(reply) {
    return reply.finalReasoningMean ?? spanMean(reply.reasoning);
  }
  var hasReasoning = (reply) => reply.reasoning.count > 0;
  function firedShare(reply) {
    const count = reply.finalCount ?? reply.answer.count;
    return count ? (reply.finalFired ?? reply.answer.fired) / count : null;
  }
  function reasoningFiredShare({ reasoning }) {
    return reasoning.count ? reasoning.fired / reasoning.count : null;
  }
  var isLive = (reply) => !reply.absent && reply.finish === null;
  var secondOf = (settings) => settings?.second ? (settings.along ?? []).indexOf(settings.second) : -1;
  var turnIsLive = (turn) => BRANCHES.some((branch) => isLive(turn.replies[branch]));
  function newTurn(user, branches, { settings, marks, seed_gap } = {}) {
    const turn = {
      user,
      replies: byBranch(newReply),
      settings: settings ?? null,
      marks: marks ?? null,
      seedGap: seed_gap ?? null
    };
    for (const branch of BRANCHES) {
      turn.replies[branch].absent = !branches.includes(branch);
      turn.replies[branch].second = secondOf(turn.settings);
    }
    return turn;
  }
  function turnFromData(data) {
    const turn = newTurn(data.user, Object.keys(data.branches ?? {}), data);
    fillReplies(turn, data.branches);
    for (const branch of BRANCHES) {
      if (data.branches?.[branch] && !data.live) turn.replies[branch].finish ??= "stop";
    }
    return turn;
  }
  function fillReplies(turn, given) {
    for (const branch of BRANCHES) {
      const data = given?.[branch];
      if (!data) continue;
      const reply = turn.replies[branch];
      for (const token of data.tokens ?? []) addToken(reply, token);
      reply.userMean = data.user_mean ?? null;
      finishReply(reply, data);
    }
  }

  // src/links.js
  var NUMBER = /^[1-9]\d{0,5}$/;
  function parseLink(hash) {
    const fields = new URLSearchParams(hash.replace(/^#/, ""));
    if (!fields.has("turn") && !fields.has("token")) return void 0;
    const [turn, token, branch] = [fields.get("turn"), fields.get("token"), fields.get("branch")];
    const known = BRANCHES.find((one) => one === branch) ?? null;
    if (turn === null || !NUMBER.test(turn) || token !== null && !NUMBER.test(token)) return null;
    if (branch !== null && known === null) return null;
    return { turn: Number(turn), token: token === null ? null : Number(token), branch: known };
  }
  function hashOf({ turn, token, branch }) {
    const fields = [["turn", turn], ...token === null ? [] : [["token", token]]];
    return `#${[...fields, ...branch ? [["branch", branch]] : []].map((field) => field.join("=")).join("&")}`;
  }
  var branchOf = (turn, { branch }) => branch ?? BRANCHES.find((one) => !turn.replies[one].absent);
  function faultOf(turns, link) {
    if (!link) return "The link names no turn; one that does ends with #turn=4 or #turn=4&token=17.";
    const turn = turns[link.turn - 1];
    if (!turns.length) return `The link points to turn ${link.turn}, but no session is open here.`;
    if (!turn)
      return `The link points to turn ${link.turn}, but this session has ${counted(turns.length, "turn")}.`;
    const branch = branchOf(turn, link);
    if (!branch || turn.replies[branch].absent)
      return `The link points to the ${link.branch} reply of turn ${link.turn}, but there is none.`;
    const count = turn.replies[branch].visibleTokens.length;
    if ((link.token ?? 0) <= count) return null;
    const reply = `the ${branch} reply of turn ${link.turn}`;
    return `The link points to token ${link.token}, but ${reply} has ${counted(count, "token")}.`;
  }
  function addressOf({ link }, index, page) {
    return link && index < link.turns ? page.href.replace(/[?#].*$/, "") + link.query : null;
  }
  var sessionName = () => new URLSearchParams(location.search).get("session");
  function setAddress(search, hash) {
    try {
      history.replaceState(null, "", location.pathname + search + hash);
    } catch {
    }
  }
  function makeLinks(root, conversation, panes, hooks) {
    let owner = null;
    const inIntro = () => root.classList.contains("in-intro");
    function follow() {
      const link = parseLink(location.hash);
      if (sessionName() !== null) owner = conversation.id;
      if (link === void 0 || conversation.meta.ready) return;
      const turns = inIntro() ? [] : conversation.turns;
      const fault = faultOf(turns, link);
      const turn = link && turns[link.turn - 1];
      if (fault || !turn) {
        hooks.warn(fault ?? "");
        return;
      }
      owner = conversation.id;
      hooks.show(link.turn - 1, branchOf(turn, link), link.token);
    }
    function named(id) {
      if (owner === null || owner === id) return;
      const fields = new URLSearchParams(location.search);
      fields.delete("session");
      setAddress(fields.size ? `?${fields}` : "", "");
      owner = null;
    }
    function onClick(event, branch) {
      const section = closestOf(event, ".turn");
      const hidden = inIntro() || root.classList.contains("veiled");
      if (!section || hidden || targetOf(event).closest("button, textarea, summary, .how-box")) return;
      const token = closestOf(event, ".tok");
      owner = conversation.id;
      setAddress(
        location.search,
        hashOf({
          turn: Number(section.dataset.turn) + 1,
          token: token ? Number(token.dataset.i) : null,
          branch: token ? branch : null
        })
      );
    }
    function addressFor(index, branch) {
      const address = addressOf(conversation.meta, index, location);
      const link = parseLink(location.hash);
      const own = link?.turn === index + 1 && link.branch === branch;
      return address && address + hashOf({ turn: index + 1, token: own ? link.token : null, branch });
    }
    for (const { log, branch } of panes) log.addEventListener("click", (event) => onClick(event, branch));
    addEventListener("hashchange", follow);
    return { follow, named, addressFor };
  }

  // src/live.js
  var LIVE = "#live";

  // src/persistence.js
  var STORAGE_PREFIX = "persona-drift:";
  var STATES_KEPT = 2;
  var LEGACY_PREFIX = "talk:";
  function withoutMiddleStates(turns) {
    const copies = turns.map((turn) => turn && typeof turn === "object" ? { ...turn } : turn);
    for (const branch of BRANCHES) {
      const known = copies.filter((turn) => (
        /** @type {any} */
        turn?.branches?.[branch]?.state
      ));
      for (
        const turn of
        /** @type {any[]} */
        known.slice(1, -STATES_KEPT)
      ) {
        const { state, ...reply } = turn.branches[branch];
        turn.branches = { ...turn.branches, [branch]: reply };
      }
    }
    return copies;
  }
  function openStorage() {
    let storage;
    try {
      storage = window.sessionStorage;
    } catch {
      return null;
    }
    return {
      get: (name) => storage.getItem(STORAGE_PREFIX + name),
      set(name, text) {
        try {
          storage.setItem(STORAGE_PREFIX + name, text);
          return true;
        } catch {
          return false;
        }
      },
      remove: (name) => storage.removeItem(STORAGE_PREFIX + name)
    };
  }
  function hasStored() {
    const storage = openStorage();
    return storage !== null && (storage.get("list") !== null || storage.get("draft") !== null);
  }
  function makePersistence(hooks, storage = openStorage()) {
    return storage && hooks.sendRequest.available ? persistenceIn(storage, hooks) : null;
  }
  function persistenceIn(storage, hooks) {
    const conversations = /* @__PURE__ */ new Map();
    let restoring = false;
    let warned = false;
    const readConversation = (id) => storage.get(`conversation:${id}`) ?? storage.get(LEGACY_PREFIX + id);
    function writeConversation(id, text) {
      const legacy = storage.get(LEGACY_PREFIX + id);
      storage.remove(LEGACY_PREFIX + id);
      if (storage.set(`conversation:${id}`, text)) return true;
      if (legacy !== null) storage.set(LEGACY_PREFIX + id, legacy);
      return false;
    }
    function removeConversation(id) {
      storage.remove(`conversation:${id}`);
      storage.remove(LEGACY_PREFIX + id);
    }
    function storedList() {
      try {
        return JSON.parse(storage.get("list") ?? "null") ?? { ids: [], current: 0 };
      } catch {
        return { ids: [], current: 0 };
      }
    }
    function store2(id, { head, turns }) {
      if (!turns.length) {
        removeConversation(id);
        return;
      }
      const text = JSON.stringify({ ...head, id, turns });
      if (writeConversation(id, text)) return;
      for (const other of storedList().ids) if (other !== id) removeConversation(other);
      if (writeConversation(id, text) || warned) return;
      warned = true;
      hooks.warn(
        "This conversation is too long for the browser to store; save it as a file so that a reload does not lose it."
      );
    }
    return {
      /**
       * The page has loaded. If it shows no turns, the stored conversations are sent to the server, and the
       * message whose reply was being written, which may be the first of all.
       * @param {number} turns how many it shows
       * @returns {boolean} whether anything was sent
       */
      start(turns) {
        const { ids, current } = storedList();
        const texts = ids.map(readConversation);
        const stored2 = texts.filter((text) => text !== null);
        const draft = storage.get("draft");
        if (turns || !stored2.length && draft === null) return false;
        const before = texts.slice(0, current).filter((text) => text !== null).length;
        restoring = true;
        hooks.sendRequest("restore", { conversations: stored2, current: before, draft });
        return true;
      },
      restored() {
        restoring = false;
        const draft = storage.get("draft");
        storage.remove("draft");
        const back = "Your conversation is back";
        const lost = "The reply that was being written is lost; your message is back in the box.";
        if (draft === null) hooks.warn(`${back}, as this browser tab had stored it.`);
        else
          hooks.warn(storedList().ids.some((id) => readConversation(id) !== null) ? `${back}. ${lost}` : lost);
      },
      /** @param {Operations["persist"]} fields */
      persist({ id, head, from, turns }) {
        const stored2 = conversations.get(id)?.turns ?? [];
        const conversation = { head, turns: withoutMiddleStates([...stored2.slice(0, from), ...turns]) };
        conversations.set(id, conversation);
        if (!restoring) store2(id, conversation);
      },
      /** @param {StoredList} list */
      updateList({ ids, current }) {
        if (restoring || !conversations.size) return;
        for (const old of storedList().ids) if (!ids.includes(old)) removeConversation(old);
        storage.set("list", JSON.stringify({ ids, current }));
      },
      /** @param {string} text of the user message */
      turnStarted(text) {
        restoring = false;
        storage.set("draft", text);
      },
      turnEnded: () => storage.remove("draft")
    };
  }

  // src/intro.js
  var ASK_EVERY_MS = 500;
  function startFirstScenario() {
    const button = document.querySelector("button.scenario");
    if (button instanceof HTMLElement) button.click();
    return button !== null;
  }
  var MAKING = 409;
  async function isThere(address) {
    try {
      const { ok, status } = await fetch(address, { cache: "no-store" });
      if (status === MAKING) location.reload();
      return ok;
    } catch {
      return false;
    }
  }
  async function untilThere(address) {
    while (!await isThere(address)) await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
  }
  function makeIntro(root, conversation, { showTurns, replay }) {
    const box = find(root, ".intro");
    const askedForLive = location.hash === LIVE;
    if (askedForLive) history.replaceState(null, "", location.pathname + location.search);
    const tryLive = findAs(box, ".try-live", HTMLButtonElement);
    let own = null;
    function end() {
      if (own) conversation.meta = own;
      own = null;
      box.hidden = true;
      root.classList.remove("in-intro");
    }
    function show({ meta, turns }) {
      own = conversation.meta;
      conversation.meta = { ...own, ...meta, watch_only: true };
      conversation.recorded = turns;
      find(box, ".recorded-with").textContent = meta.model ?? "";
      box.hidden = false;
      root.classList.add("in-intro");
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      showTurns(still ? turns.map(turnFromData) : []);
      replay.load(turns);
      if (!still) replay.toggle();
      if (own.ready) untilThere(own.ready);
    }
    function leave() {
      if (!own) return;
      end();
      conversation.recorded = [];
      replay.load([]);
      showTurns([]);
    }
    function open(recorded) {
      if (askedForLive && startFirstScenario()) return;
      if (recorded) show(recorded);
      if (hasStored() || sessionName() !== null) openWhenReady(false);
    }
    async function openWhenReady(live) {
      const { ready } = own ?? {};
      if (!ready) return;
      Object.assign(tryLive, { disabled: true, textContent: "Loading the model…" });
      await untilThere(ready);
      if (live) location.hash = LIVE;
      location.reload();
    }
    tryLive.addEventListener("click", () => startFirstScenario() || openWhenReady(true));
    return {
      open,
      end,
      leave,
      get shown() {
        return own !== null;
      },
      /** The facts of the page itself. */
      get ownMeta() {
        return own ?? conversation.meta;
      }
    };
  }

  // src/toolbar.js
  var AUTOPLAY_MS = 1500;
  var DISPLAY_MODES = ["marks", "lens", "prose"];
  function downloadFile({ name, mime, text }) {
    const link = makeElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: mime }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
  }
  async function withPlotly(text) {
    const script = [...document.scripts].find((one) => one.src.includes("plotly"));
    const source = script ? await (await fetch(script.src)).text() : "";
    return text.replace("/*plotly*/", () => source.replace(/<\/script/gi, "<\\/script"));
  }
  function decodeText(bytes) {
    const [first = 1, second = 1] = bytes;
    const little = first === 255 && second === 254 || second === 0;
    const big = first === 254 && second === 255 || first === 0;
    try {
      return new TextDecoder(little ? "utf-16le" : big ? "utf-16be" : "utf-8", { fatal: true }).decode(bytes);
    } catch {
      return null;
    }
  }
  function wireDialog(dialog) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || targetOf(event).closest(".close")) dialog.close();
    });
  }
  function makeToolbar(root, hooks) {
    const conversations = find(root, ".conversations");
    const scriptBox = find(root, ".script");
    const autoplay = findAs(scriptBox, "input", HTMLInputElement);
    const openDialog = findAs(root, "dialog.open-session", HTMLDialogElement);
    const pasteBox = findAs(openDialog, "textarea", HTMLTextAreaElement);
    const fileInput = findAs(openDialog, "input[type=file]", HTMLInputElement);
    const fileProblem = find(openDialog, ".file-problem");
    const keptEnd = findAs(openDialog, ".kept-end", HTMLSelectElement);
    const chatChoice = findAs(openDialog, ".which-chat", HTMLSelectElement);
    const saveMenu = findAs(root, ".save", HTMLSelectElement);
    const shipped = findAs(root, ".shipped", HTMLSelectElement);
    let autoplayTimer = 0;
    function setDisplay(mode) {
      root.dataset.display = mode;
      for (const button of findAll(root, ".display-modes button")) {
        button.setAttribute("aria-pressed", String(button.dataset.display === mode));
      }
    }
    function nextDisplay() {
      const at = DISPLAY_MODES.indexOf(root.dataset.display ?? "");
      setDisplay(DISPLAY_MODES[(at + 1) % DISPLAY_MODES.length] ?? "marks");
    }
    function conversationTab(title2, index, current, count) {
      const tab = makeElement("span", index === current ? "conversation current" : "conversation");
      const select = makeButton("", title2, `Conversation ${index + 1}: ${title2}`);
      if (index === current) select.setAttribute("aria-current", "true");
      select.addEventListener("click", () => {
        if (index !== current) hooks.sendRequest("switch", { conversation: index });
      });
      tab.append(select);
      if (count > 1) {
        const close = makeButton("close", "×", `Close conversation ${index + 1}`);
        close.addEventListener("click", () => hooks.sendRequest("close", { conversation: index }));
        tab.append(close);
      }
      return tab;
    }
    function show({ list, current, script }, turns) {
      conversations.replaceChildren(...list.map((title2, n) => conversationTab(title2, n, current, list.length)));
      conversations.hidden = list.length < 2;
      scriptBox.hidden = !script.of && !script.blurb;
      find(scriptBox, "b").textContent = script.title;
      find(scriptBox, ".blurb").textContent = script.blurb;
      if (!script.said) findAs(scriptBox, "details", HTMLDetailsElement).open = false;
      const warning = find(scriptBox, ".content-warning");
      warning.textContent = script.content_warning;
      warning.hidden = !script.content_warning;
      const unfinished = script.said < script.of;
      find(scriptBox, ".steps").textContent = script.of ? `${script.said} of ${script.of}` : "";
      for (const part of [".next", "label"]) find(scriptBox, part).hidden = !unfinished;
      clearTimeout(autoplayTimer);
      if (unfinished && turns > 0 && autoplay.checked) autoplayTimer = window.setTimeout(sendNext, AUTOPLAY_MS);
    }
    function sendNext() {
      const [box, send] = [document.querySelector("#message textarea"), document.querySelector("#send")];
      if (!(box instanceof HTMLTextAreaElement) || !(send instanceof HTMLElement)) return;
      if (box.value.trim() && !hooks.busy()) send.click();
    }
    function toggleAutoplay() {
      autoplay.checked = !autoplay.checked;
      autoplay.dispatchEvent(new Event("change"));
    }
    function listRecordings(names) {
      find(root, ".pick-shipped").hidden = names.length === 0;
      const options = names.map((name) => new Option(name.replace(/-/g, " "), name));
      shipped.replaceChildren(new Option("choose…", ""), ...options);
    }
    function textChanged() {
      fileProblem.hidden = true;
      find(openDialog, ".pick-chat").hidden = true;
      chatChoice.replaceChildren();
    }
    async function readFile(file) {
      const text = decodeText(new Uint8Array(await file.arrayBuffer()));
      pasteBox.value = text ?? "";
      textChanged();
      fileProblem.hidden = text !== null;
    }
    function offerChats({ titles, count }) {
      const shown = titles.length < count ? `, the first ${titles.length.toLocaleString("en")} are listed` : "";
      find(openDialog, ".chat-count").textContent = `This file holds ${count.toLocaleString("en")} chats${shown}. Choose one, and open it:`;
      chatChoice.replaceChildren(...titles.map((title2, n) => new Option(`${n + 1}. ${title2}`, String(n))));
      find(openDialog, ".pick-chat").hidden = false;
      if (!openDialog.open) openDialog.showModal();
      chatChoice.focus();
    }
    function openText(how) {
      const keep = keptEnd.value === "end" ? "end" : "beginning";
      const chat = chatChoice.value ? Number(chatChoice.value) : null;
      hooks.sendRequest("open", { how, text: pasteBox.value, keep, chat });
      openDialog.close();
    }
    async function save(file) {
      downloadFile(file.mime === "text/html" ? { ...file, text: await withPlotly(file.text) } : file);
    }
    autoplay.addEventListener("change", () => autoplay.checked ? sendNext() : clearTimeout(autoplayTimer));
    find(scriptBox, ".next").addEventListener("click", sendNext);
    find(root, ".display-modes").addEventListener("click", (event) => {
      const { display } = datasetOf(event);
      if (display) setDisplay(display);
    });
    saveMenu.addEventListener("change", () => {
      hooks.sendRequest("save", { kind: saveMenu.value });
      saveMenu.value = "";
    });
    find(root, ".open-button").addEventListener("click", () => {
      openDialog.showModal();
      pasteBox.select();
    });
    pasteBox.addEventListener("input", textChanged);
    fileInput.addEventListener("change", async () => {
      const file = fileInput.files?.[0];
      if (file) await readFile(file);
      fileInput.value = "";
    });
    find(openDialog, ".dialog-actions").addEventListener("click", (event) => {
      const { how } = datasetOf(event);
      if (how && pasteBox.value.trim()) openText(how);
    });
    shipped.addEventListener("change", () => {
      if (shipped.value) hooks.sendRequest("recorded", { name: shipped.value });
      shipped.value = "";
      openDialog.close();
    });
    wireDialog(openDialog);
    setDisplay("marks");
    return { show, listRecordings, offerChats, save, nextDisplay, sendNext, toggleAutoplay };
  }
  function turnTools(index, last, hooks) {
    const box = makeElement("span", "tools");
    const add = (text, label, action) => {
      const button = makeButton("", text, label);
      button.addEventListener("click", action);
      box.append(button);
    };
    const again = () => hooks.sendRequest("regenerate", { turn: index });
    add("again", "Answer this message again with other random numbers", again);
    add("edit", "Edit your message and continue from here", () => hooks.edit(index));
    add("fork", "Continue from here in a new conversation", () => hooks.sendRequest("fork", { turn: index }));
    if (last)
      add("undo", "Undo this turn; your message returns to the message box", () => hooks.sendRequest("undo"));
    return box;
  }
  function editMessage(message, text, send) {
    editText(message, text, { label: "Your message", action: "Send", mayBeEmpty: false }, send);
  }
  function editText(element2, text, { label, action, mayBeEmpty }, done) {
    const form = makeElement("form", "edit-form");
    const box = makeElement("textarea");
    box.value = text;
    box.setAttribute("aria-label", label);
    const cancel = makeButton("", "Cancel");
    form.append(box, makeElement("button", "", action), cancel);
    const close = () => form.replaceWith(element2);
    cancel.addEventListener("click", close);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!mayBeEmpty && !box.value.trim()) return;
      close();
      done(box.value);
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") close();
      if (event.key === "Enter" && !event.shiftKey) form.requestSubmit();
      event.stopPropagation();
    });
    element2.replaceWith(form);
    box.focus();
  }

  // src/keyboard.js
  var TYPING = "input, textarea, select, [contenteditable=true], dialog[open] *";
  function shortcutOf({ key, ctrlKey, metaKey, altKey }, { typing, onControl }) {
    if (ctrlKey || metaKey || altKey || typing) return null;
    if (key === " " && onControl) return null;
    return key.length === 1 ? key.toLowerCase() : key;
  }
  function stopReply() {
    const button = document.querySelector("#stop");
    if (button instanceof HTMLElement) button.click();
  }
  function messageBox() {
    const box = document.querySelector("#message textarea");
    return box instanceof HTMLTextAreaElement ? box : null;
  }
  var hasClass = (name) => document.body.classList.contains(name);
  function showMessageBox(open) {
    document.body.classList.toggle("writing", open && hasClass("presenting"));
    if (open) messageBox()?.focus();
    else messageBox()?.blur();
  }
  function watchSending(sent) {
    document.addEventListener("keydown", (event) => {
      const { key, shiftKey, isComposing } = event;
      if (key !== "Enter" || shiftKey || isComposing || event.target !== messageBox()) return;
      if (messageBox()?.value.trim()) setTimeout(sent);
    });
    document.addEventListener("click", (event) => {
      if (closestOf(event, "#send, .scenario, .script .next")) sent();
    });
  }
  function makeKeyboard(root, actions) {
    const help = findAs(root, "dialog.keys", HTMLDialogElement);
    const presentButton = find(root, ".present-button");
    wireDialog(help);
    find(root, ".help-button").addEventListener("click", showHelp);
    presentButton.addEventListener("click", togglePresenting);
    const { textContent: presentLabel, title: presentTitle } = presentButton;
    watchSending(() => {
      if (hasClass("writing")) showMessageBox(false);
      else if (matchMedia("(pointer: coarse)").matches) messageBox()?.blur();
      actions.sent();
    });
    function showHelp() {
      find(help, ".with-model").hidden = messageBox() === null;
      help.showModal();
    }
    function togglePresenting() {
      const presenting = document.body.classList.toggle("presenting");
      showMessageBox(false);
      presentButton.textContent = presenting ? "Leave presentation" : presentLabel;
      presentButton.title = presenting ? "Show the controls again (p or Esc)" : presentTitle;
      dispatchEvent(new Event("resize"));
      actions.presented();
    }
    function leaveLast() {
      if (hasClass("writing")) showMessageBox(false);
      else if (hasClass("presenting")) togglePresenting();
      else stopReply();
    }
    function toggleCap() {
      const box = document.querySelector("#cap-on input");
      if (box instanceof HTMLElement) box.click();
    }
    const shortcuts = /* @__PURE__ */ new Map([
      ["n", actions.next],
      ["s", stopReply],
      ["c", toggleCap],
      ["u", actions.undo],
      ["r", actions.again],
      ["l", actions.nextDisplay],
      ["a", actions.autoplay],
      ["f", actions.forks],
      ["p", togglePresenting],
      ["v", actions.veil],
      ["+", actions.larger],
      ["=", actions.larger],
      // the key of the plus sign, without Shift
      ["-", actions.smaller],
      ["[", actions.turnBefore],
      ["]", actions.nextTurn],
      [" ", actions.replay],
      ["?", showHelp],
      ["/", () => showMessageBox(true)]
    ]);
    document.addEventListener("keydown", (event) => {
      const target = targetOf(event);
      if (event.key === "Escape" && !target.closest("dialog")) leaveLast();
      const where = {
        typing: target.closest(TYPING) !== null,
        onControl: target.closest("button, [tabindex]") !== null
      };
      const action = shortcuts.get(shortcutOf(event, where) ?? "");
      if (!action) return;
      event.preventDefault();
      action();
    });
  }

  // classroom/wire.js
  var SPEAKER = "persona-drift-class-speaker";
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
  var base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;
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

  // src/notices.js
  var emptyNote = () => [
    "One model answers every message twice.",
    `Left: unchanged. Right: kept from drifting away from ${axisWords().persona}.`,
    `Below: where each token lies on the ${axisWords().axis}. Click a scenario above, or write a message.`
  ].join("\n");
  function bringPanesIntoSight(root) {
    find(root, ".panes").scrollIntoView({ block: "nearest" });
  }
  function showEmpty(root, note, visible) {
    const box = find(root, ".empty");
    box.hidden = !visible;
    box.replaceChildren(...(note || emptyNote()).split("\n").map((line) => makeElement("p", "", line)));
  }
  function showNotice(root, text, level) {
    const list = find(root, ".notices");
    for (const old of [...list.children]) if (old.firstChild?.textContent === text) old.remove();
    while (list.children.length > 2) list.firstChild?.remove();
    const notice = makeElement("div", level === "error" ? "notice error" : "notice");
    notice.setAttribute("role", "alert");
    const close = makeButton("", "×", "Dismiss this notice");
    close.addEventListener("click", () => notice.remove());
    notice.append(makeElement("span", "", text), close);
    list.append(notice);
  }

  // src/mirror.js
  var EVERY_MS = 120;
  var AGAIN_MS = 1500;
  var RETURNS_MS = 6e4;
  var LEFT_OUT = /* @__PURE__ */ new Set(["persist", "download", "chats", "restored", "tree", "notice", "compared", "load"]);
  function readView(root) {
    const pressed = (within) => findAll(root, `${within} [aria-pressed="true"]`).map(
      ({ dataset }) => dataset.view ?? dataset.branch ?? dataset.mode
    )[0] ?? "";
    return {
      turn: findAs(root, ".turn-list select", HTMLSelectElement).value,
      panel: findAll(root, '.charts [role="tab"][aria-selected="true"]')[0]?.id ?? "",
      display: root.dataset.display ?? "",
      lens: findAs(root, ".lens-of", HTMLSelectElement).value,
      map: pressed("#map-view .views"),
      reply: pressed("#layer-view .views:not(.modes)"),
      mode: pressed("#layer-view .modes")
    };
  }
  function speaker() {
    try {
      const board = JSON.parse(window.opener?.sessionStorage.getItem(SPEAKER) ?? "null");
      if (board?.secret) store(SPEAKER, { ...board, board: null });
    } catch {
    }
    return stored(SPEAKER);
  }
  function makeMirror(root, sendRequest) {
    let own = sendRequest.available ? speaker() : null;
    let waiting = [];
    let shown = "";
    let on = false;
    let round = 0;
    let unknown = 0;
    const words = () => on ? "Phones follow" : "Let phones follow";
    const button = makeButton("mirror-button", words(), "The phones of the class show this page");
    const send = (path, body) => post(path, body, own?.secret, own?.base);
    async function pass() {
      const view = readView(root);
      const now = JSON.stringify(view);
      if (!waiting.length && now === shown) return;
      const ops = waiting;
      waiting = [];
      try {
        const { again } = await send("mirror", { ops, view });
        shown = now;
        unknown = 0;
        if (again) sendRequest("show");
      } catch (error) {
        waiting = [...ops, ...waiting];
        throw error;
      }
    }
    function patience(error) {
      if (!(error instanceof RefusedError)) return AGAIN_MS;
      if (error.status === 400 || error.status === 413) return null;
      if (!error.unknown && error.status !== 403) return AGAIN_MS;
      own = speaker();
      unknown ||= Date.now();
      return Date.now() - unknown < RETURNS_MS ? AGAIN_MS : null;
    }
    async function keepPassing() {
      round += 1;
      const mine = round;
      while (on && mine === round) {
        let wait = EVERY_MS;
        try {
          await pass();
        } catch (error) {
          if (mine !== round) return;
          wait = patience(error);
          if (wait === null) {
            toggle();
            showNotice(root, `Phones no longer follow. ${sentenceOf(error)}`, "error");
            return;
          }
        }
        await pause(wait);
      }
    }
    function toggle() {
      on = !on;
      button.textContent = words();
      button.setAttribute("aria-pressed", String(on));
      waiting = [];
      shown = "";
      unknown = 0;
      if (!on) send("speaker", { do: "unfollow" }).catch(() => {
      });
      else {
        sendRequest("show");
        keepPassing();
      }
    }
    if (own?.secret) {
      button.addEventListener("click", toggle);
      button.setAttribute("aria-pressed", "false");
      find(root, ".actions").append(button);
    }
    return {
      /**
       * What the server has sent to this stage.
       * @param {Operation[]} ops
       */
      took(ops) {
        if (on) waiting.push(...ops.filter(({ op }) => !LEFT_OUT.has(op)));
      }
    };
  }

  // src/clipboard.js
  async function copyText(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyTheOldWay(text);
    }
  }
  function copyTheOldWay(text) {
    const before = document.activeElement;
    const box = document.createElement("textarea");
    box.value = text;
    box.style.cssText = "position: fixed; opacity: 0";
    document.body.append(box);
    box.select();
    let copied = false;
    try {
      copied = document.execCommand("copy");
    } catch {
      copied = false;
    }
    box.remove();
    if (before instanceof HTMLElement) before.focus({ preventScroll: true });
    return copied;
  }

  // src/how_actions.js
  function makeHowActions(hooks) {
    const box = makeElement("div", "how-actions");
    const text = makeElement("pre", "how-copied");
    const status = makeElement("p", "how-status");
    status.setAttribute("role", "status");
    text.hidden = true;
    async function copy(value, notes) {
      text.hidden = value === null;
      text.textContent = value ?? "";
      const copied = value !== null && await copyText(value);
      const result = copied ? ["Copied."] : ["This browser does not let the page copy; select the text."];
      const words = [...value === null ? [] : result, ...notes];
      status.textContent = words.join(" ");
      box.scrollIntoView({ block: "nearest" });
    }
    const command = makeButton(
      "",
      "Copy as a command",
      "Copy a command that makes this reply again in a shell"
    );
    command.addEventListener("click", () => {
      const again = hooks.command();
      copy(again.command, again.notes);
    });
    const buttons = makeElement("p");
    buttons.append(command);
    if (hooks.link() !== null) {
      const link = makeButton("", "Copy link", "Copy a link that opens this session at this reply");
      link.addEventListener("click", () => copy(hooks.link(), []));
      buttons.append(link);
    }
    box.append(buttons, status, text);
    return box;
  }

  // src/seeds.js
  var SEED_STEP = 1e3;
  var seedOf = ({ seed }, n) => seed + SEED_STEP * n;
  function describeSeeds({ count, mean, low, high }) {
    return `mean of ${counted(count, "seed")}: ${number(mean)}, 95% interval ${number(low)} to ${number(high)}`;
  }
  var sampleShare = ({ count, fired }) => count ? (fired ?? 0) / count : null;
  function allSeeds(reply) {
    const answer = reply.visibleTokens.filter((token) => !token.r).map((token) => token.t);
    const others = reply.samples.map((sample) => ({
      mean: sample.mean ?? null,
      text: sample.text,
      share: sampleShare(sample)
    }));
    return [{ mean: meanOf(reply), text: answer.join(""), share: firedShare(reply) }, ...others];
  }
  function seedList(reply, turn) {
    const box = makeElement("div", "seeds");
    if (reply.seedMean) box.append(makeElement("p", "", `The ${describeSeeds(reply.seedMean)}.`));
    if (reply.branch === "capped" && turn.seedGap) {
      const { count, mean, low, high } = turn.seedGap;
      const range = `95% interval ${number(low)} to ${number(high)}`;
      const pairs = counted(count, "pair");
      box.append(makeElement("p", "", `Capped minus uncapped, over ${pairs}: ${number(mean)}, ${range}.`));
    }
    const list = makeElement("ol");
    allSeeds(reply).forEach(({ mean, text, share }, n) => {
      const item = makeElement("li");
      const name = turn.settings ? `seed ${seedOf(turn.settings, n)}` : `reply ${n + 1}`;
      const shown = n === 0 ? ", shown above" : "";
      const acted = reply.branch === "capped" && share !== null ? ` · cap acted on ${percent(share)}` : "";
      item.append(
        makeElement("b", "", `${name}${shown} · mean ${number(mean)}${acted}`),
        makeElement("p", "", text.trim() || "no text")
      );
      list.append(item);
    });
    box.append(list);
    return box;
  }
  function makeSeedsButton(reply, turn) {
    const count = reply.samples.length + 1;
    if (count < 2) return null;
    const button = makeButton("seeds-button", `1 of ${count} seeds`, `1 of ${count} seeds: read all replies`);
    button.setAttribute("aria-expanded", "false");
    let list = null;
    button.addEventListener("click", () => {
      if (list) {
        list.remove();
        list = null;
      } else {
        list = seedList(reply, turn);
        button.closest(".turn")?.append(list);
      }
      button.setAttribute("aria-expanded", String(list !== null));
    });
    return button;
  }

  // src/turn_settings.js
  var SPANS = { both: "answer and reasoning", answer: "answer only", reasoning: "reasoning only" };
  function settingsIn(settings, branch) {
    const { cap, ...own } = settings.own?.[branch] ?? {};
    const capped = branch === "steered" ? cap ? { ...cap, floor: null } : null : settings.cap;
    return { ...settings, ...own, cap: capped };
  }
  function thresholdIn(settings, branch) {
    if (!settings || branch === "uncapped") return null;
    const cap = settingsIn(settings, branch).cap ?? (branch === "capped" ? settings.also : null);
    return cap?.only_below ?? null;
  }
  var conditionText = ({ only_below }) => only_below === void 0 ? "" : `, only replies that begin below ${number(only_below)}`;
  function capText({ cap }) {
    if (!cap) return "off";
    const [first, last] = [cap.layers[0], cap.layers.at(-1)];
    const where = first === last ? `layer ${first}` : `layers ${first}–${last}`;
    const value = cap.floor === null ? "" : ` (${number(cap.floor)})`;
    return `floor ${cap.floor_name ?? ""}${value}, ${where}${conditionText(cap)}`;
  }
  function alsoText(also) {
    const { direction, downward, layers } = also;
    const side = downward ? "kept from rising" : "kept from falling";
    return `${direction.replace(/_/g, " ")}, ${side}, layers ${layers[0]}–${layers.at(-1)}${conditionText(also)}`;
  }
  function seedText(settings) {
    const { seed, seeds, attempt } = settings;
    const more = seeds > 1 ? `, and for more answers up to ${seedOf(settings, seeds - 1)}` : "";
    return `${seed}${more}${attempt > 1 ? " (new for this attempt)" : ""}`;
  }
  function samplingRows(settings) {
    const rows = [["Seed", seedText(settings)]];
    if (settings.attempt > 1) rows.unshift(["Attempt", String(settings.attempt)]);
    rows.push(["Temperature", String(settings.temperature)], ["Top-p", String(settings.top_p)]);
    rows.push(["Repetition penalty", String(settings.repetition_penalty)]);
    rows.push(["Most new tokens", String(settings.max_new_tokens)]);
    if (settings.soft_limit) rows.push(["End at a sentence after", String(settings.soft_limit)]);
    if (settings.thinking) rows.push(["Thinking", "on"]);
    return rows;
  }
  function settingsRows(settings, branch, { model, date } = {}) {
    const rows = model ? [["Model", model]] : [];
    const own = settingsIn(settings, branch);
    if (branch === "capped" || branch === "steered" && own.cap) rows.push(["Cap", capText(own)]);
    if (branch === "capped" && settings.also) rows.push(["Cap along a direction", alsoText(settings.also)]);
    const { steer } = settings;
    if (branch === "steered" && steer) {
      const along2 = steer.direction?.replace(/_/g, " ") ?? "axis";
      rows.push(["Steering", `${number(steer.alpha)} × ${along2} at layer ${steer.layer}`]);
    }
    const acts = branch === "steered" || branch === "capped" && (settings.cap || settings.also);
    if (acts && settings.thinking) rows.push(["Acts on", SPANS[settings.span]]);
    if (settings.read) rows.push(["Text", "read from a file, not generated here"]);
    else rows.push(...samplingRows(own));
    if (settings.dtype) rows.push(["Number format", settings.dtype]);
    if (settings.template) rows.push(["Chat template (digest)", settings.template]);
    if (date) rows.push(["Date of the chat", date]);
    rows.push(["System prompt", describePrompt(own.system_prompt)]);
    return rows;
  }
  function describeThird(settings) {
    const { steer, cap } = settingsIn(settings, "steered");
    const along2 = steer?.direction?.replace(/_/g, " ") ?? "the axis";
    const parts = steer?.alpha ? [`${along2} is added to every token`] : [];
    if (cap) parts.push(`capped at floor ${cap.floor_name}`);
    return parts.join(", ") || "neither steered nor capped";
  }
  function settingsNote(settings, branch) {
    const parts = [];
    if (settings.attempt > 1) parts.push(`attempt ${settings.attempt}, new seed`);
    if (branch === "capped" && !settings.cap && !settings.also) parts.push("cap off");
    if (settings.own?.[branch]) parts.push("own settings");
    return parts.join(" · ");
  }
  function makeSettingsList(turn, branch, meta, hooks) {
    const { settings } = turn;
    if (!settings) return null;
    const note = settingsNote(settings, branch);
    const button = makeButton("how", `${note && `${note} · `}settings`, "How this reply was made");
    const list = makeElement("div", "how-box");
    const rows = makeElement("dl", "how-list");
    for (const [name, value] of settingsRows(settings, branch, meta)) {
      rows.append(makeElement("dt", "", name), makeElement("dd", "", value));
    }
    list.append(rows, makeHowActions(hooks));
    const show = (visible) => {
      list.hidden = !visible;
      button.setAttribute("aria-expanded", String(visible));
    };
    button.addEventListener("click", () => {
      show(list.hidden === true);
      list.scrollIntoView({ block: "nearest" });
    });
    show(false);
    return { button, list, show };
  }
  function withMarks(figures, marks, alone = false) {
    if (!marks) return figures;
    const shapes = marks.shapes.filter(({ name }) => !alone || name !== "line-floor");
    const annotations = marks.annotations.filter(({ name }) => !alone || name !== "label-floor");
    const marked = ({ data, layout }) => ({
      data,
      layout: { ...layout, shapes, annotations, meta: { ...layout.meta, ...marks.meta } }
    });
    return { token: marked(figures.token), turn: marked(figures.turn) };
  }
  var capIsOff = ({ floor, cap_layers }) => floor === null && !cap_layers;

  // src/summary.js
  var FINISH_LABELS = { cancelled: "Stopped", failed: "Ended by an error" };
  var READ = "Both panes show the same words, which were read and not generated.";
  var TREND_TURNS = 3;
  var TREND_FLAT = 0.1;
  function describeShare(share) {
    return `${share < 5e-3 ? "under 1" : Math.round(100 * share)}%`;
  }
  var beginsBelow = (start2, threshold, reply) => start2 === threshold ? reply.visibleTokens.some(({ acted }) => acted) : start2 < threshold;
  var isLeftAlone = (reply, threshold) => reply.start !== null && threshold !== null && !beginsBelow(reply.start, threshold, reply);
  function describeBeginning(reply, threshold) {
    const { start: start2 } = reply;
    if (start2 === null || threshold === null) return "";
    const digits = number(start2) === number(threshold) ? 4 : 2;
    const [begins, limit] = [number(start2, digits), number(threshold, digits)];
    if (isLeftAlone(reply, threshold))
      return `Begins at ${begins}, not below ${limit}: the cap leaves it alone.`;
    return `Begins at ${begins}, below ${limit}.`;
  }
  function describeCapping(reply, brief, threshold = null) {
    if (isLeftAlone(reply, threshold)) return `cap leaves ${brief ? "this" : "the capped"} reply alone`;
    const [answer, reasoning] = [firedShare(reply), reasoningFiredShare(reply)];
    if (answer === null && reasoning === null) return "";
    if (!answer && !reasoning) return "cap did not act on this reply";
    const amount = (share) => share ? describeShare(share) : "none";
    if (reasoning === null)
      return `cap acted on ${amount(answer)} of ${brief ? "its" : "the capped reply’s"} tokens`;
    if (answer === null) return `cap acted on ${amount(reasoning)} of the reasoning’s tokens`;
    if (brief) return `cap: ${amount(answer)} of answer, ${amount(reasoning)} of reasoning`;
    return `cap acted on ${amount(answer)} of the answer, ${amount(reasoning)} of the reasoning`;
  }
  function finishLabel(reply) {
    if (reply.finish === "length") {
      const reached = `Reached the token limit (${reply.limit ?? reply.visibleTokens.length})`;
      return hasReasoning(reply) && !reply.answer.count ? `${reached} before the answer` : reached;
    }
    if (reply.fault) return reply.fault;
    return (reply.finish && FINISH_LABELS[reply.finish]) ?? null;
  }
  function trendWord(change) {
    if (change > TREND_FLAT) return "rising";
    return change < -TREND_FLAT ? "falling" : "steady";
  }
  function trendOf(turns, branch, index) {
    const all = turns.slice(0, index + 1).map((turn) => turn.replies[branch]);
    const replies = all.filter((reply) => !reply.absent);
    const means = replies.map(meanOf).filter((mean) => mean !== null);
    const last = means.slice(-TREND_TURNS);
    const [oldest, newest] = [last[0], last.at(-1)];
    if (last.length < 2 || oldest === void 0 || newest === void 0) return null;
    const change = newest - oldest;
    return { change, turns: last.length, word: trendWord(change) };
  }
  var answerOf = (reply) => reply.visibleTokens.filter((token) => !token.r).map((token) => token.t).join("");
  var WORDS = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(void 0, { granularity: "word" }) : null;
  function piecesOf(text) {
    const pieces = WORDS ? Array.from(WORDS.segment(text), ({ segment }) => segment) : text.split(/\s+/);
    return pieces.filter((piece) => piece.trim());
  }
  function wordsSentence(uncapped, capped) {
    if (!uncapped.finish || !capped.finish) return "";
    const [left, right] = [piecesOf(answerOf(uncapped)), piecesOf(answerOf(capped))];
    if (!left.length || !right.length) return "";
    const parting = left.findIndex((piece, n) => piece !== right[n]);
    if (parting < 0 && left.length === right.length) return "Both replies are the same, word for word.";
    const shared2 = parting < 0 ? left : left.slice(0, parting);
    const count = shared2.filter((piece) => /[\p{L}\p{N}]/u.test(piece)).length;
    if (count === 0) return "The replies differ from the first word on.";
    return `The replies share their first ${count === 1 ? "word" : `${count} words`} and then differ.`;
  }
  function zonesSentence(items, zones) {
    if (!zones || !items.length) return "";
    const names = items.map(({ mean }) => zoneOf(mean, zones));
    if (items.length > 1 && new Set(names).size === 1) {
      return `On the axis ${items.length === 2 ? "both" : "all"} read as ${names[0]}.`;
    }
    return `On the axis: ${items.map(({ branch }, n) => `${branch} ${names[n]}`).join(", ")}.`;
  }
  function capSentence({ replies: { capped }, settings }, off) {
    if (capped.absent) return "";
    if (off) return "The cap is off.";
    const capping = describeCapping(capped, false, thresholdIn(settings, "capped"));
    return capping && `The ${capping}.`;
  }
  function summarise(turns, index, capOff, zones) {
    const turn = index === null ? void 0 : turns[index];
    if (!turn || index === null) return { items: [], gap: null, share: null, along: [], sentence: "" };
    const mean = (branch) => turn.replies[branch].absent ? null : meanOf(turn.replies[branch]);
    const items = BRANCHES.flatMap((branch) => {
      const value = mean(branch);
      return value === null ? [] : [{ branch, mean: value, trend: trendOf(turns, branch, index) }];
    });
    const { uncapped: left, capped: right } = turn.replies;
    const words = turn.settings?.read ? READ : wordsSentence(left, right);
    const sentences = [words, zonesSentence(items, zones), capSentence(turn, capOff)];
    const [uncapped, capped] = [mean("uncapped"), mean("capped")];
    const gap = uncapped === null || capped === null ? null : capped - uncapped;
    const share = left.shift?.length ? left.shift.share : null;
    return { items, gap, share, along: alongOf(turn), sentence: sentences.filter(Boolean).join(" ") };
  }
  function alongOf(turn) {
    return (turn.settings?.along ?? []).map((name, n) => {
      const values = BRANCHES.flatMap((branch) => {
        const value = turn.replies[branch].along[n];
        return value === void 0 ? [] : [[branch, value]];
      });
      return { name: name.replace(/_/g, " "), values: Object.fromEntries(values) };
    });
  }

  // src/model.js
  var Conversation = class {
    /** @type {{ base: Figures | undefined; key: string; figures: Figures | undefined } | null} */
    #marked = null;
    /** @type {Meta} */
    #meta = {};
    constructor() {
      this.turns = [];
      this.recorded = [];
      this.shown = null;
      this.pinned = false;
      this.id = "";
      this.fork = 0;
      this.nextPrompt = "";
      this.panePrompts = {};
    }
    /**
     * The system prompt with which a branch answered a turn; undefined where that is not known.
     * @param {number} index
     * @param {Branch} branch
     */
    #promptOf(index, branch) {
      const settings = this.turns.at(index)?.settings;
      return settings ? settingsIn(settings, branch).system_prompt : void 0;
    }
    /**
     * The system prompt that a branch began with, and the next message's, if that is another one. What can only be
     * watched has no next message. `own`: the branch has one for itself.
     * @param {Branch} branch
     * @returns {{ first: string; next: string | null; own: boolean }}
     */
    promptsIn(branch) {
      const own = this.panePrompts[branch] ?? null;
      const coming = own ?? this.nextPrompt;
      const first = this.#promptOf(0, branch) ?? coming;
      const last = this.#promptOf(-1, branch);
      const changed2 = last !== void 0 && last.trim() !== coming.trim();
      return { first, next: changed2 && !this.meta.watch_only ? coming : null, own: own !== null };
    }
    /**
     * The system prompt of a turn, if it is another than that of the turn before; otherwise null.
     * @param {number} index
     * @param {Branch} branch
     */
    promptChange(index, branch) {
      const before = index > 0 ? this.#promptOf(index - 1, branch) : void 0;
      const own = this.#promptOf(index, branch);
      if (before === void 0 || own === void 0 || before.trim() === own.trim()) return null;
      return own;
    }
    get last() {
      return this.turns.length - 1;
    }
    /** An earlier turn than the last is shown. */
    get showsEarlier() {
      return this.shown !== null && this.shown !== this.last;
    }
    /** @returns {ByBranch<Reply> | undefined} */
    get shownReplies() {
      return this.shown === null ? void 0 : this.turns[this.shown]?.replies;
    }
    /** @returns {Meta} */
    get meta() {
      return this.#meta;
    }
    set meta(meta) {
      this.#meta = meta;
      nameAxis(meta.figures?.token?.layout?.meta?.assistant !== false);
    }
    /**
     * What the charts' reference lines show for a turn. Without settings of its own, and for no turn, it is
     * what the server last said of the conversation.
     * @param {number | null} index
     * @returns {ChartMeta}
     */
    metaOf(index) {
      const marks = index === null ? void 0 : this.turns[index]?.marks;
      return { ...this.meta.figures?.token?.layout?.meta, ...marks?.meta };
    }
    /** @returns {ChartMeta} */
    get chartMeta() {
      return this.metaOf(this.shown);
    }
    get capIsOff() {
      const also = this.shown === null ? void 0 : this.turns[this.shown]?.settings?.also;
      return capIsOff(this.chartMeta) && !also;
    }
    /**
     * The charts' figures with the reference lines of the turn that is shown: without the floor of a cap that
     * leaves its reply alone. They are the same object as before while nothing about them has changed, because
     * charts are redrawn for another one.
     * @returns {Figures | undefined}
     */
    get figures() {
      const { figures } = this.meta;
      const turn = this.shown === null ? void 0 : this.turns[this.shown];
      const marks = turn?.marks ?? null;
      const alone = turn ? isLeftAlone(turn.replies.capped, thresholdIn(turn.settings, "capped")) : false;
      const key = JSON.stringify([marks, alone]);
      if (this.#marked?.base !== figures || this.#marked?.key !== key) {
        this.#marked = { base: figures, key, figures: figures && withMarks(figures, marks, alone) };
      }
      return this.#marked?.figures;
    }
    /** A reply is being written. */
    get busy() {
      return this.turns.some(turnIsLive);
    }
    /**
     * Whether a branch has answered in any turn. Two always do before the first.
     * @param {Branch} branch
     */
    has(branch) {
      if (!this.turns.length) return branch !== "steered";
      return this.turns.some((turn) => !turn.replies[branch].absent);
    }
    get hasSeeds() {
      return this.turns.some((turn) => BRANCHES.some((branch) => turn.replies[branch].samples.length > 0));
    }
    get hasReasoning() {
      return this.turns.some((turn) => BRANCHES.some((branch) => hasReasoning(turn.replies[branch])));
    }
    /** How many replies the last turn has, if any reply is being written. */
    get liveReplies() {
      const last = this.turns.at(-1);
      return this.busy && last ? BRANCHES.filter((branch) => !last.replies[branch].absent).length : 0;
    }
    /**
     * @param {number} index
     * @param {Branch} branch
     * @returns {Reply | undefined}
     */
    reply(index, branch) {
      return this.turns[index]?.replies[branch];
    }
    /**
     * The first branch that answers in a turn.
     * @param {Turn} turn
     */
    static firstBranch(turn) {
      return BRANCHES.find((branch) => !turn.replies[branch].absent);
    }
    /**
     * The branches that answer in a turn that the server has sent.
     * @param {TurnData} data
     */
    static answering(data) {
      return BRANCHES.filter((branch) => data.branches?.[branch]);
    }
    /** @param {Turn[]} turns */
    replace(turns) {
      this.turns = turns;
      this.shown = null;
      this.pinned = false;
    }
    /**
     * Removes all turns from `first` on. The array stays the same, because the charts hold it.
     * @param {number} first
     */
    removeFrom(first) {
      this.turns.length = first;
      this.pinned = false;
      if (!first) this.shown = null;
    }
    /**
     * Adds a turn or replaces it.
     * @param {number} index
     * @param {Turn} turn
     * @returns {number | null} the turn to show now; null while the user looks at another one
     */
    put(index, turn) {
      this.turns[index] = turn;
      if (this.pinned && index !== this.shown) return null;
      return this.pinned ? index : this.last;
    }
    /**
     * Pins a turn that is not the last. False if there is no such turn.
     * @param {number} index
     */
    pin(index) {
      if (!this.turns[index]) return false;
      this.pinned = index !== this.last;
      return true;
    }
    /**
     * Adds tokens to a reply that is being written.
     * @param {Operations["tokens"]} fields
     * @returns {VisibleToken[] | null} those that are shown and were not there; null if no reply is being
     *   written there
     */
    addTokens({ turn, branch, at, tokens, place }) {
      const reply = this.reply(turn, branch);
      if (!reply || reply.finish !== null) return null;
      const fresh = tokens.slice(Math.max(0, reply.received - at));
      const visible = fresh.map((token) => addToken(reply, token)).filter((token) => token !== null);
      reply.place = place ?? reply.place;
      return visible;
    }
    /**
     * Ends a reply. Returns it; null if there is none.
     * @param {{ turn: number; branch: Branch } & ReplySummary} fields
     * @returns {Reply | null}
     */
    finish(fields) {
      const reply = this.reply(fields.turn, fields.branch);
      if (!reply) return null;
      finishReply(reply, fields);
      return reply;
    }
  };

  // src/presenter.js
  var TEXT_SIZES = [0.85, 1, 1.15, 1.3, 1.5, 1.75];
  var SIZE_KEY = "persona-drift:text-size";
  var WRITING = "Both replies are being written. Predict: what will each say, and which line will lie higher?";
  var READY = "Both replies are ready. Predict: what does each say, and which line lies higher?";
  function nextSize(size, step) {
    const nearest = TEXT_SIZES.reduce(
      (best, one) => Math.abs(one - size) < Math.abs(best - size) ? one : best
    );
    return TEXT_SIZES[TEXT_SIZES.indexOf(nearest) + step] ?? nearest;
  }
  function makeTextSize(root, resized) {
    const html = document.documentElement;
    function apply(size) {
      html.style.fontSize = `${size * 100}%`;
    }
    function change(step) {
      const size = nextSize(Number.parseFloat(getComputedStyle(html).fontSize) / 16, step);
      apply(size);
      try {
        localStorage.setItem(SIZE_KEY, String(size));
      } catch {
      }
      dispatchEvent(new Event("resize"));
      resized();
    }
    try {
      const stored2 = Number(localStorage.getItem(SIZE_KEY));
      if (TEXT_SIZES.includes(stored2)) apply(stored2);
    } catch {
    }
    const [larger, smaller] = [() => change(1), () => change(-1)];
    find(root, "dialog .larger").addEventListener("click", larger);
    find(root, "dialog .smaller").addEventListener("click", smaller);
    return { larger, smaller };
  }
  function makeVeil(root, lifted) {
    const veil = find(root, ".veil");
    const words = find(veil, "p");
    const switchButton = findAs(root, ".predict-button", HTMLButtonElement);
    const showButton = makeButton("show-replies", "Show both replies (v)");
    let on = false;
    veil.append(showButton);
    function setVeiled(veiled) {
      const [was, had] = [!veil.hidden, veil.contains(document.activeElement)];
      root.classList.toggle("veiled", veiled);
      veil.hidden = !veiled;
      if (!veiled) dispatchEvent(new Event("resize"));
      if (had) find(root, ".log").focus();
      if (was && !veiled) lifted();
    }
    function setOn(value) {
      on = value;
      switchButton.setAttribute("aria-pressed", String(on));
    }
    function toggle() {
      if (root.classList.contains("veiled")) setVeiled(false);
      else setOn(!on);
    }
    switchButton.addEventListener("click", () => {
      setOn(!on);
      if (!on) setVeiled(false);
    });
    showButton.addEventListener("click", () => setVeiled(false));
    setOn(false);
    return {
      toggle,
      get shown() {
        return !veil.hidden;
      },
      lift: () => setVeiled(false),
      /** A turn begins. */
      turnBegins() {
        if (!on) return;
        words.textContent = WRITING;
        setVeiled(true);
      },
      /** All its replies have ended. */
      turnEnds() {
        words.textContent = READY;
      }
    };
  }

  // src/replay.js
  var REPLAY_PAUSE_MS = 900;
  var REPLAY_STEP_MS = 40;
  var REPLAY_WAIT_MS = 500;
  var REPLAY_BACK_MS = 1500;
  var OPTION_LENGTH = 30;
  function timeline(data) {
    const branches = (
      /** @type {[Branch, ReplyData][]} */
      Object.entries(data.branches ?? {})
    );
    const all = branches.flatMap(
      ([branch, reply]) => (reply.tokens ?? []).map((token, n) => ({ branch, token, at: token.m ?? n * REPLAY_STEP_MS }))
    );
    all.sort((a, b) => a.at - b.at);
    const skipped = Math.max(0, (all[0]?.at ?? 0) - REPLAY_WAIT_MS);
    return all.map((one) => ({ ...one, at: one.at - skipped }));
  }
  var Playback = class {
    /**
     * @param {TurnData[]} turns
     * @param {PlaybackHooks} hooks
     */
    constructor(turns, hooks) {
      this.turns = turns;
      this.hooks = hooks;
      this.before = [0];
      for (const [n, turn] of turns.entries()) this.before.push((this.before[n] ?? 0) + timeline(turn).length);
      this.total = Math.max(1, this.before.at(-1) ?? 0);
      this.played = this.total;
      this.turn = Math.max(0, turns.length - 1);
      this.next = 0;
      this.clock = 0;
      this.turnEnded = false;
      this.tokens = [];
    }
    get ended() {
      return this.played >= this.total;
    }
    end() {
      this.played = this.total;
      this.turn = Math.max(0, this.turns.length - 1);
    }
    /**
     * Goes on from the beginning of a turn.
     * @param {number} turn
     */
    jump(turn) {
      if (!this.turns[turn]) return;
      this.hooks.goTo(turn);
      this.startTurn(turn);
    }
    /** The turn to which going back leads: the beginning of this one, or the one before. */
    get previous() {
      const begun = this.ended || this.clock > REPLAY_BACK_MS;
      return Math.max(0, this.turn - (begun ? 0 : 1));
    }
    /** @param {number} turn */
    startTurn(turn) {
      const data = this.turns[turn];
      if (!data) return;
      this.tokens = timeline(data);
      this.played = this.before[turn] ?? 0;
      Object.assign(this, { turn, next: 0, clock: 0, turnEnded: false });
      this.hooks.startTurn(turn, data);
    }
    /**
     * Plays what has come due. False when the recording is over.
     * @param {number} milliseconds since the last call, at the speed of the recording
     */
    advance(milliseconds) {
      this.clock += milliseconds;
      for (let due = this.tokens[this.next]; due && due.at <= this.clock; due = this.tokens[this.next]) {
        this.next += 1;
        this.hooks.addToken(this.turn, due.branch, due.token);
        this.played += 1;
      }
      return this.next < this.tokens.length || this.endTurn();
    }
    /** Called again and again after a turn's last token, until the pause before the next turn is over. */
    endTurn() {
      const data = this.turns[this.turn];
      const hasJustEnded = !this.turnEnded;
      if (hasJustEnded && data) this.hooks.endTurn(this.turn, data);
      this.turnEnded = true;
      if (this.turn + 1 >= this.turns.length) {
        this.end();
        return false;
      }
      if (hasJustEnded) return true;
      if (this.clock > (this.tokens.at(-1)?.at ?? 0) + REPLAY_PAUSE_MS) this.startTurn(this.turn + 1);
      return true;
    }
  };
  function turnName({ user }, index) {
    const text = user.replace(/\s+/g, " ").trim();
    const short = text.length > OPTION_LENGTH ? `${text.slice(0, OPTION_LENGTH)}…` : text;
    return `turn ${index + 1}: ${short}`;
  }
  function makeReplay(root, hooks) {
    const controls = find(root, ".replay");
    const playButton = find(controls, ".play");
    const speed = findAs(controls, ".speed", HTMLSelectElement);
    const turnList = findAs(controls, ".jump", HTMLSelectElement);
    const back = findAs(controls, ".previous-turn", HTMLButtonElement);
    const forward = findAs(controls, ".next-turn", HTMLButtonElement);
    const progress = findAs(controls, "progress", HTMLProgressElement);
    let playback = new Playback([], hooks);
    let playing = false;
    let held = false;
    let last = 0;
    let frame = 0;
    function updateControls() {
      const paused = playback.played > 0 && !playback.ended;
      playButton.textContent = playing ? "Pause" : paused ? "Resume" : "Replay";
      progress.value = playback.played;
      turnList.value = String(playback.turn);
      forward.disabled = playback.turn + 1 >= playback.turns.length;
    }
    function load(turns) {
      stop();
      playback = new Playback(turns, hooks);
      controls.hidden = turns.length === 0;
      progress.max = playback.total;
      turnList.replaceChildren(...turns.map((turn, n) => new Option(turnName(turn, n), String(n))));
      updateControls();
    }
    function stop() {
      playing = held = false;
      cancelAnimationFrame(frame);
    }
    function step(now) {
      const more = playback.advance((now - last) * Number(speed.value));
      last = now;
      if (!more) stop();
      updateControls();
      if (playing) frame = requestAnimationFrame(step);
    }
    function play() {
      if (!playing) {
        last = performance.now();
        frame = requestAnimationFrame(step);
      }
      playing = true;
      updateControls();
    }
    function toggle() {
      if (!playback.turns.length) return;
      if (!playing) {
        if (playback.ended) playback.jump(0);
        play();
        return;
      }
      stop();
      updateControls();
    }
    function hold() {
      if (!playing || playback.turn + 1 >= playback.turns.length) return;
      stop();
      held = true;
      updateControls();
    }
    function goOn() {
      if (held) play();
      held = false;
    }
    function playFrom(turn) {
      playback.jump(turn);
      play();
    }
    function showAll() {
      stop();
      playback.end();
      hooks.showAll();
      updateControls();
    }
    playButton.addEventListener("click", toggle);
    back.addEventListener("click", () => playFrom(playback.previous));
    forward.addEventListener("click", () => playFrom(playback.turn + 1));
    turnList.addEventListener("change", () => playFrom(Number(turnList.value)));
    find(controls, ".all").addEventListener("click", showAll);
    return { load, toggle, hold, goOn };
  }

  // src/system_prompt.js
  function makeSystemPrompt(save) {
    const element2 = makeElement("div", "system");
    element2.hidden = true;
    function show({ first, next, own, editable }) {
      if (element2.querySelector("form")) return;
      element2.hidden = !editable && !first.trim();
      const line = makeElement("p", "text");
      const label = own ? "System prompt of this pane: " : "System prompt: ";
      line.append(makeElement("span", "label", label), describePrompt(first));
      element2.replaceChildren(line);
      if (next !== null) {
        element2.append(makeElement("p", "next", `From your next message on: ${describePrompt(next)}`));
      }
      if (!editable || own) return;
      const shown = next ?? first;
      const button = makeButton(
        "",
        shown.trim() ? "edit" : "add",
        "Change the system prompt for the next message"
      );
      button.addEventListener("click", () => {
        const words = { label: "System prompt", action: "Use from the next message on", mayBeEmpty: true };
        editText(line, shown, words, save);
      });
      line.append(" ", button);
    }
    return { element: element2, show };
  }
  function makePromptChange(text) {
    return makeElement("p", "system changed", `System prompt from here on: ${describePrompt(text)}`);
  }
  var TYPED_MS = 200;
  function watchPromptBox(typed) {
    let timer = 0;
    let waiting = "";
    const tell = () => {
      clearTimeout(timer);
      timer = 0;
      typed(waiting);
    };
    document.addEventListener("input", ({ target }) => {
      if (!(target instanceof HTMLTextAreaElement) || !target.closest("#system-prompt")) return;
      waiting = target.value;
      clearTimeout(timer);
      timer = window.setTimeout(tell, TYPED_MS);
    });
    document.addEventListener("focusout", () => timer && tell());
  }

  // src/tour.js
  var DONE_KEY = "persona-drift:tour";
  var GAP = 10;
  var STEPS = [
    {
      target: "#stage .panes",
      title: "One model, two replies",
      text: () => `Both panes get the same messages, from the same model with the same random numbers. The right one is capped: a token that drifts too far from ${axisWords().persona} is lifted back to a floor.`
    },
    {
      target: "#stage .chart-panel.wide",
      title: "Where each token lies",
      text: () => `Up is the ${axisWords().side}, down are roles. The dashed line is the uncapped reply, the solid one the capped. The floor is the line at which the cap acts.`
    },
    {
      target: '#stage .pane[data-branch="capped"]',
      title: "Where the cap acted",
      text: () => "A token that the cap has lifted is underlined, and a triangle in the chart. Point at any token for its figures. Where nothing is underlined, the cap left the reply as it was."
    },
    {
      target: "#top",
      title: "Your turn",
      text: () => "Start a scenario, or write a message below. The settings, on the right, move the floor, switch the cap off, and hold the seed and the system prompt."
    }
  ];
  function placeCard(target, card, page) {
    const below = target.bottom + GAP;
    const above = target.top - GAP - card.height;
    const over = Math.min(target.bottom, page.height) - GAP - card.height;
    const top = below + card.height <= page.height ? below : above >= 0 ? above : Math.max(0, over);
    const centred = target.left + (target.width - card.width) / 2;
    return { top, left: Math.max(GAP, Math.min(centred, page.width - card.width - GAP)) };
  }
  function makeTour(root) {
    const card = makeElement("div", "tour");
    const [title2, text, count] = [makeElement("h2"), makeElement("p"), makeElement("span", "tour-count")];
    const [skip, back, next] = [makeButton("", "Skip"), makeButton("", "Back"), makeButton("primary", "Next")];
    const buttons = makeElement("p", "dialog-actions");
    const offers = findAll(root, ".start-tour");
    let target = null;
    let step = 0;
    title2.id = "tour-title";
    card.setAttribute("role", "dialog");
    card.setAttribute("aria-labelledby", title2.id);
    card.hidden = true;
    buttons.append(count, skip, back, next);
    card.append(title2, text, buttons);
    root.append(card);
    const steps = () => STEPS.filter((one) => document.querySelector(one.target));
    function mark(element2) {
      target?.classList.remove("tour-target");
      target = element2;
      target?.classList.add("tour-target");
    }
    function place() {
      if (!target || card.hidden) return;
      const size = { width: card.offsetWidth, height: card.offsetHeight };
      const page = { width: innerWidth, height: innerHeight };
      const { top, left } = placeCard(target.getBoundingClientRect(), size, page);
      Object.assign(card.style, { top: `${top}px`, left: `${left}px` });
    }
    function show(index) {
      const all = steps();
      const one = all[index];
      if (!one) {
        end();
        return;
      }
      step = index;
      mark(document.querySelector(one.target));
      target?.scrollIntoView({ block: "nearest" });
      [title2.textContent, text.textContent] = [one.title, one.text()];
      count.textContent = `${index + 1} of ${all.length}`;
      back.disabled = index === 0;
      next.textContent = index + 1 < all.length ? "Next" : "Done";
      card.hidden = false;
      place();
      next.focus({ preventScroll: true });
    }
    function end() {
      mark(null);
      card.hidden = true;
      for (const offer of offers) if (!offer.closest("dialog")) offer.hidden = true;
      try {
        localStorage.setItem(DONE_KEY, "1");
      } catch {
      }
    }
    function start2() {
      for (const dialog of findAll(root, "dialog[open]")) dialog.close();
      show(0);
    }
    for (const offer of offers) offer.addEventListener("click", start2);
    skip.addEventListener("click", end);
    back.addEventListener("click", () => show(step - 1));
    next.addEventListener("click", () => show(step + 1));
    card.addEventListener("keydown", (event) => {
      const moves = /* @__PURE__ */ new Map([
        ["Escape", end],
        ["ArrowLeft", () => step > 0 && show(step - 1)],
        ["ArrowRight", () => show(step + 1)]
      ]);
      const move = moves.get(event.key);
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      move();
    });
    addEventListener("resize", place);
    addEventListener("scroll", place, { capture: true, passive: true });
    try {
      const seen = localStorage.getItem(DONE_KEY) !== null;
      for (const offer of offers) if (!offer.closest("dialog")) offer.hidden = seen;
    } catch {
    }
  }

  // src/tree.js
  var FILTER_MS = 250;
  var [WIDTH, HEIGHT] = [90, 26];
  var [LOW, HIGH] = [-1, 2];
  function childrenOf(nodes) {
    const children = /* @__PURE__ */ new Map();
    nodes.forEach(({ parent }, index) => {
      const key = parent ?? -1;
      children.set(key, [...children.get(key) ?? [], index]);
    });
    return children;
  }
  var quoted = (text) => `“${shownToken(text).trim()}”`;
  function describePoint(point) {
    if (!point) return "";
    if (!point.branch) return `after turn ${point.turn}`;
    const words = point.words ? quoted(point.words) : "another token";
    return `turn ${point.turn + 1}, ${point.branch}, token ${point.token}: ${quoted(point.was ?? "")} → ${words}`;
  }
  function linePoints(means, turns) {
    const step = turns > 1 ? (WIDTH - 6) / (turns - 1) : 0;
    const height = (mean) => HEIGHT - (Math.min(HIGH, Math.max(LOW, mean)) - LOW) / (HIGH - LOW) * HEIGHT;
    return means.flatMap(
      (mean, n) => mean === null ? [] : [`${(3 + n * step).toFixed(1)},${height(mean).toFixed(1)}`]
    );
  }
  function sparkline({ means }, turns) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("class", "sparkline");
    svg.setAttribute("aria-hidden", "true");
    for (const branch of BRANCHES) {
      const points = linePoints(means[branch] ?? [], turns);
      if (!points.length) continue;
      const line = document.createElementNS(svg.namespaceURI, "polyline");
      line.setAttribute("class", branch);
      line.setAttribute("points", points.join(" "));
      const [x = "0", y = "0"] = (points.at(-1) ?? "").split(",");
      const end = document.createElementNS(svg.namespaceURI, "circle");
      for (const [name, value] of Object.entries({ class: branch, cx: x, cy: y, r: "2.5" }))
        end.setAttribute(name, value);
      svg.append(line, end);
    }
    return svg;
  }
  var countTurns = ({ means }) => Math.max(0, ...Object.values(means).map((all) => all.length));
  function lastMeans({ means }) {
    const parts = BRANCHES.flatMap((branch) => {
      const last = (means[branch] ?? []).filter((mean) => mean !== null).at(-1);
      return last === void 0 ? [] : [`${branch} ${number(last)}`];
    });
    return parts.join(", ") || "no replies yet";
  }
  function keepFocus(list, build) {
    const controls = () => findAll(list, "button, input");
    const focused = document.activeElement;
    const at = focused instanceof HTMLElement ? controls().indexOf(focused) : -1;
    const before = controls()[at];
    const typed = before instanceof HTMLInputElement ? before.value : null;
    build();
    const after = controls()[at];
    if (!after) return;
    after.focus();
    if (after instanceof HTMLInputElement && typed !== null) after.value = typed;
  }
  function makeTree(root, sendRequest, compare) {
    const dialog = findAs(root, "dialog.forks", HTMLDialogElement);
    const list = find(dialog, ".tree");
    const words = findAs(dialog, ".tree-words", HTMLInputElement);
    const below = findAs(dialog, ".tree-below", HTMLInputElement);
    const starred = findAs(dialog, ".tree-starred", HTMLInputElement);
    const button = find(root, ".tree-button");
    let timer = 0;
    wireDialog(dialog);
    function filter() {
      const limit = below.value.trim() === "" ? null : below.valueAsNumber;
      return { words: words.value, below: Number.isNaN(limit) ? null : limit };
    }
    const ask = () => sendRequest("tree", filter());
    function open() {
      if (button.hidden || root.classList.contains("veiled")) return;
      ask();
      if (!dialog.open) dialog.showModal();
    }
    function starAndNote(node, index) {
      const box = makeElement("span", "notes-of");
      const star = makeButton("star", node.star ? "starred" : "star", "Star this conversation");
      star.setAttribute("aria-pressed", String(node.star));
      const note = makeElement("input");
      note.type = "text";
      note.value = node.note;
      note.placeholder = "note";
      note.maxLength = 2e3;
      note.setAttribute("aria-label", `Note on ${node.title}`);
      const save = (marked) => sendRequest("note", { conversation: index, star: Number(marked), note: note.value, ...filter() });
      star.addEventListener("click", () => save(!node.star));
      note.addEventListener("change", () => save(node.star));
      note.addEventListener("keydown", (event) => event.stopPropagation());
      box.append(star, note);
      return box;
    }
    function row(node, index, { current, turns, comparable }) {
      const line = makeElement("div", "tree-row");
      const found = node.found && (node.star || !starred.checked);
      line.classList.toggle("not-found", !found);
      line.classList.toggle("current", index === current);
      const select = makeButton("", node.title, `Show conversation ${index + 1}: ${node.title}`);
      if (index === current) select.setAttribute("aria-current", "true");
      select.addEventListener("click", () => {
        dialog.close();
        if (index !== current) sendRequest("switch", { conversation: index });
      });
      const where = makeElement("span", "where", describePoint(node.point));
      line.append(select, where, sparkline(node, turns), makeElement("span", "means", lastMeans(node)));
      if (comparable && index !== current && countTurns(node)) {
        const beside = makeButton("", "compare", `Compare ${node.title} with the conversation that is shown`);
        beside.addEventListener("click", () => {
          dialog.close();
          compare(node.id);
        });
        line.append(beside);
      }
      if (!found) line.append(makeElement("span", "hidden-status", "(not among those found)"));
      line.append(starAndNote(node, index));
      return line;
    }
    function show({ nodes, current }) {
      const children = childrenOf(nodes);
      const turns = Math.max(0, ...nodes.map(countTurns));
      const shown = nodes[current];
      const comparable = shown !== void 0 && countTurns(shown) > 0;
      const branch = (parent) => {
        const items = makeElement("ul");
        for (const index of children.get(parent) ?? []) {
          const node = nodes[index];
          if (!node) continue;
          const item = makeElement("li");
          item.append(row(node, index, { current, turns, comparable }));
          if (children.has(index)) item.append(branch(index));
          items.append(item);
        }
        return items;
      };
      keepFocus(list, () => list.replaceChildren(branch(-1)));
      const count = nodes.filter(({ found, star }) => found && (star || !starred.checked)).length;
      find(dialog, ".tree-count").textContent = `${count} of ${nodes.length} conversations`;
    }
    const later = () => {
      clearTimeout(timer);
      timer = window.setTimeout(ask, FILTER_MS);
    };
    for (const input of [words, below]) {
      input.addEventListener("input", later);
      input.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
    }
    starred.addEventListener("change", ask);
    button.addEventListener("click", open);
    return {
      show,
      open,
      /** @param {number} count of open conversations */
      offer: (count) => {
        button.hidden = count < 2 || !sendRequest.available;
      }
    };
  }

  // src/axes.js
  function drawnRange(element2, name) {
    const { _fullLayout: drawn } = (
      /** @type {{ _fullLayout?: Record<string, { range?: unknown }> }} */
      /** @type {unknown} */
      element2
    );
    return drawn?.[name]?.range;
  }
  function asRange(value) {
    if (!Array.isArray(value) || value.length !== 2) return null;
    const [low, high] = value.map(Number);
    return low !== void 0 && high !== void 0 && low !== high && Number.isFinite(low + high) ? [low, high] : null;
  }
  function scaleOf([first, last], length, upwards) {
    return (value) => {
      const along2 = (value - first) / (last - first) * length;
      return upwards ? length - along2 : along2;
    };
  }
  function plottingArea({ width, height }, margin) {
    const [left, top] = [Math.round(margin.l), Math.round(margin.t)];
    return {
      left,
      top,
      width: Math.round(width) - left - Math.round(margin.r),
      height: Math.round(height) - top - Math.round(margin.b)
    };
  }
  function axesOf(element2) {
    const picture = element2.querySelector("svg");
    const layout = (
      /** @type {ChartLayout | undefined} */
      element2.layout
    );
    if (!picture || !layout) return null;
    const side = (name) => Number(picture.getAttribute(name));
    const size = { width: side("width"), height: side("height") };
    const area = plottingArea(size, layout.margin);
    const axis = (name) => {
      const vertical = name === "yaxis";
      const range = asRange(drawnRange(element2, name)) ?? asRange(layout[name].range) ?? [0, 1];
      const length = vertical ? area.height : area.width;
      const auto = Boolean(layout[name].autorange);
      const start2 = vertical ? area.top : area.left;
      return { range, auto, start: start2, length, pixel: scaleOf(range, length, vertical) };
    };
    return { x: axis("xaxis"), y: axis("yaxis") };
  }

  // src/marks.js
  var LINE_SPACING = 1.3;
  var PADDING = 2;
  function spread(labels, length) {
    const order = [...labels.keys()].sort((a, b) => (labels[a]?.centre ?? 0) - (labels[b]?.centre ?? 0));
    const stacks = [];
    for (const index of order) {
      const { centre, height } = (
        /** @type {Label} */
        labels[index]
      );
      let stack = { labels: [index], wish: centre - height / 2, top: 0, height };
      for (; ; ) {
        const mean = stack.wish / stack.labels.length;
        stack.top = Math.max(0, Math.min(mean, length - stack.height));
        const above = stacks.at(-1);
        if (!above || above.top + above.height <= stack.top) break;
        stacks.pop();
        const wish = above.wish + stack.wish - above.height * stack.labels.length;
        stack = {
          labels: [...above.labels, ...stack.labels],
          wish,
          top: 0,
          height: above.height + stack.height
        };
      }
      stacks.push(stack);
    }
    const centres = labels.map(() => 0);
    for (const stack of stacks) {
      let { top } = stack;
      for (const index of stack.labels) {
        const { height } = (
          /** @type {Label} */
          labels[index]
        );
        centres[index] = top + height / 2;
        top += height;
      }
    }
    return centres;
  }
  var lineOf = ({ value, yref, y }) => value ?? (yref === "paper" ? null : y);
  function placedNotes(notes, y, size) {
    const inSight = notes.filter((note) => {
      const value = lineOf(note);
      return value !== null && value >= y.range[0] && value <= y.range[1];
    });
    const labels = inSight.map((note) => {
      const lines = note.text.split("<br>").length;
      return { centre: y.pixel(lineOf(note) ?? 0), height: lines * size * LINE_SPACING + PADDING };
    });
    const centres = spread(labels, y.length);
    return notes.map((note) => {
      const value = lineOf(note);
      if (value === null) return note;
      const n = inSight.indexOf(note);
      const share = n < 0 ? 0 : Number((1 - (centres[n] ?? 0) / y.length).toFixed(4));
      return { ...note, value, yref: "paper", y: share, yanchor: "middle", visible: n >= 0 };
    });
  }
  function placedBands(shapes, y, zones) {
    if (!zones) return shapes;
    const [low, high] = y.range;
    const share = (value) => Number(Math.max(0, Math.min(1, (value - low) / (high - low))).toFixed(4));
    return shapes.map((shape) => {
      if (shape.name === "band-role") return { ...shape, y0: 0, y1: share(zones.low) };
      return shape.name === "band-assistant" ? { ...shape, y0: share(zones.high), y1: 1 } : shape;
    });
  }

  // src/chart.js
  var NARROW_PX = 360;
  var NARROW_MARGIN = 76;
  var PALETTE = [
    "uncapped",
    "capped",
    "steered",
    "card",
    "text",
    "muted",
    "grid",
    "border",
    "role-low",
    "role-mid",
    "role-high"
  ];
  function chartButtons() {
    const svg = {
      name: "Download plot as an SVG",
      icon: Plotly.Icons.disk,
      click: (element2) => {
        Plotly.downloadImage(element2, { format: "svg", filename: "persona-drift" });
      }
    };
    return [["toImage", svg, "zoom2d", "pan2d", "resetScale2d"]];
  }
  function palette(root) {
    const style = getComputedStyle(root);
    const colours = PALETTE.map((name) => [name, style.getPropertyValue(`--stage-${name}`).trim()]);
    return { ...Object.fromEntries(colours), size: Number.parseFloat(style.fontSize) };
  }
  function themedLayout(base2, colours, narrow) {
    const { shapes, annotations, margin, font, xaxis, yaxis } = structuredClone(base2);
    const small = Math.max(10, colours.size * 0.75);
    const scale = small / 12;
    const right = narrow ? NARROW_MARGIN : margin.r;
    for (const axis of [xaxis, yaxis]) axis.title.font = { size: small, color: colours.muted };
    for (const shape of shapes) {
      if (shape.type === "line")
        shape.line.color = shape.name === "line-floor" ? colours.capped : colours.muted;
      else shape.fillcolor = shape.name === "band-role" ? colours["role-low"] : colours["role-high"];
    }
    for (const note of annotations) {
      const floor = note.name === "label-floor";
      note.font = { size: small, color: floor ? colours.capped : colours.muted };
      if (narrow && note.yref !== "paper") note.text = note.text.replace(/ /g, "<br>");
    }
    return {
      shapes,
      annotations,
      margin: { l: margin.l * scale, r: right * scale, t: margin.t * scale, b: margin.b * scale },
      font: { ...font, size: small, color: colours.muted },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
      titles: { xaxis: xaxis.title, yaxis: yaxis.title },
      hoverlabel: {
        bgcolor: colours.card,
        bordercolor: colours.border,
        align: "left",
        font: { family: font.family, color: colours.text, size: small + 1 }
      }
    };
  }
  function colourTrace(trace, colours) {
    const colour = trace.meta.branch ? colours[trace.meta.branch] : colours.muted;
    if (trace.line) trace.line.color = colour;
    if (!trace.marker) return;
    trace.marker.color = colour;
    if (trace.marker.line) trace.marker.line.color = colours.card;
  }
  function makeChart(element2, root, config) {
    let state = "empty";
    let narrow = false;
    let colours = palette(root);
    const traces = () => (
      /** @type {ChartTrace[]} */
      element2.data ?? []
    );
    const layoutOf = () => (
      /** @type {ChartLayout | undefined} */
      element2.layout
    );
    function applyTheme(figure, data, layout) {
      colours = palette(root);
      narrow = element2.offsetWidth < NARROW_PX;
      const { titles, ...rest } = themedLayout(figure.layout, colours, narrow);
      Object.assign(layout, rest);
      Object.assign(layout.xaxis, { title: titles.xaxis, gridcolor: colours.grid });
      Object.assign(layout.yaxis, { title: titles.yaxis, gridcolor: colours.grid });
      for (const trace of data) colourTrace(trace, colours);
      Object.assign(layout, arranged(layout));
    }
    function arranged({ shapes, annotations, meta, font }) {
      const axes = state === "ready" ? axesOf(element2) : null;
      if (!axes) return { shapes, annotations };
      return {
        shapes: placedBands(shapes, axes.y, meta.zones),
        annotations: placedNotes(annotations, axes.y, font.size)
      };
    }
    let base2 = null;
    async function draw(figure, fill) {
      state = "drawing";
      base2 = figure;
      const { data, layout } = structuredClone(figure);
      applyTheme(figure, data, layout);
      if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
      fill(data);
      const { offsetWidth, offsetHeight } = element2;
      await Plotly.newPlot(element2, data, layout, { ...config, modeBarButtons: chartButtons() });
      state = "ready";
      if (element2.offsetWidth !== offsetWidth || element2.offsetHeight !== offsetHeight) resize();
      arrangeMarks();
    }
    function arrangeMarks() {
      const layout = layoutOf();
      if (state !== "ready" || !layout) return;
      const { shapes, annotations } = layout;
      const wanted = arranged(layout);
      if (JSON.stringify(wanted) !== JSON.stringify({ shapes, annotations })) Plotly.relayout(element2, wanted);
    }
    function repaint() {
      const layout = layoutOf();
      if (state !== "ready" || !base2 || !layout) return;
      applyTheme(base2, traces(), layout);
      Plotly.redraw(element2);
    }
    function relabel(figure) {
      base2 = figure;
      const layout = layoutOf();
      if (layout) layout.meta = figure.layout.meta;
      repaint();
    }
    function resize() {
      if (state !== "ready" || element2.offsetWidth === 0) return;
      if (narrow !== element2.offsetWidth < NARROW_PX) repaint();
      Plotly.Plots.resize(element2);
    }
    function traceIndex(role, branch) {
      return traces().findIndex((trace) => trace.meta.role === role && trace.meta.branch === branch);
    }
    new ResizeObserver(() => requestAnimationFrame(resize)).observe(element2);
    return {
      element: element2,
      traces,
      layout: layoutOf,
      draw,
      relabel,
      repaint,
      arrangeMarks,
      traceIndex,
      colours: () => colours,
      ready: () => state === "ready"
    };
  }

  // src/overlay.js
  var MARKER_SHAPES = {
    circle: [],
    // an arc
    diamond: [
      [0, -1.3],
      [1.3, 0],
      [0, 1.3],
      [-1.3, 0]
    ],
    square: [
      [-1, -1],
      [1, -1],
      [1, 1],
      [-1, 1]
    ],
    "triangle-up": [
      [0, -1],
      [1.15, 0.58],
      [-1.15, 0.58]
    ]
  };
  function outlineMarker(context, name, x, y, radius) {
    context.beginPath();
    if (name === "circle") context.arc(x, y, radius, 0, 2 * Math.PI);
    else for (const [dx, dy] of MARKER_SHAPES[name] ?? []) context.lineTo(x + dx * radius, y + dy * radius);
    context.closePath();
  }
  var inside = ({ auto, range }, value) => !auto || value === null || value === void 0 || value >= range[0] && value <= range[1];
  function fitsAxes(axes, series, from) {
    for (let n = from; n < series.x.length; n += 1) {
      if (!inside(axes.x, series.x[n]) || !inside(axes.y, series.y[n])) return false;
    }
    return true;
  }
  function pixelsOf(axes, series, n) {
    const [x, y] = [series.x[n] ?? null, series.y[n] ?? null];
    return x === null || y === null ? null : [axes.x.pixel(x), axes.y.pixel(y)];
  }
  var dashesOf = (dash) => dash?.match(/[\d.]+/g)?.map(Number) ?? [];
  function makeOverlay(chart) {
    const canvas = makeElement("canvas", "overlay");
    canvas.setAttribute("aria-hidden", "true");
    chart.element.after(canvas);
    const context = canvas.getContext("2d");
    let axes = null;
    let colours = chart.colours();
    let lengths = /* @__PURE__ */ new Map();
    function clear() {
      axes = axesOf(chart.element);
      if (!axes || !context) return;
      const { x, y } = axes;
      const pixelRatio = window.devicePixelRatio || 1;
      colours = chart.colours();
      lengths = /* @__PURE__ */ new Map();
      canvas.width = Math.round(x.length * pixelRatio);
      canvas.height = Math.round(y.length * pixelRatio);
      const { offsetLeft, offsetTop } = chart.element;
      Object.assign(canvas.style, {
        left: `${offsetLeft + x.start}px`,
        top: `${offsetTop + y.start}px`,
        width: `${x.length}px`,
        height: `${y.length}px`
      });
      context.scale(pixelRatio, pixelRatio);
      context.lineCap = "butt";
      context.lineJoin = "round";
    }
    function drawLine(context2, axes2, trace, series, from) {
      const { color, width, dash } = trace.line;
      let length = lengths.get(trace) ?? 0;
      let last = null;
      context2.globalAlpha = trace.opacity ?? 1;
      context2.strokeStyle = color;
      context2.lineWidth = width;
      context2.setLineDash(dashesOf(dash));
      context2.lineDashOffset = length;
      context2.beginPath();
      for (let n = Math.max(0, from - 1); n < series.x.length; n += 1) {
        const here = pixelsOf(axes2, series, n);
        if (here && last) length += Math.hypot(here[0] - last[0], here[1] - last[1]);
        if (here && last) context2.lineTo(...here);
        else if (here) context2.moveTo(...here);
        last = here;
      }
      context2.stroke();
      context2.setLineDash([]);
      lengths.set(trace, length);
    }
    function drawMarkers(context2, axes2, series, from, { symbol, size, opacity, color, line: edge }) {
      const open = symbol.endsWith("-open");
      const shape = symbol.replace("-open", "");
      context2.globalAlpha = opacity ?? 1;
      context2.fillStyle = context2.strokeStyle = color;
      context2.lineWidth = edge?.width || 1;
      for (let n = from; n < series.x.length; n += 1) {
        const here = pixelsOf(axes2, series, n);
        if (!here) continue;
        outlineMarker(context2, shape, ...here, size / 2);
        if (!open) context2.fill();
        if (edge?.width) context2.strokeStyle = open ? color : colours.card;
        if (open || edge?.width) context2.stroke();
      }
    }
    function draw(trace, series, from, marker = trace.marker) {
      if (!context || !axes) return;
      if (trace.mode.includes("lines")) drawLine(context, axes, trace, series, from);
      if (trace.mode.includes("markers") && marker) drawMarkers(context, axes, series, from, marker);
      context.globalAlpha = 1;
    }
    const fits = (series, from) => !axes || fitsAxes(axes, series, from);
    return { clear, draw, fits };
  }

  // src/token_chart.js
  var CATCH_UP_MS = 700;
  var TOKEN_AXIS = { initial: 48, growth: 1.5, spare: 4 };
  function tokenAxisLength(turn) {
    if (!turn || !turnIsLive(turn)) return TOKEN_AXIS.initial;
    const longest = Math.max(...BRANCHES.map((branch) => turn.replies[branch].visibleTokens.length));
    let length = TOKEN_AXIS.initial;
    while (length < longest + TOKEN_AXIS.spare) length = Math.ceil(length * TOKEN_AXIS.growth);
    return length;
  }
  function seriesOf(turn, { meta: { role, branch } }) {
    return branch ? turn?.replies[branch].series[
      /** @type {SeriesRole} */
      role
    ] : void 0;
  }
  function fillTokens(data, turn) {
    return data.map((trace) => {
      if (trace.meta.role === "frame") {
        trace.x[1] = tokenAxisLength(turn);
        return 0;
      }
      const series = seriesOf(turn, trace);
      trace.x = series?.x.slice() ?? [];
      trace.y = series?.y.slice() ?? [];
      trace.customdata = series?.customdata.slice() ?? [];
      return trace.x.length;
    });
  }
  function makeTokenChart(chart) {
    const overlay = makeOverlay(chart);
    let turn = null;
    let stale = false;
    let committed = [];
    let drawn = [];
    let caughtUpAt = 0;
    let awaited = null;
    const axisEnd = () => chart.traces().find((trace) => trace.meta.role === "frame")?.x[1] ?? 0;
    function fill(data) {
      stale = false;
      committed = fillTokens(data, turn);
      drawn = committed.slice();
    }
    function show(next) {
      turn = next;
      stale = true;
      awaited = null;
    }
    function commit() {
      fill(chart.traces());
      Plotly.redraw(chart.element);
      redrawOverlay();
      return true;
    }
    function redrawOverlay() {
      overlay.clear();
      drawn = committed.slice();
      if (!stale) drawNew();
      if (awaited && !stale) requestAnimationFrame(markAwaited);
    }
    function markAwaited() {
      if (awaited) hover(awaited.branch, awaited.position);
    }
    function drawNew() {
      let changed2 = false;
      chart.traces().forEach((trace, index) => {
        const series = seriesOf(turn, trace);
        if (!series || series.x.length === drawn[index]) return;
        overlay.draw(trace, series, drawn[index] ?? 0);
        drawn[index] = series.x.length;
        changed2 = true;
      });
      return changed2;
    }
    const fits = () => chart.traces().every((trace, n) => {
      const series = seriesOf(turn, trace);
      return !series || overlay.fits(series, drawn[n] ?? 0);
    });
    const hasUncommitted = () => chart.traces().some((trace, n) => (seriesOf(turn, trace)?.x.length ?? 0) > (committed[n] ?? 0));
    function advance() {
      if (stale) return commit();
      if (turn && turnIsLive(turn)) return fits() ? drawNew() : commit();
      return (hasUncommitted() || axisEnd() > tokenAxisLength(turn)) && commit();
    }
    function catchUp() {
      if (!chart.ready() || stale || !hasUncommitted() || performance.now() - caughtUpAt < CATCH_UP_MS) return;
      caughtUpAt = performance.now();
      commit();
    }
    function hover(branch, position) {
      const waits = !chart.ready() || stale;
      awaited = waits && position !== null ? { branch, position } : null;
      if (waits) return;
      if (position !== null) catchUp();
      const reply = turn?.replies[branch];
      const token = position === null ? void 0 : reply?.visibleTokens[position - 1];
      const role = token?.r ? "reasoning-raw" : "raw";
      const curveNumber = chart.traceIndex(role, branch);
      const pointNumber = position === null ? -1 : reply?.series[role].x.indexOf(position) ?? -1;
      if (pointNumber < 0) Plotly.Fx.unhover(chart.element);
      else if (pointNumber < (committed[curveNumber] ?? 0))
        Plotly.Fx.hover(chart.element, [{ curveNumber, pointNumber }]);
    }
    chart.element.addEventListener("pointermove", catchUp);
    function count(branch) {
      const drawnIn = (role) => drawn[chart.traceIndex(role, branch)] ?? 0;
      return chart.ready() ? drawnIn("raw") + drawnIn("reasoning-raw") : 0;
    }
    return { fill, show, advance, redrawOverlay, hover, count };
  }

  // src/turn_chart.js
  var REASONING_OFFSET = -0.15;
  var SPREAD_OFFSETS = { uncapped: -0.05, capped: 0.05, steered: 0 };
  var TURN_MARGIN = 0.25;
  function spreadPoints(turns, branch) {
    return turns.flatMap((turn, index) => {
      const { samples } = turn.replies[branch];
      const x = index + 1 + SPREAD_OFFSETS[branch];
      const others = samples.flatMap(
        ({ mean, text }) => typeof mean === "number" ? [{ x, y: mean, text: tokenLabel(text) }] : []
      );
      const drawn = meanOf(turn.replies[branch]);
      if (!others.length || drawn === null) return [];
      const all = [...others, { x, y: drawn, text: "the reply that is shown" }];
      return [...all.sort((a, b) => a.y - b.y), { x: null, y: null, text: null }];
    });
  }
  function intervalPoints(turns, branch) {
    return turns.flatMap((turn, index) => {
      const { seedMean } = turn.replies[branch];
      if (!seedMean) return [];
      const [x, text] = [index + 1 + SPREAD_OFFSETS[branch], describeSeeds(seedMean)];
      const ends = [seedMean.low, seedMean.mean, seedMean.high].map((y) => ({ x, y, text }));
      return [...ends, { x: null, y: null, text: null }];
    });
  }
  function replyPoints(turns, branch, shown) {
    const points = turns.map((turn, index) => {
      const reply = turn.replies[branch];
      const y = reply.absent || isLive(reply) ? null : meanOf(reply);
      return { x: index + 1, y, size: index === shown ? 13 : 9 };
    });
    const measured = points.map(({ y }) => y !== null);
    return measured.includes(true) ? points.slice(measured.indexOf(true), measured.lastIndexOf(true) + 1) : [];
  }
  function reasoningPoints(turns, branch) {
    return turns.flatMap((turn, index) => {
      const y = isLive(turn.replies[branch]) ? null : reasoningMeanOf(turn.replies[branch]);
      return y === null ? [] : [{ x: index + 1 + REASONING_OFFSET, y }];
    });
  }
  function userPoints(turns, branch) {
    return turns.flatMap((turn, index) => {
      const y = turn.replies[branch].userMean;
      return y === null ? [] : [{ x: index + 1, y }];
    });
  }
  function plainPoints(turns, branch) {
    return turns.map((turn, index) => ({ x: index + 1, y: turn.replies[branch].plainMean }));
  }
  function secondPoints(turns, branch, shown) {
    const name = turns[shown ?? turns.length - 1]?.settings?.second;
    return turns.map((turn, index) => {
      const { along: along2, second } = turn.replies[branch];
      const same = name !== void 0 && turn.settings?.second === name;
      return { x: index + 1, y: same ? along2[second] ?? null : null };
    });
  }
  var POINTS = {
    user: userPoints,
    reasoning: reasoningPoints,
    reply: replyPoints,
    plain: plainPoints,
    second: secondPoints
  };
  var NO_OTHER = { title: "", turns: [] };
  function fillCompared(trace, branch, { title: title2, turns }) {
    const points = replyPoints(turns, branch, null);
    trace.x = points.map((point) => point.x);
    trace.y = points.map((point) => point.y);
    trace.customdata = points.map(() => escapeHtml(title2));
  }
  function fillTurns(data, turns, shown, other = NO_OTHER) {
    for (const trace of data) {
      const { role, branch } = trace.meta;
      if (!branch) trace.x[1] = Math.max(4.4, turns.length + 0.4, other.turns.length + 0.4);
      else if (role === "compared") fillCompared(trace, branch, other);
      else if (role === "spread" || role === "interval") {
        const points = (role === "spread" ? spreadPoints : intervalPoints)(turns, branch);
        trace.x = points.map((point) => point.x);
        trace.y = points.map((point) => point.y);
        trace.customdata = points.map((point) => point.text);
      } else {
        const points = POINTS[role]?.(turns, branch, shown) ?? [];
        trace.x = points.map((point) => point.x);
        trace.y = points.map((point) => point.y);
        if (role === "reply") trace.marker.size = points.map((point) => point.size);
      }
    }
  }
  function liveSeries(trace, turns) {
    const { role, branch } = trace.meta;
    const reply = branch ? turns.at(-1)?.replies[branch] : void 0;
    if (role !== "reply" || !reply || !isLive(reply)) return null;
    const mean = meanOf(reply);
    if (mean === null) return null;
    const before = trace.x.at(-1) === turns.length - 1 ? -1 : trace.x.length;
    return { x: [...trace.x.slice(before), turns.length], y: [...trace.y.slice(before), mean] };
  }
  function makeTurnChart(chart) {
    const overlay = makeOverlay(chart);
    const state = { turns: [], shown: null, other: NO_OTHER };
    let changed2 = false;
    const fill = (data) => fillTurns(data, state.turns, state.shown, state.other);
    function redraw() {
      changed2 = false;
      fill(chart.traces());
      const layout = chart.layout();
      if (layout)
        layout.xaxis.dtick = Math.ceil(Math.max(1, state.turns.length, state.other.turns.length) / 10);
      Plotly.redraw(chart.element);
      redrawOverlay();
    }
    function redrawOverlay() {
      overlay.clear();
      for (const trace of chart.traces()) {
        const series = liveSeries(trace, state.turns);
        if (!series || !trace.meta.branch) continue;
        const symbol = `${SYMBOLS[trace.meta.branch]}-open`;
        const marker = { symbol, size: 13, color: trace.marker.color, line: { width: 2 } };
        overlay.draw(trace, series, series.x.length - 1, marker);
      }
    }
    function advance() {
      const live = chart.traces().map((trace) => liveSeries(trace, state.turns));
      const outside = live.find((series) => series && !overlay.fits(series, series.x.length - 1));
      const last = outside?.y.at(-1) ?? null;
      if (last !== null) extendAxis(last);
      if (changed2 || outside) redraw();
      else redrawOverlay();
    }
    function extendAxis(y) {
      const frame = chart.traces().find((trace) => trace.meta.role === "frame");
      if (!frame) return;
      const [low, high] = frame.y;
      frame.y = [Math.min(low ?? y, y - TURN_MARGIN), Math.max(high ?? y, y + TURN_MARGIN)];
    }
    function show(turns, shown) {
      Object.assign(state, { turns, shown });
      changed2 = true;
    }
    function compareWith(other) {
      state.other = other ?? NO_OTHER;
      changed2 = true;
    }
    function count(branch) {
      const trace = chart.ready() ? chart.traces()[chart.traceIndex("reply", branch)] : void 0;
      if (!trace) return 0;
      return trace.y.filter((y) => y !== null).length + (liveSeries(trace, state.turns) ? 1 : 0);
    }
    function markChanged() {
      changed2 = true;
    }
    return { fill, show, compareWith, advance, redrawOverlay, count, markChanged };
  }

  // src/charts.js
  var PLOTLY_DEADLINE_MS = 6e4;
  var EVENTS = ["plotly_hover", "plotly_unhover", "plotly_click", "plotly_afterplot", "plotly_relayouting"];
  function whenPlotly(onLoaded, onMissing) {
    const deadline = Date.now() + PLOTLY_DEADLINE_MS;
    (function poll() {
      if (window.Plotly) onLoaded();
      else if (Date.now() > deadline) onMissing();
      else setTimeout(poll, 100);
    })();
  }
  var plotElement = (element2) => (
    /** @type {PlotElement} */
    element2
  );
  function makeCharts(root, hooks) {
    const config = { displaylogo: false, plotlyServerURL: "", responsive: false, doubleClick: "autosize" };
    const tokenBase = makeChart(plotElement(find(root, "#token-chart")), root, config);
    const turnBase = makeChart(plotElement(find(root, "#turn-chart")), root, {
      ...config,
      displayModeBar: false
    });
    const tokenChart = makeTokenChart(tokenBase);
    const turnChart = makeTurnChart(turnBase);
    const state = { figures: null, turns: [] };
    let scheduled = false;
    let updates = 0;
    const ready = () => tokenBase.ready() && turnBase.ready();
    async function start2() {
      if (!window.Plotly || !state.figures) return;
      const { figures } = state;
      await tokenBase.draw(figures.token, tokenChart.fill);
      await turnBase.draw(figures.turn, turnChart.fill);
      if (state.figures !== figures) {
        tokenBase.relabel(state.figures.token);
        turnBase.relabel(state.figures.turn);
      }
      tokenChart.redrawOverlay();
      turnChart.redrawOverlay();
      listen();
      schedule();
    }
    function listen() {
      const token = tokenBase.element;
      const turn = turnBase.element;
      listenTo(tokenBase, tokenChart.redrawOverlay);
      listenTo(turnBase, turnChart.redrawOverlay);
      token.on("plotly_hover", ({ points: [point] }) => point && hooks.highlight(branchOf2(point), point.x));
      token.on("plotly_unhover", () => hooks.highlight(null, null));
      token.on("plotly_click", ({ points: [point] }) => {
        const branch = point && branchOf2(point);
        if (branch) hooks.flash(branch, point.x);
      });
      turn.on("plotly_click", ({ points: [point] }) => point && hooks.selectTurn(Math.round(point.x) - 1));
    }
    function listenTo({ element: element2, arrangeMarks }, redrawOverlay) {
      for (const event of EVENTS) element2.removeAllListeners(event);
      element2.on("plotly_afterplot", () => {
        arrangeMarks();
        redrawOverlay();
      });
      element2.on("plotly_relayouting", redrawOverlay);
    }
    const branchOf2 = (point) => point.data.meta.branch || null;
    function draw() {
      scheduled = false;
      if (!ready()) return;
      if (tokenBase.element.offsetWidth && tokenChart.advance()) updates += 1;
      turnChart.advance();
    }
    function schedule() {
      if (scheduled) return;
      scheduled = true;
      requestAnimationFrame(draw);
    }
    function reset(figures, turns) {
      Object.assign(state, { figures: figures ?? state.figures, turns });
      tokenChart.show(null);
      turnChart.show(turns, null);
      start2();
    }
    function relabel(figures) {
      if (figures === state.figures) return;
      state.figures = figures;
      if (!ready()) return;
      tokenBase.relabel(figures.token);
      turnBase.relabel(figures.turn);
    }
    function show(index) {
      tokenChart.show(state.turns[index] ?? null);
      turnChart.show(state.turns, index);
      schedule();
    }
    function refresh(turnsChanged) {
      if (turnsChanged) turnChart.markChanged();
      schedule();
    }
    function compareWith(other) {
      turnChart.compareWith(other);
      schedule();
    }
    function repaint() {
      tokenBase.repaint();
      turnBase.repaint();
    }
    function counts() {
      return { tokenPoints: byBranch(tokenChart.count), turnPoints: byBranch(turnChart.count), updates };
    }
    whenPlotly(start2, () => hooks.missing());
    return { reset, relabel, show, compareWith, refresh, repaint, counts, hover: tokenChart.hover };
  }

  // src/command.js
  var COMMAND = ["python", "-m", "demo.conversation.again"];
  var MOST_BYTES = 1e5;
  var DTYPES = ["float32", "bfloat16", "float16", "int8"];
  var ENDED = ["stop", "sentence", "length"];
  var CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;
  function quoted2(text) {
    return /^[\w@%+:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
  }
  function shared({ seed, attempt, along: along2, second, ...rest }) {
    return JSON.stringify(Object.entries(rest).sort());
  }
  function hasFlags({ cap, steer, also, only, seeds, own }) {
    const whole = !cap || cap.layers.every((layer, n) => layer === (cap.layers[0] ?? 0) + n);
    const named = !cap || cap.floor_name !== null;
    return whole && named && !steer && !also && !only && !own && seeds === 1;
  }
  var isWord = (text) => !CONTROL.test(text) && new TextEncoder().encode(text).length <= MOST_BYTES;
  var hasEnded = ({ replies }) => BRANCHES.every((branch) => replies[branch].absent || ENDED.includes(replies[branch].finish ?? ""));
  var isWhole = ({ replies, settings }) => BRANCHES.every(
    (branch) => !replies[branch].visibleTokens.some((token) => token.f) && !isContinued(replies[branch], settings)
  );
  var isContinued = ({ absent, limit }, settings) => !absent && limit !== null && settings !== null && limit > settings.max_new_tokens;
  function fitsMessages(turns) {
    const [first] = turns;
    if (!first?.settings) return false;
    const base2 = shared(first.settings);
    const same = turns.every(({ settings }) => settings && !settings.read && shared(settings) === base2);
    const texts = [first.settings.system_prompt, ...turns.map(({ user }) => user)];
    if (!turns.every(isWhole)) return false;
    return same && hasFlags(first.settings) && turns.slice(0, -1).every(hasEnded) && texts.every(isWord);
  }
  function seedsOf(settings) {
    const seeds = settings.map(({ seed }) => seed);
    const grow = seeds.every((seed, n) => seed === (seeds[0] ?? 0) + n);
    return grow ? String(seeds[0]) : seeds.join(",");
  }
  function samplingFlags(settings) {
    const { cap, temperature, top_p, repetition_penalty, max_new_tokens, soft_limit = 0 } = settings;
    const floor = [
      "--floor",
      quoted2(cap?.floor_name ?? ""),
      "--layers",
      `${cap?.layers[0]}-${cap?.layers.at(-1)}`,
      `--only-below=${cap?.only_below ?? "off"}`
      // always, because the axis may have a threshold of its own
    ];
    return [
      ...cap ? floor : ["--no-cap"],
      ...["--temperature", temperature, "--top-p", top_p, "--repetition-penalty", repetition_penalty],
      ...["--tokens", max_new_tokens, "--soft-limit", soft_limit],
      ...settings.thinking ? ["--thinking", "--span", settings.span] : [],
      ...settings.plain ? ["--plain"] : [],
      ...settings.system_prompt ? [`--system=${quoted2(settings.system_prompt)}`] : []
    ].map(String);
  }
  function modelFlags({ made_with: made }) {
    if (!made) return { flags: [], notes: [] };
    const named = [["--model", made.model], ...made.axis ? [["--axis", made.axis]] : []];
    const notes = named.filter(([flag = ""]) => made.local.includes(flag)).map(([flag, name]) => `Put the path of ${name} on your machine after ${flag}.`);
    const flags = named.map(([flag, name]) => `${flag} ${quoted2(name ?? "")}`);
    return { flags: [...flags, ...made.base ? ["--base"] : []], notes };
  }
  var dtypeFlags = ({ dtype }) => DTYPES.includes(dtype) ? ["--dtype", dtype] : [];
  function commandOf(turns, index, meta) {
    const until = turns.slice(0, index + 1);
    const turn = turns[index];
    const settings = turn?.settings;
    const refused = (note) => ({ command: null, notes: [note] });
    if (!turn || !settings) return refused("How this reply was made is not known.");
    if (settings.read) return refused("This reply was read and not made here, so no command makes it again.");
    if (meta.unsaved)
      return refused("This recording cannot be saved here; try it live, and copy the command there.");
    const { flags, notes } = modelFlags(meta);
    const begin = [...COMMAND, ...flags, ...dtypeFlags(settings)];
    if (!hasEnded(turn))
      notes.push("A reply of this turn was stopped here; the command lets it go on to its end.");
    if (BRANCHES.some((branch) => isContinued(turn.replies[branch], settings)))
      notes.push("A reply of this turn was continued here; the command makes its first part.");
    if (meta.made_with && fitsMessages(until)) {
      const all = until.flatMap((one) => one.settings ?? []);
      const date = meta.date ? ["--date", meta.date] : [];
      const words2 = [...begin, "--seed", seedsOf(all), ...date, ...samplingFlags(settings), "--"];
      return { command: [...words2, ...until.map(({ user }) => quoted2(user))].join(" "), notes };
    }
    const file = "Save this session as a session file, and put its path in the place of FILE.";
    const other = `Name the model, ${meta.model ?? "which the file names"}, with --model.`;
    const fork = meta.fork ? ["--fork", String(meta.fork)] : [];
    const words = [...begin, "--session", "FILE", ...fork, "--turn", String(index + 1)];
    return { command: words.join(" "), notes: [file, ...meta.made_with ? [] : [other], ...notes] };
  }

  // src/comparison.js
  var UNLISTED = { Attempt: "1", Thinking: "off", "End at a sentence after": "off" };
  var sideOf = (data, branch) => ({
    title: data.title,
    model: data.model,
    probeLayer: data.probe_layer,
    branch,
    turns: data.turns.map(turnFromData)
  });
  var branchesOf = (turns) => BRANCHES.filter((branch) => turns.some((turn) => !turn.replies[branch].absent));
  var sideName = ({ title: title2, branch }) => `${title2}, ${branch}`;
  var textOf = (reply, reasoning) => reply.visibleTokens.filter((token) => Boolean(token.r) === reasoning).map((token) => token.t).join("");
  function halfOf({ turns, branch }, index) {
    const turn = turns[index];
    if (!turn) return null;
    const reply = turn.replies[branch];
    return { turn, reply: reply.absent ? null : reply };
  }
  var finalMean = (half) => half?.reply && !isLive(half.reply) ? meanOf(half.reply) : null;
  function rowsOf({ left, right, sameAxis }) {
    const count = Math.max(left.turns.length, right.turns.length);
    return Array.from({ length: count }, (_, index) => {
      const [one, other] = [halfOf(left, index), halfOf(right, index)];
      const [from, to] = [finalMean(one), finalMean(other)];
      const difference = sameAxis && from !== null && to !== null ? to - from : null;
      return { index, left: one, right: other, difference };
    });
  }
  function unitsNote({ left, right, sameAxis }) {
    if (sameAxis) return "";
    const name = ({ model, probeLayer }) => `${model || "unknown model"}${probeLayer === void 0 ? "" : ` at layer ${probeLayer}`}`;
    return `The two sides were read along different axes (left: ${name(left)}; right: ${name(right)}), so each mean is in the units of its own axis, and their difference is not given.`;
  }
  function overTurns(values) {
    const runs = [];
    for (const [turn, value] of values) {
      const run = runs.at(-1);
      if (run?.value === value) run.last = turn;
      else runs.push({ first: turn, last: turn, value });
    }
    if (runs.length < 2) return runs[0]?.value ?? "";
    if (runs.length === values.length) return `${runs.map(({ value }) => value).join("; ")} (turn by turn)`;
    const when = (first, last) => first === last ? `turn ${first + 1}` : `turns ${first + 1}–${last + 1}`;
    return runs.map(({ first, last, value }) => `${value} (${when(first, last)})`).join("; ");
  }
  var listed = ({ turn }, branch) => turn.settings ? new Map(settingsRows(turn.settings, branch)) : null;
  function settingsDifferences(comparison) {
    const { left, right } = comparison;
    const known = rowsOf(comparison).flatMap((row) => {
      const one = row.left?.reply ? listed(row.left, left.branch) : null;
      const other = row.right?.reply ? listed(row.right, right.branch) : null;
      return one && other ? [{ index: row.index, one, other }] : [];
    });
    const names = new Set(known.flatMap(({ one, other }) => [...one.keys(), ...other.keys()]));
    const differences = [...names].flatMap((name) => {
      const value = (rows) => rows.get(name) ?? UNLISTED[name] ?? "none";
      if (known.every(({ one, other }) => value(one) === value(other))) return [];
      const over = (side) => overTurns(known.map((row) => [row.index, value(row[side])]));
      return [{ name, left: over("one"), right: over("other") }];
    });
    const models = left.model === right.model ? [] : [{ name: "Model", left: left.model, right: right.model }];
    return [...models, ...differences];
  }
  function settingsNote2(comparison) {
    const shared2 = rowsOf(comparison).filter(({ left, right }) => left?.reply && right?.reply);
    const unknown = shared2.filter(({ left, right }) => !left?.turn.settings || !right?.turn.settings);
    if (!shared2.length) return "The two sides have no turn in which both answer.";
    if (!unknown.length)
      return settingsDifferences(comparison).length ? "" : "In the turns that both sides have, their settings are the same.";
    const turns = unknown.map(({ index }) => index + 1).join(", ");
    return `Settings cannot be compared where a file does not say them: turn ${turns}.`;
  }
  var cell = (text) => text.replace(/\s+/g, " ").replace(/[\\|`*_<[\]]/g, "\\$&");
  var tableRow = (cells) => `| ${cells.join(" | ")} |`;
  var table = (head, rows) => [tableRow(head), tableRow(head.map(() => "---")), ...rows.map(tableRow)];
  function meanCell(half) {
    if (!half) return "no such turn";
    if (!half.reply) return "no reply";
    return isLive(half.reply) ? "being written" : number(meanOf(half.reply));
  }
  function capCell(half) {
    const reply = half?.reply;
    if (reply?.branch !== "capped" || isLive(reply)) return "–";
    const share = firedShare(reply);
    if (share === null) return "–";
    return share ? describeShare(share) : "none";
  }
  function comparisonMarkdown(comparison) {
    const [left, right] = [cell(sideName(comparison.left)), cell(sideName(comparison.right))];
    const settings = settingsDifferences(comparison).map((row) => [row.name, row.left, row.right].map(cell));
    const means = rowsOf(comparison).map((row) => [
      String(row.index + 1),
      meanCell(row.left),
      meanCell(row.right),
      number(row.difference),
      capCell(row.left),
      capCell(row.right)
    ]);
    const notes = [settingsNote2(comparison), unitsNote(comparison)].filter(Boolean).map(cell);
    const head = ["turn", "left mean", "right mean", "right − left", "cap acted, left", "cap acted, right"];
    const parts = [
      ["# Comparison of two conversations"],
      [`- left: ${left}`, `- right: ${right}`],
      ...settings.length ? [table(["setting", "left", "right"], settings)] : [],
      ...notes.map((note) => [note]),
      table(head, means),
      ["Means are projections in axis units; the cap’s share is that of the answer’s tokens."]
    ];
    return `${parts.map((lines) => lines.join("\n")).join("\n\n")}
`;
  }

  // src/difference.js
  var SEGMENTER = new Intl.Segmenter("en", { granularity: "word" });
  function wordsOf(text) {
    const words = [];
    let gap = "";
    for (const { segment } of SEGMENTER.segment(text)) {
      if (segment.trim()) {
        words.push({ gap, word: segment });
        gap = "";
      } else gap += segment;
    }
    if (gap) words.push({ gap, word: "" });
    return words;
  }
  function numbered(words, known) {
    return Int32Array.from(words, ({ word }) => {
      const id = known.get(word) ?? known.size;
      known.set(word, id);
      return id;
    });
  }
  var Front = class {
    /**
     * @param {Int32Array} left
     * @param {Int32Array} right
     * @param {number} most edits
     */
    constructor(left, right, most) {
      this.left = left;
      this.right = right;
      this.centre = most;
      this.reached = new Int32Array(2 * most + 2).fill(-1);
      this.reached[most + 1] = 0;
      this.low = 0;
      this.high = 0;
    }
    /** @param {number} diagonal */
    at(diagonal) {
      return this.reached[this.centre + diagonal] ?? -1;
    }
    /**
     * Goes on with one more edit on every diagonal.
     * @param {number} edits
     * @param {(diagonal: number, x: number) => boolean} met whether the other direction has come here
     * @returns {Point | null} where they met
     */
    advance(edits, met) {
      const { left, right } = this;
      for (let k = -edits + this.low; k <= edits - this.high; k += 2) {
        const down = k === -edits || k !== edits && this.at(k - 1) < this.at(k + 1);
        let x = down ? this.at(k + 1) : this.at(k - 1) + 1;
        let y = x - k;
        while (x < left.length && y < right.length && left[x] === right[y]) {
          x += 1;
          y += 1;
        }
        this.reached[this.centre + k] = x;
        if (x > left.length) this.high += 2;
        else if (y > right.length) this.low += 2;
        else if (met(k, x)) return [x, y];
      }
      return null;
    }
  };
  function middle(left, right) {
    const [n, m] = [left.length, right.length];
    const delta = n - m;
    const odd = delta % 2 !== 0;
    const most = Math.ceil((n + m) / 2) + 1;
    const forward = new Front(left, right, most);
    const backward = new Front(left.slice().reverse(), right.slice().reverse(), most);
    const meets = (other) => (k, x) => {
      const place = other.at(delta - k);
      return place >= 0 && x + place >= n;
    };
    for (let edits = 0; edits < most; edits += 1) {
      const ahead = forward.advance(edits, odd ? meets(backward) : () => false);
      if (ahead) return ahead;
      const back = backward.advance(edits, odd ? () => false : meets(forward));
      if (back) return [n - back[0], m - back[1]];
    }
    return [n, 0];
  }
  function pairsOf(left, right) {
    const known = /* @__PURE__ */ new Map();
    const pairs = new Int32Array(left.length).fill(-1);
    pair(numbered(left, known), numbered(right, known), pairs);
    return pairs;
  }
  function pair(left, right, pairs, [x, y] = [0, 0]) {
    let start2 = 0;
    let [l, r] = [left.length, right.length];
    while (start2 < l && start2 < r && left[start2] === right[start2]) {
      pairs[x + start2] = y + start2;
      start2 += 1;
    }
    while (l > start2 && r > start2 && left[l - 1] === right[r - 1]) {
      l -= 1;
      r -= 1;
      pairs[x + l] = y + r;
    }
    if (l === start2 || r === start2) return;
    const [restLeft, restRight] = [left.subarray(start2, l), right.subarray(start2, r)];
    const [a, b] = middle(restLeft, restRight);
    pair(restLeft.subarray(0, a), restRight.subarray(0, b), pairs, [x + start2, y + start2]);
    pair(restLeft.subarray(a), restRight.subarray(b), pairs, [x + start2 + a, y + start2 + b]);
  }
  function stretches(left, right, pairs) {
    const found = [];
    let open = { left: "", right: "", same: "" };
    let next = 0;
    const textOf2 = (word) => word ? word.gap + word.word : "";
    const differ = (one, other) => {
      if (!one && !other) return;
      if (open.same) {
        found.push(open);
        open = { left: "", right: "", same: "" };
      }
      open.left += one;
      open.right += other;
    };
    for (const [index, word] of left.entries()) {
      const match = pairs[index] ?? -1;
      if (match < 0) {
        differ(textOf2(word), "");
        continue;
      }
      for (; next < match; next += 1) differ("", textOf2(right[next]));
      const gap = right[match]?.gap ?? "";
      if (gap !== word.gap) differ(word.gap, gap);
      open.same += gap === word.gap ? textOf2(word) : word.word;
      next = match + 1;
    }
    for (; next < right.length; next += 1) differ("", textOf2(right[next]));
    return [...found, open];
  }
  var changed = (stretch) => Math.max(stretch?.left.trim().length ?? 0, stretch?.right.trim().length ?? 0);
  function withoutIslands(found) {
    const kept = [];
    for (const stretch of found) {
      const before = kept.at(-1);
      const length = before?.same.trim().length ?? 0;
      if (!before || length > changed(before) || length > changed(stretch)) kept.push({ ...stretch });
      else {
        before.left += before.same + stretch.left;
        before.right += before.same + stretch.right;
        before.same = stretch.same;
      }
    }
    return kept;
  }
  function wordDifference(left, right) {
    const [leftWords, rightWords] = [wordsOf(left), wordsOf(right)];
    const kinds = (
      /** @type {const} */
      ["left", "right", "same"]
    );
    return withoutIslands(stretches(leftWords, rightWords, pairsOf(leftWords, rightWords))).flatMap(
      (stretch) => kinds.flatMap((kind) => stretch[kind] ? [{ kind, text: stretch[kind] }] : [])
    );
  }

  // src/comparison_rows.js
  var SIDES = ["left", "right"];
  var spoken = (text) => makeElement("span", "spoken", text);
  function markedPassage(text, side) {
    const words = text.trim();
    if (!words) return [text];
    const start2 = text.indexOf(words);
    const mark = makeElement("mark", side);
    mark.append(spoken(`only ${side}: `), words, spoken(" (end) "));
    return [text.slice(0, start2), mark, text.slice(start2 + words.length)];
  }
  var haveCommonPassage = (parts) => parts.some(({ kind, text }) => kind === "same" && /[\p{L}\p{N}]/u.test(text));
  function markedText(parts, side, className) {
    const box = makeElement("div", className);
    const marks = haveCommonPassage(parts);
    for (const { kind, text } of parts) {
      if (kind === "same" || kind === side && !marks) box.append(text);
      else if (kind === side) box.append(...markedPassage(text, side));
    }
    return box;
  }
  function describeWords(parts) {
    if (!parts.length) return "";
    if (parts.every(({ kind }) => kind === "same")) return "the same words";
    return haveCommonPassage(parts) ? "" : "the replies differ throughout, so nothing is marked";
  }
  function figuresOf(half, side) {
    const line = makeElement("p", "compared-figures", `${side}: `);
    if (!half) line.append("no such turn on this side");
    else if (!half.reply) line.append("no reply of this branch");
    else {
      const { reply, turn } = half;
      const threshold = thresholdIn(turn.settings, reply.branch);
      const cap = reply.branch === "capped" ? describeCapping(reply, true, threshold) : "";
      const end = isLive(reply) ? "being written" : finishLabel(reply);
      line.append("mean ", makeElement("b", reply.branch, number(meanOf(reply))));
      for (const text of [cap, end]) if (text) line.append(` · ${text}`);
    }
    return line;
  }
  function reasoningOf(reply, parts, side) {
    if (!reply?.reasoning.count) return null;
    const details = makeElement("details", "compared-reasoning");
    const summary = makeElement("summary", "", `Reasoning, mean ${number(reasoningMeanOf(reply))}`);
    details.append(summary, markedText(parts, side, "compared-text"));
    return details;
  }
  function rowHead({ index, difference }, words) {
    const head = makeElement("h3", "", `Turn ${index + 1}`);
    const parts = [difference === null ? "" : `right mean minus left mean: ${number(difference)}`, words];
    const text = parts.filter(Boolean).join(" · ");
    if (text) head.append(makeElement("span", "compared-gap", text));
    return head;
  }
  function messagesOf({ left, right }) {
    const [one, other] = [left?.turn.user, right?.turn.user];
    const label = () => makeElement("span", "spoken", "You: ");
    if (one === other || one === void 0 || other === void 0) {
      const message = makeElement("div", "user", one ?? other);
      message.prepend(label());
      return [message];
    }
    const parts = wordDifference(one, other);
    return SIDES.map((side) => {
      const message = markedText(parts, side, "user half");
      message.prepend(label());
      return message;
    });
  }
  var isComplete = (row) => SIDES.every((side) => row[side]?.reply && !isLive(row[side].reply));
  function differenceOf(row, reasoning) {
    const text = (side) => {
      const reply = row[side]?.reply;
      return reply ? textOf(reply, reasoning) : "";
    };
    if (isComplete(row)) return wordDifference(text("left"), text("right"));
    return SIDES.map((side) => ({ kind: side, text: text(side) }));
  }
  function rowElement(row) {
    const section = makeElement("section", "compared-turn");
    const [answer, reasoning] = [differenceOf(row, false), differenceOf(row, true)];
    section.append(rowHead(row, isComplete(row) ? describeWords(answer) : ""), ...messagesOf(row));
    for (const side of SIDES) {
      const half = makeElement("div", "compared-reply");
      half.dataset.side = side;
      const thoughts = reasoningOf(row[side]?.reply, reasoning, side);
      half.append(
        figuresOf(row[side], side),
        ...thoughts ? [thoughts] : [],
        markedText(answer, side, "compared-text")
      );
      section.append(half);
    }
    return section;
  }
  function keyOf(half) {
    if (!half?.reply) return `${half ? half.turn.user : null}`;
    const { reply, turn } = half;
    const { branch, finish, finalMean: finalMean2, finalFired, visibleTokens } = reply;
    return JSON.stringify([turn.user, branch, finish, finalMean2, finalFired, visibleTokens.length]);
  }
  function makeRows(box) {
    let built = [];
    function show(rows) {
      built = rows.map((row, index) => {
        const key = [keyOf(row.left), keyOf(row.right), row.difference].join("\n");
        const old = built[index];
        const same = old?.key === key && old.row.left?.turn === row.left?.turn && old.row.right?.turn === row.right?.turn;
        return old && same ? old : { row, key, element: rowElement(row) };
      });
      const elements = built.map(({ element: element2 }) => element2);
      if (elements.length !== box.children.length || elements.some((one, n) => one !== box.children[n]))
        box.replaceChildren(...elements);
    }
    return { show, element: (index) => built[index]?.element };
  }
  function showSettings(box, comparison) {
    const differences = settingsDifferences(comparison);
    const note = settingsNote2(comparison);
    const key = JSON.stringify([differences, note]);
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    const list = makeElement("dl", "");
    for (const { name, left, right } of differences) {
      const values = makeElement("dd", "");
      const value = (side, text) => {
        const part = makeElement("span", "", text);
        part.prepend(makeElement("i", "", `${side}: `));
        return part;
      };
      values.append(value("left", left), value("right", right));
      list.append(makeElement("dt", "", name), values);
    }
    const head = differences.length ? [makeElement("h3", "", "Settings that differ"), list] : [];
    box.replaceChildren(...head, ...note ? [makeElement("p", "", note)] : []);
  }

  // src/compare.js
  var OWN = "own";
  var END_PX = 16;
  var ASK_AGAIN_MS = 1e3;
  function makeCompare(root, conversation, hooks) {
    const view = find(root, ".comparison");
    const select = findAs(root, ".compare-with", HTMLSelectElement);
    const body = find(view, ".compared-body");
    const rows = makeRows(find(body, ".compared-turns"));
    const heads = {
      left: find(view, '.compared-head[data-side="left"]'),
      right: find(view, '.compared-head[data-side="right"]')
    };
    let open = null;
    let other = null;
    let received = null;
    const chosen = { left: "capped", right: "capped" };
    let inSight = -1;
    let scheduled = false;
    let timer = 0;
    const shownId = () => open?.ids[open.current] ?? "";
    const turnsOf = (id) => open?.turns[open.ids.indexOf(id)] ?? 0;
    function branchOf2(side, turns) {
      const branches = branchesOf(turns);
      return branches.includes(chosen[side]) ? chosen[side] : branches[0] ?? chosen[side];
    }
    function current() {
      const { turns, meta, chartMeta } = conversation;
      if (other === null || !turns.length || other !== OWN && !received) return null;
      const title2 = open?.list[open.current] ?? "";
      const own = { title: title2, model: meta.model ?? "", probeLayer: chartMeta.probe_layer, turns };
      const left = { ...own, branch: branchOf2("left", turns) };
      if (other === OWN || !received)
        return { left, right: { ...own, branch: branchOf2("right", turns) }, sameAxis: true };
      const { side, data } = received;
      return { left, right: { ...side, branch: branchOf2("right", side.turns) }, sameAxis: data.same_axis };
    }
    function showHead(side, { title: title2, branch, turns }) {
      const list = findAs(heads[side], "select", HTMLSelectElement);
      const branches = branchesOf(turns);
      if (branches.join() !== Array.from(list.options, (option) => option.value).join())
        list.replaceChildren(...branches.map((name2) => new Option(name2, name2)));
      list.value = branch;
      const name = find(heads[side], ".compared-title");
      name.textContent = title2;
      name.title = title2;
      heads[side].dataset.shows = branch;
    }
    function show() {
      scheduled = false;
      const comparison = current();
      view.hidden = comparison === null;
      root.classList.toggle("comparing", comparison !== null);
      if (!comparison) return;
      for (const side of SIDES) showHead(side, comparison[side]);
      const note = find(view, ".units-note");
      note.textContent = unitsNote(comparison);
      note.hidden = comparison.sameAxis;
      showSettings(find(view, ".compared-settings"), comparison);
      const atEnd = body.scrollTop + body.clientHeight > body.scrollHeight - END_PX;
      rows.show(rowsOf(comparison));
      if (!root.classList.contains("veiled")) bringIntoSight(atEnd);
    }
    function bringIntoSight(atEnd) {
      const { shown, busy } = conversation;
      if (shown !== null && shown !== inSight) rows.element(shown)?.scrollIntoView({ block: "nearest" });
      else if (busy && atEnd) body.scrollTop = body.scrollHeight;
      inSight = shown ?? -1;
    }
    function refresh() {
      if (other === null || scheduled) return;
      scheduled = true;
      requestAnimationFrame(show);
    }
    function showInChart() {
      const key = find(root, ".compared-key");
      key.hidden = !received;
      const units = received?.data.same_axis === false ? ", in its own units" : "";
      find(key, ".compared-name").textContent = received ? `${received.data.title}${units}` : "";
      hooks.chart(received ? { title: received.data.title, turns: received.side.turns } : null);
    }
    function ask() {
      clearTimeout(timer);
      if (other !== null && other !== OWN) hooks.sendRequest("compare", { conversation: other });
    }
    function begin(id) {
      [other, received, inSight] = [id, null, conversation.shown ?? -1];
      select.value = id ?? "";
      Object.assign(chosen, { left: id === OWN ? "uncapped" : "capped", right: "capped" });
      showInChart();
      ask();
      refresh();
    }
    function end(why) {
      begin(null);
      show();
      hooks.ended();
      if (why) showNotice(root, why);
    }
    function receive(data) {
      if (data.id !== other) return;
      received = { data, side: sideOf(data, chosen.right) };
      showInChart();
      refresh();
      if (received.side.turns.some(turnIsLive)) timer = window.setTimeout(ask, ASK_AGAIN_MS);
    }
    function offer({ list, ids, turns, current: shown }) {
      const others = ids.flatMap(
        (id, n) => n !== shown && turns[n] ? [new Option(`${n + 1}. ${list[n]}`, id)] : []
      );
      select.hidden = !turns[shown] || !others.length;
      select.replaceChildren(new Option("Compare with…", ""), new Option("this conversation", OWN), ...others);
      select.value = other ?? "";
    }
    function updateList(fields) {
      const [before, shownBefore] = [open, shownId()];
      open = fields;
      const shown = shownId();
      const changed2 = shown !== shownBefore;
      if (other === shown) [other, received] = [shownBefore, null];
      offer(fields);
      if (other === null) return;
      if (other !== OWN && !fields.ids.includes(other))
        return end(`“${before?.list[before.ids.indexOf(other)]}” was closed, so the comparison has ended.`);
      if (!turnsOf(shown) || other !== OWN && !turnsOf(other))
        return end("A conversation without turns cannot be compared, so the comparison has ended.");
      const grown = other !== OWN && before?.turns[before.ids.indexOf(other)] !== turnsOf(other);
      if (changed2 || grown) ask();
      if (changed2) showInChart();
      refresh();
    }
    async function copy() {
      const comparison = current();
      if (!comparison) return;
      const done = await copyText(comparisonMarkdown(comparison));
      const what = `${sideName(comparison.left)} and ${sideName(comparison.right)}`;
      find(view, ".compared-status").textContent = done ? `Copied the comparison of ${what}.` : "";
      if (!done) showNotice(root, "This browser does not let the page copy a text; try another one.", "error");
    }
    select.addEventListener("change", () => select.value ? begin(select.value) : end());
    for (const side of SIDES) {
      const list = findAs(heads[side], "select", HTMLSelectElement);
      list.addEventListener("change", () => {
        chosen[side] = /** @type {Branch} */
        list.value;
        refresh();
      });
    }
    addEventListener("resize", refresh);
    find(view, ".copy-comparison").addEventListener("click", copy);
    find(view, ".end-comparison").addEventListener("click", () => end());
    return { updateList, receive, refresh, begin };
  }

  // src/fork.js
  var CUT = ["length", "sentence", "cancelled"];
  var wasCut = (finish) => CUT.includes(finish);
  function makeForkForm({ branch, turn, position, several }, token, sendRequest, done) {
    const form = makeElement("form", "fork-form");
    const everywhere = makeElement("input");
    everywhere.type = "checkbox";
    const fork = (id, text) => {
      const where = everywhere.checked ? "all" : "branch";
      sendRequest("fork_at", { turn, branch, token: position, id, text, where });
      done();
    };
    form.append(makeElement("p", "", "In a fork, let the reply go on from here with"));
    const known = makeElement("p", "choices");
    for (const { id, text, own, plain } of choices(token)) {
      if (text === token.t) continue;
      const button = makeButton("", shownToken(text), `Fork with this token (${percent(own ?? plain ?? 0)})`);
      button.addEventListener("click", () => fork(id, ""));
      known.append(button);
    }
    const box = makeElement("input");
    box.type = "text";
    box.placeholder = "or with your own words";
    box.setAttribute("aria-label", "Your own words in the place of this token");
    const line = makeElement("p", "own-words");
    line.append(box, makeElement("button", "", "Fork"));
    form.append(known, line);
    if (several) {
      const label = makeElement("label");
      label.append(everywhere, " begin the other replies with the same words");
      form.append(label);
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (box.value.trim()) fork(null, box.value);
      else box.focus();
    });
    form.addEventListener("keydown", (event) => event.key !== "Escape" && event.stopPropagation());
    return form;
  }
  function makeGoOnButton(branch, turn, sendRequest) {
    const button = makeButton("go-on", "continue", "This reply was cut: let it go on from its end");
    button.addEventListener("click", () => sendRequest("go_on", { turn, branch }));
    return button;
  }

  // src/layer_figure.js
  var LAYER_RANGE = 1.5;
  var STRIP = 0.07;
  var GAP2 = { stacked: 0.12, beside: 0.03 };
  function layerValues(data, mode) {
    const rows = mode === "change" ? data.own.map((row, n) => row.map((value, layer) => value - (data.plain[n]?.[layer] ?? Number.NaN))) : data[mode];
    return (data.plain[0] ?? []).map((_, layer) => rows.map((row) => row[layer] ?? Number.NaN));
  }
  var intervened = ({ branch, cap }) => branch === "steered" || branch === "capped" && cap !== null;
  function branchesToShow(replies, chosen) {
    const present = BRANCHES.filter((branch) => !replies[branch].absent);
    if (chosen === "all") return present;
    return present.includes(chosen) ? [chosen] : present.slice(0, 1);
  }
  function colourRange(mode) {
    const centre = mode === "change" ? 0 : TONE_CENTRE;
    return [centre - LAYER_RANGE, centre + LAYER_RANGE];
  }
  function floorAt(data, layer) {
    if (!data.cap || layer < data.cap[0] || layer > data.cap[1]) return null;
    return data.floors[layer - data.cap[0]] ?? null;
  }
  var suffix = (n) => n ? String(n + 1) : "";
  function layerTraces(data, mode, colours, n) {
    const axes = { xaxis: `x${suffix(n)}`, yaxis: `y${suffix(n)}`, meta: { branch: data.branch } };
    const [low, high] = colourRange(mode);
    const labels = data.tokens.map(tokenLabel);
    const floorText = (layer) => floorAt(data, layer) === null ? "" : `<br>floor ${number(floorAt(data, layer))}`;
    const z = layerValues(data, mode);
    const heatmap = {
      ...axes,
      type: "heatmap",
      z,
      x: labels.map((_, place) => place + 1),
      zmin: low,
      zmax: high,
      colorscale: [
        [0, colours["role-low"]],
        [0.5, colours.card],
        [1, colours["role-high"]]
      ],
      customdata: z.map((row, layer) => row.map((_, place) => [labels[place], floorText(layer)])),
      hovertemplate: "%{customdata[0]} · layer %{y}<br>%{z:.2f} axis units%{customdata[1]}<extra></extra>",
      showscale: false,
      xgap: 0.5,
      ygap: 0.5
    };
    const below = {
      ...axes,
      type: "scatter",
      mode: "markers",
      x: data.below,
      y: data.below.map(() => (0.5 * STRIP + 1) * z.length - 0.5),
      hoverinfo: "skip",
      showlegend: false,
      marker: { symbol: "triangle-down", size: 6, color: colours.capped }
    };
    return [heatmap, below];
  }
  var startsLater = ({ reasoning, tokens }) => reasoning > 0 && reasoning < tokens.length;
  function answerStart(data, colours, size, { n, count }) {
    if (!startsLater(data)) return { shapes: [], annotations: [] };
    const x = data.reasoning + 0.5;
    const line = { color: colours.text, width: 1.25, dash: "dash" };
    const [xref, yref] = [`x${suffix(n)}`, `y${suffix(n)} domain`];
    const font = { size, color: colours.text };
    const note = { x, xref, yref, y: 1, yanchor: "bottom", showarrow: false, font };
    const labels = [
      { ...note, xanchor: "right", xshift: -2, text: "reasoning" },
      { ...note, xanchor: "left", xshift: 2, text: "answer" }
    ];
    return {
      shapes: [{ type: "line", xref, x0: x, x1: x, yref, y0: 0, y1: 1, line }],
      annotations: count === 1 ? labels : []
    };
  }
  function layerMarks({ probe, cap, branch }, colours, size, { n, count, stacked }) {
    const [xref, yref] = [`x${suffix(n)} domain`, `y${suffix(n)}`];
    const across2 = { xref, yref, x0: 0, x1: 1 };
    const note = { xref, yref, x: 1, xanchor: "left", xshift: 4, align: "left", showarrow: false };
    const dotted = { color: colours.text, width: 1.25, dash: "dot" };
    const font = { size, color: colours.text };
    const line = { ...across2, type: "line", y0: probe, y1: probe, line: dotted };
    const label = { ...note, y: probe, yanchor: "middle", text: `probe ${probe}`, font };
    const labelled = stacked || n === count - 1;
    if (!cap) return { shapes: [line], annotations: labelled ? [label] : [] };
    const [first, last] = cap;
    const edge = { color: colours.capped, width: 2, dash: branch === "capped" ? "solid" : "dash" };
    const band = { ...across2, type: "rect", y0: first - 0.5, y1: last + 0.5, line: edge };
    const above = probe < (first + last) / 2;
    const bandLabel = {
      ...note,
      y: above ? last : first,
      yanchor: above ? "bottom" : "top",
      text: `cap ${first}–${last}`,
      font: { size, color: colours.capped }
    };
    return { shapes: [line, band], annotations: labelled ? [label, bandLabel] : [] };
  }
  function title(data, colours, size, { n, count }) {
    if (count === 1) return [];
    const at = { xref: `x${suffix(n)} domain`, x: 0, xanchor: "left", yanchor: "bottom" };
    const font = { size, color: colours[data.branch] };
    const text = `${data.branch}${startsLater(data) ? " · dashed: answer" : ""}`;
    return [{ ...at, yref: `y${suffix(n)} domain`, y: 1, showarrow: false, text, font }];
  }
  function domains({ n, count, stacked }) {
    const gap = stacked ? GAP2.stacked : GAP2.beside;
    const part = (1 - gap * (count - 1)) / count;
    const start2 = (place) => place * (part + gap);
    const whole = [0, 1];
    const upward = count - 1 - n;
    if (stacked) return { x: whole, y: [start2(upward), start2(upward) + part] };
    return { x: [start2(n), start2(n) + part], y: whole };
  }
  function axesOf2(slot, { across: across2, up }, colours, size) {
    const { n, count, stacked } = slot;
    const { x, y } = domains(slot);
    const [right, above] = [!stacked && n > 0, stacked && n < count - 1];
    const axis = { zeroline: false, showgrid: false, color: colours.muted };
    const name = (text) => ({ text, standoff: 4, font: { size, color: colours.muted } });
    const together = (first) => n ? { matches: first } : {};
    return {
      [`xaxis${suffix(n)}`]: {
        ...axis,
        ...together("x"),
        range: across2,
        domain: x,
        anchor: `y${suffix(n)}`,
        showticklabels: !above,
        ...above ? {} : { title: name("token") }
      },
      [`yaxis${suffix(n)}`]: {
        ...axis,
        ...together("y"),
        range: up,
        domain: y,
        anchor: `x${suffix(n)}`,
        showticklabels: !right,
        ...right ? {} : { title: name(stacked && count > 1 ? "layer" : "decoder layer") }
      }
    };
  }
  function layerFigure(shown, mode, colours, size, longest, stacked) {
    const layers = Math.max(...shown.map(({ plain }) => plain[0]?.length ?? 0));
    const most = Math.max(longest, ...shown.map(({ tokens }) => tokens.length));
    const ranges = { across: [0.5, most + 0.5], up: [-0.5, (1 + STRIP) * layers - 0.5] };
    const parts = shown.map((data, n) => {
      const slot = { n, count: shown.length, stacked };
      const marks = layerMarks(data, colours, size, slot);
      const start2 = answerStart(data, colours, size, slot);
      return {
        axes: axesOf2(slot, ranges, colours, size),
        shapes: [...marks.shapes, ...start2.shapes],
        annotations: [...marks.annotations, ...title(data, colours, size, slot), ...start2.annotations]
      };
    });
    const titled = shown.length > 1 || shown.some(({ reasoning }) => reasoning > 0);
    return {
      data: shown.flatMap((data, n) => layerTraces(data, mode, colours, n)),
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 46, r: 6.5 * size, t: titled ? 1.5 * size : 6, b: 36 },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
        shapes: parts.flatMap(({ shapes }) => shapes),
        annotations: parts.flatMap(({ annotations }) => annotations),
        font: { size, color: colours.muted },
        uirevision: `${shown[0]?.turn}/${shown.length}/${stacked}`,
        ...Object.assign({}, ...parts.map(({ axes }) => axes))
      }
    };
  }

  // src/layer_means.js
  function layerMeans(data, mode) {
    const rows = data[mode].slice(data.reasoning);
    if (!rows.length) return [];
    return (rows[0] ?? []).map(
      (_, layer) => rows.reduce((sum, row) => sum + (row[layer] ?? 0), 0) / rows.length
    );
  }
  function meanTrace(data, mode, colours) {
    const y = layerMeans(data, mode);
    const fine = mode === "plain";
    const intervention = data.branch === "steered" ? "steering" : "the cap";
    const color = colours[data.branch];
    return {
      type: "scatter",
      mode: "lines",
      name: fine ? `${data.branch}, without ${intervention}` : data.branch,
      x: y.map((_, layer) => layer),
      y,
      line: fine ? { color, width: 1.25, dash: "dot" } : { color, width: 2, dash: DASHES[data.branch] },
      hovertemplate: `${fine ? `without ${intervention}` : data.branch} · layer %{x}<br>mean %{y:.2f}<extra></extra>`,
      meta: { branch: "" }
      // a click leads to no token
    };
  }
  function floorTrace(data, colours) {
    if (!data?.cap) return [];
    const [first, last] = data.cap;
    const layers = Array.from({ length: last - first + 1 }, (_, n) => first + n);
    const y = layers.map((layer) => floorAt(data, layer));
    return [
      {
        type: "scatter",
        mode: "markers",
        name: "floors",
        x: layers,
        y,
        marker: { symbol: "line-ew-open", size: 9, color: colours.capped, line: { width: 2 } },
        hovertemplate: "floor at layer %{x}: %{y:.2f}<extra></extra>",
        meta: { branch: "" }
      }
    ];
  }
  function bandMarks(data, colours, size) {
    if (!data) return { shapes: [], annotations: [] };
    const { probe, cap } = data;
    const up = { yref: "paper", y0: 0, y1: 1 };
    const note = { yref: "paper", y: 0, yanchor: "bottom", showarrow: false };
    const dotted = { color: colours.text, width: 1.25, dash: "dot" };
    const line = { ...up, type: "line", x0: probe, x1: probe, line: dotted };
    const font = { size, color: colours.text };
    const [first, last] = cap ?? [probe, probe];
    const sides = probe > last ? ["left", "right"] : ["right", "left"];
    const shift = (side) => side === "left" ? 2 : -2;
    const [own, other] = sides;
    const label = { ...note, x: probe, xanchor: own, xshift: shift(own), text: `probe ${probe}`, font };
    if (!cap) return { shapes: [line], annotations: [label] };
    const shade = { fillcolor: colours.capped, opacity: 0.12, line: { width: 0 }, layer: "below" };
    const band = { ...up, type: "rect", x0: first - 0.5, x1: last + 0.5, ...shade };
    const bandLabel = {
      ...note,
      x: probe > last ? last + 0.5 : Math.max(first - 0.5, probe),
      xanchor: other,
      xshift: shift(other),
      text: `cap ${first}–${last}`,
      font: { size, color: colours.capped }
    };
    return { shapes: [band, line], annotations: [label, bandLabel] };
  }
  function meansFigure(shown, colours, size) {
    const marked = shown.find(({ cap }) => cap) ?? shown[0];
    const { shapes, annotations } = bandMarks(marked, colours, size);
    const layers = Math.max(...shown.map(({ plain }) => plain[0]?.length ?? 0));
    const axis = { zeroline: false, gridcolor: colours.grid, color: colours.muted };
    const title2 = (text) => ({ text, standoff: 4, font: { size, color: colours.muted } });
    return {
      data: [
        ...floorTrace(marked, colours),
        ...shown.flatMap((data) => [
          ...intervened(data) ? [meanTrace(data, "plain", colours)] : [],
          meanTrace(data, "own", colours)
        ])
      ],
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        margin: { l: 46, r: 10, t: 6, b: 36 },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
        shapes,
        annotations,
        font: { size, color: colours.muted },
        showlegend: true,
        legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size, color: colours.text } },
        uirevision: `${shown[0]?.turn}/means`,
        xaxis: { ...axis, range: [-0.5, layers - 0.5], title: title2("decoder layer") },
        yaxis: { ...axis, title: title2("mean, axis units") }
      }
    };
  }

  // src/layers.js
  var MOST_READINGS = 12;
  var STACKED_BELOW = 460;
  var LAYER_MODES = {
    own: "as its branch reads it",
    plain: "as the unsteered model reads it",
    change: "with it minus without it",
    means: "mean over the tokens of each answer"
  };
  function interventionOf(readings) {
    const steered = readings.some(({ branch }) => branch === "steered");
    if (!steered) return "the cap";
    return readings.length > 1 ? "cap or steering" : "steering";
  }
  function makeLayers(root, hooks) {
    const panel = find(root, "#layer-view");
    const element2 = (
      /** @type {PlotElement} */
      find(root, "#layer-chart")
    );
    const status = find(panel, ".panel-status");
    const modes = find(panel, ".modes");
    const state = { choice: "all", mode: "own", shown: [] };
    const readings = /* @__PURE__ */ new Map();
    const requested = /* @__PURE__ */ new Map();
    const failed = /* @__PURE__ */ new Set();
    const visible = () => panel.offsetWidth > 0;
    const placeOf = (turn, branch) => `${turn}/${branch}`;
    const keyOf2 = (turn, reply) => `${placeOf(turn, reply.branch)}/${reply.visibleTokens.length}`;
    function setStatus(text) {
      status.textContent = text;
      status.hidden = !text;
    }
    function clear() {
      state.shown = [];
      if (element2.data) Plotly.purge(element2);
    }
    function unread(data) {
      const { turn, replies } = hooks.shown();
      const count = replies?.[data.branch].reasoning.count ?? 0;
      return turn === data.turn ? Math.max(0, count - data.reasoning) : 0;
    }
    function readingOf(turn, reply) {
      const { layers, branch } = reply;
      if (layers) return { ...layers, plain: layers.plain ?? layers.own, turn, branch };
      return readings.get(keyOf2(turn, reply));
    }
    function offerChoices(replies) {
      const branches = branchesToShow(replies, state.choice);
      const several = branchesToShow(replies, "all").length;
      for (const button of findAll(panel, "[data-branch]")) {
        const choice = (
          /** @type {LayerChoice} */
          button.dataset.branch
        );
        button.hidden = choice === "all" ? several < 2 : replies[choice].absent;
        const pressed = choice === "all" ? branches.length > 1 : branches.length < 2 && branches[0] === choice;
        button.setAttribute("aria-pressed", String(pressed));
      }
      find(panel, '[data-branch="all"]').textContent = several > 2 ? "all" : "both";
      const acted = state.shown.filter(intervened);
      const mode = acted.length || state.mode === "means" ? state.mode : "own";
      modes.hidden = !state.shown.length;
      for (const button of findAll(modes, "button")) {
        const reading = button.dataset.mode === "plain" || button.dataset.mode === "change";
        button.hidden = reading && !acted.length;
        button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
      }
      const intervention = interventionOf(acted);
      find(modes, '[data-mode="own"]').textContent = acted.length ? `with ${intervention}` : "every token";
      find(modes, '[data-mode="plain"]').textContent = `without ${intervention}`;
      explain(mode);
      panel.classList.toggle("unread", !state.shown.length);
      return mode;
    }
    function explain(mode) {
      const acted = state.shown.filter(intervened);
      const changed2 = `what ${interventionOf(acted)} changed in the ${acted.map(({ branch }) => branch).join(" and the ")} reply: `;
      const each = (mode === "own" || mode === "plain") && state.shown.length > 1 ? "each " : "";
      const capped = state.shown.some(({ cap }) => cap);
      const shaded = mode === "means" && capped ? "; shaded: the cap’s layers, with their floors" : "";
      find(panel, ".mode-label").textContent = `${mode === "change" ? changed2 : each}${LAYER_MODES[mode]}${shaded}`;
      const [low, high] = colourRange(mode);
      find(panel, ".low").textContent = number(low);
      find(panel, ".high").textContent = number(high);
      find(panel, ".ramp-key").hidden = mode === "means";
      find(panel, ".below-key").hidden = mode === "means" || !capped;
    }
    async function draw() {
      const { replies } = hooks.shown();
      if (!state.shown.length || !replies || !window.Plotly || !visible()) return;
      const mode = offerChoices(replies);
      const colours = palette(root);
      const size = Math.max(10, colours.size * 0.75);
      const config = {
        displaylogo: false,
        plotlyServerURL: "",
        responsive: false,
        doubleClick: "reset",
        modeBarButtons: chartButtons()
      };
      const longest = Math.max(...BRANCHES.map((branch) => replies[branch].visibleTokens.length));
      const stacked = element2.clientWidth < STACKED_BELOW;
      const drawn = mode === "change" ? state.shown.filter(intervened) : state.shown;
      const { data, layout } = mode === "means" ? meansFigure(drawn, colours, size) : layerFigure(drawn, mode, colours, size, longest, stacked);
      await Plotly.react(element2, data, layout, config);
      element2.removeAllListeners("plotly_click");
      element2.on("plotly_click", ({ points: [point] }) => {
        const shown = state.shown.find(({ branch }) => branch === point?.data.meta?.branch);
        if (point && shown) hooks.flash(shown.branch, Math.round(point.x) + unread(shown), shown.turn);
      });
    }
    function ask(turn, reply) {
      const [key, place] = [keyOf2(turn, reply), placeOf(turn, reply.branch)];
      if (reply.finish === null) return "The layers can be read when the reply is finished.";
      if (failed.has(key)) return "The layers of this reply could not be read.";
      const { readable } = hooks.shown();
      if (readable && requested.get(place) === key) return "reading all layers…";
      if (readable && hooks.sendRequest("layers", { turn, branch: reply.branch })) {
        requested.set(place, key);
        return "reading all layers…";
      }
      return `The layers of the ${reply.branch} reply were not looked at before this session was saved, and reading them needs its model, which is not loaded here.`;
    }
    function refresh() {
      const { turn, replies } = hooks.shown();
      if (!visible() || turn === null || !replies) return;
      const wanted = branchesToShow(replies, state.choice).map((branch) => replies[branch]);
      const missing = wanted.filter((reply) => !readingOf(turn, reply));
      const known = wanted.map((reply) => readingOf(turn, reply)).filter((data) => data !== void 0);
      if (!known.length) clear();
      state.shown = known;
      offerChoices(replies);
      const next = missing.find((reply) => !failed.has(keyOf2(turn, reply))) ?? missing[0];
      if (!wanted.length) setStatus("This turn has no reply.");
      else setStatus(next ? ask(turn, next) : "");
      draw();
    }
    function receive(data) {
      const place = placeOf(data.turn, data.branch);
      const key = requested.get(place);
      if (!key) return;
      requested.delete(place);
      readings.set(key, data);
      const [oldest] = readings.keys();
      if (readings.size > MOST_READINGS && oldest) readings.delete(oldest);
      refresh();
    }
    function fail({ turn, branch }) {
      const key = requested.get(placeOf(turn, branch));
      requested.delete(placeOf(turn, branch));
      if (key) failed.add(key);
      refresh();
    }
    function reset() {
      readings.clear();
      requested.clear();
      failed.clear();
      clear();
      setStatus("");
    }
    function choose(choice) {
      state.choice = choice;
      failed.clear();
      const { turn, replies } = hooks.shown();
      if (turn === null || !replies) return;
      for (const branch of branchesToShow(replies, choice)) requested.delete(placeOf(turn, branch));
    }
    function resize() {
      if (!element2.data || !visible()) return;
      if (state.shown.length > 1) draw();
      Plotly.Plots.resize(element2);
    }
    find(panel, ".aside").addEventListener("click", (event) => {
      const { branch, mode } = datasetOf(event);
      if (!branch && !mode) return;
      if (branch) choose(
        /** @type {LayerChoice} */
        branch
      );
      if (mode) state.mode = /** @type {LayerMode} */
      mode;
      refresh();
    });
    new ResizeObserver(() => requestAnimationFrame(resize)).observe(element2);
    return { receive, fail, reset, refresh, repaint: draw };
  }

  // src/lens.js
  var FULL = { surprise: 6, lift: 2 };
  var NOTABLE = 0.5;
  var LEAST = 5e-5;
  function surpriseOf({ p }) {
    if (p === null || p === void 0) return null;
    return { bits: Math.max(0, -Math.log2(Math.max(p, LEAST))), over: p < LEAST };
  }
  function surpriseText(token) {
    const found = surpriseOf(token);
    if (!found) return null;
    return found.over ? `over ${Math.floor(found.bits)} bits` : `${found.bits.toFixed(1)} bits`;
  }
  function amountsOf(token) {
    const found = [];
    const surprise = surpriseOf(token);
    if (surprise) found.push(["surprise", Math.min(1, surprise.bits / FULL.surprise)]);
    if (token.c > 0) found.push(["lift", Math.min(1, token.c / FULL.lift)]);
    return found;
  }
  function showAmounts(span, token) {
    for (const [kind, share] of amountsOf(token)) {
      span.style.setProperty(`--${kind}`, `${Math.round(100 * share)}%`);
      span.classList.add(`has-${kind}`);
      span.classList.toggle(`much-${kind}`, share >= NOTABLE);
    }
  }
  function keyWords(lens) {
    const { low, high } = axisWords();
    if (lens === "axis") return { low, high, more: "Projection on the axis, in axis units" };
    if (lens === "surprise") {
      const more = `Surprise: −log2 of the token’s probability at temperature 1. 0 bits: it was certain; ${FULL.surprise} bits: a chance of 1 in ${2 ** FULL.surprise}. Underlined twice from ${FULL.surprise * NOTABLE} bits on; no colour where the probability is not known.`;
      return { low: "0 bits", high: `${FULL.surprise} bits or more`, more };
    }
    if (lens === "lift") {
      const more = "What the cap along the axis added to the token, the sum over its layers in axis units of each. No colour where it added nothing.";
      return { low: "nothing added", high: `${FULL.lift} axis units or more`, more };
    }
    return { low: "0", high: "1", more: "Projection along the second direction, in its own units" };
  }
  function makeLens(root) {
    const key = find(root, ".tone-key");
    const choice = findAs(key, ".lens-of", HTMLSelectElement);
    const second = findAs(choice, '[value="second"]', HTMLOptionElement);
    function show() {
      const { low, high, more } = keyWords(choice.value);
      root.dataset.lens = choice.value;
      find(key, ".low-end").textContent = low;
      find(key, ".high-end").textContent = high;
      key.title = more;
    }
    function offer(name) {
      second.hidden = second.disabled = !name;
      second.textContent = name;
      if (!name && choice.value === "second") choice.value = "axis";
      show();
    }
    choice.addEventListener("change", show);
    show();
    return { offer };
  }

  // src/map_figure.js
  var MAP_VIEWS = { 12: [0, 1], 13: [0, 2], "3d": [0, 1, 2] };
  var MAP_MARGIN = { l: 46, r: 8, t: 6, b: 38 };
  var MAP_EXTREMES = 3;
  var TRAIL_TURNS = 8;
  var MAP_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
  var COORDINATES = ["x", "y", "z"];
  var is3d = (view) => MAP_VIEWS[view].length === 3;
  function faded(colour, background, share) {
    const part = (hex, start2) => Number.parseInt(hex.slice(start2, start2 + 2), 16);
    const mix = (start2) => Math.round(share * part(colour, start2) + (1 - share) * part(background, start2));
    return `rgb(${[1, 3, 5].map(mix).join(",")})`;
  }
  function columns(places, view) {
    const parts = MAP_VIEWS[view];
    return Object.fromEntries(parts.map((part, n) => [COORDINATES[n], places.map((place) => place[part])]));
  }
  function extremeRoles(roles) {
    const order = [...roles].sort((a, b) => a[2] - b[2]);
    return order.filter((_, index) => index < MAP_EXTREMES || index >= order.length - MAP_EXTREMES);
  }
  function trailOf(turns, branch, shown) {
    const points = [];
    turns.slice(0, (shown ?? -1) + 1).forEach((turn, index) => {
      const { place, finish } = turn.replies[branch];
      if (place) points.push({ place, turn: index, live: finish === null });
    });
    return points.slice(-TRAIL_TURNS);
  }
  function trailPlaces(points, view) {
    const customdata = points.map((point) => `turn ${point.turn + 1}${point.live ? ", so far" : ""}`);
    return {
      ...columns(
        points.map((point) => point.place),
        view
      ),
      customdata
    };
  }
  function trailMarkers(points, view, colour, background) {
    const last = points.length - 1;
    const [large, small] = is3d(view) ? [11, 5] : [17, 7];
    const older = (age) => faded(colour, background, Math.max(0.2, 0.8 - 0.1 * age));
    return {
      size: points.map((_, index) => index === last ? large : small),
      color: points.map((_, index) => index === last ? colour : older(last - index))
    };
  }
  function boundsOf(places, view) {
    return MAP_VIEWS[view].map((part) => {
      const values = places.map((place) => place[part] ?? 0);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const pad = 0.06 * (high - low || 1);
      return [low - pad, high + pad];
    });
  }
  function fitRanges(x, y, { width, height }) {
    const scale = Math.max((x[1] - x[0]) / width, (y[1] - y[0]) / height);
    const widened = ([low, high], pixels) => {
      const extra = (scale * pixels - (high - low)) / 2;
      return (
        /** @type {Range} */
        [low - extra, high + extra]
      );
    };
    return [widened(x, width), widened(y, height)];
  }
  function roleTrace(map, view, colours, base2) {
    const reach = Math.max(...map.roles.map((role) => Math.abs(role[2])), 1e-6);
    return {
      ...base2,
      ...columns(
        map.roles.map((role) => role[1]),
        view
      ),
      meta: { role: "roles" },
      mode: "markers",
      customdata: map.roles.map(([name, , projection]) => [escapeHtml(name), number(projection)]),
      hovertemplate: "<b>%{customdata[0]}</b><br>projection %{customdata[1]} (axis units)<extra></extra>",
      marker: {
        size: is3d(view) ? 3.5 : 6,
        opacity: 0.8,
        color: map.roles.map((role) => role[2]),
        cmin: -reach,
        cmax: reach,
        colorscale: [
          [0, colours["role-low"]],
          [0.5, colours["role-mid"]],
          [1, colours["role-high"]]
        ],
        showscale: false,
        line: { width: 0 }
      }
    };
  }
  function axisTrace(map, view, colours, base2) {
    const arrow = {
      symbol: "arrow",
      angleref: "previous",
      size: [0, 13],
      standoff: [0, 8],
      color: colours.text,
      opacity: 1
    };
    return {
      ...base2,
      ...columns([[0, 0, 0], map.default], view),
      meta: { role: "axis" },
      hoverinfo: "skip",
      mode: is3d(view) ? "lines" : "lines+markers",
      line: { color: colours.text, width: is3d(view) ? 5 : 1.75 },
      ...is3d(view) ? {} : { marker: arrow }
    };
  }
  function landmarkTrace(map, view, colours, base2) {
    const symbol = is3d(view) ? ["x", "cross"] : ["x-thin-open", "star"];
    return {
      ...base2,
      ...columns([[0, 0, 0], map.default], view),
      meta: { role: "landmarks" },
      mode: "markers",
      customdata: ["average role", axisWords().default],
      hovertemplate: "<b>%{customdata}</b><extra></extra>",
      marker: {
        symbol,
        size: is3d(view) ? [4, 7] : [9, 16],
        color: colours.text,
        opacity: 1,
        line: {
          width: is3d(view) ? 0 : [2, 1],
          color: is3d(view) ? colours.card : [colours.text, colours.card]
        }
      }
    };
  }
  function labelTrace(labels, view, colours, base2, size) {
    const halo = `0 0 2px ${colours.card}, 0 0 4px ${colours.card}`;
    return {
      ...base2,
      ...columns(
        labels.map((label) => label.place),
        view
      ),
      meta: { role: "labels" },
      mode: "markers+text",
      // Invisible: it keeps the text off the point.
      marker: { size: labels.map((label) => 2 * label.gap), opacity: 0 },
      text: labels.map((label) => escapeHtml(label.text)),
      textposition: labels.map((label) => label.side),
      textfont: { size, color: colours.text, ...is3d(view) ? {} : { shadow: halo } },
      hoverinfo: "skip",
      ...is3d(view) ? {} : { cliponaxis: false }
    };
  }
  function branchTrace(points, branch, view, colours, base2) {
    const dash = is3d(view) && branch !== "capped" ? "dash" : DASHES[branch];
    return {
      ...base2,
      ...trailPlaces(points, view),
      meta: { role: "reply", branch },
      mode: "lines+markers",
      ...is3d(view) ? {} : { cliponaxis: false },
      hovertemplate: `<b>${branch}</b> · %{customdata}<br>mean of the reply<extra></extra>`,
      line: { color: faded(colours[branch], colours.card, 0.5), width: is3d(view) ? 3 : 1.5, dash },
      marker: {
        ...trailMarkers(points, view, colours[branch], colours.card),
        symbol: SYMBOLS[branch],
        opacity: 1,
        line: { color: colours.card, width: is3d(view) ? 0 : 1.5 }
      }
    };
  }
  function mapTraces(map, trails, view, colours, labels, size) {
    const base2 = { type: is3d(view) ? "scatter3d" : "scatter", showlegend: false };
    const replies = BRANCHES.map((branch) => branchTrace(trails[branch], branch, view, colours, base2));
    const fixed = [roleTrace, axisTrace, landmarkTrace].map((build) => build(map, view, colours, base2));
    return [...fixed, labelTrace(labels, view, colours, base2, size), ...replies];
  }
  function componentTitle(map, part, view) {
    const share = map.variance.length ? ` (${Math.round(100 * (map.variance[part] ?? 0))}%)` : "";
    const toward = part === 0 && !is3d(view) ? `, ${axisWords().side} →` : "";
    return `PC${part + 1}${share}${toward}`;
  }
  function cameraFor(ratio) {
    const far = Math.min(1.8, Math.max(1, 1.3 / ratio));
    return { eye: { x: 0.75 * far, y: -1.95 * far, z: 0.75 * far }, center: { x: -0.02, y: 0, z: -0.12 } };
  }
  function mapLayout(map, view, colours, ranges, size, ratio) {
    const font = { family: MAP_FONT, size, color: colours.muted };
    const axes = MAP_VIEWS[view].map((part, n) => ({
      range: ranges[n],
      title: { text: componentTitle(map, part, view), standoff: 4, font },
      gridcolor: colours.grid,
      color: colours.muted,
      zeroline: false,
      showline: false,
      ticks: "",
      nticks: is3d(view) ? 5 : 7
    }));
    const clear = "rgba(0,0,0,0)";
    const layout = {
      paper_bgcolor: clear,
      plot_bgcolor: clear,
      font,
      showlegend: false,
      hovermode: "closest",
      uirevision: view,
      margin: is3d(view) ? { l: 0, r: 0, t: 0, b: 0 } : MAP_MARGIN,
      modebar: { bgcolor: clear, color: colours.muted, activecolor: colours.text },
      hoverlabel: {
        bgcolor: colours.card,
        bordercolor: colours.border,
        align: "left",
        font: { ...font, color: colours.text, size: size + 1 }
      }
    };
    if (is3d(view)) {
      const [xaxis, yaxis, zaxis] = axes.map((axis) => ({
        ...axis,
        backgroundcolor: clear,
        showspikes: false
      }));
      return { ...layout, scene: { xaxis, yaxis, zaxis, aspectmode: "data", camera: cameraFor(ratio) } };
    }
    return { ...layout, xaxis: axes[0], yaxis: { ...axes[1], scaleanchor: "x" } };
  }

  // src/map_labels.js
  var LABEL_SIDES = {
    "middle right": [1, 0],
    "middle left": [-1, 0],
    "top center": [0, -1],
    "bottom center": [0, 1],
    "top right": [1, -1],
    "bottom right": [1, 1],
    "top left": [-1, -1],
    "bottom left": [-1, 1]
  };
  function labelBox(at, [right, down], width, height, gap) {
    const x = at[0] + right * (gap + width / 2) - width / 2;
    const y = at[1] + down * (gap + height / 2) - height / 2;
    return { left: x, top: y, right: x + width, bottom: y + height };
  }
  var boxesOverlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  var boxContains = (box, [x, y]) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;
  function placeLabels(labels, dots, frame, textWidth, lineHeight) {
    const taken = [];
    const placed = [];
    for (const label of labels) {
      let best = null;
      for (const [side, direction] of Object.entries(LABEL_SIDES)) {
        const box = labelBox(label.at, direction, textWidth(label.text), lineHeight, label.gap);
        const inside2 = box.left >= 0 && box.top >= 0 && box.right <= frame.width && box.bottom <= frame.height;
        if (!inside2 || taken.some((other) => boxesOverlap(box, other))) continue;
        const cost = dots.filter((dot) => boxContains(box, dot)).length;
        if (!best || cost < best.cost) best = { ...label, side, box, cost };
      }
      if (!best) continue;
      taken.push(best.box);
      placed.push(best);
    }
    return placed;
  }
  function labels2d(map, view, ranges, area, textWidth, lineHeight) {
    const [across2 = 0, up = 0] = MAP_VIEWS[view];
    const [x, y] = [scaleOf(ranges[0], area.width, false), scaleOf(ranges[1], area.height, true)];
    const toPixels = (place) => [x(place[across2] ?? 0), y(place[up] ?? 0)];
    const roles = extremeRoles(map.roles).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
    const wanted = [
      { text: axisWords().default, place: map.default, gap: 9 },
      ...roles.map(([name, place]) => ({ text: name, place, gap: 4 })),
      { text: "average role", place: [0, 0, 0], gap: 7 }
    ];
    const labels = wanted.map((label) => ({ ...label, at: toPixels(label.place) }));
    const arrow = Array.from({ length: 40 }, (_, step) => map.default.map((value) => value * step / 40));
    const dots = [...map.roles.map((role) => role[1]), ...arrow].map(toPixels);
    return placeLabels(labels, dots, area, textWidth, lineHeight);
  }
  function labels3d(map) {
    const order = extremeRoles(map.roles);
    const ends = [order.slice(0, 1), order.slice(-1)].flat();
    const roles = ends.map(([text, place]) => ({ text, place, side: "bottom center", gap: 3 }));
    return [{ text: axisWords().default, place: map.default, side: "top center", gap: 4 }, ...roles];
  }

  // src/map.js
  var REDUCED_MOTION_MS = 500;
  var BUTTONS_3D = [["toImage", "resetCameraDefault3d"]];
  function hasWebgl() {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
    context?.getExtension("WEBGL_lose_context")?.loseContext();
    return context !== null;
  }
  var lengthsOf = (all) => BRANCHES.map((branch) => all[branch].length).join();
  var placesOf = (all) => BRANCHES.flatMap((branch) => all[branch].map((point) => point.place));
  function makeMap(root, hooks) {
    const panel = find(root, "#map-view");
    const element2 = (
      /** @type {PlotElement} */
      find(root, "#map-chart")
    );
    const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
    const measuring = document.createElement("canvas").getContext("2d");
    const state = { map: null, turns: [], shown: null, view: "12", webgl: null };
    let drawn = null;
    let scheduled = false;
    let notBefore = 0;
    const drawable = () => state.map?.roles && window.Plotly && element2.offsetWidth ? (
      /** @type {PersonaMap} */
      state.map
    ) : null;
    const trails = () => byBranch((branch) => trailOf(state.turns, branch, state.shown));
    function boundsFor(map, all) {
      const fixed = [...map.roles.map((role) => role[1]), map.default];
      const fresh = boundsOf([...fixed, ...placesOf(all)], state.view);
      const before = drawn?.view === state.view ? drawn.bounds : fresh;
      return fresh.map(([low, high], n) => {
        const [oldLow, oldHigh] = before[n] ?? [low, high];
        return [Math.min(low, oldLow), Math.max(high, oldHigh)];
      });
    }
    function onlyMarkersMoved(all) {
      if (drawn?.view !== state.view || drawn.lengths !== lengthsOf(all)) return false;
      const { bounds } = drawn;
      const inside2 = (place) => MAP_VIEWS[state.view].every((part, n) => {
        const [value, range] = [place[part], bounds[n]];
        return value !== void 0 && range && range[0] <= value && value <= range[1];
      });
      return placesOf(all).every(inside2);
    }
    function rangesAndLabels(map, bounds, size) {
      const [x, y] = bounds;
      if (is3d(state.view) || !x || !y) return { ranges: bounds, labels: labels3d(map) };
      const { l, r, t, b } = MAP_MARGIN;
      const [across2, down] = [element2.clientWidth - l - r, element2.clientHeight - t - b];
      const area = { width: Math.max(50, across2), height: Math.max(50, down) };
      const ranges = fitRanges(x, y, area);
      if (measuring) measuring.font = `${size}px system-ui, sans-serif`;
      const textWidth = (text) => (measuring?.measureText(text).width ?? 0) + 6;
      return { ranges, labels: labels2d(map, state.view, ranges, area, textWidth, size * 1.3) };
    }
    async function drawAll(map, all) {
      const in3d = is3d(state.view);
      const colours = palette(root);
      const size = Math.max(10, colours.size * 0.75);
      const bounds = boundsFor(map, all);
      const { ranges, labels } = rangesAndLabels(map, bounds, size);
      const { offsetWidth: width, offsetHeight: height } = element2;
      const layout = mapLayout(map, state.view, colours, ranges, size, width / height);
      if (!in3d && matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
      const config = {
        displaylogo: false,
        plotlyServerURL: "",
        responsive: false,
        doubleClick: "reset",
        modeBarButtons: in3d ? BUTTONS_3D : chartButtons()
      };
      drawn = { view: state.view, bounds, lengths: lengthsOf(all), width, height };
      await Plotly.react(element2, mapTraces(map, all, state.view, colours, labels, size), layout, config);
      element2.removeAllListeners("plotly_click");
      element2.on("plotly_click", ({ points: [point] }) => point && selectPoint(point));
    }
    function selectPoint(point) {
      const { role, branch } = (
        /** @type {import("./types").TraceMeta} */
        point.data.meta
      );
      const chosen = role === "reply" && branch ? trails()[branch][point.pointNumber] : void 0;
      if (chosen) hooks.selectTurn(chosen.turn);
    }
    function moveMarkers(all) {
      const branches = BRANCHES.filter((branch) => all[branch].length);
      if (!branches.length) return;
      const data = branches.map((branch) => trailPlaces(all[branch], state.view));
      const shown = element2.data ?? [];
      const traces = branches.map((branch) => shown.findIndex((trace) => trace.meta.branch === branch));
      if (is3d(state.view)) {
        const values = (key) => data.map((one) => one[key]);
        const update = { x: values("x"), y: values("y"), z: values("z"), customdata: values("customdata") };
        Plotly.restyle(element2, update, traces);
        return;
      }
      const atOnce = { transition: { duration: 0 }, frame: { duration: 0, redraw: false }, mode: "immediate" };
      Plotly.animate(element2, { data, traces }, atOnce).catch(() => {
      });
    }
    function draw() {
      scheduled = false;
      const map = drawable();
      if (!map) return;
      const began = performance.now();
      const all = trails();
      if (onlyMarkersMoved(all)) moveMarkers(all);
      else drawAll(map, all);
      const pause2 = 3 * (performance.now() - began);
      notBefore = Math.max(began + pause2, reducedMotion.matches ? began + REDUCED_MOTION_MS : 0);
    }
    function schedule() {
      if (scheduled || !drawable()) return;
      scheduled = true;
      setTimeout(() => requestAnimationFrame(draw), Math.max(0, notBefore - performance.now()));
    }
    function repaint() {
      const map = drawable();
      if (map) drawAll(map, trails());
      else drawn = null;
    }
    function resize() {
      if (!drawn || !drawable()) return;
      if (drawn.width !== element2.offsetWidth || drawn.height !== element2.offsetHeight) repaint();
    }
    function selectView(view) {
      if (is3d(view)) state.webgl ??= hasWebgl();
      const unsupported = is3d(view) && !state.webgl;
      find(panel, ".panel-status").hidden = !unsupported;
      state.view = unsupported ? "12" : view;
      for (const button of findAll(panel, ".views button")) {
        button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
      }
      schedule();
    }
    function reset(map, turns) {
      Object.assign(state, { map: map ?? null, turns, shown: null });
      const notes = map?.missing ? [map.missing] : map?.notes ?? [];
      find(panel, ".notes").replaceChildren(...notes.map((text) => makeElement("p", "", text)));
      panel.classList.toggle("missing", !map?.roles);
      drawn = null;
      schedule();
    }
    function show(index) {
      state.shown = index;
      schedule();
    }
    find(panel, ".views").addEventListener("click", (event) => {
      const { view } = datasetOf(event);
      if (view) selectView(
        /** @type {MapView} */
        view
      );
    });
    new ResizeObserver(() => requestAnimationFrame(resize)).observe(element2);
    whenPlotly(schedule, () => {
    });
    return { reset, show, refresh: schedule, repaint };
  }
  function makeTabs(root, onChange) {
    const tabs = findAll(root, '[role="tab"]');
    function select(tab, focus = false) {
      for (const other of tabs) {
        const selected = other === tab;
        other.setAttribute("aria-selected", String(selected));
        other.tabIndex = selected ? 0 : -1;
        find(root, `#${other.getAttribute("aria-controls")}`).hidden = !selected;
      }
      root.classList.toggle("with-map", tab.id !== "token-tab");
      find(root, ".key.tokens").hidden = tab.id !== "token-tab";
      find(root, ".key.places").hidden = tab.id !== "map-tab";
      if (focus) tab.focus();
      onChange();
    }
    for (const tab of tabs) {
      tab.addEventListener("click", () => select(tab));
      tab.addEventListener("keydown", ({ key }) => {
        const step = key === "ArrowLeft" ? tabs.length - 1 : key === "ArrowRight" ? 1 : 0;
        const next = tabs[(tabs.indexOf(tab) + step) % tabs.length];
        if (step && next) select(next, true);
      });
    }
  }

  // src/pane_header.js
  var TREND_SIGNS = { rising: "↗", falling: "↘", steady: "→" };
  function showTrend(pane, trend) {
    const sign = find(pane, ".trend");
    sign.hidden = trend === null;
    if (!trend) return;
    sign.title = `${trend.word}: ${number(trend.change)} over the last ${trend.turns} turns`;
    sign.replaceChildren(TREND_SIGNS[trend.word], makeElement("span", "hidden-status", ` ${trend.word}`));
  }
  function showMean(pane, branch, reply, prefix, zones) {
    const answer = reply ? meanOf(reply) : null;
    const mean = answer ?? (reply ? reasoningMeanOf(reply) : null);
    const part = mean !== null && answer === null ? "reasoning " : "";
    const chip = find(pane, ".chip");
    const marker = find(pane, ".gauge i");
    const zone = part || mean === null ? "" : zoneOf(mean, zones);
    if (mean === null) chip.textContent = "–";
    else chip.replaceChildren(`${prefix}${part}`, makeElement("b", "", number(mean)), zone && ` · ${zone}`);
    const measured = part ? "the reasoning before this reply" : "this reply";
    const units = `Mean projection of ${measured} in axis units: 0 = average role, 1 = ${axisWords().default}.`;
    chip.title = part ? units : `${units} ${describeZones(branch, zones)}`;
    marker.hidden = mean === null;
    if (mean !== null) marker.style.left = `${Math.min(100, Math.max(0, (mean + 1) / 3 * 100))}%`;
  }
  function showCapAction(pane, text) {
    find(pane, ".cap-action").textContent = text;
  }

  // src/reasoning.js
  function appendSpans(box, spans, trim) {
    let begun = !trim || box.textContent !== "";
    for (const span of spans) {
      if (!begun) span.textContent = (span.textContent ?? "").trimStart();
      begun ||= span.textContent !== "";
    }
    box.append(...spans);
  }
  function makeReasoning() {
    const block = makeElement("details", "reasoning");
    const heading = makeElement("summary", "", "Reasoning…");
    const box = makeElement("div", "thoughts");
    let settled = false;
    let ended = false;
    block.hidden = true;
    block.append(heading, box);
    heading.addEventListener("click", () => {
      settled = true;
    });
    function append(spans) {
      block.hidden = false;
      if (!settled && !ended) block.open = true;
      appendSpans(box, spans, true);
    }
    function end() {
      ended = true;
      heading.textContent = `Reasoning · ${counted(box.children.length, "token")}`;
    }
    function answerBegins(following) {
      if (ended) return;
      if (!following) settled = true;
      if (!settled) block.open = false;
      end();
    }
    function finish(reply) {
      if (hasReasoning(reply)) end();
    }
    function keep(old) {
      if (old.block.hidden) return;
      block.open = old.block.open;
      settled = true;
    }
    function reveal(token) {
      if (!box.contains(token)) return;
      block.open = settled = true;
    }
    return { block, append, answerBegins, finish, keep, reveal };
  }

  // src/scrolling.js
  var NEAR_PX = 12;
  var MOVED_PX = 4;
  var GAP_PX = 8;
  function positionFor(top, full, view, last) {
    return last && full - top + GAP_PX <= view ? full - view : top - GAP_PX;
  }
  function makeScrolling(log) {
    let goal = "newest";
    let seen = { top: 0, full: 0, view: 0 };
    const look = () => ({ top: log.scrollTop, full: log.scrollHeight, view: log.clientHeight });
    const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;
    function noticeUser() {
      const now = look();
      if (now.full !== seen.full || now.view !== seen.view || Math.abs(now.top - seen.top) < MOVED_PX) return;
      goal = now.top > seen.top && atEnd() ? "end" : null;
      seen = now;
    }
    function leaveEnd() {
      if (log.scrollTop > 0) goal = null;
    }
    let finger = 0;
    function followFinger({ touches }) {
      const now = touches[0]?.clientY ?? finger;
      if (now > finger) leaveEnd();
      finger = now;
    }
    function wanted() {
      if (goal === null) return null;
      const turns = log.querySelectorAll(".turn");
      const last = turns[turns.length - 1];
      const turn = typeof goal === "number" ? log.querySelector(`.turn[data-turn="${goal}"]`) : last;
      if (goal === "end" || !turn) return log.scrollHeight;
      const above = turn.getBoundingClientRect().top - log.getBoundingClientRect().top + log.scrollTop;
      const top = turn === turns[0] ? 0 : above;
      return positionFor(top, log.scrollHeight, log.clientHeight, turn === last);
    }
    function keep() {
      const position = wanted();
      if (position !== null) log.scrollTop = position;
      seen = look();
    }
    function show(next) {
      goal = next;
      keep();
    }
    const sizes = new ResizeObserver(keep);
    sizes.observe(log);
    log.addEventListener("scroll", noticeUser, { passive: true });
    log.addEventListener("wheel", (event) => event.deltaY < 0 && leaveEnd(), { passive: true });
    log.addEventListener("touchstart", ({ touches }) => finger = touches[0]?.clientY ?? 0, { passive: true });
    log.addEventListener("touchmove", followFinger, { passive: true });
    return {
      noticeUser,
      keep,
      show,
      following: () => goal !== null,
      growing: () => goal === "newest" && show("end"),
      watch: (turn) => sizes.observe(turn)
    };
  }

  // src/panes.js
  function makePane(root, branch, hooks) {
    const pane = find(root, `.pane[data-branch="${branch}"]`);
    const log = find(pane, ".log");
    const sections = /* @__PURE__ */ new Map();
    const gaps = /* @__PURE__ */ new Map();
    const scrolling = makeScrolling(log);
    const system = makeSystemPrompt(hooks.setPrompt);
    log.append(system.element);
    const showLegend = (visible) => {
      for (const legend of findAll(pane, ".legend")) legend.hidden = !visible;
    };
    let pulse = null;
    let lostNotice = null;
    log.addEventListener("click", (event) => {
      if (closestOf(event, "button, summary")) scrolling.show(null);
      const section = closestOf(event, ".turn");
      if (section && !targetOf(event).closest("button, textarea, summary, .how-box") && !String(getSelection())) {
        hooks.selectTurn(Number(section.dataset.turn));
      }
    });
    function build(index, turn) {
      const section = makeElement("section", "turn");
      section.dataset.turn = String(index);
      const user = makeElement("p", "user");
      user.append(makeElement("span", "hidden-status", "You: "), document.createTextNode(turn.user));
      const reasoning = makeReasoning();
      const tokenBox = makeElement("div", "reply");
      tokenBox.dataset.turn = String(index);
      const prose = makeElement("div", "formatted");
      const wait = makeElement("p", "wait", "reading the prompt…");
      const begins = makeElement("p", "begins");
      const threshold = thresholdIn(turn.settings, branch);
      const finish = makeElement("p", "finish");
      const foot = makeElement("p", "foot");
      const select = makeButton("select-turn");
      select.addEventListener("click", () => hooks.selectTurn(index));
      begins.hidden = finish.hidden = foot.hidden = true;
      foot.append(select);
      const tools = hooks.tools(index, turn);
      if (tools) foot.append(tools);
      const changed2 = hooks.promptChange(index, branch);
      if (changed2 !== null) section.append(makePromptChange(changed2));
      section.append(user, reasoning.block, tokenBox, prose, wait, begins, finish, foot);
      const how = makeSettingsList(turn, branch, hooks.meta(), hooks.how(index, branch));
      if (how) {
        foot.append(how.button);
        section.append(how.list);
      }
      const shown = { section, user, reasoning, tokenBox, prose, wait, begins, threshold, finish, foot };
      return { ...shown, select, how, spans: [] };
    }
    function mountGap(index) {
      const line = makeElement("p", "no-reply", `turn ${index + 1}: no ${branch} reply`);
      const place = sections.get(index)?.section ?? gaps.get(index);
      if (place) place.replaceWith(line);
      else log.append(line);
      sections.delete(index);
      gaps.set(index, line);
    }
    function mount(index, turn) {
      if (turn.replies[branch].absent) {
        mountGap(index);
        return;
      }
      const old = sections.get(index);
      scrolling.noticeUser();
      lostNotice?.remove();
      const fresh = build(index, turn);
      const place = old?.section ?? gaps.get(index);
      if (place) place.replaceWith(fresh.section);
      else log.append(fresh.section);
      gaps.delete(index);
      if (old?.section.classList.contains("shown")) fresh.section.classList.add("shown");
      sections.set(index, fresh);
      scrolling.watch(fresh.section);
      if (old) fresh.reasoning.keep(old.reasoning);
      if (old?.how) fresh.how?.show(!old.how.list.hidden);
      addTokens(index, turn.replies[branch].visibleTokens);
      showBeginning(index, turn.replies[branch]);
      showFinished(index, turn.replies[branch]);
    }
    function tokenSpan(token, position) {
      const span = makeElement("span", token.acted ? "tok fired" : "tok", token.t);
      span.dataset.i = String(position);
      if (token.f) span.classList.add("given");
      if (token.acted) showLegend(true);
      setTone(span, toneOf(token.a ?? token.b), "tone", "");
      setTone(span, toneOf(token.second), "second-tone", "second-");
      showAmounts(span, token);
      return span;
    }
    function setTone(span, tone, property, prefix) {
      if (tone === null) return;
      span.style.setProperty(`--${property}`, `${Math.round(Math.abs(tone) * 100)}%`);
      span.classList.add(`${prefix}${tone < 0 ? "low" : "high"}`);
    }
    function appendTokens(index, tokens) {
      scrolling.growing();
      addTokens(index, tokens);
    }
    function addTokens(index, tokens) {
      const entry = sections.get(index);
      if (!entry || !tokens.length) return;
      scrolling.noticeUser();
      const { reasoning, tokenBox, spans } = entry;
      const first = spans.length;
      for (const token of tokens) spans.push(tokenSpan(token, spans.length + 1));
      const fresh = (wanted) => spans.slice(first).filter((_, n) => Boolean(tokens[n]?.r) === wanted);
      if (tokens.some((token) => token.r)) reasoning.append(fresh(true));
      if (!reasoning.block.hidden && tokens.some((token) => !token.r))
        reasoning.answerBegins(scrolling.following());
      appendSpans(tokenBox, fresh(false), !reasoning.block.hidden);
      entry.wait.hidden = true;
      stopPulse();
      scrolling.keep();
    }
    function showBeginning(index, reply) {
      const entry = sections.get(index);
      if (!entry) return;
      const text = describeBeginning(reply, entry.threshold);
      entry.begins.hidden = !text;
      entry.begins.textContent = text;
    }
    function showFinished(index, reply) {
      const entry = sections.get(index);
      if (!entry || reply.finish === null) return;
      scrolling.noticeUser();
      showBeginning(index, reply);
      const label = finishLabel(reply);
      entry.wait.hidden = true;
      stopPulse();
      entry.finish.hidden = label === null;
      entry.finish.textContent = label ?? "";
      entry.finish.classList.toggle("failed", reply.finish === "failed");
      if (reply.html) {
        entry.prose.innerHTML = reply.html;
        entry.section.classList.add("has-prose");
      }
      entry.foot.hidden = false;
      entry.reasoning.finish(reply);
      const ended = reply.finish === "sentence" ? ", ended at a sentence" : "";
      const tokens = `${counted(reply.visibleTokens.length, "token")}${ended}`;
      const reasoning = hasReasoning(reply) ? `, reasoning ${number(reasoningMeanOf(reply))}` : "";
      const plain = reply.plainMean === null ? "" : ` (read without the cap: ${number(reply.plainMean)})`;
      const means = `mean ${number(meanOf(reply))}${plain}${reasoning}`;
      entry.select.textContent = `turn ${index + 1} · ${means} · ${tokens}`;
      entry.select.title = "Show this turn in the token chart";
      scrolling.keep();
    }
    function showWaiting(index) {
      scrolling.show("end");
      const entry = sections.get(index);
      if (!entry || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
      const frames = [{ opacity: 1 }, { opacity: 0.45 }];
      const timing = { duration: 900, iterations: Infinity, direction: "alternate", easing: "ease-in-out" };
      pulse = entry.wait.animate(frames, timing);
    }
    function showLost(text) {
      lostNotice?.remove();
      lostNotice = makeElement("p", "notice error", text);
      log.append(lostNotice);
      scrolling.show("end");
    }
    function showQueue(index, ahead) {
      const entry = sections.get(index);
      if (!entry) return;
      const others = ahead === 1 ? "1 conversation is" : `${ahead} conversations are`;
      entry.wait.textContent = ahead ? `waiting: ${others} ahead…` : "reading the prompt…";
    }
    function stopPulse() {
      pulse?.cancel();
      pulse = null;
    }
    function markShown(index) {
      log.querySelector(".turn.shown")?.classList.remove("shown");
      sections.get(index)?.section.classList.add("shown");
    }
    function scrollToTurn(index) {
      scrolling.show(index);
    }
    function tokenAt(index, position) {
      return sections.get(index)?.spans[position - 1] ?? null;
    }
    function highlight(index, position) {
      log.querySelector(".tok.highlighted")?.classList.remove("highlighted");
      if (position) tokenAt(index, position)?.classList.add("highlighted");
    }
    function flash(index, position) {
      const token = tokenAt(index, position);
      if (!token) return;
      sections.get(index)?.reasoning.reveal(token);
      log.scrollTop = token.offsetTop - log.offsetTop - log.clientHeight / 2;
      scrolling.show(null);
      token.classList.remove("flash");
      void token.offsetWidth;
      token.classList.add("flash");
    }
    function removeFrom(first) {
      for (const [index, entry] of sections) {
        if (index < first) continue;
        entry.section.remove();
        sections.delete(index);
      }
      for (const [index, line] of gaps) {
        if (index < first) continue;
        line.remove();
        gaps.delete(index);
      }
    }
    function clear() {
      stopPulse();
      log.replaceChildren(system.element);
      sections.clear();
      gaps.clear();
      showLegend(false);
      scrolling.show("newest");
    }
    function showNewest() {
      scrolling.show("newest");
    }
    function userMessage(index) {
      return sections.get(index)?.user ?? null;
    }
    return {
      branch,
      pane,
      log,
      mount,
      appendTokens,
      showBeginning,
      showFinished,
      showWaiting,
      showLost,
      showQueue,
      showPrompts: system.show,
      markShown,
      scrollToTurn,
      showNewest,
      highlight,
      flash,
      tokenAt,
      removeFrom,
      clear,
      userMessage
    };
  }

  // src/path.js
  function replyIn({ replies }, branch) {
    const present = BRANCHES.filter((one) => !replies[one].absent);
    if (branch !== "steered" || !replies.steered.absent || present.length < 2) return replies[branch];
    return replies.uncapped;
  }
  var isPlaced = ({ finish }) => finish === "stop" || finish === "sentence" || finish === "length";
  function pathOf(turns, branch) {
    let now = null;
    return turns.map((turn, index) => {
      const reply = replyIn(turn, branch);
      if (reply.absent || !isPlaced(reply) || meanOf(reply) === null) return null;
      const { step } = reply;
      now = step && now ? { step, length: now.length + step.length, since: now.since } : { step: null, length: 0, since: index };
      return now;
    });
  }
  function pathsTo(turns, index) {
    if (index === null) return [];
    const shown = turns.slice(0, index + 1);
    const paths = BRANCHES.filter((branch) => shown.some((turn) => !turn.replies[branch].absent)).map(
      (branch) => ({ branch, points: pathOf(shown, branch) })
    );
    return paths.some(({ points }) => points.some((point) => point?.step)) ? paths : [];
  }
  var lastOf = (points) => points.filter((point) => point !== null).at(-1);
  function describeSince(paths) {
    const parts = paths.flatMap(({ branch, points }) => {
      const first = points.findIndex((point) => point !== null);
      const last = lastOf(points);
      return last && last.since > first ? [`the ${branch} path from turn ${last.since + 1}`] : [];
    });
    return parts.length ? `Counted anew: ${parts.join(", ")}, because the step to that reply was not measured.` : "";
  }
  function fillTable(table2, paths) {
    const [branches, columns2] = [makeElement("tr"), makeElement("tr")];
    branches.append(makeElement("td"));
    columns2.append(makeElement("th", "", "turn"));
    for (const { branch } of paths) {
      const head2 = makeElement("th", branch, branch);
      head2.colSpan = 3;
      branches.append(head2);
      columns2.append(...["step", "along", "path"].map((name) => makeElement("th", "", name)));
    }
    const head = makeElement("thead");
    head.append(branches, columns2);
    const body = makeElement("tbody");
    for (const turn of paths[0]?.points.keys() ?? []) {
      const row = makeElement("tr");
      row.append(makeElement("th", "", String(turn + 1)));
      for (const { points } of paths) {
        const point = points[turn] ?? null;
        const cells = [point?.step?.length ?? null, point?.step?.along ?? null, point?.length ?? null];
        row.append(...cells.map((value) => makeElement("td", "", value === null ? "–" : number(value))));
      }
      body.append(row);
    }
    table2.replaceChildren(head, body);
  }
  function makePath(root) {
    const box = findAs(root, ".summary-bar .path", HTMLDetailsElement);
    const lengths = find(box, ".lengths");
    const table2 = findAs(box, "table", HTMLTableElement);
    const since = find(box, ".since");
    let drawn = "";
    document.addEventListener("click", ({ target }) => {
      if (target instanceof Node && !box.contains(target)) box.open = false;
    });
    function show(turns, index) {
      const paths = pathsTo(turns, index);
      const key = JSON.stringify(paths);
      if (key === drawn) return;
      drawn = key;
      box.hidden = !paths.length;
      if (box.hidden) box.open = false;
      const parts = paths.map(({ branch, points }) => {
        const last = lastOf(points);
        return makeElement("span", branch, last ? number(last.length) : "–");
      });
      lengths.replaceChildren(...parts.flatMap((part, n) => n ? [" / ", part] : [part]));
      fillTable(table2, paths);
      since.textContent = describeSince(paths);
      since.hidden = !since.textContent;
    }
    return { show };
  }

  // src/summary_bar.js
  function makeSummaryBar(root) {
    const bar = find(root, ".summary-bar");
    const gapBox = find(bar, ".gap");
    const sentenceBox = find(bar, ".sentence");
    const shareBox = find(bar, ".share");
    const alongBox = find(bar, ".along");
    alongBox.title = "Means along further directions, each on its own scale. The cap along the axis does not aim at them.";
    function showAlong(along2) {
      alongBox.hidden = !along2.some(({ values }) => Object.keys(values).length);
      const parts = along2.map(({ name, values }) => {
        const numbers = Object.entries(values).map(([branch, value]) => {
          const part = makeElement("span", branch, number(value));
          part.title = `${branch} mean along ${name}`;
          return part;
        });
        const item = makeElement("span", "direction");
        item.append(`${name} `, ...numbers.flatMap((part, n) => n ? [" / ", part] : [part]));
        return item;
      });
      alongBox.replaceChildren("read along: ", ...parts);
    }
    function show({ items, gap, share, along: along2, sentence }) {
      showAlong(along2);
      shareBox.textContent = share === null ? "" : `${describeShare(share)} of the shift on the axis`;
      bar.hidden = items.length === 0;
      gapBox.textContent = gap === null ? "" : `gap ${number(gap)}`;
      gapBox.title = "Capped mean minus uncapped mean, in axis units";
      if (sentenceBox.textContent !== sentence) sentenceBox.textContent = sentence;
    }
    return { show };
  }

  // src/walking.js
  var MOVES = {
    ArrowRight: (counts, place) => along(counts, place, 1),
    ArrowLeft: (counts, place) => along(counts, place, -1),
    ArrowDown: (counts, place) => across(counts, place, 1),
    ArrowUp: (counts, place) => across(counts, place, -1),
    Home: (_, place) => ({ ...place, at: 0 }),
    End: (counts, place) => ({ ...place, at: (counts[place.pane]?.get(place.turn) ?? 1) - 1 })
  };
  function along(counts, { pane, turn, at }, step) {
    const own = counts[pane] ?? /* @__PURE__ */ new Map();
    if (at + step >= 0 && at + step < (own.get(turn) ?? 0)) return { pane, turn, at: at + step };
    const filled = [...own].filter(([, count]) => count > 0).map(([index]) => index);
    const others = filled.filter((index) => (index - turn) * step > 0).sort((one, other) => one - other);
    const next = step > 0 ? others[0] : others.at(-1);
    if (next === void 0) return null;
    return { pane, turn: next, at: step > 0 ? 0 : (own.get(next) ?? 1) - 1 };
  }
  function across(counts, { pane, turn, at }, step) {
    for (let other = pane + step; other >= 0 && other < counts.length; other += step) {
      const count = counts[other]?.get(turn) ?? 0;
      if (count) return { pane: other, turn, at: Math.min(at, count - 1) };
    }
    return null;
  }
  function moved(key, counts, place) {
    return MOVES[key]?.(counts, place);
  }
  function start(key, count) {
    if (key === "ArrowRight") return 0;
    return key === "ArrowLeft" ? count - 1 : null;
  }
  function makeWalking(root, panes, hooks) {
    const tokensOf = (turn) => findAll(turn, ".tok").filter((span) => span.getClientRects().length > 0);
    const turnOf = (element2) => {
      const section = element2?.closest(".turn");
      return section instanceof HTMLElement ? Number(section.dataset.turn) : null;
    };
    function countsOf({ log }) {
      return new Map(findAll(log, ".turn").map((turn) => [Number(turn.dataset.turn), tokensOf(turn).length]));
    }
    function spanAt(visible, { pane, turn, at }) {
      const section = visible[pane]?.log.querySelector(`.turn[data-turn="${turn}"]`);
      return section ? tokensOf(section)[at] : void 0;
    }
    function goal(key, visible, pane) {
      const current = hooks.current();
      const own = visible.indexOf(pane);
      const turn = turnOf(current ?? pane.log.querySelector(".turn.shown"));
      const section = turn === null ? null : pane.log.querySelector(`.turn[data-turn="${turn}"]`);
      if (turn === null || !section) return void 0;
      const tokens = tokensOf(section);
      const at = current ? tokens.indexOf(current) : -1;
      if (at >= 0) return moved(key, visible.map(countsOf), { pane: own, turn, at });
      const first = start(key, tokens.length);
      return first === null || !tokens.length ? void 0 : { pane: own, turn, at: first };
    }
    function onKey(event, pane) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
      if (root.classList.contains("veiled") || targetOf(event).closest("textarea, input, select")) return;
      const visible = panes.filter((one) => !one.pane.hidden);
      const place = goal(event.key, visible, pane);
      if (place === void 0) return;
      event.preventDefault();
      const other = place && visible[place.pane];
      const span = place && spanAt(visible, place);
      if (!other || !span) return;
      if (!span.closest(".turn.shown")) hooks.selectTurn(place.turn);
      if (other !== pane) other.log.focus({ preventScroll: true });
      span.scrollIntoView({ block: "nearest" });
      hooks.show(span, other.branch);
    }
    for (const pane of panes) pane.log.addEventListener("keydown", (event) => onKey(event, pane));
  }

  // src/tooltip.js
  var TOOLTIP_GAP = 8;
  function addRow(list, name, value) {
    list.append(makeElement("dt", "", name), makeElement("dd", "", value));
  }
  function liftBars(lifts, first) {
    const box = makeElement("div", "lifts");
    const most = Math.max(...lifts);
    lifts.forEach((value, n) => {
      const bar = makeElement("i");
      bar.style.height = `${most > 0 ? Math.max(4, 100 * value / most) : 4}%`;
      bar.title = `layer ${first + n}: +${number(value)}`;
      box.append(bar);
    });
    return box;
  }
  function fillTooltip(tooltip, branch, token, position, capLayers, settings) {
    const also = settings?.also;
    const list = makeElement("dl");
    if (token.r) addRow(list, "part", "reasoning");
    if (token.f) addRow(list, "given", "not sampled: the reply was made to go on so");
    const { before, after } = projections(token);
    addRow(list, "token", `${position}: ${JSON.stringify(token.t)}`);
    if (before === null) addRow(list, "projection", "not recorded");
    else if (Math.abs(after - before) > 1e-6)
      addRow(list, "projection", `${number(before)} → ${number(after)}`);
    else addRow(list, "projection", number(after));
    if (typeof token.q === "number") addRow(list, "read without the cap", number(token.q));
    settings?.along?.forEach((name, n) => {
      const value = token.g?.[n];
      if (value !== void 0) addRow(list, name.replace(/_/g, " "), number(value));
    });
    if (token.p !== null && token.p !== void 0)
      addRow(list, "probability", `${percent(token.p)} (${surpriseText(token)})`);
    tooltip.replaceChildren(list);
    if (token.l?.length) tooltip.append(alternativesTable(token, branch === "capped"));
    if (branch !== "capped" && !token.k) return;
    const effect = effectOnChoice(token);
    if (effect) tooltip.append(makeElement("p", "", effect));
    if (token.z && also) {
      const amount = number(also.downward ? -token.z : token.z);
      const moved2 = `The cap along ${also.direction.replace(/_/g, " ")} moved it by ${amount} (sum over layers).`;
      tooltip.append(makeElement("p", "", moved2));
    }
    if (!token.k) {
      if (!token.z) tooltip.append(makeElement("p", "", "The cap did not act."));
      return;
    }
    const first = capLayers?.[0] ?? 0;
    const all = token.k.map((value, n) => ({ layer: first + n, value }));
    const layers = all.filter(({ value }) => value > 0);
    const sum = number(layers.reduce((total, { value }) => total + value, 0));
    const summary = `Lifted at ${layers.length} of ${token.k.length} layers (in axis units of each layer; sum ${sum})`;
    const details = layers.map(({ layer, value }) => `${layer}: +${number(value)}`).join(", ");
    tooltip.append(makeElement("p", "", summary), liftBars(token.k, first), makeElement("p", "small", details));
  }
  function alternativesTable(token, capped) {
    const beside = (token.o ?? []).length > 0;
    const table2 = makeElement("table", "alternatives");
    const columns2 = ["it could have been", ...beside ? ["no cap"] : [], capped ? "capped" : "probability"];
    table2.createTHead().insertRow().append(...columns2.map((name) => makeElement("th", "", name)));
    const body = table2.createTBody();
    for (const { text, own, plain } of choices(token)) {
      const row = body.insertRow();
      if (text === token.t) row.className = "chosen";
      for (const cell2 of [shownToken(text), ...beside ? [chance(plain)] : [], chance(own)])
        row.insertCell().textContent = cell2;
    }
    return table2;
  }
  var chance = (share) => share === void 0 ? "–" : percent(share);
  function lowerEdge() {
    const box = document.querySelector("#say")?.getBoundingClientRect();
    return box?.height ? Math.min(innerHeight, box.top) : innerHeight;
  }
  function makeTooltip(root, panes, hooks) {
    const tooltip = makeElement("div", "tooltip");
    tooltip.setAttribute("role", "tooltip");
    tooltip.hidden = true;
    root.append(tooltip);
    let current = null;
    let stays = false;
    let pointer = "";
    let frame = 0;
    let pinned = false;
    function show(span, branch) {
      const section = span.closest(".turn");
      if (!(section instanceof HTMLElement)) return;
      const [turn, position] = [Number(section.dataset.turn), Number(span.dataset.i)];
      const token = hooks.token(branch, turn, position);
      if (!token) return;
      current?.classList.remove("current");
      current = span;
      stays = false;
      pin(false);
      span.classList.add("current");
      fillTooltip(tooltip, branch, token, position, hooks.capLayers(turn, branch), hooks.settings(turn));
      tooltip.hidden = false;
      place();
      follow();
      hooks.hover(branch, position, turn);
    }
    function follow() {
      cancelAnimationFrame(frame);
      frame = requestAnimationFrame(() => {
        if (!current) return;
        if (!current.getClientRects().length) {
          hide();
          return;
        }
        place();
        follow();
      });
    }
    function place() {
      if (!current) return;
      const [box, outer] = [current.getBoundingClientRect(), root.getBoundingClientRect()];
      const { offsetWidth: width, offsetHeight: height } = tooltip;
      const left = Math.min(Math.max(box.left - outer.left, 0), Math.max(0, outer.width - width));
      const [below, edge] = [box.bottom + TOOLTIP_GAP, lowerEdge()];
      const above = Math.min(box.top - TOOLTIP_GAP, edge) - height;
      const top = below + height < edge ? below : Math.max(above, 0);
      tooltip.style.left = `${left}px`;
      tooltip.style.top = `${top - outer.top}px`;
    }
    function pin(wanted) {
      pinned = wanted;
      tooltip.classList.toggle("pinned", wanted);
    }
    function choose(span, branch) {
      show(span, branch);
      const turn = Number(span.closest(".turn")?.getAttribute("data-turn"));
      const form = hooks.forkForm(branch, turn, Number(span.dataset.i), hide);
      if (!form) return;
      pin(true);
      tooltip.append(form);
      place();
    }
    function hide() {
      if (current) hooks.unhover();
      const log = current?.closest(".log");
      if (log instanceof HTMLElement && tooltip.contains(document.activeElement))
        log.focus({ preventScroll: true });
      stays = false;
      pin(false);
      tooltip.hidden = true;
      current?.classList.remove("current");
      current = null;
    }
    function onEscape(event) {
      if (event.key !== "Escape" || !current) return;
      hide();
      event.stopPropagation();
    }
    function onScroll(log) {
      if (!current || !log.contains(current) || current.matches(":hover")) return;
      const [token, seen] = [current.getBoundingClientRect(), log.getBoundingClientRect()];
      const inSight = token.bottom > seen.top && token.top < seen.bottom;
      if (!((stays || pinned) && inSight)) hide();
    }
    function bring(span, branch) {
      show(span, branch);
      stays = true;
    }
    for (const pane of panes) {
      const { log, branch } = pane;
      const showUnder = (event) => {
        if (event instanceof PointerEvent && event.type === "pointerover") {
          const before = pointer;
          pointer = `${event.screenX} ${event.screenY}`;
          if (stays && pointer === before) return;
        }
        if (pinned) return;
        const span = closestOf(event, ".tok");
        if (span) show(span, branch);
        else hide();
      };
      const chooseUnder = (event) => {
        const span = closestOf(event, ".tok");
        if (span) choose(span, branch);
        else hide();
      };
      const chooseByKey = (event) => {
        if (event.key !== "Enter" || !current || !log.contains(current) || event.target !== log) return;
        choose(current, branch);
        tooltip.querySelector("button")?.focus();
        event.preventDefault();
      };
      const hideUnlessPinned = () => pinned || hide();
      const unlessTouch = (act) => (event) => {
        if (event.pointerType !== "touch") act(event);
      };
      log.addEventListener("pointerover", unlessTouch(showUnder), { passive: true });
      log.addEventListener("pointerleave", unlessTouch(hideUnlessPinned), { passive: true });
      log.addEventListener("click", chooseUnder);
      log.addEventListener("scroll", () => onScroll(log), { passive: true });
      log.addEventListener("keydown", onEscape);
      log.addEventListener("keydown", chooseByKey);
      log.addEventListener("pointermove", ({ screenX, screenY }) => pointer = `${screenX} ${screenY}`, {
        passive: true
      });
      log.addEventListener("blur", hideUnlessPinned);
    }
    document.addEventListener("keydown", (event) => (pinned || stays) && onEscape(event), { capture: true });
    document.addEventListener("pointerdown", (event) => {
      if ((pinned || stays) && !closestOf(event, ".tooltip, .tok")) hide();
    });
    makeWalking(root, panes, { current: () => current, show: bring, selectTurn: hooks.selectTurn });
    return { bring };
  }

  // src/turn_list.js
  function makeTurnList(root, select) {
    const box = find(root, ".turn-list");
    const list = findAs(box, "select", HTMLSelectElement);
    const back = findAs(box, ".back", HTMLButtonElement);
    const on = findAs(box, ".on", HTMLButtonElement);
    let shown = -1;
    let count = 0;
    function move(step) {
      const index = shown + step;
      if (index >= 0 && index < count) select(index);
    }
    function show(turns, index) {
      const names = turns.map(turnName);
      const known = Array.from(list.options, (option) => option.text);
      if (names.join("\n") !== known.join("\n")) {
        list.replaceChildren(...names.map((name, n) => new Option(name, String(n))));
      }
      [shown, count] = [index ?? -1, turns.length];
      list.value = String(shown);
      box.hidden = count < 2;
      back.disabled = shown <= 0;
      on.disabled = shown + 1 >= count;
    }
    list.addEventListener("change", () => select(Number(list.value)));
    back.addEventListener("click", () => move(-1));
    on.addEventListener("click", () => move(1));
    return { show, back: () => move(-1), on: () => move(1) };
  }

  // src/view.js
  function makeView(root, conversation, sendRequest) {
    let toolsBranch = null;
    const panes = byBranch(
      (branch) => makePane(root, branch, {
        selectTurn,
        tools: toolsFor,
        promptChange: (index, one) => conversation.promptChange(index, one),
        setPrompt: (text) => sendRequest("system_prompt", { text }),
        meta: () => conversation.meta,
        how: (index, one) => ({
          command: () => commandOf(conversation.turns, index, { ...conversation.meta, fork: conversation.fork }),
          link: () => links.addressFor(index, one)
        })
      })
    );
    const charts = makeCharts(root, {
      selectTurn: (index) => selectTurn(index, true),
      flash,
      highlight,
      missing: () => {
        showNotice(root, "The plotting script could not be loaded; the chat works without it.", "error");
      }
    });
    const map = makeMap(root, { selectTurn: (index) => selectTurn(index, true) });
    const shown = () => ({
      turn: conversation.shown,
      replies: conversation.shownReplies,
      readable: !conversation.meta.watch_only
    });
    const layers = makeLayers(root, { sendRequest, flash, shown });
    const compare = makeCompare(root, conversation, {
      sendRequest,
      chart: charts.compareWith,
      ended: () => showCurrentTurn()
    });
    const summaryBar = makeSummaryBar(root);
    const path = makePath(root);
    const lens = makeLens(root);
    const turnList = makeTurnList(root, (index) => selectTurn(index, true));
    const latestButton = find(root, ".latest");
    latestButton.addEventListener("click", () => selectTurn(conversation.last, true));
    const tooltip = makeTooltip(root, Object.values(panes), {
      token: (branch, index, position) => conversation.reply(index, branch)?.visibleTokens[position - 1],
      capLayers: (index, branch) => {
        const layers2 = conversation.turns[index]?.settings?.own?.[branch]?.cap?.layers;
        return layers2 ? [layers2[0] ?? 0, layers2.at(-1) ?? 0] : conversation.metaOf(index).cap_layers;
      },
      settings: (index) => conversation.turns[index]?.settings ?? null,
      hover: (branch, position, index) => {
        if (index === conversation.shown) charts.hover(branch, position);
      },
      unhover: () => charts.hover("uncapped", null),
      forkForm,
      selectTurn: (index) => selectTurn(index, true)
    });
    const links = makeLinks(root, conversation, Object.values(panes), {
      show: showPlace,
      warn: (text) => showNotice(root, text)
    });
    makeTabs(root, () => {
      charts.refresh(false);
      map.refresh();
      layers.refresh();
    });
    const usable = () => Boolean(sendRequest.available && !conversation.meta.watch_only);
    function forkForm(branch, turn, position, done) {
      const token = conversation.reply(turn, branch)?.visibleTokens[position - 1];
      if (!token || !usable() || conversation.busy) return null;
      const answered = BRANCHES.filter((one) => !conversation.reply(turn, one)?.absent);
      return makeForkForm({ branch, turn, position, several: answered.length > 1 }, token, sendRequest, done);
    }
    function toolsFor(index, turn) {
      if (!toolsBranch) return null;
      const box = makeElement("span");
      const seeds = makeSeedsButton(turn.replies[toolsBranch], turn);
      if (seeds) box.append(seeds);
      if (usable() && wasCut(turn.replies[toolsBranch].finish))
        box.append(makeGoOnButton(toolsBranch, index, sendRequest));
      if (usable() && toolsBranch === Conversation.firstBranch(turn))
        box.append(turnTools(index, index === conversation.last, { sendRequest, edit }));
      return box.childNodes.length ? box : null;
    }
    function edit(index) {
      const turn = conversation.turns[index];
      const branch = turn && Conversation.firstBranch(turn);
      const message = branch && panes[branch].userMessage(index);
      if (message) editMessage(message, turn.user, (text) => sendRequest("edit", { turn: index, text }));
    }
    function selectTurn(index, scroll = false) {
      if (!conversation.pin(index)) return;
      if (index !== conversation.shown) showTurn(index);
      if (scroll) for (const branch of BRANCHES) panes[branch].scrollToTurn(index);
    }
    function flash(branch, position, index = conversation.shown) {
      if (index !== null) panes[branch].flash(index, position);
    }
    function showPlace(index, branch, position) {
      selectTurn(index, true);
      if (!branch) return;
      panes[branch].pane.scrollIntoView({ block: "nearest" });
      if (position === null) return;
      flash(branch, position, index);
      const span = panes[branch].tokenAt(index, position);
      if (span?.getClientRects().length) tooltip.bring(span, branch);
    }
    function highlight(branch, position) {
      const index = conversation.shown;
      if (index === null) return;
      for (const one of BRANCHES) panes[one].highlight(index, one === branch ? position : null);
    }
    function capAction(turn) {
      if (conversation.capIsOff) return "cap off";
      const reply = turn?.replies.capped;
      const threshold = thresholdIn(turn?.settings, "capped");
      return reply && !reply.absent && describeCapping(reply, true, threshold) || "activation capping";
    }
    function refreshHeaders() {
      const { turns, shown: index, showsEarlier, shownReplies } = conversation;
      const label = index === null ? "" : `turn ${index + 1}`;
      const { zones } = conversation.chartMeta;
      const summary = summarise(turns, index, conversation.capIsOff, zones);
      for (const branch of BRANCHES) {
        showMean(panes[branch].pane, branch, shownReplies?.[branch], showsEarlier ? `${label}: ` : "", zones);
        const { trend = null } = summary.items.find((item) => item.branch === branch) ?? {};
        showTrend(panes[branch].pane, trend);
      }
      const turn = index === null ? void 0 : turns[index];
      const settings = turn?.settings;
      showCapAction(panes.capped.pane, capAction(turn));
      find(panes.steered.pane, ".note").textContent = settings ? describeThird(settings) : "the third reply";
      turnList.show(turns, index);
      latestButton.hidden = !showsEarlier;
      summaryBar.show(summary);
      path.show(turns, index);
      compare.refresh();
    }
    function showKeys() {
      for (const branch of BRANCHES) {
        for (const item of findAll(root, `.key .${branch}`)) item.hidden = !conversation.has(branch);
      }
      for (const item of findAll(root, ".reasoning-key")) item.hidden = !conversation.hasReasoning;
      for (const item of findAll(root, ".zones-key")) item.hidden = !conversation.chartMeta.zones;
      for (const item of findAll(root, ".seeds-key")) item.hidden = !conversation.hasSeeds;
      showBesideKeys();
    }
    function showBesideKeys() {
      const settings = conversation.shown === null ? null : conversation.turns[conversation.shown]?.settings;
      find(root, ".range-name").textContent = conversation.chartMeta.zones?.names[2] ?? "";
      const name = settings?.second?.replace(/_/g, " ") ?? "";
      const capped = conversation.shownReplies?.capped;
      find(root, ".plain-key").hidden = !capped?.series.plain.x.length;
      find(root, ".second-key").hidden = !name;
      find(root, ".second-name").textContent = `${name}, on its own scale`;
      lens.offer(name);
    }
    function arrangePanes() {
      panes.steered.pane.hidden = !conversation.has("steered");
      root.classList.toggle("three", conversation.has("steered"));
      showKeys();
    }
    function announce(index, reply) {
      const mean = meanOf(reply);
      const told = mean !== null && !root.classList.contains("veiled");
      const zone = told && zoneOf(mean, conversation.metaOf(index).zones);
      const result = !told ? "" : `, mean ${number(mean)}${zone && `, ${zone}`}`;
      const end = reply.finish === "failed" ? `failed: ${finishLabel(reply)}` : "finished";
      const status = `Turn ${index + 1}, ${reply.branch} reply ${end}${result}`;
      find(root, "p.hidden-status").textContent = status;
    }
    function showPrompts() {
      const editable = sendRequest.available && !conversation.meta.watch_only;
      for (const branch of BRANCHES) panes[branch].showPrompts({ ...conversation.promptsIn(branch), editable });
    }
    function showTurn(index) {
      conversation.shown = index;
      showBesideKeys();
      for (const branch of BRANCHES) panes[branch].markShown(index);
      showMarks();
      charts.show(index);
      map.show(index);
      layers.refresh();
      refreshHeaders();
    }
    function showMarks() {
      if (conversation.figures) charts.relabel(conversation.figures);
    }
    function refreshCharts(turnsChanged = true) {
      charts.refresh(turnsChanged);
      map.refresh();
      compare.refresh();
    }
    function mountTurn(index) {
      const turn = conversation.turns[index];
      if (!turn) return;
      for (const branch of BRANCHES) {
        toolsBranch = branch;
        panes[branch].mount(index, turn);
      }
    }
    function putTurn(index, turn) {
      const next = conversation.put(index, turn);
      if (index > 0 && index === conversation.last) mountTurn(index - 1);
      mountTurn(index);
      showPrompts();
      arrangePanes();
      showEmpty(root, conversation.meta.empty_note, false);
      if (next === null) refreshCharts();
      else showTurn(next);
    }
    function removeTurns(from) {
      conversation.removeFrom(from);
      for (const branch of BRANCHES) panes[branch].removeFrom(from);
      layers.reset();
      showPrompts();
      if (from) showTurn(from - 1);
      else {
        charts.reset(conversation.figures, conversation.turns);
        map.reset(conversation.meta.map, conversation.turns);
        refreshHeaders();
      }
    }
    function showTurns(turns) {
      conversation.replace(turns);
      layers.reset();
      for (const branch of BRANCHES) panes[branch].clear();
      showPrompts();
      for (const index of turns.keys()) mountTurn(index);
      arrangePanes();
      showEmpty(root, conversation.meta.empty_note, turns.length === 0);
      conversation.shown = turns.length ? turns.length - 1 : null;
      charts.reset(conversation.figures, turns);
      map.reset(conversation.meta.map, turns);
      if (turns.length) showTurn(turns.length - 1);
      else refreshHeaders();
    }
    function showCurrentTurn() {
      const { shown: shown2, showsEarlier } = conversation;
      for (const branch of BRANCHES) {
        if (showsEarlier && shown2 !== null) panes[branch].scrollToTurn(shown2);
        else panes[branch].showNewest();
      }
    }
    function appendTokens(index, branch, tokens) {
      panes[branch].appendTokens(index, tokens);
      if (conversation.reply(index, branch)?.reasoning.count) showKeys();
      else if (index === conversation.shown) showBesideKeys();
      if (index === conversation.shown) refreshHeaders();
      refreshCharts(false);
    }
    function showBeginning(index, reply) {
      panes[reply.branch].showBeginning(index, reply);
      if (index === conversation.shown) refreshHeaders();
      showMarks();
      charts.refresh(true);
    }
    function showFinished(index, reply) {
      panes[reply.branch].showFinished(index, reply);
      announce(index, reply);
      if (index === conversation.shown) refreshHeaders();
      refreshCharts();
    }
    function repaint() {
      charts.repaint();
      map.repaint();
      layers.repaint();
    }
    return {
      panes,
      charts,
      layers,
      compare,
      links,
      turnList,
      refreshHeaders,
      showPrompts,
      showMarks,
      putTurn,
      removeTurns,
      showTurns,
      showCurrentTurn,
      appendTokens,
      showBeginning,
      showFinished,
      repaint
    };
  }

  // src/stage.js
  var HEAL_MS = 4e3;
  function makeStage(root, protocol, sendRequest) {
    let lastSeq = -1;
    let opened = false;
    let repliesExpected = false;
    let settled = 0;
    const conversation = new Conversation();
    const view = makeView(root, conversation, sendRequest);
    const veil = makeVeil(root, () => replay.goOn());
    const textSize = makeTextSize(root, () => {
      view.repaint();
      view.showCurrentTurn();
    });
    const toolbar = makeToolbar(root, { sendRequest, busy: () => conversation.busy });
    const tree = makeTree(root, sendRequest, (id) => view.compare.begin(id));
    const persistence = makePersistence({ sendRequest, warn: (text) => showNotice(root, text) });
    const replay = makeReplay(root, {
      goTo: (turn) => {
        if (turn < conversation.turns.length) view.removeTurns(turn);
        for (let n = Math.max(0, conversation.last); n < turn; n += 1) {
          const data = conversation.recorded[n];
          if (data) view.putTurn(n, turnFromData(data));
        }
      },
      startTurn: (turn, data) => beginTurn({ ...data, turn, branches: Conversation.answering(data) }),
      addToken: (turn, branch, token) => handlers.tokens({ turn, branch, at: Number.POSITIVE_INFINITY, tokens: [{ ...token }] }, false),
      endTurn: (turn, data) => {
        view.putTurn(turn, turnFromData(data));
        veil.turnEnds();
        if (veil.shown) replay.hold();
      },
      showAll: () => view.showTurns(conversation.recorded.map(turnFromData))
    });
    const intro = makeIntro(root, conversation, { showTurns: view.showTurns, replay });
    makeKeyboard(root, {
      next: toolbar.sendNext,
      nextDisplay: toolbar.nextDisplay,
      forks: tree.open,
      autoplay: toolbar.toggleAutoplay,
      replay: replay.toggle,
      presented: view.showCurrentTurn,
      veil: veil.toggle,
      larger: textSize.larger,
      smaller: textSize.smaller,
      turnBefore: view.turnList.back,
      nextTurn: view.turnList.on,
      sent: () => {
        repliesExpected = true;
        bringPanesIntoSight(root);
      },
      undo: () => hasOwnTurns() && sendRequest("undo"),
      again: () => hasOwnTurns() && sendRequest("regenerate", { turn: conversation.last })
    });
    watchPromptBox((text) => {
      if (sendRequest.available && !intro.ownMeta.watch_only)
        sendRequest("typed_prompt", { conversation: conversation.id, text });
    });
    const arrival = new Arrival({
      name: sessionName(),
      ask: (name) => sendRequest("shared", { name }),
      follow: () => view.links.follow()
    });
    makeTour(root);
    const mirror = makeMirror(root, sendRequest);
    const leftOut = find(root, ".left-out");
    const loadLine = find(root, ".load");
    const hasOwnTurns = () => conversation.turns.length > 0 && !intro.shown;
    function heal() {
      const seq = lastSeq;
      setTimeout(() => {
        if (!opened || lastSeq === seq && conversation.busy) sendRequest("show");
      }, HEAL_MS);
    }
    function open(turns) {
      const restoring = !conversation.meta.watch_only && persistence?.start(turns.length) || false;
      opened = true;
      const live = turns.filter(turnIsLive).length;
      settled += conversation.turns.length ? 0 : turns.length - live;
      if (live) heal();
      else if (turns.length) persistence?.turnEnded();
      return { restoring, arrived: !restoring && !turns.length };
    }
    function reset({ meta, turns: given = [] }, late) {
      const keepsTurns = late && !opened && conversation.turns.length > 0;
      const turns = keepsTurns ? conversation.turns : given.map(turnFromData);
      intro.end();
      if (opened) veil.lift();
      conversation.meta = { ...meta };
      if (opened && !late) find(root, ".notices").replaceChildren();
      const { restoring, arrived } = opened ? { restoring: false, arrived: false } : open(turns);
      leftOut.hidden = true;
      conversation.recorded = given;
      replay.load([]);
      toolbar.listRecordings(meta.shipped ?? []);
      view.showTurns(turns);
      arrival.shown(turns.length, restoring);
      if (arrived && !arrival.waits) intro.open(meta.intro);
    }
    function beginTurn({ turn, user, branches = ["uncapped", "capped"], kept = {}, ...made }) {
      if (!intro.shown) find(root, ".notices").replaceChildren();
      if (turn < conversation.turns.length) view.removeTurns(turn);
      conversation.pinned = false;
      veil.turnBegins();
      const begun = newTurn(user, branches, made);
      fillReplies(begun, kept);
      view.putTurn(turn, begun);
      for (const branch of BRANCHES) if (!kept[branch]) view.panes[branch].showWaiting(turn);
      if (repliesExpected) bringPanesIntoSight(root);
      repliesExpected = false;
    }
    function showLoad({ running, waiting, mib, budget }) {
      loadLine.hidden = waiting === 0 && running <= conversation.liveReplies;
      loadLine.textContent = `${counted(running, "reply is", "replies are")} being written on this machine, ${waiting || "none"} waiting · KV cache ${mib} of ${budget} MiB`;
    }
    const handlers = {
      reset,
      conversations(fields) {
        toolbar.show(fields, conversation.turns.length);
        tree.offer(fields.list.length);
        conversation.id = fields.ids[fields.current] ?? "";
        view.links.named(conversation.id);
        conversation.fork = fields.fork;
        conversation.nextPrompt = fields.system_prompt;
        view.showPrompts();
        view.compare.updateList(fields);
        persistence?.updateList(fields);
        if (fields.recorded) replay.load(conversation.recorded);
      },
      download: toolbar.save,
      persist: (fields) => persistence?.persist(fields),
      restored() {
        persistence?.restored();
        arrival.restored();
      },
      // What was asked of another conversation is not shown in this one.
      layers: (fields) => fields.conversation === conversation.id && view.layers.receive(fields),
      layers_failed: (fields) => fields.conversation === conversation.id && view.layers.fail(fields),
      compared: view.compare.receive,
      chats: toolbar.offerChats,
      tree: tree.show,
      pane_prompts({ prompts }) {
        conversation.panePrompts = prompts;
        view.showPrompts();
      },
      marks({ figures }) {
        intro.ownMeta.figures = figures;
        if (intro.shown) return;
        view.showMarks();
        view.refreshHeaders();
      },
      turn_start(fields) {
        persistence?.turnStarted(fields.user);
        const { link } = conversation.meta;
        if (link) link.turns = Math.min(link.turns, fields.turn);
        beginTurn(fields);
      },
      waiting({ turn, ahead }) {
        for (const branch of BRANCHES) view.panes[branch].showQueue(turn, ahead);
      },
      left_out({ text }) {
        leftOut.hidden = !text;
        leftOut.textContent = text;
      },
      load: showLoad,
      prompt(fields) {
        const reply = conversation.reply(fields.turn, fields.branch);
        if (!reply) return;
        reply.userMean = fields.user_mean ?? null;
        reply.start = fields.start ?? null;
        view.showBeginning(fields.turn, reply);
      },
      tokens(fields) {
        const visible = conversation.addTokens(fields);
        if (visible) view.appendTokens(fields.turn, fields.branch, visible);
      },
      turn_end(fields) {
        const reply = conversation.finish(fields);
        if (reply) view.showFinished(fields.turn, reply);
      },
      turn({ turn, data }) {
        settled += 1;
        persistence?.turnEnded();
        view.putTurn(turn, turnFromData(data));
        veil.turnEnds();
        if (!opened) heal();
      },
      lost({ branches, text }) {
        veil.lift();
        showEmpty(root, null, false);
        persistence?.turnEnded();
        for (const branch of branches) view.panes[branch]?.showLost(text);
      },
      notice({ text, level }) {
        arrival.refused();
        showNotice(root, text, level);
      }
    };
    checkProtocol(protocol, handlers);
    function apply(operation, late) {
      if ("turn" in operation) intro.leave();
      handlerOf(protocol, handlers, operation.op)(
        /** @type {never} */
        operation,
        late
      );
    }
    function receive(value) {
      if (!value || !Array.isArray(value.ops)) return;
      const start2 = value.ops.findIndex((op) => op.op === "reset");
      const late = value.seq <= lastSeq;
      if (late && start2 < 0) return;
      lastSeq = Math.max(lastSeq, value.seq);
      for (const op of late ? value.ops.slice(start2) : value.ops) apply(op, late);
      mirror.took(late ? value.ops.slice(start2) : value.ops);
      arrival.updated();
    }
    new MutationObserver(view.repaint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    showEmpty(root, null, true);
    return { receive, counts: () => ({ ...view.charts.counts(), settled, opened }) };
  }

  // src/main.js
  var host = { element, props, watch, trigger };
  var stage = makeStage(find(host.element, "#stage"), protocol_default, makeRequests(protocol_default, host.trigger));
  window.personaStage = { counts: stage.counts };
  var receiveText = () => stage.receive(host.props.value ? JSON.parse(host.props.value) : null);
  host.watch("value", receiveText);
  receiveText();
})();

// Made from its sources by `npm run build`; do not edit.
// Sources: e145a005621197c761ccac5814664559487825476cfa35ca566b80bd0a3cbe5b
// Bundle: af08f735d86252586df92c2e5f6aa4cf282c148ea964cb9968920df7c06c072b
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

  // src/live.js
  var LIVE = "#live";

  // making/words.js
  var DEFAULT = "default";
  function duration(minutes) {
    if (minutes < 1) return "less than a minute";
    if (minutes < 90) return `about ${Math.round(minutes)} min`;
    return `about ${Math.round(minutes / 60)} hours`;
  }
  function timeLeft(seconds) {
    if (seconds < 60) return `${Math.max(5, Math.ceil(seconds / 5) * 5)} s left`;
    const rounded = Math.ceil(seconds / 10) * 10;
    return rounded < 600 ? `${Math.floor(rounded / 60)} min ${rounded % 60} s left` : `${duration(seconds / 60)} left`;
  }
  function offerWords(preset, offer) {
    const name = preset.charAt(0).toUpperCase() + preset.slice(1);
    if (offer.done > 0)
      return [`Go on with ${name}`, `${Math.floor(offer.done * 100)}% of the replies are there`];
    const cost = offer.minutes === null ? "" : ` · ${duration(offer.minutes)} here`;
    return [name, `${offer.roles} roles${cost}`];
  }
  var STAGES = {
    rollouts: "It answers questions as itself and in roles.",
    "late turns": "It holds longer talks, as itself and in roles.",
    "cap settings": "It tries at which layers, and how strictly, to cap.",
    "single replies": "It measures how much a single reply tells."
  };
  function headline({ model, phase, preset, role_prompts, stage, message, checks }) {
    switch (phase) {
      case "measuring":
        return [`${model} has no axis yet`, "Measuring how fast this machine is…"];
      case "ready":
        return [
          `${model} has no axis yet`,
          "The model can make it: it answers the same questions as itself and in many roles, and the axis leads from the roles to the Assistant. Quick gives a rough one. You can stop and go on later."
        ];
      case "running":
        return [`Making the axis of ${model}`, STAGES[stage] ?? STAGES.rollouts ?? ""];
      case "stopped":
        return ["Stopped", "What is done is kept. Go on whenever you like, also after a restart."];
      case "failed":
        return ["No axis came out", message];
      case "done":
        return [`The axis of ${model} is ready`, verdict(checks, preset, role_prompts)];
    }
  }
  var THOROUGH = "standard";
  var PLAIN = "plain";
  function verdict(checks, preset, rolePrompts) {
    const passed = checks.filter((check) => check.passed).length;
    if (passed === checks.length) return `It passes all of its ${checks.length} checks.`;
    const firmly = rolePrompts === PLAIN ? " --role-prompts strong" : "";
    const what = firmly ? "Asking for roles more firmly may help" : "More replies may help";
    const help = preset === THOROUGH && !firmly ? "Another model may take up roles better." : `${what}: start the program with --make-axis standard${firmly}.`;
    return `It passes ${passed} of its ${checks.length} checks. ${help}`;
  }
  function agreement(halves) {
    if (halves === null) return "";
    return `Two halves of the replies agree to ${halves.toFixed(2)} (1 is fully).`;
  }
  function placeRoles(roles, { width, dot }) {
    const values = roles.map((role) => role.projection);
    const [low, high] = [Math.min(-0.5, ...values), Math.max(1.25, ...values)];
    const x = (projection) => dot + (projection - low) / (high - low) * (width - 2 * dot);
    const ends = [];
    const places = /* @__PURE__ */ new Map();
    for (const role of roles) {
      const at = x(role.projection);
      let level = ends.findIndex((end) => end <= at - dot / 2);
      if (level < 0) level = ends.length;
      ends[level] = at + dot / 2;
      places.set(role.name, { x: at, level });
    }
    return { places, x };
  }

  // making/making.js
  var ASK_EVERY_MS = 700;
  var SVG = "http://www.w3.org/2000/svg";
  var DOT = 9;
  var STRIP_TOP = 18;
  var root = document.body;
  var address = (path) => `${root.dataset.root ?? ""}/${path}`;
  var title = find(root, "#job-title");
  var offers = find(root, ".offers");
  var progress = find(root, ".progress");
  var live = findAs(root, ".live", HTMLButtonElement);
  function post(path, body) {
    const headers = { "Content-Type": "application/json" };
    return fetch(address(path), { method: "POST", headers, body: JSON.stringify(body) });
  }
  function show(making) {
    const [heading, sentence] = headline(making);
    if (title.textContent !== heading) title.textContent = heading;
    find(root, ".sentence").textContent = sentence;
    showOffers(making);
    const running = making.phase === "running";
    progress.hidden = !running;
    find(root, "#axis-title").textContent = making.phase === "done" ? "The axis" : "The axis so far";
    findAs(progress, "progress", HTMLProgressElement).value = making.share;
    const left = making.seconds_left === null ? "" : ` · ${timeLeft(making.seconds_left)}`;
    find(progress, ".left").textContent = `${Math.floor(making.share * 100)}%${left}`;
    showChecks(making.checks);
    live.hidden = making.phase !== "done";
    find(root, ".agreement").textContent = agreement(making.halves);
    showRoles(making.roles);
    showReplies(making);
  }
  function showOffers({ phase, offers: offered }) {
    offers.hidden = phase === "running" || phase === "done";
    const words = JSON.stringify(offered);
    if (offers.dataset.words === words) return;
    offers.dataset.words = words;
    offers.replaceChildren(
      ...Object.entries(offered).map(([preset, offer], at) => {
        const [name, cost] = offerWords(preset, offer);
        const button = makeElement("button", at === 0 ? "primary" : "", name);
        button.type = "button";
        button.append(makeElement("small", "", cost));
        button.addEventListener("click", () => act("start", { preset }));
        return button;
      })
    );
  }
  function showChecks(checks) {
    const list = find(root, ".checks");
    list.hidden = checks.length === 0;
    list.replaceChildren(
      ...checks.map(({ words, passed }) => makeElement("li", passed ? "" : "missed", words))
    );
  }
  function showReplies({ phase, stage, replies }) {
    const over = phase === "done" || phase === "running" && stage !== "" && stage !== "rollouts";
    const hint = find(root, ".replies .hint");
    hint.textContent = over ? "They were written before the last start." : "They appear here as they are written.";
    hint.hidden = replies.length > 0;
    if (!replies.length) return;
    find(root, ".replies ul").replaceChildren(
      ...[...replies].reverse().map(({ role, question, text, kept }) => {
        const who = role === DEFAULT ? "the Assistant" : role.replace(/_/g, " ");
        const item = makeElement("li", role === DEFAULT ? DEFAULT : kept === false ? "left-out" : "");
        const says = makeElement("b", "", kept === false ? `${who} (not in its role)` : who);
        item.append(makeElement("span", "question", question), says, text);
        return item;
      })
    );
  }
  var strip = document.querySelector(".strip");
  function drawn(tag, attributes) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
    return node;
  }
  function showRoles(roles) {
    if (!strip || !roles.length) return;
    const { clientWidth: width, clientHeight: height } = strip;
    const { places, x } = placeRoles(roles, { width, dot: DOT });
    const floor = height - 22;
    const highest = Math.max(...[...places.values()].map(({ level }) => level), 1);
    const step = Math.min(DOT, (floor - STRIP_TOP - DOT) / highest);
    for (const old of strip.querySelectorAll(":not(circle, title)")) old.remove();
    for (const dot of strip.querySelectorAll("circle")) {
      if (!places.has(dot.dataset.role ?? "")) dot.remove();
    }
    strip.prepend(
      drawn("line", { x1: 0, x2: width, y1: floor, y2: floor }),
      drawn("line", { x1: x(1), x2: x(1), y1: STRIP_TOP, y2: floor, class: "assistant" }),
      label(x(1), 12, "the Assistant", "assistant-name", width),
      label(x(0), height - 6, "the average role", "", width)
    );
    for (const { name, projection } of roles) {
      const place = places.get(name);
      if (!place) continue;
      const circle = strip.querySelector(`circle[data-role="${CSS.escape(name)}"]`) ?? newDot(strip, name);
      circle.setAttribute("cx", String(place.x));
      circle.setAttribute("cy", String(floor - DOT / 2 - place.level * step));
      const described = circle.querySelector("title");
      if (described) described.textContent = `${name.replace(/_/g, " ")}: ${projection.toFixed(2)}`;
    }
    nameEnds(strip, roles, x);
  }
  function nameEnds(strip2, roles, x) {
    const [lowest, highest] = [roles[0], roles.at(-1)];
    if (!lowest || !highest || lowest === highest) return;
    for (const { name, projection } of [lowest, highest]) {
      const anchor = name === lowest.name ? "start" : projection > 1 ? "start" : "end";
      const node = label(x(projection), STRIP_TOP + 12, name.replace(/_/g, " "), "", 0);
      node.setAttribute("text-anchor", anchor);
      strip2.append(node);
    }
  }
  function newDot(strip2, name) {
    const dot = drawn("circle", { r: DOT / 2 - 0.5, "data-role": name });
    dot.append(drawn("title", {}));
    strip2.append(dot);
    return dot;
  }
  function label(x, y, text, kind, width) {
    const anchor = x < 60 ? "start" : x > width - 60 ? "end" : "middle";
    const node = drawn("text", { x, y, class: kind, "text-anchor": anchor });
    node.textContent = text;
    return node;
  }
  async function act(path, body) {
    const answer = await post(path, body);
    const found = await answer.json();
    if (answer.ok) show(found);
    else find(root, ".sentence").textContent = found.detail;
  }
  var ready = false;
  async function ask() {
    try {
      const answer = await fetch(address("state"), { cache: "no-store" });
      if (answer.ok && answer.headers.get("content-type")?.includes("json")) {
        show(await answer.json());
        return;
      }
      ready = (await fetch(address("config"), { cache: "no-store" })).ok;
    } catch {
      return;
    }
    if (!ready) return;
    find(root, ".sentence").textContent += " The live page is open now.";
    live.hidden = false;
    live.disabled = false;
  }
  async function keepAsking() {
    while (!ready) {
      await ask();
      await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
    }
  }
  live.addEventListener("click", async () => {
    live.disabled = true;
    live.textContent = "Opening…";
    while (!ready) await new Promise((done) => setTimeout(done, ASK_EVERY_MS));
    location.hash = LIVE;
    location.reload();
  });
  find(progress, ".stop").addEventListener("click", () => act("stop", {}));
  var log = find(root, ".chat .log");
  var form = findAs(root, ".chat form", HTMLFormElement);
  var say = findAs(form, "input", HTMLInputElement);
  var messages = [];
  function line(kind, text) {
    const added = makeElement("p", kind, text);
    log.append(added);
    log.scrollTop = log.scrollHeight;
    return added;
  }
  async function send(text) {
    messages.push({ role: "user", content: text });
    line("user", text);
    const reply = line("model", "…");
    const answer = await post("chat", { messages });
    if (!answer.ok || !answer.body) throw new Error((await answer.json()).detail);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let whole = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      whole += part.value;
      reply.textContent = whole;
      log.scrollTop = log.scrollHeight;
    }
    messages.push({ role: "assistant", content: whole });
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = say.value.trim();
    const button = findAs(form, "button", HTMLButtonElement);
    if (!text || button.disabled) return;
    say.value = "";
    button.disabled = true;
    try {
      await send(text);
    } catch (error) {
      messages.pop();
      say.value = text;
      log.lastElementChild?.remove();
      line("failed", error instanceof Error ? error.message : "The model could not be reached; try again.");
    }
    button.disabled = false;
  });
  keepAsking();
})();

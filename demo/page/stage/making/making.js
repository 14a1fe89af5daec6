// The page while an axis is made: it asks the server how things stand, and shows it.

/** @import { Check, Making, Role } from "./words.js" */

import { find, findAs, makeElement } from "../src/dom.js";
import { LIVE } from "../src/live.js";
import { agreement, DEFAULT, headline, offerWords, placeRoles, timeLeft } from "./words.js";

const ASK_EVERY_MS = 700;
const SVG = "http://www.w3.org/2000/svg";
const DOT = 9; // pixels
const STRIP_TOP = 18; // room for labels over the strip

const root = document.body;
const address = (/** @type {string} */ path) => `${root.dataset.root ?? ""}/${path}`;
const title = find(root, "#job-title");
const offers = find(root, ".offers");
const progress = find(root, ".progress");
const live = findAs(root, ".live", HTMLButtonElement);

/**
 * @param {string} path
 * @param {object} body
 */
function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return fetch(address(path), { method: "POST", headers, body: JSON.stringify(body) });
}

// --- how the making stands

/** @param {Making} making */
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

/** @param {Making} making */
function showOffers({ phase, offers: offered }) {
  offers.hidden = phase === "running" || phase === "done";
  const words = JSON.stringify(offered);
  if (offers.dataset.words === words) return; // a button must not be replaced while it is being pressed
  offers.dataset.words = words;
  offers.replaceChildren(
    ...Object.entries(offered).map(([preset, offer], at) => {
      const [name, cost] = offerWords(preset, offer);
      const button = makeElement("button", at === 0 ? "primary" : "", name);
      button.type = "button";
      button.append(makeElement("small", "", cost));
      button.addEventListener("click", () => act("start", { preset }));
      return button;
    }),
  );
}

/** @param {Check[]} checks */
function showChecks(checks) {
  const list = find(root, ".checks");
  list.hidden = checks.length === 0;
  list.replaceChildren(
    ...checks.map(({ words, passed }) => makeElement("li", passed ? "" : "missed", words)),
  );
}

/** @param {Making} making */
function showReplies({ phase, stage, replies }) {
  const over = phase === "done" || (phase === "running" && stage !== "" && stage !== "rollouts");
  const hint = find(root, ".replies .hint");
  hint.textContent = over
    ? "They were written before the last start."
    : "They appear here as they are written.";
  hint.hidden = replies.length > 0;
  if (!replies.length) return;
  find(root, ".replies ul").replaceChildren(
    ...[...replies].reverse().map(({ role, question, text, kept }) => {
      const who = role === DEFAULT ? "the Assistant" : role.replace(/_/g, " ");
      const item = makeElement("li", role === DEFAULT ? DEFAULT : kept === false ? "left-out" : "");
      const says = makeElement("b", "", kept === false ? `${who} (not in its role)` : who);
      item.append(makeElement("span", "question", question), says, text);
      return item;
    }),
  );
}

// --- the strip

const strip = document.querySelector(".strip");

/**
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 */
function drawn(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  return node;
}

/** @param {Role[]} roles */
function showRoles(roles) {
  if (!strip || !roles.length) return;
  const { clientWidth: width, clientHeight: height } = strip;
  const { places, x } = placeRoles(roles, { width, dot: DOT });
  const floor = height - 22;
  const highest = Math.max(...[...places.values()].map(({ level }) => level), 1);
  const step = Math.min(DOT, (floor - STRIP_TOP - DOT) / highest);
  for (const old of strip.querySelectorAll(":not(circle, title)")) old.remove();
  for (const dot of strip.querySelectorAll("circle")) {
    if (!places.has(dot.dataset.role ?? "")) dot.remove(); // of a run with other roles
  }
  strip.prepend(
    drawn("line", { x1: 0, x2: width, y1: floor, y2: floor }),
    drawn("line", { x1: x(1), x2: x(1), y1: STRIP_TOP, y2: floor, class: "assistant" }),
    label(x(1), 12, "the Assistant", "assistant-name", width),
    label(x(0), height - 6, "the average role", "", width),
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

/**
 * The names of the lowest and the highest role, each on the side that is free of the line of the Assistant.
 * @param {Element} strip
 * @param {Role[]} roles
 * @param {(projection: number) => number} x
 */
function nameEnds(strip, roles, x) {
  const [lowest, highest] = [roles[0], roles.at(-1)];
  if (!lowest || !highest || lowest === highest) return;
  for (const { name, projection } of [lowest, highest]) {
    const anchor = name === lowest.name ? "start" : projection > 1 ? "start" : "end";
    const node = label(x(projection), STRIP_TOP + 12, name.replace(/_/g, " "), "", 0);
    node.setAttribute("text-anchor", anchor);
    strip.append(node);
  }
}

/**
 * @param {Element} strip
 * @param {string} name
 */
function newDot(strip, name) {
  const dot = drawn("circle", { r: DOT / 2 - 0.5, "data-role": name });
  dot.append(drawn("title", {}));
  strip.append(dot);
  return dot;
}

/**
 * @param {number} x
 * @param {number} y
 * @param {string} text
 * @param {string} kind
 * @param {number} width of the strip
 */
function label(x, y, text, kind, width) {
  const anchor = x < 60 ? "start" : x > width - 60 ? "end" : "middle";
  const node = drawn("text", { x, y, class: kind, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

// --- asking

/**
 * @param {string} path
 * @param {object} body
 */
async function act(path, body) {
  const answer = await post(path, body);
  const found = await answer.json();
  if (answer.ok) show(found);
  else find(root, ".sentence").textContent = found.detail;
}

let ready = false; // the live page is there

async function ask() {
  try {
    const answer = await fetch(address("state"), { cache: "no-store" });
    if (answer.ok && answer.headers.get("content-type")?.includes("json")) {
      show(await answer.json());
      return;
    }
    ready = (await fetch(address("config"), { cache: "no-store" })).ok;
  } catch {
    return; // between the two servers there is none
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

// --- the chat

const log = find(root, ".chat .log");
const form = findAs(root, ".chat form", HTMLFormElement);
const say = findAs(form, "input", HTMLInputElement);
/** @type {{ role: string, content: string }[]} */
const messages = [];

/**
 * @param {string} kind
 * @param {string} text
 */
function line(kind, text) {
  const added = makeElement("p", kind, text);
  log.append(added);
  log.scrollTop = log.scrollHeight;
  return added;
}

/** @param {string} text */
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
    messages.pop(); // the message can be sent again
    say.value = text;
    log.lastElementChild?.remove();
    line("failed", error instanceof Error ? error.message : "The model could not be reached; try again.");
  }
  button.disabled = false;
});

keepAsking();

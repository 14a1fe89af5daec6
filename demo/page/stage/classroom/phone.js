// The page of a student's phone: joining, talking to both branches, guessing, and following the speaker.

/** @import { PhoneMessage, SessionHead, StateMessage, StoredStudent, TurnView } from "./types" */

import { find, findAll, findAs } from "../src/dom.js";
import { nameAxis } from "../src/text.js";
import { makePhoneView } from "./phone_view.js";
import { draftOf, keptTurns } from "./turn_data.js";
import { get, listen, pause, post, RefusedError, STUDENT, save, store, stored } from "./wire.js";

const AGAIN_MS = 1500; // between two attempts to connect
const GONE = "The speaker has ended your part in this class. You may join again with the code.";
const BACK =
  "The server was restarted. Your conversation comes back as soon as the speaker’s page has brought the class back.";
const LOST = "The server was restarted before the answer was shown; your message is back in the box.";

const root = document.body;
const joinForm = findAs(root, ".join-form", HTMLFormElement);
const codeBox = findAs(joinForm, "input", HTMLInputElement);
const sayForm = findAs(root, ".say", HTMLFormElement);
const sayBox = findAs(sayForm, "textarea", HTMLTextAreaElement);
const frame = findAs(root, "iframe", HTMLIFrameElement);

/** @type {StoredStudent | null} */
let own = stored(STUDENT);
/** @type {StateMessage | null} */
let state = null;
/** @type {(TurnView | undefined)[]} */
let turns = [];
let index = -1; // of the turn that is shown
let following = false;
let lastProblem = 0;
let sent = ""; // a message whose turn has not come back yet
let suggested = ""; // what the script has put into the box

const view = makePhoneView(root, { turned: () => showTurn() });

// --- what is shown

/**
 * @param {string} text empty for none
 * @param {boolean} [error]
 */
function notice(text, error = false) {
  const line = find(root, ".notice");
  line.textContent = text;
  line.hidden = !text;
  line.classList.toggle("error", error);
}

/** @param {string} sentence */
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

/** @param {StateMessage} found */
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
  find(details, "p").textContent = lesson.system_prompt
    ? `System prompt: ${lesson.system_prompt}`
    : lesson.blurb;
  const busy = writing || paused || place > 0;
  findAs(sayForm, ".send", HTMLButtonElement).disabled = busy;
  find(sayForm, ".send").hidden = writing;
  find(sayForm, ".stop").hidden = !writing;
  findAs(root, ".again", HTMLButtonElement).disabled = writing;
  notice(standing());
}

/** The script’s next message is put into the box, unless the student has written something. */
function suggest() {
  if (!state || state.writing) return;
  const line = state.lesson.script[state.turns] ?? "";
  if (sayBox.value && sayBox.value !== suggested) return;
  sayBox.value = suggested = line;
}

// --- what the server says

/** @param {StateMessage} found */
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

/** @param {PhoneMessage} message */
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
      known.panes[/** @type {"a" | "b"} */ (pane)].tokens?.push(...tokens);
    if (message.turn === index) showTurn();
  }
}

/** What this tab gives back to a server that was restarted. */
function keep() {
  if (!own || !state) return;
  own = {
    ...own,
    class: state.class,
    chat: state.chat,
    turns: keptTurns(turns),
    draft: draftOf(turns) || sent,
  };
  store(STUDENT, own);
}

/**
 * Back to the first page. What the tab has kept stays, unless the speaker has ended it.
 * @param {string} sentence
 * @param {boolean} ended
 */
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

// --- joining

/**
 * @param {string} code
 * @param {string} draft the message whose answer was not shown when the server was restarted
 */
async function join(code, draft = "") {
  const known = own?.turns ?? [];
  const session = known.length ? { ...own?.head, turns: known.map(({ data }) => data) } : null;
  const guesses = known.map(({ verdict }) => verdict);
  const scenarios = known.map(({ scenario }) => scenario);
  const body = { code, token: own?.token ?? "", class: own?.class ?? "", session, guesses, scenarios };
  const found = await post("join", body);
  const head = /** @type {SessionHead} */ (found.head);
  const empty = { class: "", chat: "", turns: [], draft: "" };
  own = { ...empty, ...own, code, token: String(found.token), head };
  store(STUDENT, own);
  if (draft && !sayBox.value) sayBox.value = draft;
  lostDraft = draft;
}

/** The server was restarted: give it back what this tab has kept, once the class is there again. */
async function giveBack() {
  const known = await (await get(`hello?class=${encodeURIComponent(own?.class ?? "")}`)).json();
  if (known.same && own) await join(own.code, own.draft);
  else if (find(root, ".class").hidden) showJoin(BACK);
  else notice(BACK, true);
}

let lostDraft = "";
let inside = false; // the tab is connected, or tries to be

async function connect() {
  if (inside) return;
  inside = true;
  while (inside && own) {
    try {
      if (own.head.marks) nameAxis(own.head.marks.assistant !== false);
      await listen("events", own.token, (/** @type {PhoneMessage} */ message) => {
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

/** @param {unknown} error */
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

// --- what the student does

/**
 * @param {string} path
 * @param {object} [body]
 */
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

/** @param {boolean} on */
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
for (const [name, step] of /** @type {const} */ ([
  [".turn-bar .back", -1],
  [".turn-bar .on", 1],
]))
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

const given = decodeURIComponent(location.hash.slice(1)).trim();
if (own && (!given || given === own.code)) connect();
else {
  own = null; // another class
  codeBox.value = given;
  showJoin("");
  if (given) joinForm.requestSubmit();
}

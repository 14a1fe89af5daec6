// The board of a class on the projector, with the speaker’s controls.

/** @import { BoardMessage, DoorMessage, Exhibit, StoredClass } from "./types" */

import { find, findAs, makeButton, makeElement } from "../src/dom.js";
import { SPEAKER } from "../src/mirror.js";
import { nameAxis, number } from "../src/text.js";
import { makeBoardCharts } from "./board_charts.js";
import { meanLift, percent, shareOutside } from "./board_data.js";
import { base, get, listen, pause, post, RefusedError, save, store, stored } from "./wire.js";

const AGAIN_MS = 1500; // between two attempts to connect
const CLOSED =
  "This is the speaker’s page. Open the address that the program has printed when it started. After a restart, open " +
  "the new one in this tab: the class comes back.";
const LOST = "The connection was lost; trying again…";
const RESTORED = "The server was restarted; the class is back, as this tab had stored it.";

const root = document.body;
const dialog = findAs(root, "dialog.lesson", HTMLDialogElement);
const scenario = findAs(dialog, ".scenario", HTMLSelectElement);
const prompt = findAs(dialog, "textarea", HTMLTextAreaElement);
const cap = findAs(dialog, ".cap", HTMLInputElement);
const guess = findAs(dialog, ".guess", HTMLInputElement);
const seed = findAs(dialog, ".seed", HTMLInputElement);
const room = findAs(dialog, ".room", HTMLInputElement);
const results = findAs(root, ".results", HTMLSelectElement);
const leaver = findAs(dialog, ".remove", HTMLSelectElement);

/** @type {StoredClass} */
let kept = stored(SPEAKER) ?? { secret: "", base: base(), board: null };
/** @type {BoardMessage | null} */
let board = null;
/** @type {DoorMessage["scenarios"]} */
let scenarios = [];
let wanted = ""; // what the clear button waits for

const charts = makeBoardCharts(root, () => notice("The plotting script could not be loaded."));

/** @param {string} text empty for none */
function notice(text) {
  const line = find(root, ".notice");
  line.textContent = text;
  line.hidden = !text;
}

/**
 * @param {string} path
 * @param {object} body
 */
async function act(path, body) {
  try {
    await post(path, body, kept.secret);
    return true;
  } catch (error) {
    notice(error instanceof RefusedError ? error.message : "The server does not answer; try again.");
    return false;
  }
}

/** @param {object} asked */
const speaker = (asked) => act("speaker", asked);

// --- what is shown

/** @param {DoorMessage} door */
function showDoor(door) {
  scenarios = door.scenarios;
  find(root, ".qr").innerHTML = door.qr; // made by the server of this page, of an address and a code
  find(root, ".qr").firstElementChild?.setAttribute("aria-hidden", "true");
  find(root, ".address").textContent = door.address.replace(/^https?:\/\//, "");
  find(root, ".code").textContent = door.code;
  find(root, ".code").setAttribute("aria-label", [...door.code].join(" "));
  find(root, ".model").textContent = door.model;
  const assistant = door.figure.layout.meta.assistant !== false;
  nameAxis(assistant);
  find(root, ".zone-name").textContent = `Outside the ${assistant ? "Assistant’s" : "own"} zone, uncapped`;
  scenario.replaceChildren(
    new Option("none", ""),
    ...scenarios.map(({ id, title }) => new Option(title, id)),
  );
  charts.prepare(door.figure);
  find(root, ".unreachable").hidden = door.reachable;
}

/** @param {BoardMessage} found */
function showBoard(found) {
  const pairs = found.rows.flatMap((row) => row.pairs);
  const here = found.students.filter(({ present }) => present);
  const waiting = here.filter(({ seated }) => !seated).length;
  const writing = here.filter((one) => one.writing).length;
  const { right, all } = found.guesses;
  const lift = meanLift(pairs);
  const tiles = {
    students: `${here.length - waiting} of ${found.room}`,
    waiting: [waiting ? `${waiting} waiting` : "", writing ? `${writing} being answered` : ""]
      .filter(Boolean)
      .join(", "),
    turns: String(pairs.length),
    "outside-uncapped": percent(shareOutside(pairs, "uncapped")),
    "outside-capped": percent(shareOutside(pairs, "capped")),
    lift: lift === null ? "–" : `${lift > 0 ? "+" : ""}${number(lift)}`,
    guesses: all ? `${right} of ${all}` : "–",
    "guess-share": all ? `${percent(right / all)}; by chance it would be 50%` : "which reply was capped?",
  };
  for (const [name, text] of Object.entries(tiles)) find(root, `.tile-${name}`).textContent = text;
  find(root, ".lesson-name").textContent = lessonName(found);
  const paused = findAs(root, ".pause", HTMLButtonElement);
  paused.textContent = found.paused ? "Go on" : "Pause";
  paused.setAttribute("aria-pressed", String(found.paused));
  root.classList.toggle("paused", found.paused);
  find(root, ".charts-empty").hidden = pairs.length > 0;
  showExhibits(found.shown);
  charts.show(found.rows);
}

/** @param {BoardMessage} found */
function lessonName({ lesson, paused }) {
  const parts = [lesson.title || (lesson.system_prompt ? "a system prompt" : "free chat")];
  parts.push(lesson.cap ? "cap on" : "cap off", `seed ${lesson.seed}`);
  if (!lesson.guess) parts.push("no guessing");
  return `${paused ? "Paused · " : ""}${parts.join(" · ")}`;
}

/** @param {Exhibit[]} exhibits */
function showExhibits(exhibits) {
  const list = find(root, ".exhibits");
  const words = JSON.stringify(exhibits);
  if (list.dataset.words === words) return; // a button must not be replaced while it is being pressed
  list.dataset.words = words;
  list.hidden = !exhibits.length;
  list.replaceChildren(...exhibits.map(exhibitCard));
}

/** @param {Exhibit} exhibit */
function exhibitCard({ id, student, turn, shown, user, uncapped, capped }) {
  const card = makeElement("article", shown ? "exhibit" : "exhibit asked");
  const who = `Student ${student}, turn ${turn}`;
  const head = makeElement("header");
  head.append(makeElement("h3", "", shown ? who : `${who} would like to show it`));
  if (!shown) {
    const allow = makeButton("", "Show", `Show ${who}`);
    allow.addEventListener("click", () => speaker({ do: "allow", exhibit: id }));
    head.append(allow);
  }
  const refuse = makeButton(
    "quiet",
    shown ? "Take down" : "Refuse",
    `${shown ? "Take down" : "Refuse"} ${who}`,
  );
  refuse.addEventListener("click", () => speaker({ do: "refuse", exhibit: id }));
  head.append(refuse);
  card.append(head);
  if (shown) {
    card.append(makeElement("p", "user", user));
    for (const [branch, text] of /** @type {const} */ ([
      ["uncapped", uncapped],
      ["capped", capped],
    ])) {
      const reply = makeElement("p", `reply ${branch}`);
      reply.append(makeElement("b", "", branch === "capped" ? "Capped " : "Uncapped "), text ?? "");
      card.append(reply);
    }
  }
  return card;
}

// --- what the server says

/** @param {BoardMessage | DoorMessage} message */
function take(message) {
  root.classList.add("open");
  if (find(root, ".notice").textContent === LOST) notice("");
  if (message.type === "door") {
    showDoor(message);
    return;
  }
  const before = kept.board;
  if (before && before.id !== message.id && !message.students.length && !message.rows.length) {
    const { id, code, lesson, paused, rows } = before;
    kept = { ...kept, board: null };
    speaker({ do: "restore", class: id, code, lesson, paused, rows }).then(
      (done) => done && notice(RESTORED),
    );
    return;
  }
  board = message;
  const { id, code, lesson, paused, rows } = message;
  kept = { ...kept, board: { id, code, lesson, paused, rows } };
  store(SPEAKER, kept);
  showBoard(message);
}

async function connect() {
  for (;;) {
    try {
      await listen(`board/events?from=${encodeURIComponent(location.origin)}`, kept.secret, take);
      notice(LOST);
    } catch (error) {
      if (!(error instanceof RefusedError)) notice(LOST);
      else if (!(await reopen())) return;
    }
    await pause(AGAIN_MS);
  }
}

/** The server knows the secret no longer: on the machine that runs it, it gives the new one. */
async function reopen() {
  try {
    const { secret } = await post("start", {});
    kept = { ...kept, secret: String(secret), base: base() };
    store(SPEAKER, kept);
    notice("");
    return true;
  } catch {
    root.classList.remove("open");
    find(root, ".closed").textContent = CLOSED;
    return false;
  }
}

// --- the speaker’s controls

function openLesson() {
  if (!board) return;
  const { lesson } = board;
  scenario.value = lesson.scenario;
  prompt.value = lesson.system_prompt;
  cap.checked = lesson.cap;
  guess.checked = lesson.guess;
  seed.value = String(lesson.seed);
  room.value = String(board.room);
  leaver.replaceChildren(
    new Option("nobody", ""),
    new Option("everybody", "0"),
    ...board.students.map(
      (one) => new Option(`student ${one.number}${one.present ? "" : ", away"}`, String(one.number)),
    ),
  );
  find(dialog, ".problem").textContent = "";
  dialog.showModal();
}

/** @param {boolean} anew */
async function setLesson(anew) {
  const asked = {
    do: "lesson",
    scenario: scenario.value,
    system_prompt: prompt.value,
    cap: cap.checked,
    guess: guess.checked,
    seed: Number(seed.value),
  };
  try {
    await post("speaker", asked, kept.secret);
    if (Number(room.value) !== board?.room)
      await post("speaker", { do: "room", room: Number(room.value) }, kept.secret);
    if (leaver.value) await post("speaker", { do: "remove", student: Number(leaver.value) }, kept.secret);
    if (anew) await post("speaker", { do: "clear" }, kept.secret);
    dialog.close();
  } catch (error) {
    find(dialog, ".problem").textContent =
      error instanceof RefusedError ? error.message : "The server does not answer.";
  }
}

/**
 * A second press within a few seconds does what cannot be taken back.
 * @param {HTMLButtonElement} button
 * @param {string} question
 * @param {object} asked
 */
function afterAsking(button, question, asked) {
  const words = button.textContent ?? "";
  button.addEventListener("click", () => {
    if (wanted === question) {
      wanted = "";
      button.textContent = words;
      speaker(asked);
      return;
    }
    wanted = question;
    button.textContent = question;
    setTimeout(() => {
      if (wanted === question) wanted = "";
      button.textContent = words;
    }, 4000);
  });
}

async function saveResults() {
  const kind = results.value;
  results.value = "";
  if (kind === "svg" || kind === "png") charts.picture(kind);
  else if (kind) {
    try {
      save(`class.${kind}`, await (await get(`results.${kind}`, kept.secret)).blob());
    } catch (error) {
      notice(error instanceof RefusedError ? error.message : "The server does not answer; try again.");
    }
  }
}

find(root, ".pause").addEventListener("click", () => {
  if (!board) return;
  board.paused = !board.paused; // so that a second press undoes the first, before the server has answered
  speaker({ do: "pause", paused: board.paused });
});
find(root, ".set").addEventListener("click", openLesson);
afterAsking(findAs(root, ".clear", HTMLButtonElement), "Clear all? Press again", { do: "clear" });
afterAsking(findAs(root, ".new-code", HTMLButtonElement), "Another code? Press again", { do: "code" });
find(root, ".stage").addEventListener("click", () => {
  store(SPEAKER, { ...kept, base: base() });
  window.open(base()); // the new tab gets a copy of what this one keeps
});
results.addEventListener("change", saveResults);
find(dialog, ".next").addEventListener("click", () => setLesson(false));
find(dialog, ".anew").addEventListener("click", () => setLesson(true));
find(dialog, ".close").addEventListener("click", () => dialog.close());
scenario.addEventListener("change", () => {
  const found = scenarios.find(({ id }) => id === scenario.value);
  prompt.value = found?.prompt ?? "";
  seed.value = String(found?.seed ?? 0);
});
matchMedia("(min-width: 1600px)").addEventListener("change", charts.repaint); // the text has another size
new MutationObserver(charts.repaint).observe(root, { attributes: true, attributeFilter: ["class"] });

const given = decodeURIComponent(location.hash.slice(1));
if (given) {
  kept = { ...kept, secret: given, base: base() };
  store(SPEAKER, kept);
  history.replaceState(null, "", location.pathname); // the secret is on the screen no longer
}
connect();

// The board of a class on the projector, with the speaker’s controls.

/** @import { BoardMessage, DoorMessage, StoredClass } from "./types" */

import { find, findAs, makeElement } from "../src/dom.js";
import { nameAxis } from "../src/text.js";
import { askTwice } from "./asking.js";
import { makeBoardCharts } from "./board_charts.js";
import { tilesOf } from "./board_data.js";
import { showExhibits } from "./exhibits.js";
import { makeLessonDialog } from "./lesson_dialog.js";
import { makeNotices } from "./notices.js";
import {
  base,
  fragment,
  get,
  listen,
  pause,
  post,
  RefusedError,
  SPEAKER,
  save,
  sentenceOf,
  store,
  stored,
} from "./wire.js";

const AGAIN_MS = 1500; // between two attempts to connect
const CLOSED =
  "This is the speaker’s page. Open the address that the program has printed when it started. After a restart, open " +
  "the new one in this tab: the class comes back.";
const LOST = "The connection was lost; trying again…";
const RESTORED = "The server was restarted; the class is back, as this tab had stored it.";
const NOT_KEPT =
  "This tab has no room left to keep the class, so a restart of the program would end it. Save the results.";

const root = document.body;
const results = findAs(root, ".results", HTMLSelectElement);

/** @type {StoredClass} */
let kept = stored(SPEAKER) ?? { secret: "", base: base(), board: null };
/** @type {BoardMessage | null} */
let board = null;
let restoring = false;
let stream = new AbortController();
let goOn = () => {}; // ends the waiting of a page that is closed

const notices = makeNotices(find(root, ".notice"));
const charts = makeBoardCharts(root, () => notices.say("news", "The plotting script could not be loaded."));
const dialog = makeLessonDialog(root, (asked) => post("speaker", asked, kept.secret));

/** @param {object} asked */
async function speaker(asked) {
  notices.say("fault", "");
  notices.say("news", "");
  try {
    await post("speaker", asked, kept.secret);
    return true;
  } catch (error) {
    notices.say("fault", sentenceOf(error));
    return false;
  }
}

// --- what is shown

/**
 * A long address is broken before a slash.
 * @param {string} address
 */
function showAddress(address) {
  const parts = address.replace(/^https?:\/\//, "").split("/");
  const line = find(root, ".address");
  line.replaceChildren();
  for (const [n, part] of parts.entries()) line.append(...(n ? [makeElement("wbr"), `/${part}`] : [part]));
}

/** @param {DoorMessage} door */
function showDoor(door) {
  find(root, ".qr").innerHTML = door.qr; // made by the server of this page, of an address and a code
  find(root, ".qr").firstElementChild?.setAttribute("aria-hidden", "true");
  showAddress(door.address);
  find(root, ".code").textContent = door.code;
  find(root, ".code").setAttribute("aria-label", [...door.code].join(" "));
  find(root, ".model").textContent = door.model;
  const assistant = door.figure.layout.meta.assistant !== false;
  nameAxis(assistant);
  const zone = assistant ? "the Assistant’s zone" : "the zone of own replies";
  find(root, ".zone-name").textContent = `Outside ${zone}, uncapped`;
  dialog.offer(door.scenarios);
  charts.prepare(door.figure);
  find(root, ".unreachable").hidden = door.reachable;
}

/**
 * Every change of a class has the charts painted anew, so there is none without need.
 * @param {string} name
 * @param {boolean} on
 */
function mark(name, on) {
  if (root.classList.contains(name) !== on) root.classList.toggle(name, on);
}

/** @param {BoardMessage} found */
function showBoard(found) {
  for (const [name, text] of Object.entries(tilesOf(found))) find(root, `.tile-${name}`).textContent = text;
  find(root, ".lesson-name").textContent = lessonName(found);
  const paused = findAs(root, ".pause", HTMLButtonElement);
  paused.textContent = found.paused ? "Resume" : "Pause";
  paused.setAttribute("aria-pressed", String(found.paused));
  find(root, ".pause-mark").hidden = !found.paused;
  find(root, ".charts-empty").hidden = found.rows.some(({ pairs }) => pairs.length > 0);
  showExhibits(find(root, ".exhibits"), found.shown, speaker);
  charts.show(found.rows);
}

/** @param {BoardMessage} found */
function lessonName({ lesson }) {
  const parts = [lesson.title || (lesson.system_prompt ? "a system prompt" : "free chat")];
  const seed = `seed ${lesson.seed}${lesson.own_seeds === false ? " for all" : ""}`;
  parts.push(lesson.cap ? "cap on" : "cap off", seed);
  if (!lesson.guess) parts.push("no guessing");
  return parts.join(" · ");
}

// --- what the server says

/** @param {BoardMessage | DoorMessage} message */
function take(message) {
  mark("open", true);
  notices.say("lost", "");
  if (message.type === "door") showDoor(message);
  else if (restoring) return;
  else if (kept.board && isForgotten(kept.board, message)) restore(kept.board);
  else {
    board = message;
    const { id, code, lesson, paused, rows } = message;
    kept = { ...kept, board: { id, code, lesson, paused, rows } };
    keep();
    showBoard(message);
  }
}

/**
 * Whether the server was restarted, and nothing has happened in its new class.
 * @param {NonNullable<StoredClass["board"]>} before
 * @param {BoardMessage} message
 */
const isForgotten = (before, message) =>
  before.id !== message.id && !message.students.length && !message.rows.length;

/**
 * The server gets back what this tab has kept. What it says meanwhile is of its new class.
 * @param {NonNullable<StoredClass["board"]>} before
 */
async function restore(before) {
  restoring = true;
  const { id, code, lesson, paused, rows } = before;
  try {
    await post("speaker", { do: "restore", class: id, code, lesson, paused, rows }, kept.secret);
    notices.say("news", RESTORED);
  } catch (error) {
    const refused = error instanceof RefusedError && error.status < 500;
    notices.say(refused ? "fault" : "lost", sentenceOf(error, LOST));
    if (refused) kept = { ...kept, board: null };
    else await pause(AGAIN_MS);
  }
  restoring = false;
  stream.abort(); // a new one tells everything
}

/** The browser's room for a tab may be used up. */
function keep() {
  notices.say("room", store(SPEAKER, kept) ? "" : NOT_KEPT);
}

async function connect() {
  for (;;) {
    stream = new AbortController();
    const { signal } = stream;
    try {
      await listen(`board/events?from=${encodeURIComponent(location.origin)}`, kept.secret, take, signal);
      if (!signal.aborted) notices.say("lost", LOST);
    } catch (error) {
      if (!signal.aborted) await failed(error);
    }
    if (!signal.aborted) await pause(AGAIN_MS);
  }
}

/**
 * The server may know the secret no longer: on the machine that runs it, it gives the new one. Anything else may come
 * from a proxy, or pass.
 * @param {unknown} error
 */
async function failed(error) {
  if (!(error instanceof RefusedError) || !error.unknown) {
    notices.say("lost", LOST);
    return;
  }
  try {
    const { secret } = await post("start", {});
    kept = { ...kept, secret: String(secret), base: base() };
    keep();
  } catch (refused) {
    if (!(refused instanceof RefusedError) || ![401, 403, 404, 410].includes(refused.status)) {
      notices.say("lost", LOST);
      return;
    }
    mark("open", false);
    find(root, ".closed").textContent = CLOSED;
    notices.say("lost", "");
    await new Promise((done) => {
      goOn = () => done(undefined);
    });
  }
}

// --- the speaker’s controls

async function saveResults() {
  const kind = results.value;
  results.value = "";
  if (kind === "svg" || kind === "png") charts.picture(kind);
  else if (kind) {
    try {
      const answer = await get(`results.${kind}`, { "X-Class-Token": kept.secret });
      save(`class.${kind}`, await answer.blob());
    } catch (error) {
      notices.say("fault", sentenceOf(error));
    }
  }
}

find(root, ".pause").addEventListener("click", () => {
  if (!board) return;
  board.paused = !board.paused; // so that a second press undoes the first, before the server has answered
  speaker({ do: "pause", paused: board.paused });
});
find(root, ".set").addEventListener("click", () => board && dialog.open(board));
askTwice(
  findAs(root, ".clear", HTMLButtonElement),
  () => "Clear all? Press again",
  () => speaker({ do: "clear" }),
);
askTwice(
  findAs(root, ".new-code", HTMLButtonElement),
  () => "Another code? Press again",
  () => speaker({ do: "code" }),
);
find(root, ".stage").addEventListener("click", () => {
  store(SPEAKER, { ...kept, base: base() });
  window.open(base()); // the new tab gets a copy of what this one keeps, and asks this one later
});
results.addEventListener("change", saveResults);

// The text has another size in a window of another size.
let size = "";
addEventListener("resize", () => {
  const found = getComputedStyle(root).fontSize;
  if (found !== size) charts.repaint();
  size = found;
});
new MutationObserver(charts.repaint).observe(root, { attributes: true, attributeFilter: ["class"] });

/** A secret in the address: of the first visit, or of a program that was started again. */
function arrive() {
  const given = fragment();
  if (!given) return;
  kept = { ...kept, secret: given, base: base() };
  keep();
  history.replaceState(null, "", location.pathname); // the secret is on the screen no longer
  stream.abort();
  goOn();
}

addEventListener("hashchange", arrive);
arrive();
connect();

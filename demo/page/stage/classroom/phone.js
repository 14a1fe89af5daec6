// The page of a student's phone: talking to both branches, guessing, and following the speaker.

/** @import { PhoneMessage, StateMessage, TurnView } from "./types" */

import { find, findAll, findAs, makeElement } from "../src/dom.js";
import { axisWords, nameAxis } from "../src/text.js";
import { askTwice } from "./asking.js";
import { emptyLines, standingOf } from "./class_words.js";
import { makeFollowing } from "./following.js";
import { makeMembership } from "./membership.js";
import { makeMessageBox } from "./message_box.js";
import { makeNotices } from "./notices.js";
import { makePhoneView } from "./phone_view.js";
import { watchScreen } from "./screen.js";
import { keptTurns } from "./turn_data.js";
import { fragment, post, RefusedError, save, sentenceOf } from "./wire.js";

const LOST = "The server was restarted before the answer was shown; your message is back in the box.";
const DROPS = "Sure? Press again";

const root = document.body;
const joinForm = findAs(root, ".join-form", HTMLFormElement);
const codeBox = findAs(joinForm, "input", HTMLInputElement);
const sayForm = findAs(root, ".say", HTMLFormElement);

/** @type {StateMessage | null} */
let state = null;
/** @type {(TurnView | undefined)[]} */
let turns = [];
let index = -1; // of the turn that is shown
let lastProblem = 0;

const view = makePhoneView(root, { turned: () => showTurn() });
const notices = makeNotices(find(root, ".notice"), () => (state ? standingOf(state) : ""));
const following = makeFollowing(root);
const box = makeMessageBox(sayForm, async (message) => {
  keep(); // the server may be restarted before it answers
  const { taken, refused } = await act("say", message);
  if (refused) box.refused();
  keep();
  return taken;
});
const membership = makeMembership({
  take,
  left: (sentence) => showJoin(sentence),
  say: notices.say,
  shows: () => !find(root, ".class").hidden,
  returned: (draft, problem) => {
    if (draft) box.putBack(draft);
    notices.say("news", problem || (draft ? LOST : ""));
  },
});

// --- what is shown

/** @param {string} sentence */
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

/**
 * @param {string} selector
 * @param {string} text
 */
function showLine(selector, text) {
  const line = find(root, selector);
  line.hidden = !text;
  (line.querySelector("span") ?? line).textContent = text;
}

/** @param {StateMessage["lesson"]} lesson */
function showLesson(lesson) {
  find(root, "#class-title").textContent = lesson.title || "Class";
  showLine(".warning", lesson.content_warning);
  showLine(".lesson .blurb", lesson.blurb);
  showLine(".lesson .prompt", lesson.system_prompt);
  find(root, ".lesson").hidden = !lesson.blurb && !lesson.system_prompt;
  const lines = emptyLines(lesson).map((line) => makeElement("p", "", line));
  find(root, ".empty .how").replaceChildren(...lines);
}

/** @param {StateMessage} found */
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

/** How the axis may be called, wherever the page names its ends. */
function showNames() {
  nameAxis(membership.own()?.head.marks?.assistant !== false);
  const words = axisWords();
  find(root, ".tones .low-end").textContent = words.low;
  find(root, ".tones .high-end").textContent = words.high;
  if (state) showLesson(state.lesson);
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
  takeProblem(found);
  showState(found);
  const line = found.lesson.script[found.turns] ?? "";
  if (!found.writing) box.suggest(`${found.chat} ${found.turns}`, line);
  showTurn();
  keep();
}

/** @param {StateMessage} found */
function takeProblem({ problem }) {
  // A server that was restarted counts its problems again; before the next one it has told of none.
  if (!problem) lastProblem = 0;
  else if (problem.number !== lastProblem) {
    lastProblem = problem.number;
    box.putBack(problem.message);
    notices.say("fault", problem.text);
  }
}

/**
 * @param {number} turn
 * @param {TurnView} found
 */
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

/** @param {PhoneMessage} message */
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
      known.panes[/** @type {"a" | "b"} */ (pane)].tokens?.push(...tokens);
    if (message.turn === index) showTurn();
  }
}

/** What this tab gives back to a server that was restarted. A conversation that is still arriving replaces nothing. */
function keep() {
  if (!state || turns.filter(Boolean).length < state.turns) return;
  membership.keepChat(state, turns, box.onItsWay());
}

// --- what the student does

/**
 * @param {string} path
 * @param {object} [body]
 * @returns {Promise<{ taken: boolean; refused: boolean }>} neither where no answer came
 */
async function act(path, body = {}) {
  notices.say("fault", "");
  notices.say("news", "");
  try {
    await post(path, body, membership.own()?.token);
    return { taken: true, refused: false };
  } catch (error) {
    // A proxy's answer leaves open what the server has done.
    const refused = error instanceof RefusedError && error.status < 500;
    if (error instanceof RefusedError && error.removed) membership.removed();
    else notices.say("fault", sentenceOf(error, "The connection was lost; try again."));
    return { taken: false, refused };
  }
}

/** @param {number} step */
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
  () => (turns.length ? DROPS : ""),
  () => act("again"),
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
  () => (turns.length ? "Drop my chat? Press again" : ""),
  async () => {
    if ((await act("alone")).taken) following.follow(false);
  },
);
watchScreen(root, () => showTurn());

/** A code in the address, as a scanned one is. */
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

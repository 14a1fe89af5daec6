// The dialog in which the speaker sets the lesson, and how many students there are.

/** @import { BoardMessage, DoorMessage } from "./types" */

import { find, findAs } from "../src/dom.js";
import { askTwice } from "./asking.js";
import { sentenceOf } from "./wire.js";

/**
 * @param {HTMLElement} root
 * @param {(asked: object) => Promise<unknown>} speaker what the speaker asks of the server; fails where it is refused
 */
export function makeLessonDialog(root, speaker) {
  const dialog = findAs(root, "dialog.lesson", HTMLDialogElement);
  const scenario = findAs(dialog, ".scenario", HTMLSelectElement);
  const prompt = findAs(dialog, "textarea", HTMLTextAreaElement);
  const field = (/** @type {string} */ name) => findAs(dialog, `.${name}`, HTMLInputElement);
  const [cap, guess, seed, ownSeeds] = [field("cap"), field("guess"), field("seed"), field("own-seeds")];
  const room = field("room");
  const leaver = findAs(dialog, ".remove", HTMLSelectElement);
  const button = (/** @type {string} */ name) => findAs(dialog, `.${name}`, HTMLButtonElement);
  /** @type {DoorMessage["scenarios"]} */
  let scenarios = [];

  /** @param {object[]} asked one after another; the dialog closes when all are done */
  async function ask(...asked) {
    try {
      for (const one of asked) await speaker(one);
      dialog.close();
    } catch (error) {
      find(dialog, ".problem").textContent = sentenceOf(error);
    }
  }

  const lesson = () => ({
    do: "lesson",
    scenario: scenario.value,
    system_prompt: prompt.value,
    cap: cap.checked,
    guess: guess.checked,
    seed: Number(seed.value),
    own_seeds: ownSeeds.checked,
  });

  button("next").addEventListener("click", () => ask(lesson()));
  askTwice(
    button("anew"),
    () => "Clear all conversations? Press again",
    () => ask(lesson(), { do: "clear" }),
  );
  button("close").addEventListener("click", () => dialog.close());
  button("set-room").addEventListener("click", () => ask({ do: "room", room: Number(room.value) }));
  askTwice(
    button("send-away"),
    () => (leaver.value ? "Remove? Press again" : ""),
    () => leaver.value && ask({ do: "remove", student: Number(leaver.value) }),
  );
  scenario.addEventListener("change", () => {
    const found = scenarios.find(({ id }) => id === scenario.value);
    prompt.value = found?.prompt ?? "";
    seed.value = String(found?.seed ?? 0);
  });

  return {
    /** @param {DoorMessage["scenarios"]} found */
    offer(found) {
      scenarios = found;
      const options = found.map(({ id, title }) => new Option(title, id));
      const { value } = scenario;
      scenario.replaceChildren(new Option("none", ""), ...options);
      scenario.value = found.some(({ id }) => id === value) ? value : ""; // the dialog may be open
    },
    /** @param {BoardMessage} board */
    open(board) {
      scenario.value = board.lesson.scenario;
      prompt.value = board.lesson.system_prompt;
      cap.checked = board.lesson.cap;
      guess.checked = board.lesson.guess;
      seed.value = String(board.lesson.seed);
      ownSeeds.checked = board.lesson.own_seeds !== false;
      room.value = String(board.room);
      const students = board.students.map(
        (one) => new Option(`${one.number}${one.present ? "" : ", away"}`, String(one.number)),
      );
      leaver.replaceChildren(new Option("choose…", ""), ...students, new Option("all", "0"));
      find(dialog, ".problem").textContent = "";
      dialog.showModal();
    },
  };
}

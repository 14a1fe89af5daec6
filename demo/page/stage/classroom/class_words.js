// Sentences of a student's page. Uses no DOM.

/** @import { TurnSettings } from "../src/types" */
/** @import { Lesson, StateMessage } from "./types" */

import { axisWords, counted, number } from "../src/text.js";

/**
 * What keeps the student from writing, or what is being waited for; empty for nothing.
 * @param {Pick<StateMessage, "place" | "paused" | "writing" | "ahead">} state
 */
export function standingOf({ place, paused, writing, ahead }) {
  if (place === 1) return "The class is full. You are next in line.";
  if (place > 1) return `The class is full. You are number ${place} in line; this page goes on by itself.`;
  if (writing && ahead > 0)
    return `Waiting: ${counted(ahead, "conversation")} ${ahead === 1 ? "is" : "are"} ahead…`;
  return paused ? "The speaker has paused the class." : "";
}

const self = () => (axisWords().high === "Assistant" ? "the Assistant" : "the model’s own way of answering");

/** What capping is, in one sentence that holds for every cap. */
const capInGeneral = () => `Capped: the reply is held near ${self()} where it would drift away.`;

/**
 * What the cap of a turn does, in one sentence.
 * @param {TurnSettings | undefined} settings undefined while they are not known
 */
export function capSentence(settings) {
  if (!settings) return capInGeneral();
  if (!settings.cap) return "The cap was off.";
  const { only_below: below } = settings.cap;
  const which = typeof below === "number" ? `a reply that begins below ${number(below)}` : "the reply";
  return `Capped: ${which} is held near ${self()} wherever it falls below the floor.`;
}

/**
 * What stands in the place of the replies before the first message.
 * @param {Lesson} lesson
 * @returns {string[]}
 */
export function emptyLines({ cap, guess }) {
  if (!cap) return ["Two replies come. The cap is off, so both are answered in the same way."];
  if (!guess) return ["Two replies come, uncapped and capped. Swipe from one to the other.", capInGeneral()];
  return [
    "Two replies come, A and B, and one of them is capped. Swipe from one to the other, and guess which.",
    capInGeneral(),
  ];
}

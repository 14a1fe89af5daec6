// What a phone makes of a turn: the tokens of each pane, and what its student may know. Uses no DOM.

/** @import { Branch, Token } from "../src/types" */
/** @import { PaneName, StoredStudent, TurnView } from "./types" */

import { number } from "../src/text.js";

/** @type {readonly PaneName[]} */
export const PANES = ["a", "b"];

/** @type {import("../src/types").ByBranch<string>} */
const NAMES = { uncapped: "Uncapped", capped: "Capped", steered: "Steered" };

/**
 * The tokens of a pane that are shown.
 * @param {TurnView} view
 * @param {PaneName} pane
 * @returns {Token[]}
 */
export function tokensOf({ panes, data }, pane) {
  const { branch, tokens } = panes[pane];
  const all = tokens ?? (branch && data?.branches[branch]?.tokens) ?? [];
  return all.filter((token) => !token.s);
}

/**
 * The heading of a pane: A and B until the turn is revealed.
 * @param {TurnView} view
 * @param {PaneName} pane
 */
export function nameOf({ panes }, pane) {
  const { branch } = panes[pane];
  return branch ? NAMES[branch] : pane.toUpperCase();
}

/**
 * The mean of a pane with its zone; empty before it is known.
 * @param {TurnView} view
 * @param {PaneName} pane
 */
export function meanText({ panes }, pane) {
  const { mean, zone } = panes[pane];
  if (mean === undefined || mean === null) return "";
  return `${number(mean)}${zone ? ` · ${zone}` : ""}`;
}

/**
 * Whether the student is to guess now.
 * @param {TurnView} view
 */
export const isToGuess = (view) => view.asks && view.ended && !view.revealed;

/**
 * What stood at A and at B, where the student was asked; empty where that is not known.
 * @param {TurnView} view
 */
function placesOf({ asks, panes }) {
  const capped = PANES.find((pane) => panes[pane].branch === "capped");
  if (!asks || !capped) return "";
  const other = capped === "a" ? "B" : "A";
  return `${capped.toUpperCase()} was capped, ${other} was not.`;
}

/** @param {TurnView} view */
function sameSentence({ asks, data }) {
  const words = "Both replies are the same";
  if (data?.settings && !data.settings.cap) return `${words}: the cap was off.`;
  return asks ? `${words}, so there was nothing to guess.` : `${words}: the cap did not change the words.`;
}

/**
 * What a turn that has ended tells, in one sentence; empty before, and where there is nothing to tell.
 * @param {TurnView} view
 */
export function answerOf(view) {
  if (!view.ended || !view.revealed) return "";
  if (view.same) return sameSentence(view);
  const where = placesOf(view);
  if (view.verdict === "right") return `Right: ${where || "you found the capped reply."}`;
  if (view.verdict === "wrong")
    return `Not this time: ${where || "you took the uncapped reply for the capped one."}`;
  return where;
}

/**
 * The mean of each turn, for the chart turn by turn.
 * @param {(TurnView | undefined)[]} turns
 * @param {Branch} branch
 * @returns {(number | null)[]}
 */
export function meansOf(turns, branch) {
  return turns.map((view) => {
    const pane = view && PANES.find((one) => view.panes[one].branch === branch);
    return (pane && view.panes[pane].mean) ?? null;
  });
}

/**
 * What a tab keeps of its turns: those that are revealed, up to the first that is not.
 * @param {(TurnView | undefined)[]} turns
 * @returns {StoredStudent["turns"]}
 */
export function keptTurns(turns) {
  const end = turns.findIndex((view) => !view?.data);
  const whole = end < 0 ? turns : turns.slice(0, end);
  return whole.flatMap((view) => (view?.data ? [keptTurn(view, view.data)] : []));
}

/**
 * @param {TurnView} view
 * @param {NonNullable<TurnView["data"]>} data
 */
function keptTurn({ verdict, scenario, taken }, data) {
  return { data, verdict: verdict ?? "", scenario: scenario ?? "", taken: taken ?? false };
}

/**
 * The message that is lost with the server, because its replies are not revealed yet; empty for none.
 * @param {(TurnView | undefined)[]} turns
 */
export const draftOf = (turns) => turns.find((view) => view && !view.data)?.user ?? "";

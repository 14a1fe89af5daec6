// How a turn was answered: in words, and as reference lines of the charts. A turn keeps its settings, whatever
// is chosen later.

/** @import { Branch, ChartMeta, Figure, Figures, Meta, Turn, TurnMarks, TurnSettings } from "./types" */

/** @import { HowHooks } from "./how_actions.js" */

import { makeButton, makeElement } from "./dom.js";
import { makeHowActions } from "./how_actions.js";
import { seedOf } from "./seeds.js";
import { describePrompt, number } from "./text.js";

/** @typedef {[name: string, value: string]} Row */

/** @type {Record<TurnSettings["span"], string>} */
const SPANS = { both: "answer and reasoning", answer: "answer only", reasoning: "reasoning only" };

/**
 * The settings as one branch had them.
 * @param {TurnSettings} settings
 * @param {Branch} branch
 * @returns {TurnSettings}
 */
export function settingsIn(settings, branch) {
  const { cap, ...own } = settings.own?.[branch] ?? {};
  // The steered branch has no cap but its own; the page shows no floor of it in axis units.
  const capped = branch === "steered" ? (cap ? { ...cap, floor: null } : null) : settings.cap;
  return { ...settings, ...own, cap: capped };
}

/**
 * Below what a reply of a branch had to begin for its caps to act on it, in axis units; null where they act on
 * every reply.
 * @param {TurnSettings | null | undefined} settings
 * @param {Branch} branch
 */
export function thresholdIn(settings, branch) {
  if (!settings || branch === "uncapped") return null;
  const cap = settingsIn(settings, branch).cap ?? (branch === "capped" ? settings.also : null);
  return cap?.only_below ?? null;
}

// --- words

/** @param {{ only_below?: number }} cap */
const conditionText = ({ only_below }) =>
  only_below === undefined ? "" : `, only replies that begin below ${number(only_below)}`;

/** @param {TurnSettings} settings */
function capText({ cap }) {
  if (!cap) return "off";
  const [first, last] = [cap.layers[0], cap.layers.at(-1)];
  const where = first === last ? `layer ${first}` : `layers ${first}–${last}`;
  const value = cap.floor === null ? "" : ` (${number(cap.floor)})`;
  return `floor ${cap.floor_name ?? ""}${value}, ${where}${conditionText(cap)}`;
}

/** @param {NonNullable<TurnSettings["also"]>} also */
function alsoText(also) {
  const { direction, downward, layers } = also;
  const side = downward ? "kept from rising" : "kept from falling";
  return `${direction.replace(/_/g, " ")}, ${side}, layers ${layers[0]}–${layers.at(-1)}${conditionText(also)}`;
}

/** @param {TurnSettings} settings */
function seedText(settings) {
  const { seed, seeds, attempt } = settings;
  const more = seeds > 1 ? `, and for more answers up to ${seedOf(settings, seeds - 1)}` : "";
  return `${seed}${more}${attempt > 1 ? " (new for this attempt)" : ""}`;
}

/**
 * @param {TurnSettings} settings
 * @returns {Row[]}
 */
function samplingRows(settings) {
  /** @type {Row[]} */
  const rows = [["Seed", seedText(settings)]];
  if (settings.attempt > 1) rows.unshift(["Attempt", String(settings.attempt)]);
  rows.push(["Temperature", String(settings.temperature)], ["Top-p", String(settings.top_p)]);
  rows.push(["Repetition penalty", String(settings.repetition_penalty)]);
  rows.push(["Most new tokens", String(settings.max_new_tokens)]);
  if (settings.soft_limit) rows.push(["End at a sentence after", String(settings.soft_limit)]);
  if (settings.thinking) rows.push(["Thinking", "on"]);
  return rows;
}

/**
 * The settings of one reply, as names and values.
 * @param {TurnSettings} settings
 * @param {Branch} branch
 * @param {Pick<Meta, "model" | "date">} [meta]
 * @returns {Row[]}
 */
export function settingsRows(settings, branch, { model, date } = {}) {
  /** @type {Row[]} */
  const rows = model ? [["Model", model]] : [];
  const own = settingsIn(settings, branch);
  if (branch === "capped" || (branch === "steered" && own.cap)) rows.push(["Cap", capText(own)]);
  if (branch === "capped" && settings.also) rows.push(["Cap along a direction", alsoText(settings.also)]);
  const { steer } = settings;
  if (branch === "steered" && steer) {
    const along = steer.direction?.replace(/_/g, " ") ?? "axis";
    rows.push(["Steering", `${number(steer.alpha)} × ${along} at layer ${steer.layer}`]);
  }
  const acts = branch === "steered" || (branch === "capped" && (settings.cap || settings.also));
  if (acts && settings.thinking) rows.push(["Acts on", SPANS[settings.span]]);
  if (settings.read) rows.push(["Text", "read from a file, not generated here"]);
  else rows.push(...samplingRows(own));
  if (settings.dtype) rows.push(["Number format", settings.dtype]);
  if (settings.template) rows.push(["Chat template (digest)", settings.template]);
  if (date) rows.push(["Date of the chat", date]);
  rows.push(["System prompt", describePrompt(own.system_prompt)]);
  return rows;
}

/**
 * What the third reply is, in a few words.
 * @param {TurnSettings} settings
 */
export function describeThird(settings) {
  const { steer, cap } = settingsIn(settings, "steered");
  const along = steer?.direction?.replace(/_/g, " ") ?? "the axis";
  const parts = steer?.alpha ? [`${along} is added to every token`] : [];
  if (cap) parts.push(`capped at floor ${cap.floor_name}`);
  return parts.join(", ") || "neither steered nor capped";
}

/**
 * What is worth saying of a reply's settings at a glance; most replies need nothing.
 * @param {TurnSettings} settings
 * @param {Branch} branch
 */
export function settingsNote(settings, branch) {
  const parts = [];
  if (settings.attempt > 1) parts.push(`attempt ${settings.attempt}, new seed`);
  if (branch === "capped" && !settings.cap && !settings.also) parts.push("cap off");
  if (settings.own?.[branch]) parts.push("own settings");
  return parts.join(" · ");
}

/**
 * A button that opens the list of a reply's settings. Null where they are not known.
 * @param {Turn} turn
 * @param {Branch} branch
 * @param {Pick<Meta, "model" | "date">} meta
 * @param {HowHooks} hooks
 */
export function makeSettingsList(turn, branch, meta, hooks) {
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
  const show = (/** @type {boolean} */ visible) => {
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

// --- reference lines

/**
 * The charts' figures with the reference lines of a turn.
 * @param {Figures} figures
 * @param {TurnMarks | null | undefined} marks none: the turn's settings are not known
 * @param {boolean} [alone] the cap left the turn's reply alone, so it had no floor
 * @returns {Figures}
 */
export function withMarks(figures, marks, alone = false) {
  if (!marks) return figures;
  const shapes = marks.shapes.filter(({ name }) => !alone || name !== "line-floor");
  const annotations = marks.annotations.filter(({ name }) => !alone || name !== "label-floor");
  const marked = (/** @type {Figure} */ { data, layout }) => ({
    data,
    layout: { ...layout, shapes, annotations, meta: { ...layout.meta, ...marks.meta } },
  });
  return { token: marked(figures.token), turn: marked(figures.turn) };
}

/**
 * Whether a chart's reference lines say that there was no cap. A cap without a floor at the probe layer is not
 * off.
 * @param {ChartMeta} meta
 */
export const capIsOff = ({ floor, cap_layers }) => floor === null && !cap_layers;

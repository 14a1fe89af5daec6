// What the page says while an axis is made, and where the roles lie on its strip. Nothing here touches the page.

/**
 * @typedef {{ name: string, projection: number, rollouts: number }} Role projection: in axis units
 * @typedef {{ role: string, question: string, text: string, kept: boolean | null }} Reply
 * @typedef {{ roles: number, minutes: number | null, done: number }} Offer
 * @typedef {{ words: string, passed: boolean }} Check
 * @typedef {"measuring" | "ready" | "running" | "stopped" | "failed" | "done"} Phase
 * @typedef {object} Making what the server sends; see `demo.extraction.so_far.Making`
 * @property {string} model
 * @property {Phase} phase
 * @property {Record<string, Offer>} offers
 * @property {string} preset
 * @property {string} role_prompts
 * @property {string} stage
 * @property {number} share
 * @property {number | null} seconds_left
 * @property {Role[]} roles
 * @property {number | null} halves
 * @property {Reply[]} replies
 * @property {Check[]} checks
 * @property {string} message
 */

export const DEFAULT = "default"; // the group of the default Assistant's replies

/** @param {number} minutes */
export function duration(minutes) {
  if (minutes < 1) return "less than a minute";
  if (minutes < 90) return `about ${Math.round(minutes)} min`;
  return `about ${Math.round(minutes / 60)} hours`;
}

/** @param {number} seconds */
export function timeLeft(seconds) {
  if (seconds < 60) return `${Math.max(5, Math.ceil(seconds / 5) * 5)} s left`;
  const rounded = Math.ceil(seconds / 10) * 10;
  return rounded < 600
    ? `${Math.floor(rounded / 60)} min ${rounded % 60} s left`
    : `${duration(seconds / 60)} left`;
}

/**
 * What a preset's button says: its name, and what it costs.
 * @param {string} preset
 * @param {Offer} offer
 * @returns {[string, string]}
 */
export function offerWords(preset, offer) {
  const name = preset.charAt(0).toUpperCase() + preset.slice(1);
  if (offer.done > 0)
    return [`Go on with ${name}`, `${Math.floor(offer.done * 100)}% of the replies are there`];
  const cost = offer.minutes === null ? "" : ` · ${duration(offer.minutes)} here`;
  return [name, `${offer.roles} roles${cost}`];
}

/** @type {Record<string, string>} */
const STAGES = {
  rollouts: "It answers questions as itself and in roles.",
  "late turns": "It holds longer talks, as itself and in roles.",
  "cap settings": "It tries at which layers, and how strictly, to cap.",
  "single replies": "It measures how much a single reply tells.",
};

/**
 * The heading and the sentence under it.
 * @param {Making} making
 * @returns {[string, string]}
 */
export function headline({ model, phase, preset, role_prompts, stage, message, checks }) {
  switch (phase) {
    case "measuring":
      return [`${model} has no axis yet`, "Measuring how fast this machine is…"];
    case "ready":
      return [
        `${model} has no axis yet`,
        "The model can make it: it answers the same questions as itself and in many roles, and the axis leads " +
          "from the roles to the Assistant. Quick gives a rough one. You can stop and go on later.",
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

const THOROUGH = "standard"; // the preset that takes all roles
const PLAIN = "plain"; // the usual way to ask for a role

/**
 * @param {Check[]} checks
 * @param {string} preset
 * @param {string} rolePrompts how roles were asked for
 */
export function verdict(checks, preset, rolePrompts) {
  const passed = checks.filter((check) => check.passed).length;
  if (passed === checks.length) return `It passes all of its ${checks.length} checks.`;
  const firmly = rolePrompts === PLAIN ? " --role-prompts strong" : "";
  const what = firmly ? "Asking for roles more firmly may help" : "More replies may help";
  const help =
    preset === THOROUGH && !firmly
      ? "Another model may take up roles better."
      : `${what}: start the program with --make-axis standard${firmly}.`;
  return `It passes ${passed} of its ${checks.length} checks. ${help}`;
}

/** @param {number | null} halves cosine */
export function agreement(halves) {
  if (halves === null) return "";
  return `Two halves of the replies agree to ${halves.toFixed(2)} (1 is fully).`;
}

/**
 * Where the roles lie on a strip: dots that would overlap are stacked upwards.
 * @param {Role[]} roles lowest projection first
 * @param {{ width: number, dot: number }} size of the strip and the diameter of a dot, in pixels
 * @returns {{ places: Map<string, { x: number, level: number }>, x: (projection: number) => number }}
 */
export function placeRoles(roles, { width, dot }) {
  const values = roles.map((role) => role.projection);
  const [low, high] = [Math.min(-0.5, ...values), Math.max(1.25, ...values)];
  const x = (/** @type {number} */ projection) =>
    dot + ((projection - low) / (high - low)) * (width - 2 * dot);
  /** The right edge of the last dot at each level. @type {number[]} */
  const ends = [];
  const places = new Map();
  for (const role of roles) {
    const at = x(role.projection);
    let level = ends.findIndex((end) => end <= at - dot / 2);
    if (level < 0) level = ends.length;
    ends[level] = at + dot / 2;
    places.set(role.name, { x: at, level });
  }
  return { places, x };
}

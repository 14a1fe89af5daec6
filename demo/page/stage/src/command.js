// The command that makes a reply again from a shell; see demo/conversation/again.py. Uses no DOM.

/** @import { Meta, Reply, Turn, TurnSettings } from "./types" */

import { BRANCHES } from "./turns.js";

/**
 * A command with what to know of it, or why there is none.
 * @typedef {{ command: string; notes: string[] } | { command: null; notes: string[] }} Again
 */

const COMMAND = ["python", "-m", "demo.conversation.again"];
const MOST_BYTES = 100_000; // of a message; a longer argument is refused by some systems
const DTYPES = ["float32", "bfloat16", "float16", "int8"];
const ENDED = ["stop", "sentence", "length"];
/** What a terminal would act upon instead of passing it on; line breaks and tabs are text. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: it looks for them
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

/**
 * A text as one word of a POSIX shell.
 * @param {string} text
 */
export function quoted(text) {
  return /^[\w@%+:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * The settings that all turns of a command share: all but the seed, what follows from it, and what is only read
 * beside the reply.
 * @param {TurnSettings} settings
 */
function shared({ seed, attempt, along, second, ...rest }) {
  return JSON.stringify(Object.entries(rest).sort());
}

/**
 * Whether flags can say the settings.
 * @param {TurnSettings} settings
 */
function hasFlags({ cap, steer, also, only, seeds, own }) {
  const whole = !cap || cap.layers.every((layer, n) => layer === (cap.layers[0] ?? 0) + n);
  const named = !cap || cap.floor_name !== null;
  return whole && named && !steer && !also && !only && !own && seeds === 1;
}

/** @param {string} text */
const isWord = (text) => !CONTROL.test(text) && new TextEncoder().encode(text).length <= MOST_BYTES;

/** @param {Turn} turn */
const hasEnded = ({ replies }) =>
  BRANCHES.every((branch) => replies[branch].absent || ENDED.includes(replies[branch].finish ?? ""));

/**
 * Whether every reply of a turn was sampled at once: it was neither made to go on from a token nor continued.
 * @param {Turn} turn
 */
const isWhole = ({ replies, settings }) =>
  BRANCHES.every(
    (branch) =>
      !replies[branch].visibleTokens.some((token) => token.f) && !isContinued(replies[branch], settings),
  );

/**
 * @param {Reply} reply
 * @param {TurnSettings | null} settings
 */
const isContinued = ({ absent, limit }, settings) =>
  !absent && limit !== null && settings !== null && limit > settings.max_new_tokens;

/**
 * Whether a command with all messages makes the last of these turns as it was made: every turn before it comes
 * out as it is.
 * @param {Turn[]} turns
 */
function fitsMessages(turns) {
  const [first] = turns;
  if (!first?.settings) return false;
  const base = shared(first.settings);
  const same = turns.every(({ settings }) => settings && !settings.read && shared(settings) === base);
  const texts = [first.settings.system_prompt, ...turns.map(({ user }) => user)];
  if (!turns.every(isWhole)) return false;
  return same && hasFlags(first.settings) && turns.slice(0, -1).every(hasEnded) && texts.every(isWord);
}

/** @param {TurnSettings[]} settings */
function seedsOf(settings) {
  const seeds = settings.map(({ seed }) => seed);
  const grow = seeds.every((seed, n) => seed === (seeds[0] ?? 0) + n);
  return grow ? String(seeds[0]) : seeds.join(",");
}

/**
 * @param {TurnSettings} settings
 * @returns {string[]}
 */
function samplingFlags(settings) {
  const { cap, temperature, top_p, repetition_penalty, max_new_tokens, soft_limit = 0 } = settings;
  const floor = [
    "--floor",
    quoted(cap?.floor_name ?? ""),
    "--layers",
    `${cap?.layers[0]}-${cap?.layers.at(-1)}`,
    `--only-below=${cap?.only_below ?? "off"}`, // always, because the axis may have a threshold of its own
  ];
  return [
    ...(cap ? floor : ["--no-cap"]),
    ...["--temperature", temperature, "--top-p", top_p, "--repetition-penalty", repetition_penalty],
    ...["--tokens", max_new_tokens, "--soft-limit", soft_limit],
    ...(settings.thinking ? ["--thinking", "--span", settings.span] : []),
    ...(settings.plain ? ["--plain"] : []),
    ...(settings.system_prompt ? [`--system=${quoted(settings.system_prompt)}`] : []),
  ].map(String);
}

/**
 * Model and axis, and what to replace in them.
 * @param {Meta} meta
 * @returns {{ flags: string[]; notes: string[] }}
 */
function modelFlags({ made_with: made }) {
  if (!made) return { flags: [], notes: [] };
  const named = [["--model", made.model], ...(made.axis ? [["--axis", made.axis]] : [])];
  const notes = named
    .filter(([flag = ""]) => made.local.includes(flag))
    .map(([flag, name]) => `Put the path of ${name} on your machine after ${flag}.`);
  const flags = named.map(([flag, name]) => `${flag} ${quoted(name ?? "")}`);
  return { flags: [...flags, ...(made.base ? ["--base"] : [])], notes };
}

/** @param {TurnSettings} settings */
const dtypeFlags = ({ dtype }) => (DTYPES.includes(dtype) ? ["--dtype", dtype] : []);

/**
 * The command that makes turn `index` again.
 * @param {Turn[]} turns
 * @param {number} index
 * @param {Meta & { fork?: number }} meta fork: the number of this conversation in a session file of its tree
 * @returns {Again}
 */
export function commandOf(turns, index, meta) {
  const until = turns.slice(0, index + 1);
  const turn = turns[index];
  const settings = turn?.settings;
  const refused = (/** @type {string} */ note) => ({ command: null, notes: [note] });
  if (!turn || !settings) return refused("How this reply was made is not known.");
  if (settings.read) return refused("This reply was read and not made here, so no command makes it again.");
  if (meta.unsaved)
    return refused("This recording cannot be saved here; try it live, and copy the command there.");
  const { flags, notes } = modelFlags(meta);
  const begin = [...COMMAND, ...flags, ...dtypeFlags(settings)];
  if (!hasEnded(turn))
    notes.push("A reply of this turn was stopped here; the command lets it go on to its end.");
  if (BRANCHES.some((branch) => isContinued(turn.replies[branch], settings)))
    notes.push("A reply of this turn was continued here; the command makes its first part.");
  if (meta.made_with && fitsMessages(until)) {
    const all = until.flatMap((one) => one.settings ?? []);
    const date = meta.date ? ["--date", meta.date] : [];
    const words = [...begin, "--seed", seedsOf(all), ...date, ...samplingFlags(settings), "--"];
    return { command: [...words, ...until.map(({ user }) => quoted(user))].join(" "), notes };
  }
  const file = "Save this session as a session file, and put its path in the place of FILE.";
  const other = `Name the model, ${meta.model ?? "which the file names"}, with --model.`;
  const fork = meta.fork ? ["--fork", String(meta.fork)] : [];
  const words = [...begin, "--session", "FILE", ...fork, "--turn", String(index + 1)];
  return { command: words.join(" "), notes: [file, ...(meta.made_with ? [] : [other]), ...notes] };
}

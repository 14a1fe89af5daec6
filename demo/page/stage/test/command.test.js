/** @import { Meta, Turn, TurnSettings } from "../src/types" */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import test from "node:test";

import { commandOf, quoted } from "../src/command.js";
import { addToken, finishReply, newTurn } from "../src/turns.js";

/** @type {TurnSettings} */
const SETTINGS = {
  cap: { floor_name: "p25", floor: 0.75, layers: [18, 19, 20], floors: [1, 2, 3] },
  along: ["kind"],
  plain: true,
  seed: 4,
  seeds: 1,
  temperature: 0.3,
  top_p: 0.9,
  repetition_penalty: 1.1,
  max_new_tokens: 96,
  soft_limit: 60,
  thinking: false,
  span: "both",
  system_prompt: "You're a demon.",
  dtype: "bfloat16",
  attempt: 1,
};
/** @type {Meta} */
const META = { model: "small", date: "2026-11-28", made_with: { model: "org/Small", axis: "", local: [] } };

/**
 * @param {string} user
 * @param {Partial<TurnSettings>} [more]
 * @param {import("../src/types").Finish} [finish]
 * @returns {Turn}
 */
function turn(user, more = {}, finish = "stop") {
  const made = newTurn(user, ["uncapped", "capped"], { settings: { ...SETTINGS, ...more } });
  for (const branch of /** @type {const} */ (["uncapped", "capped"]))
    finishReply(made.replies[branch], { finish });
  return made;
}

/**
 * The words that a POSIX shell makes of a command.
 * @param {string} command
 */
function words(command) {
  const out = execFileSync("sh", ["-c", `printf '%s\\0' ${command}`], { encoding: "utf-8" });
  return out.split("\0").slice(0, -1);
}

/**
 * @param {Turn[]} turns
 * @param {Meta} [meta]
 */
function made(turns, meta = META) {
  const { command, notes } = commandOf(turns, turns.length - 1, meta);
  return { words: command === null ? null : words(command), notes };
}

test("a shell gives the program what was typed, whatever it was", () => {
  const typed = [
    "It's",
    "two\nlines\n",
    '$HOME `id` $(id) "q" \\ \\n !! * ? ~ # ; & | > < {a,b}',
    "'",
    "''",
    "-rf",
    "",
    " ",
    "ünï \u{1f52c}",
    "tab\there",
  ];
  for (const text of typed) assert.deepEqual(words(quoted(text)), [text]);
});

test("a chat that went on with the same settings is given by its messages", () => {
  const { words: found, notes } = made([turn("Hi, it's me\n$x"), turn("-who?", { seed: 5, along: [] })]);
  assert.deepEqual(found?.slice(0, 7), [
    "python",
    "-m",
    "demo.conversation.again",
    "--model",
    "org/Small",
    "--dtype",
    "bfloat16",
  ]);
  const rest = found?.slice(7).join(" ");
  const flags = "--seed 4 --date 2026-11-28 --floor p25 --layers 18-20 --only-below=off --temperature 0.3";
  const more =
    "--top-p 0.9 --repetition-penalty 1.1 --tokens 96 --soft-limit 60 --plain --system=You're a demon.";
  assert.equal(rest, `${flags} ${more} -- Hi, it's me\n$x -who?`);
  assert.deepEqual(notes, []);
});

test("a cap that acts only on some replies is named with its threshold", () => {
  const cap = { floor_name: "p75", floor: 0.75, layers: [18], floors: [1], only_below: -0.06 };
  assert.ok(made([turn("a", { cap })]).words?.includes("--only-below=-0.06"));
});

test("seeds that do not grow by one are all named, and a cap that was off", () => {
  const { words: found } = made([turn("a", { cap: null }), turn("b", { cap: null, seed: 105, attempt: 2 })]);
  assert.ok(found?.includes("4,105") && found.includes("--no-cap") && !found.includes("--floor"));
});

test("what messages and flags cannot say is taken from a session file", () => {
  const cases = [
    [turn("a", { temperature: 1 }), turn("b", { seed: 5 })], // other settings before
    [turn("a", {}, "cancelled"), turn("b", { seed: 5 })], // a reply that was stopped is in the history
    [turn("a", { read: true }), turn("b", { seed: 5 })],
    [turn("a", { steer: { layer: 3, alpha: 1 } })],
    [turn("a", { only: "capped" })],
    [turn("a", { seeds: 3 })],
    [turn("a", { also: { direction: "kind", downward: false, layers: [3], floors: [0] } })],
    [turn("a", { cap: { floor_name: "p25", floor: 1, layers: [3, 5], floors: [0, 0] } })],
    [turn("a\u001b[2J")], // a terminal would act upon it
    [turn("a\rb")],
    [turn("x".repeat(200_000))],
  ];
  for (const turns of cases) {
    const { words: found, notes } = made(turns);
    assert.deepEqual(found?.slice(7), ["--session", "FILE", "--turn", String(turns.length)]);
    assert.match(notes.join(" "), /in the place of FILE/);
  }
});

test("what cannot be made again says why in one sentence", () => {
  const read = made([turn("a", { read: true })]);
  assert.deepEqual([read.words, read.notes.length], [null, 1]);
  assert.match(String(read.notes[0]), /read and not made here/);
  const intro = made([turn("a")], { ...META, unsaved: true });
  assert.match(String(intro.notes[0]), /try it live/);
});

test("a model that is not loaded here, or whose path is not told, is named by whoever runs the command", () => {
  const unknown = made([turn("a")], { model: "other-model" });
  assert.deepEqual(unknown.words?.slice(3), ["--dtype", "bfloat16", "--session", "FILE", "--turn", "1"]);
  assert.match(unknown.notes.join(" "), /Name the model, other-model, with --model/);
  const rounded = made([turn("a", { dtype: "int8" })], { model: "other-model" });
  assert.deepEqual(rounded.words?.slice(3, 5), ["--dtype", "int8"]);
  const local = made([turn("a")], { made_with: { model: "my models", axis: "", local: ["--model"] } });
  assert.equal(local.words?.[4], "my models");
  assert.match(local.notes.join(" "), /Put the path of my models on your machine after --model/);
  const base = made([turn("a")], { made_with: { model: "org/Base", axis: "", local: [], base: true } });
  assert.deepEqual(base.words?.slice(3, 6), ["--model", "org/Base", "--base"]);
});

test("a reply that was stopped says that the command goes on", () => {
  const { words: found, notes } = made([turn("a", {}, "cancelled")]);
  assert.equal(found?.at(-1), "a");
  assert.match(notes.join(" "), /go on to its end/);
});

test("a reply that was made to go on from a token, or was continued, takes a file", () => {
  const forked = turn("Hi");
  addToken(forked.replies.capped, { t: "a", a: 1, f: 1 });
  assert.ok(made([forked]).words?.includes("--session"));
  assert.ok(made([forked, turn("Hi", { seed: 4 })]).words?.includes("--session"));
  const continued = turn("Hi");
  continued.replies.uncapped.limit = SETTINGS.max_new_tokens + 9;
  assert.match(made([continued]).notes.join(" "), /was continued here/);
  assert.ok(made([turn("Hi", { own: { capped: { temperature: 1 } } })]).words?.includes("--session"));
});

test("a fork is named by its number in the file of its tree", () => {
  const forked = turn("Hi");
  addToken(forked.replies.capped, { t: "a", a: 1, f: 1 });
  const { command } = commandOf([forked], 0, { ...META, fork: 2 });
  assert.match(command ?? "", /--session FILE --fork 2 --turn 1$/);
});

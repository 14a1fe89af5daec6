// The types of the script and protocol.json name the same operations and requests with the same fields. The type
// checker holds the tables below to the types; these tests hold them to protocol.json.

import assert from "node:assert/strict";
import test from "node:test";

import { PROTOCOL } from "./helpers.js";

/** @import { Operations, Requests } from "../src/types" */

/**
 * How protocol.json names a type. A whole number is a number here.
 * @template T
 * @typedef {T extends string ? "string" : T extends number ? "integer" | "number" : T extends boolean ? "boolean"
 *   : T extends readonly unknown[] ? "list" : T extends null ? "null" : "object"} Kind
 */

/**
 * The kinds of a field that may be several, such as "string or null".
 * @template T
 * @typedef {null extends T ? `${Kind<NonNullable<T>>} or null` : Kind<NonNullable<T>>} FieldKind
 */

/**
 * The fields of an operation or request, with a question mark after those that may be missing.
 * @template F
 * @typedef {{ [N in keyof F as undefined extends F[N] ? `${N & string}?` : N]-?:
 *   FieldKind<Exclude<F[N], undefined>> }} Fields
 */

/** @type {{ [N in keyof Operations]: Fields<Operations[N]> }} */
const OPERATIONS = {
  reset: { meta: "object", "turns?": "list" },
  conversations: {
    list: "list",
    ids: "list",
    turns: "list",
    current: "integer",
    fork: "integer",
    watch_only: "boolean",
    recorded: "boolean",
    script: "object",
    system_prompt: "string",
  },
  turn_start: {
    turn: "integer",
    user: "string",
    "branches?": "list",
    "kept?": "object",
    "settings?": "object",
    "marks?": "object",
  },
  waiting: { turn: "integer", ahead: "integer" },
  prompt: { turn: "integer", branch: "string", "user_mean?": "number or null", "start?": "number" },
  tokens: { turn: "integer", branch: "string", at: "integer", tokens: "list", "place?": "list" },
  turn_end: {
    turn: "integer",
    branch: "string",
    "finish?": "string or null",
    "fault?": "string",
    "mean?": "number or null",
    "reasoning_mean?": "number or null",
    "user_mean?": "number or null",
    "start?": "number",
    "fired?": "integer or null",
    "count?": "integer or null",
    "limit?": "integer or null",
    "place?": "list or null",
    "plain_mean?": "number",
    "along?": "list",
    "seeds?": "object",
    "shift?": "object",
    "step?": "object",
  },
  turn: { turn: "integer", data: "object" },
  lost: { branches: "list", text: "string" },
  marks: { figures: "object" },
  layers: {
    conversation: "string",
    turn: "integer",
    branch: "string",
    probe: "integer",
    cap: "list or null",
    floors: "list",
    tokens: "list",
    reasoning: "integer",
    own: "list",
    plain: "list",
    below: "list",
  },
  layers_failed: { conversation: "string", turn: "integer", branch: "string" },
  compared: {
    id: "string",
    title: "string",
    model: "string",
    probe_layer: "integer",
    same_axis: "boolean",
    turns: "list",
  },
  chats: { titles: "list", count: "integer" },
  pane_prompts: { prompts: "object" },
  tree: { nodes: "list", current: "integer" },
  left_out: { text: "string" },
  load: { running: "integer", waiting: "integer", mib: "integer", budget: "integer" },
  notice: { text: "string", "level?": "string" },
  download: { name: "string", mime: "string", text: "string" },
  persist: { id: "string", head: "object", from: "integer", turns: "list" },
  restored: {},
};

/** @type {{ [N in keyof Requests]: Fields<Requests[N]> }} */
const REQUESTS = {
  show: {},
  undo: {},
  fork: { turn: "integer" },
  tree: { words: "string", below: "number or null" },
  note: {
    conversation: "integer",
    star: "integer",
    note: "string",
    words: "string",
    below: "number or null",
  },
  switch: { conversation: "integer" },
  close: { conversation: "integer" },
  compare: { conversation: "string" },
  recorded: { name: "string" },
  shared: { name: "string" },
  system_prompt: { text: "string" },
  typed_prompt: { conversation: "string", text: "string" },
  save: { kind: "string" },
  restore: { conversations: "list", current: "integer", draft: "string or null" },
  regenerate: { turn: "integer" },
  fork_at: {
    turn: "integer",
    branch: "string",
    token: "integer",
    id: "integer or null",
    text: "string",
    where: "string",
  },
  go_on: { turn: "integer", branch: "string" },
  edit: { turn: "integer", text: "string" },
  layers: { turn: "integer", branch: "string" },
  open: { text: "string", how: "string or null", keep: "string or null", chat: "integer or null" },
};

/** @param {Record<string, { fields: object }>} table */
const fieldsOf = (table) =>
  Object.fromEntries(Object.entries(table).map(([name, { fields }]) => [name, fields]));

test("the operations of protocol.json have the fields that the types name", () => {
  assert.deepEqual(fieldsOf(PROTOCOL.operations), OPERATIONS);
});

test("the requests of protocol.json have the fields that the types name", () => {
  assert.deepEqual(fieldsOf(PROTOCOL.requests), REQUESTS);
});

// Shared by the tests of the script.

/** @import { Branch, ChartTrace, Palette, PersonaMap, Token, Turn, Zones } from "../src/types" */

import { readFileSync } from "node:fs";

import { finishReply, newTurn } from "../src/turns.js";

/** @type {import("../src/protocol.js").Protocol} */
export const PROTOCOL = JSON.parse(readFileSync(new URL("../protocol.json", import.meta.url), "utf-8"));

/**
 * @param {number | null} after
 * @param {Partial<Token>} [more]
 * @returns {Token}
 */
export const token = (after, more = {}) => ({ t: "a", a: after, ...more });

/**
 * A finished turn of two branches.
 * @param {number | null} uncapped its mean
 * @param {number | null} capped its mean
 * @returns {Turn}
 */
export function finishedTurn(uncapped, capped) {
  const turn = newTurn("hello", ["uncapped", "capped"]);
  finishReply(turn.replies.uncapped, { finish: "stop", mean: uncapped });
  finishReply(turn.replies.capped, { finish: "stop", mean: capped });
  return turn;
}

/**
 * An empty trace.
 * @param {string} role
 * @param {Branch | ""} branch
 * @returns {ChartTrace}
 */
export const trace = (role, branch) => ({
  meta: { role, branch },
  x: [],
  y: [],
  mode: "markers",
  marker: {},
});

/** @returns {ChartTrace} */
export const frame = () => ({ ...trace("frame", ""), x: [1, 48], y: [-0.75, 1.5] });

/** @type {Palette} */
export const COLOURS = {
  uncapped: "#b84a00",
  capped: "#0067a8",
  steered: "#2f7d32",
  card: "#ffffff",
  text: "#111111",
  muted: "#777777",
  grid: "#dddddd",
  border: "#cccccc",
  "role-low": "#aa0000",
  "role-mid": "#888888",
  "role-high": "#0000aa",
  size: 16,
};

/** @type {{ cases: ["zones" | "at_one_point", number, string][] } & Record<"zones" | "at_one_point", Zones>} */
export const ZONE_TABLE = JSON.parse(readFileSync(new URL("zones.json", import.meta.url), "utf-8"));
/** @type {Zones} */
export const ZONES = { ...ZONE_TABLE.zones, measured: "As measured." };

/** @type {PersonaMap} */
export const MAP = {
  roles: [
    ["pirate", [-2, 0.5, 0], -1.5],
    ["poet", [-1, 1, 0.2], -0.5],
    ["<judge>", [0, -1, 0.1], 0],
    ["teacher", [1, 0, -0.4], 0.5],
    ["clerk", [1.5, -0.5, 0.3], 0.8],
    ["editor", [2, 0.5, 0], 1.1],
    ["analyst", [2.2, 0.2, -0.1], 1.2],
  ],
  default: [2.5, 0.3, 0.1],
  variance: [0.4, 0.2, 0.1],
  notes: [],
};

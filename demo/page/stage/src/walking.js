// Walking from token to token with the keyboard: along a pane, over its turns, and across to the other panes.

/** @import { Branch } from "./types" */
/** @import { Pane } from "./panes.js" */

import { findAll, targetOf } from "./dom.js";

/**
 * @typedef {object} Place
 * @property {number} pane among those that are visible
 * @property {number} turn
 * @property {number} at which of the turn's tokens in that pane
 */

/**
 * How many tokens each pane shows, by turn; a turn without a reply has no entry.
 * @typedef {ReadonlyMap<number, number>[]} Counts
 */

/** @type {Record<string, (counts: Counts, place: Place) => Place | null>} */
const MOVES = {
  ArrowRight: (counts, place) => along(counts, place, 1),
  ArrowLeft: (counts, place) => along(counts, place, -1),
  ArrowDown: (counts, place) => across(counts, place, 1),
  ArrowUp: (counts, place) => across(counts, place, -1),
  Home: (_, place) => ({ ...place, at: 0 }),
  End: (counts, place) => ({ ...place, at: (counts[place.pane]?.get(place.turn) ?? 1) - 1 }),
};

/**
 * The next token, which may be in another turn. Null at either end of the conversation.
 * @param {Counts} counts
 * @param {Place} place
 * @param {1 | -1} step
 */
function along(counts, { pane, turn, at }, step) {
  const own = counts[pane] ?? new Map();
  if (at + step >= 0 && at + step < (own.get(turn) ?? 0)) return { pane, turn, at: at + step };
  const filled = [...own].filter(([, count]) => count > 0).map(([index]) => index);
  const others = filled.filter((index) => (index - turn) * step > 0).sort((one, other) => one - other);
  const next = step > 0 ? others[0] : others.at(-1);
  if (next === undefined) return null;
  return { pane, turn: next, at: step > 0 ? 0 : (own.get(next) ?? 1) - 1 };
}

/**
 * The same position in the next pane that answers in the turn, or the last one of a shorter reply.
 * @param {Counts} counts
 * @param {Place} place
 * @param {1 | -1} step
 */
function across(counts, { pane, turn, at }, step) {
  for (let other = pane + step; other >= 0 && other < counts.length; other += step) {
    const count = counts[other]?.get(turn) ?? 0;
    if (count) return { pane: other, turn, at: Math.min(at, count - 1) };
  }
  return null;
}

/**
 * Where a key leads.
 * @param {string} key
 * @param {Counts} counts
 * @param {Place} place
 * @returns {Place | null | undefined} null: nowhere, because there is nothing there; undefined: it is no such key
 */
export function moved(key, counts, place) {
  return MOVES[key]?.(counts, place);
}

/**
 * The token from which a key starts while none is pointed at. Keys that also scroll go on scrolling then.
 * @param {string} key
 * @param {number} count of the tokens in the turn
 */
export function start(key, count) {
  if (key === "ArrowRight") return 0;
  return key === "ArrowLeft" ? count - 1 : null;
}

/**
 * @param {HTMLElement} root
 * @param {Pane[]} panes
 * @param {object} hooks
 * @param {() => HTMLElement | null} hooks.current the token whose card is shown
 * @param {(span: HTMLElement, branch: Branch) => void} hooks.show
 * @param {(turn: number) => void} hooks.selectTurn
 */
export function makeWalking(root, panes, hooks) {
  /**
   * The tokens of a turn that can be seen: not those of closed reasoning, and none in plain text.
   * @param {Element} turn
   */
  const tokensOf = (turn) => findAll(turn, ".tok").filter((span) => span.getClientRects().length > 0);

  const turnOf = (/** @type {Element | null} */ element) => {
    const section = element?.closest(".turn");
    return section instanceof HTMLElement ? Number(section.dataset.turn) : null;
  };

  /** @param {Pane} pane */
  function countsOf({ log }) {
    return new Map(findAll(log, ".turn").map((turn) => [Number(turn.dataset.turn), tokensOf(turn).length]));
  }

  /**
   * @param {Pane[]} visible
   * @param {Place} place
   */
  function spanAt(visible, { pane, turn, at }) {
    const section = visible[pane]?.log.querySelector(`.turn[data-turn="${turn}"]`);
    return section ? tokensOf(section)[at] : undefined;
  }

  /**
   * The place that a key leads to; null for none, undefined if the key is left to the browser.
   * @param {string} key
   * @param {Pane[]} visible
   * @param {Pane} pane
   */
  function goal(key, visible, pane) {
    const current = hooks.current();
    const own = visible.indexOf(pane);
    const turn = turnOf(current ?? pane.log.querySelector(".turn.shown"));
    const section = turn === null ? null : pane.log.querySelector(`.turn[data-turn="${turn}"]`);
    if (turn === null || !section) return undefined;
    const tokens = tokensOf(section);
    const at = current ? tokens.indexOf(current) : -1;
    if (at >= 0) return moved(key, visible.map(countsOf), { pane: own, turn, at });
    const first = start(key, tokens.length);
    return first === null || !tokens.length ? undefined : { pane: own, turn, at: first };
  }

  /**
   * @param {KeyboardEvent} event
   * @param {Pane} pane
   */
  function onKey(event, pane) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (root.classList.contains("veiled") || targetOf(event).closest("textarea, input, select")) return;
    const visible = panes.filter((one) => !one.pane.hidden);
    const place = goal(event.key, visible, pane);
    if (place === undefined) return;
    event.preventDefault();
    const other = place && visible[place.pane];
    const span = place && spanAt(visible, place);
    if (!other || !span) return;
    if (!span.closest(".turn.shown")) hooks.selectTurn(place.turn);
    if (other !== pane) other.log.focus({ preventScroll: true });
    span.scrollIntoView({ block: "nearest" });
    hooks.show(span, other.branch);
  }

  for (const pane of panes) pane.log.addEventListener("keydown", (event) => onKey(event, pane));
}

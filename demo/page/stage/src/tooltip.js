// The tooltip of a token: its projection before and after the cap, what each capped layer added, and its
// probability.

/** @import { Branch, Token, TurnSettings, VisibleToken } from "./types" */
/** @import { Pane } from "./panes.js" */

import { closestOf, makeElement } from "./dom.js";
import { surpriseText } from "./lens.js";
import { choices, effectOnChoice, number, percent, projections, shownToken } from "./text.js";
import { makeWalking } from "./walking.js";

/**
 * @typedef {object} TooltipHooks
 * @property {(branch: Branch, turn: number, position: number) => VisibleToken | undefined} token
 * @property {(turn: number, branch: Branch) => [first: number, last: number] | null | undefined} capLayers
 * @property {(turn: number) => TurnSettings | null} settings how a turn was answered
 * @property {(branch: Branch, position: number, turn: number) => void} hover
 * @property {() => void} unhover no token is pointed at any more
 * @property {(branch: Branch, turn: number, position: number, done: () => void) => HTMLElement | null} forkForm
 *   what a user can do at a token; null where nothing can be done
 * @property {(turn: number) => void} selectTurn
 */

const TOOLTIP_GAP = 8; // pixels between the token and the tooltip

/**
 * @param {HTMLElement} list
 * @param {string} name
 * @param {string} value
 */
function addRow(list, name, value) {
  list.append(makeElement("dt", "", name), makeElement("dd", "", value));
}

/**
 * @param {number[]} lifts one for each capped layer
 * @param {number} first the first capped layer
 */
function liftBars(lifts, first) {
  const box = makeElement("div", "lifts");
  const most = Math.max(...lifts);
  lifts.forEach((value, n) => {
    const bar = makeElement("i");
    bar.style.height = `${most > 0 ? Math.max(4, (100 * value) / most) : 4}%`;
    bar.title = `layer ${first + n}: +${number(value)}`;
    box.append(bar);
  });
  return box;
}

/**
 * @param {HTMLElement} tooltip
 * @param {Branch} branch
 * @param {Token} token
 * @param {number} position
 * @param {[first: number, last: number] | null | undefined} capLayers
 * @param {TurnSettings | null} settings
 */
function fillTooltip(tooltip, branch, token, position, capLayers, settings) {
  const also = settings?.also;
  const list = makeElement("dl");
  if (token.r) addRow(list, "part", "reasoning");
  if (token.f) addRow(list, "given", "not sampled: the reply was made to go on so");
  const { before, after } = projections(token);
  addRow(list, "token", `${position}: ${JSON.stringify(token.t)}`);
  if (before === null) addRow(list, "projection", "not recorded");
  else if (Math.abs(after - before) > 1e-6)
    addRow(list, "projection", `${number(before)} → ${number(after)}`);
  else addRow(list, "projection", number(after));
  if (typeof token.q === "number") addRow(list, "read without the cap", number(token.q));
  settings?.along?.forEach((name, n) => {
    const value = token.g?.[n];
    if (value !== undefined) addRow(list, name.replace(/_/g, " "), number(value));
  });
  if (token.p !== null && token.p !== undefined)
    addRow(list, "probability", `${percent(token.p)} (${surpriseText(token)})`);
  tooltip.replaceChildren(list);
  if (token.l?.length) tooltip.append(alternativesTable(token, branch === "capped"));
  if (branch !== "capped" && !token.k) return;
  const effect = effectOnChoice(token);
  if (effect) tooltip.append(makeElement("p", "", effect));
  if (token.z && also) {
    const amount = number(also.downward ? -token.z : token.z);
    const moved = `The cap along ${also.direction.replace(/_/g, " ")} moved it by ${amount} (sum over layers).`;
    tooltip.append(makeElement("p", "", moved));
  }
  if (!token.k) {
    if (!token.z) tooltip.append(makeElement("p", "", "The cap did not act."));
    return;
  }
  const first = capLayers?.[0] ?? 0;
  const all = token.k.map((value, n) => ({ layer: first + n, value }));
  const layers = all.filter(({ value }) => value > 0);
  const sum = number(layers.reduce((total, { value }) => total + value, 0));
  const summary = `Lifted at ${layers.length} of ${token.k.length} layers (in axis units of each layer; sum ${sum})`;
  const details = layers.map(({ layer, value }) => `${layer}: +${number(value)}`).join(", ");
  tooltip.append(makeElement("p", "", summary), liftBars(token.k, first), makeElement("p", "small", details));
}

/**
 * The tokens that could have come, with their probabilities: with the cap and, where the words were read
 * without it, beside it.
 * @param {Token} token
 * @param {boolean} capped
 */
function alternativesTable(token, capped) {
  const beside = (token.o ?? []).length > 0;
  const table = makeElement("table", "alternatives");
  const columns = ["it could have been", ...(beside ? ["no cap"] : []), capped ? "capped" : "probability"];
  table
    .createTHead()
    .insertRow()
    .append(...columns.map((name) => makeElement("th", "", name)));
  const body = table.createTBody();
  for (const { text, own, plain } of choices(token)) {
    const row = body.insertRow();
    if (text === token.t) row.className = "chosen";
    for (const cell of [shownToken(text), ...(beside ? [chance(plain)] : []), chance(own)])
      row.insertCell().textContent = cell;
  }
  return table;
}

/** @param {number | undefined} share */
const chance = (share) => (share === undefined ? "–" : percent(share));

/** Where the visible part of the page ends: at the window's edge, or at the message box that sticks to it. */
function lowerEdge() {
  const box = document.querySelector("#say")?.getBoundingClientRect();
  return box?.height ? Math.min(innerHeight, box.top) : innerHeight;
}

/**
 * @param {HTMLElement} root
 * @param {Pane[]} panes
 * @param {TooltipHooks} hooks
 */
export function makeTooltip(root, panes, hooks) {
  const tooltip = makeElement("div", "tooltip");
  tooltip.setAttribute("role", "tooltip");
  tooltip.hidden = true;
  root.append(tooltip);
  /** @type {HTMLElement | null} */
  let current = null;
  let stays = false; // a key or a link has brought it, so it stays while the log scrolls
  let pointer = ""; // where the pointer last was: text that scrolls under one that rests is not pointed at
  let frame = 0; // of the next placing
  let pinned = false; // the card of a token that was clicked: it stays, and its form can be used

  /**
   * @param {HTMLElement} span of a token
   * @param {Branch} branch
   */
  function show(span, branch) {
    const section = span.closest(".turn");
    if (!(section instanceof HTMLElement)) return;
    const [turn, position] = [Number(section.dataset.turn), Number(span.dataset.i)];
    const token = hooks.token(branch, turn, position);
    if (!token) return;
    current?.classList.remove("current");
    current = span;
    stays = false;
    pin(false);
    span.classList.add("current");
    fillTooltip(tooltip, branch, token, position, hooks.capLayers(turn, branch), hooks.settings(turn));
    tooltip.hidden = false;
    place();
    follow();
    hooks.hover(branch, position, turn);
  }

  // No event tells of every shift of the layout, so the card is placed again in each frame while it is shown.
  function follow() {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      if (!current) return;
      // Its turn was taken away or shown anew, or the text is shown without its tokens.
      if (!current.getClientRects().length) {
        hide();
        return;
      }
      place();
      follow();
    });
  }

  // Below the token where there is room for it, else above.
  function place() {
    if (!current) return;
    const [box, outer] = [current.getBoundingClientRect(), root.getBoundingClientRect()];
    const { offsetWidth: width, offsetHeight: height } = tooltip;
    const left = Math.min(Math.max(box.left - outer.left, 0), Math.max(0, outer.width - width));
    const [below, edge] = [box.bottom + TOOLTIP_GAP, lowerEdge()];
    const above = Math.min(box.top - TOOLTIP_GAP, edge) - height;
    // Where it fits on neither side its head stays in view, even if it covers the token.
    const top = below + height < edge ? below : Math.max(above, 0);
    tooltip.style.left = `${left}px`;
    tooltip.style.top = `${top - outer.top}px`;
  }

  /** @param {boolean} wanted */
  function pin(wanted) {
    pinned = wanted;
    tooltip.classList.toggle("pinned", wanted);
  }

  /**
   * Shows and keeps the card of a token that was chosen, with the form of what can be done there.
   * @param {HTMLElement} span
   * @param {Branch} branch
   */
  function choose(span, branch) {
    show(span, branch);
    const turn = Number(span.closest(".turn")?.getAttribute("data-turn"));
    const form = hooks.forkForm(branch, turn, Number(span.dataset.i), hide);
    if (!form) return;
    pin(true);
    tooltip.append(form);
    place();
  }

  function hide() {
    if (current) hooks.unhover();
    // Whoever uses the keyboard goes on from the pane.
    const log = current?.closest(".log");
    if (log instanceof HTMLElement && tooltip.contains(document.activeElement))
      log.focus({ preventScroll: true });
    stays = false;
    pin(false);
    tooltip.hidden = true;
    current?.classList.remove("current");
    current = null;
  }

  /** @param {KeyboardEvent} event */
  function onEscape(event) {
    if (event.key !== "Escape" || !current) return;
    hide();
    event.stopPropagation(); // leaves nothing else
  }

  /**
   * A log has been scrolled. A token that a key or a link has brought here stays until it is out of sight.
   * @param {HTMLElement} log
   */
  function onScroll(log) {
    if (!current || !log.contains(current) || current.matches(":hover")) return;
    const [token, seen] = [current.getBoundingClientRect(), log.getBoundingClientRect()];
    const inSight = token.bottom > seen.top && token.top < seen.bottom;
    if (!((stays || pinned) && inSight)) hide();
  }

  /**
   * Shows the card of a token that nobody points at.
   * @param {HTMLElement} span
   * @param {Branch} branch
   */
  function bring(span, branch) {
    show(span, branch);
    stays = true;
  }

  for (const pane of panes) {
    const { log, branch } = pane;
    const showUnder = (/** @type {Event} */ event) => {
      if (event instanceof PointerEvent && event.type === "pointerover") {
        const before = pointer;
        pointer = `${event.screenX} ${event.screenY}`;
        if (stays && pointer === before) return;
      }
      if (pinned) return;
      const span = closestOf(event, ".tok");
      if (span) show(span, branch);
      else hide();
    };
    const chooseUnder = (/** @type {Event} */ event) => {
      const span = closestOf(event, ".tok");
      if (span) choose(span, branch);
      else hide();
    };
    const chooseByKey = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "Enter" || !current || !log.contains(current) || event.target !== log) return;
      choose(current, branch);
      tooltip.querySelector("button")?.focus();
      event.preventDefault();
    };
    const hideUnlessPinned = () => pinned || hide();
    // A finger leaves as soon as it is lifted, so a tap shows the tooltip, which stays until the next tap.
    const unlessTouch =
      (/** @type {(event: Event) => void} */ act) => (/** @type {PointerEvent} */ event) => {
        if (event.pointerType !== "touch") act(event);
      };
    log.addEventListener("pointerover", unlessTouch(showUnder), { passive: true });
    log.addEventListener("pointerleave", unlessTouch(hideUnlessPinned), { passive: true });
    log.addEventListener("click", chooseUnder);
    log.addEventListener("scroll", () => onScroll(log), { passive: true });
    log.addEventListener("keydown", onEscape);
    log.addEventListener("keydown", chooseByKey);
    log.addEventListener("pointermove", ({ screenX, screenY }) => (pointer = `${screenX} ${screenY}`), {
      passive: true,
    });
    log.addEventListener("blur", hideUnlessPinned);
  }
  // A card that stays is what was opened last, wherever the focus is.
  document.addEventListener("keydown", (event) => (pinned || stays) && onEscape(event), { capture: true });
  document.addEventListener("pointerdown", (event) => {
    if ((pinned || stays) && !closestOf(event, ".tooltip, .tok")) hide();
  });
  makeWalking(root, panes, { current: () => current, show: bring, selectTurn: hooks.selectTurn });
  return { bring };
}

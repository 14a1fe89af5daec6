// The tour: four steps, each beside the part of the page that it explains.

import { findAll, makeButton, makeElement } from "./dom.js";
import { axisWords } from "./text.js";

const DONE_KEY = "persona-drift:tour";
const GAP = 10; // pixels between a part and its explanation

/** @type {{ target: string; title: string; text: () => string }[]} */
export const STEPS = [
  {
    target: "#stage .panes",
    title: "One model, two replies",
    text: () =>
      "Both panes get the same messages, from the same model with the same random numbers. The right one is " +
      `capped: a token that drifts too far from ${axisWords().persona} is lifted back to a floor.`,
  },
  {
    target: "#stage .chart-panel.wide",
    title: "Where each token lies",
    text: () =>
      `Up is the ${axisWords().side}, down are roles. The dashed line is the uncapped reply, the solid one the ` +
      "capped. The floor is the line at which the cap acts.",
  },
  {
    target: '#stage .pane[data-branch="capped"]',
    title: "Where the cap acted",
    text: () =>
      "A token that the cap has lifted is underlined, and a triangle in the chart. Point at any token for its " +
      "figures. Where nothing is underlined, the cap left the reply as it was.",
  },
  {
    target: "#top",
    title: "Your turn",
    text: () =>
      "Start a scenario, or write a message below. The settings, on the right, move the floor, switch the cap " +
      "off, and hold the seed and the system prompt.",
  },
];

/**
 * Where the card goes: below its target, above it, or else over its lower end.
 * @param {Pick<DOMRect, "top" | "bottom" | "left" | "width">} target
 * @param {{ width: number; height: number }} card
 * @param {{ width: number; height: number }} page
 */
export function placeCard(target, card, page) {
  const below = target.bottom + GAP;
  const above = target.top - GAP - card.height;
  const over = Math.min(target.bottom, page.height) - GAP - card.height;
  const top = below + card.height <= page.height ? below : above >= 0 ? above : Math.max(0, over);
  const centred = target.left + (target.width - card.width) / 2;
  return { top, left: Math.max(GAP, Math.min(centred, page.width - card.width - GAP)) };
}

/** @param {HTMLElement} root */
export function makeTour(root) {
  const card = makeElement("div", "tour");
  const [title, text, count] = [makeElement("h2"), makeElement("p"), makeElement("span", "tour-count")];
  const [skip, back, next] = [makeButton("", "Skip"), makeButton("", "Back"), makeButton("primary", "Next")];
  const buttons = makeElement("p", "dialog-actions");
  const offers = findAll(root, ".start-tour");
  /** @type {HTMLElement | null} */
  let target = null;
  let step = 0;

  title.id = "tour-title";
  card.setAttribute("role", "dialog");
  card.setAttribute("aria-labelledby", title.id);
  card.hidden = true;
  buttons.append(count, skip, back, next);
  card.append(title, text, buttons);
  root.append(card);

  /** The steps of which this page has the part; a page without a model lacks the scenarios. */
  const steps = () => STEPS.filter((one) => document.querySelector(one.target));

  function mark(/** @type {HTMLElement | null} */ element) {
    target?.classList.remove("tour-target");
    target = element;
    target?.classList.add("tour-target");
  }

  function place() {
    if (!target || card.hidden) return;
    const size = { width: card.offsetWidth, height: card.offsetHeight };
    const page = { width: innerWidth, height: innerHeight };
    const { top, left } = placeCard(target.getBoundingClientRect(), size, page);
    Object.assign(card.style, { top: `${top}px`, left: `${left}px` });
  }

  /** @param {number} index */
  function show(index) {
    const all = steps();
    const one = all[index];
    if (!one) {
      end();
      return;
    }
    step = index;
    mark(document.querySelector(one.target));
    target?.scrollIntoView({ block: "nearest" });
    [title.textContent, text.textContent] = [one.title, one.text()];
    count.textContent = `${index + 1} of ${all.length}`;
    back.disabled = index === 0;
    next.textContent = index + 1 < all.length ? "Next" : "Done";
    card.hidden = false;
    place();
    next.focus({ preventScroll: true });
  }

  /** It was seen or skipped, and is not offered again. */
  function end() {
    mark(null);
    card.hidden = true;
    for (const offer of offers) if (!offer.closest("dialog")) offer.hidden = true;
    try {
      localStorage.setItem(DONE_KEY, "1");
    } catch {
      // Without storage it is offered again.
    }
  }

  function start() {
    for (const dialog of findAll(root, "dialog[open]")) /** @type {HTMLDialogElement} */ (dialog).close();
    show(0);
  }

  for (const offer of offers) offer.addEventListener("click", start);
  skip.addEventListener("click", end);
  back.addEventListener("click", () => show(step - 1));
  next.addEventListener("click", () => show(step + 1));
  card.addEventListener("keydown", (event) => {
    const moves = new Map([
      ["Escape", end],
      ["ArrowLeft", () => step > 0 && show(step - 1)],
      ["ArrowRight", () => show(step + 1)],
    ]);
    const move = moves.get(event.key);
    if (!move) return;
    event.preventDefault();
    event.stopPropagation(); // Escape leaves nothing else
    move();
  });
  addEventListener("resize", place);
  addEventListener("scroll", place, { capture: true, passive: true });
  try {
    const seen = localStorage.getItem(DONE_KEY) !== null;
    for (const offer of offers) if (!offer.closest("dialog")) offer.hidden = seen;
  } catch {
    // Without storage it is offered.
  }
}

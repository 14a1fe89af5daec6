// The two panes of a phone, of which one is in view: a swipe, the tabs and the arrow keys lead to the other.

/** @import { PaneName } from "./types" */

import { find, findAs } from "../src/dom.js";
import { PANES } from "./turn_data.js";

const LONGEST_MS = 1000; // of a scroll to the other pane

/**
 * @param {HTMLElement} root
 * @param {() => void} turned another pane is in view
 */
export function makePager(root, turned) {
  const panes = find(root, ".panes");
  const box = { a: find(root, "#pane-a"), b: find(root, "#pane-b") };
  const tab = {
    a: findAs(root, "#tab-a", HTMLButtonElement),
    b: findAs(root, "#tab-b", HTMLButtonElement),
  };
  /** @type {PaneName} */
  let inView = "a";
  let moving = 0; // the timer of a scroll to a pane that was asked for; its way there selects nothing

  /** @param {PaneName} pane */
  function select(pane) {
    inView = pane;
    for (const one of PANES) {
      tab[one].setAttribute("aria-selected", String(one === pane));
      tab[one].tabIndex = one === pane ? 0 : -1;
    }
    turned();
  }

  const paneAt = () => (panes.scrollLeft > panes.clientWidth / 2 ? "b" : "a");

  function arrived() {
    clearTimeout(moving);
    moving = 0;
    if (paneAt() !== inView) select(paneAt());
  }

  /** @param {PaneName} pane */
  function look(pane) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    clearTimeout(moving);
    moving = window.setTimeout(arrived, LONGEST_MS);
    panes.scrollTo({ left: pane === "a" ? 0 : panes.scrollWidth, behavior: still ? "instant" : "smooth" });
    select(pane);
  }

  panes.addEventListener("scroll", () => {
    if (moving) {
      const there = inView === "a" ? 0 : panes.scrollWidth - panes.clientWidth;
      if (Math.abs(panes.scrollLeft - there) < 2) arrived();
    } else if (paneAt() !== inView) select(paneAt());
  });
  panes.addEventListener("scrollend", () => moving && arrived());
  // A finger takes over.
  panes.addEventListener(
    "touchstart",
    () => {
      clearTimeout(moving);
      moving = 0;
    },
    { passive: true },
  );
  for (const pane of PANES) {
    tab[pane].addEventListener("click", () => look(pane));
    tab[pane].addEventListener("keydown", ({ key }) => {
      if (key !== "ArrowLeft" && key !== "ArrowRight") return;
      const next = pane === "a" ? "b" : "a";
      look(next);
      tab[next].focus();
    });
  }
  return { box, tab, inView: () => inView };
}

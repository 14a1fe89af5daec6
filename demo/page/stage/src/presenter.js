// What a speaker needs besides the presentation mode: text of any size, and a veil over new replies, so that the
// audience can predict first.

import { find, findAs, makeButton } from "./dom.js";

/** Shares of the usual size. */
export const TEXT_SIZES = [0.85, 1, 1.15, 1.3, 1.5, 1.75];
const SIZE_KEY = "persona-drift:text-size";
const WRITING =
  "Both replies are being written. Predict: what will each say, and which line will lie higher?";
const READY = "Both replies are ready. Predict: what does each say, and which line lies higher?";

/**
 * The next text size.
 * @param {number} size the one in use
 * @param {number} step 1 for larger, -1 for smaller
 */
export function nextSize(size, step) {
  const nearest = TEXT_SIZES.reduce((best, one) =>
    Math.abs(one - size) < Math.abs(best - size) ? one : best,
  );
  return TEXT_SIZES[TEXT_SIZES.indexOf(nearest) + step] ?? nearest;
}

/**
 * @param {HTMLElement} root
 * @param {() => void} resized
 */
export function makeTextSize(root, resized) {
  const html = document.documentElement;

  /** @param {number} size a share of the usual size */
  function apply(size) {
    html.style.fontSize = `${size * 100}%`;
  }

  /** @param {number} step */
  function change(step) {
    // Browsers' usual size is 16 pixels; the presentation mode enlarges it unless a size was chosen.
    const size = nextSize(Number.parseFloat(getComputedStyle(html).fontSize) / 16, step);
    apply(size);
    try {
      localStorage.setItem(SIZE_KEY, String(size));
    } catch {
      // Without storage the choice ends with the page.
    }
    dispatchEvent(new Event("resize"));
    resized();
  }

  try {
    const stored = Number(localStorage.getItem(SIZE_KEY));
    if (TEXT_SIZES.includes(stored)) apply(stored);
  } catch {
    // Without storage nothing was chosen.
  }
  const [larger, smaller] = [() => change(1), () => change(-1)];
  find(root, "dialog .larger").addEventListener("click", larger);
  find(root, "dialog .smaller").addEventListener("click", smaller);
  return { larger, smaller };
}

/**
 * @param {HTMLElement} root
 * @param {() => void} lifted the veil was there, and is no longer
 */
export function makeVeil(root, lifted) {
  const veil = find(root, ".veil");
  const words = find(veil, "p");
  const switchButton = findAs(root, ".predict-button", HTMLButtonElement);
  const showButton = makeButton("show-replies", "Show both replies (v)");
  let on = false;
  veil.append(showButton);

  /** @param {boolean} veiled */
  function setVeiled(veiled) {
    const [was, had] = [!veil.hidden, veil.contains(document.activeElement)];
    root.classList.toggle("veiled", veiled);
    veil.hidden = !veiled;
    // Charts that were hidden have no size.
    if (!veiled) dispatchEvent(new Event("resize"));
    if (had) find(root, ".log").focus();
    if (was && !veiled) lifted();
  }

  /** @param {boolean} value */
  function setOn(value) {
    on = value;
    switchButton.setAttribute("aria-pressed", String(on));
  }

  function toggle() {
    if (root.classList.contains("veiled")) setVeiled(false);
    else setOn(!on);
  }

  switchButton.addEventListener("click", () => {
    setOn(!on);
    if (!on) setVeiled(false);
  });
  showButton.addEventListener("click", () => setVeiled(false));
  setOn(false);
  return {
    toggle,
    get shown() {
      return !veil.hidden;
    },
    lift: () => setVeiled(false),
    /** A turn begins. */
    turnBegins() {
      if (!on) return;
      words.textContent = WRITING;
      setVeiled(true);
    },
    /** All its replies have ended. */
    turnEnds() {
      words.textContent = READY;
    },
  };
}

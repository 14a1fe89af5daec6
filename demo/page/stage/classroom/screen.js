// The part of the screen that a keyboard leaves, which on iPhones only the visual viewport tells.

const SHORT_PX = 480; // a phone with its keyboard

/**
 * @param {HTMLElement} root
 * @param {() => void} changed
 */
export function watchScreen(root, changed) {
  const screen = window.visualViewport;

  function fit() {
    const height = screen?.height ?? innerHeight;
    // A page that is zoomed in with two fingers keeps its layout.
    if (screen && Math.abs(screen.scale - 1) > 0.01) return;
    root.style.setProperty("--view-height", `${height}px`);
    root.style.setProperty("--view-top", `${screen?.offsetTop ?? 0}px`);
    root.classList.toggle("short", height < SHORT_PX);
    changed();
  }

  screen?.addEventListener("resize", fit);
  screen?.addEventListener("scroll", fit);
  addEventListener("resize", fit);
  fit();
}

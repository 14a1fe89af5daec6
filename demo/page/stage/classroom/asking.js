// Buttons that drop something ask once more.

const WAIT_MS = 4000;

/**
 * A second press within a few seconds does what cannot be taken back.
 * @param {HTMLButtonElement} button
 * @param {() => string} question empty where nothing would be lost, so that the first press does it
 * @param {() => void} act
 */
export function askTwice(button, question, act) {
  let words = "";
  let timer = 0;

  function stop() {
    clearTimeout(timer);
    timer = 0;
    button.textContent = words;
    button.classList.remove("asks");
  }

  button.addEventListener("click", () => {
    const asked = question();
    if (timer || !asked) {
      if (timer) stop();
      act();
      return;
    }
    words = button.textContent ?? "";
    button.textContent = asked;
    button.classList.add("asks");
    timer = window.setTimeout(stop, WAIT_MS);
  });
}

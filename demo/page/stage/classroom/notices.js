// The one line at the top of a page of the class that says what the page has to say.

/** @typedef {"lost" | "fault" | "news" | "room"} Kind the earlier stands before the later */

/** @type {readonly Kind[]} */
const ORDER = ["lost", "fault", "news", "room"];

/**
 * Each kind of notice stays until it is taken back, so that none wipes out another.
 * @param {HTMLElement} line a live region, which stays in the page while it is empty
 * @param {() => string} [otherwise] what stands there while there is no notice
 */
export function makeNotices(line, otherwise = () => "") {
  /** @type {Record<Kind, string>} */
  const said = { lost: "", fault: "", news: "", room: "" };

  function show() {
    const kind = ORDER.find((one) => said[one]);
    const text = kind ? said[kind] : otherwise();
    // The same words once more would be read out once more.
    if (line.textContent !== text) line.textContent = text;
    line.classList.toggle("error", Boolean(kind) && kind !== "news");
  }

  return {
    show,
    /**
     * @param {Kind} kind
     * @param {string} text empty to take it back
     */
    say(kind, text) {
      said[kind] = text;
      show();
    },
  };
}

// What a pane keeps in sight: the end of a reply that is being written, a whole turn, or the place to which the
// user has scrolled.

/**
 * "newest": the newest turn, or its beginning where it is longer than the pane. A number: that turn. Null: the
 * user's own place.
 * @typedef {"end" | "newest" | number | null} Goal
 */

/** @typedef {ReturnType<typeof makeScrolling>} Scrolling */

const NEAR_PX = 12; // a log this close to its end counts as at its end
const MOVED_PX = 4; // a smaller change of the position is rounding
const GAP_PX = 8; // above a turn that begins at the pane's upper edge

/**
 * The scroll position that shows a turn. The last turn is shown with the end of the log if both fit.
 * @param {number} top of the turn, from the beginning of the log
 * @param {number} full height of the log's content
 * @param {number} view height of the log
 * @param {boolean} last
 */
export function positionFor(top, full, view, last) {
  return last && full - top + GAP_PX <= view ? full - view : top - GAP_PX;
}

/** @param {HTMLElement} log */
export function makeScrolling(log) {
  /** @type {Goal} */
  let goal = "newest";
  // As the log was when it was last looked at.
  let seen = { top: 0, full: 0, view: 0 };

  const look = () => ({ top: log.scrollTop, full: log.scrollHeight, view: log.clientHeight });
  const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_PX;

  // Only a position that changes by itself was changed by the user. Where a size has changed as well, the
  // browser may have moved the text. A way up leaves the end, however short it is so far.
  function noticeUser() {
    const now = look();
    if (now.full !== seen.full || now.view !== seen.view || Math.abs(now.top - seen.top) < MOVED_PX) return;
    goal = now.top > seen.top && atEnd() ? "end" : null;
    seen = now;
  }

  // The browser scrolls over several frames. Text that arrives between them must not take the pane back to its
  // end before the first of them.
  function leaveEnd() {
    if (log.scrollTop > 0) goal = null;
  }

  let finger = 0; // where it was, from the upper edge of the window
  /** @param {TouchEvent} event */
  function followFinger({ touches }) {
    const now = touches[0]?.clientY ?? finger;
    if (now > finger) leaveEnd();
    finger = now;
  }

  /** @returns {number | null} */
  function wanted() {
    if (goal === null) return null;
    const turns = log.querySelectorAll(".turn");
    const last = turns[turns.length - 1];
    const turn = typeof goal === "number" ? log.querySelector(`.turn[data-turn="${goal}"]`) : last;
    if (goal === "end" || !turn) return log.scrollHeight;
    // The system prompt stands over the first turn.
    const above = turn.getBoundingClientRect().top - log.getBoundingClientRect().top + log.scrollTop;
    const top = turn === turns[0] ? 0 : above;
    return positionFor(top, log.scrollHeight, log.clientHeight, turn === last);
  }

  function keep() {
    const position = wanted();
    if (position !== null) log.scrollTop = position;
    seen = look();
  }

  /** @param {Goal} next */
  function show(next) {
    goal = next;
    keep();
  }

  // A turn changes its size without new text: with the type size, the display mode or an opened reasoning.
  const sizes = new ResizeObserver(keep);
  sizes.observe(log);
  log.addEventListener("scroll", noticeUser, { passive: true });
  log.addEventListener("wheel", (event) => event.deltaY < 0 && leaveEnd(), { passive: true });
  log.addEventListener("touchstart", ({ touches }) => (finger = touches[0]?.clientY ?? 0), { passive: true });
  log.addEventListener("touchmove", followFinger, { passive: true });

  return {
    noticeUser,
    keep,
    show,
    following: () => goal !== null,
    growing: () => goal === "newest" && show("end"),
    watch: (/** @type {Element} */ turn) => sizes.observe(turn),
  };
}

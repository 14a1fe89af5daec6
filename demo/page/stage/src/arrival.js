// The order in which a page opens: the conversations of its tab come back first, then the session that the
// address names, and then the link is followed into it. Uses no DOM.

/** @typedef {"first" | "restoring" | "asked" | "there" | "done"} Step */

export class Arrival {
  /** @type {Step} */
  #step = "first";

  /**
   * @param {object} hooks
   * @param {string | null} hooks.name of the session that the address names
   * @param {(name: string) => boolean} hooks.ask for that session; false where nobody can be asked
   * @param {() => void} hooks.follow the link
   */
  constructor(hooks) {
    this.hooks = hooks;
  }

  /** The session that the address names is on its way. */
  get waits() {
    return this.#step === "asked";
  }

  /**
   * A conversation is shown.
   * @param {number} turns how many it has
   * @param {boolean} restoring whether the tab's conversations have been asked for
   */
  shown(turns, restoring) {
    if (this.#step === "first" && restoring) this.#step = "restoring";
    else if (this.#step === "first") this.#askForSession();
    else if (this.#step === "asked" && turns) this.#step = "there";
  }

  /** The tab's conversations are back. */
  restored() {
    if (this.#step === "restoring") this.#askForSession();
  }

  /** What was asked for is refused; a notice says why. */
  refused() {
    if (this.#step === "restoring") this.#askForSession();
    else if (this.#step === "asked") this.#step = "done";
  }

  /** An update has been applied as a whole. */
  updated() {
    if (this.#step !== "there") return;
    this.#step = "done";
    this.hooks.follow();
  }

  #askForSession() {
    const { name, ask } = this.hooks;
    this.#step = name !== null && ask(name) ? "asked" : "there";
  }
}

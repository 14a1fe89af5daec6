// The data of the conversation that the stage shows. Uses neither the DOM nor Plotly.

/**
 * @import { Branch, ByBranch, ChartMeta, Figures, Meta, Operations, Reply, ReplySummary } from "./types"
 * @import { Turn, TurnData, VisibleToken } from "./types"
 */

import { isLeftAlone } from "./summary.js";
import { nameAxis } from "./text.js";
import { capIsOff, settingsIn, thresholdIn, withMarks } from "./turn_settings.js";
import { addToken, BRANCHES, finishReply, hasReasoning, turnIsLive } from "./turns.js";

/** The conversation that is shown, and which of its turns the charts show. */
export class Conversation {
  /** @type {{ base: Figures | undefined; key: string; figures: Figures | undefined } | null} */
  #marked = null;

  /** @type {Meta} */
  #meta = {};

  constructor() {
    /** @type {Turn[]} */
    this.turns = [];
    /**
     * The turns as a recording holds them, for its replay.
     * @type {TurnData[]}
     */
    this.recorded = [];
    /**
     * The turn that the charts show.
     * @type {number | null}
     */
    this.shown = null;
    /** The user has selected an earlier turn, which stays shown when a new one begins. */
    this.pinned = false;
    /** The name under which the server knows the conversation. */
    this.id = "";
    /** The number of this conversation in a session file of its tree of forks; 0 for the first. */
    this.fork = 0;
    /** The system prompt of the next turn. */
    this.nextPrompt = "";
    /**
     * The next turn's system prompts of single branches, where they are not that one.
     * @type {Partial<ByBranch<string>>}
     */
    this.panePrompts = {};
  }

  /**
   * The system prompt with which a branch answered a turn; undefined where that is not known.
   * @param {number} index
   * @param {Branch} branch
   */
  #promptOf(index, branch) {
    const settings = this.turns.at(index)?.settings;
    return settings ? settingsIn(settings, branch).system_prompt : undefined;
  }

  /**
   * The system prompt that a branch began with, and the next message's, if that is another one. What can only be
   * watched has no next message. `own`: the branch has one for itself.
   * @param {Branch} branch
   * @returns {{ first: string; next: string | null; own: boolean }}
   */
  promptsIn(branch) {
    const own = this.panePrompts[branch] ?? null;
    const coming = own ?? this.nextPrompt;
    const first = this.#promptOf(0, branch) ?? coming;
    const last = this.#promptOf(-1, branch);
    const changed = last !== undefined && last.trim() !== coming.trim();
    return { first, next: changed && !this.meta.watch_only ? coming : null, own: own !== null };
  }

  /**
   * The system prompt of a turn, if it is another than that of the turn before; otherwise null.
   * @param {number} index
   * @param {Branch} branch
   */
  promptChange(index, branch) {
    const before = index > 0 ? this.#promptOf(index - 1, branch) : undefined;
    const own = this.#promptOf(index, branch);
    if (before === undefined || own === undefined || before.trim() === own.trim()) return null;
    return own;
  }

  get last() {
    return this.turns.length - 1;
  }

  /** An earlier turn than the last is shown. */
  get showsEarlier() {
    return this.shown !== null && this.shown !== this.last;
  }

  /** @returns {ByBranch<Reply> | undefined} */
  get shownReplies() {
    return this.shown === null ? undefined : this.turns[this.shown]?.replies;
  }

  /** @returns {Meta} */
  get meta() {
    return this.#meta;
  }

  set meta(meta) {
    this.#meta = meta;
    nameAxis(meta.figures?.token?.layout?.meta?.assistant !== false);
  }

  /**
   * What the charts' reference lines show for a turn. Without settings of its own, and for no turn, it is
   * what the server last said of the conversation.
   * @param {number | null} index
   * @returns {ChartMeta}
   */
  metaOf(index) {
    const marks = index === null ? undefined : this.turns[index]?.marks;
    return { ...this.meta.figures?.token?.layout?.meta, ...marks?.meta };
  }

  /** @returns {ChartMeta} */
  get chartMeta() {
    return this.metaOf(this.shown);
  }

  get capIsOff() {
    const also = this.shown === null ? undefined : this.turns[this.shown]?.settings?.also;
    return capIsOff(this.chartMeta) && !also;
  }

  /**
   * The charts' figures with the reference lines of the turn that is shown: without the floor of a cap that
   * leaves its reply alone. They are the same object as before while nothing about them has changed, because
   * charts are redrawn for another one.
   * @returns {Figures | undefined}
   */
  get figures() {
    const { figures } = this.meta;
    const turn = this.shown === null ? undefined : this.turns[this.shown];
    const marks = turn?.marks ?? null;
    const alone = turn ? isLeftAlone(turn.replies.capped, thresholdIn(turn.settings, "capped")) : false;
    const key = JSON.stringify([marks, alone]);
    if (this.#marked?.base !== figures || this.#marked?.key !== key) {
      this.#marked = { base: figures, key, figures: figures && withMarks(figures, marks, alone) };
    }
    return this.#marked?.figures;
  }

  /** A reply is being written. */
  get busy() {
    return this.turns.some(turnIsLive);
  }

  /**
   * Whether a branch has answered in any turn. Two always do before the first.
   * @param {Branch} branch
   */
  has(branch) {
    if (!this.turns.length) return branch !== "steered";
    return this.turns.some((turn) => !turn.replies[branch].absent);
  }

  get hasSeeds() {
    return this.turns.some((turn) => BRANCHES.some((branch) => turn.replies[branch].samples.length > 0));
  }

  get hasReasoning() {
    return this.turns.some((turn) => BRANCHES.some((branch) => hasReasoning(turn.replies[branch])));
  }

  /** How many replies the last turn has, if any reply is being written. */
  get liveReplies() {
    const last = this.turns.at(-1);
    return this.busy && last ? BRANCHES.filter((branch) => !last.replies[branch].absent).length : 0;
  }

  /**
   * @param {number} index
   * @param {Branch} branch
   * @returns {Reply | undefined}
   */
  reply(index, branch) {
    return this.turns[index]?.replies[branch];
  }

  /**
   * The first branch that answers in a turn.
   * @param {Turn} turn
   */
  static firstBranch(turn) {
    return BRANCHES.find((branch) => !turn.replies[branch].absent);
  }

  /**
   * The branches that answer in a turn that the server has sent.
   * @param {TurnData} data
   */
  static answering(data) {
    return BRANCHES.filter((branch) => data.branches?.[branch]);
  }

  /** @param {Turn[]} turns */
  replace(turns) {
    this.turns = turns;
    this.shown = null;
    this.pinned = false;
  }

  /**
   * Removes all turns from `first` on. The array stays the same, because the charts hold it.
   * @param {number} first
   */
  removeFrom(first) {
    this.turns.length = first;
    this.pinned = false;
    if (!first) this.shown = null;
  }

  /**
   * Adds a turn or replaces it.
   * @param {number} index
   * @param {Turn} turn
   * @returns {number | null} the turn to show now; null while the user looks at another one
   */
  put(index, turn) {
    this.turns[index] = turn;
    if (this.pinned && index !== this.shown) return null;
    return this.pinned ? index : this.last;
  }

  /**
   * Pins a turn that is not the last. False if there is no such turn.
   * @param {number} index
   */
  pin(index) {
    if (!this.turns[index]) return false;
    this.pinned = index !== this.last;
    return true;
  }

  /**
   * Adds tokens to a reply that is being written.
   * @param {Operations["tokens"]} fields
   * @returns {VisibleToken[] | null} those that are shown and were not there; null if no reply is being
   *   written there
   */
  addTokens({ turn, branch, at, tokens, place }) {
    const reply = this.reply(turn, branch);
    if (!reply || reply.finish !== null) return null;
    const fresh = tokens.slice(Math.max(0, reply.received - at)); // a reset may have brought some already
    const visible = fresh.map((token) => addToken(reply, token)).filter((token) => token !== null);
    reply.place = place ?? reply.place;
    return visible;
  }

  /**
   * Ends a reply. Returns it; null if there is none.
   * @param {{ turn: number; branch: Branch } & ReplySummary} fields
   * @returns {Reply | null}
   */
  finish(fields) {
    const reply = this.reply(fields.turn, fields.branch);
    if (!reply) return null;
    finishReply(reply, fields);
    return reply;
  }
}

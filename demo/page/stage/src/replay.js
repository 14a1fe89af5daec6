// Replaying a recorded session: its tokens appear as they were generated, faster or slower.

/** @import { Branch, ReplyData, Token, TurnData } from "./types" */

import { find, findAs } from "./dom.js";

export const REPLAY_PAUSE_MS = 900; // between two turns
export const REPLAY_STEP_MS = 40; // per token, for a recording without times
// The longest wait for a turn's first token. A recorded wait for the prompt, or for other visitors, shows
// nothing.
export const REPLAY_WAIT_MS = 500;
// Going back within this time after a turn began leads to the turn before.
export const REPLAY_BACK_MS = 1500;
const OPTION_LENGTH = 30; // characters of a message in the list of turns

/**
 * @typedef {object} PlaybackHooks
 * @property {(turn: number) => void} goTo shows the turns before this one, and none from it on
 * @property {(turn: number, data: TurnData) => void} startTurn
 * @property {(turn: number, branch: Branch, token: Token) => void} addToken
 * @property {(turn: number, data: TurnData) => void} endTurn
 */

/** @typedef {PlaybackHooks & { showAll: () => void }} ReplayHooks */

/**
 * The tokens of all branches of a turn, in the order in which they were generated, from the turn's beginning.
 * Without times, all branches advance together.
 * @param {TurnData} data
 */
export function timeline(data) {
  const branches = /** @type {[Branch, ReplyData][]} */ (Object.entries(data.branches ?? {}));
  const all = branches.flatMap(([branch, reply]) =>
    (reply.tokens ?? []).map((token, n) => ({ branch, token, at: token.m ?? n * REPLAY_STEP_MS })),
  );
  all.sort((a, b) => a.at - b.at);
  const skipped = Math.max(0, (all[0]?.at ?? 0) - REPLAY_WAIT_MS);
  return all.map((one) => ({ ...one, at: one.at - skipped }));
}

/** How far the replay of a recording has come. Knows nothing of the page and its clock. */
export class Playback {
  /**
   * @param {TurnData[]} turns
   * @param {PlaybackHooks} hooks
   */
  constructor(turns, hooks) {
    this.turns = turns;
    this.hooks = hooks;
    /** By turn: how many tokens come before it. */
    this.before = [0];
    for (const [n, turn] of turns.entries()) this.before.push((this.before[n] ?? 0) + timeline(turn).length);
    /** At least 1, for a progress bar. */
    this.total = Math.max(1, this.before.at(-1) ?? 0);
    /** The tokens that were played, of all turns. */
    this.played = this.total;
    this.turn = Math.max(0, turns.length - 1);
    /** The next token of the turn. */
    this.next = 0;
    /** Milliseconds since the turn began, at the speed of the recording. */
    this.clock = 0;
    this.turnEnded = false;
    /** @type {ReturnType<typeof timeline>} */
    this.tokens = [];
  }

  get ended() {
    return this.played >= this.total;
  }

  end() {
    this.played = this.total;
    this.turn = Math.max(0, this.turns.length - 1);
  }

  /**
   * Goes on from the beginning of a turn.
   * @param {number} turn
   */
  jump(turn) {
    if (!this.turns[turn]) return;
    this.hooks.goTo(turn);
    this.startTurn(turn);
  }

  /** The turn to which going back leads: the beginning of this one, or the one before. */
  get previous() {
    const begun = this.ended || this.clock > REPLAY_BACK_MS;
    return Math.max(0, this.turn - (begun ? 0 : 1));
  }

  /** @param {number} turn */
  startTurn(turn) {
    const data = this.turns[turn];
    if (!data) return;
    this.tokens = timeline(data);
    this.played = this.before[turn] ?? 0;
    Object.assign(this, { turn, next: 0, clock: 0, turnEnded: false });
    this.hooks.startTurn(turn, data);
  }

  /**
   * Plays what has come due. False when the recording is over.
   * @param {number} milliseconds since the last call, at the speed of the recording
   */
  advance(milliseconds) {
    this.clock += milliseconds;
    for (let due = this.tokens[this.next]; due && due.at <= this.clock; due = this.tokens[this.next]) {
      this.next += 1;
      this.hooks.addToken(this.turn, due.branch, due.token);
      this.played += 1;
    }
    return this.next < this.tokens.length || this.endTurn();
  }

  /** Called again and again after a turn's last token, until the pause before the next turn is over. */
  endTurn() {
    const data = this.turns[this.turn];
    const hasJustEnded = !this.turnEnded;
    if (hasJustEnded && data) this.hooks.endTurn(this.turn, data);
    this.turnEnded = true;
    if (this.turn + 1 >= this.turns.length) {
      this.end();
      return false;
    }
    // Not in the same call, even where it comes late: the hook may have stopped the replay.
    if (hasJustEnded) return true;
    if (this.clock > (this.tokens.at(-1)?.at ?? 0) + REPLAY_PAUSE_MS) this.startTurn(this.turn + 1);
    return true;
  }
}

/**
 * A turn in the list of turns.
 * @param {{ user: string }} turn
 * @param {number} index
 */
export function turnName({ user }, index) {
  const text = user.replace(/\s+/g, " ").trim();
  const short = text.length > OPTION_LENGTH ? `${text.slice(0, OPTION_LENGTH)}…` : text;
  return `turn ${index + 1}: ${short}`;
}

/**
 * @param {HTMLElement} root
 * @param {ReplayHooks} hooks
 */
export function makeReplay(root, hooks) {
  const controls = find(root, ".replay");
  const playButton = find(controls, ".play");
  const speed = findAs(controls, ".speed", HTMLSelectElement);
  const turnList = findAs(controls, ".jump", HTMLSelectElement);
  const back = findAs(controls, ".previous-turn", HTMLButtonElement);
  const forward = findAs(controls, ".next-turn", HTMLButtonElement);
  const progress = findAs(controls, "progress", HTMLProgressElement);
  let playback = new Playback([], hooks);
  let playing = false;
  let held = false; // until somebody has looked at the turn that has ended
  let last = 0;
  let frame = 0;

  function updateControls() {
    const paused = playback.played > 0 && !playback.ended;
    playButton.textContent = playing ? "Pause" : paused ? "Resume" : "Replay";
    progress.value = playback.played;
    turnList.value = String(playback.turn);
    forward.disabled = playback.turn + 1 >= playback.turns.length;
  }

  /** @param {TurnData[]} turns none: there is no recording */
  function load(turns) {
    stop();
    playback = new Playback(turns, hooks);
    controls.hidden = turns.length === 0;
    progress.max = playback.total;
    turnList.replaceChildren(...turns.map((turn, n) => new Option(turnName(turn, n), String(n))));
    updateControls();
  }

  function stop() {
    playing = held = false;
    cancelAnimationFrame(frame);
  }

  /** @param {number} now */
  function step(now) {
    const more = playback.advance((now - last) * Number(speed.value));
    last = now;
    if (!more) stop();
    updateControls();
    if (playing) frame = requestAnimationFrame(step);
  }

  function play() {
    if (!playing) {
      last = performance.now();
      frame = requestAnimationFrame(step);
    }
    playing = true;
    updateControls();
  }

  function toggle() {
    if (!playback.turns.length) return;
    if (!playing) {
      if (playback.ended) playback.jump(0);
      play();
      return;
    }
    stop();
    updateControls();
  }

  /** Waits before the next turn, if it plays. */
  function hold() {
    if (!playing || playback.turn + 1 >= playback.turns.length) return;
    stop();
    held = true;
    updateControls();
  }

  /** Goes on if it was held. */
  function goOn() {
    if (held) play();
    held = false;
  }

  /** @param {number} turn */
  function playFrom(turn) {
    playback.jump(turn);
    play();
  }

  function showAll() {
    stop();
    playback.end();
    hooks.showAll();
    updateControls();
  }

  playButton.addEventListener("click", toggle);
  back.addEventListener("click", () => playFrom(playback.previous));
  forward.addEventListener("click", () => playFrom(playback.turn + 1));
  turnList.addEventListener("change", () => playFrom(Number(turnList.value)));
  find(controls, ".all").addEventListener("click", showAll);
  return { load, toggle, hold, goOn };
}

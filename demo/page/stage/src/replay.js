// Replaying a recorded session: its tokens appear as they were generated, faster or slower.

/** @import { Branch, ReplyData, Token, TurnData } from "./types" */

import { find, findAs } from "./dom.js";

export const REPLAY_PAUSE_MS = 900; // between two turns
export const REPLAY_STEP_MS = 40; // per token, for a recording without times

/**
 * @typedef {object} PlaybackHooks
 * @property {(turn: number, data: TurnData) => void} startTurn
 * @property {(turn: number, branch: Branch, token: Token) => void} addToken
 * @property {(turn: number, data: TurnData) => void} endTurn
 */

/** @typedef {PlaybackHooks & { begin: () => void; showAll: () => void }} ReplayHooks */

/**
 * The tokens of all branches of a turn, in the order in which they were generated. Without times, all
 * branches advance together.
 * @param {TurnData} data
 */
export function timeline(data) {
  const branches = /** @type {[Branch, ReplyData][]} */ (Object.entries(data.branches ?? {}));
  const all = branches.flatMap(([branch, reply]) =>
    (reply.tokens ?? []).map((token, n) => ({ branch, token, at: token.m ?? n * REPLAY_STEP_MS })),
  );
  return all.sort((a, b) => a.at - b.at);
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
    const tokens = turns.reduce((sum, turn) => sum + timeline(turn).length, 0);
    /** At least 1, for a progress bar. */
    this.total = Math.max(1, tokens);
    /** The tokens that were played, of all turns. */
    this.played = this.total;
    this.turn = 0;
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

  start() {
    this.played = 0;
    this.startTurn(0);
  }

  end() {
    this.played = this.total;
  }

  /** @param {number} turn */
  startTurn(turn) {
    const data = this.turns[turn];
    if (!data) return;
    this.tokens = timeline(data);
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
    if (!this.turnEnded && data) this.hooks.endTurn(this.turn, data);
    this.turnEnded = true;
    if (this.turn + 1 >= this.turns.length) {
      this.end();
      return false;
    }
    if (this.clock > (this.tokens.at(-1)?.at ?? 0) + REPLAY_PAUSE_MS) this.startTurn(this.turn + 1);
    return true;
  }
}

/**
 * @param {HTMLElement} root
 * @param {ReplayHooks} hooks
 */
export function makeReplay(root, hooks) {
  const controls = find(root, ".replay");
  const playButton = find(controls, ".play");
  const speed = findAs(controls, "select", HTMLSelectElement);
  const progress = findAs(controls, "progress", HTMLProgressElement);
  let playback = new Playback([], hooks);
  let playing = false;
  let last = 0;
  let frame = 0;

  function updateControls() {
    const paused = playback.played > 0 && !playback.ended;
    playButton.textContent = playing ? "Pause" : paused ? "Resume" : "Replay";
    progress.value = playback.played;
  }

  /** @param {TurnData[]} turns none: there is no recording */
  function load(turns) {
    stop();
    playback = new Playback(turns, hooks);
    controls.hidden = turns.length === 0;
    progress.max = playback.total;
    updateControls();
  }

  function stop() {
    playing = false;
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

  function toggle() {
    if (!playback.turns.length) return;
    if (playing) stop();
    else {
      if (playback.ended) {
        hooks.begin();
        playback.start();
      }
      playing = true;
      last = performance.now();
      frame = requestAnimationFrame(step);
    }
    updateControls();
  }

  function showAll() {
    stop();
    playback.end();
    hooks.showAll();
    updateControls();
  }

  playButton.addEventListener("click", toggle);
  find(controls, ".all").addEventListener("click", showAll);
  return { load, toggle };
}

// Replaying a recorded session: its tokens appear as they were generated, faster or slower.

const REPLAY_PAUSE_MS = 900; // between two turns
const REPLAY_STEP_MS = 40; // per token, for a recording without times

// The tokens of all branches of a turn, in the order in which they were generated. Without times, all branches advance
// together.
function timeline(data) {
  const all = Object.entries(data.branches ?? {}).flatMap(([branch, reply]) =>
    (reply.tokens ?? []).map((token, n) => ({ branch, token, at: token.m ?? n * REPLAY_STEP_MS })));
  return all.sort((a, b) => a.at - b.at);
}

// hooks: begin(), startTurn(turn, data), addToken(turn, branch, token), endTurn(turn, data), showAll()
function makeReplay(root, hooks) {
  const controls = root.querySelector(".replay");
  const playButton = controls.querySelector(".play");
  const speed = controls.querySelector("select");
  const progress = controls.querySelector("progress");
  const state = { turns: [], turn: 0, next: 0, clock: 0, last: 0, playing: false, turnEnded: false };
  let frame = null;
  let tokens = []; // the current turn's timeline
  let played = 0; // tokens of all turns

  const total = () => state.turns.reduce((sum, turn) => sum + timeline(turn).length, 0);

  function updateControls() {
    const paused = played && played < progress.max;
    playButton.textContent = state.playing ? "Pause" : paused ? "Resume" : "Replay";
    progress.value = played;
  }

  function load(turns) {
    stop();
    state.turns = turns;
    controls.hidden = turns.length === 0;
    progress.max = Math.max(1, total());
    played = progress.max;
    updateControls();
  }

  function stop() {
    state.playing = false;
    cancelAnimationFrame(frame);
  }

  function startTurn(turn) {
    tokens = timeline(state.turns[turn]);
    Object.assign(state, { turn, next: 0, clock: 0, turnEnded: false });
    hooks.startTurn(turn, state.turns[turn]);
  }

  function step(now) {
    state.clock += (now - state.last) * Number(speed.value);
    state.last = now;
    while (state.next < tokens.length && tokens[state.next].at <= state.clock) {
      const { branch, token } = tokens[state.next++];
      hooks.addToken(state.turn, branch, token);
      played += 1;
    }
    if (state.next >= tokens.length) endTurn();
    updateControls();
    if (state.playing) frame = requestAnimationFrame(step);
  }

  // Called at every frame after a turn's last token, until the pause before the next turn is over.
  function endTurn() {
    const end = tokens.length ? tokens[tokens.length - 1].at : 0;
    if (!state.turnEnded) hooks.endTurn(state.turn, state.turns[state.turn]);
    state.turnEnded = true;
    if (state.turn + 1 >= state.turns.length) {
      stop();
      played = progress.max;
    } else if (state.clock > end + REPLAY_PAUSE_MS) startTurn(state.turn + 1);
  }

  function toggle() {
    if (state.playing) stop();
    else {
      if (played >= progress.max) {
        played = 0;
        hooks.begin();
        startTurn(0);
      }
      state.playing = true;
      state.last = performance.now();
      frame = requestAnimationFrame(step);
    }
    updateControls();
  }

  function showAll() {
    stop();
    played = progress.max;
    hooks.showAll();
    updateControls();
  }

  playButton.addEventListener("click", toggle);
  controls.querySelector(".all").addEventListener("click", showAll);
  return { load, toggle };
}

// Playing a recorded session again: the tokens come as they came, faster or slower.

const REPLAY_PAUSE_MS = 900; // between two turns

// A turn's tokens of all branches in the order in which they came; without times, one step of all branches at a time.
function timeline(data) {
  const all = Object.entries(data.branches ?? {}).flatMap(([branch, reply]) =>
    (reply.tokens ?? []).map((token, n) => ({ branch, token, at: token.m ?? n * 40 })));
  return all.sort((a, b) => a.at - b.at);
}

// hooks: begin(), start(turn, data), token(turn, branch, token), end(turn, data), all()
function makeReplay(root, hooks) {
  const bar = root.querySelector(".replay");
  const play = bar.querySelector(".play");
  const speed = bar.querySelector("select");
  const progress = bar.querySelector("progress");
  const state = { turns: [], turn: 0, next: 0, clock: 0, last: 0, playing: false, ended: false };
  let frame = null;

  const total = () => state.turns.reduce((sum, turn) => sum + timeline(turn).length, 0);
  let line = [];
  let done = 0;

  function label() {
    play.textContent = state.playing ? "Pause" : done && done < progress.max ? "Go on" : "Replay";
    progress.value = done;
  }

  function load(turns) {
    stop();
    state.turns = turns;
    bar.hidden = turns.length === 0;
    progress.max = Math.max(1, total());
    done = progress.max;
    label();
  }

  function stop() {
    state.playing = false;
    cancelAnimationFrame(frame);
  }

  function open(turn) {
    line = timeline(state.turns[turn]);
    Object.assign(state, { turn, next: 0, clock: 0, ended: false });
    hooks.start(turn, state.turns[turn]);
  }

  function step(now) {
    state.clock += (now - state.last) * Number(speed.value);
    state.last = now;
    while (state.next < line.length && line[state.next].at <= state.clock) {
      const { branch, token } = line[state.next++];
      hooks.token(state.turn, branch, token);
      done += 1;
    }
    if (state.next >= line.length) finish();
    label();
    if (state.playing) frame = requestAnimationFrame(step);
  }

  function finish() {
    const end = line.length ? line[line.length - 1].at : 0;
    if (!state.ended) hooks.end(state.turn, state.turns[state.turn]);
    state.ended = true;
    if (state.turn + 1 >= state.turns.length) {
      stop();
      done = progress.max;
    } else if (state.clock > end + REPLAY_PAUSE_MS) open(state.turn + 1);
  }

  function toggle() {
    if (state.playing) stop();
    else {
      if (done >= progress.max) {
        done = 0;
        hooks.begin();
        open(0);
      }
      state.playing = true;
      state.last = performance.now();
      frame = requestAnimationFrame(step);
    }
    label();
  }

  function all() {
    stop();
    done = progress.max;
    hooks.all();
    label();
  }

  play.addEventListener("click", toggle);
  bar.querySelector(".all").addEventListener("click", all);
  return { load, stop, toggle, playing: () => state.playing };
}

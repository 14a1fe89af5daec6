// Applies the operations that the server sends to the data of the conversation, and has the view show them.

/** @import { Protocol } from "./protocol.js" */
/** @import { Handlers, Operation, Operations, SendRequest, StageValue, Turn } from "./types" */

import { Arrival } from "./arrival.js";
import { find } from "./dom.js";
import { makeIntro } from "./intro.js";
import { makeKeyboard } from "./keyboard.js";
import { sessionName } from "./links.js";
import { makeMirror } from "./mirror.js";
import { Conversation } from "./model.js";
import { bringPanesIntoSight, showEmpty, showNotice } from "./notices.js";
import { makePersistence } from "./persistence.js";
import { makeTextSize, makeVeil } from "./presenter.js";
import { checkProtocol, handlerOf } from "./protocol.js";
import { makeReplay } from "./replay.js";
import { watchPromptBox } from "./system_prompt.js";
import { counted } from "./text.js";
import { makeToolbar } from "./toolbar.js";
import { makeTour } from "./tour.js";
import { makeTree } from "./tree.js";
import { BRANCHES, fillReplies, newTurn, turnFromData, turnIsLive } from "./turns.js";
import { makeView } from "./view.js";

const HEAL_MS = 4000;

/**
 * @param {HTMLElement} root
 * @param {Protocol} protocol
 * @param {SendRequest} sendRequest
 */
export function makeStage(root, protocol, sendRequest) {
  let lastSeq = -1;
  let opened = false; // the first reset has arrived
  let repliesExpected = false; // the user has sent a message, and its turn has not begun
  let settled = 0; // the number of turns that have ended
  const conversation = new Conversation();
  const view = makeView(root, conversation, sendRequest);
  const veil = makeVeil(root, () => replay.goOn());
  const textSize = makeTextSize(root, () => {
    view.repaint(); // the charts have their own text
    view.showCurrentTurn();
  });
  const toolbar = makeToolbar(root, { sendRequest, busy: () => conversation.busy });
  const tree = makeTree(root, sendRequest, (id) => view.compare.begin(id));
  const persistence = makePersistence({ sendRequest, warn: (text) => showNotice(root, text) });
  const replay = makeReplay(root, {
    goTo: (turn) => {
      if (turn < conversation.turns.length) view.removeTurns(turn);
      // The turn that was playing is shown in full, and so are those that are passed over.
      for (let n = Math.max(0, conversation.last); n < turn; n += 1) {
        const data = conversation.recorded[n];
        if (data) view.putTurn(n, turnFromData(data));
      }
    },
    startTurn: (turn, data) => beginTurn({ ...data, turn, branches: Conversation.answering(data) }),
    addToken: (turn, branch, token) =>
      handlers.tokens({ turn, branch, at: Number.POSITIVE_INFINITY, tokens: [{ ...token }] }, false),
    endTurn: (turn, data) => {
      view.putTurn(turn, turnFromData(data));
      veil.turnEnds();
      if (veil.shown) replay.hold();
    },
    showAll: () => view.showTurns(conversation.recorded.map(turnFromData)),
  });
  const intro = makeIntro(root, conversation, { showTurns: view.showTurns, replay });
  makeKeyboard(root, {
    next: toolbar.sendNext,
    nextDisplay: toolbar.nextDisplay,
    forks: tree.open,
    autoplay: toolbar.toggleAutoplay,
    replay: replay.toggle,
    presented: view.showCurrentTurn,
    veil: veil.toggle,
    larger: textSize.larger,
    smaller: textSize.smaller,
    turnBefore: view.turnList.back,
    nextTurn: view.turnList.on,
    sent: () => {
      repliesExpected = true;
      bringPanesIntoSight(root);
    },
    undo: () => hasOwnTurns() && sendRequest("undo"),
    again: () => hasOwnTurns() && sendRequest("regenerate", { turn: conversation.last }),
  });
  watchPromptBox((text) => {
    if (sendRequest.available && !intro.ownMeta.watch_only)
      sendRequest("typed_prompt", { conversation: conversation.id, text });
  });
  const arrival = new Arrival({
    name: sessionName(),
    ask: (name) => sendRequest("shared", { name }),
    follow: () => view.links.follow(),
  });
  makeTour(root);
  const mirror = makeMirror(root, sendRequest);
  const leftOut = find(root, ".left-out");
  const loadLine = find(root, ".load");

  const hasOwnTurns = () => conversation.turns.length > 0 && !intro.shown;

  // While the page is still being built, Gradio may deliver two values as one, and the earlier is lost. If
  // nothing arrives for a while, the stage requests everything once more.
  function heal() {
    const seq = lastSeq;
    setTimeout(() => {
      if (!opened || (lastSeq === seq && conversation.busy)) sendRequest("show");
    }, HEAL_MS);
  }

  /** @param {Turn[]} turns */
  function open(turns) {
    const restoring = (!conversation.meta.watch_only && persistence?.start(turns.length)) || false;
    opened = true;
    const live = turns.filter(turnIsLive).length;
    settled += conversation.turns.length ? 0 : turns.length - live;
    if (live) heal();
    else if (turns.length) persistence?.turnEnded();
    return { restoring, arrived: !restoring && !turns.length };
  }

  /**
   * @param {Operations["reset"]} fields
   * @param {boolean} late
   */
  function reset({ meta, turns: given = [] }, late) {
    // A message that was sent at once may overtake the very first reset. Its turn stays.
    const keepsTurns = late && !opened && conversation.turns.length > 0;
    const turns = keepsTurns ? conversation.turns : given.map(turnFromData);
    intro.end();
    // Before the very first reset only a turn that was sent at once can be under the veil. It stays there.
    if (opened) veil.lift();
    conversation.meta = { ...meta };
    // What was sent at once may also be refused before the very first reset. Its notice stays.
    if (opened && !late) find(root, ".notices").replaceChildren();
    const { restoring, arrived } = opened ? { restoring: false, arrived: false } : open(turns);
    leftOut.hidden = true;
    conversation.recorded = given;
    replay.load([]);
    toolbar.listRecordings(meta.shipped ?? []);
    view.showTurns(turns);
    arrival.shown(turns.length, restoring);
    if (arrived && !arrival.waits) intro.open(meta.intro);
  }

  /**
   * A turn begins, here or in a recording.
   * @param {Operations["turn_start"]} fields
   */
  function beginTurn({ turn, user, branches = ["uncapped", "capped"], kept = {}, ...made }) {
    // Earlier notices no longer apply; those of the page's opening are not about the intro.
    if (!intro.shown) find(root, ".notices").replaceChildren();
    // After an edited message or another try, this turn and all after it are replaced.
    if (turn < conversation.turns.length) view.removeTurns(turn);
    conversation.pinned = false;
    veil.turnBegins();
    const begun = newTurn(user, branches, made);
    fillReplies(begun, kept);
    view.putTurn(turn, begun);
    for (const branch of BRANCHES) if (!kept[branch]) view.panes[branch].showWaiting(turn);
    if (repliesExpected) bringPanesIntoSight(root);
    repliesExpected = false;
  }

  /**
   * How busy the engine is: shown only while others use the machine, too.
   * @param {Operations["load"]} fields
   */
  function showLoad({ running, waiting, mib, budget }) {
    loadLine.hidden = waiting === 0 && running <= conversation.liveReplies;
    loadLine.textContent =
      `${counted(running, "reply is", "replies are")} being written on this machine, ${waiting || "none"} waiting · ` +
      `KV cache ${mib} of ${budget} MiB`;
  }

  /** @type {Handlers} */
  const handlers = {
    reset,
    conversations(fields) {
      toolbar.show(fields, conversation.turns.length);
      tree.offer(fields.list.length);
      conversation.id = fields.ids[fields.current] ?? "";
      view.links.named(conversation.id);
      conversation.fork = fields.fork;
      conversation.nextPrompt = fields.system_prompt;
      view.showPrompts();
      view.compare.updateList(fields);
      persistence?.updateList(fields);
      if (fields.recorded) replay.load(conversation.recorded);
    },
    download: toolbar.save,
    persist: (fields) => persistence?.persist(fields),
    restored() {
      persistence?.restored();
      arrival.restored();
    },
    // What was asked of another conversation is not shown in this one.
    layers: (fields) => fields.conversation === conversation.id && view.layers.receive(fields),
    layers_failed: (fields) => fields.conversation === conversation.id && view.layers.fail(fields),
    compared: view.compare.receive,
    chats: toolbar.offerChats,
    tree: tree.show,
    pane_prompts({ prompts }) {
      conversation.panePrompts = prompts;
      view.showPrompts();
    },
    marks({ figures }) {
      intro.ownMeta.figures = figures;
      if (intro.shown) return;
      view.showMarks();
      view.refreshHeaders();
    },
    turn_start(fields) {
      persistence?.turnStarted(fields.user);
      // From here on the conversation is another than the one that the address opens.
      const { link } = conversation.meta;
      if (link) link.turns = Math.min(link.turns, fields.turn);
      beginTurn(fields);
    },
    waiting({ turn, ahead }) {
      for (const branch of BRANCHES) view.panes[branch].showQueue(turn, ahead);
    },
    left_out({ text }) {
      leftOut.hidden = !text;
      leftOut.textContent = text;
    },
    load: showLoad,
    prompt(fields) {
      const reply = conversation.reply(fields.turn, fields.branch);
      if (!reply) return;
      reply.userMean = fields.user_mean ?? null;
      reply.start = fields.start ?? null;
      view.showBeginning(fields.turn, reply);
    },
    tokens(fields) {
      const visible = conversation.addTokens(fields);
      if (visible) view.appendTokens(fields.turn, fields.branch, visible);
    },
    turn_end(fields) {
      const reply = conversation.finish(fields);
      if (reply) view.showFinished(fields.turn, reply);
    },
    turn({ turn, data }) {
      settled += 1;
      persistence?.turnEnded();
      view.putTurn(turn, turnFromData(data));
      veil.turnEnds();
      if (!opened) heal();
    },
    lost({ branches, text }) {
      veil.lift();
      showEmpty(root, null, false);
      persistence?.turnEnded();
      for (const branch of branches) view.panes[branch]?.showLost(text);
    },
    notice({ text, level }) {
      arrival.refused();
      showNotice(root, text, level);
    },
  };
  checkProtocol(protocol, handlers);

  /**
   * @param {Operation} operation
   * @param {boolean} late
   */
  function apply(operation, late) {
    if ("turn" in operation) intro.leave();
    handlerOf(protocol, handlers, operation.op)(/** @type {never} */ (operation), late);
  }

  /**
   * A value may arrive more than once, or after a newer one. Then only its reset counts, and what follows it.
   * @param {StageValue | null} value
   */
  function receive(value) {
    if (!value || !Array.isArray(value.ops)) return;
    const start = value.ops.findIndex((op) => op.op === "reset");
    const late = value.seq <= lastSeq;
    if (late && start < 0) return;
    lastSeq = Math.max(lastSeq, value.seq);
    for (const op of late ? value.ops.slice(start) : value.ops) apply(op, late);
    mirror.took(late ? value.ops.slice(start) : value.ops);
    arrival.updated();
  }

  // Gradio marks the dark theme with a class on the body.
  new MutationObserver(view.repaint).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  showEmpty(root, null, true);
  return { receive, counts: () => ({ ...view.charts.counts(), settled, opened }) };
}

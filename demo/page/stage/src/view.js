// Shows the conversation: keeps panes, charts and headers up to date with its data.

/** @import { Branch, Reply, SendRequest, Turn, VisibleToken } from "./types" */

import { makeCharts } from "./charts.js";
import { commandOf } from "./command.js";
import { makeCompare } from "./compare.js";
import { find, findAll, makeElement } from "./dom.js";
import { makeForkForm, makeGoOnButton, wasCut } from "./fork.js";
import { makeLayers } from "./layers.js";
import { makeLens } from "./lens.js";
import { makeLinks } from "./links.js";
import { makeMap, makeTabs } from "./map.js";
import { Conversation } from "./model.js";
import { showEmpty, showNotice } from "./notices.js";
import { showCapAction, showMean, showTrend } from "./pane_header.js";
import { makePane } from "./panes.js";
import { makePath } from "./path.js";
import { makeSeedsButton } from "./seeds.js";
import { describeCapping, finishLabel, summarise } from "./summary.js";
import { makeSummaryBar } from "./summary_bar.js";
import { number, zoneOf } from "./text.js";
import { editMessage, turnTools } from "./toolbar.js";
import { makeTooltip } from "./tooltip.js";
import { makeTurnList } from "./turn_list.js";
import { describeThird, thresholdIn } from "./turn_settings.js";
import { BRANCHES, byBranch, meanOf } from "./turns.js";

/** @typedef {ReturnType<typeof makeView>} View */

/**
 * @param {HTMLElement} root
 * @param {Conversation} conversation
 * @param {SendRequest} sendRequest
 */
export function makeView(root, conversation, sendRequest) {
  /**
   * While turns are mounted: the branch whose pane is being filled.
   * @type {Branch | null}
   */
  let toolsBranch = null;
  const panes = byBranch((branch) =>
    makePane(root, branch, {
      selectTurn,
      tools: toolsFor,
      promptChange: (index, one) => conversation.promptChange(index, one),
      setPrompt: (text) => sendRequest("system_prompt", { text }),
      meta: () => conversation.meta,
      how: (index, one) => ({
        command: () =>
          commandOf(conversation.turns, index, { ...conversation.meta, fork: conversation.fork }),
        link: () => links.addressFor(index, one),
      }),
    }),
  );
  const charts = makeCharts(root, {
    selectTurn: (index) => selectTurn(index, true),
    flash,
    highlight,
    missing: () => {
      showNotice(root, "The plotting script could not be loaded; the chat works without it.", "error");
    },
  });
  const map = makeMap(root, { selectTurn: (index) => selectTurn(index, true) });
  const shown = () => ({
    turn: conversation.shown,
    replies: conversation.shownReplies,
    readable: !conversation.meta.watch_only,
  });
  const layers = makeLayers(root, { sendRequest, flash, shown });
  const compare = makeCompare(root, conversation, {
    sendRequest,
    chart: charts.compareWith,
    ended: () => showCurrentTurn(),
  });
  const summaryBar = makeSummaryBar(root);
  const path = makePath(root);
  const lens = makeLens(root);
  const turnList = makeTurnList(root, (index) => selectTurn(index, true));
  const latestButton = find(root, ".latest");
  latestButton.addEventListener("click", () => selectTurn(conversation.last, true));
  const tooltip = makeTooltip(root, Object.values(panes), {
    token: (branch, index, position) => conversation.reply(index, branch)?.visibleTokens[position - 1],
    capLayers: (index, branch) => {
      const layers = conversation.turns[index]?.settings?.own?.[branch]?.cap?.layers;
      return layers ? [layers[0] ?? 0, layers.at(-1) ?? 0] : conversation.metaOf(index).cap_layers;
    },
    settings: (index) => conversation.turns[index]?.settings ?? null,
    hover: (branch, position, index) => {
      if (index === conversation.shown) charts.hover(branch, position);
    },
    unhover: () => charts.hover("uncapped", null),
    forkForm,
    selectTurn: (index) => selectTurn(index, true),
  });
  const links = makeLinks(root, conversation, Object.values(panes), {
    show: showPlace,
    warn: (text) => showNotice(root, text),
  });
  makeTabs(root, () => {
    charts.refresh(false);
    map.refresh();
    layers.refresh();
  });

  // --- what the user does

  /** Whether the conversation can be continued here. */
  const usable = () => Boolean(sendRequest.available && !conversation.meta.watch_only);

  /**
   * The form with which a user forks at a token; null where that cannot be done.
   * @param {Branch} branch
   * @param {number} turn
   * @param {number} position
   * @param {() => void} done
   */
  function forkForm(branch, turn, position, done) {
    const token = conversation.reply(turn, branch)?.visibleTokens[position - 1];
    if (!token || !usable() || conversation.busy) return null;
    const answered = BRANCHES.filter((one) => !conversation.reply(turn, one)?.absent);
    return makeForkForm({ branch, turn, position, several: answered.length > 1 }, token, sendRequest, done);
  }

  /**
   * The buttons under a reply: all seeds, and in one pane the tools, on a page that can carry them out.
   * @param {number} index
   * @param {Turn} turn
   */
  function toolsFor(index, turn) {
    if (!toolsBranch) return null;
    const box = makeElement("span");
    const seeds = makeSeedsButton(turn.replies[toolsBranch], turn);
    if (seeds) box.append(seeds);
    if (usable() && wasCut(turn.replies[toolsBranch].finish))
      box.append(makeGoOnButton(toolsBranch, index, sendRequest));
    if (usable() && toolsBranch === Conversation.firstBranch(turn))
      box.append(turnTools(index, index === conversation.last, { sendRequest, edit }));
    return box.childNodes.length ? box : null;
  }

  /** @param {number} index */
  function edit(index) {
    const turn = conversation.turns[index];
    const branch = turn && Conversation.firstBranch(turn);
    const message = branch && panes[branch].userMessage(index);
    if (message) editMessage(message, turn.user, (text) => sendRequest("edit", { turn: index, text }));
  }

  /**
   * @param {number} index
   * @param {boolean} [scroll]
   */
  function selectTurn(index, scroll = false) {
    if (!conversation.pin(index)) return;
    if (index !== conversation.shown) showTurn(index);
    if (scroll) for (const branch of BRANCHES) panes[branch].scrollToTurn(index);
  }

  /**
   * @param {Branch} branch
   * @param {number} position
   * @param {number | null} [index]
   */
  function flash(branch, position, index = conversation.shown) {
    if (index !== null) panes[branch].flash(index, position);
  }

  /**
   * Where a link leads.
   * @param {number} index
   * @param {Branch | undefined} branch
   * @param {number | null} position
   */
  function showPlace(index, branch, position) {
    selectTurn(index, true);
    if (!branch) return;
    panes[branch].pane.scrollIntoView({ block: "nearest" });
    if (position === null) return;
    flash(branch, position, index);
    const span = panes[branch].tokenAt(index, position);
    if (span?.getClientRects().length) tooltip.bring(span, branch);
  }

  /**
   * @param {Branch | null} branch
   * @param {number | null} position
   */
  function highlight(branch, position) {
    const index = conversation.shown;
    if (index === null) return;
    for (const one of BRANCHES) panes[one].highlight(index, one === branch ? position : null);
  }

  // --- headers

  /** @param {Turn | undefined} turn */
  function capAction(turn) {
    if (conversation.capIsOff) return "cap off";
    const reply = turn?.replies.capped;
    const threshold = thresholdIn(turn?.settings, "capped");
    return (reply && !reply.absent && describeCapping(reply, true, threshold)) || "activation capping";
  }

  function refreshHeaders() {
    const { turns, shown: index, showsEarlier, shownReplies } = conversation;
    const label = index === null ? "" : `turn ${index + 1}`;
    const { zones } = conversation.chartMeta;
    const summary = summarise(turns, index, conversation.capIsOff, zones);
    for (const branch of BRANCHES) {
      showMean(panes[branch].pane, branch, shownReplies?.[branch], showsEarlier ? `${label}: ` : "", zones);
      const { trend = null } = summary.items.find((item) => item.branch === branch) ?? {};
      showTrend(panes[branch].pane, trend);
    }
    const turn = index === null ? undefined : turns[index];
    const settings = turn?.settings;
    showCapAction(panes.capped.pane, capAction(turn));
    find(panes.steered.pane, ".note").textContent = settings ? describeThird(settings) : "the third reply";
    turnList.show(turns, index);
    latestButton.hidden = !showsEarlier;
    summaryBar.show(summary);
    path.show(turns, index);
    compare.refresh();
  }

  /** The charts' keys name what they show. */
  function showKeys() {
    for (const branch of BRANCHES) {
      for (const item of findAll(root, `.key .${branch}`)) item.hidden = !conversation.has(branch);
    }
    for (const item of findAll(root, ".reasoning-key")) item.hidden = !conversation.hasReasoning;
    for (const item of findAll(root, ".zones-key")) item.hidden = !conversation.chartMeta.zones;
    for (const item of findAll(root, ".seeds-key")) item.hidden = !conversation.hasSeeds;
    showBesideKeys();
  }

  /** The keys of the lines beside the projection, and the choice of what the colours show. */
  function showBesideKeys() {
    const settings = conversation.shown === null ? null : conversation.turns[conversation.shown]?.settings;
    find(root, ".range-name").textContent = conversation.chartMeta.zones?.names[2] ?? "";
    const name = settings?.second?.replace(/_/g, " ") ?? "";
    const capped = conversation.shownReplies?.capped;
    find(root, ".plain-key").hidden = !capped?.series.plain.x.length;
    find(root, ".second-key").hidden = !name;
    find(root, ".second-name").textContent = `${name}, on its own scale`;
    lens.offer(name);
  }

  function arrangePanes() {
    panes.steered.pane.hidden = !conversation.has("steered");
    root.classList.toggle("three", conversation.has("steered"));
    showKeys();
  }

  /**
   * Tells screen readers that a reply has ended.
   * @param {number} index
   * @param {Reply} reply
   */
  function announce(index, reply) {
    const mean = meanOf(reply);
    // Nothing is said of a reply under the veil.
    const told = mean !== null && !root.classList.contains("veiled");
    const zone = told && zoneOf(mean, conversation.metaOf(index).zones);
    const result = !told ? "" : `, mean ${number(mean)}${zone && `, ${zone}`}`;
    const end = reply.finish === "failed" ? `failed: ${finishLabel(reply)}` : "finished";
    const status = `Turn ${index + 1}, ${reply.branch} reply ${end}${result}`;
    find(root, "p.hidden-status").textContent = status;
  }

  function showPrompts() {
    const editable = sendRequest.available && !conversation.meta.watch_only;
    for (const branch of BRANCHES) panes[branch].showPrompts({ ...conversation.promptsIn(branch), editable });
  }

  // --- turns

  /** @param {number} index */
  function showTurn(index) {
    conversation.shown = index;
    showBesideKeys();
    for (const branch of BRANCHES) panes[branch].markShown(index);
    showMarks();
    charts.show(index);
    map.show(index);
    layers.refresh();
    refreshHeaders();
  }

  /** The charts' reference lines follow the turn that is shown. */
  function showMarks() {
    if (conversation.figures) charts.relabel(conversation.figures);
  }

  /** @param {boolean} [turnsChanged] */
  function refreshCharts(turnsChanged = true) {
    charts.refresh(turnsChanged);
    map.refresh();
    compare.refresh();
  }

  /** @param {number} index */
  function mountTurn(index) {
    const turn = conversation.turns[index];
    if (!turn) return;
    for (const branch of BRANCHES) {
      toolsBranch = branch;
      panes[branch].mount(index, turn);
    }
  }

  /**
   * @param {number} index
   * @param {Turn} turn
   */
  function putTurn(index, turn) {
    const next = conversation.put(index, turn);
    // The turn before is no longer the last, so it loses its undo button.
    if (index > 0 && index === conversation.last) mountTurn(index - 1);
    mountTurn(index);
    showPrompts();
    arrangePanes();
    showEmpty(root, conversation.meta.empty_note, false);
    if (next === null) refreshCharts();
    else showTurn(next);
  }

  /** @param {number} from */
  function removeTurns(from) {
    conversation.removeFrom(from);
    for (const branch of BRANCHES) panes[branch].removeFrom(from);
    layers.reset();
    showPrompts();
    if (from) showTurn(from - 1);
    else {
      charts.reset(conversation.figures, conversation.turns);
      map.reset(conversation.meta.map, conversation.turns);
      refreshHeaders();
    }
  }

  /** @param {Turn[]} turns */
  function showTurns(turns) {
    conversation.replace(turns);
    layers.reset();
    for (const branch of BRANCHES) panes[branch].clear();
    showPrompts();
    for (const index of turns.keys()) mountTurn(index);
    arrangePanes();
    showEmpty(root, conversation.meta.empty_note, turns.length === 0);
    conversation.shown = turns.length ? turns.length - 1 : null; // the charts are drawn for this turn
    charts.reset(conversation.figures, turns);
    map.reset(conversation.meta.map, turns);
    if (turns.length) showTurn(turns.length - 1);
    else refreshHeaders();
  }

  /** Brings the turn that is shown into sight in all panes, wherever they were. */
  function showCurrentTurn() {
    const { shown, showsEarlier } = conversation;
    for (const branch of BRANCHES) {
      if (showsEarlier && shown !== null) panes[branch].scrollToTurn(shown);
      else panes[branch].showNewest();
    }
  }

  // --- one reply

  /**
   * @param {number} index
   * @param {Branch} branch
   * @param {VisibleToken[]} tokens
   */
  function appendTokens(index, branch, tokens) {
    panes[branch].appendTokens(index, tokens);
    if (conversation.reply(index, branch)?.reasoning.count) showKeys();
    else if (index === conversation.shown) showBesideKeys();
    if (index === conversation.shown) refreshHeaders();
    refreshCharts(false);
  }

  /**
   * A prompt has been read, so it is known where the reply begins.
   * @param {number} index
   * @param {Reply} reply
   */
  function showBeginning(index, reply) {
    panes[reply.branch].showBeginning(index, reply);
    if (index === conversation.shown) refreshHeaders();
    showMarks();
    charts.refresh(true);
  }

  /**
   * @param {number} index
   * @param {Reply} reply
   */
  function showFinished(index, reply) {
    panes[reply.branch].showFinished(index, reply);
    announce(index, reply);
    if (index === conversation.shown) refreshHeaders();
    refreshCharts();
  }

  function repaint() {
    charts.repaint();
    map.repaint();
    layers.repaint();
  }

  return {
    panes,
    charts,
    layers,
    compare,
    links,
    turnList,
    refreshHeaders,
    showPrompts,
    showMarks,
    putTurn,
    removeTurns,
    showTurns,
    showCurrentTurn,
    appendTokens,
    showBeginning,
    showFinished,
    repaint,
  };
}

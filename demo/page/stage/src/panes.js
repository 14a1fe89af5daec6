// The chat panes. Model and user text enters the page as text nodes; a reply's markdown arrives rendered and
// escaped.

/** @import { Branch, Meta, Reply, Turn, VisibleToken } from "./types" */
/** @import { HowHooks } from "./how_actions.js" */
/** @import { ReasoningBlock } from "./reasoning.js" */

import { closestOf, find, findAll, makeButton, makeElement, targetOf } from "./dom.js";
import { showAmounts } from "./lens.js";
import { appendSpans, makeReasoning } from "./reasoning.js";
import { makeScrolling } from "./scrolling.js";
import { describeBeginning, finishLabel } from "./summary.js";
import { makePromptChange, makeSystemPrompt } from "./system_prompt.js";
import { counted, number } from "./text.js";
import { makeSettingsList, thresholdIn } from "./turn_settings.js";
import { hasReasoning, meanOf, reasoningMeanOf, toneOf } from "./turns.js";

/**
 * The elements of one turn in one pane.
 * @typedef {object} TurnElements
 * @property {HTMLElement} section
 * @property {HTMLElement} user
 * @property {ReasoningBlock} reasoning
 * @property {HTMLElement} tokenBox
 * @property {HTMLElement} prose
 * @property {HTMLElement} wait
 * @property {HTMLElement} begins
 * @property {number | null} threshold below which the reply had to begin for its cap to act; null for none
 * @property {HTMLElement} finish
 * @property {HTMLElement} foot
 * @property {HTMLElement} select
 * @property {ReturnType<typeof makeSettingsList>} how
 * @property {HTMLElement[]} spans one for each visible token
 */

/**
 * @typedef {object} PaneHooks
 * @property {(index: number) => void} selectTurn
 * @property {(index: number, turn: Turn) => HTMLElement | null} tools the buttons under a reply, if any
 * @property {(index: number, branch: Branch) => string | null} promptChange the turn's system prompt, where it is a new one
 * @property {() => Pick<Meta, "model" | "date">} meta
 * @property {(index: number, branch: Branch) => HowHooks} how
 * @property {(text: string) => void} setPrompt sets the next message's system prompt
 */

/** @typedef {ReturnType<typeof makePane>} Pane */

/**
 * @param {HTMLElement} root
 * @param {Branch} branch
 * @param {PaneHooks} hooks
 */
export function makePane(root, branch, hooks) {
  const pane = find(root, `.pane[data-branch="${branch}"]`);
  const log = find(pane, ".log");
  /**
   * By turn.
   * @type {Map<number, TurnElements>}
   */
  const sections = new Map();
  /**
   * By turn in which the branch does not answer: the line in its place.
   * @type {Map<number, HTMLElement>}
   */
  const gaps = new Map();
  const scrolling = makeScrolling(log);
  const system = makeSystemPrompt(hooks.setPrompt);
  log.append(system.element);
  const showLegend = (/** @type {boolean} */ visible) => {
    for (const legend of findAll(pane, ".legend")) legend.hidden = !visible;
  };
  /** @type {globalThis.Animation | null} */
  let pulse = null;
  /** @type {HTMLElement | null} */
  let lostNotice = null;

  log.addEventListener("click", (event) => {
    // What a button opens here must not be scrolled away.
    if (closestOf(event, "button, summary")) scrolling.show(null);
    const section = closestOf(event, ".turn");
    if (
      section &&
      !targetOf(event).closest("button, textarea, summary, .how-box") &&
      !String(getSelection())
    ) {
      hooks.selectTurn(Number(section.dataset.turn));
    }
  });

  /**
   * @param {number} index
   * @param {Turn} turn
   * @returns {TurnElements}
   */
  function build(index, turn) {
    const section = makeElement("section", "turn");
    section.dataset.turn = String(index);
    const user = makeElement("p", "user");
    user.append(makeElement("span", "hidden-status", "You: "), document.createTextNode(turn.user));
    const reasoning = makeReasoning();
    const tokenBox = makeElement("div", "reply");
    tokenBox.dataset.turn = String(index);
    const prose = makeElement("div", "formatted"); // Gradio has a style of its own for "prose"
    const wait = makeElement("p", "wait", "reading the prompt…");
    const begins = makeElement("p", "begins");
    const threshold = thresholdIn(turn.settings, branch);
    const finish = makeElement("p", "finish");
    const foot = makeElement("p", "foot");
    const select = makeButton("select-turn");
    select.addEventListener("click", () => hooks.selectTurn(index));
    begins.hidden = finish.hidden = foot.hidden = true;
    foot.append(select);
    const tools = hooks.tools(index, turn);
    if (tools) foot.append(tools);
    const changed = hooks.promptChange(index, branch);
    if (changed !== null) section.append(makePromptChange(changed));
    section.append(user, reasoning.block, tokenBox, prose, wait, begins, finish, foot);
    const how = makeSettingsList(turn, branch, hooks.meta(), hooks.how(index, branch));
    if (how) {
      foot.append(how.button);
      section.append(how.list);
    }
    const shown = { section, user, reasoning, tokenBox, prose, wait, begins, threshold, finish, foot };
    return { ...shown, select, how, spans: [] };
  }

  /**
   * A line in the place of a turn in which the branch does not answer.
   * @param {number} index
   */
  function mountGap(index) {
    const line = makeElement("p", "no-reply", `turn ${index + 1}: no ${branch} reply`);
    const place = sections.get(index)?.section ?? gaps.get(index);
    if (place) place.replaceWith(line);
    else log.append(line);
    sections.delete(index);
    gaps.set(index, line);
  }

  /**
   * @param {number} index
   * @param {Turn} turn
   */
  function mount(index, turn) {
    if (turn.replies[branch].absent) {
      mountGap(index);
      return;
    }
    const old = sections.get(index);
    scrolling.noticeUser();
    lostNotice?.remove();
    const fresh = build(index, turn);
    const place = old?.section ?? gaps.get(index);
    if (place) place.replaceWith(fresh.section);
    else log.append(fresh.section);
    gaps.delete(index);
    if (old?.section.classList.contains("shown")) fresh.section.classList.add("shown");
    sections.set(index, fresh);
    scrolling.watch(fresh.section);
    if (old) fresh.reasoning.keep(old.reasoning);
    if (old?.how) fresh.how?.show(!old.how.list.hidden);
    addTokens(index, turn.replies[branch].visibleTokens);
    showBeginning(index, turn.replies[branch]);
    showFinished(index, turn.replies[branch]);
  }

  /**
   * @param {VisibleToken} token
   * @param {number} position
   */
  function tokenSpan(token, position) {
    const span = makeElement("span", token.acted ? "tok fired" : "tok", token.t);
    span.dataset.i = String(position);
    if (token.f) span.classList.add("given");
    if (token.acted) showLegend(true);
    setTone(span, toneOf(token.a ?? token.b), "tone", "");
    setTone(span, toneOf(token.second), "second-tone", "second-");
    showAmounts(span, token);
    return span;
  }

  /**
   * The style sheet turns these into a colour where the lens is on.
   * @param {HTMLElement} span
   * @param {number | null} tone
   * @param {string} property
   * @param {string} prefix of the class
   */
  function setTone(span, tone, property, prefix) {
    if (tone === null) return;
    span.style.setProperty(`--${property}`, `${Math.round(Math.abs(tone) * 100)}%`);
    span.classList.add(`${prefix}${tone < 0 ? "low" : "high"}`);
  }

  /**
   * @param {number} index
   * @param {VisibleToken[]} tokens
   */
  function appendTokens(index, tokens) {
    scrolling.growing();
    addTokens(index, tokens);
  }

  /**
   * @param {number} index
   * @param {VisibleToken[]} tokens
   */
  function addTokens(index, tokens) {
    const entry = sections.get(index);
    if (!entry || !tokens.length) return;
    scrolling.noticeUser();
    const { reasoning, tokenBox, spans } = entry;
    const first = spans.length;
    for (const token of tokens) spans.push(tokenSpan(token, spans.length + 1));
    const fresh = (/** @type {boolean} */ wanted) =>
      spans.slice(first).filter((_, n) => Boolean(tokens[n]?.r) === wanted);
    if (tokens.some((token) => token.r)) reasoning.append(fresh(true));
    if (!reasoning.block.hidden && tokens.some((token) => !token.r))
      reasoning.answerBegins(scrolling.following());
    appendSpans(tokenBox, fresh(false), !reasoning.block.hidden);
    entry.wait.hidden = true;
    stopPulse();
    scrolling.keep();
  }

  /**
   * What a cap that acts only on some replies makes of this one.
   * @param {number} index
   * @param {Reply} reply
   */
  function showBeginning(index, reply) {
    const entry = sections.get(index);
    if (!entry) return;
    const text = describeBeginning(reply, entry.threshold);
    entry.begins.hidden = !text;
    entry.begins.textContent = text;
  }

  /**
   * @param {number} index
   * @param {Reply} reply
   */
  function showFinished(index, reply) {
    const entry = sections.get(index);
    if (!entry || reply.finish === null) return;
    scrolling.noticeUser();
    showBeginning(index, reply);
    const label = finishLabel(reply);
    entry.wait.hidden = true;
    stopPulse();
    entry.finish.hidden = label === null;
    entry.finish.textContent = label ?? "";
    entry.finish.classList.toggle("failed", reply.finish === "failed");
    if (reply.html) {
      entry.prose.innerHTML = reply.html; // from a markdown renderer that escapes any HTML in the text
      entry.section.classList.add("has-prose");
    }
    entry.foot.hidden = false;
    entry.reasoning.finish(reply);
    const ended = reply.finish === "sentence" ? ", ended at a sentence" : "";
    const tokens = `${counted(reply.visibleTokens.length, "token")}${ended}`;
    const reasoning = hasReasoning(reply) ? `, reasoning ${number(reasoningMeanOf(reply))}` : "";
    const plain = reply.plainMean === null ? "" : ` (read without the cap: ${number(reply.plainMean)})`;
    const means = `mean ${number(meanOf(reply))}${plain}${reasoning}`;
    entry.select.textContent = `turn ${index + 1} · ${means} · ${tokens}`;
    entry.select.title = "Show this turn in the token chart";
    scrolling.keep();
  }

  /** @param {number} index */
  function showWaiting(index) {
    scrolling.show("end");
    const entry = sections.get(index);
    if (!entry || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const frames = [{ opacity: 1 }, { opacity: 0.45 }];
    /** @type {KeyframeAnimationOptions} */
    const timing = { duration: 900, iterations: Infinity, direction: "alternate", easing: "ease-in-out" };
    pulse = entry.wait.animate(frames, timing);
  }

  /**
   * A reply that was lost is not part of the conversation: a notice takes its place.
   * @param {string} text
   */
  function showLost(text) {
    lostNotice?.remove();
    lostNotice = makeElement("p", "notice error", text);
    log.append(lostNotice);
    scrolling.show("end");
  }

  /**
   * @param {number} index
   * @param {number} ahead how many conversations come before this one; 0 when this prompt is being read
   */
  function showQueue(index, ahead) {
    const entry = sections.get(index);
    if (!entry) return;
    const others = ahead === 1 ? "1 conversation is" : `${ahead} conversations are`;
    entry.wait.textContent = ahead ? `waiting: ${others} ahead…` : "reading the prompt…";
  }

  function stopPulse() {
    pulse?.cancel();
    pulse = null;
  }

  /** @param {number} index */
  function markShown(index) {
    log.querySelector(".turn.shown")?.classList.remove("shown");
    sections.get(index)?.section.classList.add("shown");
  }

  /** @param {number} index */
  function scrollToTurn(index) {
    scrolling.show(index);
  }

  /**
   * @param {number} index
   * @param {number} position
   */
  function tokenAt(index, position) {
    return sections.get(index)?.spans[position - 1] ?? null;
  }

  /**
   * @param {number} index
   * @param {number | null} position null for none
   */
  function highlight(index, position) {
    log.querySelector(".tok.highlighted")?.classList.remove("highlighted");
    if (position) tokenAt(index, position)?.classList.add("highlighted");
  }

  /**
   * Scrolls to a token and marks it for a moment.
   * @param {number} index
   * @param {number} position
   */
  function flash(index, position) {
    const token = tokenAt(index, position);
    if (!token) return;
    sections.get(index)?.reasoning.reveal(token);
    log.scrollTop = token.offsetTop - log.offsetTop - log.clientHeight / 2;
    scrolling.show(null);
    token.classList.remove("flash");
    void token.offsetWidth; // forces a reflow, which restarts the animation
    token.classList.add("flash");
  }

  /** @param {number} first */
  function removeFrom(first) {
    for (const [index, entry] of sections) {
      if (index < first) continue;
      entry.section.remove();
      sections.delete(index);
    }
    for (const [index, line] of gaps) {
      if (index < first) continue;
      line.remove();
      gaps.delete(index);
    }
  }

  function clear() {
    stopPulse();
    log.replaceChildren(system.element);
    sections.clear();
    gaps.clear();
    showLegend(false);
    scrolling.show("newest");
  }

  /** Shows the newest turn, wherever the log was. */
  function showNewest() {
    scrolling.show("newest");
  }

  /** @param {number} index */
  function userMessage(index) {
    return sections.get(index)?.user ?? null;
  }

  return {
    branch,
    pane,
    log,
    mount,
    appendTokens,
    showBeginning,
    showFinished,
    showWaiting,
    showLost,
    showQueue,
    showPrompts: system.show,
    markShown,
    scrollToTurn,
    showNewest,
    highlight,
    flash,
    tokenAt,
    removeFrom,
    clear,
    userMessage,
  };
}

// Shows one turn of a student on a phone: one pane at a time, and the line under it.

/** @import { Branch, Token } from "../src/types" */
/** @import { PaneName, SessionHead, TurnView } from "./types" */

import { find, findAll, findAs, makeElement } from "../src/dom.js";
import { describeToken } from "../src/text.js";
import { toneOf } from "../src/turns.js";
import { capSentence } from "./class_words.js";
import { drawLines, spoken, trailing } from "./line.js";
import { makePager } from "./pager.js";
import { answerOf, isToGuess, meansOf, meanText, nameOf, PANES, tokensOf } from "./turn_data.js";

const NEAR_PX = 24;
const SHOWN = {
  "": "Show this to the class",
  asked: "Asked: take it back",
  shown: "Shown: take it down",
  refused: "Not shown by the speaker",
};

/**
 * @param {Token} token
 * @param {Branch | undefined} branch
 */
function tokenSpan(token, branch) {
  const span = makeElement("span", token.r ? "thought" : "", token.t);
  if (!branch) return span;
  const tone = toneOf(token.a ?? token.b);
  if (tone !== null && !token.r) {
    span.classList.add(tone < 0 ? "low" : "high");
    span.style.setProperty("--tone", `${Math.round(100 * Math.abs(tone))}%`);
  }
  const lift = (token.k ?? []).reduce((sum, value) => sum + value, 0);
  if (lift > 0) span.classList.add("fired");
  span.title = describeToken(branch, { ...token, c: lift });
  return span;
}

/**
 * @param {HTMLElement} root
 * @param {{ turned: () => void }} hooks turned: another pane is looked at
 */
export function makePhoneView(root, hooks) {
  const pager = makePager(root, hooks.turned);
  const { box, tab } = pager;
  let awaited = false; // the student has guessed, and the answer has not come
  /** What each pane shows: tokens of a certain turn, before or after it was revealed. */
  const shown = { a: { key: "", count: 0 }, b: { key: "", count: 0 } };

  /**
   * Adds what is new, so that a selection and the place in a long reply are kept. Where the end is in view, the
   * newest words stay in view while they are written.
   * @param {TurnView} view
   * @param {PaneName} pane
   * @param {string} key of the turn
   */
  function showPane(view, pane, key) {
    const { branch, fault } = view.panes[pane];
    const tokens = tokensOf(view, pane);
    const reply = find(box[pane], ".reply");
    const own = `${key}/${branch ?? ""}`;
    if (shown[pane].key !== own || shown[pane].count > tokens.length || !shown[pane].count) {
      reply.replaceChildren();
      shown[pane] = { key: own, count: 0 };
    }
    const atEnd = box[pane].scrollTop + box[pane].clientHeight >= box[pane].scrollHeight - NEAR_PX;
    reply.append(...tokens.slice(shown[pane].count).map((token) => tokenSpan(token, branch)));
    shown[pane].count = tokens.length;
    if (atEnd && !view.ended) box[pane].scrollTop = box[pane].scrollHeight;
    if (!tokens.length) reply.append(makeElement("span", "wait", view.ended ? "no words" : "reading…"));
    if (fault && !reply.querySelector(".fault")) reply.append(makeElement("p", "fault", fault));
    box[pane].dataset.branch = tab[pane].dataset.branch = branch ?? "";
    tab[pane].textContent = nameOf(view, pane);
    find(box[pane], ".mean").textContent = meanText(view, pane);
  }

  /**
   * @param {(TurnView | undefined)[]} turns
   * @param {TurnView} view
   * @param {SessionHead | null} head
   */
  function showLine(turns, view, head) {
    const figure = find(root, ".line");
    figure.hidden = !PANES.every((pane) => view.panes[pane].branch);
    if (figure.hidden) return;
    find(root, ".means").textContent = capSentence(view.data?.settings);
    const isOff = view.data?.settings && !view.data.settings.cap;
    const floor = isOff ? null : (head?.marks.floor ?? null);
    const lines = PANES.map((pane) => ({
      branch: view.panes[pane].branch ?? "uncapped",
      values: trailing(tokensOf(view, pane)),
      faint: pane !== pager.inView(),
    }));
    lines.sort((one) => (one.faint ? -1 : 1));
    const [byToken, byTurn] = [svgOf(".tokens"), svgOf(".turns")];
    if (byToken) drawLines(byToken, { lines, floor, below: "token by token", labels: false });
    const branches = /** @type {Branch[]} */ (["uncapped", "capped"]);
    const means = branches.map((branch) => ({ branch, values: meansOf(turns, branch), markers: true }));
    if (byTurn) drawLines(byTurn, { lines: means, floor, below: "turn by turn", labels: true });
    const replies = PANES.map((pane) => ({
      ...view.panes[pane],
      branch: view.panes[pane].branch ?? "uncapped",
    }));
    const words = spoken(replies.map(({ branch, mean, zone }) => ({ branch, mean, zone })));
    byTurn?.setAttribute("aria-label", `Turn by turn. This turn: ${words}`);
  }

  /** @param {string} name */
  function svgOf(name) {
    const found = root.querySelector(`.line ${name}`);
    return found instanceof SVGSVGElement ? found : null;
  }

  /** @param {TurnView} view */
  function showAnswer(view) {
    find(root, ".guess").hidden = !isToGuess(view);
    const answer = find(root, ".answer");
    answer.textContent = answerOf(view);
    answer.hidden = !answer.textContent;
    // The button that was pressed is gone, and the focus with it.
    if (awaited && view.revealed && !answer.hidden) answer.focus();
    if (view.revealed) awaited = false;
    const show = findAs(root, ".show", HTMLButtonElement);
    show.textContent = SHOWN[view.shown];
    show.disabled = view.shown === "refused";
    show.hidden = !view.ended || !view.revealed;
  }

  /**
   * @param {(TurnView | undefined)[]} turns
   * @param {number} index of the turn that is shown
   * @param {string} chat
   * @param {SessionHead | null} head
   */
  function show(turns, index, chat, head) {
    const view = turns[index];
    for (const part of [".turn-bar", ".panes", ".user", ".actions"]) find(root, part).hidden = !view;
    find(root, ".empty").hidden = Boolean(view);
    if (!view) {
      for (const part of [".guess", ".answer", ".line"]) find(root, part).hidden = true;
      for (const pane of PANES) shown[pane] = { key: "", count: 0 };
      return;
    }
    find(root, ".which").textContent = `Turn ${index + 1} of ${turns.length}`;
    findAs(root, ".back", HTMLButtonElement).disabled = index <= 0;
    findAs(root, ".on", HTMLButtonElement).disabled = index >= turns.length - 1;
    find(root, ".user").textContent = view.user;
    for (const pane of PANES) showPane(view, pane, `${chat}/${index}`);
    showLine(turns, view, head);
    showAnswer(view);
  }

  /** The next turn is read from its beginning. */
  function toTop() {
    for (const element of findAll(root, ".panes > div")) element.scrollTop = 0;
  }

  return {
    show,
    toTop,
    /** The student has guessed; the answer gets the focus when it comes. */
    expectAnswer() {
      awaited = true;
    },
    /**
     * For screen readers: how far the replies are.
     * @param {TurnView} view
     */
    announce(view) {
      const words = isToGuess(view) ? "Which one was capped?" : answerOf(view);
      find(root, ".spoken").textContent = view.ended ? `Both replies are there. ${words}`.trim() : "";
    },
  };
}

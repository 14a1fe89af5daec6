// Links into a session: #turn=4&token=17&branch=capped opens it at that turn and token, counted from 1.

/** @import { Branch, Meta, Turn } from "./types" */
/** @import { Pane } from "./panes.js" */

import { closestOf, targetOf } from "./dom.js";
import { counted } from "./text.js";
import { BRANCHES } from "./turns.js";

/**
 * @typedef {object} Link
 * @property {number} turn
 * @property {number | null} token
 * @property {Branch | null} branch null: the first that answers
 */

const NUMBER = /^[1-9]\d{0,5}$/;

/**
 * What a hash names. Undefined where it names nothing, null where it cannot be read.
 * @param {string} hash
 * @returns {Link | null | undefined}
 */
export function parseLink(hash) {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  if (!fields.has("turn") && !fields.has("token")) return undefined;
  const [turn, token, branch] = [fields.get("turn"), fields.get("token"), fields.get("branch")];
  const known = BRANCHES.find((one) => one === branch) ?? null;
  if (turn === null || !NUMBER.test(turn) || (token !== null && !NUMBER.test(token))) return null;
  if (branch !== null && known === null) return null;
  return { turn: Number(turn), token: token === null ? null : Number(token), branch: known };
}

/** @param {Link} link */
export function hashOf({ turn, token, branch }) {
  const fields = [["turn", turn], ...(token === null ? [] : [["token", token]])];
  return `#${[...fields, ...(branch ? [["branch", branch]] : [])].map((field) => field.join("=")).join("&")}`;
}

/**
 * The branch that a link leads to.
 * @param {Turn} turn
 * @param {Link} link
 */
const branchOf = (turn, { branch }) => branch ?? BRANCHES.find((one) => !turn.replies[one].absent);

/**
 * What of a link is not there, in one sentence; null if all of it is.
 * @param {Turn[]} turns
 * @param {Link | null} link
 */
export function faultOf(turns, link) {
  if (!link) return "The link names no turn; one that does ends with #turn=4 or #turn=4&token=17.";
  const turn = turns[link.turn - 1];
  if (!turns.length) return `The link points to turn ${link.turn}, but no session is open here.`;
  if (!turn)
    return `The link points to turn ${link.turn}, but this session has ${counted(turns.length, "turn")}.`;
  const branch = branchOf(turn, link);
  if (!branch || turn.replies[branch].absent)
    return `The link points to the ${link.branch} reply of turn ${link.turn}, but there is none.`;
  const count = turn.replies[branch].visibleTokens.length;
  if ((link.token ?? 0) <= count) return null;
  const reply = `the ${branch} reply of turn ${link.turn}`;
  return `The link points to token ${link.token}, but ${reply} has ${counted(count, "token")}.`;
}

/**
 * The address at which anybody finds a turn; null where the session is open in this browser only.
 * @param {Meta} meta
 * @param {number} index
 * @param {Pick<Location, "href">} page
 */
export function addressOf({ link }, index, page) {
  return link && index < link.turns ? page.href.replace(/[?#].*$/, "") + link.query : null;
}

/** The session that the address of the page names; null for none. */
export const sessionName = () => new URLSearchParams(location.search).get("session");

/**
 * @param {string} search
 * @param {string} hash
 */
function setAddress(search, hash) {
  try {
    history.replaceState(null, "", location.pathname + search + hash); // in full: the page may have a base
  } catch {
    // In a frame without an address of its own; the page works without.
  }
}

/**
 * @param {HTMLElement} root
 * @param {import("./model.js").Conversation} conversation
 * @param {Pane[]} panes
 * @param {object} hooks
 * @param {(index: number, branch: Branch | undefined, token: number | null) => void} hooks.show
 * @param {(text: string) => void} hooks.warn
 */
export function makeLinks(root, conversation, panes, hooks) {
  /** The conversation that the address names. @type {string | null} */
  let owner = null;
  const inIntro = () => root.classList.contains("in-intro");

  /** Opens what the hash names. */
  function follow() {
    const link = parseLink(location.hash);
    if (sessionName() !== null) owner = conversation.id;
    if (link === undefined || conversation.meta.ready) return; // the page that waits for the model opens nothing
    const turns = inIntro() ? [] : conversation.turns;
    const fault = faultOf(turns, link);
    const turn = link && turns[link.turn - 1];
    if (fault || !turn) {
      hooks.warn(fault ?? "");
      return;
    }
    owner = conversation.id;
    hooks.show(link.turn - 1, branchOf(turn, link), link.token);
  }

  /**
   * Another conversation is not the one that the address names.
   * @param {string} id
   */
  function named(id) {
    if (owner === null || owner === id) return;
    const fields = new URLSearchParams(location.search);
    fields.delete("session");
    setAddress(fields.size ? `?${fields}` : "", "");
    owner = null;
  }

  /**
   * What is clicked is what the address then names.
   * @param {MouseEvent} event
   * @param {Branch} branch
   */
  function onClick(event, branch) {
    const section = closestOf(event, ".turn");
    const hidden = inIntro() || root.classList.contains("veiled");
    if (!section || hidden || targetOf(event).closest("button, textarea, summary, .how-box")) return;
    const token = closestOf(event, ".tok");
    owner = conversation.id;
    setAddress(
      location.search,
      hashOf({
        turn: Number(section.dataset.turn) + 1,
        token: token ? Number(token.dataset.i) : null,
        branch: token ? branch : null,
      }),
    );
  }

  /**
   * The address of a reply for others, at the token that was clicked in it last; null where there is none.
   * @param {number} index
   * @param {Branch} branch
   */
  function addressFor(index, branch) {
    const address = addressOf(conversation.meta, index, location);
    const link = parseLink(location.hash);
    const own = link?.turn === index + 1 && link.branch === branch;
    return address && address + hashOf({ turn: index + 1, token: own ? link.token : null, branch });
  }

  for (const { log, branch } of panes) log.addEventListener("click", (event) => onClick(event, branch));
  addEventListener("hashchange", follow);
  return { follow, named, addressFor };
}

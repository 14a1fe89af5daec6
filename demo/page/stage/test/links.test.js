// Links into a session, and the order in which a page opens.

import assert from "node:assert/strict";
import test from "node:test";

import { Arrival } from "../src/arrival.js";
import { addressOf, faultOf, hashOf, parseLink } from "../src/links.js";
import { addToken } from "../src/turns.js";
import { finishedTurn, token } from "./helpers.js";

const turns = [finishedTurn(0, 1), finishedTurn(0, 1)];
for (let n = 0; n < 3; n += 1) if (turns[1]) addToken(turns[1].replies.uncapped, token(0.5));

test("a hash names a turn, and perhaps a token and a branch", () => {
  assert.deepEqual(parseLink("#turn=4&token=17&branch=capped"), { turn: 4, token: 17, branch: "capped" });
  assert.deepEqual(parseLink("#turn=4"), { turn: 4, token: null, branch: null });
  for (const other of ["", "#", "#live", "#top", "#branch=capped"]) assert.equal(parseLink(other), undefined);
  const wrong = [
    "#turn=0",
    "#turn=-1",
    "#turn=1.5",
    "#turn=x",
    "#token=3",
    "#turn=1&token=",
    "#turn=1&branch=x",
  ];
  for (const hash of wrong) assert.equal(parseLink(hash), null, hash);
});

test("a link that is written is read as the same", () => {
  for (const hash of ["#turn=4", "#turn=4&token=17", "#turn=1&token=2&branch=steered"]) {
    const link = parseLink(hash);
    assert.ok(link);
    assert.equal(hashOf(link), hash);
  }
});

test("what is not there is said in one sentence", () => {
  const fault = (/** @type {string} */ hash) => faultOf(turns, parseLink(hash) ?? null);
  assert.equal(fault("#turn=2&token=3"), null);
  assert.equal(fault("#turn=2&branch=capped"), null);
  assert.match(String(fault("#turn=3")), /turn 3, but this session has 2 turns/);
  assert.match(String(fault("#turn=2&token=4")), /token 4, but the uncapped reply of turn 2 has 3 tokens/);
  assert.match(String(fault("#turn=1&branch=steered")), /steered reply of turn 1, but there is none/);
  assert.match(String(fault("#turn=x")), /names no turn/);
  assert.match(String(faultOf([], parseLink("#turn=1") ?? null)), /no session is open/);
});

test("an address for others is given only for turns that they find, too", () => {
  const page = { href: "http://host/path/?__theme=dark&session=old#turn=9" };
  const meta = { link: { query: "?session=demon", turns: 2 } };
  assert.equal(addressOf(meta, 1, page), "http://host/path/?session=demon");
  assert.equal(addressOf(meta, 2, page), null);
  assert.equal(addressOf({}, 0, page), null);
  const saved = { href: "file:///home/me/demon.html#turn=1" };
  assert.equal(addressOf({ link: { query: "", turns: 1 } }, 0, saved), "file:///home/me/demon.html");
});

/**
 * @param {string | null} name
 * @param {boolean} [reachable]
 */
function arrival(name, reachable = true) {
  /** @type {string[]} */
  const log = [];
  const ask = (/** @type {string} */ wanted) => {
    if (reachable) log.push(`ask ${wanted}`);
    return reachable;
  };
  return { log, page: new Arrival({ name, ask, follow: () => log.push("follow") }) };
}

test("without a session in the address the link is followed in what is shown first, once", () => {
  const { log, page } = arrival(null);
  page.shown(3, false);
  page.updated();
  page.shown(1, false);
  page.updated();
  assert.deepEqual(log, ["follow"]);
});

test("the tab's conversations come back before the session is asked for", () => {
  const { log, page } = arrival("demon");
  page.shown(0, true);
  page.updated();
  page.shown(2, false);
  page.updated();
  assert.deepEqual(log, []);
  page.restored();
  page.updated();
  assert.deepEqual([log, page.waits], [["ask demon"], true]);
  page.shown(4, false);
  page.updated();
  assert.deepEqual(log, ["ask demon", "follow"]);
});

test("a session that is refused leaves the link alone, and one that fails to come back does not stop it", () => {
  const refused = arrival("demon");
  refused.page.shown(0, false);
  refused.page.refused();
  refused.page.shown(4, false);
  refused.page.updated();
  assert.deepEqual(refused.log, ["ask demon"]);
  const lost = arrival("demon");
  lost.page.shown(0, true);
  lost.page.refused();
  assert.deepEqual(lost.log, ["ask demon"]);
});

test("a saved page has nobody to ask", () => {
  const { log, page } = arrival("demon", false);
  page.shown(4, false);
  page.updated();
  assert.deepEqual(log, ["follow"]);
});

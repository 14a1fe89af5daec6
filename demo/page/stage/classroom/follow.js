// The speaker's stage as a phone follows it: the operations of the speaker's own stage, and what it shows.

/** @import { MirrorMessage, StoredStudent } from "./types" */

import { find } from "../src/dom.js";
import { showView } from "../src/mirror.js";
import { FOLLOW } from "./following.js";
import { listen, pause, STUDENT, stored } from "./wire.js";

const AGAIN_MS = 1500;

const stage = find(document.body, "#stage");
const waiting = find(document.body, ".waiting");
let seq = 0;
let looked = true; // whether the page around this one shows it
let stream = new AbortController();
let goOn = () => {};

/** @param {MirrorMessage} message */
function take({ ops, view }) {
  waiting.hidden = true;
  seq += 1;
  if (ops?.length) window.receiveStage?.(JSON.stringify({ seq, ops }));
  if (view) showView(stage, view);
}

/** Listens as long as it is looked at. The page around this one joins again after a restart; its token is read anew. */
async function follow() {
  for (;;) {
    if (!looked)
      await new Promise((done) => {
        goOn = () => done(undefined);
      });
    /** @type {StoredStudent | null} */
    const own = stored(STUDENT);
    stream = new AbortController();
    try {
      if (own) await listen("follow", own.token, take, stream.signal);
    } catch {
      // The page around this one says why.
    }
    if (!looked) continue;
    waiting.hidden = false;
    await pause(AGAIN_MS);
  }
}

addEventListener("message", ({ data, origin, source }) => {
  if (source !== parent || origin !== location.origin || typeof data?.[FOLLOW] !== "boolean") return;
  looked = data[FOLLOW];
  if (looked) goOn();
  else stream.abort();
});
follow();

// The speaker’s stage as a phone follows it: the operations of the speaker’s own stage, and what it shows.

/** @import { MirrorMessage, StoredStudent } from "./types" */

import { find } from "../src/dom.js";
import { showView } from "../src/mirror.js";
import { listen, pause, RefusedError, STUDENT, stored } from "./wire.js";

const AGAIN_MS = 1000;

const stage = find(document.body, "#stage");
let seq = 0;

/** @param {MirrorMessage} message */
function take({ ops, view }) {
  seq += 1;
  if (ops.length) window.receiveStage?.(JSON.stringify({ seq, ops }));
  showView(stage, view);
}

async function follow() {
  for (;;) {
    /** @type {StoredStudent | null} */
    const own = stored(STUDENT);
    if (!own) return;
    try {
      await listen("follow", own.token, take);
    } catch (error) {
      if (error instanceof RefusedError) return; // the page around this one says why
    }
    await pause(AGAIN_MS);
  }
}

follow();

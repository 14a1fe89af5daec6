// The speaker's stage on a student's phone, in a frame beside the student's own conversation.

import { find, findAs } from "../src/dom.js";
import { base } from "./wire.js";

/** What the frame is told: whether it is looked at. */
export const FOLLOW = "persona-drift-follow";

/** @param {HTMLElement} root */
export function makeFollowing(root) {
  const frame = findAs(root, "iframe", HTMLIFrameElement);
  let loaded = false;
  let following = false;

  // The stage stays in the frame, because it is large; while it is hidden it listens to nothing.
  function tell() {
    frame.contentWindow?.postMessage({ [FOLLOW]: following }, location.origin);
  }

  /** @param {boolean} on */
  function follow(on) {
    if (on === following) return;
    following = on;
    find(root, ".own").hidden = on;
    find(root, ".say").hidden = on;
    find(root, ".following").hidden = !on;
    find(root, ".modes .try").setAttribute("aria-pressed", String(!on));
    find(root, ".modes .follow").setAttribute("aria-pressed", String(on));
    if (loaded) tell();
    else if (on) {
      loaded = true;
      // A new address would be a step in the history, and "back" would lead to the empty frame.
      frame.contentWindow?.location.replace(`${base()}class/stage`);
    }
  }

  frame.addEventListener("load", () => loaded && tell());
  return { follow, isOn: () => following };
}

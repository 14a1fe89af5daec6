import assert from "node:assert/strict";
import test from "node:test";

import { duration, headline, offerWords, placeRoles, timeLeft, verdict } from "../making/words.js";

/** @param {object} changes @returns {any} */
const making = (changes) => ({
  model: "m",
  phase: "ready",
  preset: "",
  role_prompts: "plain",
  stage: "",
  message: "",
  checks: [],
  ...changes,
});

test("durations are rounded to what one can plan with", () => {
  assert.equal(duration(0.4), "less than a minute");
  assert.equal(duration(4.3), "about 4 min");
  assert.equal(duration(118), "about 2 hours");
  assert.equal(timeLeft(0), "5 s left");
  assert.equal(timeLeft(82), "1 min 30 s left");
  assert.equal(timeLeft(1190), "about 20 min left");
});

test("a preset's button says what it takes, and what an interrupted run has left", () => {
  assert.deepEqual(offerWords("quick", { roles: 90, minutes: null, done: 0 }), ["Quick", "90 roles"]);
  assert.deepEqual(offerWords("quick", { roles: 90, minutes: 4.3, done: 0 }), [
    "Quick",
    "90 roles · about 4 min here",
  ]);
  assert.deepEqual(offerWords("standard", { roles: 275, minutes: 30, done: 0.425 }), [
    "Go on with Standard",
    "42% of the replies are there",
  ]);
});

test("what is being done while an axis is made has a sentence of its own", () => {
  const said = ["rollouts", "cap settings", "single replies"].map(
    (stage) => headline(making({ phase: "running", stage }))[1],
  );
  assert.equal(new Set(said).size, 3);
  assert.equal(headline(making({ phase: "running", stage: "" }))[1], said[0], "it has just begun");
});

test("every phase has a heading and a sentence", () => {
  for (const phase of ["measuring", "ready", "running", "stopped", "done"]) {
    const [heading, sentence] = headline(making({ phase, checks: [{ words: "", passed: true }] }));
    assert.ok(heading && sentence, phase);
  }
  assert.equal(headline(making({ phase: "failed", message: "Why." }))[1], "Why.");
});

test("the verdict counts the checks", () => {
  const [passed, missed] = [
    { words: "a", passed: true },
    { words: "b", passed: false },
  ];
  assert.equal(verdict([passed, passed], "quick", "plain"), "It passes all of its 2 checks.");
  const asked = /^It passes 1 of its 2 checks\. Asking .*--make-axis standard --role-prompts strong\./;
  assert.match(verdict([passed, missed], "quick", "plain"), asked);
  assert.match(verdict([passed, missed], "standard", "plain"), asked);
  assert.match(verdict([passed, missed], "quick", "strong"), /^It passes 1 of its 2 checks\. More replies/);
  assert.match(
    verdict([passed, missed], "standard", "strong"),
    /^It passes 1 of its 2 checks\. Another model/,
  );
});

test("roles lie in order on the strip, inside it, and no dot covers another", () => {
  const roles = [-1, 0, 0.01, 0.02, 0.5, 2].map((projection, n) => ({
    name: `r${n}`,
    projection,
    rollouts: 1,
  }));
  const { places, x } = placeRoles(roles, { width: 400, dot: 8 });
  const found = roles.map(({ name }) => places.get(name) ?? { x: Number.NaN, level: -1 });
  for (const [n, place] of found.entries()) {
    assert.ok(place.x >= 4 && place.x <= 396);
    for (const other of found.slice(0, n)) {
      assert.ok(other.x <= place.x);
      assert.ok(other.level !== place.level || place.x - other.x >= 8 - 1e-9);
    }
  }
  assert.ok(x(0) < x(1) && found.some(({ level }) => level > 0));
});

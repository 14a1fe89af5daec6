import assert from "node:assert/strict";
import test from "node:test";

import { decodeText } from "../src/toolbar.js";

const TEXT = '[{"role": "user", "content": "Grüße, \u6d77 \ud83e\udd8a"}]';

/** @param {string} encoding */
const encoded = (encoding) => {
  const bytes = Buffer.from(TEXT, encoding === "utf-8" ? "utf8" : "utf16le");
  return encoding === "utf-16be" ? bytes.swap16() : bytes;
};

/** @type {Record<string, number[]>} */
const MARKS = { "utf-8": [0xef, 0xbb, 0xbf], "utf-16le": [0xff, 0xfe], "utf-16be": [0xfe, 0xff] };

for (const [encoding, mark] of Object.entries(MARKS)) {
  test(`a file in ${encoding} is read with and without its byte-order mark`, () => {
    const bytes = encoded(encoding);
    assert.equal(decodeText(bytes), TEXT);
    assert.equal(decodeText(Buffer.concat([Buffer.from(mark), bytes])), TEXT);
  });
}

test("a file in another encoding is refused, and an empty one is empty", () => {
  assert.equal(decodeText(Buffer.from("Grüße", "latin1")), null);
  assert.equal(decodeText(Buffer.from([0x50, 0x4b, 3, 4, 0xff, 0xfe])), null);
  assert.equal(decodeText(new Uint8Array()), "");
});

// Where two texts differ, word by word: the shortest edit script (Myers 1986, in linear space), with islands of
// few equal words joined to the differences around them. Uses neither the DOM nor Plotly.

/** @import { DifferencePart } from "./types" */

/**
 * Words, numbers and punctuation marks, each with the white space before it. What stands last may be white
 * space alone.
 * @typedef {{ gap: string; word: string }} Word
 */

/** @typedef {[left: number, right: number]} Point */

// English rules also separate the words of languages that are written without spaces.
const SEGMENTER = new Intl.Segmenter("en", { granularity: "word" });

/**
 * @param {string} text
 * @returns {Word[]}
 */
export function wordsOf(text) {
  /** @type {Word[]} */
  const words = [];
  let gap = "";
  for (const { segment } of SEGMENTER.segment(text)) {
    if (segment.trim()) {
      words.push({ gap, word: segment });
      gap = "";
    } else gap += segment;
  }
  if (gap) words.push({ gap, word: "" });
  return words;
}

/**
 * The words as numbers, equal words as equal ones.
 * @param {Word[]} words
 * @param {Map<string, number>} known
 */
function numbered(words, known) {
  return Int32Array.from(words, ({ word }) => {
    const id = known.get(word) ?? known.size;
    known.set(word, id);
    return id;
  });
}

/**
 * One direction of the search: for every diagonal the farthest place in the left text that is reached with so
 * many edits, or -1. The bounds leave out diagonals that have run off either text.
 */
class Front {
  /**
   * @param {Int32Array} left
   * @param {Int32Array} right
   * @param {number} most edits
   */
  constructor(left, right, most) {
    this.left = left;
    this.right = right;
    this.centre = most;
    this.reached = new Int32Array(2 * most + 2).fill(-1);
    this.reached[most + 1] = 0;
    this.low = 0;
    this.high = 0;
  }

  /** @param {number} diagonal */
  at(diagonal) {
    return this.reached[this.centre + diagonal] ?? -1;
  }

  /**
   * Goes on with one more edit on every diagonal.
   * @param {number} edits
   * @param {(diagonal: number, x: number) => boolean} met whether the other direction has come here
   * @returns {Point | null} where they met
   */
  advance(edits, met) {
    const { left, right } = this;
    for (let k = -edits + this.low; k <= edits - this.high; k += 2) {
      const down = k === -edits || (k !== edits && this.at(k - 1) < this.at(k + 1));
      let x = down ? this.at(k + 1) : this.at(k - 1) + 1;
      let y = x - k;
      while (x < left.length && y < right.length && left[x] === right[y]) {
        x += 1;
        y += 1;
      }
      this.reached[this.centre + k] = x;
      if (x > left.length) this.high += 2;
      else if (y > right.length) this.low += 2;
      else if (met(k, x)) return [x, y];
    }
    return null;
  }
}

/**
 * A point in the middle of a shortest edit script, so that the parts before and after it can be compared by
 * themselves. Neither text is empty, and they differ at both ends.
 * @param {Int32Array} left
 * @param {Int32Array} right
 * @returns {Point}
 */
function middle(left, right) {
  const [n, m] = [left.length, right.length];
  const delta = n - m;
  const odd = delta % 2 !== 0;
  const most = Math.ceil((n + m) / 2) + 1;
  const forward = new Front(left, right, most);
  const backward = new Front(left.slice().reverse(), right.slice().reverse(), most);
  const meets = (/** @type {Front} */ other) => (/** @type {number} */ k, /** @type {number} */ x) => {
    const place = other.at(delta - k);
    return place >= 0 && x + place >= n;
  };
  for (let edits = 0; edits < most; edits += 1) {
    const ahead = forward.advance(edits, odd ? meets(backward) : () => false);
    if (ahead) return ahead;
    const back = backward.advance(edits, odd ? () => false : meets(forward));
    if (back) return [n - back[0], m - back[1]];
  }
  return [n, 0]; // nothing is equal
}

/**
 * By word of the left text: which word of the right text it is kept as; -1 for none.
 * @param {Word[]} left
 * @param {Word[]} right
 */
export function pairsOf(left, right) {
  const known = new Map();
  const pairs = new Int32Array(left.length).fill(-1);
  pair(numbered(left, known), numbered(right, known), pairs);
  return pairs;
}

/**
 * Fills in the pairs of two parts of the texts.
 * @param {Int32Array} left
 * @param {Int32Array} right
 * @param {Int32Array} pairs
 * @param {Point} [from] where the two parts begin in the whole texts
 */
function pair(left, right, pairs, [x, y] = [0, 0]) {
  let start = 0;
  let [l, r] = [left.length, right.length];
  while (start < l && start < r && left[start] === right[start]) {
    pairs[x + start] = y + start;
    start += 1;
  }
  while (l > start && r > start && left[l - 1] === right[r - 1]) {
    l -= 1;
    r -= 1;
    pairs[x + l] = y + r;
  }
  if (l === start || r === start) return;
  const [restLeft, restRight] = [left.subarray(start, l), right.subarray(start, r)];
  const [a, b] = middle(restLeft, restRight);
  pair(restLeft.subarray(0, a), restRight.subarray(0, b), pairs, [x + start, y + start]);
  pair(restLeft.subarray(a), restRight.subarray(b), pairs, [x + start + a, y + start + b]);
}

/**
 * A run of equal words and what stands before it in either text alone.
 * @typedef {{ left: string; right: string; same: string }} Stretch
 */

/**
 * @param {Word[]} left
 * @param {Word[]} right
 * @param {Int32Array} pairs
 * @returns {Stretch[]}
 */
function stretches(left, right, pairs) {
  /** @type {Stretch[]} */
  const found = [];
  let open = { left: "", right: "", same: "" };
  let next = 0;
  const textOf = (/** @type {Word | undefined} */ word) => (word ? word.gap + word.word : "");
  const differ = (/** @type {string} */ one, /** @type {string} */ other) => {
    if (!one && !other) return;
    if (open.same) {
      found.push(open);
      open = { left: "", right: "", same: "" };
    }
    open.left += one;
    open.right += other;
  };
  for (const [index, word] of left.entries()) {
    const match = pairs[index] ?? -1;
    if (match < 0) {
      differ(textOf(word), "");
      continue;
    }
    for (; next < match; next += 1) differ("", textOf(right[next]));
    const gap = right[match]?.gap ?? "";
    if (gap !== word.gap) differ(word.gap, gap);
    open.same += gap === word.gap ? textOf(word) : word.word;
    next = match + 1;
  }
  for (; next < right.length; next += 1) differ("", textOf(right[next]));
  return [...found, open];
}

/** @param {Stretch | undefined} stretch */
const changed = (stretch) => Math.max(stretch?.left.trim().length ?? 0, stretch?.right.trim().length ?? 0);

/**
 * Joins equal words that are no longer than the differences on both sides: between two other sentences, a comma
 * and an "and" in the same order tell a reader nothing.
 * @param {Stretch[]} found
 * @returns {Stretch[]}
 */
function withoutIslands(found) {
  /** @type {Stretch[]} */
  const kept = [];
  for (const stretch of found) {
    const before = kept.at(-1);
    const length = before?.same.trim().length ?? 0;
    if (!before || length > changed(before) || length > changed(stretch)) kept.push({ ...stretch });
    else {
      before.left += before.same + stretch.left;
      before.right += before.same + stretch.right;
      before.same = stretch.same;
    }
  }
  return kept;
}

/**
 * The two texts as one sequence of parts. The parts that are the same and those of one side, put together, are
 * the text of that side, to the letter. A part of one side may hold a few words that the other side has, too,
 * where everything around them differs.
 * @param {string} left
 * @param {string} right
 * @returns {DifferencePart[]}
 */
export function wordDifference(left, right) {
  const [leftWords, rightWords] = [wordsOf(left), wordsOf(right)];
  const kinds = /** @type {const} */ (["left", "right", "same"]);
  return withoutIslands(stretches(leftWords, rightWords, pairsOf(leftWords, rightWords))).flatMap((stretch) =>
    kinds.flatMap((kind) => (stretch[kind] ? [{ kind, text: stretch[kind] }] : [])),
  );
}

// What of the reference marks depends on the range of the vertical axis, which changes while replies stream and
// when the user zooms: where the labels in the margin stand, and how far the zones' bands reach.

/**
 * @import { Axis } from "./axes.js"
 * @import { ChartNote, ChartShape, Zones } from "./types"
 */

const LINE_SPACING = 1.3; // Plotly's, in units of the text size
const PADDING = 2; // pixels that Plotly adds to a label's height

/** @typedef {{ centre: number; height: number }} Label in pixels from the upper edge of the plotting area */
/** @typedef {{ labels: number[]; wish: number; top: number; height: number }} Stack wish: the sum of its labels' */

/**
 * The centres of labels that do not overlap: each as near its own line as the others allow, and none beyond the
 * plotting area, where the labels of its two ends stand.
 * @param {Label[]} labels
 * @param {number} length of the plotting area
 * @returns {number[]} in the order of `labels`
 */
export function spread(labels, length) {
  const order = [...labels.keys()].sort((a, b) => (labels[a]?.centre ?? 0) - (labels[b]?.centre ?? 0));
  /** @type {Stack[]} */
  const stacks = [];
  for (const index of order) {
    const { centre, height } = /** @type {Label} */ (labels[index]);
    /** @type {Stack} */
    let stack = { labels: [index], wish: centre - height / 2, top: 0, height };
    for (;;) {
      const mean = stack.wish / stack.labels.length;
      stack.top = Math.max(0, Math.min(mean, length - stack.height));
      const above = stacks.at(-1);
      if (!above || above.top + above.height <= stack.top) break;
      stacks.pop();
      // Below the labels of the stack above, each label wishes the stack's top to be so much higher.
      const wish = above.wish + stack.wish - above.height * stack.labels.length;
      stack = {
        labels: [...above.labels, ...stack.labels],
        wish,
        top: 0,
        height: above.height + stack.height,
      };
    }
    stacks.push(stack);
  }
  const centres = labels.map(() => 0);
  for (const stack of stacks) {
    let { top } = stack;
    for (const index of stack.labels) {
      const { height } = /** @type {Label} */ (labels[index]);
      centres[index] = top + height / 2;
      top += height;
    }
  }
  return centres;
}

/**
 * The value whose line a label belongs to; null for the labels of the two ends.
 * @param {ChartNote} note
 */
const lineOf = ({ value, yref, y }) => value ?? (yref === "paper" ? null : y);

/**
 * The same labels, moved apart where they would overlap, and hidden where their line is not in sight. They are
 * placed by shares of the plotting area: Plotly would widen the range for a label in axis units, and the label
 * would follow the range in turn, without end.
 * @param {ChartNote[]} notes
 * @param {Axis} y
 * @param {number} size of the text, in pixels
 * @returns {ChartNote[]}
 */
export function placedNotes(notes, y, size) {
  const inSight = notes.filter((note) => {
    const value = lineOf(note);
    return value !== null && value >= y.range[0] && value <= y.range[1];
  });
  const labels = inSight.map((note) => {
    const lines = note.text.split("<br>").length;
    return { centre: y.pixel(lineOf(note) ?? 0), height: lines * size * LINE_SPACING + PADDING };
  });
  const centres = spread(labels, y.length);
  return notes.map((note) => {
    const value = lineOf(note);
    if (value === null) return note;
    const n = inSight.indexOf(note);
    // Rounded, so that the same range always gives the same labels.
    const share = n < 0 ? 0 : Number((1 - (centres[n] ?? 0) / y.length).toFixed(4));
    return { ...note, value, yref: "paper", y: share, yanchor: "middle", visible: n >= 0 };
  });
}

/**
 * The same shapes, with the bands of the outer zones from their cut point to the end of the axis. They are given
 * as shares of the plotting area, because a shape in axis units would widen the range.
 * @param {ChartShape[]} shapes
 * @param {Axis} y
 * @param {Zones | null | undefined} zones
 * @returns {ChartShape[]}
 */
export function placedBands(shapes, y, zones) {
  if (!zones) return shapes;
  const [low, high] = y.range;
  const share = (/** @type {number} */ value) =>
    Number(Math.max(0, Math.min(1, (value - low) / (high - low))).toFixed(4));
  return shapes.map((shape) => {
    if (shape.name === "band-role") return { ...shape, y0: 0, y1: share(zones.low) };
    return shape.name === "band-assistant" ? { ...shape, y0: share(zones.high), y1: 1 } : shape;
  });
}

// Drift at a glance: where both branches stand now, the gap between them, where they are heading, in one plain sentence.

const TREND_TURNS = 3;
const TREND_FLAT = 0.1; // axis units between the first and the last of them that count as no change

function trendOf(turns, branch, index) {
  const means = turns.slice(0, index + 1).map((turn) => turn.sides[branch]).filter((side) => !side.absent).map(meanOf);
  const last = means.filter((mean) => mean !== null).slice(-TREND_TURNS);
  if (last.length < 2) return null;
  const change = last[last.length - 1] - last[0];
  return { change, turns: last.length, word: change > TREND_FLAT ? "rising" : change < -TREND_FLAT ? "sinking" : "steady" };
}

const TREND_SIGNS = { rising: "↗", sinking: "↘", steady: "→" };

function rangeSentence(name, mean, range) {
  if (mean === null) return "";
  if (!range) return `${name} stands at ${number(mean)}.`;
  if (mean < range[0]) return `${name} has left the Assistant range.`;
  if (mean > range[1]) return `${name} stands above the Assistant range.`;
  return `${name} is within the Assistant range.`;
}

function capSentence(side, off) {
  if (!side || side.absent) return "";
  if (off) return "The cap is off.";
  const share = firedShare(side);
  if (share === null) return "";
  if (share === 0) return "The cap did not act on this reply.";
  return `The cap acted on ${share < 0.005 ? "under 1" : Math.round(100 * share)}% of this reply’s tokens.`;
}

function glance(turns, index, range, capOff) {
  const turn = turns[index];
  if (!turn) return { items: [], sentence: "" };
  const present = BRANCHES.filter((branch) => !turn.sides[branch].absent && meanOf(turn.sides[branch]) !== null);
  const items = present.map((branch) => ({ branch, mean: meanOf(turn.sides[branch]), trend: trendOf(turns, branch, index) }));
  const name = (branch) => branch[0].toUpperCase() + branch.slice(1);
  const sentences = present.filter((branch) => branch !== "capped" || present.length === 1);
  const words = sentences.map((branch) => rangeSentence(name(branch), meanOf(turn.sides[branch]), range));
  words.push(capSentence(turn.sides.capped, capOff));
  const [low, high] = [turn.sides.uncapped, turn.sides.capped].map((side) => (side.absent ? null : meanOf(side)));
  return { items, gap: low === null || high === null ? null : high - low, sentence: words.filter(Boolean).join(" ") };
}

function makeStrip(root) {
  const strip = root.querySelector(".strip");
  const numbers = strip.querySelector(".numbers");
  const sentence = strip.querySelector(".sentence");

  function item(branch, mean, trend) {
    const box = make("span", `standing-now ${branch}`);
    box.append(make("b", "", number(mean)), make("span", "", ` ${branch}`));
    if (trend) {
      const mark = make("span", "trend", TREND_SIGNS[trend.word]);
      mark.title = `${trend.word}: ${number(trend.change)} over the last ${trend.turns} turns`;
      mark.append(make("span", "hidden-status", ` ${trend.word}`));
      box.append(mark);
    }
    return box;
  }

  function show(turns, index, range, capOff) {
    const seen = glance(turns, index, range, capOff);
    strip.hidden = seen.items.length === 0;
    numbers.replaceChildren(...seen.items.map((one) => item(one.branch, one.mean, one.trend)));
    if (seen.gap !== null && seen.gap !== undefined) numbers.append(make("span", "gap", `gap ${number(seen.gap)}`));
    if (sentence.textContent !== seen.sentence) sentence.textContent = seen.sentence;
  }

  return { show };
}

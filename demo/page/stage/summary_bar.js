// Drift at a glance: the current mean of each branch, its trend, the gap between the branches, and a plain sentence.

const TREND_TURNS = 3;
const TREND_FLAT = 0.1; // axis units: a smaller change between the first and the last of these turns counts as none
const TREND_SIGNS = { rising: "↗", falling: "↘", steady: "→" };

function trendWord(change) {
  if (change > TREND_FLAT) return "rising";
  return change < -TREND_FLAT ? "falling" : "steady";
}

function trendOf(turns, branch, index) {
  const replies = turns.slice(0, index + 1).map((turn) => turn.replies[branch]).filter((reply) => !reply.absent);
  const last = replies.map(meanOf).filter((mean) => mean !== null).slice(-TREND_TURNS);
  if (last.length < 2) return null;
  const change = last[last.length - 1] - last[0];
  return { change, turns: last.length, word: trendWord(change) };
}

function rangeSentence(name, mean, range) {
  if (mean === null) return "";
  if (!range) return `${name} is at ${number(mean)}.`;
  if (mean < range[0]) return `${name} is below the Assistant range.`;
  if (mean > range[1]) return `${name} is above the Assistant range.`;
  return `${name} is within the Assistant range.`;
}

function capSentence(reply, off) {
  if (!reply || reply.absent) return "";
  if (off) return "The cap is off.";
  const capping = describeCapping(reply, false);
  return capping && `The ${capping}.`;
}

function summarise(turns, index, range, capOff) {
  const turn = turns[index];
  if (!turn) return { items: [], gap: null, sentence: "" };
  const mean = (branch) => (turn.replies[branch].absent ? null : meanOf(turn.replies[branch]));
  const present = BRANCHES.filter((branch) => mean(branch) !== null);
  const items = present.map((branch) => ({ branch, mean: mean(branch), trend: trendOf(turns, branch, index) }));
  const name = (branch) => branch[0].toUpperCase() + branch.slice(1);
  const described = present.filter((branch) => branch !== "capped" || present.length === 1);
  const sentences = described.map((branch) => rangeSentence(name(branch), mean(branch), range));
  sentences.push(capSentence(turn.replies.capped, capOff));
  const [uncapped, capped] = [mean("uncapped"), mean("capped")];
  const gap = uncapped === null || capped === null ? null : capped - uncapped;
  return { items, gap, sentence: sentences.filter(Boolean).join(" ") };
}

function makeSummaryBar(root) {
  const bar = root.querySelector(".summary-bar");
  const numbers = bar.querySelector(".numbers");
  const sentence = bar.querySelector(".sentence");

  function makeItem({ branch, mean, trend }) {
    const item = makeElement("span", `branch-mean ${branch}`);
    item.append(makeElement("b", "", number(mean)), makeElement("span", "", ` ${branch}`));
    if (trend) {
      const sign = makeElement("span", "trend", TREND_SIGNS[trend.word]);
      sign.title = `${trend.word}: ${number(trend.change)} over the last ${trend.turns} turns`;
      sign.append(makeElement("span", "hidden-status", ` ${trend.word}`));
      item.append(sign);
    }
    return item;
  }

  function show(turns, index, range, capOff) {
    const summary = summarise(turns, index, range, capOff);
    bar.hidden = summary.items.length === 0;
    numbers.replaceChildren(...summary.items.map(makeItem));
    if (summary.gap !== null) numbers.append(makeElement("span", "gap", `gap ${number(summary.gap)}`));
    if (sentence.textContent !== summary.sentence) sentence.textContent = summary.sentence;
  }

  return { show };
}

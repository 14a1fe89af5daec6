// The layer view on the page: which replies are shown and how they are read, and what is requested from the server.

/**
 * @import { PlotConfig, PlotElement } from "./plotly"
 * @import { LayerChoice, LayerMode } from "./layer_figure.js"
 * @import { Branch, ByBranch, LayerData, Reply, SendRequest } from "./types"
 */

import { chartButtons, palette } from "./chart.js";
import { datasetOf, find, findAll } from "./dom.js";
import { branchesToShow, colourRange, intervened, layerFigure } from "./layer_figure.js";
import { meansFigure } from "./layer_means.js";
import { number } from "./text.js";
import { BRANCHES } from "./turns.js";

/**
 * @typedef {object} LayerHooks
 * @property {SendRequest} sendRequest
 * @property {(branch: Branch, position: number, turn: number) => void} flash
 * @property {() => Shown} shown
 */

/**
 * @typedef {object} Shown
 * @property {number | null} turn
 * @property {ByBranch<Reply> | undefined} replies
 * @property {boolean} readable whether the model that wrote them is here to read them
 */

const MOST_READINGS = 12; // how many readings are kept, so that going back and forth asks the server once
const STACKED_BELOW = 460; // pixels of width under which heat maps stand below each other
/** @type {Record<LayerMode, string>} */
const LAYER_MODES = {
  own: "as its branch reads it",
  plain: "as the unsteered model reads it",
  change: "with it minus without it",
  means: "mean over the tokens of each answer",
};

/**
 * The intervention that these readings differ by, in words.
 * @param {LayerData[]} readings
 */
function interventionOf(readings) {
  const steered = readings.some(({ branch }) => branch === "steered");
  if (!steered) return "the cap";
  return readings.length > 1 ? "cap or steering" : "steering";
}

/**
 * @param {HTMLElement} root
 * @param {LayerHooks} hooks
 */
export function makeLayers(root, hooks) {
  const panel = find(root, "#layer-view");
  const element = /** @type {PlotElement} */ (find(root, "#layer-chart"));
  const status = find(panel, ".panel-status");
  const modes = find(panel, ".modes");
  /** @type {{ choice: LayerChoice; mode: LayerMode; shown: LayerData[] }} */
  const state = { choice: "all", mode: "own", shown: [] };
  /**
   * By key: see keyOf.
   * @type {Map<string, LayerData>}
   */
  const readings = new Map();
  /**
   * By turn and branch: the key of the reading that was requested.
   * @type {Map<string, string>}
   */
  const requested = new Map();
  /**
   * The keys of the readings that the server could not make.
   * @type {Set<string>}
   */
  const failed = new Set();

  const visible = () => panel.offsetWidth > 0;
  const placeOf = (/** @type {number} */ turn, /** @type {Branch} */ branch) => `${turn}/${branch}`;
  const keyOf = (/** @type {number} */ turn, /** @type {Reply} */ reply) =>
    `${placeOf(turn, reply.branch)}/${reply.visibleTokens.length}`;

  /** @param {string} text */
  function setStatus(text) {
    status.textContent = text;
    status.hidden = !text;
  }

  function clear() {
    state.shown = [];
    if (element.data) Plotly.purge(element);
  }

  /**
   * The number of the reply's first tokens that the reading lacks, because a chat template may drop
   * reasoning.
   * @param {LayerData} data
   */
  function unread(data) {
    const { turn, replies } = hooks.shown();
    const count = replies?.[data.branch].reasoning.count ?? 0;
    return turn === data.turn ? Math.max(0, count - data.reasoning) : 0;
  }

  /**
   * What was read of a reply: here, or before the session was saved.
   * @param {number} turn
   * @param {Reply} reply
   * @returns {LayerData | undefined}
   */
  function readingOf(turn, reply) {
    const { layers, branch } = reply;
    if (layers) return { ...layers, plain: layers.plain ?? layers.own, turn, branch };
    return readings.get(keyOf(turn, reply));
  }

  /**
   * The buttons, and what the colours mean.
   * @param {ByBranch<Reply>} replies
   * @returns {LayerMode}
   */
  function offerChoices(replies) {
    const branches = branchesToShow(replies, state.choice);
    const several = branchesToShow(replies, "all").length;
    for (const button of findAll(panel, "[data-branch]")) {
      const choice = /** @type {LayerChoice} */ (button.dataset.branch);
      button.hidden = choice === "all" ? several < 2 : replies[choice].absent;
      const pressed = choice === "all" ? branches.length > 1 : branches.length < 2 && branches[0] === choice;
      button.setAttribute("aria-pressed", String(pressed));
    }
    find(panel, '[data-branch="all"]').textContent = several > 2 ? "all" : "both";
    const acted = state.shown.filter(intervened);
    const mode = acted.length || state.mode === "means" ? state.mode : "own";
    modes.hidden = !state.shown.length;
    for (const button of findAll(modes, "button")) {
      const reading = button.dataset.mode === "plain" || button.dataset.mode === "change";
      button.hidden = reading && !acted.length;
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
    const intervention = interventionOf(acted);
    find(modes, '[data-mode="own"]').textContent = acted.length ? `with ${intervention}` : "every token";
    find(modes, '[data-mode="plain"]').textContent = `without ${intervention}`;
    explain(mode);
    panel.classList.toggle("unread", !state.shown.length);
    return mode;
  }

  /** @param {LayerMode} mode */
  function explain(mode) {
    const acted = state.shown.filter(intervened);
    const changed = `what ${interventionOf(acted)} changed in the ${acted.map(({ branch }) => branch).join(" and the ")} reply: `;
    const each = (mode === "own" || mode === "plain") && state.shown.length > 1 ? "each " : "";
    const capped = state.shown.some(({ cap }) => cap);
    const shaded = mode === "means" && capped ? "; shaded: the cap’s layers, with their floors" : "";
    find(panel, ".mode-label").textContent =
      `${mode === "change" ? changed : each}${LAYER_MODES[mode]}${shaded}`;
    const [low, high] = colourRange(mode);
    find(panel, ".low").textContent = number(low);
    find(panel, ".high").textContent = number(high);
    find(panel, ".ramp-key").hidden = mode === "means";
    find(panel, ".below-key").hidden = mode === "means" || !capped;
  }

  async function draw() {
    const { replies } = hooks.shown();
    if (!state.shown.length || !replies || !window.Plotly || !visible()) return;
    const mode = offerChoices(replies);
    const colours = palette(root);
    const size = Math.max(10, colours.size * 0.75);
    /** @type {PlotConfig} */
    const config = {
      displaylogo: false,
      plotlyServerURL: "",
      responsive: false,
      doubleClick: "reset",
      modeBarButtons: chartButtons(),
    };
    const longest = Math.max(...BRANCHES.map((branch) => replies[branch].visibleTokens.length));
    const stacked = element.clientWidth < STACKED_BELOW;
    // Only a reply under an intervention has a difference.
    const drawn = mode === "change" ? state.shown.filter(intervened) : state.shown;
    const { data, layout } =
      mode === "means"
        ? meansFigure(drawn, colours, size)
        : layerFigure(drawn, mode, colours, size, longest, stacked);
    await Plotly.react(element, data, layout, config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => {
      const shown = state.shown.find(({ branch }) => branch === point?.data.meta?.branch);
      if (point && shown) hooks.flash(shown.branch, Math.round(point.x) + unread(shown), shown.turn);
    });
  }

  /**
   * Why a reply is not drawn, or that it is being read, after asking the server for it.
   * @param {number} turn
   * @param {Reply} reply
   */
  function ask(turn, reply) {
    const [key, place] = [keyOf(turn, reply), placeOf(turn, reply.branch)];
    if (reply.finish === null) return "The layers can be read when the reply is finished.";
    if (failed.has(key)) return "The layers of this reply could not be read.";
    const { readable } = hooks.shown();
    if (readable && requested.get(place) === key) return "reading all layers…";
    if (readable && hooks.sendRequest("layers", { turn, branch: reply.branch })) {
      requested.set(place, key);
      return "reading all layers…";
    }
    return (
      `The layers of the ${reply.branch} reply were not looked at before this session was saved, and reading them ` +
      "needs its model, which is not loaded here."
    );
  }

  // Draws the selected replies as far as they were read, and requests the first that was not from the server.
  function refresh() {
    const { turn, replies } = hooks.shown();
    if (!visible() || turn === null || !replies) return;
    const wanted = branchesToShow(replies, state.choice).map((branch) => replies[branch]);
    const missing = wanted.filter((reply) => !readingOf(turn, reply));
    const known = wanted.map((reply) => readingOf(turn, reply)).filter((data) => data !== undefined);
    if (!known.length) clear();
    state.shown = known;
    offerChoices(replies);
    const next = missing.find((reply) => !failed.has(keyOf(turn, reply))) ?? missing[0];
    if (!wanted.length) setStatus("This turn has no reply.");
    else setStatus(next ? ask(turn, next) : "");
    draw();
  }

  /** @param {LayerData} data */
  function receive(data) {
    const place = placeOf(data.turn, data.branch);
    const key = requested.get(place);
    if (!key) return; // the turn was replaced since
    requested.delete(place);
    readings.set(key, data);
    const [oldest] = readings.keys();
    if (readings.size > MOST_READINGS && oldest) readings.delete(oldest);
    refresh();
  }

  /**
   * The server could not read the layers, and a notice says why.
   * @param {{ turn: number; branch: Branch }} refused
   */
  function fail({ turn, branch }) {
    const key = requested.get(placeOf(turn, branch));
    requested.delete(placeOf(turn, branch));
    if (key) failed.add(key);
    refresh();
  }

  function reset() {
    readings.clear();
    requested.clear();
    failed.clear();
    clear();
    setStatus("");
  }

  /** @param {LayerChoice} choice */
  function choose(choice) {
    state.choice = choice;
    failed.clear();
    const { turn, replies } = hooks.shown();
    if (turn === null || !replies) return;
    // Another try: the answer may have been lost.
    for (const branch of branchesToShow(replies, choice)) requested.delete(placeOf(turn, branch));
  }

  function resize() {
    if (!element.data || !visible()) return;
    if (state.shown.length > 1) draw(); // they may have to stand otherwise
    Plotly.Plots.resize(element);
  }

  find(panel, ".aside").addEventListener("click", (event) => {
    const { branch, mode } = datasetOf(event);
    if (!branch && !mode) return;
    if (branch) choose(/** @type {LayerChoice} */ (branch));
    if (mode) state.mode = /** @type {LayerMode} */ (mode);
    refresh();
  });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  return { receive, fail, reset, refresh, repaint: draw };
}

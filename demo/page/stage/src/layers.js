// The layer view on the page: which reply is shown and how it is read, and what is requested from the server.

/**
 * @import { PlotConfig, PlotElement } from "./plotly"
 * @import { LayerMode } from "./layer_figure.js"
 * @import { Branch, ByBranch, LayerData, Reply, SendRequest } from "./types"
 */

import { chartButtons, palette } from "./chart.js";
import { datasetOf, find, findAll } from "./dom.js";
import { branchToShow, colourRange, intervened, layerLayout, layerTraces } from "./layer_figure.js";
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

const MOST_READINGS = 6; // how many readings are kept, so that going back and forth asks the server once
/** @type {Record<LayerMode, string>} */
const LAYER_MODES = {
  own: "as its branch reads it",
  plain: "as the unsteered model reads it",
  change: "what the intervention changed",
};

/**
 * @param {HTMLElement} root
 * @param {LayerHooks} hooks
 */
export function makeLayers(root, hooks) {
  const panel = find(root, "#layer-view");
  const element = /** @type {PlotElement} */ (find(root, "#layer-chart"));
  const status = find(panel, ".panel-status");
  const modes = find(panel, ".modes");
  /** @type {{ branch: Branch; mode: LayerMode; data: LayerData | null }} */
  const state = { branch: "uncapped", mode: "own", data: null };
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
    state.data = null;
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
   * The buttons, and what the colours mean.
   * @param {ByBranch<Reply>} replies
   */
  function offerChoices(replies) {
    const branch = branchToShow(replies, state.branch);
    for (const button of findAll(panel, "[data-branch]")) {
      button.hidden = replies[/** @type {Branch} */ (button.dataset.branch)].absent;
      button.setAttribute("aria-pressed", String(button.dataset.branch === branch));
    }
    const offered = state.data !== null && intervened(state.data);
    modes.hidden = !offered;
    for (const button of findAll(modes, "button")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === state.mode));
    }
    const intervention = branch === "steered" ? "steering" : "the cap";
    find(modes, '[data-mode="own"]').textContent = `with ${intervention}`;
    find(modes, '[data-mode="plain"]').textContent = `without ${intervention}`;
    const mode = offered ? state.mode : "own";
    find(panel, ".mode-label").textContent = LAYER_MODES[mode];
    const [low, high] = colourRange(mode);
    find(panel, ".low").textContent = number(low);
    find(panel, ".high").textContent = number(high);
    find(panel, ".below-key").hidden = !state.data?.cap;
    panel.classList.toggle("unread", !state.data);
    return mode;
  }

  async function draw() {
    const { data } = state;
    const { replies } = hooks.shown();
    if (!data || !replies || !window.Plotly || !visible()) return;
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
    const layout = layerLayout(data, colours, size, longest);
    setStatus("");
    await Plotly.react(element, layerTraces(data, mode, colours), layout, config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => {
      const shown = state.data;
      if (point && shown) hooks.flash(shown.branch, Math.round(point.x) + unread(shown), shown.turn);
    });
  }

  // Draws the selected reply, or requests its layers from the server first.
  function refresh() {
    const { turn, replies, readable } = hooks.shown();
    if (!visible() || turn === null || !replies) return;
    const reply = replies[branchToShow(replies, state.branch)];
    const key = keyOf(turn, reply);
    const known = readings.get(key);
    if (known) {
      state.data = known;
      draw();
      return;
    }
    clear();
    offerChoices(replies);
    if (reply.absent) setStatus("This turn has no reply.");
    else if (reply.finish === null) setStatus("The layers can be read when the reply is finished.");
    else if (readable && requested.get(placeOf(turn, reply.branch)) === key) setStatus("reading all layers…");
    else if (readable && hooks.sendRequest("layers", { turn, branch: reply.branch })) {
      requested.set(placeOf(turn, reply.branch), key);
      setStatus("reading all layers…");
    } else setStatus("Reading the layers needs the model of this session, which is not loaded here.");
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
    requested.delete(placeOf(turn, branch));
    const { turn: now, replies } = hooks.shown();
    if (now !== turn || !replies || branchToShow(replies, state.branch) !== branch) return;
    setStatus("The layers of this reply could not be read.");
  }

  function reset() {
    readings.clear();
    requested.clear();
    clear();
    setStatus("");
  }

  /** @param {Branch} branch */
  function choose(branch) {
    state.branch = branch;
    const { turn } = hooks.shown();
    if (turn !== null) requested.delete(placeOf(turn, branch)); // the server may have refused the request
  }

  function resize() {
    if (element.data && visible()) Plotly.Plots.resize(element);
  }

  find(panel, ".aside").addEventListener("click", (event) => {
    const { branch, mode } = datasetOf(event);
    if (!branch && !mode) return;
    if (branch) choose(/** @type {Branch} */ (branch));
    if (mode) state.mode = /** @type {LayerMode} */ (mode);
    refresh();
  });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  return { receive, fail, reset, refresh, repaint: draw };
}

// The layer view: the tokens of one reply at every decoder layer, with the probe layer and the capped band
// marked.

/**
 * @import { PlotConfig, PlotElement, PlotLayout, PlotTrace } from "./plotly"
 * @import { Branch, ByBranch, LayerData, Palette, Reply, SendRequest } from "./types"
 */

import { chartButtons, palette } from "./chart.js";
import { datasetOf, find, findAll } from "./dom.js";
import { number, tokenLabel } from "./text.js";
import { TONE_CENTRE } from "./turns.js";

/** @typedef {"own" | "plain" | "change"} LayerMode */

/**
 * @typedef {object} LayerHooks
 * @property {SendRequest} sendRequest
 * @property {(branch: Branch, position: number, turn: number) => void} flash
 * @property {() => { turn: number | null; replies: ByBranch<Reply> | undefined }} shown
 */

const LAYER_RANGE = 1.5; // axis units from the centre of the colour scale to either end
/** @type {Record<LayerMode, string>} */
const LAYER_MODES = {
  own: "as its branch reads it",
  plain: "as the unsteered model reads it",
  change: "what the intervention changed",
};

/**
 * The values of the heat map, layers x tokens.
 * @param {LayerData} data
 * @param {LayerMode} mode
 * @returns {number[][]}
 */
export function layerValues(data, mode) {
  const rows =
    mode === "change"
      ? data.own.map((row, n) => row.map((value, layer) => value - (data.plain[n]?.[layer] ?? Number.NaN)))
      : data[mode];
  return (data.plain[0] ?? []).map((_, layer) => rows.map((row) => row[layer] ?? Number.NaN));
}

/**
 * The tokens and layers at which the unsteered model's projection lies below the floor.
 * @param {LayerData} data
 */
export function belowFloor(data) {
  const { cap } = data;
  /** @type {{ x: number[]; y: number[] }} */
  const points = { x: [], y: [] };
  if (!cap) return points;
  data.plain.forEach((row, n) => {
    data.floors.forEach((floor, place) => {
      const layer = cap[0] + place;
      if ((row[layer] ?? floor) < floor) {
        points.x.push(n + 1);
        points.y.push(layer);
      }
    });
  });
  return points;
}

/**
 * @param {LayerData} data
 * @param {number} layer
 * @returns {number | null}
 */
export function floorAt(data, layer) {
  if (!data.cap || layer < data.cap[0] || layer > data.cap[1]) return null;
  return data.floors[layer - data.cap[0]] ?? null;
}

/**
 * @param {LayerData} data
 * @param {LayerMode} mode
 * @param {Palette} colours
 * @returns {PlotTrace[]}
 */
export function layerTraces(data, mode, colours) {
  const centre = mode === "change" ? 0 : TONE_CENTRE;
  const labels = data.tokens.map(tokenLabel);
  const floorText = (/** @type {number} */ layer) =>
    floorAt(data, layer) === null ? "" : `<br>floor ${number(floorAt(data, layer))}`;
  const z = layerValues(data, mode);
  /** @type {PlotTrace} */
  const heatmap = {
    type: "heatmap",
    z,
    x: labels.map((_, n) => n + 1),
    zmin: centre - LAYER_RANGE,
    zmax: centre + LAYER_RANGE,
    zmid: centre,
    colorscale: [
      [0, colours["role-low"]],
      [0.5, colours.card],
      [1, colours["role-high"]],
    ],
    customdata: z.map((row, layer) => row.map((_, n) => [labels[n], floorText(layer)])),
    hovertemplate: "%{customdata[0]} · layer %{y}<br>%{z:.2f} axis units%{customdata[1]}<extra></extra>",
    colorbar: { thickness: 8, outlinewidth: 0, tickfont: { color: colours.muted, size: 10 } },
    xgap: 0.5,
    ygap: 0.5,
  };
  /** @type {PlotTrace} */
  const below = {
    type: "scatter",
    mode: "markers",
    ...belowFloor(data),
    hoverinfo: "skip",
    showlegend: false,
    marker: { symbol: "triangle-up-open", size: 5, color: colours.text, opacity: 0.7 },
  };
  return mode === "change" ? [heatmap] : [heatmap, below];
}

/**
 * Where the answer starts after reasoning: a line with a label on either side.
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 */
export function answerStart(data, colours, size) {
  if (!data.reasoning || data.reasoning >= data.tokens.length) return { shapes: [], annotations: [] };
  const x = data.reasoning + 0.5;
  const line = { color: colours.text, width: 1.25, dash: "dash" };
  const note = {
    x,
    yref: "paper",
    y: 0,
    yanchor: "bottom",
    showarrow: false,
    bgcolor: colours.card,
    font: { size, color: colours.text },
  };
  return {
    shapes: [{ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line }],
    annotations: [
      { ...note, xanchor: "right", xshift: -2, text: "reasoning" },
      { ...note, xanchor: "left", xshift: 2, text: "answer" },
    ],
  };
}

/**
 * @param {LayerData} data
 * @param {Palette} colours
 * @param {number} size of the text in pixels
 * @returns {PlotLayout}
 */
export function layerLayout(data, colours, size) {
  const across = { xref: "paper", x0: 0, x1: 1 };
  const probeLine = { color: colours.text, width: 1.25, dash: "dot" };
  /** @type {object[]} */
  const shapes = [{ ...across, type: "line", y0: data.probe, y1: data.probe, line: probeLine }];
  const note = {
    xref: "paper",
    x: 0,
    xanchor: "left",
    showarrow: false,
    bgcolor: colours.card,
    font: { size, color: colours.text },
  };
  /** @type {object[]} */
  const annotations = [{ ...note, y: data.probe, yanchor: "bottom", text: `probe layer ${data.probe}` }];
  if (data.cap) {
    const [first, last] = data.cap;
    const line = { color: colours.capped, width: 2 };
    shapes.push({ ...across, type: "rect", y0: first - 0.5, y1: last + 0.5, line });
    annotations.push({
      ...note,
      x: 1,
      xanchor: "right",
      y: last + 0.5,
      yanchor: "bottom",
      text: `capped ${first}–${last}`,
      font: { size, color: colours.capped },
    });
  }
  const start = answerStart(data, colours, size);
  shapes.push(...start.shapes);
  annotations.push(...start.annotations);
  const axis = { zeroline: false, showgrid: false, color: colours.muted };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 46, r: 8, t: 6, b: 34 },
    shapes,
    annotations,
    font: { size, color: colours.muted },
    uirevision: "keep",
    xaxis: { ...axis, title: { text: "token", standoff: 4 } },
    yaxis: { ...axis, title: { text: "decoder layer", standoff: 4 } },
  };
}

/**
 * @param {HTMLElement} root
 * @param {LayerHooks} hooks
 */
export function makeLayers(root, hooks) {
  const panel = find(root, "#layer-view");
  const element = /** @type {PlotElement} */ (find(root, "#layer-chart"));
  const status = find(panel, ".panel-status");
  /** @type {{ branch: Branch; mode: LayerMode; data: LayerData | null; requested: string | null }} */
  const state = { branch: "uncapped", mode: "own", data: null, requested: null };

  const visible = () => panel.offsetWidth > 0;

  /** @param {string} text */
  function setStatus(text) {
    status.textContent = text;
    status.hidden = !text;
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

  async function draw() {
    const { data, mode } = state;
    if (!data || !window.Plotly || !visible()) return;
    const colours = palette(root);
    const size = Math.max(10, colours.size * 0.75);
    /** @type {PlotConfig} */
    const config = {
      displaylogo: false,
      plotlyServerURL: "",
      responsive: false,
      modeBarButtons: chartButtons(),
    };
    await Plotly.react(element, layerTraces(data, mode, colours), layerLayout(data, colours, size), config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => {
      const shown = state.data;
      if (point && shown) hooks.flash(shown.branch, Math.round(point.x) + unread(shown), shown.turn);
    });
    setStatus("");
  }

  // Draws the selected reply, or requests its layers from the server first.
  function refresh() {
    const { turn, replies } = hooks.shown();
    if (!visible() || turn === null || !replies) return;
    const reply = replies[state.branch];
    if (reply.absent) {
      setStatus("This branch has no reply in this turn.");
      return;
    }
    if (reply.finish === null) {
      setStatus("The layers can be read when the reply is finished.");
      return;
    }
    const key = `${turn}/${state.branch}/${reply.visibleTokens.length}`;
    if (state.requested === key) {
      draw();
      return;
    }
    if (!hooks.sendRequest("layers", { turn, branch: state.branch })) {
      setStatus("Reading the layers needs a model, and none is loaded here.");
      return;
    }
    state.requested = key;
    setStatus("reading all layers…");
  }

  /** @param {LayerData} data */
  function receive(data) {
    state.data = data;
    draw();
  }

  function reset() {
    state.data = state.requested = null;
    if (element.data) Plotly.purge(element);
    setStatus("");
  }

  function resize() {
    if (element.data && visible()) Plotly.Plots.resize(element);
  }

  find(panel, ".aside").addEventListener("click", (event) => {
    const { branch, mode } = datasetOf(event);
    if (!branch && !mode) return;
    if (branch) state.branch = /** @type {Branch} */ (branch);
    if (mode) state.mode = /** @type {LayerMode} */ (mode);
    for (const button of findAll(panel, ".views button")) {
      const pressed = button.dataset.branch === state.branch || button.dataset.mode === state.mode;
      button.setAttribute("aria-pressed", String(pressed));
    }
    find(panel, ".mode-label").textContent = LAYER_MODES[state.mode];
    refresh();
  });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  return { receive, reset, refresh, repaint: draw };
}

// The layer view: tokens x decoder layers of one reply, with the probe layer and the capped band marked.

const LAYER_REACH = 1.5;
const LAYER_MODES = {
  own: "as its branch reads it", plain: "as the unsteered model reads it", change: "what the intervention changed",
};

function layerValues(data, mode) {
  const rows = mode === "change"
    ? data.own.map((row, n) => row.map((value, layer) => value - data.plain[n][layer]))
    : data[mode];
  return data.plain[0].map((_, layer) => rows.map((row) => row[layer])); // Plotly wants layers x tokens
}

// Tokens and layers at which the unsteered reading lies below the floor.
function belowFloor(data) {
  const points = { x: [], y: [] };
  if (!data.cap) return points;
  data.plain.forEach((row, n) => {
    data.floors.forEach((floor, place) => {
      const layer = data.cap[0] + place;
      if (row[layer] < floor) {
        points.x.push(n + 1);
        points.y.push(layer);
      }
    });
  });
  return points;
}

function layerTraces(data, mode, colours) {
  const centre = mode === "change" ? 0 : TONE_CENTRE;
  const words = data.tokens.map(visibleToken);
  const floorAt = (layer) => (data.cap && layer >= data.cap[0] && layer <= data.cap[1] ? data.floors[layer - data.cap[0]] : null);
  const z = layerValues(data, mode);
  const heat = {
    type: "heatmap", z, x: words.map((_, n) => n + 1), zmin: centre - LAYER_REACH, zmax: centre + LAYER_REACH, zmid: centre,
    colorscale: [[0, colours["role-low"]], [0.5, colours.card], [1, colours["role-high"]]],
    customdata: z.map((row, layer) => row.map((_, n) => [words[n], floorAt(layer) === null ? "" : `<br>floor ${number(floorAt(layer))}`])),
    hovertemplate: "%{customdata[0]} · layer %{y}<br>%{z:.2f} axis units%{customdata[1]}<extra></extra>",
    colorbar: { thickness: 8, outlinewidth: 0, tickfont: { color: colours.quiet, size: 10 } }, xgap: 0.5, ygap: 0.5,
  };
  const below = {
    type: "scatter", mode: "markers", ...belowFloor(data), hoverinfo: "skip", showlegend: false,
    marker: { symbol: "triangle-up-open", size: 5, color: colours.ink, opacity: 0.7 },
  };
  return mode === "change" ? [heat] : [heat, below];
}

function layerLayout(data, colours, size) {
  const across = { xref: "paper", x0: 0, x1: 1 };
  const shapes = [{ ...across, type: "line", y0: data.probe, y1: data.probe, line: { color: colours.ink, width: 1.25, dash: "dot" } }];
  const note = { xref: "paper", x: 0, xanchor: "left", showarrow: false, bgcolor: colours.card, font: { size, color: colours.ink } };
  const annotations = [{ ...note, y: data.probe, yanchor: "bottom", text: `probe layer ${data.probe}` }];
  if (data.cap) {
    const [first, last] = data.cap;
    shapes.push({ ...across, type: "rect", y0: first - 0.5, y1: last + 0.5, line: { color: colours.capped, width: 2 } });
    annotations.push({ ...note, x: 1, xanchor: "right", y: last + 0.5, yanchor: "bottom", text: `capped ${first}–${last}`, font: { size, color: colours.capped } });
  }
  const axis = { zeroline: false, showgrid: false, color: colours.quiet };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 46, r: 8, t: 6, b: 34 }, shapes, annotations,
    font: { size, color: colours.quiet }, uirevision: "keep",
    xaxis: { ...axis, title: { text: "token", standoff: 4 } }, yaxis: { ...axis, title: { text: "decoder layer", standoff: 4 } },
  };
}

// hooks: ask(request), flash(branch, position, turn), shown() -> {turn, sides}
function makeLayers(root, hooks) {
  const panel = root.querySelector("#layer-view");
  const element = root.querySelector("#layer-plot");
  const status = panel.querySelector(".flat");
  const state = { branch: "uncapped", mode: "own", data: null, asked: null };

  const visible = () => panel.offsetWidth > 0;

  function say(text) {
    status.textContent = text;
    status.hidden = !text;
  }

  async function draw() {
    if (!state.data || !window.Plotly || !visible()) return;
    const colours = palette(root);
    const size = Math.max(10, colours.size * 0.75);
    const config = { displaylogo: false, plotlyServerURL: "", responsive: false, modeBarButtons: boardButtons() };
    await Plotly.react(element, layerTraces(state.data, state.mode, colours), layerLayout(state.data, colours, size), config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => hooks.flash(state.data.branch, Math.round(point.x), state.data.turn));
    say("");
  }

  function want() {
    const { turn, sides } = hooks.shown();
    if (!visible() || turn === null) return;
    const side = sides[state.branch];
    if (side.absent || side.finish === null) {
      say(side.absent ? "This branch has no reply in this turn." : "The layers can be read when the reply is finished.");
      return;
    }
    const key = `${turn}/${state.branch}/${side.shown.length}`;
    if (state.asked === key) {
      draw();
      return;
    }
    if (!hooks.ask({ do: "layers", turn, branch: state.branch })) {
      say("Layers are read by the model, and none is loaded here.");
      return;
    }
    state.asked = key;
    say("reading all layers…");
  }

  function take(data) {
    state.data = data;
    draw();
  }

  function reset() {
    state.data = state.asked = null;
    if (element.data) Plotly.purge(element);
    say("");
  }

  panel.querySelector(".aside").addEventListener("click", (event) => {
    const { branch, mode } = event.target.dataset;
    if (!branch && !mode) return;
    if (branch) state.branch = branch;
    if (mode) state.mode = mode;
    for (const button of panel.querySelectorAll(".views button")) {
      const on = button.dataset.branch === state.branch || button.dataset.mode === state.mode;
      button.setAttribute("aria-pressed", String(on));
    }
    panel.querySelector(".legend-words").textContent = LAYER_MODES[state.mode];
    want();
  });
  new ResizeObserver(() => requestAnimationFrame(() => element.data && visible() && Plotly.Plots.resize(element))).observe(element);
  return { take, reset, touch: want, repaint: draw };
}

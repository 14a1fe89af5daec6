// The persona map on the page: which view is shown, when it is drawn, and the markers that move on it.

const REDUCED_MOTION_MS = 500; // the least time between two moves for users who prefer reduced motion
const BUTTONS_3D = [["toImage", "resetCameraDefault3d"]];

function hasWebgl() {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext(); // a browser allows only a few contexts
  return context !== null;
}

// hooks: selectTurn(index)
function makeMap(root, hooks) {
  const panel = root.querySelector("#map-view");
  const element = root.querySelector("#map-chart");
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  const measuring = document.createElement("canvas").getContext("2d");
  const state = { map: null, turns: [], shown: null, view: "12", webgl: null };
  let drawn = null; // what Plotly shows: {view, bounds, lengths, width, height}
  let scheduled = false;
  let notBefore = 0;

  const ready = () => Boolean(state.map?.roles && window.Plotly && element.offsetWidth);
  const trails = () => Object.fromEntries(BRANCHES.map((name) => [name, trailOf(state.turns, name, state.shown)]));
  const lengthsOf = (all) => BRANCHES.map((branch) => all[branch].length).join();
  const placesOf = (all) => BRANCHES.flatMap((branch) => all[branch].map((point) => point.place));

  // The bounds never shrink while a view is open, because a picture that zooms in and out is hard to read.
  function boundsFor(all) {
    const fixed = [...state.map.roles.map((role) => role[1]), state.map.default];
    const fresh = boundsOf([...fixed, ...placesOf(all)], state.view);
    if (drawn?.view !== state.view) return fresh;
    return fresh.map(([low, high], n) => [Math.min(low, drawn.bounds[n][0]), Math.max(high, drawn.bounds[n][1])]);
  }

  function onlyMarkersMoved(all) {
    if (drawn?.view !== state.view || drawn.lengths !== lengthsOf(all)) return false;
    const inside = (place) => MAP_VIEWS[state.view].every(
      (part, n) => drawn.bounds[n][0] <= place[part] && place[part] <= drawn.bounds[n][1],
    );
    return placesOf(all).every(inside);
  }

  function rangesAndLabels(bounds, size) {
    if (is3d(state.view)) return { ranges: bounds, labels: labels3d(state.map) };
    const { l, r, t, b } = MAP_MARGIN;
    const [across, down] = [element.clientWidth - l - r, element.clientHeight - t - b];
    const area = { width: Math.max(50, across), height: Math.max(50, down) };
    const ranges = fitRanges(bounds, area.width, area.height);
    measuring.font = `${size}px system-ui, sans-serif`;
    const textWidth = (text) => measuring.measureText(text).width + 6;
    return { ranges, labels: labels2d(state.map, state.view, ranges, area, textWidth, size * 1.3) };
  }

  async function drawAll(all) {
    const in3d = is3d(state.view);
    const colours = palette(root);
    const size = Math.max(10, colours.size * 0.75);
    const bounds = boundsFor(all);
    const { ranges, labels } = rangesAndLabels(bounds, size);
    const { offsetWidth: width, offsetHeight: height } = element;
    const layout = mapLayout(state.map, state.view, colours, ranges, size, width / height);
    if (!in3d && matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    const config = {
      displaylogo: false, plotlyServerURL: "", responsive: false, doubleClick: "reset",
      modeBarButtons: in3d ? BUTTONS_3D : chartButtons(),
    };
    drawn = { view: state.view, bounds, lengths: lengthsOf(all), width, height };
    await Plotly.react(element, mapTraces(state.map, all, state.view, colours, labels, size), layout, config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => selectPoint(point));
  }

  function selectPoint(point) {
    const { role, branch } = point.data.meta;
    if (role === "reply") hooks.selectTurn(trails()[branch][point.pointNumber].turn);
  }

  function moveMarkers(all) {
    // An empty trace would stop the others from moving.
    const branches = BRANCHES.filter((branch) => all[branch].length);
    if (!branches.length) return;
    const data = branches.map((branch) => trailPlaces(all[branch], state.view));
    const traces = branches.map((branch) => element.data.findIndex((trace) => trace.meta.branch === branch));
    if (is3d(state.view)) {
      const update = Object.fromEntries(Object.keys(data[0]).map((key) => [key, data.map((one) => one[key])]));
      Plotly.restyle(element, update, traces);
      return;
    }
    // An animation without redraw leaves the other traces alone; a restyle takes five times as long.
    const atOnce = { transition: { duration: 0 }, frame: { duration: 0, redraw: false }, mode: "immediate" };
    Plotly.animate(element, { data, traces }, atOnce).catch(() => {}); // rejected when the next move replaces it
  }

  function draw() {
    scheduled = false;
    if (!ready()) return;
    const began = performance.now();
    const all = trails();
    if (onlyMarkersMoved(all)) moveMarkers(all);
    else drawAll(all);
    // At most a third of a slow machine's time goes into drawing.
    const pause = 3 * (performance.now() - began);
    notBefore = Math.max(began + pause, reducedMotion.matches ? began + REDUCED_MOTION_MS : 0);
  }

  function schedule() {
    if (scheduled || !ready()) return;
    scheduled = true;
    setTimeout(() => requestAnimationFrame(draw), Math.max(0, notBefore - performance.now()));
  }

  function repaint() {
    if (ready()) drawAll(trails());
    else drawn = null;
  }

  function resize() {
    if (drawn && ready() && (drawn.width !== element.offsetWidth || drawn.height !== element.offsetHeight)) repaint();
  }

  function selectView(view) {
    const unsupported = is3d(view) && !(state.webgl ??= hasWebgl());
    panel.querySelector(".panel-status").hidden = !unsupported;
    state.view = unsupported ? "12" : view;
    for (const button of panel.querySelectorAll(".views button")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    }
    schedule();
  }

  function reset(map, turns) {
    Object.assign(state, { map: map ?? null, turns, shown: null });
    const notes = map?.missing ? [map.missing] : (map?.notes ?? []);
    panel.querySelector(".notes").replaceChildren(...notes.map((text) => makeElement("p", "", text)));
    panel.classList.toggle("missing", !map?.roles);
    drawn = null;
    schedule();
  }

  function show(index) {
    state.shown = index;
    schedule();
  }

  panel.querySelector(".views").addEventListener("click", (event) => {
    if (event.target.dataset.view) selectView(event.target.dataset.view);
  });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  whenPlotly(schedule, () => {});
  return { reset, show, refresh: schedule, repaint };
}

// The tabs of one panel: token chart, persona map and layers.
function makeTabs(root, onChange) {
  const tabs = [...root.querySelectorAll('[role="tab"]')];
  function select(tab, focus = false) {
    for (const other of tabs) {
      const selected = other === tab;
      other.setAttribute("aria-selected", String(selected));
      other.tabIndex = selected ? 0 : -1;
      root.querySelector(`#${other.getAttribute("aria-controls")}`).hidden = !selected;
    }
    root.classList.toggle("with-map", tab.id !== "token-tab");
    root.querySelector(".key.tokens").hidden = tab.id !== "token-tab";
    root.querySelector(".key.places").hidden = tab.id !== "map-tab";
    if (focus) tab.focus();
    onChange();
  }
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const step = { ArrowLeft: tabs.length - 1, ArrowRight: 1 }[key];
      if (step) select(tabs[(tabs.indexOf(tab) + step) % tabs.length], true);
    });
  }
}

// The persona map on the page: which view is shown, when it is drawn, and the two markers that move on it.

const CALM_MS = 500; // between two moves, for people who asked for less motion
const SOLID_BUTTONS = [["toImage", "resetCameraDefault3d"]];

function hasWebgl() {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext(); // a browser grants only a few
  return context !== null;
}

function makeMap(root, hooks) {
  const panel = root.querySelector("#map-view");
  const element = root.querySelector("#map-plot");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const pen = document.createElement("canvas").getContext("2d");
  const state = { map: null, turns: [], shown: null, view: "12", webgl: null };
  let drawn = null; // what Plotly shows: {view, bounds, lengths, width, height}
  let waiting = false;
  let notBefore = 0;

  const ready = () => Boolean(state.map?.roles && window.Plotly && element.offsetWidth);
  const trails = () => Object.fromEntries(BRANCHES.map((name) => [name, trailOf(state.turns, name, state.shown)]));
  const lengthsOf = (all) => BRANCHES.map((branch) => all[branch].length).join();
  const placesOf = (all) => BRANCHES.flatMap((branch) => all[branch].map((point) => point.place));

  // The box never shrinks while a view is open: a picture that zooms in and out cannot be read.
  function boundsFor(all) {
    const still = [...state.map.roles.map((role) => role[1]), state.map.default];
    const fresh = boundsOf([...still, ...placesOf(all)], state.view);
    if (drawn?.view !== state.view) return fresh;
    return fresh.map(([low, high], n) => [Math.min(low, drawn.bounds[n][0]), Math.max(high, drawn.bounds[n][1])]);
  }

  function onlyMoved(all) {
    if (drawn?.view !== state.view || drawn.lengths !== lengthsOf(all)) return false;
    const inside = (place) => MAP_VIEWS[state.view].every(
      (part, n) => drawn.bounds[n][0] <= place[part] && place[part] <= drawn.bounds[n][1],
    );
    return placesOf(all).every(inside);
  }

  function fit(bounds, size) {
    if (isSolid(state.view)) return { ranges: bounds, labels: solidLabels(state.map) };
    const { l, r, t, b } = MAP_MARGIN;
    const [across, down] = [element.clientWidth - l - r, element.clientHeight - t - b];
    const area = { width: Math.max(50, across), height: Math.max(50, down) };
    const ranges = fitRanges(bounds, area.width, area.height);
    pen.font = `${size}px system-ui, sans-serif`;
    const width = (text) => pen.measureText(text).width + 6;
    return { ranges, labels: mapLabels(state.map, state.view, ranges, area, width, size * 1.3) };
  }

  async function drawAll(all) {
    const solid = isSolid(state.view);
    const colours = palette(root);
    const size = Math.max(10, colours.size * 0.75);
    const bounds = boundsFor(all);
    const { ranges, labels } = fit(bounds, size);
    const { offsetWidth: width, offsetHeight: height } = element;
    const layout = mapLayout(state.map, state.view, colours, ranges, size, width / height);
    if (!solid && matchMedia("(pointer: coarse)").matches) layout.dragmode = false; // a finger scrolls the page
    const config = {
      displaylogo: false, plotlyServerURL: "", responsive: false, doubleClick: "reset",
      modeBarButtons: solid ? SOLID_BUTTONS : boardButtons(),
    };
    drawn = { view: state.view, bounds, lengths: lengthsOf(all), width, height };
    await Plotly.react(element, mapTraces(state.map, all, state.view, colours, labels, size), layout, config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => pick(point));
  }

  function pick(point) {
    const { role, branch } = point.data.meta;
    if (role === "reply") hooks.pick(trails()[branch][point.pointNumber].turn);
  }

  function move(all) {
    const speaking = BRANCHES.filter((branch) => all[branch].length); // an empty trace would take the others with it
    if (!speaking.length) return;
    const data = speaking.map((branch) => trailPlaces(all[branch], state.view));
    const traces = speaking.map((branch) => element.data.findIndex((trace) => trace.meta.branch === branch));
    if (isSolid(state.view)) {
      const update = Object.fromEntries(Object.keys(data[0]).map((key) => [key, data.map((one) => one[key])]));
      Plotly.restyle(element, update, traces);
      return;
    }
    // An animation without redraw is how Plotly leaves the other traces alone; a restyle takes five times as long.
    const atOnce = { transition: { duration: 0 }, frame: { duration: 0, redraw: false }, mode: "immediate" };
    Plotly.animate(element, { data, traces }, atOnce).catch(() => {}); // overtaken by the next move
  }

  function draw() {
    waiting = false;
    if (!ready()) return;
    const began = performance.now();
    const all = trails();
    if (onlyMoved(all)) move(all);
    else drawAll(all);
    // As with the plots: at most a third of a slow machine's time goes here.
    notBefore = Math.max(began + 3 * (performance.now() - began), calm.matches ? began + CALM_MS : 0);
  }

  function schedule() {
    if (waiting || !ready()) return;
    waiting = true;
    setTimeout(() => requestAnimationFrame(draw), Math.max(0, notBefore - performance.now()));
  }

  function repaint() {
    if (ready()) drawAll(trails());
    else drawn = null;
  }

  function resize() {
    if (drawn && ready() && (drawn.width !== element.offsetWidth || drawn.height !== element.offsetHeight)) repaint();
  }

  function choose(view) {
    const flat = isSolid(view) && !(state.webgl ??= hasWebgl());
    panel.querySelector(".flat").hidden = !flat;
    state.view = flat ? "12" : view;
    for (const button of panel.querySelectorAll(".views button")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    }
    schedule();
  }

  function reset(map, turns) {
    Object.assign(state, { map: map ?? null, turns, shown: null });
    const notes = map?.missing ? [map.missing] : (map?.notes ?? []);
    panel.querySelector(".notes").replaceChildren(...notes.map((text) => make("p", "", text)));
    panel.classList.toggle("missing", !map?.roles);
    drawn = null;
    schedule();
  }

  function show(index) {
    state.shown = index;
    schedule();
  }

  panel.querySelector(".views").addEventListener("click", (event) => {
    if (event.target.dataset.view) choose(event.target.dataset.view);
  });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  whenPlotly(schedule, () => {});
  return { reset, show, touch: schedule, repaint };
}

// Two tabs over one place: the map takes the token plot's.
function makeTabs(root, onChange) {
  const tabs = [...root.querySelectorAll('[role="tab"]')];
  function select(tab, focus = false) {
    for (const other of tabs) {
      const on = other === tab;
      other.setAttribute("aria-selected", String(on));
      other.tabIndex = on ? 0 : -1;
      root.querySelector(`#${other.getAttribute("aria-controls")}`).hidden = !on;
    }
    const map = tab.id === "map-tab";
    root.classList.toggle("with-map", tab.id !== "token-tab");
    root.querySelector(".key.tokens").hidden = tab.id !== "token-tab";
    root.querySelector(".key.places").hidden = !map;
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

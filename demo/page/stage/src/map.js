// The persona map on the page: which view is shown, when it is drawn, and the markers that move on it.

/**
 * @import { PlotConfig, PlotElement, PlotPoint } from "./plotly"
 * @import { MapView, Trails } from "./map_figure.js"
 * @import { MapData, PersonaMap, Place, Range, Turn } from "./types"
 */

import { chartButtons, palette } from "./chart.js";
import { whenPlotly } from "./charts.js";
import { datasetOf, find, findAll, makeElement } from "./dom.js";
import {
  boundsOf,
  fitRanges,
  is3d,
  MAP_MARGIN,
  MAP_VIEWS,
  mapLayout,
  mapTraces,
  trailOf,
  trailPlaces,
} from "./map_figure.js";
import { labels2d, labels3d } from "./map_labels.js";
import { BRANCHES, byBranch } from "./turns.js";

/**
 * What Plotly shows.
 * @typedef {{ view: MapView; bounds: Range[]; lengths: string; width: number; height: number }} Drawn
 */

/**
 * @typedef {object} MapState
 * @property {MapData | null} map
 * @property {Turn[]} turns
 * @property {number | null} shown
 * @property {MapView} view
 * @property {boolean | null} webgl whether the browser has it; null while it is not known
 */

const REDUCED_MOTION_MS = 500; // the least time between two moves for users who prefer reduced motion
const BUTTONS_3D = [["toImage", "resetCameraDefault3d"]];

function hasWebgl() {
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("webgl2") ?? canvas.getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext(); // a browser allows only a few contexts
  return context !== null;
}

/** @param {Trails} all */
const lengthsOf = (all) => BRANCHES.map((branch) => all[branch].length).join();
/** @param {Trails} all */
const placesOf = (all) => BRANCHES.flatMap((branch) => all[branch].map((point) => point.place));

/**
 * @param {HTMLElement} root
 * @param {{ selectTurn: (index: number) => void }} hooks
 */
export function makeMap(root, hooks) {
  const panel = find(root, "#map-view");
  const element = /** @type {PlotElement} */ (find(root, "#map-chart"));
  const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
  const measuring = document.createElement("canvas").getContext("2d");
  /** @type {MapState} */
  const state = { map: null, turns: [], shown: null, view: "12", webgl: null };
  /** @type {Drawn | null} */
  let drawn = null;
  let scheduled = false;
  let notBefore = 0;

  /** The map, if it can be drawn now. */
  const drawable = () =>
    state.map?.roles && window.Plotly && element.offsetWidth ? /** @type {PersonaMap} */ (state.map) : null;
  const trails = () => byBranch((branch) => trailOf(state.turns, branch, state.shown));

  /**
   * The bounds never shrink while a view is open, because a picture that zooms in and out is hard to read.
   * @param {PersonaMap} map
   * @param {Trails} all
   * @returns {Range[]}
   */
  function boundsFor(map, all) {
    const fixed = [...map.roles.map((role) => role[1]), map.default];
    const fresh = boundsOf([...fixed, ...placesOf(all)], state.view);
    const before = drawn?.view === state.view ? drawn.bounds : fresh;
    return fresh.map(([low, high], n) => {
      const [oldLow, oldHigh] = before[n] ?? [low, high];
      return [Math.min(low, oldLow), Math.max(high, oldHigh)];
    });
  }

  /** @param {Trails} all */
  function onlyMarkersMoved(all) {
    if (drawn?.view !== state.view || drawn.lengths !== lengthsOf(all)) return false;
    const { bounds } = drawn;
    const inside = (/** @type {Place} */ place) =>
      MAP_VIEWS[state.view].every((part, n) => {
        const [value, range] = [place[part], bounds[n]];
        return value !== undefined && range && range[0] <= value && value <= range[1];
      });
    return placesOf(all).every(inside);
  }

  /**
   * @param {PersonaMap} map
   * @param {Range[]} bounds
   * @param {number} size of the text in pixels
   */
  function rangesAndLabels(map, bounds, size) {
    const [x, y] = bounds;
    if (is3d(state.view) || !x || !y) return { ranges: bounds, labels: labels3d(map) };
    const { l, r, t, b } = MAP_MARGIN;
    const [across, down] = [element.clientWidth - l - r, element.clientHeight - t - b];
    const area = { width: Math.max(50, across), height: Math.max(50, down) };
    const ranges = fitRanges(x, y, area);
    if (measuring) measuring.font = `${size}px system-ui, sans-serif`;
    const textWidth = (/** @type {string} */ text) => (measuring?.measureText(text).width ?? 0) + 6;
    return { ranges, labels: labels2d(map, state.view, ranges, area, textWidth, size * 1.3) };
  }

  /**
   * @param {PersonaMap} map
   * @param {Trails} all
   */
  async function drawAll(map, all) {
    const in3d = is3d(state.view);
    const colours = palette(root);
    const size = Math.max(10, colours.size * 0.75);
    const bounds = boundsFor(map, all);
    const { ranges, labels } = rangesAndLabels(map, bounds, size);
    const { offsetWidth: width, offsetHeight: height } = element;
    const layout = mapLayout(map, state.view, colours, ranges, size, width / height);
    // A finger scrolls the page.
    if (!in3d && matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
    /** @type {PlotConfig} */
    const config = {
      displaylogo: false,
      plotlyServerURL: "",
      responsive: false,
      doubleClick: "reset",
      modeBarButtons: in3d ? BUTTONS_3D : chartButtons(),
    };
    drawn = { view: state.view, bounds, lengths: lengthsOf(all), width, height };
    await Plotly.react(element, mapTraces(map, all, state.view, colours, labels, size), layout, config);
    element.removeAllListeners("plotly_click");
    element.on("plotly_click", ({ points: [point] }) => point && selectPoint(point));
  }

  /** @param {PlotPoint} point */
  function selectPoint(point) {
    const { role, branch } = /** @type {import("./types").TraceMeta} */ (point.data.meta);
    const chosen = role === "reply" && branch ? trails()[branch][point.pointNumber] : undefined;
    if (chosen) hooks.selectTurn(chosen.turn);
  }

  /** @param {Trails} all */
  function moveMarkers(all) {
    // An empty trace would stop the others from moving.
    const branches = BRANCHES.filter((branch) => all[branch].length);
    if (!branches.length) return;
    const data = branches.map((branch) => trailPlaces(all[branch], state.view));
    const shown = element.data ?? [];
    const traces = branches.map((branch) => shown.findIndex((trace) => trace.meta.branch === branch));
    if (is3d(state.view)) {
      const values = (/** @type {"x" | "y" | "z" | "customdata"} */ key) => data.map((one) => one[key]);
      const update = { x: values("x"), y: values("y"), z: values("z"), customdata: values("customdata") };
      Plotly.restyle(element, update, traces);
      return;
    }
    // An animation without redraw leaves the other traces alone; a restyle takes five times as long.
    /** @type {import("./plotly").Animation} */
    const atOnce = { transition: { duration: 0 }, frame: { duration: 0, redraw: false }, mode: "immediate" };
    // Rejected when the next move replaces it.
    Plotly.animate(element, { data, traces }, atOnce).catch(() => {});
  }

  function draw() {
    scheduled = false;
    const map = drawable();
    if (!map) return;
    const began = performance.now();
    const all = trails();
    if (onlyMarkersMoved(all)) moveMarkers(all);
    else drawAll(map, all);
    // At most a third of a slow machine's time goes into drawing.
    const pause = 3 * (performance.now() - began);
    notBefore = Math.max(began + pause, reducedMotion.matches ? began + REDUCED_MOTION_MS : 0);
  }

  function schedule() {
    if (scheduled || !drawable()) return;
    scheduled = true;
    setTimeout(() => requestAnimationFrame(draw), Math.max(0, notBefore - performance.now()));
  }

  function repaint() {
    const map = drawable();
    if (map) drawAll(map, trails());
    else drawn = null;
  }

  function resize() {
    if (!drawn || !drawable()) return;
    if (drawn.width !== element.offsetWidth || drawn.height !== element.offsetHeight) repaint();
  }

  /** @param {MapView} view */
  function selectView(view) {
    if (is3d(view)) state.webgl ??= hasWebgl();
    const unsupported = is3d(view) && !state.webgl;
    find(panel, ".panel-status").hidden = !unsupported;
    state.view = unsupported ? "12" : view;
    for (const button of findAll(panel, ".views button")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    }
    schedule();
  }

  /**
   * @param {MapData | undefined} map
   * @param {Turn[]} turns
   */
  function reset(map, turns) {
    Object.assign(state, { map: map ?? null, turns, shown: null });
    const notes = map?.missing ? [map.missing] : (map?.notes ?? []);
    find(panel, ".notes").replaceChildren(...notes.map((text) => makeElement("p", "", text)));
    panel.classList.toggle("missing", !map?.roles);
    drawn = null;
    schedule();
  }

  /** @param {number} index */
  function show(index) {
    state.shown = index;
    schedule();
  }

  find(panel, ".views").addEventListener("click", (event) => {
    const { view } = datasetOf(event);
    if (view) selectView(/** @type {MapView} */ (view));
  });
  new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
  whenPlotly(schedule, () => {});
  return { reset, show, refresh: schedule, repaint };
}

/**
 * The tabs of one panel: token chart, persona map and layers.
 * @param {HTMLElement} root
 * @param {() => void} onChange
 */
export function makeTabs(root, onChange) {
  const tabs = findAll(root, '[role="tab"]');

  /**
   * @param {HTMLElement} tab
   * @param {boolean} [focus]
   */
  function select(tab, focus = false) {
    for (const other of tabs) {
      const selected = other === tab;
      other.setAttribute("aria-selected", String(selected));
      other.tabIndex = selected ? 0 : -1;
      find(root, `#${other.getAttribute("aria-controls")}`).hidden = !selected;
    }
    root.classList.toggle("with-map", tab.id !== "token-tab");
    find(root, ".key.tokens").hidden = tab.id !== "token-tab";
    find(root, ".key.places").hidden = tab.id !== "map-tab";
    if (focus) tab.focus();
    onChange();
  }
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", ({ key }) => {
      const step = key === "ArrowLeft" ? tabs.length - 1 : key === "ArrowRight" ? 1 : 0;
      const next = tabs[(tabs.indexOf(tab) + step) % tabs.length];
      if (step && next) select(next, true);
    });
  }
}

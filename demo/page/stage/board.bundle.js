// Made from its sources by `npm run build`; do not edit.
// Sources: e145a005621197c761ccac5814664559487825476cfa35ca566b80bd0a3cbe5b
// Bundle: be90ce16b3a836286deb7ba902ecf842b2f7decfd5631d281bab0b7772da6201
(() => {
  // src/dom.js
  function makeElement(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text) node.textContent = text;
    return node;
  }
  function makeButton(className, text, label) {
    const button = makeElement("button", className, text);
    button.type = "button";
    if (label) {
      button.title = label;
      button.setAttribute("aria-label", spokenName(text ?? "", label));
    }
    return button;
  }
  function spokenName(text, label) {
    const seen = text.trim();
    const hasWords = /[\p{L}\p{N}]/u.test(seen);
    return hasWords && !label.toLowerCase().includes(seen.toLowerCase()) ? `${seen}: ${label}` : label;
  }
  function find(root2, selector) {
    return findAs(root2, selector, HTMLElement);
  }
  function findAs(root2, selector, kind) {
    const element = root2.querySelector(selector);
    if (!(element instanceof kind)) throw new Error(`The stage has no ${kind.name} ${selector}.`);
    return element;
  }

  // src/text.js
  function number(value, digits = 2) {
    if (value === null || value === void 0) return "–";
    const text = Math.abs(value).toFixed(digits);
    return value < 0 && Number(text) > 0 ? `−${text}` : text;
  }
  var assistant = true;
  function nameAxis(may) {
    assistant = may;
  }

  // classroom/asking.js
  var WAIT_MS = 4e3;
  function askTwice(button, question, act) {
    let words = "";
    let timer = 0;
    function stop() {
      clearTimeout(timer);
      timer = 0;
      button.textContent = words;
      button.classList.remove("asks");
    }
    button.addEventListener("click", () => {
      const asked = question();
      if (timer || !asked) {
        if (timer) stop();
        act();
        return;
      }
      words = button.textContent ?? "";
      button.textContent = asked;
      button.classList.add("asks");
      timer = window.setTimeout(stop, WAIT_MS);
    });
  }

  // src/axes.js
  function drawnRange(element, name) {
    const { _fullLayout: drawn } = (
      /** @type {{ _fullLayout?: Record<string, { range?: unknown }> }} */
      /** @type {unknown} */
      element
    );
    return drawn?.[name]?.range;
  }
  function asRange(value) {
    if (!Array.isArray(value) || value.length !== 2) return null;
    const [low, high] = value.map(Number);
    return low !== void 0 && high !== void 0 && low !== high && Number.isFinite(low + high) ? [low, high] : null;
  }
  function scaleOf([first, last], length, upwards) {
    return (value) => {
      const along = (value - first) / (last - first) * length;
      return upwards ? length - along : along;
    };
  }
  function plottingArea({ width, height }, margin) {
    const [left, top] = [Math.round(margin.l), Math.round(margin.t)];
    return {
      left,
      top,
      width: Math.round(width) - left - Math.round(margin.r),
      height: Math.round(height) - top - Math.round(margin.b)
    };
  }
  function axesOf(element) {
    const picture = element.querySelector("svg");
    const layout = (
      /** @type {ChartLayout | undefined} */
      element.layout
    );
    if (!picture || !layout) return null;
    const side = (name) => Number(picture.getAttribute(name));
    const size2 = { width: side("width"), height: side("height") };
    const area = plottingArea(size2, layout.margin);
    const axis = (name) => {
      const vertical = name === "yaxis";
      const range = asRange(drawnRange(element, name)) ?? asRange(layout[name].range) ?? [0, 1];
      const length = vertical ? area.height : area.width;
      const auto = Boolean(layout[name].autorange);
      const start = vertical ? area.top : area.left;
      return { range, auto, start, length, pixel: scaleOf(range, length, vertical) };
    };
    return { x: axis("xaxis"), y: axis("yaxis") };
  }

  // src/marks.js
  var LINE_SPACING = 1.3;
  var PADDING = 2;
  function spread(labels, length) {
    const order = [...labels.keys()].sort((a, b) => (labels[a]?.centre ?? 0) - (labels[b]?.centre ?? 0));
    const stacks = [];
    for (const index of order) {
      const { centre, height } = (
        /** @type {Label} */
        labels[index]
      );
      let stack = { labels: [index], wish: centre - height / 2, top: 0, height };
      for (; ; ) {
        const mean = stack.wish / stack.labels.length;
        stack.top = Math.max(0, Math.min(mean, length - stack.height));
        const above = stacks.at(-1);
        if (!above || above.top + above.height <= stack.top) break;
        stacks.pop();
        const wish = above.wish + stack.wish - above.height * stack.labels.length;
        stack = {
          labels: [...above.labels, ...stack.labels],
          wish,
          top: 0,
          height: above.height + stack.height
        };
      }
      stacks.push(stack);
    }
    const centres = labels.map(() => 0);
    for (const stack of stacks) {
      let { top } = stack;
      for (const index of stack.labels) {
        const { height } = (
          /** @type {Label} */
          labels[index]
        );
        centres[index] = top + height / 2;
        top += height;
      }
    }
    return centres;
  }
  var lineOf = ({ value, yref, y }) => value ?? (yref === "paper" ? null : y);
  function placedNotes(notes, y, size2) {
    const inSight = notes.filter((note) => {
      const value = lineOf(note);
      return value !== null && value >= y.range[0] && value <= y.range[1];
    });
    const labels = inSight.map((note) => {
      const lines = note.text.split("<br>").length;
      return { centre: y.pixel(lineOf(note) ?? 0), height: lines * size2 * LINE_SPACING + PADDING };
    });
    const centres = spread(labels, y.length);
    return notes.map((note) => {
      const value = lineOf(note);
      if (value === null) return note;
      const n = inSight.indexOf(note);
      const share = n < 0 ? 0 : Number((1 - (centres[n] ?? 0) / y.length).toFixed(4));
      return { ...note, value, yref: "paper", y: share, yanchor: "middle", visible: n >= 0 };
    });
  }
  function placedBands(shapes, y, zones) {
    if (!zones) return shapes;
    const [low, high] = y.range;
    const share = (value) => Number(Math.max(0, Math.min(1, (value - low) / (high - low))).toFixed(4));
    return shapes.map((shape) => {
      if (shape.name === "band-role") return { ...shape, y0: 0, y1: share(zones.low) };
      return shape.name === "band-assistant" ? { ...shape, y0: share(zones.high), y1: 1 } : shape;
    });
  }

  // src/chart.js
  var NARROW_PX = 360;
  var NARROW_MARGIN = 76;
  var PALETTE = [
    "uncapped",
    "capped",
    "steered",
    "card",
    "text",
    "muted",
    "grid",
    "border",
    "role-low",
    "role-mid",
    "role-high"
  ];
  function chartButtons() {
    const svg = {
      name: "Download plot as an SVG",
      icon: Plotly.Icons.disk,
      click: (element) => {
        Plotly.downloadImage(element, { format: "svg", filename: "persona-drift" });
      }
    };
    return [["toImage", svg, "zoom2d", "pan2d", "resetScale2d"]];
  }
  function palette(root2) {
    const style = getComputedStyle(root2);
    const colours = PALETTE.map((name) => [name, style.getPropertyValue(`--stage-${name}`).trim()]);
    return { ...Object.fromEntries(colours), size: Number.parseFloat(style.fontSize) };
  }
  function themedLayout(base2, colours, narrow) {
    const { shapes, annotations, margin, font, xaxis, yaxis } = structuredClone(base2);
    const small = Math.max(10, colours.size * 0.75);
    const scale = small / 12;
    const right = narrow ? NARROW_MARGIN : margin.r;
    for (const axis of [xaxis, yaxis]) axis.title.font = { size: small, color: colours.muted };
    for (const shape of shapes) {
      if (shape.type === "line")
        shape.line.color = shape.name === "line-floor" ? colours.capped : colours.muted;
      else shape.fillcolor = shape.name === "band-role" ? colours["role-low"] : colours["role-high"];
    }
    for (const note of annotations) {
      const floor = note.name === "label-floor";
      note.font = { size: small, color: floor ? colours.capped : colours.muted };
      if (narrow && note.yref !== "paper") note.text = note.text.replace(/ /g, "<br>");
    }
    return {
      shapes,
      annotations,
      margin: { l: margin.l * scale, r: right * scale, t: margin.t * scale, b: margin.b * scale },
      font: { ...font, size: small, color: colours.muted },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.muted, activecolor: colours.text },
      titles: { xaxis: xaxis.title, yaxis: yaxis.title },
      hoverlabel: {
        bgcolor: colours.card,
        bordercolor: colours.border,
        align: "left",
        font: { family: font.family, color: colours.text, size: small + 1 }
      }
    };
  }
  function colourTrace(trace, colours) {
    const colour = trace.meta.branch ? colours[trace.meta.branch] : colours.muted;
    if (trace.line) trace.line.color = colour;
    if (!trace.marker) return;
    trace.marker.color = colour;
    if (trace.marker.line) trace.marker.line.color = colours.card;
  }
  function makeChart(element, root2, config) {
    let state = "empty";
    let narrow = false;
    let colours = palette(root2);
    const traces = () => (
      /** @type {ChartTrace[]} */
      element.data ?? []
    );
    const layoutOf = () => (
      /** @type {ChartLayout | undefined} */
      element.layout
    );
    function applyTheme(figure, data, layout) {
      colours = palette(root2);
      narrow = element.offsetWidth < NARROW_PX;
      const { titles, ...rest } = themedLayout(figure.layout, colours, narrow);
      Object.assign(layout, rest);
      Object.assign(layout.xaxis, { title: titles.xaxis, gridcolor: colours.grid });
      Object.assign(layout.yaxis, { title: titles.yaxis, gridcolor: colours.grid });
      for (const trace of data) colourTrace(trace, colours);
      Object.assign(layout, arranged(layout));
    }
    function arranged({ shapes, annotations, meta, font }) {
      const axes = state === "ready" ? axesOf(element) : null;
      if (!axes) return { shapes, annotations };
      return {
        shapes: placedBands(shapes, axes.y, meta.zones),
        annotations: placedNotes(annotations, axes.y, font.size)
      };
    }
    let base2 = null;
    async function draw(figure, fill) {
      state = "drawing";
      base2 = figure;
      const { data, layout } = structuredClone(figure);
      applyTheme(figure, data, layout);
      if (matchMedia("(pointer: coarse)").matches) layout.dragmode = false;
      fill(data);
      const { offsetWidth, offsetHeight } = element;
      await Plotly.newPlot(element, data, layout, { ...config, modeBarButtons: chartButtons() });
      state = "ready";
      if (element.offsetWidth !== offsetWidth || element.offsetHeight !== offsetHeight) resize();
      arrangeMarks();
    }
    function arrangeMarks() {
      const layout = layoutOf();
      if (state !== "ready" || !layout) return;
      const { shapes, annotations } = layout;
      const wanted = arranged(layout);
      if (JSON.stringify(wanted) !== JSON.stringify({ shapes, annotations })) Plotly.relayout(element, wanted);
    }
    function repaint() {
      const layout = layoutOf();
      if (state !== "ready" || !base2 || !layout) return;
      applyTheme(base2, traces(), layout);
      Plotly.redraw(element);
    }
    function relabel(figure) {
      base2 = figure;
      const layout = layoutOf();
      if (layout) layout.meta = figure.layout.meta;
      repaint();
    }
    function resize() {
      if (state !== "ready" || element.offsetWidth === 0) return;
      if (narrow !== element.offsetWidth < NARROW_PX) repaint();
      Plotly.Plots.resize(element);
    }
    function traceIndex(role, branch) {
      return traces().findIndex((trace) => trace.meta.role === role && trace.meta.branch === branch);
    }
    new ResizeObserver(() => requestAnimationFrame(resize)).observe(element);
    return {
      element,
      traces,
      layout: layoutOf,
      draw,
      relabel,
      repaint,
      arrangeMarks,
      traceIndex,
      colours: () => colours,
      ready: () => state === "ready"
    };
  }

  // src/charts.js
  var PLOTLY_DEADLINE_MS = 6e4;
  function whenPlotly(onLoaded, onMissing) {
    const deadline = Date.now() + PLOTLY_DEADLINE_MS;
    (function poll() {
      if (window.Plotly) onLoaded();
      else if (Date.now() > deadline) onMissing();
      else setTimeout(poll, 100);
    })();
  }

  // classroom/board_data.js
  var EITHER = ["uncapped", "capped"];
  var UPPER = ["Assistant", "own"];
  var BOX_OFFSETS = { uncapped: -0.17, capped: 0.17 };
  function medianOf(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const middle = sorted.length >> 1;
    const [low, high] = [sorted[middle - 1], sorted[middle]];
    if (high === void 0) return null;
    return sorted.length % 2 || low === void 0 ? high : (low + high) / 2;
  }
  var withCap = (pairs) => pairs.filter(({ cap }) => cap);
  var lastTurn = (rows) => Math.max(0, ...rows.map(({ pairs }) => pairs.length));
  function meansAt(rows, turn, branch) {
    return rows.flatMap(({ pairs }) => pairs[turn]?.cap ? pairs[turn]?.[branch] ?? [] : []);
  }
  function linesOf(rows, branch) {
    const points = rows.flatMap(({ student, pairs }) => [
      ...pairs.map((pair, n) => ({ x: n + 1, y: pair.cap ? pair[branch] : null, name: `student ${student}` })),
      { x: null, y: null, name: null }
    ]);
    return {
      x: points.map(({ x }) => x),
      y: points.map(({ y }) => y),
      names: points.map(({ name }) => name)
    };
  }
  function mediansOf(rows, branch) {
    const turns = Array.from({ length: lastTurn(rows) }, (_, n) => n);
    return { x: turns.map((n) => n + 1), y: turns.map((n) => medianOf(meansAt(rows, n, branch))) };
  }
  function boxesOf(rows, branch) {
    const all = rows.flatMap(
      ({ pairs }) => pairs.flatMap(
        (pair, n) => pair[branch] === null || !pair.cap ? [] : [[n + 1 + BOX_OFFSETS[branch], pair[branch]]]
      )
    );
    return { x: all.map(([x = 0]) => x), y: all.map(([, y = 0]) => y) };
  }
  function fillBoard(data, rows) {
    const last = Math.max(4, lastTurn(rows)) + 0.4;
    for (const trace of data) {
      const { role, branch } = trace.meta;
      if (!branch) trace.x = [0.6, last];
      else if (branch !== "steered" && role === "all") {
        const { x, y, names } = linesOf(rows, branch);
        Object.assign(trace, { x, y, customdata: names });
      } else if (branch !== "steered")
        Object.assign(trace, (role === "box" ? boxesOf : mediansOf)(rows, branch));
    }
  }
  function shareOutside(pairs, branch) {
    const zones = withCap(pairs).flatMap((pair) => pair[`${branch}_zone`] ?? []);
    return zones.length ? zones.filter((zone) => !UPPER.includes(zone)).length / zones.length : null;
  }
  function meanLift(pairs) {
    const lifts = withCap(pairs).flatMap(({ lift }) => lift ?? []);
    return lifts.length ? lifts.reduce((sum, lift) => sum + lift, 0) / lifts.length : null;
  }
  var wholePercent = (share) => share === null ? "–" : `${Math.round(100 * share)}%`;
  function tracesOf(kind, frame) {
    const made = EITHER.flatMap((branch) => kind === "boxes" ? [boxTrace(branch)] : [lineTrace(branch)]);
    const medians = kind === "boxes" ? [] : EITHER.map(medianTrace);
    return [...made, ...medians, { ...frame, x: [0.6, 4.4] }];
  }
  var dashOf = (branch) => branch === "uncapped" ? "4px,3px" : "solid";
  var symbolOf = (branch) => branch === "uncapped" ? "circle" : "diamond";
  function lineTrace(branch) {
    return {
      type: "scatter",
      mode: "lines+markers",
      meta: { role: "all", branch },
      x: [],
      y: [],
      opacity: 0.45,
      showlegend: false,
      line: { width: 1.25, dash: dashOf(branch) },
      marker: { symbol: symbolOf(branch), size: 6 },
      hovertemplate: `<b>${branch}</b> %{customdata} · turn %{x}: %{y:.2f}<extra></extra>`
    };
  }
  function medianTrace(branch) {
    return {
      type: "scatter",
      mode: "lines+markers",
      meta: { role: "median", branch },
      x: [],
      y: [],
      showlegend: false,
      line: { width: 4, dash: dashOf(branch) },
      marker: { symbol: symbolOf(branch), size: 11, line: { width: 1.5 } },
      hovertemplate: `<b>${branch}</b> median of turn %{x}: %{y:.2f}<extra></extra>`
    };
  }
  function boxTrace(branch) {
    return {
      type: "box",
      mode: "",
      meta: { role: "box", branch },
      x: [],
      y: [],
      name: branch,
      width: 0.28,
      boxpoints: "all",
      jitter: 0.5,
      pointpos: 0,
      showlegend: false,
      line: { width: 1.5 },
      fillcolor: "rgba(0,0,0,0)",
      marker: { symbol: symbolOf(branch), size: 5, opacity: 0.6 },
      hoverinfo: "y"
    };
  }
  function tilesOf({ rows, students, room, guesses: { right, all } }) {
    const pairs = rows.flatMap((row) => row.pairs);
    const without = pairs.length - withCap(pairs).length;
    const here = students.filter(({ present }) => present);
    const waiting = here.filter(({ seated }) => !seated).length;
    const writing = here.filter((one) => one.writing).length;
    const lift = meanLift(pairs);
    return {
      students: `${here.length - waiting} of ${room}`,
      waiting: [waiting ? `${waiting} waiting` : "", writing ? `${writing} being answered` : ""].filter(Boolean).join(", "),
      turns: String(pairs.length),
      "left-out": without ? `${without} without the cap: left out of the rest` : "",
      "outside-uncapped": wholePercent(shareOutside(pairs, "uncapped")),
      "outside-capped": wholePercent(shareOutside(pairs, "capped")),
      lift: lift === null ? "–" : `${lift > 0 ? "+" : ""}${number(lift)}`,
      guesses: all ? `${right} of ${all}` : "–",
      "guess-share": all ? `${wholePercent(right / all)}; by chance 50%` : "which reply was capped?"
    };
  }

  // classroom/board_charts.js
  var KINDS = (
    /** @type {const} */
    ["lines", "boxes"]
  );
  var CONFIG = { displaylogo: false, plotlyServerURL: "", responsive: false, displayModeBar: false };
  function makeBoardCharts(root2, missing) {
    const charts2 = KINDS.map((kind) => {
      const element = (
        /** @type {PlotElement} */
        find(root2, `#${kind}-chart`)
      );
      return { kind, element, chart: makeChart(element, root2, CONFIG) };
    });
    let base2 = null;
    let rows = [];
    let scheduled = false;
    const begun = /* @__PURE__ */ new Set();
    let drawn = "";
    let axis = "";
    function fill(data) {
      fillBoard(data, rows);
      const frame = data.find(({ meta }) => !meta.branch);
      const values = data.flatMap(({ meta, y }) => meta.branch ? y : []).filter((y) => y !== null);
      if (frame) frame.y = [Math.min(-0.75, ...values) - 0.1, Math.max(1.5, ...values) + 0.1];
    }
    async function begin(element, chart, figure) {
      if (begun.has(chart)) return;
      begun.add(chart);
      await chart.draw(figure, fill);
      if (base2 && base2.layout !== figure.layout) chart.relabel(base2);
      element.on("plotly_afterplot", chart.arrangeMarks);
      schedule();
    }
    function draw() {
      const figure = base2;
      if (!figure || !window.Plotly) return;
      const frame = figure.data.find(({ meta }) => !meta.branch);
      for (const { kind, element, chart } of charts2) {
        if (!element.offsetWidth || !frame) continue;
        if (!chart.ready()) {
          begin(element, chart, { data: tracesOf(kind, frame), layout: figure.layout });
          continue;
        }
        fill(chart.traces());
        const layout = chart.layout();
        if (layout) layout.xaxis.dtick = Math.ceil(Math.max(1, lastTurn(rows)) / 10);
        Plotly.redraw(element);
      }
    }
    function schedule() {
      if (scheduled) return;
      scheduled = true;
      setTimeout(() => {
        scheduled = false;
        draw();
      }, 50);
    }
    whenPlotly(schedule, missing);
    return {
      /** @param {Figure} figure */
      prepare(figure) {
        const words = JSON.stringify(figure);
        if (words === axis) return;
        axis = words;
        base2 = figure;
        for (const { chart } of charts2) if (chart.ready()) chart.relabel(figure);
        schedule();
      },
      /** @param {Row[]} found */
      show(found) {
        const words = JSON.stringify(found);
        if (words === drawn) return;
        drawn = words;
        rows = found;
        schedule();
      },
      repaint: () => {
        for (const { chart } of charts2) chart.repaint();
      },
      /** @param {"svg" | "png"} format */
      picture: (format) => {
        for (const { kind, element } of charts2)
          Plotly.downloadImage(element, { format, filename: `class-${kind}` });
      }
    };
  }

  // classroom/exhibits.js
  var BRANCHES2 = (
    /** @type {const} */
    ["uncapped", "capped"]
  );
  var NAMES = { uncapped: "Uncapped", capped: "Capped" };
  function head({ id, student, turn, shown }, speaker2) {
    const who = `Student ${student}, turn ${turn}`;
    const line = makeElement("header");
    line.append(makeElement("h3", "", shown ? who : `${who} would like to show it`));
    if (!shown) {
      const allow = makeButton("", "Show", `Show ${who}`);
      allow.addEventListener("click", () => speaker2({ do: "allow", exhibit: id }));
      line.append(allow);
    }
    const words = shown ? "Take down" : "Refuse";
    const refuse = makeButton("quiet", words, `${words} ${who}`);
    refuse.addEventListener("click", () => speaker2({ do: "refuse", exhibit: id }));
    line.append(refuse);
    return line;
  }
  function written(tag, className, text) {
    const element = makeElement(tag, className, text);
    element.dir = "auto";
    return element;
  }
  function card(exhibit, speaker2) {
    const article = makeElement("article", exhibit.shown ? "exhibit" : "exhibit asked");
    article.append(head(exhibit, speaker2));
    if (!exhibit.shown) return article;
    article.append(written("p", "user", exhibit.user));
    for (const branch of BRANCHES2) {
      const reply = makeElement("p", `reply ${branch}`);
      reply.append(makeElement("b", "", NAMES[branch]), " ", written("span", "", exhibit[branch]));
      article.append(reply);
    }
    return article;
  }
  function showExhibits(list, exhibits, speaker2) {
    const words = JSON.stringify(exhibits);
    if (list.dataset.words === words) return;
    list.dataset.words = words;
    list.hidden = !exhibits.length;
    list.replaceChildren(...exhibits.map((exhibit) => card(exhibit, speaker2)));
  }

  // classroom/wire.js
  var SPEAKER = "persona-drift-class-speaker";
  var NO_ANSWER = "The server does not answer; try again.";
  var RefusedError = class extends Error {
    /**
     * @param {string} detail
     * @param {number} status
     */
    constructor(detail, status) {
      super(detail);
      this.status = status;
    }
    /**
     * Whether the server of the class says that it does not know this tab, or no longer. Any other status may come
     * from a proxy, or pass.
     */
    get unknown() {
      return [401, 404, 410].includes(this.status);
    }
    /** Whether the speaker has removed the student. */
    get removed() {
      return this.status === 410;
    }
  };
  var sentenceOf = (error, otherwise = NO_ANSWER) => error instanceof RefusedError ? error.message : otherwise;
  var SILENCE_MS = 4e4;
  var base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;
  function fragment() {
    try {
      return decodeURIComponent(location.hash.slice(1)).trim();
    } catch {
      return "";
    }
  }
  var pause = (ms) => new Promise((done) => setTimeout(done, ms));
  async function checked(answer) {
    if (answer.ok) return answer;
    const { detail } = await answer.json().catch(() => ({}));
    const said = typeof detail === "string" && detail;
    throw new RefusedError(said || `The server answered with status ${answer.status}.`, answer.status);
  }
  async function post(path, body, token = "", at = base()) {
    const headers = { "Content-Type": "application/json", "X-Class-Token": token };
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    return (await checked(await fetch(`${at}class/${path}`, init))).json();
  }
  async function get(path, headers) {
    return checked(await fetch(`${base()}class/${path}`, { headers, cache: "no-store" }));
  }
  function eventsIn(text) {
    const parts = text.split("\n\n");
    const rest = parts.pop() ?? "";
    const lines = parts.filter((part) => part.startsWith("data: "));
    return { messages: lines.map((line) => JSON.parse(line.slice(6))), rest };
  }
  async function listen(path, token, take2, signal) {
    const init = { headers: { "X-Class-Token": token }, cache: (
      /** @type {const} */
      "no-store"
    ) };
    const answer = await checked(await fetch(`${base()}class/${path}`, signal ? { ...init, signal } : init));
    if (!answer.body) return;
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (; ; ) {
      const silence = setTimeout(() => reader.cancel().catch(() => {
      }), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const { messages, rest } = eventsIn(text + value);
      text = rest;
      for (const message of messages) {
        try {
          take2(
            /** @type {T} */
            message
          );
        } catch (error) {
          reportError(error);
        }
      }
    }
  }
  function stored(name) {
    try {
      return JSON.parse(sessionStorage.getItem(name) ?? "null");
    } catch {
      return null;
    }
  }
  function store(name, value) {
    try {
      if (value === null) sessionStorage.removeItem(name);
      else sessionStorage.setItem(name, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }
  function save(name, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(content);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
  }

  // classroom/lesson_dialog.js
  function makeLessonDialog(root2, speaker2) {
    const dialog2 = findAs(root2, "dialog.lesson", HTMLDialogElement);
    const scenario = findAs(dialog2, ".scenario", HTMLSelectElement);
    const prompt = findAs(dialog2, "textarea", HTMLTextAreaElement);
    const field = (name) => findAs(dialog2, `.${name}`, HTMLInputElement);
    const [cap, guess, seed, ownSeeds] = [field("cap"), field("guess"), field("seed"), field("own-seeds")];
    const room = field("room");
    const leaver = findAs(dialog2, ".remove", HTMLSelectElement);
    const button = (name) => findAs(dialog2, `.${name}`, HTMLButtonElement);
    let scenarios = [];
    async function ask(...asked) {
      try {
        for (const one of asked) await speaker2(one);
        dialog2.close();
      } catch (error) {
        find(dialog2, ".problem").textContent = sentenceOf(error);
      }
    }
    const lesson = () => ({
      do: "lesson",
      scenario: scenario.value,
      system_prompt: prompt.value,
      cap: cap.checked,
      guess: guess.checked,
      seed: Number(seed.value),
      own_seeds: ownSeeds.checked
    });
    button("next").addEventListener("click", () => ask(lesson()));
    askTwice(
      button("anew"),
      () => "Clear all conversations? Press again",
      () => ask(lesson(), { do: "clear" })
    );
    button("close").addEventListener("click", () => dialog2.close());
    button("set-room").addEventListener("click", () => ask({ do: "room", room: Number(room.value) }));
    askTwice(
      button("send-away"),
      () => leaver.value ? "Remove? Press again" : "",
      () => leaver.value && ask({ do: "remove", student: Number(leaver.value) })
    );
    scenario.addEventListener("change", () => {
      const found = scenarios.find(({ id }) => id === scenario.value);
      prompt.value = found?.prompt ?? "";
      seed.value = String(found?.seed ?? 0);
    });
    return {
      /** @param {DoorMessage["scenarios"]} found */
      offer(found) {
        scenarios = found;
        const options = found.map(({ id, title }) => new Option(title, id));
        const { value } = scenario;
        scenario.replaceChildren(new Option("none", ""), ...options);
        scenario.value = found.some(({ id }) => id === value) ? value : "";
      },
      /** @param {BoardMessage} board */
      open(board2) {
        scenario.value = board2.lesson.scenario;
        prompt.value = board2.lesson.system_prompt;
        cap.checked = board2.lesson.cap;
        guess.checked = board2.lesson.guess;
        seed.value = String(board2.lesson.seed);
        ownSeeds.checked = board2.lesson.own_seeds !== false;
        room.value = String(board2.room);
        const students = board2.students.map(
          (one) => new Option(`${one.number}${one.present ? "" : ", away"}`, String(one.number))
        );
        leaver.replaceChildren(new Option("choose…", ""), ...students, new Option("all", "0"));
        find(dialog2, ".problem").textContent = "";
        dialog2.showModal();
      }
    };
  }

  // classroom/notices.js
  var ORDER = ["lost", "fault", "news", "room"];
  function makeNotices(line, otherwise = () => "") {
    const said = { lost: "", fault: "", news: "", room: "" };
    function show() {
      const kind = ORDER.find((one) => said[one]);
      const text = kind ? said[kind] : otherwise();
      if (line.textContent !== text) line.textContent = text;
      line.classList.toggle("error", Boolean(kind) && kind !== "news");
    }
    return {
      show,
      /**
       * @param {Kind} kind
       * @param {string} text empty to take it back
       */
      say(kind, text) {
        said[kind] = text;
        show();
      }
    };
  }

  // classroom/board.js
  var AGAIN_MS = 1500;
  var CLOSED = "This is the speaker’s page. Open the address that the program has printed when it started. After a restart, open the new one in this tab: the class comes back.";
  var LOST = "The connection was lost; trying again…";
  var RESTORED = "The server was restarted; the class is back, as this tab had stored it.";
  var NOT_KEPT = "This tab has no room left to keep the class, so a restart of the program would end it. Save the results.";
  var root = document.body;
  var results = findAs(root, ".results", HTMLSelectElement);
  var kept = stored(SPEAKER) ?? { secret: "", base: base(), board: null };
  var board = null;
  var restoring = false;
  var stream = new AbortController();
  var goOn = () => {
  };
  var notices = makeNotices(find(root, ".notice"));
  var charts = makeBoardCharts(root, () => notices.say("news", "The plotting script could not be loaded."));
  var dialog = makeLessonDialog(root, (asked) => post("speaker", asked, kept.secret));
  async function speaker(asked) {
    notices.say("fault", "");
    notices.say("news", "");
    try {
      await post("speaker", asked, kept.secret);
      return true;
    } catch (error) {
      notices.say("fault", sentenceOf(error));
      return false;
    }
  }
  function showAddress(address) {
    const parts = address.replace(/^https?:\/\//, "").split("/");
    const line = find(root, ".address");
    line.replaceChildren();
    for (const [n, part] of parts.entries()) line.append(...n ? [makeElement("wbr"), `/${part}`] : [part]);
  }
  function showDoor(door) {
    find(root, ".qr").innerHTML = door.qr;
    find(root, ".qr").firstElementChild?.setAttribute("aria-hidden", "true");
    showAddress(door.address);
    find(root, ".code").textContent = door.code;
    find(root, ".code").setAttribute("aria-label", [...door.code].join(" "));
    find(root, ".model").textContent = door.model;
    const assistant2 = door.figure.layout.meta.assistant !== false;
    nameAxis(assistant2);
    const zone = assistant2 ? "the Assistant’s zone" : "the zone of own replies";
    find(root, ".zone-name").textContent = `Outside ${zone}, uncapped`;
    dialog.offer(door.scenarios);
    charts.prepare(door.figure);
    find(root, ".unreachable").hidden = door.reachable;
  }
  function mark(name, on) {
    if (root.classList.contains(name) !== on) root.classList.toggle(name, on);
  }
  function showBoard(found) {
    for (const [name, text] of Object.entries(tilesOf(found))) find(root, `.tile-${name}`).textContent = text;
    find(root, ".lesson-name").textContent = lessonName(found);
    const paused = findAs(root, ".pause", HTMLButtonElement);
    paused.textContent = found.paused ? "Resume" : "Pause";
    paused.setAttribute("aria-pressed", String(found.paused));
    find(root, ".pause-mark").hidden = !found.paused;
    find(root, ".charts-empty").hidden = found.rows.some(({ pairs }) => pairs.length > 0);
    showExhibits(find(root, ".exhibits"), found.shown, speaker);
    charts.show(found.rows);
  }
  function lessonName({ lesson }) {
    const parts = [lesson.title || (lesson.system_prompt ? "a system prompt" : "free chat")];
    const seed = `seed ${lesson.seed}${lesson.own_seeds === false ? " for all" : ""}`;
    parts.push(lesson.cap ? "cap on" : "cap off", seed);
    if (!lesson.guess) parts.push("no guessing");
    return parts.join(" · ");
  }
  function take(message) {
    mark("open", true);
    notices.say("lost", "");
    if (message.type === "door") showDoor(message);
    else if (restoring) return;
    else if (kept.board && isForgotten(kept.board, message)) restore(kept.board);
    else {
      board = message;
      const { id, code, lesson, paused, rows } = message;
      kept = { ...kept, board: { id, code, lesson, paused, rows } };
      keep();
      showBoard(message);
    }
  }
  var isForgotten = (before, message) => before.id !== message.id && !message.students.length && !message.rows.length;
  async function restore(before) {
    restoring = true;
    const { id, code, lesson, paused, rows } = before;
    try {
      await post("speaker", { do: "restore", class: id, code, lesson, paused, rows }, kept.secret);
      notices.say("news", RESTORED);
    } catch (error) {
      const refused = error instanceof RefusedError && error.status < 500;
      notices.say(refused ? "fault" : "lost", sentenceOf(error, LOST));
      if (refused) kept = { ...kept, board: null };
      else await pause(AGAIN_MS);
    }
    restoring = false;
    stream.abort();
  }
  function keep() {
    notices.say("room", store(SPEAKER, kept) ? "" : NOT_KEPT);
  }
  async function connect() {
    for (; ; ) {
      stream = new AbortController();
      const { signal } = stream;
      try {
        await listen(`board/events?from=${encodeURIComponent(location.origin)}`, kept.secret, take, signal);
        if (!signal.aborted) notices.say("lost", LOST);
      } catch (error) {
        if (!signal.aborted) await failed(error);
      }
      if (!signal.aborted) await pause(AGAIN_MS);
    }
  }
  async function failed(error) {
    if (!(error instanceof RefusedError) || !error.unknown) {
      notices.say("lost", LOST);
      return;
    }
    try {
      const { secret } = await post("start", {});
      kept = { ...kept, secret: String(secret), base: base() };
      keep();
    } catch (refused) {
      if (!(refused instanceof RefusedError) || ![401, 403, 404, 410].includes(refused.status)) {
        notices.say("lost", LOST);
        return;
      }
      mark("open", false);
      find(root, ".closed").textContent = CLOSED;
      notices.say("lost", "");
      await new Promise((done) => {
        goOn = () => done(void 0);
      });
    }
  }
  async function saveResults() {
    const kind = results.value;
    results.value = "";
    if (kind === "svg" || kind === "png") charts.picture(kind);
    else if (kind) {
      try {
        const answer = await get(`results.${kind}`, { "X-Class-Token": kept.secret });
        save(`class.${kind}`, await answer.blob());
      } catch (error) {
        notices.say("fault", sentenceOf(error));
      }
    }
  }
  find(root, ".pause").addEventListener("click", () => {
    if (!board) return;
    board.paused = !board.paused;
    speaker({ do: "pause", paused: board.paused });
  });
  find(root, ".set").addEventListener("click", () => board && dialog.open(board));
  askTwice(
    findAs(root, ".clear", HTMLButtonElement),
    () => "Clear all? Press again",
    () => speaker({ do: "clear" })
  );
  askTwice(
    findAs(root, ".new-code", HTMLButtonElement),
    () => "Another code? Press again",
    () => speaker({ do: "code" })
  );
  find(root, ".stage").addEventListener("click", () => {
    store(SPEAKER, { ...kept, base: base() });
    window.open(base());
  });
  results.addEventListener("change", saveResults);
  var size = "";
  addEventListener("resize", () => {
    const found = getComputedStyle(root).fontSize;
    if (found !== size) charts.repaint();
    size = found;
  });
  new MutationObserver(charts.repaint).observe(root, { attributes: true, attributeFilter: ["class"] });
  function arrive() {
    const given = fragment();
    if (!given) return;
    kept = { ...kept, secret: given, base: base() };
    keep();
    history.replaceState(null, "", location.pathname);
    stream.abort();
    goOn();
  }
  addEventListener("hashchange", arrive);
  arrive();
  connect();
})();

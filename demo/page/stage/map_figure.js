// The persona map as Plotly traces and a layout. Takes data and returns figures; uses neither the DOM nor Plotly.

const MAP_VIEWS = { 12: [0, 1], 13: [0, 2], "3d": [0, 1, 2] }; // by view: the components along x, y and z
const MAP_MARGIN = { l: 46, r: 8, t: 6, b: 38 };
const MAP_EXTREMES = 3; // the number of roles labelled at either end of the axis
const TRAIL_TURNS = 8;
const MAP_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif";
const COORDINATES = ["x", "y", "z"];

const escapeHtml = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const is3d = (view) => MAP_VIEWS[view].length === 3;

// A colour mixed with its background, and opaque, because WebGL blends translucent lines differently. Both are #rrggbb.
function faded(colour, background, share) {
  const part = (hex, start) => parseInt(hex.slice(start, start + 2), 16);
  const mix = (start) => Math.round(share * part(colour, start) + (1 - share) * part(background, start));
  return `rgb(${[1, 3, 5].map(mix).join(",")})`;
}

function columns(places, view) {
  return Object.fromEntries(MAP_VIEWS[view].map((part, n) => [COORDINATES[n], places.map((place) => place[part])]));
}

function extremeRoles(roles) {
  const order = [...roles].sort((a, b) => a[2] - b[2]);
  return order.filter((_, index) => index < MAP_EXTREMES || index >= order.length - MAP_EXTREMES);
}

// The last turns of one branch up to the one that is shown, oldest first. The last point is the current reply.
function trailOf(turns, branch, shown) {
  const points = [];
  turns.slice(0, (shown ?? -1) + 1).forEach((turn, index) => {
    const { place, finish } = turn.replies[branch];
    if (place) points.push({ place, turn: index, live: finish === null });
  });
  return points.slice(-TRAIL_TURNS);
}

// The part of a trail's trace that changes while a reply is being written.
function trailPlaces(points, view) {
  const customdata = points.map((point) => `turn ${point.turn + 1}${point.live ? ", so far" : ""}`);
  return { ...columns(points.map((point) => point.place), view), customdata };
}

function trailMarkers(points, view, colour, background) {
  const last = points.length - 1;
  const each = (current, earlier) => points.map((_, index) => (index === last ? current : earlier(last - index)));
  const [large, small] = is3d(view) ? [11, 5] : [17, 7];
  return {
    size: each(large, () => small),
    color: each(colour, (age) => faded(colour, background, Math.max(0.2, 0.8 - 0.1 * age))),
  };
}

// A box around all places, by component of the view: [[low, high], ...].
function boundsOf(places, view) {
  return MAP_VIEWS[view].map((part) => {
    const values = places.map((place) => place[part]);
    const low = Math.min(...values), high = Math.max(...values);
    const pad = 0.06 * (high - low || 1);
    return [low - pad, high + pad];
  });
}

// Widens one of the two ranges so that a unit is as long in x as in y; otherwise the axis would have a wrong angle.
function fitRanges([x, y], width, height) {
  const scale = Math.max((x[1] - x[0]) / width, (y[1] - y[0]) / height);
  const widened = ([low, high], pixels) => {
    const extra = (scale * pixels - (high - low)) / 2;
    return [low - extra, high + extra];
  };
  return [widened(x, width), widened(y, height)];
}

// Where a label can lie beside its point: [right, down].
const LABEL_SIDES = {
  "middle right": [1, 0], "middle left": [-1, 0], "top center": [0, -1], "bottom center": [0, 1],
  "top right": [1, -1], "bottom right": [1, 1], "top left": [-1, -1], "bottom left": [-1, 1],
};

function labelBox(at, [right, down], width, height, gap) {
  const x = at[0] + right * (gap + width / 2) - width / 2;
  const y = at[1] + down * (gap + height / 2) - height / 2;
  return { left: x, top: y, right: x + width, bottom: y + height };
}

const boxesOverlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
const boxContains = (box, [x, y]) => box.left <= x && x <= box.right && box.top <= y && y <= box.bottom;

// Chooses the side of its point for each label, so that no label overlaps another or the edge and as few dots as
// possible are covered. labels: {text, at: [x, y] in pixels, gap}, the most important first. A label that fits nowhere
// is left out.
function placeLabels(labels, dots, frame, textWidth, lineHeight) {
  const taken = [];
  const placed = [];
  for (const label of labels) {
    let best = null;
    for (const [side, direction] of Object.entries(LABEL_SIDES)) {
      const box = labelBox(label.at, direction, textWidth(label.text), lineHeight, label.gap);
      const inside = box.left >= 0 && box.top >= 0 && box.right <= frame.width && box.bottom <= frame.height;
      if (!inside || taken.some((other) => boxesOverlap(box, other))) continue;
      const cost = dots.filter((dot) => boxContains(box, dot)).length;
      if (!best || cost < best.cost) best = { ...label, side, box, cost };
    }
    if (!best) continue;
    taken.push(best.box);
    placed.push(best);
  }
  return placed;
}

// The labels of the 2-D map with their sides, for a plotting area of `area` pixels that shows `ranges`.
function labels2d(map, view, ranges, area, textWidth, lineHeight) {
  const parts = MAP_VIEWS[view];
  const toPixels = (place) => [
    ((place[parts[0]] - ranges[0][0]) / (ranges[0][1] - ranges[0][0])) * area.width,
    ((ranges[1][1] - place[parts[1]]) / (ranges[1][1] - ranges[1][0])) * area.height,
  ];
  const roles = extremeRoles(map.roles).sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
  const wanted = [
    { text: "default Assistant", place: map.default, gap: 9 },
    ...roles.map(([name, place]) => ({ text: name, place, gap: 4 })),
    { text: "average role", place: [0, 0, 0], gap: 7 },
  ];
  const labels = wanted.map((label) => ({ ...label, at: toPixels(label.place) }));
  // The arrow counts as a row of dots.
  const arrow = Array.from({ length: 40 }, (_, step) => map.default.map((value) => (value * step) / 40));
  const dots = [...map.roles.map((role) => role[1]), ...arrow].map(toPixels);
  return placeLabels(labels, dots, area, textWidth, lineHeight);
}

// In 3-D the user turns the map, so labels cannot be kept apart: only the most important ones are shown.
function labels3d(map) {
  const order = extremeRoles(map.roles);
  const ends = [order[0], order[order.length - 1]];
  const roles = ends.map(([text, place]) => ({ text, place, side: "bottom center", gap: 3 }));
  return [{ text: "default Assistant", place: map.default, side: "top center", gap: 4 }, ...roles];
}

function roleTrace(map, view, colours, base) {
  const reach = Math.max(...map.roles.map((role) => Math.abs(role[2])), 1e-6);
  return {
    ...base, ...columns(map.roles.map((role) => role[1]), view), meta: { role: "roles" }, mode: "markers",
    customdata: map.roles.map(([name, , projection]) => [escapeHtml(name), number(projection)]),
    hovertemplate: "<b>%{customdata[0]}</b><br>projection %{customdata[1]} (axis units)<extra></extra>",
    marker: {
      size: is3d(view) ? 3.5 : 6, opacity: 0.8, color: map.roles.map((role) => role[2]), cmin: -reach, cmax: reach,
      colorscale: [[0, colours["role-low"]], [0.5, colours["role-mid"]], [1, colours["role-high"]]],
      showscale: false, line: { width: 0 },
    },
  };
}

function axisTrace(map, view, colours, base) {
  const arrow = {
    symbol: "arrow", angleref: "previous", size: [0, 13], standoff: [0, 8], color: colours.text, opacity: 1,
  };
  return {
    ...base, ...columns([[0, 0, 0], map.default], view), meta: { role: "axis" }, hoverinfo: "skip",
    mode: is3d(view) ? "lines" : "lines+markers", line: { color: colours.text, width: is3d(view) ? 5 : 1.75 },
    ...(is3d(view) ? {} : { marker: arrow }),
  };
}

function landmarkTrace(map, view, colours, base) {
  const symbol = is3d(view) ? ["x", "cross"] : ["x-thin-open", "star"];
  return {
    ...base, ...columns([[0, 0, 0], map.default], view), meta: { role: "landmarks" }, mode: "markers",
    customdata: ["average role", "default Assistant"], hovertemplate: "<b>%{customdata}</b><extra></extra>",
    marker: {
      symbol, size: is3d(view) ? [4, 7] : [9, 16], color: colours.text, opacity: 1,
      line: { width: is3d(view) ? 0 : [2, 1], color: is3d(view) ? colours.card : [colours.text, colours.card] },
    },
  };
}

function labelTrace(labels, view, colours, base, size) {
  const halo = `0 0 2px ${colours.card}, 0 0 4px ${colours.card}`;
  return {
    ...base, ...columns(labels.map((label) => label.place), view), meta: { role: "labels" }, mode: "markers+text",
    marker: { size: labels.map((label) => 2 * label.gap), opacity: 0 }, // invisible: it keeps the text off the point
    text: labels.map((label) => escapeHtml(label.text)), textposition: labels.map((label) => label.side),
    textfont: { size, color: colours.text, ...(is3d(view) ? {} : { shadow: halo }) },
    hoverinfo: "skip", ...(is3d(view) ? {} : { cliponaxis: false }),
  };
}

function branchTrace(points, branch, view, colours, base) {
  const dash = is3d(view) && branch !== "capped" ? "dash" : DASHES[branch];
  return {
    ...base, ...trailPlaces(points, view), meta: { role: "reply", branch }, mode: "lines+markers",
    ...(is3d(view) ? {} : { cliponaxis: false }),
    hovertemplate: `<b>${branch}</b> · %{customdata}<br>mean of the reply<extra></extra>`,
    line: { color: faded(colours[branch], colours.card, 0.5), width: is3d(view) ? 3 : 1.5, dash },
    marker: {
      ...trailMarkers(points, view, colours[branch], colours.card),
      symbol: SYMBOLS[branch], opacity: 1,
      line: { color: colours.card, width: is3d(view) ? 0 : 1.5 },
    },
  };
}

// labels: the result of labels2d or labels3d. The last traces, one per branch, are the ones that move.
function mapTraces(map, trails, view, colours, labels, size) {
  const base = { type: is3d(view) ? "scatter3d" : "scatter", showlegend: false };
  const replies = BRANCHES.map((branch) => branchTrace(trails[branch], branch, view, colours, base));
  const fixed = [roleTrace, axisTrace, landmarkTrace].map((build) => build(map, view, colours, base));
  return [...fixed, labelTrace(labels, view, colours, base, size), ...replies];
}

function componentTitle(map, part, view) {
  const share = map.variance.length ? ` (${Math.round(100 * map.variance[part])}%)` : "";
  const toward = part === 0 && !is3d(view) ? ", Assistant’s side →" : "";
  return `PC${part + 1}${share}${toward}`;
}

// Far enough away for the names of the axes to be visible in a narrow box. ratio: its width divided by its height.
function cameraFor(ratio) {
  const far = Math.min(1.8, Math.max(1, 1.3 / ratio));
  return { eye: { x: 0.75 * far, y: -1.95 * far, z: 0.75 * far }, center: { x: -0.02, y: 0, z: -0.12 } };
}

function mapLayout(map, view, colours, ranges, size, ratio) {
  const font = { family: MAP_FONT, size, color: colours.muted };
  const axes = MAP_VIEWS[view].map((part, n) => ({
    range: ranges[n],
    title: { text: componentTitle(map, part, view), standoff: 4, font },
    gridcolor: colours.grid, color: colours.muted,
    zeroline: false, showline: false, ticks: "", nticks: is3d(view) ? 5 : 7,
  }));
  const clear = "rgba(0,0,0,0)";
  const layout = {
    paper_bgcolor: clear, plot_bgcolor: clear, font, showlegend: false, hovermode: "closest", uirevision: view,
    margin: is3d(view) ? { l: 0, r: 0, t: 0, b: 0 } : MAP_MARGIN,
    modebar: { bgcolor: clear, color: colours.muted, activecolor: colours.text },
    hoverlabel: {
      bgcolor: colours.card, bordercolor: colours.border, align: "left",
      font: { ...font, color: colours.text, size: size + 1 },
    },
  };
  if (is3d(view)) {
    const [xaxis, yaxis, zaxis] = axes.map((axis) => ({ ...axis, backgroundcolor: clear, showspikes: false }));
    return { ...layout, scene: { xaxis, yaxis, zaxis, aspectmode: "data", camera: cameraFor(ratio) } };
  }
  return { ...layout, xaxis: axes[0], yaxis: { ...axes[1], scaleanchor: "x" } };
}

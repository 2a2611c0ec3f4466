// Scatter, roofline and heat map. Points carry data-id; main.js gives them their behaviour.
const WIDTH = 420, HEIGHT = 330, LEFT = 52, RIGHT = 14, TOP = 12, BOTTOM = 42;

function ticks(low, high) {
  const steps = (multiples) => {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
      for (const m of multiples) { const t = m * 10 ** e; if (t >= low && t <= high) found.push(t); }
    return found;
  };
  const found = steps([1, 2, 5]);
  if (found.length < 3) return steps([1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]);
  if (found.length <= 6) return found;
  const tens = found.filter((t) => Math.abs(Math.log10(t) - Math.round(Math.log10(t))) < 1e-9);
  return tens.length >= 2 ? tens : found.filter((_, i) => i % 2 === 0);
}
function range(values, margin) {
  const low = Math.min(...values), high = Math.max(...values);
  const wide = Math.max(high / low, 1.6), middle = Math.sqrt(low * high);
  return [middle / Math.sqrt(wide) / margin, middle * Math.sqrt(wide) * margin];
}
function axes(xs, ys, xTitle, yTitle) {
  const at = (value, [low, high], from, to) => from + (Math.log(value / low) / Math.log(high / low)) * (to - from);
  const x = (value) => at(value, xs, LEFT, WIDTH - RIGHT), y = (value) => at(value, ys, HEIGHT - BOTTOM, TOP);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  for (const t of ticks(...xs)) picture.append(
    svg("line", { class: "axis", x1: x(t), x2: x(t), y1: TOP, y2: HEIGHT - BOTTOM }),
    svg("text", { x: x(t), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, tick(t)));
  for (const t of ticks(...ys)) picture.append(
    svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(t), y2: y(t) }),
    svg("text", { x: LEFT - 7, y: y(t) + 4, "text-anchor": "end" }, tick(t)));
  picture.append(
    svg("text", { class: "title", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, xTitle),
    svg("text", { class: "title", transform: `translate(12 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle));
  return { picture, x, y };
}
const tick = (t) => (t >= 1000 ? short(t) : String(+t.toPrecision(2)));

function empty(...lines) {
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  lines.forEach((line, i) => picture.append(svg("text", { class: "empty", x: WIDTH / 2, y: HEIGHT / 2 + 18 * i, "text-anchor": "middle" }, line)));
  return picture;
}
// Slow ones first, so that the fast ones lie on top.
const stacked = (list) => [...list].sort((a, b) => b.time - a.time);
function point(v, x, y, r) {
  const node = mark(v, x, y, r);
  node.dataset.id = v.id;
  node.dataset.x = x;
  node.dataset.y = y;
  return node;
}

function scatter() {
  put("scatter-note", measured.length ? data.correlations.map((c) => c.replace("rank correlation with the times: ", "")).join(" · ") || "too few times for a rank correlation" : "");
  if (data.correlations.length) document.getElementById("scatter-note").prepend("rank correlation: ");
  if (!measured.length) return put("scatter", empty("Nothing was measured.", "Give it time: --budget 60"));
  const { picture, x, y } = axes(range(measured.map((v) => v.predicted), 1.15), range(measured.map((v) => v.us), 1.15), "predicted (µs)", "measured (µs)");
  const ends = [Math.max(inverse(x, LEFT), inverse(y, HEIGHT - BOTTOM)), Math.min(inverse(x, WIDTH - RIGHT), inverse(y, TOP))];
  if (ends[0] < ends[1]) picture.append(
    svg("line", { class: "guide", x1: x(ends[0]), y1: y(ends[0]), x2: x(ends[1]), y2: y(ends[1]) }),
    svg("text", { x: x(ends[1]) - 8, y: y(ends[1]) + 16, "text-anchor": "end" }, "as predicted"));
  for (const v of stacked(measured)) picture.append(point(v, x(v.predicted), y(v.us), 5));
  picture.setAttribute("aria-label", `${measured.length} measured dataflows: predicted against measured microseconds`);
  put("scatter", picture);
}
// The value at a place of a logarithmic axis, from two of its points.
function inverse(axis, place) {
  const a = axis(1), b = axis(10);
  return 10 ** ((place - a) / (b - a));
}

const COUNTED = {
  bytes: { name: "from beyond L1", title: "per byte from beyond L1, predicted", roofs: (b) => b.level !== "L1" },
  moved: { name: "into registers", title: "per byte of vector loads and stores, predicted", roofs: (b) => b.level === "L1" },
};
let counted = "bytes";

function roofline() {
  put("bytes", el("span", { class: "soft" }, "bytes counted: "), ...Object.entries(COUNTED).map(([key, c]) =>
    el("button", { type: "button", "aria-pressed": String(key === counted), onclick: () => { counted = key; roofline(); marked(); } }, c.name)));
  const shown = variants.filter((v) => v.state !== "failed" && v[counted] > 0);
  if (!shown.length) return put("roofline", empty("No dataflow was predicted."));
  const of = (v) => data.macs / v[counted];
  const roofs = data.bandwidth.filter(COUNTED[counted].roofs);
  const xs = range(shown.map(of), 2);
  const tops = data.peak ? [data.peak] : roofs.map((b) => b.rate * xs[1]);
  const [low] = range(shown.map((v) => v.rate), 1.3);
  const { picture, x, y } = axes(xs, [low, Math.max(...tops, ...shown.map((v) => v.rate)) * 2.2], `${unit}s ${COUNTED[counted].title}`, `G${unit}/s`);
  const labels = [];
  for (const b of roofs) {
    const right = data.peak ? Math.min(xs[1], data.peak / b.rate) : xs[1], left = Math.max(xs[0], low / b.rate);
    if (left >= right) continue;
    const [x1, y1, x2, y2] = [x(left), y(left * b.rate), x(right), y(right * b.rate)];
    picture.append(svg("line", { class: "roof", x1, y1, x2, y2 }));
    const tilt = (Math.atan2(y2 - y1, x2 - x1) * 180) / Math.PI;
    const below = roofs.indexOf(b) === 1; // on the other side than its neighbours
    if (Math.hypot(x2 - x1, y2 - y1) > 90) labels.push(svg("text", { class: "halo", transform: `translate(${x1} ${y1}) rotate(${tilt})`, x: 14, y: below ? 13 : -5 }, `${b.level} ${digits(b.rate)} GB/s`));
  }
  if (data.peak) picture.append(svg("line", { class: "roof", x1: LEFT, x2: WIDTH - RIGHT, y1: y(data.peak), y2: y(data.peak) }));
  if (data.peak) labels.push(
    svg("text", { class: "halo", x: LEFT + 6, y: y(data.peak) - 7 }, `measured peak ${digits(data.peak)} G${unit}/s`));
  for (const v of stacked(shown)) picture.append(point(v, x(of(v)), y(v.rate), v.us === null ? 2.2 : 5));
  picture.append(...labels);
  picture.setAttribute("aria-label", `Roofline with ${shown.length} dataflows`);
  put("roofline", picture);
}

const CIVIDIS = [[253, 231, 69], [212, 193, 91], [165, 156, 116], [122, 119, 120], [74, 83, 108], [0, 48, 110]];
function shade(part) {
  const at = Math.min(Math.max(part, 0), 1) * (CIVIDIS.length - 1), i = Math.min(Math.floor(at), CIVIDIS.length - 2);
  const color = CIVIDIS[i].map((c, k) => Math.round(c + (CIVIDIS[i + 1][k] - c) * (at - i)));
  // The WCAG's luminance: above 0.18, black is the more readable ink.
  const [r, g, b] = color.map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return { background: `rgb(${color})`, ink: 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000000" : "#ffffff" };
}
function heat() {
  const list = measured.length ? measured : variants.filter((v) => v.state !== "failed");
  put("heat-note", list.length ? `best ${measured.length ? "measured" : "predicted"} time in µs; select a cell to filter` : "");
  const best = new Map();
  for (const v of list) { const key = v.anchor + "|" + v.aux; if (!best.has(key) || v.time < best.get(key).time) best.set(key, v); }
  const kinds = unique("aux"), times = [...best.values()].map((v) => v.time);
  const [low, high] = [Math.min(...times), Math.max(...times)];
  const cell = (anchor, aux) => {
    const v = best.get(anchor + "|" + aux);
    if (!v) return el("td", { class: "none", title: variants.some((u) => u.anchor === anchor && u.aux === aux) ? "none was measured" : "none is in the sample" }, "–");
    const c = shade(Math.log(v.time / low) / Math.log(Math.max(high / low, 2)));
    return el("td", {}, el("button", { type: "button", style: `background:${c.background};color:${c.ink}`, "data-anchor": anchor, "data-aux": aux, "data-best": v.id, "aria-pressed": "false",
      "aria-label": `anchor ${anchor}, auxiliary ${aux}: ${microseconds(v.time)}` }, digits(v.time), el("small", {}, v.time === low ? "fastest" : `${digits(v.time / low)}×`)));
  };
  if (!list.length) return put("heat", el("p", { class: "soft" }, "No dataflow has a time."));
  put("heat", el("table", {},
    el("thead", {}, el("tr", {}, el("td", {}), el("th", { colspan: kinds.length, class: "over" }, "auxiliary registers for")),
      el("tr", {}, el("th", { scope: "col", class: "side" }, "anchor"), ...kinds.map((k) => el("th", { scope: "col" }, k.replaceAll("+", ", "))))),
    el("tbody", {}, ...anchors.map((a) => el("tr", {}, el("th", { scope: "row" }, el("span", { class: "dot a" + (anchors.indexOf(a) % 4) }), a), ...kinds.map((k) => cell(a, k)))))));
}

function legend() {
  const picture = (v) => svg("svg", { width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" }, mark(v, 7, 7, 5));
  const sample = { anchor: anchors[0] ?? "out", aux: "none" };
  put("legend", ...anchors.map((a) => el("span", {}, picture({ anchor: a, aux: "x" }), `anchor ${a}`)),
    el("span", {}, picture(sample), "hollow: no auxiliary registers"),
    measured.length && measured.length < variants.length ? el("span", {}, "small: predicted only") : null);
}

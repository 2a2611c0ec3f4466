// Filters and the table of dataflows.
const state = { anchor: "", aux: "", lanes: "", text: "", measured: false, key: "place", down: false, selected: null, near: null };
const TIMED = new Set(["us", "spread", "ratio", "rate", "share"]); // empty where nothing was measured
const COLUMNS = [
  ["place", "#", (v) => String(v.place)],
  ["short", "dataflow", (v) => v.short, "left"],
  ["us", "measured", (v) => (v.state === "failed" ? "no time" : microseconds(v.us))],
  ["spread", "spread", (v) => (v.spread === null ? "–" : percent(v.spread))],
  ["predicted", "predicted", (v) => microseconds(v.predicted)],
  ["ratio", "ratio", (v) => digits(v.ratio)],
  ["rate", `G${unit}/s`, (v) => (v.us === null ? "–" : digits(v.rate))],
  ["share", "of peak", (v) => percent(v.share)],
  ["operations", "mem. ops", (v) => short(v.operations)],
  ["registers", "regs.", (v) => String(v.registers)],
  ["bound", "bound by", (v) => v.bound, "left"],
].filter(([key]) => (key !== "share" || data.peak) && (variants.some((v) => v.us !== null || v.why) || !TIMED.has(key)));
const LONG = { spread: "(median - minimum) / minimum of the calls", operations: "vector memory operations of a call, by YFlows' heuristic", bound: "what the cost model says the time goes to",
  registers: "vector registers planned", ratio: "measured time over predicted time", predicted: "cost model, at the measured clock" };

function fits(v) {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${v.short} ${v.bound} ${v.flow}`.toLowerCase();
  return (!state.anchor || v.anchor === state.anchor) && (!state.aux || v.aux === state.aux) && (!state.lanes || v.lanes === state.lanes)
    && (!state.measured || v.us !== null) && words.every((w) => text.includes(w));
}
function compared(a, b) {
  const [x, y] = [a[state.key], b[state.key]];
  if (x === y || (x === null && y === null)) return a.id - b.id;
  if (x === null) return 1; // what has no value stays at the end
  if (y === null) return -1;
  const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  return state.down ? -order : order;
}
const visible = () => variants.filter(fits).sort(compared);

function filters() {
  const choice = (name, label, values) => values.length < 2 ? null : el("label", {}, label,
    el("select", { id: "by-" + name, onchange: (event) => { state[name] = event.target.value; changed(); } },
      el("option", { value: "" }, "all"), ...values.map((x) => el("option", { value: x }, x))));
  put("filters",
    choice("anchor", "anchor", anchors), choice("aux", "auxiliary", unique("aux")), choice("lanes", "lanes", unique("lanes")),
    measured.length && measured.length < variants.length ? el("label", {}, el("input", { id: "by-measured", type: "checkbox", onchange: (event) => { state.measured = event.target.checked; changed(); } }), "measured only") : null,
    el("input", { id: "by-text", type: "search", placeholder: "words, e.g. oc:32 loads", "aria-label": "Filter by words", oninput: (event) => { state.text = event.target.value; changed(); } }),
    el("button", { id: "reset", type: "button", onclick: reset }, "Reset"));
}
function reset() {
  Object.assign(state, { anchor: "", aux: "", lanes: "", text: "", measured: false });
  changed();
}
function table() {
  const head = el("tr", {}, ...COLUMNS.map(([key, name, , side]) => el("th", { scope: "col", class: side ?? null, "data-key": key, title: LONG[key] ?? null },
    el("button", { type: "button", onclick: () => { state.down = state.key === key && !state.down; state.key = key; changed(); } }, name))));
  put("table", el("table", { "aria-label": "Dataflows" }, el("thead", {}, head), el("tbody", { id: "rows" })));
  for (const v of variants) {
    v.row = el("tr", { "data-id": v.id, tabindex: -1 }, ...COLUMNS.map(([key, , show, side]) => {
      const cell = el("td", { class: [side, key === "short" ? "flow" : ""].filter(Boolean).join(" ") || null, title: key === "short" ? v.short : key === "us" && v.why ? v.why : null });
      if (key === "short") cell.append(el("span", { class: "dot " + colorOf(v) }));
      cell.append(show(v));
      if (key === "short" && v.default) cell.append(el("span", { class: "tag", title: "what the kernel runs when no dataflow is given" }, "default"));
      if (key === "share" && v.share !== null) cell.append(el("span", { class: "meter" }, el("i", { style: `width:${Math.min(100, 100 * v.share)}%` })));
      return cell;
    }));
  }
}
function rows() {
  const list = visible();
  const body = document.getElementById("rows");
  body.replaceChildren(...list.map((v) => v.row));
  if (!list.length) body.append(el("tr", {}, el("td", { colspan: COLUMNS.length, class: "left soft" }, variants.length ? "No dataflow passes these filters." : "The space has no legal dataflow.")));
  for (const th of document.querySelectorAll("#table th")) {
    const sorted = th.dataset.key === state.key;
    th.setAttribute("aria-sort", sorted ? (state.down ? "descending" : "ascending") : "none");
    th.firstChild.textContent = COLUMNS.find(([key]) => key === th.dataset.key)[1] + (sorted ? (state.down ? " ▼" : " ▲") : "");
  }
  put("shown", `${list.length} of ${variants.length}`);
  for (const name of ["anchor", "aux", "lanes"]) { const box = document.getElementById("by-" + name); if (box) box.value = state[name]; }
  document.getElementById("by-text").value = state.text;
  const box = document.getElementById("by-measured");
  if (box) box.checked = state.measured;
}

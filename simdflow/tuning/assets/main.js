// What is shown at first, and selection and hovering shared by plots, table and detail.
function summary() {
  put("kernel", data.name, el("small", {}, ` on ${data.target}`));
  put("types", data.types);
  const best = variants[0], first = variants.find((v) => v.default);
  const tile = (value, small, name) => el("div", { class: "tile" }, el("b", {}, value, small ? el("small", {}, " " + small) : null), el("span", {}, name));
  put("tiles", ...(best ? [
    tile(...microseconds(best.time).split(" "), best.us === null ? "fastest, predicted" : "fastest, measured"),
    data.peak && best.us !== null ? tile(percent(best.share, 1), null, `of the measured peak, ${digits(data.peak)} G${unit}/s`) : null,
    first && first.us !== null && best.us !== null ? tile(`${digits(first.us / best.us)}×`, null, "time of the default dataflow over the fastest") : null] : []),
    tile(data.count.toLocaleString("en") + (data.complete ? "" : "+"), null, data.complete ? "legal dataflows" : "legal dataflows, not all counted"),
    tile(`${measured.length}`, `of ${variants.length}`, "measured, of those predicted"));
  const [head, ...rest] = data.verdict;
  put("verdict", el("p", {}, ...said(head ?? "The space has no legal dataflow.")), rest.length ? el("ul", {}, ...rest.map((line) => el("li", {}, ...said(line)))) : null);
  put("refusals", el("details", { open: !variants.length }, el("summary", {}, `${data.refusals.reduce((n, r) => n + r[1], 0).toLocaleString("en")} candidates are not legal${data.complete ? "" : ", of those looked at"}`),
    data.refusals.length ? el("table", {}, el("tbody", {}, ...data.refusals.map(([why, n]) => el("tr", {}, el("td", {}, n.toLocaleString("en")), el("td", {}, why))))) : el("p", { class: "soft" }, "None was refused.")));
}
// A sentence with the dataflow that it names as a link which selects it.
function said(line) {
  const found = variants.filter((v) => line.includes(v.short)).sort((a, b) => b.short.length - a.short.length)[0];
  if (!found) return [line];
  const at = line.indexOf(found.short);
  return [line.slice(0, at), el("a", { href: "#dataflow-" + found.place, onclick: () => select(found.id, true) }, found.short), line.slice(at + found.short.length)];
}
function changed() { rows(); marked(); }

function marked() {
  const inside = new Set(variants.filter(fits).map((v) => v.id));
  for (const node of document.querySelectorAll(".point[data-id]")) {
    const id = Number(node.dataset.id);
    node.classList.toggle("faint", !inside.has(id));
    node.classList.toggle("near", id === state.near);
  }
  for (const ring of document.querySelectorAll(".ring")) ring.remove();
  for (const node of document.querySelectorAll(`.point[data-id="${state.selected}"]`))
    node.parentNode.append(svg("circle", { class: "ring", cx: node.dataset.x, cy: node.dataset.y, r: 10 }));
  for (const button of document.querySelectorAll("#heat button"))
    button.setAttribute("aria-pressed", String(button.dataset.anchor === state.anchor && button.dataset.aux === state.aux));
  for (const v of variants) {
    v.row.classList.toggle("near", v.id === state.near);
    v.row.setAttribute("aria-selected", String(v.id === state.selected));
    v.row.tabIndex = v.id === state.selected ? 0 : -1;
  }
  const first = document.querySelector("#rows tr[data-id]");
  if (first && !document.querySelector("#rows tr[tabindex='0']")) first.tabIndex = 0;
}
function select(id, scroll) {
  state.selected = id;
  marked();
  detail();
  if (scroll) within(variants[id].row);
}
// Scrolls the table alone; scrollIntoView would move the page as well.
function within(row) {
  const box = document.getElementById("table"), head = box.querySelector("thead").offsetHeight;
  if (row.offsetTop < box.scrollTop + head) box.scrollTop = row.offsetTop - head;
  else if (row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = row.offsetTop + row.offsetHeight - box.clientHeight;
}
function near(id, event) {
  if (id !== state.near) { state.near = id; marked(); }
  const tip = document.getElementById("tip");
  tip.hidden = id === null || !event;
  if (tip.hidden) return;
  const v = variants[id];
  tip.replaceChildren(el("b", {}, v.short), `${v.us === null ? "" : `measured ${microseconds(v.us)}, `}predicted ${microseconds(v.predicted)}${v.share === null ? "" : `, ${percent(v.share)} of peak`}; bound by ${v.bound}`);
  const box = tip.getBoundingClientRect();
  tip.style.left = Math.max(6, Math.min(event.clientX + 14, innerWidth - box.width - 6)) + "px";
  tip.style.top = (event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18) + "px";
}
const idOf = (event) => { const node = event.target.closest?.("[data-id]"); return node ? Number(node.dataset.id) : null; };

function listen() {
  for (const name of ["scatter", "roofline"]) {
    const plot = document.getElementById(name);
    plot.addEventListener("pointermove", (event) => near(idOf(event), event));
    plot.addEventListener("pointerleave", () => near(null));
    plot.addEventListener("click", (event) => { const id = idOf(event); if (id !== null) select(id, true); });
  }
  const body = document.getElementById("rows");
  body.addEventListener("pointermove", (event) => near(idOf(event)));
  body.addEventListener("pointerleave", () => near(null));
  body.addEventListener("click", (event) => { const id = idOf(event); if (id !== null) select(id); });
  body.addEventListener("keydown", (event) => {
    const list = visible(), at = list.findIndex((v) => v.id === idOf(event));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: list.length - 1, Enter: at, " ": at }[event.key];
    if (to === undefined || !list[to]) return;
    event.preventDefault();
    select(list[to].id, true);
    list[to].row.focus({ preventScroll: true });
  });
  document.getElementById("heat").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const off = button.getAttribute("aria-pressed") === "true";
    Object.assign(state, off ? { anchor: "", aux: "" } : { anchor: button.dataset.anchor, aux: button.dataset.aux });
    changed();
    if (!off) select(Number(button.dataset.best), true);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || /INPUT|SELECT|TEXTAREA/.test(event.target.tagName)) return;
    event.preventDefault();
    document.getElementById("by-text").focus();
  });
}

summary();
scatter();
roofline();
heat();
legend();
filters();
table();
rows();
listen();
// A link may name the dataflow that is shown first: page.html#dataflow-3.
function addressed() {
  const place = Number(/^#dataflow-(\d+)$/.exec(location.hash)?.[1]);
  return variants[place - 1] ? place - 1 : null;
}
addEventListener("hashchange", () => { if (addressed() !== null) select(addressed(), true); });
if (variants.length) select(addressed() ?? 0, true);
else detail();

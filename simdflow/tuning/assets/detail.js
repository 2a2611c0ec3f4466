// One dataflow: its figures, its registers, its stages.
const STAGES = [["asm", "Assembly"], ["source", "Source"], ["program", "Program"], ["plan", "Plan"], ["nest", "Nest"]];
const ROLES = { sum: "sums", kept: "kept across loops", loaded: "loaded anew", work: "working", temporary: "temporary", free: "free", spare: "left to the compiler" };
let stage = "asm";

function detail() {
  const v = variants[state.selected];
  if (!v) return put("detail", el("h2", {}, "No dataflow is selected"), el("p", { class: "soft" }, "Select a row, a point or a cell."));
  const fact = (name, value) => value === null ? null : el("span", {}, name + " ", el("b", {}, value));
  put("detail",
    el("h2", {}, v.flow),
    el("div", { class: "facts" },
      fact("rank", `${v.place} of ${variants.length}`),
      fact("measured", v.state === "predicted" ? null : v.us === null ? "no time" : microseconds(v.us)),
      fact("spread", v.spread === null ? null : percent(v.spread)), fact("calls", v.calls ? short(v.calls) : null),
      fact("predicted", `${microseconds(v.predicted)} (${short(v.cycles)} cycles)`),
      fact("of the measured peak", v.share === null ? null : percent(v.share, 1)),
      fact("memory operations", short(v.operations)),
      v.why ? fact("why", v.why) : null),
    el("div", { class: "two" }, el("div", {}, el("h3", {}, "Where the time goes, predicted (cycles)"), shares(v)), el("div", {}, el("h3", {}, `Register file: ${v.registers} of ${data.registers.all} planned (${v.arithmetic})`), registerFile(v))),
    tabs(v),
    el("div", { id: "stage", role: "tabpanel", "aria-labelledby": "tab-" + stage, tabindex: 0 }, text(v)));
}
function shares(v) {
  const most = Math.max(...Object.values(v.parts), 1);
  return el("div", { class: "parts" }, ...Object.entries(v.parts).flatMap(([name, cycles]) => [
    el("span", { class: name === v.bound ? "most" : null, title: data.bounds[name] }, name),
    el("span", { class: "track" }, el("i", { style: `width:${(100 * cycles) / most}%` })),
    el("span", {}, short(cycles))]));
}
function registerFile(v) {
  const { all, budget } = data.registers;
  const cells = v.held.flatMap(([name, role, count]) => Array.from({ length: count }, () => [name, role]));
  while (cells.length < all) cells.push(cells.length < budget ? ["", "free"] : ["", "spare"]);
  const box = ([name, role]) => el("div", { class: "cell " + role, title: `${name || "register"}: ${ROLES[role]}` }, name.length > 5 ? name.slice(0, 4) + "…" : name || (role === "free" ? "·" : ""));
  const key = (used) => el("div", { class: "key" }, ...Object.keys(ROLES).filter((r) => used.has(r)).map((r) => el("span", {}, el("i", { class: "cell " + r }), ROLES[r])));
  const parts = [el("div", { class: "cells", id: "planned" }, ...cells.map((c) => box(c))), key(new Set(cells.map((c) => c[1])))];
  const roles = v.stages.asm?.roles;
  if (roles) {
    const letter = { 512: "zmm", 256: "ymm", 128: "xmm" }[data.registers.width] ?? "r";
    const real = Array.from({ length: all }, (_, i) => [String(i), roles[i] ?? "free"]);
    parts.push(el("h3", { style: "margin-top:14px" }, `In the ${v.stages.asm.loop ? "hot loop" : "code"}: ${Object.keys(roles).length} of ${letter}0 to ${letter}${all - 1}`),
      el("div", { class: "cells", id: "real" }, ...real.map((c) => box(c))), key(new Set(real.map((c) => c[1]))));
  }
  return el("div", {}, ...parts);
}
function tabs(v) {
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": "Stages" });
  const choose = (name) => { stage = name; detail(); document.getElementById("tab-" + name).focus(); };
  STAGES.forEach(([name, title], i) => list.append(el("button", {
    type: "button", role: "tab", id: "tab-" + name, "aria-selected": String(name === stage), "aria-controls": "stage", tabindex: name === stage ? 0 : -1,
    onclick: () => choose(name),
    onkeydown: (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); choose(STAGES[(i + step + STAGES.length) % STAGES.length][0]); }
    } }, title)));
  return list;
}
function text(v) {
  const found = v.stages[stage];
  if (stage === "asm" && found) {
    const counts = {};
    for (const [kind] of found.lines) counts[kind] = (counts[kind] ?? 0) + 1;
    const key = [["arithmetic", "arithmetic"], ["arithmetic-load", "arithmetic with a load"], ["load", "loads"], ["store", "stores"], ["scalar", "addresses and counters"], ["move", "moves between registers"], ["jump", "jumps"]];
    return el("div", {},
      el("div", { class: "key", style: "margin:0 0 8px" }, found.loop ? "hot loop: " : "whole kernel, it has no vector loop: ", ...key.filter(([k]) => counts[k]).map(([k, name]) => el("span", { class: k }, `${counts[k]} ${name}`))),
      el("pre", { class: "asm" }, ...found.lines.map(([kind, line]) => el("span", { class: kind }, line))));
  }
  if (found !== undefined) return el("pre", {}, data.texts[found]);
  const why = v.stages.failure ?? (stage === "asm" ? "The assembly of the first measured dataflows is kept in this page, not of this one." : "The stages of the first dataflows are kept in this page, not of this one.");
  return el("div", { class: "missing" }, why, el("br"), "To read it: ", el("code", {}, `kernel.specialize(..., dataflow=sf.${v.flow}).${stage}${stage === "asm" ? "()" : ""}`));
}

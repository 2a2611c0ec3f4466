// Elements, numbers and what follows from the data alone.
const data = JSON.parse(document.getElementById("data").textContent);
const variants = data.variants;
const unit = data.products ? "MAC" : "element";

function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
function put(id, ...children) {
  const node = document.getElementById(id);
  node.replaceChildren(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

// Three digits, without an exponent where a person would write none.
function digits(x) {
  if (x === null || x === undefined || !isFinite(x)) return "–";
  if (x !== 0 && Math.abs(x) < 0.001) return x.toExponential(1);
  const places = Math.abs(x) >= 100 ? 0 : Math.abs(x) >= 10 ? 1 : Math.abs(x) >= 1 ? 2 : 3;
  return x.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places });
}
function short(x) {
  for (const [size, sign] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (x >= size) return digits(x / size) + " " + sign;
  return x < 10 && x % 1 ? digits(x) : String(Math.round(x));
}
function microseconds(us) {
  if (us === null || us === undefined) return "–";
  return us >= 1e4 ? digits(us / 1e3) + " ms" : digits(us) + " µs";
}
function percent(x, places = 0) {
  return x === null || x === undefined ? "–" : (100 * x).toFixed(places) + " %";
}

const measured = variants.filter((v) => v.us !== null);
for (const v of variants) {
  v.time = v.us === null ? v.predicted : v.us;
  v.rate = data.macs / v.time / 1e3; // 1e9 a second
  v.share = data.peak && v.us !== null ? v.rate / data.peak : null;
  v.ratio = v.us === null ? null : v.us / v.predicted;
  v.state = v.us !== null ? "measured" : v.why ? "failed" : "predicted";
  v.place = v.id + 1;
}
const anchors = [...new Set(variants.map((v) => v.anchor))].sort((a, b) => (b === "out") - (a === "out") || a.localeCompare(b));
const unique = (name) => [...new Set(variants.map((v) => v[name]))].sort((a, b) => (b === "none") - (a === "none") || a.length - b.length || a.localeCompare(b));
const colorOf = (v) => "a" + (anchors.indexOf(v.anchor) % 4);

// A mark for each anchor, so that colour is not the only sign.
function mark(v, x, y, r) {
  const shape = anchors.indexOf(v.anchor) % 4;
  const d = shape === 0 ? `M${x - r},${y}a${r},${r} 0 1 0 ${2 * r},0a${r},${r} 0 1 0 ${-2 * r},0Z`
    : shape === 1 ? `M${x - r * .88},${y - r * .88}h${r * 1.76}v${r * 1.76}h${-r * 1.76}Z`
    : shape === 2 ? `M${x},${y - r * 1.15}l${r * 1.1},${r * 1.95}h${-r * 2.2}Z`
    : `M${x},${y - r * 1.25}l${r * 1.25},${r * 1.25}l${-r * 1.25},${r * 1.25}l${-r * 1.25},${-r * 1.25}Z`;
  return svg("path", { d, class: `point ${colorOf(v)}${v.aux === "none" ? "" : " filled"}` });
}

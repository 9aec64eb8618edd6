// Width × resolution. All numbers come from numnet: budget-data.js is written when the site is built (docs/build_explainer.py).
"use strict";

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en-US");
const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};
const data = window.NUMNET_BUDGET;
const timed = data.times;
const key = (width, side) => `${width}/${side}`;
const short = (n) => (n >= 99.95 ? n.toFixed(0) : n >= 9.995 ? n.toFixed(1) : n.toFixed(2));

const METRICS = {
  macs: { label: "MACs", unit: "million MACs", of: (net) => net.macs / 1e6,
    rule: "MACs grow with the square of the resolution, and with almost the square of the width." },
  params: { label: "parameters", unit: "million parameters", of: (net) => net.params / 1e6,
    rule: "Parameters do not depend on the resolution: the same weights are used at more places." },
  weights: { label: "bytes of weights", unit: "MB of weights", of: (net) => net.weights / 1e6,
    rule: "Four bytes for each parameter and for each running statistic of batch norm." },
  maps: { label: "bytes of maps", unit: "MB of maps", of: (net) => net.maps / 1e6,
    rule: "The buffers that numnet's inference works in, the photograph included. They grow with the number of pixels." },
  ms: { label: "time", unit: "ms", of: (net, width, side, model) => timed?.ms[model]?.[key(width, side)],
    rule: timed ? "Empty cells were not timed." : "This site was built without times." },
};
const state = { model: "mobilenet_v1", width: 1, side: 224, metric: "macs", kind: timed ? "ms" : "macs" };
const net = (model = state.model, width = state.width, side = state.side) => data.nets[model][key(width, side)];
const time = (model = state.model, width = state.width, side = state.side) => timed?.ms[model]?.[key(width, side)];

function radios(where, name, choices, chosen, pick) {
  for (const [value, text] of choices) {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => pick(value));
    where.append(make("label", {}, input, text));
  }
}

// ------------------------------------------------------------------------------------------------ one net

function showNet() {
  const cost = net(), ms = time(), full = net(state.model, 1, 224), part = (of) => (of(cost) / of(full));
  $("width").value = data.widths.indexOf(state.width);
  $("side").value = data.sides.indexOf(state.side);
  $("width-now").textContent = state.width.toString();
  $("width").setAttribute("aria-valuetext", `width ${state.width}`);
  $("side-now").textContent = `${state.side}`;
  $("side").setAttribute("aria-valuetext", `${state.side} pixels`);
  $("macs").textContent = short(cost.macs / 1e6);
  $("params").textContent = short(cost.params / 1e6);
  $("weights").textContent = short(cost.weights / 1e6);
  $("maps").textContent = short(cost.maps / 1e6);
  $("ms").textContent = ms === undefined ? "–" : ms.toFixed(2);
  $("ms-label").textContent = ms === undefined ? "not timed" : "ms for one photograph, measured";
  $("exact").textContent = `${data.models[state.model]}, width ${state.width}, ${state.side}×${state.side}: exactly ${whole.format(cost.macs)} MACs, ` +
    `${whole.format(cost.params)} parameters (with batch norm's running statistics ${whole.format(cost.weights / 4)}), ${whole.format(cost.weights)} bytes of weights, ${whole.format(cost.maps)} bytes of maps.`;
  const told = [["MACs", (n) => n.macs], ["parameters", (n) => n.params]].map(([name, of]) => `${(100 * part(of)).toFixed(0)} % of the ${name}`);
  const before = time(state.model, 1, 224);
  if (ms !== undefined && before !== undefined) told.push(`${((100 * ms) / before).toFixed(0)} % of the time`);
  $("against").textContent = state.width === 1 && state.side === 224 ? "This is the net of the paper, at full size."
    : `Compared with width 1 at 224 pixels: ${told.join(", ")}.`;
}

// ------------------------------------------------------------------------------------------------ all of them

const mix = (share) => { // from nearly white to dark blue; the text is white where the ground is dark
  const low = [232, 240, 247], high = [27, 58, 92];
  return { ground: `rgb(${low.map((l, i) => Math.round(l + (high[i] - l) * share)).join(" ")})`, ink: share > 0.5 ? "#fff" : "#16202b" };
};

function showGrid(focus = false) {
  const metric = METRICS[state.metric], value = (w, s) => metric.of(net(state.model, w, s), w, s, state.model);
  const all = data.widths.flatMap((w) => data.sides.map((s) => value(w, s))).filter((v) => v !== undefined);
  const most = Math.max(...all);
  $("grid-name").textContent = `${metric.unit} of ${data.models[state.model]}: rows are widths, columns resolutions`;
  $("grid").tHead.replaceChildren(make("tr", {}, make("th", { scope: "col", textContent: metric.unit === "ms" ? "ms" : "" }),
    ...data.sides.map((side) => make("th", { scope: "col", textContent: side }))));
  $("grid").tBodies[0].replaceChildren(...data.widths.map((width) => make("tr", {}, make("th", { scope: "row", textContent: width }),
    ...data.sides.map((side) => {
      const v = value(width, side), chosen = width === state.width && side === state.side;
      const { ground, ink } = mix(v === undefined ? 0 : Math.sqrt(v / most));
      const button = make("button", { type: "button", textContent: v === undefined ? "" : short(v), tabIndex: chosen ? 0 : -1 });
      button.style.cssText = v === undefined ? "background:#f3f6f9;color:#536273" : `background:${ground};color:${ink}`;
      button.setAttribute("aria-pressed", chosen);
      button.setAttribute("aria-label", `width ${width}, ${side} pixels: ${v === undefined ? "not timed" : `${short(v)} ${metric.unit}`}`);
      button.addEventListener("click", () => choose({ width, side }));
      button.addEventListener("keydown", (event) => {
        const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
        if (!move) return;
        event.preventDefault();
        const at = (list, now, by) => list[Math.max(0, Math.min(list.length - 1, list.indexOf(now) + by))];
        choose({ width: at(data.widths, state.width, move[0]), side: at(data.sides, state.side, move[1]) }, true);
      });
      return make("td", {}, button);
    }))));
  $("rule").textContent = metric.rule;
  if (focus) $("grid").querySelector('[aria-pressed="true"]').focus();
}

function choose(change, focus = false) {
  Object.assign(state, change);
  showNet();
  showGrid(focus);
  scatter();
}

// ------------------------------------------------------------------------------------------------ budget

const published = data.published.map((p) => {
  const width = p.width ?? 1, side = p.resolution ?? 224;
  return { ...p, macs: net(p.model, width, side).macs / 1e6, ms: time(p.model, width, side) };
});
const KINDS = { ms: ["time", "ms"], macs: ["MACs", "million MACs"] };

function limit() {
  const costs = published.map((p) => p[state.kind]).filter((c) => c !== undefined), low = Math.min(...costs) * 0.8, high = Math.max(...costs) * 1.15;
  return low * (high / low) ** (Number($("limit").value) / 100);
}

function showBudget() {
  const most = limit(), unit = KINDS[state.kind][1];
  const fits = published.filter((p) => p[state.kind] <= most).sort((a, b) => b.top1 - a.top1), best = fits[0];
  $("limit-now").textContent = `${short(most)} ${unit}`;
  $("limit").setAttribute("aria-valuetext", `${short(most)} ${unit}`);
  $("verdict").replaceChildren(...(best ? ["Best within the budget: ", make("b", { textContent: best.name }), `, ${best.top1} % at ${short(best[state.kind])} ${unit}. ${fits.length} of ${published.length} nets fit.`]
    : ["No published net is that small. Allow more."]));
  $("published").replaceChildren(...[...published].sort((a, b) => b.top1 - a.top1).map((p) => {
    const over = !(p[state.kind] <= most);
    return make("tr", { className: p === best ? "best" : over ? "over" : "" }, make("th", { scope: "row", textContent: p.name }), make("td", { textContent: p.top1.toFixed(1) }),
      make("td", { textContent: short(p.macs) }), make("td", { textContent: p.ms === undefined ? "–" : p.ms.toFixed(2) }), make("td", { textContent: p.source, className: "text" }));
  }));
  const points = published.filter((p) => p[state.kind] !== undefined).map((p) => ({ x: p[state.kind], y: p.top1, name: p.name, kind: p === best ? "best" : p[state.kind] <= most ? "in" : "out" }));
  $("frontier").replaceChildren(chart({ points, wide: $("frontier").clientWidth, across: unit, up: "top-1, %", logY: false, line: most,
    about: `Accuracy against ${unit} of ${points.length} published nets. ${best ? `Best within ${short(most)} ${unit}: ${best.name}.` : ""}` }));
}

// ------------------------------------------------------------------------------------------------ charts

const SVG = "http://www.w3.org/2000/svg";
const draw = (tag, props, text) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
};
const round = (low, high) => { // 1, 2, 5 times powers of ten between the two
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) for (const m of [1, 2, 5]) {
    const v = m * 10 ** e;
    if (v >= low && v <= high) found.push(Number(v.toPrecision(2)));
  }
  return found;
};

/** Points on a logarithmic x axis; names beside those that stand out. */
function chart({ points, wide, across, up, logY, line, rate, about }) {
  wide = Math.max(wide, 280);
  const high = Math.min(380, Math.max(260, wide * 0.5)), left = 48, right = 16, top = 14, bottom = 44;
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const [x0, x1] = [Math.min(...xs) * 0.75, Math.max(...xs) * 1.3], [y0, y1] = logY ? [Math.min(...ys) * 0.75, Math.max(...ys) * 1.3] : [Math.floor(Math.min(...ys)) - 2, Math.ceil(Math.max(...ys)) + 2];
  const X = (x) => left + ((wide - left - right) * Math.log(x / x0)) / Math.log(x1 / x0);
  const Y = (y) => high - bottom - (high - top - bottom) * (logY ? Math.log(y / y0) / Math.log(y1 / y0) : (y - y0) / (y1 - y0));
  const svg = draw("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": about });
  const few = (list, most) => list.filter((_, i) => i % Math.ceil(list.length / most) === 0);
  for (const x of few(round(x0, x1), wide / 70)) svg.append(draw("line", { x1: X(x), x2: X(x), y1: top, y2: high - bottom, stroke: "#e4eaf0" }), draw("text", { x: X(x), y: high - bottom + 18, "text-anchor": "middle" }, x));
  const lines = logY ? round(y0, y1) : Array.from({ length: 20 }, (_, i) => 50 + 2.5 * i).filter((y) => y > y0 && y < y1);
  for (const y of few(lines, 7)) svg.append(draw("line", { x1: left, x2: wide - right, y1: Y(y), y2: Y(y), stroke: "#e4eaf0" }), draw("text", { x: left - 7, y: Y(y) + 4, "text-anchor": "end" }, y));
  svg.append(draw("text", { x: (left + wide - right) / 2, y: high - 6, "text-anchor": "middle" }, across), draw("text", { x: left + 5, y: top + 11 }, up));
  if (line !== undefined) svg.append(draw("rect", { x: X(Math.min(Math.max(line, x0), x1)), y: top, width: wide - right - X(Math.min(Math.max(line, x0), x1)), height: high - top - bottom, fill: "#c05a1c", opacity: 0.09 }),
    draw("line", { x1: X(Math.min(Math.max(line, x0), x1)), x2: X(Math.min(Math.max(line, x0), x1)), y1: top, y2: high - bottom, stroke: "#c05a1c", "stroke-width": 2, "stroke-dasharray": "6 5" }));
  if (rate !== undefined) { // y = x / rate, as far as it lies in the frame
    const from = Math.max(x0, y0 * rate), to = Math.min(x1, y1 * rate);
    svg.append(draw("line", { x1: X(from), y1: Y(from / rate), x2: X(to), y2: Y(to / rate), stroke: "#536273", "stroke-width": 1.6, "stroke-dasharray": "6 5" }));
  }
  const looks = { best: ["#c05a1c", "#fff", 8], in: ["#1b3a5c", "#fff", 6.5], out: ["#fff", "#7fa9c9", 5.5], chosen: ["#c05a1c", "#fff", 8.5] };
  const order = { out: 0, in: 1, best: 2, chosen: 3 }, taken = [];
  for (const p of [...points].sort((a, b) => order[a.kind] - order[b.kind])) {
    const [fill, stroke, r] = looks[p.kind];
    const dot = draw("circle", { cx: X(p.x), cy: Y(p.y), r, fill, stroke, "stroke-width": 1.8, class: "dot" });
    dot.append(draw("title", {}, `${p.name}: ${short(p.x)} ${across}, ${short(p.y)} ${up}`));
    svg.append(dot);
  }
  for (const p of [...points].sort((a, b) => order[b.kind] - order[a.kind])) { // names where there is room for them
    if (logY && p.kind !== "chosen") continue;
    const size = p.name.length * 7.1, cx = X(p.x), cy = Y(p.y);
    const ways = [[12, 4, "start"], [-12, 4, "end"], [0, -12, "middle"], [0, 21, "middle"]].map(([dx, dy, anchor]) => {
      const x = cx + dx, low = anchor === "start" ? x : anchor === "end" ? x - size : x - size / 2;
      return { x, y: cy + dy, anchor, box: [low, cy + dy - 12, low + size, cy + dy + 3] };
    });
    const free = ({ box }) => box[0] > left && box[2] < wide && !taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]) &&
      !points.some((o) => o !== p && X(o.x) > box[0] - 6 && X(o.x) < box[2] + 6 && Y(o.y) > box[1] - 5 && Y(o.y) < box[3] + 5);
    const way = ways.find(free) ?? (p.kind === "best" || p.kind === "chosen" ? ways[cx + 12 + size > wide ? 1 : 0] : null);
    if (!way) continue;
    const { x, y, anchor, box } = way;
    taken.push(box);
    svg.append(draw("text", { x, y, "text-anchor": anchor, style: p.kind === "out" ? "" : "fill:#16202b;font-weight:600" }, p.name));
  }
  return svg;
}

function scatter() {
  if (!timed) {
    $("clock-card").hidden = true;
    return;
  }
  const points = [];
  for (const [model, name] of Object.entries(data.models)) for (const [where, ms] of Object.entries(timed.ms[model] ?? {})) {
    const [width, side] = where.split("/").map(Number), chosen = model === state.model && width === state.width && side === state.side;
    const cost = data.nets[model][where];
    if (cost) points.push({ x: cost.macs / 1e6, y: ms, name: `${name} ${width} · ${side}`, kind: chosen ? "chosen" : model === state.model ? "in" : "out" });
  }
  const own = points.filter((p) => p.kind !== "out"), rates = own.map((p) => p.x / p.y), fastest = Math.max(...rates), slowest = Math.min(...rates);
  $("scatter").replaceChildren(chart({ points, wide: $("scatter").clientWidth, across: "million MACs", up: "ms", logY: true, rate: fastest,
    about: `Time against MACs of ${points.length} nets, both axes logarithmic. ${data.models[state.model]} reaches between ${short(slowest)} and ${short(fastest)} billion MACs a second.` }));
  $("rate").textContent = `${data.models[state.model]}: from ${short(slowest)} to ${short(fastest)} billion MACs a second, depending on width and resolution. The dashed line is its fastest.`;
  $("machine").textContent = `Measured on: ${timed.machine}, ${timed.threads} thread${timed.threads === 1 ? "" : "s"}, numnet ${timed.numnet}, ${timed.date}; ${timed.how}. ` +
    `On your own machine: ${timed.command}`;
}

// ------------------------------------------------------------------------------------------------ start

radios($("models"), "model", Object.entries(data.models), state.model, (model) => choose({ model }));
radios($("metrics"), "metric", Object.entries(METRICS).map(([name, m]) => [name, m.label]), state.metric, (metric) => { state.metric = metric; showGrid(); });
radios($("kinds"), "kind", Object.entries(KINDS).filter(([name]) => name !== "ms" || timed).map(([name, [label]]) => [name, label]), state.kind, (kind) => { state.kind = kind; showBudget(); });
$("width").max = data.widths.length - 1;
$("side").max = data.sides.length - 1;
$("width").addEventListener("input", () => choose({ width: data.widths[$("width").value] }));
$("side").addEventListener("input", () => choose({ side: data.sides[$("side").value] }));
$("limit").value = 60;
$("limit").addEventListener("input", showBudget);
window.addEventListener("resize", () => { showBudget(); scatter(); });
choose({});
showBudget();

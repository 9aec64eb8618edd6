// Standard against depthwise separable convolution: the race on small maps, and the closed forms at any size.
// Letters as everywhere in numnet: P×Q output, K kernel side, C channels in, F channels out. Stride 1, "same" padding.
"use strict";

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat("en-US");
const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};

/** The closed forms of numnet.kernels: MACs and parameters of the three layers. Exact below 2⁵³. */
function costs(K, C, F, side) {
  const P = side, Q = side;
  return {
    standard: { macs: P * Q * K * K * C * F, params: K * K * C * F },
    depthwise: { macs: P * Q * K * K * C, params: K * K * C },
    pointwise: { macs: P * Q * C * F, params: C * F },
  };
}
const saving = (K, F) => 1 / (1 / F + 1 / (K * K));
const times = (ratio) => ratio.toFixed(2);

/** A labelled slider with a number box that takes any whole number in its range; calls changed(). */
function slider(where, { id, label, about, low, high, value, steps }, changed) {
  const range = make("input", { type: "range", id: `${id}-range`, min: 0, max: steps.length - 1, step: 1 });
  const box = make("input", { type: "number", id, min: low, max: high, step: 1, value });
  const name = make("label", { htmlFor: id }, `${label} `, make("span", { textContent: about }));
  range.setAttribute("aria-label", `${label}, ${about}`);
  const nearest = (n) => steps.reduce((best, s, i) => (Math.abs(s - n) < Math.abs(steps[best] - n) ? i : best), 0);
  const follow = () => {
    range.value = nearest(Number(box.value));
    range.setAttribute("aria-valuetext", box.value);
  };
  range.addEventListener("input", () => { box.value = steps[range.value]; range.setAttribute("aria-valuetext", box.value); changed(); });
  box.addEventListener("input", () => { if (box.validity.valid && box.value !== "") { follow(); changed(); } });
  box.addEventListener("change", () => {
    const n = Math.round(Number(box.value)) || low;
    box.value = Math.min(high, Math.max(low, n));
    follow();
    changed();
  });
  where.append(make("div", { className: "slider" }, name, box, range));
  follow();
  return { get value() { return Number(box.value); }, set(n) { box.value = n; follow(); } };
}
const from = (low, high, step = 1) => Array.from({ length: Math.floor((high - low) / step) + 1 }, (_, i) => low + i * step);
const channels = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];

// ------------------------------------------------------------------------------------------------ the race

const race = { tick: 0, timer: null };
const small = {};
for (const [key, label, about, low, high, value] of [
  ["side", "side", "of the map", 2, 6, 4], ["K", "K", "side of the kernel", 1, 5, 3],
  ["C", "C", "channels in", 1, 4, 3], ["F", "F", "channels out", 1, 4, 4],
]) {
  small[key] = slider($("small"), { id: `small-${key}`, label, about, low, high, value, steps: from(low, high) }, build);
}

/** Small whole numbers that look mixed and are the same at each visit. */
const mixed = (n, low, high) => low + (((n * 7919 + 13) * 31 + ((n * n) % 17)) % (high - low + 1));

function numbers({ side, K, C, F }) {
  const array = (...shape) => ({ shape, at: new Map() });
  const fill = (tensor, make) => {
    const walk = (index) => {
      if (index.length === tensor.shape.length) tensor.at.set(index.join(), make(index));
      else for (let i = 0; i < tensor.shape[index.length]; i++) walk([...index, i]);
    };
    walk([]);
    return tensor;
  };
  const x = fill(array(side, side, C), ([i, j, c]) => mixed(5 * i + 11 * j + 23 * c + i * j, 0, 4));
  const d = fill(array(K, K, C), ([u, v, c]) => mixed(3 * u + 7 * v + 19 * c + u * v, -1, 2));
  const m = fill(array(C, F), ([c, f]) => mixed(7 * c + 11 * f + 3 * c * f, -1, 2) || 1);
  return { x, d, m };
}
const read = (tensor, ...index) => tensor.at.get(index.join()) ?? 0; // outside of the image lies the frame of zeros
const signed = (n) => (n < 0 ? `−${-n}` : `${n}`);
const factor = (n) => (n < 0 ? `(−${-n})` : `${n}`);

/** A grid of cells with their text and look. frame: how many rings of zeros lie around it. */
class Grid {
  constructor(rows, columns, frame = 0, name = "") {
    this.frame = frame;
    this.cells = [];
    this.element = make("div", { className: "map", title: name });
    const wide = columns + 2 * frame;
    this.element.style.gridTemplateColumns = `repeat(${wide}, max-content)`;
    for (let i = -frame; i < rows + frame; i++) {
      const row = [];
      for (let j = -frame; j < wide - frame; j++) {
        const inside = i >= 0 && j >= 0 && i < rows && j < columns;
        const cell = make("i", { className: inside ? "" : "zero", textContent: inside ? "" : "0" });
        row.push(cell);
        this.element.append(cell);
      }
      this.cells.push(row);
    }
  }
  cell(i, j) { return this.cells[i + this.frame][j + this.frame]; }
  look(i, j, kind, text) {
    const cell = this.cell(i, j), zero = cell.dataset.zero;
    const name = kind || zero || "";
    if (cell.className !== name) cell.className = name;
    if (text !== undefined && cell.textContent !== text) cell.textContent = text;
  }
  remember() { // which cells are the frame
    for (const cell of this.cells.flat()) if (cell.className === "zero") cell.dataset.zero = "zero";
    return this;
  }
  clean() { for (const cell of this.cells.flat()) { const name = cell.dataset.zero || ""; if (cell.className !== name) cell.className = name; } }
}

let scene = null;

function build() {
  pause();
  const size = { side: small.side.value, K: small.K.value, C: small.C.value, F: small.F.value };
  const { side, K, C, F } = size;
  const { x, d, m } = numbers(size);
  const before = Math.floor((K - 1) / 2), frame = Math.max(before, K - 1 - before);
  const cost = costs(K, C, F, side);
  const each = (count, create) => Array.from({ length: count }, (_, n) => create(n).remember());
  const letter = (tensor, n) => `${tensor}, channel ${n}`;
  const input = () => each(C, (c) => new Grid(side, side, frame, letter("input", c)));
  const show = (grids, value) => grids.forEach((grid, n) => {
    for (let i = 0; i < grid.cells.length - 2 * grid.frame; i++)
      for (let j = 0; j < grid.cells[0].length - 2 * grid.frame; j++) grid.look(i, j, "", signed(value(i, j, n)));
  });
  const plain = (count, name, rows, columns) => each(count, (n) => new Grid(rows, columns, 0, letter(name, n)));
  const grids = {
    x1: input(), w: plain(C, "kernel", K, K), y1: plain(F, "output", side, side),
    x2: input(), d: plain(C, "depthwise kernel", K, K), z: plain(C, "between", side, side),
    m: [new Grid(C, F, 0, "pointwise weights").remember()], y2: plain(F, "output", side, side),
  };
  show(grids.x1, (i, j, c) => read(x, i, j, c));
  show(grids.x2, (i, j, c) => read(x, i, j, c));
  show(grids.d, (u, v, c) => read(d, u, v, c));
  show(grids.m, (c, f) => read(m, c, f));
  const stage = (title, list, ...more) =>
    make("div", { className: "stage" }, make("h4", {}, make("b", { textContent: title }), ...more),
      make("div", { className: "maps", ariaHidden: "true" }, ...list.map((grid) => grid.element)));
  const filter = make("span");
  $("stage-standard").replaceChildren(
    stage("input x", grids.x1, ` ${side}×${side}×${C}`), stage("kernel w", grids.w, ` ${K}×${K}×${C}×${F}, `, filter),
    stage("output y", grids.y1, ` ${side}×${side}×${F}`));
  $("stage-separable").replaceChildren(
    stage("input x", grids.x2, ` ${side}×${side}×${C}`), stage("depthwise kernel d", grids.d, ` ${K}×${K}×${C}`),
    stage("between, z", grids.z, ` ${side}×${side}×${C}`), stage("pointwise weights m", grids.m, ` ${C}×${F}: a row a channel`),
    stage("output y", grids.y2, ` ${side}×${side}×${F}`));
  // every value that either side will have: sums in the order of the loops
  const z = new Map(), y = new Map();
  for (let p = 0; p < side; p++) for (let q = 0; q < side; q++) {
    for (let c = 0; c < C; c++) {
      let sum = 0;
      for (let u = 0; u < K; u++) for (let v = 0; v < K; v++) sum += read(x, p + u - before, q + v - before, c) * read(d, u, v, c);
      z.set([p, q, c].join(), sum);
    }
    for (let f = 0; f < F; f++) {
      let sum = 0;
      for (let c = 0; c < C; c++) sum += z.get([p, q, c].join()) * read(m, c, f);
      y.set([p, q, f].join(), sum);
    }
  }
  const widest = Math.max(...[...y.values(), ...z.values()].map((n) => signed(n).length));
  for (const stage of ["stage-standard", "stage-separable"]) {
    $(stage).style.setProperty("--cell", side + 2 * frame > 7 ? "1.3rem" : "1.5rem");
    $(stage).style.setProperty("--letter", widest > 3 ? "0.56rem" : widest > 2 ? "0.64rem" : "0.74rem");
  }
  scene = {
    ...size, x, d, m, z, y, before, grids, filter, standard: cost.standard.macs,
    depthwise: cost.depthwise.macs, separable: cost.depthwise.macs + cost.pointwise.macs,
  };
  $("tick").max = scene.standard > scene.separable ? scene.standard : scene.separable;
  $("progress-standard").max = scene.standard;
  $("progress-separable").max = scene.separable;
  seek(0);
}

/** Channel, row and column of the n-th of so many numbers, channels running fastest. */
const place = (n, side, count) => [Math.floor(n / (side * count)), Math.floor(n / count) % side, n % count];

function filled(grids, count, done, values, side, now) {
  for (let n = 0; n < side * side * count; n++) {
    const [p, q, c] = place(n, side, count);
    if (n < done) grids[c].look(p, q, "done", signed(values.get([p, q, c].join())));
    else grids[c].look(p, q, "empty", " ");
  }
  if (now) grids[now[2]].look(now[0], now[1], "now", signed(now[3]));
}

function drawStandard(tick) {
  const s = scene, { side, K, C, F, before } = s, per = K * K * C, n = Math.min(tick, s.standard);
  const last = Math.max(n - 1, 0), at = Math.floor(last / per), [p, q, f] = place(at, side, F), done = Math.floor(n / per);
  const w = (u, v, c, filter) => read(s.d, u, v, c) * read(s.m, c, filter);
  s.grids.x1.forEach((grid) => grid.clean());
  s.filter.textContent = n ? `filter ${f} of ${F} is shown` : "filter 0 is shown";
  s.grids.w.forEach((grid, c) => {
    for (let u = 0; u < K; u++) for (let v = 0; v < K; v++) grid.look(u, v, "", signed(w(u, v, c, f)));
  });
  $("progress-standard").value = n;
  $("count-standard").textContent = `${whole.format(n)} of ${whole.format(s.standard)}`;
  if (!n) {
    filled(s.grids.y1, F, 0, s.y, side);
    return `Each output number needs K·K·C = ${per} multiplications.`;
  }
  const step = last % per, u = Math.floor(step / (K * C)), v = Math.floor(step / C) % K, c = step % C;
  let sum = 0;
  for (let t = 0; t <= step; t++) {
    const a = Math.floor(t / (K * C)), b = Math.floor(t / C) % K, e = t % C;
    sum += read(s.x, p + a - before, q + b - before, e) * w(a, b, e, f);
  }
  filled(s.grids.y1, F, done, s.y, side, [p, q, f, sum]);
  if (n < s.standard) {
    for (let e = 0; e < C; e++) for (let a = 0; a < K; a++) for (let b = 0; b < K; b++)
      s.grids.x1[e].look(p + a - before, q + b - before, "window");
    for (let e = 0; e < C; e++) for (let a = 0; a < K; a++) for (let b = 0; b < K; b++) s.grids.w[e].look(a, b, "window");
    s.grids.x1[c].look(p + u - before, q + v - before, "now");
    s.grids.w[c].look(u, v, "now");
  } else {
    filled(s.grids.y1, F, done, s.y, side);
    return `Done after ${whole.format(s.standard)} multiplications.`;
  }
  const xv = read(s.x, p + u - before, q + v - before, c), wv = w(u, v, c, f);
  return `y[${p},${q},${f}] += x[${p + u - before},${q + v - before},${c}] · w[${u},${v},${c},${f}] = ${factor(xv)} · ${factor(wv)} = ${signed(xv * wv)}\n` +
    `product ${step + 1} of ${per}, sum so far ${signed(sum)}`;
}

function drawSeparable(tick) {
  const s = scene, { side, K, C, F, before } = s, n = Math.min(tick, s.separable), first = Math.min(n, s.depthwise);
  const g = s.grids, per = K * K, doneZ = Math.floor(first / per), second = n - first, doneY = Math.floor(second / C);
  g.x2.forEach((grid) => grid.clean());
  g.d.forEach((grid) => grid.clean());
  g.m[0].clean();
  $("progress-separable").value = n;
  $("count-separable").textContent = `${whole.format(n)} of ${whole.format(s.separable)}`;
  if (!n) {
    filled(g.z, C, 0, s.z, side);
    filled(g.y2, F, 0, s.y, side);
    return `First K·K = ${per} multiplications for each number between, then C = ${C} for each output number.`;
  }
  if (!second) {
    const last = first - 1, [p, q, c] = place(Math.floor(last / per), side, C), step = last % per, u = Math.floor(step / K), v = step % K;
    let sum = 0;
    for (let t = 0; t <= step; t++) {
      const a = Math.floor(t / K), b = t % K;
      sum += read(s.x, p + a - before, q + b - before, c) * read(s.d, a, b, c);
    }
    filled(g.z, C, doneZ, s.z, side, [p, q, c, sum]);
    filled(g.y2, F, 0, s.y, side);
    for (let a = 0; a < K; a++) for (let b = 0; b < K; b++) {
      g.x2[c].look(p + a - before, q + b - before, "window");
      g.d[c].look(a, b, "window");
    }
    g.x2[c].look(p + u - before, q + v - before, "now");
    g.d[c].look(u, v, "now");
    const xv = read(s.x, p + u - before, q + v - before, c), dv = read(s.d, u, v, c);
    return `depthwise: z[${p},${q},${c}] += x[${p + u - before},${q + v - before},${c}] · d[${u},${v},${c}] = ${factor(xv)} · ${factor(dv)} = ${signed(xv * dv)}\n` +
      `product ${step + 1} of ${per}, sum so far ${signed(sum)}`;
  }
  filled(g.z, C, side * side * C, s.z, side);
  if (n === s.separable) {
    filled(g.y2, F, doneY, s.y, side);
    const left = Math.max(s.standard - Math.max(tick, n), 0);
    return `Done after ${whole.format(s.separable)} multiplications.` +
      (left ? ` The other side has ${whole.format(left)} to go.` : tick >= s.standard ? " Both outputs are equal." : "");
  }
  const last = second - 1, [p, q, f] = place(Math.floor(last / C), side, F), c = last % C;
  let sum = 0;
  for (let e = 0; e <= c; e++) sum += s.z.get([p, q, e].join()) * read(s.m, e, f);
  filled(g.y2, F, doneY, s.y, side, [p, q, f, sum]);
  for (let e = 0; e < C; e++) {
    g.z[e].look(p, q, "window");
    g.m[0].look(e, f, "window");
  }
  g.z[c].look(p, q, "now");
  g.m[0].look(c, f, "now");
  const zv = s.z.get([p, q, c].join()), mv = read(s.m, c, f);
  return `pointwise: y[${p},${q},${f}] += z[${p},${q},${c}] · m[${c},${f}] = ${factor(zv)} · ${factor(mv)} = ${signed(zv * mv)}\n` +
    `product ${c + 1} of ${C}, sum so far ${signed(sum)}`;
}

function seek(tick, spoken = false) {
  race.tick = Math.max(0, Math.min(Number($("tick").max), tick));
  $("tick").value = race.tick;
  $("tick-now").textContent = whole.format(race.tick);
  $("tick").setAttribute("aria-valuetext", `${whole.format(race.tick)} multiplications`);
  const left = drawStandard(race.tick), right = drawSeparable(race.tick);
  $("say-standard").textContent = left;
  $("say-separable").textContent = right;
  if (spoken) $("spoken").textContent = `Standard: ${left}. Separable: ${right}`;
  $("on").disabled = $("number").disabled = $("end").disabled = race.tick >= Number($("tick").max);
  $("back").disabled = $("start").disabled = race.tick === 0;
}

function pause() {
  clearInterval(race.timer);
  race.timer = null;
  $("play").textContent = "▶ Play";
}

function play() {
  if (race.tick >= Number($("tick").max)) seek(0);
  const rate = Number($("speed").value), frames = Math.min(rate, 25);
  $("play").textContent = "❚❚ Pause";
  race.timer = setInterval(() => {
    seek(race.tick + rate / frames);
    if (race.tick >= Number($("tick").max)) {
      pause();
      $("spoken").textContent = `${$("say-standard").textContent} ${$("say-separable").textContent}`;
    }
  }, 1000 / frames);
}

$("play").addEventListener("click", () => (race.timer ? pause() : play()));
$("speed").addEventListener("change", () => { if (race.timer) { pause(); play(); } });
$("tick").addEventListener("input", () => { pause(); seek(Number($("tick").value)); });
for (const [id, to] of [
  ["back", () => race.tick - 1], ["on", () => race.tick + 1], ["start", () => 0], ["end", () => Number($("tick").max)],
  ["number", () => { const per = scene.K * scene.K * scene.C; return (Math.floor(race.tick / per) + 1) * per; }],
]) $(id).addEventListener("click", () => { pause(); seek(to(), true); });

// ------------------------------------------------------------------------------------------------ your sizes

const large = {};
for (const [key, label, about, low, high, value, steps] of [
  ["K", "K", "side of the kernel", 1, 15, 3, from(1, 15)], ["C", "C", "channels in", 1, 4096, 64, channels],
  ["F", "F", "channels out", 1, 4096, 128, channels], ["side", "side", "of the map", 1, 512, 56, [1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112, 128, 224, 256, 512]],
]) {
  large[key] = slider($("large"), { id: key, label, about, low, high, value, steps }, update);
}

function update() {
  const [K, C, F, side] = ["K", "C", "F", "side"].map((key) => large[key].value);
  const cost = costs(K, C, F, side), separable = cost.depthwise.macs + cost.pointwise.macs, ratio = saving(K, F);
  $("ratio").textContent = `${times(ratio)}×`;
  $("macs-standard").textContent = whole.format(cost.standard.macs);
  $("macs-separable").textContent = whole.format(separable);
  const most = Math.max(cost.standard.macs, separable);
  for (const [id, macs] of [["standard", cost.standard.macs], ["depthwise", cost.depthwise.macs], ["pointwise", cost.pointwise.macs]])
    $(`bar-${id}`).style.width = `${(100 * macs) / most}%`;
  const row = (name, formula, filled, macs, params, sum) => {
    const cells = [make("th", { scope: "row" }, name, make("span", { className: "under", textContent: formula })), make("td", { className: "code", textContent: formula }), make("td", { className: "code", textContent: filled })];
    cells.push(make("td", { textContent: whole.format(macs) }), make("td", { textContent: whole.format(params) }));
    return make("tr", { className: sum ? "sum" : "", id: `row-${name}` }, ...cells);
  };
  $("rows").replaceChildren(
    row("standard", "P·Q·K·K·C·F", `${side}·${side}·${K}·${K}·${C}·${F}`, cost.standard.macs, cost.standard.params),
    row("depthwise", "P·Q·K·K·C", `${side}·${side}·${K}·${K}·${C}`, cost.depthwise.macs, cost.depthwise.params),
    row("pointwise", "P·Q·C·F", `${side}·${side}·${C}·${F}`, cost.pointwise.macs, cost.pointwise.params),
    row("separable", "P·Q·C·(K·K + F)", `${side}·${side}·${C}·(${K}·${K} + ${F})`, separable, cost.depthwise.params + cost.pointwise.params, true));
  $("why").textContent = `standard / separable = 1 / (1/F + 1/K²) = 1 / (1/${F} + 1/${K * K}) = ${times(ratio)}. ` +
    (ratio < 1 ? "Below 1: here the separable layer costs more than the standard one." : `It can never exceed K² = ${K * K}, and never F = ${F}.`);
  curve(K, F, ratio);
  clearTimeout(address); // not at every move of a slider: browsers refuse that many
  address = setTimeout(() => history.replaceState(null, "", `#K=${K}&C=${C}&F=${F}&side=${side}`), 300);
}
let address = null;

/** The saving against F for this K, with the reader's F on it; an SVG, described in words. */
function curve(K, F, ratio) {
  const wide = Math.max(280, $("curve").clientWidth), high = 260, left = 46, right = 14, top = 26, bottom = 44, limit = K * K, most = Math.max(limit, ratio, 1) * 1.12;
  const X = (f) => left + ((wide - left - right) * Math.log2(f)) / 12, Y = (r) => high - bottom - ((high - top - bottom) * r) / most;
  const points = from(0, 96).map((e) => `${X(2 ** (e / 8)).toFixed(1)},${Y(saving(K, 2 ** (e / 8))).toFixed(1)}`).join(" ");
  const ticks = [1, 4, 16, 64, 256, 1024, 4096].map((f) => `<text x="${X(f)}" y="${high - bottom + 18}" text-anchor="middle">${f}</text><line x1="${X(f)}" x2="${X(f)}" y1="${top}" y2="${high - bottom}" stroke="#e4eaf0"/>`).join("");
  const step = most > 100 ? 50 : most > 40 ? 20 : most > 20 ? 10 : most > 8 ? 3 : 1;
  const lines = from(0, Math.floor(most / step)).map((n) => `<text x="${left - 8}" y="${Y(n * step) + 4}" text-anchor="end">${n * step}×</text><line x1="${left}" x2="${wide - right}" y1="${Y(n * step)}" y2="${Y(n * step)}" stroke="#e4eaf0"/>`).join("");
  const end = X(F) > wide - 118;
  $("curve").innerHTML = `<svg viewBox="0 0 ${wide} ${high}" role="img" aria-label="The saving against the number of filters F for K = ${K}: it grows to the limit K² = ${limit}. At F = ${F} it is ${times(ratio)}.">
    ${ticks}${lines}<line x1="${left}" x2="${wide - right}" y1="${Y(limit)}" y2="${Y(limit)}" stroke="#c05a1c" stroke-width="1.6" stroke-dasharray="6 5"/>
    <text x="${left + 6}" y="${Y(limit) - 7}" style="fill:#a34a14">limit K² = ${limit}</text>
    <polyline points="${points}" fill="none" stroke="#1b3a5c" stroke-width="2.6"/><circle cx="${X(F)}" cy="${Y(ratio)}" r="6.5" fill="#c05a1c" stroke="#fff" stroke-width="2"/>
    <text x="${X(F) + (end ? -11 : 11)}" y="${Y(ratio) + 22}" text-anchor="${end ? "end" : "start"}" style="fill:#16202b;font-weight:600">F = ${F}: ${times(ratio)}×</text>
    <text x="${(left + wide - right) / 2}" y="${high - 5}" text-anchor="middle">filters F</text></svg>`;
}

for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
  if (key in large && /^[0-9]{1,4}$/.test(value)) {
    const box = $(key);
    large[key].set(Math.min(Number(box.max), Math.max(Number(box.min), Number(value))));
  }
}
build();
update();
window.addEventListener("resize", () => curve(large.K.value, large.F.value, saving(large.K.value, large.F.value)));

// The net that comes with numnet, on the reader's photograph, by ONNX Runtime Web. photo-data.js, cifar10.onnx and
// cifar10_int8.onnx are written when the site is built (docs/build_explainer.py).
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, props = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), props);
  element.append(...children);
  return element;
};
const data = window.NUMNET_PHOTO;
const side = data.side, classes = data.classes.length;
const weight = new Float32Array(Uint8Array.from(atob(data.weight), (c) => c.charCodeAt(0)).buffer); // (C, classes)
const state = { sessions: {}, net: data.nets[0], pixels: null, answer: null, chosen: 0, ready: false };
const LARGEST = 4096; // pixels of a side that are read; larger photographs are halved by the browser first

const say = (text, wrong = false) => {
  $("status").textContent = text;
  $("status").className = wrong ? "warning" : "";
};

// ------------------------------------------------------------------------------------------------ from a photograph to 32×32

/** What numnet's preset "stretch" does: Pillow's bilinear filter, which widens when it shrinks; rows first, each
 *  pass rounded to bytes. pixels: RGBA bytes (h, w, 4). Bytes (side, side, 3). */
function shrink(pixels, w, h) {
  const across = filter(w), down = filter(h);
  const between = new Uint8ClampedArray(h * side * 3), out = new Uint8ClampedArray(side * side * 3);
  for (let i = 0; i < h; i++) for (let q = 0; q < side; q++) {
    const [first, shares] = across[q];
    for (let c = 0; c < 3; c++) {
      let sum = 0;
      for (let n = 0; n < shares.length; n++) sum += shares[n] * pixels[(i * w + first + n) * 4 + c];
      between[(i * side + q) * 3 + c] = Math.floor(sum + 0.5);
    }
  }
  for (let p = 0; p < side; p++) {
    const [first, shares] = down[p];
    for (let q = 0; q < side; q++) for (let c = 0; c < 3; c++) {
      let sum = 0;
      for (let n = 0; n < shares.length; n++) sum += shares[n] * between[((first + n) * side + q) * 3 + c];
      out[(p * side + q) * 3 + c] = Math.floor(sum + 0.5);
    }
  }
  return out;
}

/** For each of the side outputs of a row of n pixels: the first input that counts, and the shares of it and the next ones. */
function filter(n) {
  const scale = n / side, reach = Math.max(scale, 1);
  return Array.from({ length: side }, (_, i) => {
    const middle = (i + 0.5) * scale, first = Math.max(Math.floor(middle - reach + 0.5), 0), end = Math.min(Math.floor(middle + reach + 0.5), n);
    const shares = Array.from({ length: end - first }, (_, k) => Math.max(0, 1 - Math.abs((k + first - middle + 0.5) / reach)));
    const total = shares.reduce((a, b) => a + b, 0);
    return [first, shares.map((s) => Math.round((s / total) * 2 ** 22) / 2 ** 22)]; // Pillow's fixed point
  });
}

/** Bytes (side, side, 3) of anything that a canvas can draw. */
function bytesOf(image, w, h) {
  const shrunk = Math.max(1, Math.max(w, h) / LARGEST), wide = Math.max(1, Math.round(w / shrunk)), high = Math.max(1, Math.round(h / shrunk));
  const canvas = make("canvas", { width: wide, height: high }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // what lies behind transparent pixels
  context.fillRect(0, 0, wide, high);
  context.drawImage(image, 0, 0, wide, high);
  return shrink(context.getImageData(0, 0, wide, high).data, wide, high);
}

// ------------------------------------------------------------------------------------------------ the net

async function session(file) {
  return (state.sessions[file] ??= await ort.InferenceSession.create(file, { executionProviders: ["wasm"], graphOptimizationLevel: "all" }));
}

/** The net's answer on bytes (side, side, 3): {logits, shares, maps: {name: {data, dims}}, ms}. */
async function look(pixels) {
  const x = new Float32Array(3 * side * side), { mean, std } = data.scaling;
  for (let n = 0; n < side * side; n++) for (let c = 0; c < 3; c++) x[c * side * side + n] = (pixels[n * 3 + c] / 255 - mean[c]) / std[c];
  const { file, maps: whole } = state.net, net = await session(file), begun = performance.now();
  const out = await net.run({ images: new ort.Tensor("float32", x, [1, 3, side, side]) });
  const ms = performance.now() - begun, logits = Array.from(out.logits.data), top = Math.max(...logits);
  const parts = logits.map((z) => Math.exp(z - top)), total = parts.reduce((a, b) => a + b, 0);
  const maps = Object.fromEntries(data.blocks.map(({ name }) => [name, reals(out[whole?.[name].output ?? name], whole?.[name])]));
  return { logits, shares: parts.map((p) => p / total), maps, ms };
}

/** A map in real numbers; of a net in eight bits by its grid, whole number q standing for (q − zero) · scale. */
function reals({ data: map, dims }, grid) {
  return { data: grid ? Float32Array.from(map, (q) => (q - grid.zero) * grid.scale) : map, dims };
}

/** The class activation map: the last dense layer at each place of the last map. (places,) for one class. */
function activation(answer, k) {
  const { data: map, dims: [, channels, rows, columns] } = answer.maps[data.blocks.at(-1).name];
  return Float32Array.from({ length: rows * columns }, (_, place) => {
    let sum = data.bias[k];
    for (let c = 0; c < channels; c++) sum += map[c * rows * columns + place] * weight[c * classes + k];
    return sum;
  });
}

let turn = 0; // of several photographs chosen quickly, the last one counts
async function show(pixels, name) {
  const mine = ++turn;
  say(`Looking at ${name} …`);
  try {
    const answer = await look(pixels);
    if (mine !== turn) return;
    Object.assign(state, { pixels, answer });
    state.chosen = answer.shares.indexOf(Math.max(...answer.shares));
    paint(name);
  } catch (error) {
    say(`The net could not run: ${error.message}`, true);
  }
}

// ------------------------------------------------------------------------------------------------ what is shown

const signed = (n) => n.toFixed(2).replace("-", "−");
const percent = (share) => (share >= 0.9995 ? "100 %" : `${(100 * share).toFixed(1)} %`);

function paint(name) {
  const { shares, ms } = state.answer, best = data.classes[shares.indexOf(Math.max(...shares))];
  say(`${name}: ${best}, ${percent(Math.max(...shares))}. It took ${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms here.`);
  const order = shares.map((_, k) => k).sort((a, b) => shares[b] - shares[a]);
  $("answers").replaceChildren(...order.map((k) => {
    const bar = make("i");
    bar.style.width = `${100 * shares[k]}%`;
    const button = make("button", { type: "button" }, make("span", { textContent: data.classes[k] }), make("span", { className: "track" }, bar), make("span", { className: "share", textContent: percent(shares[k]) }));
    button.dataset.class = k;
    button.addEventListener("click", () => { state.chosen = k; explain(); });
    return make("li", {}, button);
  }));
  const image = new ImageData(side, side);
  for (let n = 0; n < side * side; n++) image.data.set([...state.pixels.slice(3 * n, 3 * n + 3), 255], 4 * n);
  $("input").getContext("2d").putImageData(image, 0, 0);
  explain();
  strips();
  document.body.dataset.shown = name;
}

function explain() {
  for (const button of $("answers").querySelectorAll("button")) button.setAttribute("aria-pressed", Number(button.dataset.class) === state.chosen);
  const map = activation(state.answer, state.chosen), rows = Math.round(Math.sqrt(map.length)), most = Math.max(...map.map(Math.abs), 1e-9);
  const context = $("cam").getContext("2d"), small = make("canvas", { width: rows, height: rows }), image = new ImageData(rows, rows);
  map.forEach((v, n) => image.data.set(v > 0 ? [240, 120, 30, 225 * (v / most)] : [25, 75, 150, (225 * -v) / most], 4 * n));
  small.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  context.filter = "grayscale(1)";
  context.drawImage($("input"), 0, 0, 320, 320);
  context.filter = "none";
  context.imageSmoothingEnabled = true;
  context.drawImage(small, 0, 0, 320, 320);
  const label = data.classes[state.chosen], mean = map.reduce((a, b) => a + b, 0) / map.length, place = map.indexOf(Math.max(...map));
  const words = (n, names) => names[Math.floor((3 * (n + 0.5)) / rows)];
  const spot = `${words(Math.floor(place / rows), ["top", "middle", "bottom"])} ${words(place % rows, ["left", "centre", "right"])}`;
  $("cam").setAttribute("aria-label", `Class activation map for ${label}: strongest at the ${spot}`);
  $("cam-caption").textContent = `Orange speaks for “${label}”, blue against it`;
  $("cam-words").textContent = `The last map has ${rows}×${rows} places. Each gives a number for “${label}”; the strongest is at the ${spot}. ` +
    `Their mean, ${signed(mean)}, is the net's number for this class before softmax (${signed(state.answer.logits[state.chosen])})` +
    (state.net.maps ? ", but for what eight bits round off." : ".");
}

/** One channel of a map as a grey picture. */
function picture(map, channel, rows, columns) {
  const canvas = make("canvas", { width: columns, height: rows }), image = new ImageData(columns, rows), size = rows * columns;
  const part = map.subarray(channel * size, (channel + 1) * size);
  let low = Infinity, high = -Infinity;
  for (const v of part) { low = Math.min(low, v); high = Math.max(high, v); }
  part.forEach((v, n) => { const grey = high > low ? (255 * (v - low)) / (high - low) : 128; image.data.set([grey, grey, grey, 255], 4 * n); });
  canvas.getContext("2d").putImageData(image, 0, 0);
  canvas.title = `channel ${channel}: from ${signed(low)} to ${signed(high)}`;
  return canvas;
}

/** The numbers of the channels that differ most over the image, in order. */
function liveliest(map, channels, size, count) {
  const spread = Array.from({ length: channels }, (_, c) => {
    const part = map.subarray(c * size, (c + 1) * size), mean = part.reduce((a, b) => a + b, 0) / size;
    return part.reduce((a, b) => a + (b - mean) ** 2, 0);
  });
  return spread.map((_, c) => c).sort((a, b) => spread[b] - spread[a]).slice(0, count).sort((a, b) => a - b);
}

function strips() {
  if (!state.answer) return;
  const every = $("every").checked;
  $("blocks").replaceChildren(...data.blocks.map(({ name, shape }) => {
    const [rows, columns, channels] = shape, map = state.answer.maps[name].data;
    const chosen = liveliest(map, channels, rows * columns, every ? channels : 8);
    const strip = make("div", { className: every ? "strip every" : "strip", role: "img", ariaLabel: `${chosen.length} channels of ${name}` }, ...chosen.map((c) => picture(map, c, rows, columns)));
    return make("div", { className: "block" }, make("div", {}, make("h3", { textContent: name }), make("p", { textContent: `${rows}×${columns}, ${channels} channels` })), strip);
  }));
}

// ------------------------------------------------------------------------------------------------ photographs

async function take(file) {
  if (!file) return;
  if (!state.ready) return say("The net is still being loaded. Please wait a moment and try again.");
  let image;
  try { // as numnet reads it: turned as its EXIF data says, without a colour profile
    image = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch {
    return say(`${file.name || "This"} is not an image that this browser can read. JPEG, PNG and WebP always work.`, true);
  }
  await show(bytesOf(image, image.width, image.height), file.name || "the pasted image");
  image.close();
}

/** Drawings of our own, for readers without a photograph at hand. */
const DRAWINGS = {
  "a drawn ship": (g) => {
    sky(g, "#a9cdea", "#dceaf4");
    g.fillStyle = "#2b5f8c"; g.fillRect(0, 66, 100, 34);
    g.fillStyle = "#8f2a22"; poly(g, [8, 58, 92, 58, 82, 74, 18, 74]);
    g.fillStyle = "#f2f2ee"; g.fillRect(26, 46, 46, 12); g.fillRect(34, 36, 30, 10);
    g.fillStyle = "#d8812c"; g.fillRect(46, 22, 9, 14); g.fillStyle = "#333"; g.fillRect(46, 22, 9, 4);
  },
  "a drawn aeroplane": (g) => {
    sky(g, "#5f9fdb", "#b7d6f0");
    g.fillStyle = "#eef1f4"; g.beginPath(); g.ellipse(50, 52, 42, 7, -0.06, 0, 7); g.fill();
    poly(g, [44, 52, 60, 52, 40, 80, 32, 80]); poly(g, [44, 50, 58, 50, 46, 32, 39, 32]); poly(g, [10, 52, 22, 50, 12, 34, 5, 34]);
    g.fillStyle = "#38506b"; for (let i = 0; i < 9; i++) g.fillRect(28 + 6 * i, 50 - i * 0.3, 2.4, 2.4);
  },
  "a drawn truck": (g) => {
    sky(g, "#c9d5dd", "#e8edf0");
    g.fillStyle = "#777"; g.fillRect(0, 76, 100, 24);
    g.fillStyle = "#e9e6df"; g.fillRect(6, 26, 58, 44); g.fillStyle = "#b5261e"; poly(g, [66, 36, 84, 36, 94, 54, 94, 70, 66, 70]);
    g.fillStyle = "#aecbdd"; poly(g, [70, 40, 82, 40, 88, 53, 70, 53]); g.fillStyle = "#444"; g.fillRect(6, 68, 88, 5);
    for (const x of [20, 36, 80]) { g.fillStyle = "#1c1c1c"; disc(g, x, 75, 8); g.fillStyle = "#999"; disc(g, x, 75, 3.4); }
  },
  "a drawn frog": (g) => {
    sky(g, "#8a7a55", "#6b5e3c");
    g.fillStyle = "#4e8a2f"; g.beginPath(); g.ellipse(50, 62, 34, 24, 0, 0, 7); g.fill();
    g.beginPath(); g.ellipse(50, 42, 26, 18, 0, 0, 7); g.fill(); disc(g, 32, 28, 9); disc(g, 68, 28, 9);
    g.fillStyle = "#d9cf6a"; disc(g, 32, 28, 5.5); disc(g, 68, 28, 5.5); g.fillStyle = "#111"; disc(g, 32, 28, 2.8); disc(g, 68, 28, 2.8);
    g.fillStyle = "#c8d39a"; g.beginPath(); g.ellipse(50, 70, 20, 13, 0, 0, 7); g.fill();
    g.strokeStyle = "#2c521a"; g.lineWidth = 2; g.beginPath(); g.arc(50, 38, 17, 0.35, 2.8); g.stroke();
  },
};
function sky(g, top, bottom) {
  const shade = g.createLinearGradient(0, 0, 0, 100);
  shade.addColorStop(0, top);
  shade.addColorStop(1, bottom);
  g.fillStyle = shade;
  g.fillRect(0, 0, 100, 100);
}
function poly(g, points) {
  g.beginPath();
  for (let i = 0; i < points.length; i += 2) g.lineTo(points[i], points[i + 1]);
  g.fill();
}
function disc(g, x, y, r) { g.beginPath(); g.arc(x, y, r, 0, 7); g.fill(); }

for (const [name, draw] of Object.entries(DRAWINGS)) {
  const canvas = make("canvas", { width: 200, height: 200 }), context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(2, 2);
  draw(context);
  const button = make("button", { type: "button", ariaLabel: name, title: name }, canvas);
  button.addEventListener("click", () => (state.ready ? show(bytesOf(canvas, 200, 200), name) : undefined));
  $("samples").append(button);
}

$("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
$("every").addEventListener("change", strips);
for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const kind of ["dragleave", "drop"]) addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
addEventListener("paste", (event) => take([...event.clipboardData.files].find((file) => file.type.startsWith("image/"))));

// ------------------------------------------------------------------------------------------------ start

async function start() {
  $("classes").textContent = data.classes.join(", ");
  const facts = new Intl.NumberFormat("en-US");
  $("about").textContent = `A MobileNet with ${facts.format(data.params)} parameters and ${facts.format(data.macs)} MACs, trained with numnet on CIFAR-10: ` +
    `${(100 * data.nets[0].accuracy).toFixed(1)} % of the test images are right. It is run by ONNX Runtime Web. Class activation maps: Zhou et al. 2016.`;
  if (location.protocol === "file:") return say("This page needs a file server, since a browser does not load a net from a file. In the site's folder: python -m http.server", true);
  if (!window.ort) return say("The runtime is not there: the folder ort/ is missing. Build the site again.", true);
  Object.assign(ort.env.wasm, { wasmPaths: new URL("ort/", location.href).href, numThreads: 1 });
  if (data.nets.length > 1) {
    $("nets").hidden = false;
    for (const net of data.nets) {
      const input = make("input", { type: "radio", name: "net", value: net.file, checked: net === state.net });
      input.addEventListener("change", () => { state.net = net; if (state.pixels) show(state.pixels, document.body.dataset.shown); });
      $("nets").append(make("label", {}, input, `${net.name}: ${(net.bytes / 1e6).toFixed(2)} MB, ${(100 * net.accuracy).toFixed(1)} % of the test images`));
    }
  }
  try {
    await look(new Uint8ClampedArray(3 * side * side)); // the first run is slower, and no reader's
    state.ready = true;
  } catch (error) {
    return say(`The net could not be loaded: ${error.message}`, true);
  }
  say("The net is ready.");
  $("samples").querySelector("button").click();
}
start();

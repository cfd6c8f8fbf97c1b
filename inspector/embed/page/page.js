// A photo to the network's input, as inspector/photos does it in Python; then classes and heatmap.
// `ort` is ONNX Runtime, whose module stands before this code.

const MAX_MEGAPIXELS = 64;
const LONGEST_SIDE = 1600; // of what is drawn
const TOLERANCE = 1e-3; // of the peak, between this browser's numbers and Python's
const element = (id) => document.getElementById(id);
const facts = JSON.parse(element("facts").textContent);

// -- data of the page ---------------------------------------------------------------------------

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unpacked(id) {
  const node = element(id);
  const stream = new Blob([bytesOf(node.textContent)]).stream();
  node.textContent = "";
  const plain = stream.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

function floatsOf(base64) {
  const bytes = bytesOf(base64);
  return new Float32Array(bytes.buffer, 0, bytes.length / 4);
}

// -- resampling: Pillow's, to the bit -----------------------------------------------------------

const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => {
    const t = Math.abs(x) * Math.PI;
    if (t === 0) return 1;
    return Math.abs(x) >= 1 ? 0 : (Math.sin(t) / t) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(t));
  }],
  bicubic: [2, (x) => {
    const a = -0.5;
    const t = Math.abs(x);
    if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
  }],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const PRECISION = 22; // bits behind the point of a weight

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

// For each new position: the first old one, and the weights of those from there on.
function weights(old, size, name) {
  const [reach, filter] = FILTERS[name];
  const scale = old / size;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  const rows = [];
  for (let i = 0; i < size; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(old, Math.trunc(centre + support + 0.5));
    const found = [];
    let total = 0;
    for (let j = first; j < last; j++) {
      const weight = filter((j - centre + 0.5) * (1 / stretch));
      found.push(weight);
      total += weight;
    }
    const fixed = found.map((weight) => {
      const share = total === 0 ? weight : weight / total;
      return Math.trunc(share * 2 ** PRECISION + (share < 0 ? -0.5 : 0.5));
    });
    rows.push([first, fixed]);
  }
  return rows;
}

function alongRows(plane, height, width, size, name) {
  const table = weights(width, size, name);
  const out = new Uint8ClampedArray(height * size);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < size; x++) {
      const [first, row] = table[x];
      let sum = 1 << (PRECISION - 1);
      for (let k = 0; k < row.length; k++) sum += plane[y * width + first + k] * row[k];
      out[y * size + x] = sum >> PRECISION;
    }
  }
  return out;
}

function alongColumns(plane, height, width, size, name) {
  const table = weights(height, size, name);
  const out = new Uint8ClampedArray(size * width);
  for (let y = 0; y < size; y++) {
    const [first, row] = table[y];
    for (let x = 0; x < width; x++) {
      let sum = 1 << (PRECISION - 1);
      for (let k = 0; k < row.length; k++) sum += plane[(first + k) * width + x] * row[k];
      out[y * width + x] = sum >> PRECISION;
    }
  }
  return out;
}

function nearest(old, size) {
  const step = old / size;
  const found = [];
  let at = step * 0.5;
  for (let i = 0; i < size; i++) {
    found.push(Math.min(old - 1, Math.trunc(at)));
    at += step;
  }
  return found;
}

function resized(plane, [height, width], [newHeight, newWidth], name) {
  if (name === "nearest") {
    const rows = nearest(height, newHeight);
    const columns = nearest(width, newWidth);
    const out = new Uint8ClampedArray(newHeight * newWidth);
    rows.forEach((row, y) => columns.forEach((column, x) => {
      out[y * newWidth + x] = plane[row * width + column];
    }));
    return out;
  }
  const rowsFirst = () => {
    if (newWidth !== width) plane = alongRows(plane, height, width, newWidth, name);
    if (newHeight !== height) plane = alongColumns(plane, height, newWidth, newHeight, name);
  };
  const columnsFirst = () => {
    if (newHeight !== height) plane = alongColumns(plane, height, width, newHeight, name);
    if (newWidth !== width) plane = alongRows(plane, newHeight, width, newWidth, name);
  };
  // Each pass rounds to eight bits, so their order shows; Pillow 13 looks at what is cut off.
  const less = [height - newHeight, width - newWidth];
  if (facts.less_height_first && less[0] > 0 && less[0] > 2 * less[1]) columnsFirst();
  else rowsFirst();
  return plane;
}

// -- preprocessing ------------------------------------------------------------------------------

// As Python rounds: halves to the even number.
function rounded(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 === 0 ? low : low + 1;
}

function scaledSize([height, width], { size, resize, crop_pct: share }) {
  const want = size.map((side) => Math.floor(side / share + 1e-6));
  if (resize === "squash") return want;
  if (resize === "crop" && want[0] === want[1]) {
    const scaled = Math.max(1, Math.trunc((want[0] * Math.max(height, width)) / Math.min(height, width)));
    return height <= width ? [want[0], scaled] : [scaled, want[0]];
  }
  const pick = resize === "crop" ? Math.min : Math.max;
  const ratio = pick(height / want[0], width / want[1]);
  return [Math.max(1, rounded(height / ratio)), Math.max(1, rounded(width / ratio))];
}

function offset(scaled, size) {
  return scaled < size ? -Math.floor((size - scaled) / 2) : rounded((scaled - size) / 2);
}

function planesOf({ pixels, size }, channels) {
  const count = size[0] * size[1];
  const planes = [0, 1, 2].map((c) => {
    const plane = new Uint8Array(count);
    for (let i = 0; i < count; i++) plane[i] = pixels[i * 3 + c];
    return plane;
  });
  if (channels === "BGR") return planes.reverse();
  if (channels !== "GRAY") return planes;
  const [red, green, blue] = planes;
  return [red.map((_, i) => (red[i] * 19595 + green[i] * 38470 + blue[i] * 7471 + 0x8000) >> 16)];
}

function padOf({ channels, pad: [red, green, blue] }) {
  if (channels === "GRAY") return [0.299 * red + 0.587 * green + 0.114 * blue];
  return channels === "BGR" ? [blue, green, red] : [red, green, blue];
}

// The network's input, (C, H, W) or (H, W, C), and where it lies on the photo.
function prepared(photo, steps, layout, integer) {
  const scaled = scaledSize(photo.size, steps);
  const [height, width] = steps.size;
  const top = offset(scaled[0], height);
  const left = offset(scaled[1], width);
  const f = Math.fround;
  const pads = padOf(steps);
  const planes = planesOf(photo, steps.channels);
  const out = integer ? new Uint8ClampedArray(planes.length * height * width)
    : new Float32Array(planes.length * height * width);
  planes.forEach((plane, c) => {
    const small = resized(plane, photo.size, scaled, steps.interpolation);
    const [scale, mean, std] = [f(steps.scale), f(steps.mean[c]), f(steps.std[c])];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [row, column] = [y + top, x + left];
        const inside = row >= 0 && row < scaled[0] && column >= 0 && column < scaled[1];
        const pixel = inside ? small[row * scaled[1] + column] : f(pads[c]);
        const value = f(f(f(pixel / scale) - mean) / std);
        const at = layout === "NHWC" ? (y * width + x) * planes.length + c
          : (c * height + y) * width + x;
        out[at] = integer ? rounded(value) : value;
      }
    }
  });
  const geometry = {
    scale: [scaled[0] / photo.size[0], scaled[1] / photo.size[1]],
    shift: [-top, -left],
  };
  return { values: out, geometry };
}

// -- the network --------------------------------------------------------------------------------

let session = null;

async function start() {
  ort.env.wasm.numThreads = 1; // more need headers that a file has not
  ort.env.wasm.proxy = false;
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  session = await ort.InferenceSession.create(await unpacked("model"), {
    executionProviders: ["wasm"],
  });
}

async function run(photo) {
  const { name, layout, type } = facts.input;
  const integer = type === "uint8";
  const { values, geometry } = prepared(photo, facts.preprocess, layout, integer);
  const [height, width] = facts.preprocess.size;
  const channels = values.length / (height * width);
  const shape = layout === "NHWC" ? [1, height, width, channels] : [1, channels, height, width];
  const data = integer ? new Uint8Array(values.buffer) : values;
  const names = facts.classes ? [facts.heatmap, facts.classes.output] : [facts.heatmap];
  const found = await session.run({ [name]: new ort.Tensor(type, data, shape) }, names);
  const map = found[facts.heatmap];
  const heatmap = floats(map);
  if (!heatmap.every(Number.isFinite)) throw new Error("its heatmap holds numbers that are not finite");
  return {
    input: data,
    geometry,
    heatmap,
    side: map.dims.slice(1),
    scores: facts.classes ? floats(found[facts.classes.output]) : null,
  };
}

function floats(tensor) {
  if (tensor.type !== "float16" || !(tensor.data instanceof Uint16Array)) {
    return Float32Array.from(tensor.data);
  }
  return Float32Array.from(tensor.data, (bits) => {
    const [sign, power, part] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    if (power === 31) return part ? NaN : sign * Infinity;
    return sign * (power ? 2 ** (power - 15) * (1 + part / 1024) : 2 ** -14 * (part / 1024));
  });
}

// As inspector/probability.py: null where nothing says that the scores are of classes.
function probabilities(scores) {
  const { activation, flipped, assumed } = facts.classes;
  if (activation) return { values: [...scores].map((p) => (flipped ? 1 - p : p)), assumed: false };
  const sum = scores.reduce((a, b) => a + b, 0);
  const given = scores.every((p) => p >= 0 && p <= 1) && Math.abs(sum - 1) <= 2e-3;
  if (given && scores.length > 1) return { values: [...scores], assumed: false };
  if (!assumed || scores.length < 2) return null;
  const top = Math.max(...scores);
  const powers = [...scores].map((score) => Math.exp(score - top));
  const total = powers.reduce((a, b) => a + b, 0);
  return { values: powers.map((power) => power / total), assumed: true };
}

// -- the page tries itself ----------------------------------------------------------------------

function adler(bytes) {
  let [a, b] = [1, 0];
  for (let i = 0; i < bytes.length; i++) {
    a = (a + bytes[i]) % 65521;
    b = (b + a) % 65521;
  }
  return b * 65536 + a;
}

function trialPicture([height, width]) {
  const pixels = new Uint8Array(height * width * 3);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      for (let c = 0; c < 3; c++) {
        pixels[at++] = (x * x * 3 + y * y * 5 + x * y * (c + 1) * 7 + c * 61) % 251;
      }
    }
  }
  return { pixels, size: [height, width] };
}

// Largest difference, relative to the largest number that is expected.
function apart(found, expected) {
  if (found.length !== expected.length) return Infinity;
  let [worst, peak] = [0, 0];
  for (let i = 0; i < expected.length; i++) {
    peak = Math.max(peak, Math.abs(expected[i]));
    const difference = Math.abs(found[i] - expected[i]);
    worst = difference <= worst ? worst : difference; // NaN counts as a difference
  }
  return worst / (peak || 1);
}

async function faults() {
  const { size, input, heatmap, scores } = facts.test;
  const found = await run(trialPicture(size));
  const bytes = new Uint8Array(found.input.buffer, found.input.byteOffset, found.input.byteLength);
  const list = [];
  if (adler(bytes) !== input) list.push("pixels are scaled to other values than in Python");
  const map = apart(found.heatmap, floatsOf(heatmap));
  if (!(map <= TOLERANCE)) list.push(`the heatmap differs by ${percent(map)} of its peak`);
  const classes = found.scores ? apart(found.scores, floatsOf(scores)) : 0;
  if (!(classes <= TOLERANCE)) list.push(`the scores differ by ${percent(classes)} of their peak`);
  return list;
}

// -- a photo ------------------------------------------------------------------------------------

function letters(view, at, count) {
  let found = "";
  for (let i = at; i < Math.min(at + count, view.byteLength); i++) {
    found += String.fromCharCode(view.getUint8(i));
  }
  return found;
}

// The orientation (1 to 8) that EXIF data say; 1 where they say none.
function orientationOf(view, at) {
  const start = letters(view, at, 4) === "Exif" ? at + 6 : at;
  const little = letters(view, start, 2) === "II";
  const first = start + view.getUint32(start + 4, little);
  for (let i = 0; i < view.getUint16(first, little); i++) {
    const entry = first + 2 + 12 * i;
    if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little);
  }
  return 1;
}

// What browsers read otherwise than Python, by the file's first bytes; null where nothing is known.
function misread(view) {
  const [start, chunk] = [letters(view, 0, 8), letters(view, 8, 4)];
  if (start === "\x89PNG\r\n\x1a\n" && view.byteLength > 24 && view.getUint8(24) === 16) {
    return "it has sixteen bits per channel, of which browsers read eight; save it with eight";
  }
  for (let at = 12; start.startsWith("RIFF") && chunk === "WEBP" && at + 8 < view.byteLength; ) {
    const size = view.getUint32(at + 4, true);
    if (letters(view, at, 4) === "EXIF" && ![0, 1].includes(orientationOf(view, at + 8))) {
      return "browsers do not turn a WebP file upright; save it turned, or as JPEG";
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

function misreadFile(buffer) {
  try {
    return misread(new DataView(buffer));
  } catch {
    return null; // damaged data, which the browser judges
  }
}

async function opened(file) {
  const known = misreadFile(await file.arrayBuffer());
  if (known) throw new Error(known);
  // The network takes the file's own numbers: no colour profile, alpha laid on white below.
  const bitmap = await createImageBitmap(file, {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
  const size = [bitmap.height, bitmap.width];
  if (size[0] * size[1] > MAX_MEGAPIXELS * 1e6) {
    throw new Error(`more than ${MAX_MEGAPIXELS} megapixels; make the photo smaller`);
  }
  const canvas = new OffscreenCanvas(size[1], size[0]);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, size[1], size[0]).data;
  const pixels = new Uint8Array(size[0] * size[1] * 3);
  let transparent = false;
  for (let i = 0; i < size[0] * size[1]; i++) {
    const alpha = rgba[i * 4 + 3] / 255;
    transparent ||= alpha < 1;
    for (let c = 0; c < 3; c++) {
      pixels[i * 3 + c] = rounded(rgba[i * 4 + c] * alpha + 255 * (1 - alpha));
    }
  }
  return { pixels, size, transparent };
}

let shown = null;
let turn = Promise.resolve();

// One photo after the other: the network runs one at a time, and the last one stays.
function explain(file) {
  const next = () => explained(file);
  turn = turn.then(next, next);
  return turn;
}

async function explained(file) {
  say(`Computing ${file.name}…`);
  if (!element("alarm").dataset.kept) element("alarm").hidden = true;
  try {
    const photo = await opened(file);
    shown = { photo, name: file.name, ...(await run(photo)) };
  } catch (error) {
    say("");
    alarm(`${file.name} cannot be explained: ${error.message || error}`);
    return;
  }
  describe();
  draw();
  element("result").hidden = false;
  say(`${file.name} is explained.`);
}

function say(text) {
  element("state").textContent = text;
}

function alarm(text, kept = false) {
  const node = element("alarm");
  node.textContent = text;
  node.hidden = false;
  if (kept) node.dataset.kept = "yes";
}

function percent(share) {
  return `${(share * 100).toPrecision(2)} %`;
}

function labelOf(index) {
  const name = facts.classes.names[index];
  return name ? `${name} (${index})` : `class ${index}`;
}

function describe() {
  const notes = [];
  const body = element("classes").tBodies[0];
  body.replaceChildren();
  element("classes").hidden = !facts.classes;
  element("answer").textContent = shown.name;
  if (facts.classes) {
    const found = probabilities(shown.scores);
    const values = found ? found.values : [...shown.scores];
    const said = (index) => (found ? `${(values[index] * 100).toFixed(1)} %` : values[index].toPrecision(4));
    const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b);
    for (const index of order.slice(0, 5)) {
      const row = body.insertRow();
      row.insertCell().textContent = labelOf(index);
      row.insertCell().textContent = said(index);
    }
    element("answer").textContent = `${labelOf(order[0])}, ${said(order[0])}`;
    if (found && order.length > 1 && values[order[0]] - values[order[1]] < 0.1) {
      notes.push("A close call: the second class is nearly as probable.");
    }
    if (!found) notes.push("The file does not say what its numbers are: no percentages are given.");
    if (found?.assumed) notes.push("Probabilities are a softmax of the scores; the model itself has none.");
  }
  const seen = shareSeen();
  if (seen < 0.995) {
    notes.push(`The network sees ${(seen * 100).toFixed(0)} % of the photo; the rest is dimmed.`);
  }
  if (shown.photo.transparent) notes.push("Transparent parts are laid on white.");
  if (!facts.class_specific) notes.push("This method gives the same map for every class.");
  if (facts.guessed) notes.push("How photos are prepared was guessed when this page was made.");
  element("notes").replaceChildren(...notes.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
}

// -- the picture --------------------------------------------------------------------------------

function positions(length, axis, count) {
  const { scale, shift } = shown.geometry;
  const step = shown.photo.size[axis] / count;
  return Array.from({ length: count }, (_, i) => scale[axis] * (i + 0.5) * step + shift[axis] - 0.5)
    .map((at) => {
      const inside = at >= -0.5 - 1e-6 && at <= length - 0.5 + 1e-6;
      const place = Math.min(Math.max(at, 0), length - 1);
      const low = Math.floor(place);
      return { inside, low, high: Math.min(low + 1, length - 1), part: place - low };
    });
}

function shareSeen() {
  return [0, 1].map((axis) => {
    const all = positions(shown.side[axis], axis, shown.photo.size[axis]);
    return all.filter((one) => one.inside).length / all.length;
  }).reduce((a, b) => a * b, 1);
}

function draw() {
  const { photo, heatmap, side } = shown;
  const [height, width] = photo.size;
  const shrink = Math.min(1, LONGEST_SIDE / Math.max(height, width));
  const grow = Math.max(1, Math.floor(320 / Math.max(height, width)));
  const size = [height, width].map((length) => Math.max(1, Math.round(length * shrink * grow)));
  const canvas = element("picture");
  [canvas.height, canvas.width] = size;
  const rows = positions(side[0], 0, size[0]);
  const columns = positions(side[1], 1, size[1]);
  const low = heatmap.reduce((a, b) => Math.min(a, b), 0);
  const high = heatmap.reduce((a, b) => Math.max(a, b), 0);
  const signed = low < 0;
  const peak = Math.max(high, -low);
  const table = bytesOf(signed ? facts.colours.signed : facts.colours.plain);
  const strength = element("strength").value / 100;
  const picture = new ImageData(size[1], size[0]);
  rows.forEach((row, y) => {
    const from = Math.min(height - 1, Math.trunc(((y + 0.5) * height) / size[0]));
    columns.forEach((column, x) => {
      const pixel = (from * width + Math.min(width - 1, Math.trunc(((x + 0.5) * width) / size[1]))) * 3;
      const seen = row.inside && column.inside;
      const line = (r) => {
        const [a, b] = [heatmap[r * side[1] + column.low], heatmap[r * side[1] + column.high]];
        return a + column.part * (b - a);
      };
      const upper = line(row.low);
      const value = seen && peak > 0 ? (upper + row.part * (line(row.high) - upper)) / peak : 0;
      const entry = Math.round(signed ? (value + 1) * 127.5 : Math.max(value, 0) * 255) * 3;
      const opacity = strength * Math.sqrt(Math.min(1, Math.abs(value)));
      const at = (y * size[1] + x) * 4;
      for (let c = 0; c < 3; c++) {
        const own = photo.pixels[pixel + c] * (seen ? 1 : 0.4);
        picture.data[at + c] = own * (1 - opacity) + table[entry + c] * opacity;
      }
      picture.data[at + 3] = 255;
    });
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
  canvas.setAttribute("aria-label", `${shown.name} under its heatmap`);
  bar(table);
  element("low").textContent = signed ? (-peak).toPrecision(3) : "0";
  element("high").textContent = peak.toPrecision(3);
  element("caption").textContent = peak > 0
    ? `${facts.method} of ${facts.target}${facts.layer ? ` at ${facts.layer}` : ""}`
    : `${facts.method}: no evidence, the map is 0 everywhere`;
}

function bar(table) {
  const canvas = element("bar");
  const picture = new ImageData(256, canvas.height);
  for (let i = 0; i < picture.data.length / 4; i++) {
    for (let c = 0; c < 3; c++) picture.data[i * 4 + c] = table[(i % 256) * 3 + c];
    picture.data[i * 4 + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// -- wiring -------------------------------------------------------------------------------------

function wire() {
  const file = element("file");
  file.disabled = false;
  file.addEventListener("change", () => file.files[0] && explain(file.files[0]));
  element("strength").addEventListener("input", draw);
  const over = (on) => element("drop").classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", () => over(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const dropped = event.dataTransfer.files[0];
    if (dropped) explain(dropped);
  });
  document.addEventListener("paste", (event) => {
    const pasted = event.clipboardData.files[0];
    if (pasted) explain(pasted);
  });
}

async function main() {
  element("about").textContent =
    `${facts.method} of ${facts.target}. Photos stay on this machine: the page sends nothing.`;
  element("facts-line").textContent = `Made by ${facts.program} of ${facts.name}.`;
  try {
    await start();
    const found = await faults();
    if (found.length) alarm(`Do not trust this page in this browser: ${found.join("; ")}.`, true);
  } catch (error) {
    say("");
    alarm(`The network does not run in this browser: ${error.message || error}`, true);
    return;
  }
  wire();
  say("Ready.");
}

// For programs that drive the page.
globalThis.inspector = { explain, ready: main().then(() => true), resized, result: () => shown };

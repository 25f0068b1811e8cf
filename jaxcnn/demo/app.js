/** The page: state, controls, and what is drawn when something changes. */

import { colourOf, css, GREYS, scaleTable, textOn } from "./colours.js";
import { disturb, prepareDigit } from "./digit.js";
import { count, decimal, h, percent } from "./dom.js";
import { explain } from "./inspect.js";
import { connectionTable, describeLayer, drawKernels, LayerView, unitName } from "./layers.js";
import { BOUNDS, decodeBytes, decodeFloats, Network } from "./network.js";
import { Pad } from "./pad.js";

const LARGEST_UPLOAD = 800; // pixels of the longer side in which a digit is searched
const MOST_BARS = 12;
// Least and largest pixels of a unit.
const CELLS = { Input: [5, 7], C1: [3, 4], S2: [4, 6], C3: [5, 7], S4: [6, 9], C5: [12, 15], F6: [12, 15] };

const $ = (selector) => document.querySelector(selector);
const description = JSON.parse($("#network").textContent);
const network = new Network(description, decodeFloats(description.numbers));
const names = description.class_names;
const last = network.layers.length - 1;
const hasCode = network.layers[last].kind === "rbf";
const trainedPool = network.layers.find((layer) => layer.kind === "pool").pool;

const images = decodeBytes(description.gallery.images);
const gallery = description.gallery.labels.map((label, i) => {
  const pixels = images.subarray(784 * i, 784 * (i + 1));
  const isHard = i >= description.gallery.labels.length - description.gallery.num_hard;
  return { label, pixels, isHard, picture: pictureOf(pixels) };
});

const state = { pool: trainedPool, disturbance: {}, hovered: null, selected: null, theme: "light" };
let table, theme, limits;

// ---- Drawing everything -----------------------------------------------------------------------

const pad = new Pad($("#pad"), () => schedule());
const handlers = { hover: setHovered, select: setSelected, speak: (text) => ($("#spoken").textContent = text) };
const views = network.layers.slice(0, last).map((layer, index) => {
  const columns = hasCode && layer.name === "F6" ? 7 : null;
  return new LayerView(layer, index, { cells: CELLS[layer.name], columns }, handlers);
});

let scheduled = false;
/** Compute and draw before the next frame, however many changes there are until then. */
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    update();
  });
}

function prepared() {
  if (pad.digit) return pad.digit;
  const [box, centre] = ["#box", "#centre"].map((id) => $(id).checked);
  return prepareDigit(pad.image, { box, centre });
}

function update() {
  state.pixels = disturb(prepared(), state.disturbance);
  const start = performance.now();
  state.result = network.run(state.pixels, state.pool);
  state.milliseconds = performance.now() - start;
  drawLayers();
  drawAnswer();
  drawInspector();
  $("#undo").disabled = !pad.canUndo;
  $("#hint").hidden = !pad.isEmpty;
  scheduleScore();
}

function drawLayers() {
  views.forEach((view, index) => {
    const values = index ? state.result.outputs[index].after : framedGreys();
    view.draw(values, index ? table : GREYS, index ? limits[index] : null, theme);
  });
  drawOutputs();
  drawMarks();
}

/** Return the input as grey levels, its frame included. */
function framedGreys() {
  const { mean, std } = description.input;
  return state.result.outputs[0].after.map((x) => 255 * (x * std + mean));
}

function drawAnswer() {
  const order = [...state.result.logProbs.keys()].sort(
    (a, b) => state.result.logProbs[b] - state.result.logProbs[a],
  );
  const probabilities = [...state.result.logProbs].map(Math.exp);
  const best = order[0];
  $("#best").textContent = pad.isEmpty ? "?" : names[best];
  $("#best").classList.toggle("long", names[best].length > 2);
  const summary = pad.isEmpty ? "Nothing is drawn" : percent(probabilities[best]);
  $("#sure").textContent = summary;
  $("#chip").textContent = pad.isEmpty ? "" : `${names[best]} · ${summary}`;
  const shown = names.length > MOST_BARS ? order.slice(0, MOST_BARS) : [...names.keys()];
  const rows = shown.map((i) => [names[i], probabilities[i], i === best]);
  if (hasCode) rows.push(["none", Math.max(0, 1 - probabilities.reduce((a, b) => a + b, 0)), false]);
  $("#bars").replaceChildren(...rows.map((row) => bar(...row)));
  $("#answer").classList.toggle("empty", pad.isEmpty);
  announce(pad.isEmpty ? summary : `Answer: ${names[best]}, ${summary}`);
}

function bar(name, probability, isBest) {
  return h(
    isBest ? "li.best" : "li",
    {},
    h("span.name", { title: name }, name),
    h("span.track", {}, h("span.fill", { style: { width: `${100 * probability}%` } })),
    h("span.percent", {}, percent(probability)),
  );
}

let announcing;
/** Tell screen readers the answer once the drawing rests. */
function announce(text) {
  clearTimeout(announcing);
  announcing = setTimeout(() => {
    if ($("#live").textContent !== text) $("#live").textContent = text;
  }, 500);
}

let scoring;
/** Count the gallery's right answers under the present settings, when nothing else is to do. */
function scheduleScore() {
  clearTimeout(scoring);
  scoring = setTimeout(() => {
    let right = 0;
    gallery.forEach((digit, i) => {
      const { logits } = network.run(disturb(digit.pixels, state.disturbance), state.pool);
      const answer = logits.indexOf(Math.max(...logits));
      right += answer === digit.label;
      const button = $("#gallery").querySelectorAll("button")[i];
      button.classList.toggle("wrong", answer !== digit.label);
      button.querySelector("span").textContent = answer === digit.label ? "" : `${names[answer]}?`;
      button.setAttribute("aria-label", galleryLabel(digit, answer));
    });
    $("#score").textContent = `${right} of ${gallery.length} right with the present settings`;
  }, 120);
}

function galleryLabel({ label, isHard }, answer) {
  const verdict = answer === label ? "answered right" : `taken for ${names[answer]}`;
  return `${names[label]}${isHard ? ", one of the hardest" : ""}, ${verdict}`;
}

// ---- Layers -----------------------------------------------------------------------------------

function buildLayers() {
  $("#seen-map").append(views[0].element);
  const sections = network.layers.slice(1).map((layer, i) => {
    const index = i + 1;
    const heading = h("h3", {}, layer.name === "output" ? "Output" : layer.name);
    const header = h("header", {}, heading, h("p.what"));
    const section = h("section.layer", { "data-index": index, "aria-label": layer.name }, header);
    section.append(index < last ? views[index].element : h("div.outputs", { id: "outputs" }));
    if (layer.kind === "conv") section.append(kernelDetails(layer));
    if (layer.table) {
      section.append(h("details", { open: true }, h("summary", {}, "Connections"), h("div.scroll", {}, connectionTable(layer))));
    }
    return section;
  });
  if (hasCode) {
    // F6 and the stored bitmaps side by side, as they are compared.
    const [code, outputs] = sections.splice(-2);
    sections.push(h("div.pair", {}, code, outputs));
  }
  $("#stack").append(...sections);
  buildOutputs();
}

function kernelDetails(layer) {
  const canvas = h("canvas", { role: "img", "aria-label": `Weights of ${layer.name}` });
  const caption = h("p.what");
  const details = h(
    "details.kernels",
    {
      toggle: () => {
        if (!details.open) return;
        const limit = drawKernels(canvas, layer, table);
        const what = layer.dense ? "A row for each unit below, a column for each unit." : `A row for each map of ${layer.below.name}, a column for each map of ${layer.name}.`;
        caption.textContent = `${what} The colours end at ±${decimal(limit, 2)}.`;
      },
    },
    h("summary", {}, layer.dense ? "Weights" : "Kernels"),
    caption,
    h("div.scroll", { tabindex: 0, role: "group", "aria-label": `Weights of ${layer.name}` }, canvas),
  );
  return details;
}

function describeLayers() {
  for (const section of document.querySelectorAll(".layer")) {
    const index = Number(section.dataset.index);
    const layer = network.layers[index];
    const scale = index < last ? ` · scale ±${decimal(limits[index], 1)}` : "";
    section.querySelector(".what").textContent = describeLayer(layer, layer.kind === "pool" ? state.pool : null) + scale;
  }
}

function buildOutputs() {
  const { weights, below } = network.layers[last];
  const buttons = names.map((name, map) => {
    const unit = { map, row: 0, column: 0 };
    const bitmap = hasCode ? h("canvas", { width: 7, height: 12, "aria-hidden": "true" }) : h("i");
    return h(
      "button.output",
      {
        type: "button",
        click: () => setSelected(last, unit),
        pointerenter: (event) => event.pointerType === "mouse" && setHovered(last, unit),
        pointerleave: () => setHovered(last, null),
      },
      bitmap,
      h("b", {}, name),
      h("span.number"),
    );
  });
  $("#outputs").classList.toggle("codes", hasCode);
  $("#outputs").append(...buttons);
  if (!hasCode) return;
  buttons.forEach((button, map) => {
    button.code = weights.subarray(map * below.maps, (map + 1) * below.maps);
  });
}

function drawOutputs() {
  const { logits } = state.result;
  const best = logits.indexOf(Math.max(...logits));
  $("#outputs").querySelectorAll("button").forEach((button, i) => {
    button.classList.toggle("best", i === best && !pad.isEmpty);
    button.querySelector(".number").textContent = decimal(hasCode ? -logits[i] : logits[i], 1);
    button.setAttribute("aria-label", outputText(i));
    if (hasCode) drawBitmap(button.querySelector("canvas"), button.code, 1.7159);
    else {
      const colour = colourOf(table, logits[i], limits[last]);
      button.querySelector("i").style.background = css(colour);
      button.querySelector("i").style.color = textOn(colour);
    }
  });
}

function outputText(map) {
  const value = decimal(Math.abs(state.result.logits[map]), 1);
  return hasCode ? `distance to “${names[map]}”: ${value}` : `${names[map]}: ${decimal(state.result.logits[map], 1)}`;
}

function drawBitmap(canvas, values, limit) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(7, 12);
  values.forEach((x, i) => image.data.set([...colourOf(table, x, limit), 255], 4 * i));
  context.putImageData(image, 0, 0);
}

/** Return the end of each layer's scale: its activation's bound, or its largest gallery value. */
function scaleLimits() {
  const runs = gallery.map((digit) => network.run(digit.pixels));
  if (!runs.length) runs.push(network.run(new Uint8Array(784)));
  return network.layers.map((layer, i) => {
    const largest = Math.max(...runs.map(({ outputs }) => outputs[i].after.reduce((a, b) => Math.max(a, Math.abs(b)), 0)));
    return BOUNDS[layer.activationName] ?? largest;
  });
}

// ---- Looking at a unit --------------------------------------------------------------------------

function setHovered(index, unit) {
  state.hovered = unit && { index, ...unit };
  drawMarks();
}

function setSelected(index, unit) {
  state.selected = { index, ...unit };
  drawMarks();
  drawInspector();
  $("#inspector").hidden = false;
  $("#inspector").classList.add("open");
}

function deselect() {
  state.selected = state.hovered = null;
  $("#inspector").classList.remove("open");
  $("#arithmetic").replaceChildren();
  drawMarks();
}

/** Outline what the hovered unit depends on, or else the selected one. */
function drawMarks() {
  const unit = state.hovered ?? state.selected;
  const fields = unit ? network.receptiveFields(unit.index, unit) : [];
  views.forEach((view, index) => view.mark(fields.find((field) => field.index === index), theme));
  const readout = !unit || !state.result ? "" : unit.index < last ? views[unit.index].readout(unit) : outputText(unit.map);
  $("#readout-0").textContent = unit?.index === 0 ? readout : "";
  $("#readout").textContent = unit?.index > 0 ? readout : "";
  for (const cell of document.querySelectorAll(".connections [data-map]")) {
    const field = fields.find(({ index }) => network.layers[index].table);
    cell.classList.toggle("on", Boolean(field?.maps.includes(Number(cell.dataset.map))));
  }
}

function drawInspector() {
  if (!state.selected) return;
  const { result, pixels, selected: unit, pool } = state;
  const open = [...document.querySelectorAll("#arithmetic details")].map((details) => details.open);
  $("#arithmetic").replaceChildren(...explain({ network, result, pixels, unit, pool, table }));
  document.querySelectorAll("#arithmetic details").forEach((details, i) => {
    details.open = open[i] ?? details.open;
  });
}

// ---- Controls -----------------------------------------------------------------------------------

function pictureOf(pixels) {
  const canvas = h("canvas", { width: 28, height: 28 });
  const context = canvas.getContext("2d");
  const image = context.createImageData(28, 28);
  pixels.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

function buildGallery() {
  $("#gallery-card").hidden = !gallery.length;
  for (const digit of gallery) {
    const show = () => pad.show({ picture: digit.picture, digit: digit.pixels });
    const button = h("button.digit", { type: "button", click: show }, pictureOf(digit.pixels), h("span"));
    (digit.isHard ? $("#hardest") : $("#ordinary")).append(button);
  }
}

function connectControls() {
  const choose = (tool) => {
    pad.tool = tool;
    for (const name of ["pen", "eraser"]) $(`#${name}`).setAttribute("aria-pressed", name === tool);
  };
  $("#pen").addEventListener("click", () => choose("pen"));
  $("#eraser").addEventListener("click", () => choose("eraser"));
  $("#width").addEventListener("input", () => (pad.lineWidth = Number($("#width").value)));
  $("#undo").addEventListener("click", () => pad.undo());
  $("#clear").addEventListener("click", () => pad.clear());
  for (const id of ["#box", "#centre"]) {
    $(id).checked = description.prepare;
    $(id).addEventListener("change", schedule);
  }
  for (const input of document.querySelectorAll("[data-disturb]")) {
    input.addEventListener("input", () => {
      state.disturbance[input.dataset.disturb] = Number(input.value);
      showSettings();
      schedule();
    });
  }
  $("#reset").addEventListener("click", () => {
    for (const input of document.querySelectorAll("[data-disturb]")) input.value = 0;
    for (const id of ["#box", "#centre"]) $(id).checked = description.prepare;
    state.disturbance = {};
    showSettings();
    schedule();
  });
  $("#close").addEventListener("click", deselect);
  document.addEventListener("keydown", (event) => event.key === "Escape" && deselect());
}

function showSettings() {
  for (const input of document.querySelectorAll("[data-disturb]")) {
    input.nextElementSibling.textContent = `${input.value.replace("-", "−")}${input.dataset.unit}`;
  }
}

function buildPools() {
  const kinds = [...new Set([trainedPool, "average", "max", "min"])];
  for (const kind of kinds) {
    const input = h("input", { type: "radio", name: "pool", value: kind, checked: kind === trainedPool, change: () => {
      state.pool = kind;
      describeLayers();
      schedule();
    } });
    $("#pools").append(h("label", {}, input, h("span", {}, kind === trainedPool ? `${kind} (trained)` : kind)));
  }
}

/** Take pictures from a file, a drop or the clipboard. */
function connectUploads() {
  $("#file").addEventListener("change", () => {
    upload($("#file").files[0]);
    $("#file").value = ""; // so that the same file can be chosen again
  });
  const card = $("#draw");
  card.addEventListener("dragover", (event) => {
    event.preventDefault();
    card.classList.add("drop");
  });
  card.addEventListener("dragleave", () => card.classList.remove("drop"));
  card.addEventListener("drop", (event) => {
    event.preventDefault();
    card.classList.remove("drop");
    upload(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => upload(event.clipboardData.files[0]));
}

async function upload(file) {
  $("#problem").textContent = "";
  if (!file) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    $("#problem").textContent = `${file.name} is not an image that this browser can read.`;
    return;
  }
  const scale = Math.min(1, LARGEST_UPLOAD / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((n) => Math.max(1, Math.round(scale * n)));
  const picture = h("canvas", { width, height });
  const context = picture.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // behind transparent pixels
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const grey = Uint8Array.from({ length: width * height }, (_, i) =>
    Math.round(0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2]),
  );
  pad.show({ picture, grey: { data: grey, width, height } });
}

// ---- Notes and theme ----------------------------------------------------------------------------

/** Read or write a setting; a browser may refuse to store anything for a local file. */
function stored(key, value) {
  try {
    if (value !== undefined) localStorage.setItem(`jaxcnn-${key}`, value);
    return localStorage.getItem(`jaxcnn-${key}`);
  } catch {
    return null;
  }
}

function placeNotes() {
  const C1 = network.layers[1];
  $("#c1-count").textContent = `${C1.maps} × (25 + 1) = ${26 * C1.maps}`;
  for (const note of document.querySelectorAll(".note")) {
    const { layer, only } = note.dataset;
    if (only && only !== (hasCode ? "1998" : "softmax")) note.remove();
    else if (layer) placeNote(note, document.querySelector(`.layer[aria-label="${layer}"]`));
    note.querySelector("button").addEventListener("click", () => {
      note.hidden = true;
      showNotesButton();
    });
  }
  $("#notes").addEventListener("click", () => {
    const show = !openNotes().length;
    for (const note of document.querySelectorAll(".note")) note.hidden = !show;
    showNotesButton();
  });
  if (stored("notes") === "hidden") for (const note of document.querySelectorAll(".note")) note.hidden = true;
  showNotesButton();
}

function placeNote(note, section) {
  const pair = section.closest(".pair");
  if (pair) pair.before(note);
  else section.querySelector("header").after(note);
}

function openNotes() {
  return [...document.querySelectorAll(".note")].filter((note) => !note.hidden);
}

function showNotesButton() {
  const open = openNotes().length > 0;
  $("#notes").textContent = open ? "Hide notes" : "Show notes";
  stored("notes", open ? "shown" : "hidden");
}

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

function applyTheme() {
  const chosen = $("#theme").value;
  const name = chosen === "auto" ? (prefersDark.matches ? "dark" : "light") : chosen;
  document.documentElement.dataset.theme = name;
  const style = getComputedStyle(document.documentElement);
  const colour = (variable) => style.getPropertyValue(variable).trim();
  theme = { muted: colour("--muted"), mark: colour("--mark"), veil: colour("--veil") };
  table = scaleTable(name);
  const legend = $("#legend canvas").getContext("2d");
  table.forEach((step, x) => {
    legend.fillStyle = css(step);
    legend.fillRect(x, 0, 1, 1);
  });
  for (const details of document.querySelectorAll(".kernels[open]")) details.dispatchEvent(new Event("toggle"));
  if (state.result) {
    drawLayers();
    drawInspector();
  }
}

function connectTheme() {
  $("#theme").value = stored("theme") ?? "auto";
  $("#theme").addEventListener("change", () => {
    stored("theme", $("#theme").value);
    applyTheme();
  });
  prefersDark.addEventListener("change", applyTheme);
}

// ---- Start --------------------------------------------------------------------------------------

/** Compare the page's outputs for the gallery with JAX's, which the page holds. */
function checkArithmetic() {
  if (!gallery.length) return;
  const expected = decodeFloats(description.gallery.outputs);
  const differences = gallery.map(({ pixels }, i) => {
    const { logits } = network.run(pixels);
    return Math.max(...logits.map((x, k) => Math.abs(x - expected[i * logits.length + k])));
  });
  const largest = Math.max(...differences);
  $("#check").textContent = `The outputs for the ${gallery.length} digits agree with JAX's to ${largest.toExponential(0)}; one image takes ${state.milliseconds.toFixed(1)} ms here.`;
}

function start() {
  $("#facts").textContent = `${description.name}: ${description.facts}; ${count(network.layers.reduce((sum, layer) => sum + (layer.parameters ?? 0), 0), "parameter")}`;
  connectTheme();
  buildLayers();
  buildGallery();
  buildPools();
  placeNotes();
  connectControls();
  connectUploads();
  limits = scaleLimits();
  applyTheme();
  describeLayers();
  for (const view of views) view.layout();
  if (gallery.length) pad.show({ picture: gallery[3 % gallery.length].picture, digit: gallery[3 % gallery.length].pixels });
  update();
  checkArithmetic();
  // Where there is room beside the layers, a unit is explained from the start.
  if (window.matchMedia("(min-width: 1180px)").matches) setSelected(1, { map: 0, row: 14, column: 14 });
  let width = window.innerWidth;
  new ResizeObserver(() => {
    if (window.innerWidth === width && $("#stack").clientWidth === stackWidth) return;
    width = window.innerWidth;
    stackWidth = $("#stack").clientWidth;
    for (const view of views) view.layout();
    drawLayers();
  }).observe($("#stack"));
  // For tests and for the browser's console.
  window.lenet5 = { Network, decodeBytes, decodeFloats, network, pad, state, disturb, prepareDigit };
}

let stackWidth = 0;
start();

/** The page: its state, and what is computed and drawn when something changes. */

import { AnswerView, OutputView } from "./answer.js";
import { css, GREYS, scaleTable } from "./colours.js";
import {
  connectNotes,
  connectPictures,
  connectPools,
  connectSettings,
  connectTheme,
  connectTools,
} from "./controls.js";
import { disturb, prepareDigit } from "./digit.js";
import { $, all, count, decimal, h } from "./dom.js";
import { Gallery } from "./gallery.js";
import { explain } from "./inspect.js";
import { connectionTable, describeLayer, drawKernels, LayerView } from "./layers.js";
import { BOUNDS, decodeBytes, decodeFloats, Network } from "./network.js";
import { Pad } from "./pad.js";

// Least and largest pixels of a unit.
const CELLS = {
  Input: [5, 7],
  C1: [3, 4],
  S2: [4, 6],
  C3: [5, 7],
  S4: [6, 9],
  C5: [12, 15],
  F6: [12, 15],
};

const description = JSON.parse($("#network").textContent);
const network = new Network(description, decodeFloats(description.numbers));
const { layers } = network;
const names = description.class_names;
const last = layers.length - 1;
const hasCodes = layers[last].kind === "rbf";

const state = {
  pool: layers.find((layer) => layer.kind === "pool").pool,
  preparation: {},
  disturbance: {},
  prepared: null, // the digit before it is disturbed; null if it has to be computed
  pixels: null, // what the network sees
  result: null,
  hovered: null, // the unit that is pointed at, { index, map, row, column }
  selected: null, // the unit whose arithmetic is shown
};
let table; // of the colour scale
let theme; // colours of the marks
let limits; // value at the end of each layer's scale

const pad = new Pad($("#pad"), () => {
  state.prepared = null;
  schedule();
});
const handlers = {
  hover: (index, unit) => {
    state.hovered = unit && { index, ...unit };
    drawMarks();
  },
  select: (index, unit) => {
    state.selected = { index, ...unit };
    drawMarks();
    drawInspector();
  },
  speak: (text) => ($("#spoken").textContent = text),
};
const views = layers.slice(0, last).map((layer, index) => {
  const columns = hasCodes && layer.name === "F6" ? 7 : null;
  return new LayerView(layer, index, { cells: CELLS[layer.name], columns }, handlers);
});
views.push(new OutputView(layers[last], last, names, handlers));
const answerView = new AnswerView(names, hasCodes);
const gallery = new Gallery(description.gallery, names, ({ picture, pixels }) =>
  pad.show({ picture, digit: pixels }),
);

let isScheduled = false;
/** Compute and draw before the next frame, however many changes there are until then. */
function schedule() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    update();
  });
}

function update() {
  state.prepared ??= pad.digit ?? prepareDigit(pad.image, state.preparation);
  state.pixels = disturb(state.prepared, state.disturbance);
  state.result = network.run(state.pixels, state.pool);
  drawLayers();
  answerView.draw(state.result.logProbs, pad.isEmpty);
  drawInspector();
  $("#undo").disabled = !pad.canUndo;
  $("#hint").hidden = !pad.isEmpty;
  gallery.score(({ pixels }) => {
    const { logits } = network.run(disturb(pixels, state.disturbance), state.pool);
    return logits.indexOf(Math.max(...logits));
  });
}

function drawLayers() {
  const { mean, std } = description.input;
  const outputs = state.result.outputs.map(({ after }) => after);
  views[0].draw(
    outputs[0].map((x) => 255 * (x * std + mean)),
    GREYS,
    null,
    theme,
  );
  for (let i = 1; i < last; i++) views[i].draw(outputs[i], table, limits[i], theme);
  views[last].draw(outputs[last], table, limits[last], pad.isEmpty);
  drawMarks();
}

/** Outline what the unit that is pointed at depends on, or else the chosen one. */
function drawMarks() {
  const unit = state.hovered ?? state.selected;
  const fields = unit ? network.receptiveFields(unit.index, unit, state.pool) : [];
  views.slice(0, last).forEach((view, index) => {
    view.mark(
      fields.find((field) => field.index === index),
      theme,
    );
  });
  const readout = unit && state.result ? views[unit.index].readout(unit) : "";
  $("#readout-0").textContent = unit?.index === 0 ? readout : "";
  $("#readout").textContent = unit?.index === 0 ? "" : readout;
  const field = fields.find(({ index }) => layers[index].table);
  for (const cell of all(".connections [data-map]")) {
    const isPart = field && field.maps.length < layers[field.index].maps;
    cell.classList.toggle("on", Boolean(isPart) && field.maps.includes(Number(cell.dataset.map)));
  }
}

function drawInspector() {
  const { result, pixels, selected: unit, pool } = state;
  $("#inspector").classList.toggle("open", Boolean(unit));
  if (!unit) return $("#arithmetic").replaceChildren();
  const open = all("#arithmetic details").map((details) => details.open);
  const isSame = $("#arithmetic").dataset.unit === JSON.stringify(unit);
  $("#arithmetic").dataset.unit = JSON.stringify(unit);
  $("#arithmetic").replaceChildren(...explain({ network, result, pixels, unit, pool, table }));
  if (isSame) all("#arithmetic details").forEach((details, i) => (details.open = open[i]));
}

function buildLayers() {
  $("#seen-map").append(views[0].element);
  const sections = layers.slice(1).map((layer, i) => {
    const heading = h("h3", {}, layer.name === "output" ? "Output" : layer.name);
    const properties = { "data-index": i + 1, "data-name": layer.name, "aria-label": layer.name };
    return h(
      "section.layer",
      properties,
      h("header", {}, heading, h("p.what")),
      views[i + 1].element,
      layer.kind === "conv" ? kernelDetails(layer) : [],
      layer.table ? connectionDetails(layer) : [],
    );
  });
  // F6 and the stored bitmaps are side by side, as they are compared.
  if (hasCodes) sections.push(h("div.pair", {}, sections.splice(-2)));
  $("#stack").append(...sections);
}

function connectionDetails(layer) {
  const properties = { tabindex: 0, role: "group", "aria-label": "Table I" };
  const scroll = h("div.scroll", properties, connectionTable(layer));
  return h("details", { open: true }, h("summary", {}, "Connections"), scroll);
}

function kernelDetails(layer) {
  const label = `Weights of ${layer.name}`;
  const canvas = h("canvas", { role: "img", "aria-label": label });
  const caption = h("p.what");
  const draw = () => {
    if (!details.open) return;
    const limit = decimal(drawKernels(canvas, layer, table), 2);
    const [row, column] = layer.dense ? ["unit", "unit"] : ["map", "map"];
    caption.textContent =
      `A row for each ${row} of ${layer.below.name}, a column for each ${column} of ` +
      `${layer.name}; scale ±${limit}`;
  };
  const scroll = h("div.scroll", { tabindex: 0, role: "group", "aria-label": label }, canvas);
  const summary = h("summary", {}, layer.dense ? "Weights" : "Kernels");
  const details = h("details.kernels", { toggle: draw }, summary, caption, scroll);
  return details;
}

function describeLayers() {
  for (const section of all(".layer")) {
    const index = Number(section.dataset.index);
    const scale = hasCodes && index === last ? "" : ` · scale ±${decimal(limits[index], 1)}`;
    section.querySelector(".what").textContent = describeLayer(layers[index], state.pool) + scale;
  }
}

/** Return the bound of each layer's activation, or its largest value for the gallery. */
function scaleLimits() {
  const images = gallery.digits.map(({ pixels }) => pixels);
  const runs = (images.length ? images : [new Uint8Array(784)]).map((image) => network.run(image));
  return layers.map((layer, i) => {
    const largest = (values) => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const found = Math.max(...runs.map(({ outputs }) => largest(outputs[i].after)));
    return BOUNDS[layer.activationName] ?? found;
  });
}

function applyTheme(name) {
  const style = getComputedStyle(document.documentElement);
  const [muted, mark, veil] = ["--muted", "--mark", "--veil"].map((variable) =>
    style.getPropertyValue(variable).trim(),
  );
  theme = { muted, mark, veil };
  table = scaleTable(name);
  const legend = $("#legend canvas").getContext("2d");
  table.forEach((step, x) => {
    legend.fillStyle = css(step);
    legend.fillRect(x, 0, 1, 1);
  });
  for (const details of all(".kernels[open]")) details.dispatchEvent(new Event("toggle"));
  if (state.result) {
    drawLayers();
    drawInspector();
  }
}

/** Compare the page's outputs for the gallery with JAX's, which the page holds. */
function checkArithmetic() {
  const expected = decodeFloats(description.gallery.outputs);
  const start = performance.now();
  const found = gallery.digits.flatMap(({ pixels }) => [...network.run(pixels).logits]);
  const milliseconds = (performance.now() - start) / gallery.digits.length;
  const largest = Math.max(...found.map((x, i) => Math.abs(x - expected[i])));
  $("#check").textContent =
    `The outputs for the ${gallery.digits.length} digits agree with JAX's to ` +
    `${largest.toExponential(0)}; an image takes ${milliseconds.toFixed(1)} ms here.`;
}

/** Fit the maps into the page again when its width changes. */
function watchWidth() {
  let width = null;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    for (const view of views.slice(0, last)) view.layout();
    drawLayers();
  }).observe($("#stack"));
}

function start() {
  const parameters = layers.reduce((sum, layer) => sum + (layer.parameters ?? 0), 0);
  $("#facts").textContent =
    `${description.name}: ${description.facts}; ${count(parameters, "parameter")}`;
  limits = scaleLimits();
  buildLayers();
  describeLayers();
  connectTheme(applyTheme);
  connectNotes(hasCodes);
  $("#c1-count").textContent = `${layers[1].maps} × (25 + 1) = ${26 * layers[1].maps}`;
  connectTools(pad);
  connectPictures(pad);
  connectPools(state.pool, (pool) => {
    state.pool = pool;
    describeLayers();
    schedule();
  });
  connectSettings(description.prepare, (preparation, disturbance) => {
    Object.assign(state, { preparation, disturbance, prepared: null });
    schedule();
  });
  const close = () => {
    state.selected = state.hovered = null;
    drawMarks();
    drawInspector();
  };
  $("#close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
  for (const view of views.slice(0, last)) view.layout();
  // Start with a digit and, where there is room beside the layers, with a unit explained.
  if (gallery.digits.length) gallery.buttons[3 % gallery.buttons.length].click();
  const isWide = window.matchMedia("(min-width: 1180px)").matches;
  if (isWide) state.selected = { index: 1, map: 0, row: 14, column: 14 };
  update();
  watchWidth();
  if (gallery.digits.length) checkArithmetic();
}

start();

// For tests and for the browser's console.
window.lenet5 = { Network, decodeBytes, decodeFloats, network, pad, state, disturb, prepareDigit };

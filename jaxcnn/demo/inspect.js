/** The arithmetic of one unit, written out with its numbers. */

import { colourOf, css, GREYS, textOn } from "./colours.js";
import { count, decimal, h, percent } from "./dom.js";
import { unitName } from "./layers.js";
import { poolValue, poolWindow, weightAt } from "./network.js";
import { POOLS } from "./pools.js";

const MOST_TERMS = 8; // products of a dense unit that are listed at first

/**
 * Return the arithmetic of a unit as elements.
 *
 * @param network the network
 * @param result what its `run` returned
 * @param pixels the 784 grey levels of that run
 * @param unit { index, map, row, column }
 * @param pool kind of pooling of that run
 * @param table table of the colour scale
 */
export function explain({ network, result, pixels, unit, pool, table }) {
  const layer = network.layers[unit.index];
  const input = result.outputs[unit.index - 1]?.after;
  const place = (unit.map * layer.size + unit.row) * layer.size + unit.column;
  const value = result.outputs[unit.index].after[place];
  const before = result.outputs[unit.index].before[place];
  const parts = { network, layer, input, pixels, unit, pool, table, before, value };
  const explainers = { input: inputUnit, pool: poolUnit, rbf: rbfUnit };
  const explainer = explainers[layer.kind] ?? (layer.kernel > 1 ? convUnit : denseUnit);
  const isOutput = unit.index === network.layers.length - 1;
  const className = network.description.class_names[unit.map];
  const elements = [
    h("h3", {}, isOutput ? `Output for “${className}”` : unitName(layer, unit)),
    h(
      "p.value",
      {},
      h("b", {}, decimal(value)),
      layer.kind === "input" ? " enters the network" : seenInput(parts, result),
    ),
    ...explainer(parts),
  ];
  if (isOutput) elements.push(...probability(parts, result));
  return elements;
}

/** Return a small picture of the input with the receptive field, for where the input is far away. */
function seenInput({ network, unit, pool }, result) {
  const { size } = network.layers[0];
  const canvas = h("canvas", { width: 3 * size, height: 3 * size, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const { mean, std } = network.description.input;
  result.outputs[0].after.forEach((x, i) => {
    context.fillStyle = css(GREYS[Math.max(0, Math.min(255, Math.round(255 * (x * std + mean))))]);
    context.fillRect(3 * (i % size), 3 * Math.floor(i / size), 3, 3);
  });
  const { rows, columns } = network.receptiveFields(unit.index, unit, pool).at(-1);
  const [height, width] = [rows, columns].map(([first, last]) => 3 * (last - first + 1));
  context.strokeStyle = "#ff4fb4";
  context.lineWidth = 2;
  context.strokeRect(3 * columns[0] + 1, 3 * rows[0] + 1, width - 2, height - 2);
  return canvas;
}

function inputUnit({ network, unit, pixels, value }) {
  const { frame, frameValue } = network.layers[0];
  const [row, column] = [unit.row - frame, unit.column - frame];
  if (Math.min(row, column) < 0 || Math.max(row, column) > 27) {
    return [
      h(
        "p",
        {},
        `The frame of ${frame} pixels around the 28×28 image is always ${decimal(frameValue)}.`,
      ),
    ];
  }
  const { mean, std } = network.description.input;
  const grey = pixels[row * 28 + column];
  return [
    h(
      "p",
      {},
      `Grey level ${grey} of 255, normalized by the mean and the deviation of the training:`,
    ),
    formula(`(${grey} / 255 − ${decimal(mean)}) / ${decimal(std)} = ${decimal(value)}`),
  ];
}

function convUnit({ layer, input, unit, table, before, value }) {
  const { kernel, below } = layer;
  const rows = [];
  const sums = [];
  const weightLimit = layer.weights.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const inputLimit = input.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const sources = layer.sources(unit.map);
  sources.forEach((source, i) => {
    const [window, weights] = [[], []];
    for (let k = 0; k < kernel * kernel; k++) {
      const [ky, kx] = [Math.floor(k / kernel), k % kernel];
      window.push(input[(source * below.size + unit.row + ky) * below.size + unit.column + kx]);
      weights.push(weightAt(layer, ky, kx, source, unit.map));
    }
    sums.push(window.reduce((sum, x, k) => sum + x * weights[k], 0));
    rows.push(
      h(
        "details.term",
        { open: i === 0 },
        h(
          "summary",
          {},
          below.maps > 1 ? `${below.name} map ${source}: ` : "window × kernel: ",
          h("b", {}, decimal(sums[i])),
        ),
        h(
          "div.product",
          {},
          numberGrid(window, kernel, table, inputLimit, "window"),
          h("span.times", {}, "×"),
          numberGrid(weights, kernel, table, weightLimit, "kernel"),
        ),
      ),
    );
  });
  const [top, left] = [unit.row, unit.column];
  const place =
    below.size > kernel
      ? ` at rows ${top}–${top + kernel - 1}, columns ${left}–${left + kernel - 1}`
      : "";
  const maps =
    sources.length > 1
      ? `each of ${sources.length} maps of ${below.name}`
      : `the ${below.name.toLowerCase()}`;
  return [
    h(
      "p",
      {},
      `A window of ${kernel}×${kernel} values of ${maps}${place} is multiplied by its kernel, ` +
        "number by number, and all products are added.",
    ),
    sumFormula(sums, layer.bias[unit.map], before),
    activationFormula(layer, before, value),
    ...rows,
  ];
}

function denseUnit({ layer, input, unit, before, value }) {
  const products = [...input].map((x, source) => {
    const weight = weightAt(layer, 0, 0, source, unit.map);
    return { source, x, weight, product: x * weight };
  });
  const sorted = products.slice().sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  const sum = products.reduce((total, { product }) => total + product, 0);
  const [shown, others] = [sorted.slice(0, MOST_TERMS), sorted.slice(MOST_TERMS)];
  const rest = others.reduce((total, { product }) => total + product, 0);
  const body = h("tbody", {}, shown.map(productRow));
  const more = h(
    "tr",
    {},
    h("th", { scope: "row", colspan: 3 }, `the other ${others.length}`),
    h("td", {}, decimal(rest)),
  );
  const button = h(
    "button.small",
    {
      type: "button",
      click: () => {
        body.append(...others.map(productRow));
        for (const element of [more, button]) element.remove();
      },
    },
    `Show all ${products.length} products`,
  );
  return [
    h(
      "p",
      {},
      `All ${count(products.length, "value")} of ${layer.below.name} are multiplied by the ` +
        "unit's weights. The largest products:",
    ),
    h(
      "table.products",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          ["unit", "value", "weight", "product"].map((name) => h("th", { scope: "col" }, name)),
        ),
      ),
      body,
      h("tfoot", {}, others.length ? more : []),
    ),
    others.length ? button : "",
    sumFormula([sum], layer.bias[unit.map], before),
    activationFormula(layer, before, value),
  ];
}

function productRow({ source, x, weight, product }) {
  const cells = [x, weight, product].map((number) => h("td", {}, decimal(number)));
  return h("tr", {}, h("th", { scope: "row" }, String(source)), cells);
}

function poolUnit({ layer, input, unit, pool, table, before, value }) {
  const window = poolWindow(layer, input, unit, pool);
  const { values, width } = window;
  const limit = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const pooled = poolValue(layer, window, pool);
  const list = values.length > 4 ? "window" : values.map((x) => decimal(x)).join(", ");
  const call = `${POOLS[pool].call}(${list})`;
  const lines = [];
  if (layer.weights) {
    const [coefficient, bias] = [layer.weights, layer.bias].map((all) => decimal(all[unit.map]));
    const sum = pool === "average" ? `sum(${list})` : `4 × ${call}`;
    lines.push(formula(`${sum} = ${decimal(4 * pooled)}`));
    lines.push(formula(`× coefficient ${coefficient} + bias ${bias} = ${decimal(before)}`));
  } else lines.push(formula(`${call} = ${decimal(pooled)}`));
  return [
    h(
      "p",
      {},
      `${count(values.length, "value")} of map ${unit.map} of ${layer.below.name} become one` +
        (layer.p && pool === "lp" ? `; p is ${layer.p}.` : "."),
    ),
    h("div.product", {}, numberGrid(values, width, table, limit, "window")),
    ...lines,
    activationFormula(layer, before, value),
  ];
}

function rbfUnit({ network, layer, input, unit, table, value }) {
  const code = layer.weights.subarray(unit.map * input.length, (unit.map + 1) * input.length);
  const squares = [...input].map((x, i) => (x - code[i]) ** 2);
  const bitmap = (values, limit, name) => numberGrid(values, 7, table, limit, name, false);
  return [
    h(
      "p",
      {},
      "The unit compares F6, a bitmap of 7×12, with the stored bitmap of " +
        `“${network.description.class_names[unit.map]}”. It adds the squared differences.`,
    ),
    h(
      "div.product",
      {},
      bitmap(input, 1.7159, "F6"),
      h("span.times", {}, "−"),
      bitmap(code, 1.7159, "stored"),
      h("span.times", {}, "→"),
      bitmap(squares, 4, "squared"),
    ),
    formula(`Σ (F6 − stored)² = ${decimal(-value)}`),
    h(
      "p",
      {},
      "The smaller the distance, the better the match. The network's answer is the nearest bitmap.",
    ),
  ];
}

function probability({ network, unit, value }, result) {
  const p = Math.exp(result.logProbs[unit.map]);
  const { rejection } = network.description;
  const formulaText =
    rejection === null
      ? `exp(${decimal(value)}) / Σ exp(output) = ${percent(p)}`
      : `exp(${decimal(value)}) / (exp(−${decimal(rejection, 0)}) + Σ exp(−distance)) = ${percent(p)}`;
  return [h("p", {}, "Probability of the class:"), formula(formulaText)];
}

function sumFormula(sums, bias, before) {
  const terms = sums.map((sum, i) =>
    i && sum >= 0 ? `+ ${decimal(sum)}` : decimal(sum).replace("−", i ? "− " : "−"),
  );
  const signed = bias < 0 ? `− ${decimal(-bias)}` : `+ ${decimal(bias)}`;
  return formula(`${terms.join(" ")} ${signed} (bias) = ${decimal(before)}`);
}

function activationFormula(layer, before, value) {
  if (layer.activationName === "identity") return "";
  const squash = layer.activationName === "squash"; // of the paper's appendix A
  const call = squash ? "1.7159 tanh(⅔ ×" : `${layer.activationName}(`;
  return formula(`${call} ${decimal(before)}) = ${decimal(value)}`.replace("( ", "("));
}

function formula(text) {
  return h("p.formula", {}, text);
}

/** Return a grid of coloured numbers as a table with a caption. */
function numberGrid(values, columns, table, limit, caption, numbers = true) {
  const rows = [];
  for (let start = 0; start < values.length; start += columns) {
    const cells = [...values.slice(start, start + columns)].map((x) => {
      const colour = colourOf(table, x, limit);
      const style = { background: css(colour), color: textOn(colour) };
      return h("td", { style, title: decimal(x, 4) }, numbers ? decimal(x, 2) : "");
    });
    rows.push(h("tr", {}, cells));
  }
  return h(
    numbers ? "table.numbers" : "table.bitmap",
    {},
    h("caption", {}, caption),
    h("tbody", {}, rows),
  );
}

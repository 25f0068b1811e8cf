/** A layer on the page: its maps, the outlines of receptive fields, its kernels. */

import { colourOf, css } from "./colours.js";
import { count, decimal, h } from "./dom.js";
import { weightAt } from "./network.js";
import { POOLS } from "./pools.js";

const KEYS =
  "Arrow keys move between units, page up and page down between maps, Enter shows the arithmetic.";

/** Return what a layer does, in a line. */
export function describeLayer(layer, pool = layer.pool) {
  const size = layer.size > 1 ? ` of ${layer.size}×${layer.size}` : "";
  const parts = [count(layer.maps, layer.size > 1 ? "map" : "unit") + size];
  if (layer.kind === "conv")
    parts.unshift(layer.dense ? "dense" : `convolution ${layer.kernel}×${layer.kernel}`);
  if (layer.kind === "rbf") parts.unshift("distance to ten stored bitmaps");
  if (layer.kind === "pool") {
    const what = layer.weights && pool === "average" ? "sum of 2×2" : POOLS[pool].what;
    parts.unshift(layer.weights ? `${what}, × coefficient + bias` : what);
  }
  if (layer.activationName !== "identity")
    parts.push(layer.activationName === "squash" ? "scaled tanh" : layer.activationName);
  if (layer.parameters) parts.push(count(layer.parameters, "parameter"));
  return parts.join(" · ");
}

/** Return the place of a unit in words. */
export function unitName(layer, { map, row, column }) {
  if (layer.kind === "input") return `pixel, row ${row}, column ${column}`;
  if (layer.size === 1) return `${layer.name}, unit ${map}`;
  return `${layer.name}, map ${map}, row ${row}, column ${column}`;
}

export class LayerView {
  /**
   * @param layer a layer of the network, with its index in `layers`
   * @param options { cells, columns }: least and largest pixels of a unit; maps in a row, or null
   * @param handlers { hover(index, unit or null), select(index, unit), speak(text) }
   */
  constructor(layer, index, { cells, columns = null }, handlers) {
    Object.assign(this, { layer, index, cells, columns, handlers });
    this.caption = layer.maps > 1 && layer.size > 1 ? 13 : 0;
    this.gap = layer.size > 1 ? 6 : 2;
    this.cursor = null;
    this.values = h("canvas.values", {
      tabindex: 0,
      role: "application",
      "aria-label": `${layer.name}, ${describeLayer(layer)}. ${KEYS}`,
      pointermove: (event) => this.#hover(this.#unitAt(event)),
      pointerleave: (event) => event.pointerType === "mouse" && this.#hover(null),
      click: (event) => this.#select(this.#unitAt(event)),
      keydown: (event) => this.#key(event),
    });
    this.marks = h("canvas.marks", { "aria-hidden": "true" });
    this.element = h("div.maps", {}, this.values, this.marks);
    this.strip = h("canvas", { width: layer.maps * layer.size, height: layer.size });
  }

  /** Fit the maps into the width of the element, with a whole number of device pixels a unit. */
  layout() {
    const { layer, gap, caption } = this;
    const width = Math.max(120, this.element.clientWidth);
    const ratio = window.devicePixelRatio || 1;
    const [least, largest] = this.cells;
    const most = Math.max(1, Math.floor((width + gap) / (layer.size * least + gap)));
    this.perRow = this.columns ?? rowLength(layer.maps, most);
    const room = (width - gap * (this.perRow - 1)) / (this.perRow * layer.size);
    const cell = Math.max(1, Math.floor(Math.min(largest, room) * ratio)) / ratio;
    this.unit = cell;
    this.pitchX = layer.size * cell + gap;
    this.pitchY = layer.size * cell + gap + caption;
    const lines = Math.ceil(layer.maps / this.perRow);
    this.width = this.perRow * this.pitchX - gap;
    this.height = lines * this.pitchY - gap;
    for (const canvas of [this.values, this.marks]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
  }

  /** Draw values; `limit` is the value of the scale's end, null for grey levels of 0 to 255. */
  draw(values, table, limit, theme) {
    const { layer, strip } = this;
    this.current = values;
    const context = strip.getContext("2d");
    const image = context.createImageData(strip.width, strip.height);
    const area = layer.size * layer.size;
    for (let i = 0; i < values.length; i++) {
      const colour =
        limit === null
          ? table[Math.max(0, Math.min(255, Math.round(values[i])))]
          : colourOf(table, values[i], limit);
      const row = Math.floor(i / layer.size) % layer.size;
      const place = row * strip.width + Math.floor(i / area) * layer.size + (i % layer.size);
      image.data.set([...colour, 255], 4 * place);
    }
    context.putImageData(image, 0, 0);
    const target = this.values.getContext("2d");
    target.clearRect(0, 0, this.values.width, this.values.height);
    target.imageSmoothingEnabled = false;
    target.fillStyle = theme.muted;
    target.font = "10px system-ui, sans-serif";
    const side = layer.size * this.unit;
    for (let map = 0; map < layer.maps; map++) {
      const [x, y] = this.#corner(map);
      target.drawImage(strip, map * layer.size, 0, layer.size, layer.size, x, y, side, side);
      if (this.caption) target.fillText(String(map), x, y - 3);
    }
  }

  /** Outline a receptive field, and dim the maps that are no part of it; null removes both. */
  mark(field, theme) {
    const context = this.marks.getContext("2d");
    context.clearRect(0, 0, this.marks.width, this.marks.height);
    if (!field) return;
    const { size, maps } = this.layer;
    const side = size * this.unit;
    context.lineWidth = 2;
    context.strokeStyle = theme.mark;
    context.fillStyle = theme.veil;
    if (size === 1 && maps > 1 && field.maps.length === maps) {
      context.strokeRect(1, 1, this.width - 2, this.height - 2); // around all units
      return;
    }
    for (let map = 0; map < maps; map++) {
      const [x, y] = this.#corner(map);
      if (!field.maps.includes(map)) {
        if (size > 1) context.fillRect(x, y, side, side);
        continue;
      }
      const [left, top] = [field.columns[0], field.rows[0]].map((n) => n * this.unit);
      const width = (field.columns[1] - field.columns[0] + 1) * this.unit;
      const height = (field.rows[1] - field.rows[0] + 1) * this.unit;
      context.strokeRect(x + left, y + top, width, height);
    }
  }

  /** Return what a unit shows, for the line above the maps. */
  readout(unit) {
    const { layer } = this;
    const place = (unit.map * layer.size + unit.row) * layer.size + unit.column;
    const digits = layer.kind === "input" ? 0 : 3;
    return `${unitName(layer, unit)}: ${decimal(this.current[place], digits)}`;
  }

  #corner(map) {
    const x = (map % this.perRow) * this.pitchX;
    return [x, Math.floor(map / this.perRow) * this.pitchY + this.caption];
  }

  #unitAt(event) {
    const box = this.values.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const [across, down] = [Math.floor(x / this.pitchX), Math.floor(y / this.pitchY)];
    const map = down * this.perRow + across;
    const row = Math.floor((y - down * this.pitchY - this.caption) / this.unit);
    const column = Math.floor((x - across * this.pitchX) / this.unit);
    const { size, maps } = this.layer;
    const inside = across >= 0 && across < this.perRow && map >= 0 && map < maps;
    return inside && row >= 0 && row < size && column >= 0 && column < size
      ? { map, row, column }
      : null;
  }

  #hover(unit) {
    this.handlers.hover(this.index, unit);
  }

  #select(unit) {
    if (!unit) return;
    this.cursor = unit;
    this.handlers.hover(this.index, unit);
    this.handlers.select(this.index, unit);
  }

  #key(event) {
    const { size, maps } = this.layer;
    const unit = { ...(this.cursor ?? { map: 0, row: size >> 1, column: size >> 1 }) };
    const step = (name, by, length) => (unit[name] = (unit[name] + by + length) % length);
    const moves = {
      ArrowLeft: () => (size > 1 ? step("column", -1, size) : step("map", -1, maps)),
      ArrowRight: () => (size > 1 ? step("column", 1, size) : step("map", 1, maps)),
      ArrowUp: () => (size > 1 ? step("row", -1, size) : step("map", -this.perRow, maps)),
      ArrowDown: () => (size > 1 ? step("row", 1, size) : step("map", this.perRow, maps)),
      PageUp: () => step("map", -1, maps),
      PageDown: () => step("map", 1, maps),
    };
    if (event.key === "Enter" || event.key === " ") this.#select(unit);
    else if (moves[event.key]) {
      if (this.cursor) moves[event.key]();
      unit.map = (unit.map + maps) % maps;
      this.cursor = unit;
      this.#hover(unit);
      this.handlers.speak(this.readout(unit));
    } else return;
    event.preventDefault();
  }
}

/** Return how many maps to put in a row: all, or the largest divisor that leaves even rows. */
function rowLength(maps, most) {
  if (maps <= most) return maps;
  for (let n = most; n > most / 2; n--) if (maps % n === 0) return n;
  return most;
}

/** Draw a layer's kernels: a row for each map below, a column for each map; unconnected is empty. */
export function drawKernels(canvas, layer, table) {
  const side = layer.dense
    ? 4
    : Math.max(2, Math.min(12, Math.floor(640 / (layer.maps * layer.kernel))));
  const gap = layer.dense ? 0 : 2;
  const pitch = layer.kernel * side + gap;
  canvas.width = layer.maps * pitch;
  canvas.height = layer.below.maps * pitch;
  const limit = layer.weights.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const context = canvas.getContext("2d");
  for (let map = 0; map < layer.maps; map++) {
    for (const source of layer.sources(map)) {
      for (let ky = 0; ky < layer.kernel; ky++) {
        for (let kx = 0; kx < layer.kernel; kx++) {
          const weight = weightAt(layer, ky, kx, source, map);
          context.fillStyle = css(colourOf(table, weight, limit));
          context.fillRect(map * pitch + kx * side, source * pitch + ky * side, side, side);
        }
      }
    }
  }
  return limit;
}

/** Return Table I: an X where a map of C3, in columns, is connected to a map of S2, in rows. */
export function connectionTable(layer) {
  const columns = layer.table.map((_, map) => h("th", { scope: "col" }, String(map)));
  const rows = Array.from({ length: layer.below.maps }, (_, source) => {
    const cells = layer.table.map((sources, map) =>
      h("td", { "data-map": map }, sources.includes(source) ? "×" : ""),
    );
    return h("tr", {}, h("th", { scope: "row" }, String(source)), cells);
  });
  return h(
    "table.connections",
    {},
    h(
      "caption",
      {},
      `Table I: the maps of ${layer.below.name} (rows) that each map of ${layer.name} (columns) sees`,
    ),
    h("thead", {}, h("tr", {}, h("td"), columns)),
    h("tbody", {}, rows),
  );
}

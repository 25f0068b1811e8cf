/**
 * The network's arithmetic: plain loops over arrays of float32, with sums held in doubles.
 *
 * A layer's output is an array [maps][rows][columns] in one Float32Array. Units without a place,
 * such as those of F6, are maps of 1x1, so a dense layer is a convolution with a 1x1 kernel.
 */

import { POOLS } from "./pools.js";

const TANH_SCALE = 1.7159;

const ACTIVATIONS = {
  identity: (x) => x,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  relu: (x) => Math.max(x, 0),
  squash: (x) => TANH_SCALE * Math.tanh((2 * x) / 3),
};

/** Largest absolute value of an activation, or null if there is none. */
export const BOUNDS = { sigmoid: 1, tanh: 1, squash: TANH_SCALE };

/** Decode base64 to an array of little-endian float32. */
export function decodeFloats(base64) {
  return new Float32Array(decodeBytes(base64).buffer);
}

/** Decode base64 to bytes. */
export function decodeBytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Return the function of an activation: a known one, or the straight lines through a table. */
export function activationFunction({ name, table, first, step }) {
  if (!table) return ACTIVATIONS[name];
  return (x) => {
    const place = (x - first) / step;
    // Beyond the table, the first or the last line goes on.
    const i = Math.max(0, Math.min(table.length - 2, Math.floor(place)));
    return table[i] + (place - i) * (table[i + 1] - table[i]);
  };
}

export class Network {
  /**
   * @param description the network's description, as jaxcnn/demo/describe.py writes it
   * @param weights Float32Array of all parameters; the description holds offsets into it
   */
  constructor(description, weights) {
    this.description = description;
    const view = (part) => part && weights.subarray(part[0], part[0] + part[1]);
    const { frame, frame_value: frameValue } = description.input;
    this.layers = [
      { kind: "input", name: "Input", maps: 1, size: 28 + 2 * frame, frame, frameValue },
    ];
    for (const layer of description.layers) {
      const below = this.layers.at(-1);
      const all = Array.from({ length: below.maps }, (_, map) => map);
      this.layers.push({
        ...layer,
        below,
        sources: (map) => (layer.kind === "pool" ? [map] : layer.table ? layer.table[map] : all),
        weights: view(layer.weights),
        bias: view(layer.bias),
        activation: activationFunction({
          ...layer.activation,
          table: view(layer.activation.table),
        }),
        activationName: layer.activation.name,
      });
    }
  }

  /** Return the network's input for 28x28 grey levels of 0 to 255: normalized, in its frame. */
  input(pixels) {
    const { mean, std } = this.description.input;
    const { size, frame, frameValue } = this.layers[0];
    const input = new Float32Array(size * size).fill(frameValue);
    for (let i = 0; i < 784; i++) {
      const row = Math.floor(i / 28);
      input[(row + frame) * size + (i % 28) + frame] = (pixels[i] / 255 - mean) / std;
    }
    return input;
  }

  /**
   * Compute every layer for one image.
   *
   * @param pixels 784 grey levels of 0 to 255
   * @param pool kind of pooling, by default the one that the network was trained with
   * @return outputs: for each layer its sums `before` and its values `after` the activation;
   *   logits; logProbs
   */
  run(pixels, pool = null) {
    const input = this.input(pixels);
    const outputs = [{ before: input, after: input }];
    for (const layer of this.layers.slice(1)) {
      const compute = { conv: convolve, pool: poolMaps, rbf: distances }[layer.kind];
      const before = compute(layer, outputs.at(-1).after, pool ?? layer.pool);
      outputs.push({ before, after: before.map(layer.activation) });
    }
    const logits = outputs.at(-1).after;
    return { outputs, logits, logProbs: this.logProbs(logits) };
  }

  /** Return the logarithms of the classes' probabilities; those of 1998 leave some for "none". */
  logProbs(logits) {
    const competitors = [...logits];
    if (this.description.rejection !== null) competitors.push(-this.description.rejection);
    const largest = Math.max(...competitors);
    const sum = competitors.reduce((total, x) => total + Math.exp(x - largest), 0);
    return logits.map((x) => x - largest - Math.log(sum));
  }

  /**
   * Return the part of each layer below that a unit depends on, from the nearest to the input.
   *
   * @param index place of the unit's layer in `layers`
   * @param unit { map, row, column }
   * @param pool kind of pooling, by default the network's own
   */
  receptiveFields(index, { map, row, column }, pool = null) {
    const fields = [{ index, maps: [map], rows: [row, row], columns: [column, column] }];
    for (let i = index; i > 0; i--) {
      const layer = this.layers[i];
      const { maps, rows, columns } = fields.at(-1);
      const reach = ([low, high]) => {
        if (layer.kind !== "pool") return [low, high + (layer.kernel ?? 1) - 1];
        const [first, last] = [low, high].map((i) =>
          POOLS[pool ?? layer.pool].reach(i, layer.below.size),
        );
        return [first[0], last[1]];
      };
      fields.push({
        index: i - 1,
        maps: [...new Set(maps.flatMap(layer.sources))],
        rows: reach(rows),
        columns: reach(columns),
      });
    }
    return fields;
  }
}

/** Return a conv layer's weight between two maps at a place of the kernel: [ky][kx][in][out]. */
export function weightAt(layer, ky, kx, source, map) {
  return layer.weights[((ky * layer.kernel + kx) * layer.below.maps + source) * layer.maps + map];
}

function convolve(layer, input) {
  const { size, maps, kernel, below } = layer;
  const output = new Float32Array(maps * size * size);
  for (let map = 0; map < maps; map++) {
    const sums = new Float64Array(size * size).fill(layer.bias[map]);
    for (const source of layer.sources(map)) {
      for (let ky = 0; ky < kernel; ky++) {
        for (let kx = 0; kx < kernel; kx++) {
          const weight = weightAt(layer, ky, kx, source, map);
          for (let row = 0; row < size; row++) {
            const start = (source * below.size + row + ky) * below.size + kx;
            for (let column = 0; column < size; column++) {
              sums[row * size + column] += weight * input[start + column];
            }
          }
        }
      }
    }
    output.set(sums, map * size * size);
  }
  return output;
}

/** Return the window that a pooled unit sees, { values, width }, row by row. */
export function poolWindow(layer, input, { map, row, column }, kind) {
  const { size } = layer.below;
  const [[top, bottom], [left, right]] = [row, column].map((i) => POOLS[kind].reach(i, size));
  const values = [];
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) values.push(input[(map * size + y) * size + x]);
  }
  return { values, width: right - left + 1 };
}

/** Return what a pool of a kind makes of a window, before coefficient and bias. */
export function poolValue(layer, { values, width }, kind) {
  return POOLS[kind].value(values, width, layer.p);
}

function poolMaps(layer, input, kind) {
  const { maps, size } = layer;
  const output = new Float32Array(maps * size * size);
  for (let i = 0; i < output.length; i++) {
    const map = Math.floor(i / (size * size));
    const unit = { map, row: Math.floor(i / size) % size, column: i % size };
    const value = poolValue(layer, poolWindow(layer, input, unit, kind), kind);
    // In 1998 the sum of the four values, which is four times their mean, had a coefficient.
    output[i] = layer.weights ? 4 * value * layer.weights[map] + layer.bias[map] : value;
  }
  return output;
}

function distances(layer, input) {
  return Float32Array.from({ length: layer.maps }, (_, map) => {
    const code = layer.weights.subarray(map * input.length, (map + 1) * input.length);
    return -code.reduce((sum, bit, i) => sum + (input[i] - bit) ** 2, 0);
  });
}

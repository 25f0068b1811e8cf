/**
 * A drawing, photo or scan of a digit, brought into the form of MNIST's images, and disturbed.
 *
 * The preparation is that of jaxcnn/evaluation/digits.py, step by step (LeCun et al. 1998, section
 * III.A); the tests compare the two.
 */

const BOX = 20; // pixels of the larger side of a digit
const LEAST = 4; // least difference of ink from the page, of 255

/** Round to the nearest integer, and a half to the even one, as Python does. */
function roundHalfEven(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Return the quantile of numbers, between neighbours by a straight line, as NumPy does. */
function quantile(values, fraction) {
  const sorted = Float32Array.from(values).sort();
  const place = fraction * (sorted.length - 1);
  const low = Math.floor(place);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low] + (place - low) * (sorted[high] - sorted[low]);
}

/**
 * Return a digit in MNIST's form: 784 grey levels of 0 to 255, light on black.
 *
 * @param image { data, width, height, isBlack }: grey levels; `isBlack` says that the background is
 *   black without noise, so that neither has to be found
 * @param box scale the ink to a box of 20x20; otherwise the whole image to 28x28
 * @param centre centre the digit by its mass; otherwise it keeps the place of its middle
 */
export function prepareDigit(image, { box = true, centre = true } = {}) {
  const { width, height } = image;
  const ink = findInk(image);
  const bounds = inkBounds(ink, width, height);
  const placed = new Float32Array(784);
  if (!bounds) return new Uint8Array(784);
  const scale = box ? BOX / Math.max(bounds.height, bounds.width) : 28 / Math.max(width, height);
  const size = [bounds.height, bounds.width].map((n) =>
    Math.min(28, Math.max(1, roundHalfEven(scale * n))),
  );
  const digit = resize(crop(ink, width, bounds), bounds.width, bounds.height, size[1], size[0]);
  for (let i = 0; i < digit.length; i++) digit[i] = Math.max(digit[i], 0);
  const white = quantile(
    digit.filter((x) => x > 0),
    0.9,
  );
  for (let i = 0; i < digit.length; i++) digit[i] = Math.min(digit[i] / white, 1);
  let [middleRow, middleColumn] = [(size[0] - 1) / 2, (size[1] - 1) / 2];
  let target = [14, 14];
  if (centre) [middleRow, middleColumn] = centreOfMass(digit, size[1]);
  else {
    const whole = 28 / Math.max(width, height);
    target = [bounds.top + (bounds.height - height) / 2, bounds.left + (bounds.width - width) / 2];
    target = target.map((offset) => 13.5 + whole * offset);
  }
  const [top, left] = [target[0] - middleRow, target[1] - middleColumn].map((x, i) =>
    Math.max(0, Math.min(28 - size[i], roundHalfEven(x))),
  );
  for (let i = 0; i < digit.length; i++) {
    placed[(top + Math.floor(i / size[1])) * 28 + left + (i % size[1])] = digit[i];
  }
  return Uint8Array.from(placed, (x) => roundHalfEven(255 * x));
}

function centreOfMass(digit, width) {
  let [mass, rows, columns] = [0, 0, 0];
  digit.forEach((value, i) => {
    mass += value;
    rows += value * Math.floor(i / width);
    columns += value * (i % width);
  });
  return [rows / mass, columns / mass];
}

function inkBounds(ink, width, height) {
  let [top, bottom, left, right] = [height, -1, width, -1];
  for (let i = 0; i < ink.length; i++) {
    if (ink[i] <= 0) continue;
    const [row, column] = [Math.floor(i / width), i % width];
    [top, bottom] = [Math.min(top, row), Math.max(bottom, row)];
    [left, right] = [Math.min(left, column), Math.max(right, column)];
  }
  return bottom < 0 ? null : { top, left, height: bottom - top + 1, width: right - left + 1 };
}

function crop(image, width, bounds) {
  const rows = Array.from({ length: bounds.height }, (_, row) => {
    const start = (bounds.top + row) * width + bounds.left;
    return image.subarray(start, start + bounds.width);
  });
  const cropped = new Float32Array(bounds.width * bounds.height);
  rows.forEach((row, i) => cropped.set(row, i * bounds.width));
  return cropped;
}

/** Return the distance of each pixel of ink from the background, and 0 for all other pixels. */
function findInk({ data, width, height, isBlack }) {
  const difference = Float32Array.from(data);
  if (!isBlack) background(data, width, height).forEach((page, i) => (difference[i] -= page));
  const distance = difference.map(Math.abs);
  const strongest = distance.reduce((a, b) => Math.max(a, b), 0);
  if (strongest < LEAST) return new Float32Array(data.length);
  const far = difference.filter((x) => Math.abs(x) > strongest / 2);
  const isLight = far.filter((x) => x > 0).length > far.length / 2;
  const ink = isLight ? difference : difference.map((x) => -x);
  const tone = quantile(
    far.map(isLight ? (x) => x : (x) => -x).filter((x) => x > 0),
    0.75,
  );
  // 1.5 times the median distance is the standard deviation, if the noise is normal.
  const noise = isBlack ? 0 : 1.5 * quantile(distance, 0.5);
  // A digit may fill the page, and is then taken for noise.
  const threshold = Math.max(Math.min(Math.max(0.1 * tone, 4 * noise), tone / 2), LEAST);
  const { blobs, masses, atBorder } = labelBlobs(ink, threshold, width, height);
  const total = masses.reduce((a, b) => a + b, 0);
  const inside = masses.reduce((sum, mass, i) => sum + (atBorder[i] ? 0 : mass), 0);
  const counted = masses.map((mass, i) => (inside > 0.1 * total && atBorder[i] ? 0 : mass));
  const least = 0.05 * Math.max(0, ...counted); // a five may be of two blobs, specks are smaller
  return ink.map((x, i) => (blobs[i] && counted[blobs[i] - 1] >= least ? x : 0));
}

/** Number the connected regions above a threshold from 1, diagonal neighbours included. */
function labelBlobs(ink, threshold, width, height) {
  const blobs = new Int32Array(ink.length);
  const [masses, atBorder] = [[], []];
  for (let seed = 0; seed < ink.length; seed++) {
    if (blobs[seed] || !(ink[seed] > threshold)) continue;
    let [mass, border] = [0, false];
    const waiting = [seed];
    blobs[seed] = masses.length + 1;
    while (waiting.length) {
      const i = waiting.pop();
      const [row, column] = [Math.floor(i / width), i % width];
      mass += ink[i];
      border ||= row === 0 || column === 0 || row === height - 1 || column === width - 1;
      for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
          const neighbour = y * width + x;
          if (blobs[neighbour] || !(ink[neighbour] > threshold)) continue;
          blobs[neighbour] = blobs[seed];
          waiting.push(neighbour);
        }
      }
    }
    masses.push(mass);
    atBorder.push(border);
  }
  return { blobs, masses, atBorder };
}

/** Return the page's brightness: a quadratic function of the place, fitted without the ink. */
function background(data, width, height) {
  const place = (i, count) => (count > 1 ? (2 * i) / (count - 1) - 1 : -1);
  const terms = (i) => {
    const [x, y] = [place(i % width, width), place(Math.floor(i / width), height)];
    return [1, x, y, x * y, x * x, y * y];
  };
  const stride = [height, width].map((n) => Math.max(1, Math.floor(n / 100)));
  const points = [];
  for (let row = 0; row < height; row += stride[0]) {
    for (let column = 0; column < width; column += stride[1]) points.push(row * width + column);
  }
  const rows = points.map(terms);
  const values = points.map((i) => data[i]);
  const value = (coefficients, row) => row.reduce((sum, t, k) => sum + t * coefficients[k], 0);
  let fitted = values.map(() => 0).fill(quantile(values, 0.5));
  let coefficients;
  for (let round = 0; round < 5; round++) {
    const distance = values.map((v, k) => Math.abs(v - fitted[k]));
    const limit = Math.max(3 * 1.5 * quantile(distance, 0.5), LEAST);
    const near = rows.map((_, k) => k).filter((k) => distance[k] <= limit);
    coefficients = leastSquares(
      near.map((k) => rows[k]),
      near.map((k) => values[k]),
    );
    fitted = rows.map((row) => value(coefficients, row));
  }
  return Float32Array.from(data, (_, i) => value(coefficients, terms(i)));
}

/** Solve the normal equations; a term that the others determine gets the coefficient 0. */
function leastSquares(rows, values) {
  const n = rows[0].length;
  const matrix = Array.from({ length: n }, () => new Float64Array(n + 1));
  rows.forEach((row, k) => {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) matrix[i][j] += row[i] * row[j];
      matrix[i][n] += row[i] * values[k];
    }
  });
  const used = [];
  for (let i = 0; i < n; i++) {
    used.push(Math.abs(matrix[i][i]) > 1e-9 * rows.length);
    if (!used[i]) continue;
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const factor = matrix[k][i] / matrix[i][i];
      for (let j = i; j <= n; j++) matrix[k][j] -= factor * matrix[i][j];
    }
  }
  return matrix.map((row, i) => (used[i] ? row[n] / row[i] : 0));
}

/** Scale an image by a triangular filter that grows with the reduction, as Pillow does. */
export function resize(image, width, height, newWidth, newHeight) {
  const narrow = new Float32Array(height * newWidth);
  filterWeights(width, newWidth).forEach(({ first, weights }, column) => {
    for (let row = 0; row < height; row++) {
      narrow[row * newWidth + column] = weights.reduce(
        (sum, weight, k) => sum + weight * image[row * width + first + k],
        0,
      );
    }
  });
  const resized = new Float32Array(newHeight * newWidth);
  filterWeights(height, newHeight).forEach(({ first, weights }, row) => {
    for (let column = 0; column < newWidth; column++) {
      resized[row * newWidth + column] = weights.reduce(
        (sum, weight, k) => sum + weight * narrow[(first + k) * newWidth + column],
        0,
      );
    }
  });
  return resized;
}

function filterWeights(size, newSize) {
  const scale = size / newSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: newSize }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - centre + 0.5) / support)),
    );
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

/**
 * Rotate, shift and spoil an image of 28x28 grey levels.
 *
 * @param angle degrees, clockwise
 * @param right, down whole pixels
 * @param noise standard deviation, in grey levels; the same pattern each time
 */
export function disturb(pixels, { angle = 0, right = 0, down = 0, noise = 0 }) {
  if (!angle && !right && !down && !noise) return pixels;
  const [cos, sin] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const at = (row, column) =>
    row >= 0 && row < 28 && column >= 0 && column < 28 ? pixels[row * 28 + column] : 0;
  const normal = normalNumbers(1998);
  return Uint8Array.from({ length: 784 }, (_, i) => {
    const [y, x] = [Math.floor(i / 28) - down - 13.5, (i % 28) - right - 13.5];
    const [row, column] = [13.5 + cos * y - sin * x, 13.5 + sin * y + cos * x];
    const [r, c] = [Math.floor(row + 1e-9), Math.floor(column + 1e-9)];
    const [dr, dc] = [row - r, column - c];
    const upper = (1 - dc) * at(r, c) + dc * at(r, c + 1);
    const lower = (1 - dc) * at(r + 1, c) + dc * at(r + 1, c + 1);
    const value = (1 - dr) * upper + dr * lower + noise * normal();
    return Math.round(Math.max(0, Math.min(255, value)));
  });
}

/** Return a function that draws normal numbers from a seed (mulberry32 and Box-Muller). */
function normalNumbers(seed) {
  const uniform = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/**
 * Ways to halve the height and width of a map: windows, and what is made of their values.
 *
 * Of each kind: its name and its `what` on the page, its name in a formula (`call`); `reach(i, size)`,
 * the first and last row or column of the map below that row or column i sees; and
 * `value(window, width, p)` of a window's values, given row by row.
 */

const pair = (i) => [2 * i, 2 * i + 1];

export const POOLS = {
  average: {
    name: "average",
    what: "mean of 2×2",
    call: "mean",
    reach: pair,
    value: (window) => window.reduce((sum, x) => sum + x, 0) / window.length,
  },
  max: {
    name: "max",
    what: "maximum of 2×2",
    call: "max",
    reach: pair,
    value: (window) => Math.max(...window),
  },
  min: {
    name: "min",
    what: "minimum of 2×2",
    call: "min",
    reach: pair,
    value: (window) => Math.min(...window),
  },
  lp: {
    name: "p-norm",
    what: "p-norm of 2×2",
    call: "p-norm",
    reach: pair,
    value: (window, _, p) => window.reduce((sum, x) => sum + Math.abs(x) ** p, 0) ** (1 / p),
  },
  first: {
    name: "none",
    what: "first of 2×2",
    call: "first",
    reach: (i) => [2 * i, 2 * i],
    value: ([x]) => x,
  },
  overlapping: {
    name: "overlapping max",
    what: "maximum of 3×3",
    call: "max",
    reach: (i, size) => [2 * i, Math.min(2 * i + 2, size - 1)],
    value: (window) => Math.max(...window),
  },
  blur: {
    name: "blurred max",
    what: "maximum of 2×2, blurred",
    call: "blurred max",
    reach: (i, size) => [Math.max(0, 2 * i - 1), Math.min(2 * i + 2, size - 1)],
    value: blurredMaximum,
  },
};

/** Blur the maxima of 2x2 squares by (1, 2, 1) / 4 in both directions; borders are reflected. */
function blurredMaximum(window, width) {
  const [rows, columns] = [window.length / width - 1, width - 1];
  // At a border there are two maxima, and the outer one is next to two reflections of the other.
  const weight = (i, count) => (count === 2 ? 2 : i === 1 ? 2 : 1) / 4;
  let sum = 0;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const i = row * width + column;
      const maximum = Math.max(window[i], window[i + 1], window[i + width], window[i + width + 1]);
      sum += weight(row, rows) * weight(column, columns) * maximum;
    }
  }
  return sum;
}

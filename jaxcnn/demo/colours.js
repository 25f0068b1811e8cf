/** One diverging scale for every value of the page: blue is negative, orange positive. */

// From -1 to 1. Blue and orange differ for every kind of colour blindness; zero is the ground.
const STOPS = {
  light: ["#0b3c78", "#5b9bd3", "#f6f5f1", "#ee9b45", "#9c3a04"],
  dark: ["#a5d3ff", "#2f7ac4", "#171a20", "#cf6b17", "#ffd79c"],
};

const STEPS = 255; // an odd number, so that zero has a step of its own

/** Return the table of the scale: three numbers for each of its steps. */
export function scaleTable(theme) {
  const stops = STOPS[theme].map((hex) =>
    [1, 3, 5].map((start) => Number.parseInt(hex.slice(start, start + 2), 16)),
  );
  return Array.from({ length: STEPS }, (_, i) => {
    const place = (i / (STEPS - 1)) * (stops.length - 1);
    const stop = Math.min(stops.length - 2, Math.floor(place));
    return stops[stop].map((from, k) =>
      Math.round(from + (place - stop) * (stops[stop + 1][k] - from)),
    );
  });
}

/** Return the colour of a value between -limit and limit. */
export function colourOf(table, value, limit) {
  const place = Math.max(-1, Math.min(1, value / (limit || 1)));
  return table[Math.round(((place + 1) / 2) * (STEPS - 1))];
}

/** Return a colour for CSS. */
export function css([red, green, blue]) {
  return `rgb(${red} ${green} ${blue})`;
}

/** Return black or white, whichever has more contrast with a colour (WCAG 2's luminance). */
export function textOn(colour) {
  const [red, green, blue] = colour.map((level) => {
    const x = level / 255;
    return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

/** Return a grey scale for images: 0 is black, 255 white. */
export const GREYS = Array.from({ length: 256 }, (_, grey) => [grey, grey, grey]);

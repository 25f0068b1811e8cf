/** Controls around the pad: tools, settings of what the network sees, pictures, notes, theme. */

import { $, all, h } from "./dom.js";
import { POOLS } from "./pools.js";

const LARGEST_PICTURE = 800; // pixels of the longer side in which a digit is searched

/** Connect the drawing tools with the pad. */
export function connectTools(pad) {
  for (const tool of ["pen", "eraser"]) {
    $(`#${tool}`).addEventListener("click", () => {
      pad.tool = tool;
      for (const other of ["pen", "eraser"]) {
        $(`#${other}`).setAttribute("aria-pressed", other === tool);
      }
    });
  }
  $("#width").addEventListener("input", () => (pad.lineWidth = Number($("#width").value)));
  $("#undo").addEventListener("click", () => pad.undo());
  $("#clear").addEventListener("click", () => pad.clear());
}

/**
 * Connect the settings of what the network sees.
 *
 * @param prepare whether drawings are prepared at first, as for digits
 * @param onChange called with { box, centre } and { angle, right, down, noise }
 */
export function connectSettings(prepare, onChange) {
  const sliders = all("[data-disturb]");
  const checks = [$("#box"), $("#centre")];
  const changed = () => {
    for (const slider of sliders) {
      const value = slider.value.replace("-", "−");
      slider.nextElementSibling.textContent = `${value}${slider.dataset.unit}`;
    }
    const disturbance = sliders.map(({ dataset, value }) => [dataset.disturb, Number(value)]);
    const preparation = checks.map(({ id, checked }) => [id, checked]);
    onChange(Object.fromEntries(preparation), Object.fromEntries(disturbance));
  };
  const reset = () => {
    for (const slider of sliders) slider.value = 0;
    for (const check of checks) check.checked = prepare;
    changed();
  };
  for (const input of [...sliders, ...checks]) input.addEventListener("input", changed);
  $("#reset").addEventListener("click", reset);
  reset();
}

/** Connect the choice of pooling; the network's own kind comes first. */
export function connectPools(trained, onChange) {
  const labels = [...new Set([trained, "average", "max", "min"])].map((value) => {
    const checked = value === trained;
    const change = () => onChange(value);
    const input = h("input", { type: "radio", name: "pool", value, checked, change });
    const { name } = POOLS[value];
    return h("label", {}, input, checked ? `${name} (trained)` : name);
  });
  $("#pools").append(...labels);
}

/** Show pictures from a file, a drop or the clipboard on the pad. */
export function connectPictures(pad) {
  const show = async (file) => {
    $("#problem").textContent = "";
    if (!file) return;
    try {
      pad.show(toGrey(await createImageBitmap(file)));
    } catch {
      $("#problem").textContent = `${file.name} is not an image that this browser can read.`;
    }
  };
  $("#file").addEventListener("change", () => {
    show($("#file").files[0]);
    $("#file").value = ""; // so that the same file can be chosen again
  });
  const card = $("#draw");
  for (const [name, isOver] of [
    ["dragover", true],
    ["dragleave", false],
    ["drop", false],
  ]) {
    card.addEventListener(name, (event) => {
      event.preventDefault();
      card.classList.toggle("drop", isOver);
    });
  }
  card.addEventListener("drop", (event) => show(event.dataTransfer.files[0]));
  document.addEventListener("paste", (event) => show(event.clipboardData.files[0]));
}

/** Return a picture, scaled down if it is large, and its grey levels. */
function toGrey(bitmap) {
  const scale = Math.min(1, LARGEST_PICTURE / Math.max(bitmap.width, bitmap.height));
  const [width, height] = [bitmap.width, bitmap.height].map((n) =>
    Math.max(1, Math.round(scale * n)),
  );
  const picture = h("canvas", { width, height });
  const context = picture.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // behind transparent pixels
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const grey = new Uint8Array(width * height);
  for (let i = 0; i < grey.length; i++) {
    const [red, green, blue] = data.subarray(4 * i, 4 * i + 3);
    grey[i] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
  }
  return { picture, grey: { data: grey, width, height } };
}

/** Put the notes beside their layers, and connect their buttons. */
export function connectNotes(hasCodes) {
  const wanted = hasCodes ? "1998" : "softmax";
  for (const note of all(".note")) {
    if (note.dataset.only && note.dataset.only !== wanted) note.remove();
  }
  const notes = all(".note");
  const update = () => {
    const isOpen = notes.some((note) => !note.hidden);
    $("#notes").textContent = isOpen ? "Hide notes" : "Show notes";
    stored("notes", isOpen ? "shown" : "hidden");
  };
  const toggle = (hidden) => {
    for (const note of notes) note.hidden = hidden;
    update();
  };
  for (const note of notes) {
    if (note.dataset.layer) placeNote(note, $(`.layer[data-name="${note.dataset.layer}"]`));
    note.querySelector("button").addEventListener("click", () => {
      note.hidden = true;
      update();
    });
  }
  $("#notes").addEventListener("click", () => toggle(notes.some((note) => !note.hidden)));
  toggle(stored("notes") === "hidden");
}

function placeNote(note, section) {
  const pair = section.closest(".pair");
  if (pair) pair.before(note);
  else section.querySelector("header").after(note);
}

/** Connect the choice of colours; `onChange` is called with "light" or "dark", also at first. */
export function connectTheme(onChange) {
  const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = $("#theme").value;
    const theme = chosen === "auto" ? (prefersDark.matches ? "dark" : "light") : chosen;
    document.documentElement.dataset.theme = theme;
    onChange(theme);
  };
  $("#theme").value = stored("theme") ?? "auto";
  $("#theme").addEventListener("change", () => {
    stored("theme", $("#theme").value);
    apply();
  });
  prefersDark.addEventListener("change", apply);
  apply();
}

/** Read or write a setting; a browser may refuse to store anything for a local file. */
function stored(key, value) {
  try {
    if (value !== undefined) localStorage.setItem(`jaxcnn-${key}`, value);
    return localStorage.getItem(`jaxcnn-${key}`);
  } catch {
    return null;
  }
}

/** The pad: strokes by mouse, touch, pen or arrow keys; undo, eraser, pictures below the strokes. */

const SIDE = 280; // pixels of the drawing: ten for each of the network's
const MARGIN = 4;
const KEY_STEP = 7;

export class Pad {
  /**
   * @param canvas the canvas to draw on
   * @param onChange called after each change of the drawing
   */
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.onChange = onChange;
    this.tool = "pen";
    this.lineWidth = 22;
    this.steps = []; // strokes { points, width, erase }, pictures as in `show`, and "clear"
    this.cursor = null; // place of the keyboard's pen
    canvas.width = canvas.height = SIDE;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.#end(event));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#moveCursor(null));
    this.#redraw();
  }

  /**
   * Show a picture below further strokes.
   *
   * @param picture a canvas
   * @param grey its grey levels, { data, width, height }, or null if `digit` is set
   * @param digit an image in MNIST's form that needs no preparation, or null
   */
  show({ picture, grey = null, digit = null }) {
    this.steps.push({ picture, grey, digit });
    this.#changed();
  }

  clear() {
    if (this.isEmpty) return;
    this.steps.push("clear");
    this.#changed();
  }

  undo() {
    if (this.steps.pop()) this.#changed();
  }

  get canUndo() {
    return this.steps.length > 0;
  }

  get isEmpty() {
    return this.#visible.length === 0;
  }

  /** The gallery's digit that is shown, as long as nothing is drawn over it; otherwise null. */
  get digit() {
    const steps = this.#visible;
    return steps.length === 1 ? (steps[0].digit ?? null) : null;
  }

  /** The drawing as grey levels, { data, width, height }. */
  get image() {
    const [first, ...others] = this.#visible;
    if (first?.grey && !others.length) return first.grey; // in the resolution of the picture
    const { data } = this.context.getImageData(0, 0, SIDE, SIDE);
    const grey = new Uint8Array(SIDE * SIDE);
    for (let i = 0; i < grey.length; i++) grey[i] = data[4 * i];
    if (first?.grey) return { data: grey, width: SIDE, height: SIDE };
    // Ink at the border counts as the edge of a page, so a drawing gets a margin.
    const side = SIDE + 2 * MARGIN;
    const framed = new Uint8Array(side * side);
    for (let row = 0; row < SIDE; row++) {
      const start = (row + MARGIN) * side + MARGIN;
      framed.set(grey.subarray(row * SIDE, (row + 1) * SIDE), start);
    }
    return { data: framed, width: side, height: side, isBlack: true };
  }

  /** Whether the ground of the drawing is light, as paper is. */
  get #isPaper() {
    const grey = this.#visible[0]?.grey;
    if (!grey) return false;
    return grey.data.reduce((sum, value) => sum + value, 0) > 127 * grey.data.length;
  }

  get #visible() {
    const first = this.steps.findLastIndex((step) => step === "clear" || step.picture);
    return this.steps.slice(Math.max(0, first)).filter((step) => step !== "clear");
  }

  #changed() {
    this.#redraw();
    this.onChange();
  }

  #redraw() {
    const { context } = this;
    context.globalCompositeOperation = "source-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, SIDE, SIDE);
    for (const step of this.#visible) {
      if (step.picture) {
        const { width, height } = step.picture;
        const scale = SIDE / Math.max(width, height);
        const [w, h] = [width * scale, height * scale];
        context.imageSmoothingEnabled = !step.digit;
        context.drawImage(step.picture, (SIDE - w) / 2, (SIDE - h) / 2, w, h);
      } else this.#stroke(step, 0);
    }
  }

  /** Draw a stroke from one of its points on, each segment by itself, so that undo repeats it. */
  #stroke({ points, width, erase }, from) {
    const { context } = this;
    context.strokeStyle = erase === this.#isPaper ? "#fff" : "#000";
    context.lineWidth = width;
    context.lineCap = "round";
    for (let i = from; i < points.length; i++) {
      context.beginPath();
      context.moveTo(...points[Math.max(0, i - 1)]);
      context.lineTo(points[i][0], points[i][1] + (i ? 0 : 0.01)); // a line without length is none
      context.stroke();
    }
  }

  #place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * SIDE,
      ((event.clientY - box.top) / box.height) * SIDE,
    ];
  }

  #start(event) {
    if (event.button > 0 || this.pointer !== undefined) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture?.(event.pointerId);
    this.#moveCursor(null);
    const pressure = event.pointerType === "pen" && event.pressure ? 0.5 + event.pressure : 1;
    this.#begin(this.#place(event), this.lineWidth * pressure, event.buttons === 32);
  }

  #begin(point, width = this.lineWidth, erase = false) {
    this.steps.push({ points: [point], width, erase: erase || this.tool === "eraser" });
    this.#stroke(this.steps.at(-1), 0);
    this.onChange();
  }

  #extend(event) {
    if (event.pointerId !== this.pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    for (const one of events.length ? events : [event]) this.#lineTo(this.#place(one));
    this.onChange();
  }

  #lineTo(point) {
    const stroke = this.steps.at(-1);
    if (!stroke?.points) return;
    stroke.points.push(point);
    this.#stroke(stroke, stroke.points.length - 1);
  }

  #end(event) {
    if (event.pointerId === this.pointer) this.pointer = undefined;
  }

  #key(event) {
    const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    if ((event.ctrlKey || event.metaKey) && event.key === "z") this.undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (event.key === "Delete" || event.key === "Backspace") this.clear();
    else if (event.key === " " || event.key === "Enter") {
      const { place = [SIDE / 2, SIDE / 2], down = false } = this.cursor ?? {};
      this.#moveCursor({ place, down: !down });
      if (!down) this.#begin(place);
    } else if (moves[event.key]) {
      const { place = [SIDE / 2, SIDE / 2], down = false } = this.cursor ?? {};
      const next = place.map((x, i) =>
        Math.max(0, Math.min(SIDE, x + KEY_STEP * moves[event.key][i])),
      );
      this.#moveCursor({ place: next, down });
      if (down) {
        this.#lineTo(next);
        this.onChange();
      }
    } else return;
    event.preventDefault();
  }

  #moveCursor(cursor) {
    this.cursor = cursor;
    const mark = this.canvas.parentElement.querySelector(".cursor");
    mark.hidden = !cursor;
    if (!cursor) return;
    mark.classList.toggle("down", cursor.down);
    mark.style.left = `${(100 * cursor.place[0]) / SIDE}%`;
    mark.style.top = `${(100 * cursor.place[1]) / SIDE}%`;
  }
}

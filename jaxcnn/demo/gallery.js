/** The gallery: real digits one click away, and how many of them the network knows now. */

import { $, h } from "./dom.js";
import { decodeBytes } from "./network.js";

export class Gallery {
  /**
   * @param description { images, labels, num_hard }: grey levels as base64; the hardest are last
   * @param names names of the classes
   * @param choose called with a digit { label, pixels, picture }
   */
  constructor({ images, labels, num_hard: numHard }, names, choose) {
    const pixels = decodeBytes(images);
    this.names = names;
    this.digits = labels.map((label, i) => {
      const own = pixels.subarray(784 * i, 784 * (i + 1));
      return { label, pixels: own, picture: pictureOf(own), isHard: i >= labels.length - numHard };
    });
    $("#gallery-card").hidden = !labels.length;
    this.buttons = this.digits.map((digit) => {
      const properties = { type: "button", click: () => choose(digit) };
      const button = h("button.digit", properties, pictureOf(digit.pixels), h("span"));
      (digit.isHard ? $("#hardest") : $("#ordinary")).append(button);
      return button;
    });
  }

  /** Mark the digits that are answered wrong, once the page rests. */
  score(answerFor) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      const answers = this.digits.map(answerFor);
      answers.forEach((answer, i) => this.#mark(this.digits[i], this.buttons[i], answer));
      const right = answers.filter((answer, i) => answer === this.digits[i].label).length;
      $("#score").textContent = `${right} of ${answers.length} right with the present settings`;
    }, 120);
  }

  #mark({ label, isHard }, button, answer) {
    const isRight = answer === label;
    const verdict = isRight ? "answered right" : `taken for ${this.names[answer]}`;
    button.classList.toggle("wrong", !isRight);
    button.lastChild.textContent = isRight ? "" : `${this.names[answer]}?`;
    const kind = isHard ? ", one of the hardest" : "";
    button.setAttribute("aria-label", `${this.names[label]}${kind}, ${verdict}`);
  }
}

/** Return 784 grey levels as a canvas. */
function pictureOf(pixels) {
  const canvas = h("canvas", { width: 28, height: 28 });
  const context = canvas.getContext("2d");
  const image = context.createImageData(28, 28);
  pixels.forEach((grey, i) => image.data.set([grey, grey, grey, 255], 4 * i));
  context.putImageData(image, 0, 0);
  return canvas;
}

/** The answer, the bars of the probabilities, and the units of the output layer. */

import { colourOf, css } from "./colours.js";
import { $, decimal, h, percent } from "./dom.js";

const MOST_BARS = 12;
const CODE_LIMIT = 1.7159; // the bound of F6, for the stored bitmaps, too

export class AnswerView {
  /**
   * @param names names of the classes
   * @param hasNone whether the probabilities leave some for "none"
   */
  constructor(names, hasNone) {
    Object.assign(this, { names, hasNone });
  }

  /** Show the answer for a drawing; an empty one has none. */
  draw(logProbs, isEmpty) {
    const { names } = this;
    const probabilities = [...logProbs].map(Math.exp);
    const order = [...names.keys()].sort((a, b) => logProbs[b] - logProbs[a]);
    const [best] = order;
    const summary = isEmpty ? "Nothing is drawn" : percent(probabilities[best]);
    $("#best").textContent = isEmpty ? "?" : names[best];
    $("#best").classList.toggle("long", names[best].length > 2);
    $("#sure").textContent = summary;
    $("#chip").textContent = isEmpty ? "" : `${names[best]} · ${summary}`;
    const shown = names.length > MOST_BARS ? order.slice(0, MOST_BARS) : [...names.keys()];
    const rows = shown.map((i) => bar(names[i], probabilities[i], i === best));
    if (this.hasNone) rows.push(bar("none", remainder(probabilities), false));
    $("#bars").replaceChildren(...rows);
    $("#answer").classList.toggle("empty", isEmpty);
    this.#announce(isEmpty ? summary : `Answer: ${names[best]}, ${summary}`);
  }

  /** Tell screen readers the answer once the drawing rests. */
  #announce(text) {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => {
      if ($("#live").textContent !== text) $("#live").textContent = text;
    }, 500);
  }
}

function remainder(probabilities) {
  return Math.max(0, 1 - probabilities.reduce((a, b) => a + b, 0));
}

function bar(name, probability, isBest) {
  return h(
    isBest ? "li.best" : "li",
    {},
    h("span.name", { title: name }, name),
    h("span.track", {}, h("span.fill", { style: { width: `${100 * probability}%` } })),
    h("span.percent", {}, percent(probability)),
  );
}

export class OutputView {
  /**
   * @param layer the last layer
   * @param index its place in `layers`
   * @param names names of the classes
   * @param handlers see LayerView
   */
  constructor(layer, index, names, handlers) {
    Object.assign(this, { layer, names });
    this.hasCodes = layer.kind === "rbf";
    this.buttons = names.map((name, map) => {
      const unit = { map, row: 0, column: 0 };
      return h(
        "button.output",
        {
          type: "button",
          click: () => handlers.select(index, unit),
          pointerenter: ({ pointerType }) => pointerType === "mouse" && handlers.hover(index, unit),
          pointerleave: () => handlers.hover(index, null),
        },
        this.hasCodes ? h("canvas", { width: 7, height: 12, "aria-hidden": "true" }) : h("i"),
        h("b", { title: name }, name),
        h("span.hidden", {}, this.hasCodes ? "distance" : "output"),
        h("span.number"),
      );
    });
    this.element = h(this.hasCodes ? "div.outputs.codes" : "div.outputs", {}, this.buttons);
  }

  draw(logits, table, limit, isEmpty) {
    this.logits = logits;
    const best = logits.indexOf(Math.max(...logits));
    this.buttons.forEach((button, map) => {
      button.classList.toggle("best", map === best && !isEmpty);
      button.lastChild.textContent = decimal(this.hasCodes ? -logits[map] : logits[map], 1);
      if (this.hasCodes) this.#drawCode(button.firstChild, map, table);
      else button.firstChild.style.background = css(colourOf(table, logits[map], limit));
    });
  }

  readout({ map }) {
    if (this.hasCodes) return `distance to “${this.names[map]}”: ${decimal(-this.logits[map], 1)}`;
    return `${this.names[map]}: ${decimal(this.logits[map], 1)}`;
  }

  /** Draw the bitmap that is stored for a class. */
  #drawCode(canvas, map, table) {
    const context = canvas.getContext("2d");
    const image = context.createImageData(7, 12);
    this.layer.weights.subarray(84 * map, 84 * (map + 1)).forEach((bit, i) => {
      image.data.set([...colourOf(table, bit, CODE_LIMIT), 255], 4 * i);
    });
    context.putImageData(image, 0, 0);
  }
}

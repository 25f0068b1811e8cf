/** Elements and numbers as text. */

/** Return the first element of the page that a selector finds. */
export function $(selector) {
  return document.querySelector(selector);
}

/** Return all elements that a selector finds, as an array. */
export function all(selector, root = document) {
  return [...root.querySelectorAll(selector)];
}

/**
 * Create an element.
 *
 * @param tag name of the element, with classes after dots: "p.note"
 * @param properties attributes; functions are event handlers, `style` is an object of custom
 *   properties
 * @param children elements and text; never parsed as HTML
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (key === "style") {
      for (const [property, text] of Object.entries(value)) {
        element.style.setProperty(property, text);
      }
    } else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.flat());
  return element;
}

/** Return a number with a fixed number of decimals and a real minus sign. */
export function decimal(x, digits = 3) {
  const text = x.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** Return a probability in percent; only 1 is 100 %. */
export function percent(p) {
  if (p > 0.9995 && p < 1) return "> 99.9 %";
  return `${(100 * p).toFixed(1)} %`;
}

/** Return "1 map" or "3 maps". */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// Making and finding elements. Text always enters the page as text nodes.

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[T]}
 */
export function makeElement(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/**
 * @param {string} className
 * @param {string} [text]
 * @param {string} [label] for tooltip and screen readers
 * @returns {HTMLButtonElement}
 */
export function makeButton(className, text, label) {
  const button = makeElement("button", className, text);
  button.type = "button";
  if (label) {
    button.title = label;
    button.setAttribute("aria-label", spokenName(text ?? "", label));
  }
  return button;
}

/**
 * What a screen reader says of a button. It contains the words that are seen, so that they can also be spoken to press
 * the button (WCAG 2.5.3).
 * @param {string} text
 * @param {string} label
 */
export function spokenName(text, label) {
  const seen = text.trim();
  const hasWords = /[\p{L}\p{N}]/u.test(seen);
  return hasWords && !label.toLowerCase().includes(seen.toLowerCase()) ? `${seen}: ${label}` : label;
}

/**
 * The element of the markup that a selector names; an error if there is none.
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {HTMLElement}
 */
export function find(root, selector) {
  return findAs(root, selector, HTMLElement);
}

/**
 * Like find, for an element of a certain kind.
 * @template {HTMLElement} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} kind
 * @returns {T}
 */
export function findAs(root, selector, kind) {
  const element = root.querySelector(selector);
  if (!(element instanceof kind)) throw new Error(`The stage has no ${kind.name} ${selector}.`);
  return element;
}

/**
 * @param {ParentNode} root
 * @param {string} selector
 * @returns {HTMLElement[]}
 */
export function findAll(root, selector) {
  return [...root.querySelectorAll(selector)].filter((element) => element instanceof HTMLElement);
}

/**
 * The element in which an event happened. It is the document's, if the event was sent to the document itself.
 * @param {Event} event
 * @returns {Element}
 */
export function targetOf(event) {
  return event.target instanceof Element ? event.target : document.documentElement;
}

/**
 * The data attributes of the element in which an event happened.
 * @param {Event} event
 * @returns {DOMStringMap}
 */
export function datasetOf(event) {
  return event.target instanceof HTMLElement ? event.target.dataset : {};
}

/**
 * The nearest element around an event that matches.
 * @param {Event} event
 * @param {string} selector
 * @returns {HTMLElement | null}
 */
export function closestOf(event, selector) {
  const element = targetOf(event).closest(selector);
  return element instanceof HTMLElement ? element : null;
}

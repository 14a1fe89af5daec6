// The turns that students show to the class, or would like to.

/** @import { Exhibit } from "./types" */

import { makeButton, makeElement } from "../src/dom.js";

const BRANCHES = /** @type {const} */ (["uncapped", "capped"]);
const NAMES = { uncapped: "Uncapped", capped: "Capped" };

/**
 * @param {Exhibit} exhibit
 * @param {(asked: object) => void} speaker
 */
function head({ id, student, turn, shown }, speaker) {
  const who = `Student ${student}, turn ${turn}`;
  const line = makeElement("header");
  line.append(makeElement("h3", "", shown ? who : `${who} would like to show it`));
  if (!shown) {
    const allow = makeButton("", "Show", `Show ${who}`);
    allow.addEventListener("click", () => speaker({ do: "allow", exhibit: id }));
    line.append(allow);
  }
  const words = shown ? "Take down" : "Refuse";
  const refuse = makeButton("quiet", words, `${words} ${who}`);
  refuse.addEventListener("click", () => speaker({ do: "refuse", exhibit: id }));
  line.append(refuse);
  return line;
}

/**
 * A text of a student or of the model, in whatever direction it is written.
 * @template {"p" | "span"} T
 * @param {T} tag
 * @param {string} className
 * @param {string | undefined} text
 */
function written(tag, className, text) {
  const element = makeElement(tag, className, text);
  element.dir = "auto";
  return element;
}

/**
 * @param {Exhibit} exhibit
 * @param {(asked: object) => void} speaker
 */
function card(exhibit, speaker) {
  const article = makeElement("article", exhibit.shown ? "exhibit" : "exhibit asked");
  article.append(head(exhibit, speaker));
  if (!exhibit.shown) return article;
  article.append(written("p", "user", exhibit.user));
  for (const branch of BRANCHES) {
    const reply = makeElement("p", `reply ${branch}`);
    reply.append(makeElement("b", "", NAMES[branch]), " ", written("span", "", exhibit[branch]));
    article.append(reply);
  }
  return article;
}

/**
 * @param {HTMLElement} list
 * @param {Exhibit[]} exhibits
 * @param {(asked: object) => void} speaker
 */
export function showExhibits(list, exhibits, speaker) {
  const words = JSON.stringify(exhibits);
  if (list.dataset.words === words) return; // a button must not be replaced while it is being pressed
  list.dataset.words = words;
  list.hidden = !exhibits.length;
  list.replaceChildren(...exhibits.map((exhibit) => card(exhibit, speaker)));
}

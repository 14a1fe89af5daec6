// Requests of the pages of a class, the streams that they listen to, and what their tab keeps.

/** A request that the server has refused, in one sentence. */
export class RefusedError extends Error {
  /**
   * @param {string} detail
   * @param {number} status
   */
  constructor(detail, status) {
    super(detail);
    this.status = status;
  }
}

const SILENCE_MS = 40_000; // the server says every 15 seconds that it is still there

/** The address under which the page is served, with a slash at its end. */
export const base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;

/** @param {string} path */
const addressOf = (path) => `${base()}class/${path}`;

/** @param {number} ms */
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** @param {Response} answer */
async function checked(answer) {
  if (answer.ok) return answer;
  const { detail = "" } = await answer.json().catch(() => ({}));
  throw new RefusedError(detail || `The server answered with status ${answer.status}.`, answer.status);
}

/**
 * @param {string} path
 * @param {object} body
 * @param {string} [token]
 * @returns {Promise<Record<string, unknown>>}
 */
export async function post(path, body, token = "") {
  const headers = { "Content-Type": "application/json", "X-Class-Token": token };
  const answer = await fetch(addressOf(path), { method: "POST", headers, body: JSON.stringify(body) });
  return (await checked(answer)).json();
}

/**
 * @param {string} path
 * @param {string} [token]
 */
export async function get(path, token = "") {
  return checked(await fetch(addressOf(path), { headers: { "X-Class-Token": token }, cache: "no-store" }));
}

/**
 * Server-sent events out of the text that has come so far: the objects, and the rest that is not whole yet.
 * @param {string} text
 * @returns {{ messages: unknown[]; rest: string }}
 */
export function eventsIn(text) {
  const parts = text.split("\n\n");
  const rest = parts.pop() ?? "";
  const lines = parts.filter((part) => part.startsWith("data: "));
  return { messages: lines.map((line) => JSON.parse(line.slice(6))), rest };
}

/**
 * Listens to a stream until it ends. The token goes into a header, which an EventSource could not send.
 * @template T
 * @param {string} path
 * @param {string} token
 * @param {(message: T) => void} take
 * @param {AbortSignal} [signal] ends it from here
 */
export async function listen(path, token, take, signal) {
  const init = { headers: { "X-Class-Token": token }, cache: /** @type {const} */ ("no-store") };
  const answer = await checked(await fetch(addressOf(path), signal ? { ...init, signal } : init));
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    // A phone that wakes up in another network has a stream in which nothing comes any more.
    const silence = setTimeout(() => reader.cancel().catch(() => {}), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const { messages, rest } = eventsIn(text + value);
    text = rest;
    for (const message of messages) {
      try {
        take(/** @type {T} */ (message));
      } catch (error) {
        reportError(error); // a fault of this script is no broken connection
      }
    }
  }
}

/**
 * What this tab keeps under a name; null where there is nothing, or nothing that can be read.
 * @template T
 * @param {string} name
 * @returns {T | null}
 */
export function stored(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name) ?? "null");
  } catch {
    return null;
  }
}

/**
 * False where the browser has no room for it, or keeps nothing.
 * @param {string} name
 * @param {object | null} value null to keep nothing
 */
export function store(name, value) {
  try {
    if (value === null) sessionStorage.removeItem(name);
    else sessionStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/**
 * @param {string} name
 * @param {Blob} content
 */
export function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

export const STUDENT = "persona-drift-class-student";

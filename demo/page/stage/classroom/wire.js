// Requests of the pages of a class, the streams that they listen to, and what their tab keeps.

/** Under these names a tab keeps what it is: a student's, or the speaker's. */ export const STUDENT =
  "persona-drift-class-student";
export const SPEAKER = "persona-drift-class-speaker";

export const NO_ANSWER = "The server does not answer; try again.";

/** A request that was not answered as asked, in one sentence. */
export class RefusedError extends Error {
  /**
   * @param {string} detail
   * @param {number} status
   */
  constructor(detail, status) {
    super(detail);
    this.status = status;
  }

  /**
   * Whether the server of the class says that it does not know this tab, or no longer. Any other status may come
   * from a proxy, or pass.
   */
  get unknown() {
    return [401, 404, 410].includes(this.status);
  }

  /** Whether the speaker has removed the student. */
  get removed() {
    return this.status === 410;
  }
}

/**
 * What went wrong, in one sentence.
 * @param {unknown} error
 * @param {string} [otherwise] where the server has said nothing
 */
export const sentenceOf = (error, otherwise = NO_ANSWER) =>
  error instanceof RefusedError ? error.message : otherwise;

const SILENCE_MS = 40_000; // the server says every 15 seconds that it is still there

/** The address under which the page is served, with a slash at its end. */
export const base = () => `${location.origin}${document.body.dataset.root ?? ""}/`;

/** What stands behind the # of the address; empty where that is damaged. */
export function fragment() {
  try {
    return decodeURIComponent(location.hash.slice(1)).trim();
  } catch {
    return "";
  }
}

/**
 * A name that no other message has. A page without TLS has no crypto.randomUUID.
 * @returns {string}
 */
export const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(
    "",
  );

/** @param {number} ms */
export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** @param {Response} answer */
async function checked(answer) {
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({}));
  const said = typeof detail === "string" && detail;
  throw new RefusedError(said || `The server answered with status ${answer.status}.`, answer.status);
}

/**
 * @param {string} path
 * @param {object} body
 * @param {string} [token]
 * @param {string} [at] the address of the page, for a page that is not of the class itself
 * @returns {Promise<Record<string, unknown>>}
 */
export async function post(path, body, token = "", at = base()) {
  const headers = { "Content-Type": "application/json", "X-Class-Token": token };
  const init = { method: "POST", headers, body: JSON.stringify(body) };
  return (await checked(await fetch(`${at}class/${path}`, init))).json();
}

/**
 * @param {string} path
 * @param {Record<string, string>} headers
 */
export async function get(path, headers) {
  return checked(await fetch(`${base()}class/${path}`, { headers, cache: "no-store" }));
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
  const answer = await checked(await fetch(`${base()}class/${path}`, signal ? { ...init, signal } : init));
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

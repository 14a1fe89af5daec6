// Requests to the server. Those that need the model wait in its queue; the others are answered at once.

/** @import { Handlers, Host, RequestName, SendRequest } from "./types" */

/**
 * The content of protocol.json. The entry point imports it, because not every version of node can.
 * @typedef {typeof import("../protocol.json")} Protocol
 */

/**
 * @param {Protocol} protocol
 * @param {Host["trigger"]} trigger null on a saved page
 * @returns {SendRequest}
 */
export function makeRequests(protocol, trigger) {
  /**
   * @param {RequestName} name
   * @param {object} [fields]
   */
  function sendRequest(name, fields = {}) {
    if (!Object.hasOwn(protocol.requests, name)) {
      throw new Error(`The request "${name}" is not in protocol.json.`);
    }
    if (typeof trigger !== "function") return false;
    trigger(protocol.requests[name].needs_model ? "submit" : "select", { do: name, ...fields });
    return true;
  }
  return Object.assign(sendRequest, { available: typeof trigger === "function" });
}

/**
 * The handler of an operation.
 * @param {Protocol} protocol
 * @param {Handlers} handlers
 * @param {string} name
 * @returns {(fields: never, late: boolean) => void}
 */
export function handlerOf(protocol, handlers, name) {
  if (!Object.hasOwn(protocol.operations, name)) {
    throw new Error(`The operation "${name}" is not in protocol.json.`);
  }
  if (!Object.hasOwn(handlers, name)) throw new Error(`The operation "${name}" has no handler.`);
  return handlers[/** @type {keyof Handlers} */ (name)];
}

/**
 * The handlers and protocol.json must name the same operations.
 * @param {Protocol} protocol
 * @param {Handlers} handlers
 */
export function checkProtocol(protocol, handlers) {
  const missing = Object.keys(protocol.operations).filter((name) => !Object.hasOwn(handlers, name));
  const unknown = Object.keys(handlers).filter((name) => !Object.hasOwn(protocol.operations, name));
  if (missing.length) {
    throw new Error(`These operations of protocol.json have no handler: ${missing.join(", ")}.`);
  }
  if (unknown.length) throw new Error(`These operations are not in protocol.json: ${unknown.join(", ")}.`);
}

// Requests to the server. Those that need the model wait in its queue; the others are answered at once.

// Gives sendRequest(name, fields). It returns false, and sends nothing, on a saved page, which has no server.
function makeRequests() {
  const available = typeof trigger === "function";
  function sendRequest(name, fields = {}) {
    if (!Object.hasOwn(PROTOCOL.requests, name)) throw new Error(`The request "${name}" is not in protocol.json.`);
    if (!available) return false;
    trigger(PROTOCOL.requests[name].needs_model ? "submit" : "select", { do: name, ...fields });
    return true;
  }
  sendRequest.available = available;
  return sendRequest;
}

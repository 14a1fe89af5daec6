// Requests of the stage's buttons: those that run the model wait in its queue. A saved page has no one to ask.
function makeAsk() {
  const ask = (request) => {
    if (typeof trigger !== "function") return false;
    trigger(["regenerate", "edit", "layers", "open"].includes(request.do) ? "submit" : "select", request);
    return true;
  };
  ask.possible = typeof trigger === "function";
  return ask;
}

// Entry point. The bundle runs inside a function to which its host, Gradio or a saved page, gives these four
// names.

/** @import { Host } from "./types" */

import protocol from "../protocol.json";
import { find } from "./dom.js";
import { makeRequests } from "./protocol.js";
import { makeStage } from "./stage.js";

/** @type {Host} */
const host = { element, props, watch, trigger };
const stage = makeStage(find(host.element, "#stage"), protocol, makeRequests(protocol, host.trigger));
window.personaStage = { counts: stage.counts };
// The value is JSON text, because Gradio would send differences of nested lists and apply them wrongly.
const receiveText = () => stage.receive(host.props.value ? JSON.parse(host.props.value) : null);
host.watch("value", receiveText);
receiveText();

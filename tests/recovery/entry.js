// The Worker with two ways to end its Wasm instance, by throwing what a trap throws where Rust calls JavaScript, which passes
// through Rust as a trap does: `X-Test-Trap: start` when the settings are read, at once; `X-Test-Trap: timer` when the next
// timer is started, for the deadline of a KV operation in the middle of a request.
import worker from "../../src/worker/entry.js";

export * from "../../src/worker/entry.js";

const platformTimer = globalThis.setTimeout;

function trap() {
  globalThis.setTimeout = platformTimer;
  throw new WebAssembly.RuntimeError("unreachable");
}

export default {
  fetch(request, env, context) {
    const when = request.headers.get("x-test-trap");
    if (when === "timer") globalThis.setTimeout = trap;
    return worker.fetch(request, when === "start" ? new Proxy(env, { get: trap }) : env, context);
  },
};

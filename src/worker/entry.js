// What the platform calls: events go straight to the functions that Rust exports, and a Wasm instance that has
// trapped is replaced before it is used again.
//
// The bundle's own default export does the same behind a Proxy per request and a Proxy per method call, which was a
// sixth of the CPU of a small request (docs/performance.md). This keeps its rule, and its Durable Object classes.
import Bundle from "../../build/index.js";

export * from "../../build/index.js";

/** Kept by the bundle: `criticalError` says that the instance must not be used again. */
const state = globalThis.__worker_init_state;

function handler(event) {
  const run = Bundle.prototype[event];
  return (argument, env, ctx) => {
    // The bundle starts a new instance when something is constructed after a trap, and only then.
    if (state.criticalError) new Bundle(ctx, env);
    // Read on demand by glue.js: for `worker::Request`, which would have it parsed for every request, it is not there.
    if (event === "fetch") Object.defineProperty(argument, "cf", { value: undefined, configurable: true });
    try {
      return run.call({ env, ctx }, argument);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) state.criticalError = true;
      throw error;
    }
  };
}

const events = ["fetch", "scheduled", "queue"].filter((event) => event in Bundle.prototype);

export default Object.fromEntries(events.map((event) => [event, handler(event)]));

// What the platform calls: events go straight to the functions that Rust exports, and a Wasm instance that has
// trapped is replaced before it is used again.
//
// A trap takes every request with it that is under way in the instance. Those that are safe to repeat, `GET` and `HEAD`, are
// answered once more by the next instance; the one that trapped at once is not, and no request twice.
//
// The bundle's own default export does the same behind a Proxy per request and a Proxy per method call, which was a
// sixth of the CPU of a small request (docs/performance.md). This keeps its rule, and its Durable Object classes.
import Bundle from "../../build/index.js";

export * from "../../build/index.js";

/** Kept by the bundle: `criticalError` says that the instance must not be used again. */
const state = globalThis.__worker_init_state;

/** Called when the instance is gone, one for each request under way that can be repeated. */
const underWay = new Set();
let gone = state.criticalError;
Object.defineProperty(state, "criticalError", {
  get: () => gone,
  set(value) {
    gone = value;
    if (!gone) return;
    for (const repeat of underWay) repeat();
    underWay.clear();
  },
});

/** `answer`, or that of `again` if the instance goes before it is there. */
async function orAgain(answer, again) {
  const { promise, resolve } = Promise.withResolvers();
  underWay.add(resolve);
  try {
    // What is awaited here is this request's own promise, so the work goes on as this request although another one trapped.
    return (await Promise.race([answer, promise])) ?? (await again());
  } finally {
    underWay.delete(resolve);
  }
}

function handler(event) {
  const run = Bundle.prototype[event];
  const call = (argument, env, ctx) => {
    // The bundle starts a new instance when something is constructed after a trap, and only then.
    if (state.criticalError) new Bundle(ctx, env);
    try {
      return run.call({ env, ctx }, argument);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) state.criticalError = true;
      throw error;
    }
  };
  if (event !== "fetch") return call;
  return (request, env, ctx) => {
    // Read on demand by glue.js: for `worker::Request`, which would have it parsed for every request, it is not there.
    Object.defineProperty(request, "cf", { value: undefined, configurable: true });
    const answer = call(request, env, ctx);
    const isRepeatable = answer instanceof Promise && (request.method === "GET" || request.method === "HEAD");
    return isRepeatable ? orAgain(answer, () => call(request, env, ctx)) : answer;
  };
}

const events = ["fetch", "scheduled", "queue"].filter((event) => event in Bundle.prototype);

export default Object.fromEntries(events.map((event) => [event, handler(event)]));

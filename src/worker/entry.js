// What the platform calls: events go straight to the functions that Rust exports. A Wasm instance that has trapped is
// replaced before it is used again, and nobody goes on waiting for it: what was in flight there and is safe to repeat
// (RFC 9110 §9.2.1) is done once more by the new instance, anything else is told 503 at once.
//
// The bundle's own exports call Rust behind a Proxy per request or object and a Proxy per method call, which was a sixth of
// the CPU of a small request (docs/performance.md). This keeps their rule and nothing else of them.
import { DurableObject } from "cloudflare:workers";
import * as bundle from "../../build/index.js";

/** Kept by the bundle: `criticalError` says that the instance must not be used again. */
const state = globalThis.__worker_init_state;
const INTERRUPTED = Symbol("interrupted");
const SAFE = new Set(["GET", "HEAD", "OPTIONS"]);

/** Ends the wait of each call that the instance at hand has not answered, the oldest first. */
const waiting = new Set();
/** Beyond that the oldest is given up: its client is gone, or the platform would have ended it. */
const WAITING_MAX = 4096;
let trapped = false;

// Set by Rust's panic hook, which still runs inside the instance that ends, by the bundle, and here.
Object.defineProperty(state, "criticalError", {
  get: () => trapped,
  set(value) {
    trapped = value;
    if (!value) return;
    const ended = [...waiting];
    waiting.clear();
    for (const end of ended) end();
  },
});

/** Whether `error` is a trap, as it is or as the bundle wraps it. If so, the instance is over. */
state.endedBy = (error) => {
  const isTrap = [error, error?.cause].some((each) => each instanceof WebAssembly.RuntimeError);
  if (!isTrap) return false;
  console.error("Critical", error);
  state.criticalError = true;
  return true;
};

/** What `Exported`, as the bundle wraps it, answers to `call`, or a promise of it. */
function start(Exported, ctx, env, call) {
  // The bundle starts a new instance when something is constructed after a trap, and only then.
  if (trapped) new Exported(ctx, env);
  try {
    return call();
  } catch (error) {
    if (!state.endedBy(error)) throw error;
    return INTERRUPTED;
  }
}

/** The end of `answer`, or of the instance that was to give it. */
function settled(answer) {
  if (!(answer instanceof Promise)) return answer;
  // Ended by another request where the instance ends, and not `new Promise`: see `follow` in glue.js.
  const { promise, resolve, reject } = Promise.withResolvers();
  const end = () => resolve(INTERRUPTED);
  const over = (settle) => (value) => {
    waiting.delete(end);
    settle(value);
  };
  if (waiting.size >= WAITING_MAX) waiting.delete(waiting.values().next().value);
  waiting.add(end);
  answer.then(over(resolve), over(reject));
  return promise;
}

/** The answer where the instance ended before it gave one, twice if the call may be repeated. */
function interrupted(request) {
  const detail = "What was to answer ended in the middle of it. What was asked may have happened.";
  const problem = { type: "/problems/interrupted", title: "The request was interrupted", status: 503, detail };
  const sent = request.headers.get("x-request-id") ?? "";
  const id = /^[A-Za-z0-9._-]{1,128}$/.test(sent) ? sent : crypto.randomUUID();
  const headers = { "Content-Type": "application/problem+json", "Retry-After": "1", "X-Request-Id": id };
  return new Response(request.method === "HEAD" ? null : JSON.stringify(problem), { status: 503, headers });
}

const Worker = bundle.default;
const rust = Worker.prototype;

/** What Rust reads of a request: the runtime's getters are calls into it, and `cf` is parsed when it is read. */
const seen = (request) => ({ method: request.method, url: request.url, headers: request.headers, whole: request });

const startFetch = (request, env, ctx) => start(Worker, ctx, env, () => rust.fetch.call({ env, ctx }, seen(request)));

async function finishFetch(started, request, env, ctx) {
  let answer = await settled(started);
  if (answer === INTERRUPTED && SAFE.has(request.method)) answer = await settled(startFetch(request, env, ctx));
  return answer === INTERRUPTED ? interrupted(request) : answer;
}

export default {
  fetch(request, env, ctx) {
    const started = startFetch(request, env, ctx);
    return started instanceof Response ? started : finishFetch(started, request, env, ctx);
  },
  async scheduled(event, env, ctx) {
    const ended = await settled(start(Worker, ctx, env, () => rust.scheduled.call({ env, ctx }, event)));
    if (ended === INTERRUPTED) throw new Error("The scheduled work was interrupted; the next run goes on where it stopped.");
  },
};

/**
 * A class of objects, by Rust's. They are asked by RPC, text for text: a request and a response of their own would cost more
 * than what most of them decide.
 */
function objects(Exported) {
  const Rust = Exported.prototype.constructor;
  return class extends DurableObject {
    #object;
    #instanceId;

    #start(method, argument) {
      return start(Exported, this.ctx, this.env, () => {
        // One of an instance that is over is made anew: what counts is stored.
        if (this.#instanceId !== state.instanceId) {
          this.#object = new Rust(this.ctx, this.env);
          this.#instanceId = state.instanceId;
        }
        return this.#object[method](argument);
      });
    }

    async ask(call) {
      const answer = await settled(this.#start("ask", call));
      if (answer === INTERRUPTED) throw new Error("The object was interrupted.");
      return answer;
    }

    async alarm() {
      const ended = await settled(this.#start("alarm"));
      if (ended === INTERRUPTED) throw new Error("The alarm was interrupted; the platform tries it again.");
    }
  };
}

export const Counter = objects(bundle.Counter);
export const Limiter = objects(bundle.Limiter);
export const Lock = objects(bundle.Lock);
export const Preference = objects(bundle.Preference);

// The Worker under test: the built bundle, whose KV bindings fail as a request header says.
//
// `X-Test-Faults: SESSIONS.get=hang, SESSIONS.put=after` makes every get of that namespace hang and every put fail after
// it took effect, and `SESSIONS.get=corrupt` makes it find records that are unreadable; `COUNTER.ask=down` makes every call of that class's objects fail; `X-Test-Env: {"API_TOKENS":null}` changes variables. `X-Test-Trap: 1` ends the Wasm instance: its first
// call to JavaScript throws what a trap throws, which passes through Rust as a trap does. All for that one request.
// Every reply says in `X-Test-Object-Calls` how many calls to Durable Objects its request made.
import worker from "../../src/worker/entry.js";

export * from "../../src/worker/entry.js";

type Operation = "get" | "put" | "delete" | "list" | "ask";
type Fault = "down" | "throttled" | "spent" | "hang" | "after" | "twice" | "corrupt";

const MESSAGES: Record<Exclude<Fault, "hang" | "corrupt">, string> = {
  down: "KV GET failed: 503 Service Unavailable",
  throttled: "KV PUT failed: 429 Too Many Requests",
  spent: "KV put() limit exceeded for the day.",
  after: "Network connection lost.",
  twice: "KV GET failed: 500 Internal Server Error",
};

function failing(namespace: KVNamespace, faults: Map<Operation, Fault>): KVNamespace {
  let failures = 0;
  const wrap = (operation: Operation) => async (...args: unknown[]) => {
    const call = () => (namespace[operation as "get"] as (...args: unknown[]) => Promise<unknown>)(...args);
    const fault = faults.get(operation);
    if (fault === undefined || (fault === "twice" && ++failures > 2)) return call();
    if (fault === "hang") return new Promise(() => {});
    if (fault === "after") await call();
    if (fault === "corrupt") return unreadable(args[0] as string | string[]);
    throw Object.assign(new Error(MESSAGES[fault]), { retryable: fault === "after" });
  };
  return { get: wrap("get"), put: wrap("put"), delete: wrap("delete"), list: wrap("list") } as unknown as KVNamespace;
}

/** What a read finds where every record is damaged. */
function unreadable(keys: string | string[]): ArrayBuffer | Map<string, string> {
  const damaged = "damaged";
  return typeof keys === "string" ? (new TextEncoder().encode(damaged).buffer as ArrayBuffer) : new Map(keys.map((key) => [key, damaged]));
}

/** An object namespace whose calls are counted and may fail. */
class FailingObjects {
  #namespace: Cloudflare.Env["LOCK"];
  #calls: { count: number };
  #fault: Fault | undefined;
  #failures = 0;

  constructor(namespace: Cloudflare.Env["LOCK"], calls: { count: number }, fault?: Fault) {
    this.#namespace = namespace;
    this.#calls = calls;
    this.#fault = fault;
  }

  getByName(name: string) {
    return {
      ask: async (call: string): Promise<string> => {
        this.#calls.count++;
        const fault = this.#fault;
        const ask = () => this.#namespace.getByName(name).ask(call);
        if (fault === undefined) return ask();
        if (fault === "hang") return new Promise(() => {});
        if (fault === "throttled") throw Object.assign(new Error("Durable Object is overloaded."), { overloaded: true });
        // `after` and `twice` fail the first time only: after it took effect, or before.
        if ((fault === "after" || fault === "twice") && this.#failures++ > 0) return ask();
        if (fault === "after") await ask();
        throw Object.assign(new Error("Network connection lost."), { retryable: true });
      },
    };
  }
}

const OBJECTS = ["COUNTER", "LIMITER", "LOCK", "PREFERENCE"] as const;

function withFaults(env: Cloudflare.Env, plan: string, calls: { count: number }): Cloudflare.Env {
  const faults = new Map<string, Map<Operation, Fault>>();
  for (const item of plan.split(",").filter((item) => item !== "")) {
    const [, binding, operation, fault] = /^\s*(\w+)\.(\w+)=(\w+)\s*$/.exec(item)!;
    const ofBinding = faults.get(binding!) ?? new Map<Operation, Fault>();
    faults.set(binding!, ofBinding.set(operation as Operation, fault as Fault));
  }
  const objects = OBJECTS.map((binding) => [binding, new FailingObjects(env[binding], calls, faults.get(binding)?.get("ask"))]);
  const namespaces = [...faults].filter(([binding]) => !OBJECTS.some((object) => object === binding));
  const wrapped = namespaces.map(([binding, plan]) => [binding, failing(env[binding as "SESSIONS"], plan)]);
  return { ...env, ...Object.fromEntries([...objects, ...wrapped]) };
}

function trapping(env: Cloudflare.Env): Cloudflare.Env {
  return new Proxy(env, {
    get() {
      throw new WebAssembly.RuntimeError("unreachable");
    },
  });
}

export default {
  async fetch(request: Request, env: Cloudflare.Env, context: ExecutionContext): Promise<Response> {
    const calls = { count: 0 };
    const variables = request.headers.get("x-test-env");
    env = withFaults(env, request.headers.get("x-test-faults") ?? "", calls);
    if (variables !== null) env = { ...env, ...JSON.parse(variables) };
    if (request.headers.has("x-test-trap")) env = trapping(env);
    const reply = await worker.fetch(request, env, context);
    // An upgraded connection cannot be wrapped; nothing here makes one.
    const counted = new Response(reply.body, reply);
    counted.headers.set("x-test-object-calls", `${calls.count}`);
    return counted;
  },
  scheduled(event: ScheduledController, env: Cloudflare.Env, context: ExecutionContext): Promise<void> {
    // What fails stands where the schedule does.
    return worker.scheduled(event, event.cron.includes("=") ? withFaults(env, event.cron, { count: 0 }) : env, context);
  },
};

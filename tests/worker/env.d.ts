// What the compiler cannot find out: the bindings of wrangler.toml, and the shape of the built bundle.
declare namespace Cloudflare {
  type Objects = DurableObjectNamespace<import("cloudflare:workers").DurableObject & { ask(call: string): Promise<string> }>;
  interface Env {
    SESSIONS: KVNamespace;
    CACHE: KVNamespace;
    CONFIG: KVNamespace;
    COUNTERS: KVNamespace;
    REPLICA_US: KVNamespace;
    REPLICA_EU: KVNamespace;
    REPLICA_ASIA: KVNamespace;
    COUNTER: Objects;
    LIMITER: Objects;
    LOCK: Objects;
    PREFERENCE: Objects;
    API_TOKENS: string;
    CORS_ORIGINS: string;
    SESSIONS_PER_USER_MAX: string;
  }
  interface GlobalProps {
    mainModule: typeof import("./entry");
  }
}

declare module "*/build/index.js" {
  import { WorkerEntrypoint } from "cloudflare:workers";
  export default class Bundle extends WorkerEntrypoint<Cloudflare.Env> {
    override fetch(request: Request): Promise<Response>;
  }
}

declare module "*/src/worker/entry.js" {
  const worker: {
    fetch(request: Request, env: Cloudflare.Env, context: ExecutionContext): Response | Promise<Response>;
    scheduled(event: ScheduledController, env: Cloudflare.Env, context: ExecutionContext): Promise<void>;
  };
  export default worker;
}

/** Vite's, of which nothing else is used. */
interface ImportMeta {
  glob<Module>(pattern: string, options: { eager: true }): Record<string, Module>;
}

/** A file as text. */
declare module "*?raw" {
  const text: string;
  export default text;
}

/** Data of the public JSON Patch suite: no types of its own. */
declare module "json-patch-test-suite/*.json" {
  const cases: unknown[];
  export default cases;
}

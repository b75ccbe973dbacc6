// What every handler gets: the bindings, and what the middleware found out about the request.

import type { MeteredKv, Operations } from "./kv.ts";
import type { Counter, Limiter, Lock } from "./objects.ts";

export interface Env {
  CACHE: KVNamespace;
  CONFIG: KVNamespace;
  SESSIONS: KVNamespace;
  REPLICA_US: KVNamespace;
  REPLICA_EU: KVNamespace;
  REPLICA_ASIA: KVNamespace;
  COUNTERS: KVNamespace;
  COUNTER: DurableObjectNamespace<Counter>;
  LIMITER: DurableObjectNamespace<Limiter>;
  LOCK: DurableObjectNamespace<Lock>;
  API_TOKENS: string;
  CORS_ORIGINS: string;
}

export interface Variables {
  requestId: string;
  operations: Operations;
  cache: MeteredKv;
  config: MeteredKv;
  sessions: MeteredKv;
  counters: MeteredKv;
  tenant: string;
}

export interface App {
  Bindings: Env;
  Variables: Variables;
}

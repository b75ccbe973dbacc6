// The parts of the Workers runtime that the peer uses and that no standard library of TypeScript declares.

interface KVNamespace {
  get(key: string, options: { type: "text"; cacheTtl?: number }): Promise<string | null>;
  get(key: string, options: { type: "arrayBuffer"; cacheTtl?: number }): Promise<ArrayBuffer | null>;
  get(keys: string[], options: { type: "text"; cacheTtl?: number }): Promise<Map<string, string | null>>;
  put(key: string, value: string | Uint8Array, options?: { expirationTtl?: number; metadata?: unknown }): Promise<void>;
  list(options: { prefix: string; cursor?: string }): Promise<KVNamespaceListResult>;
}

interface SubtleCrypto {
  timingSafeEqual(a: ArrayBuffer | ArrayBufferView, b: ArrayBuffer | ArrayBufferView): boolean;
}

interface KVNamespaceListResult {
  keys: { name: string; metadata?: unknown }[];
  list_complete: boolean;
  cursor?: string;
}

interface SqlStorage {
  exec<Row>(query: string, ...bindings: unknown[]): { toArray(): Row[] };
}

interface DurableObjectState {
  storage: {
    sql: SqlStorage;
    setAlarm(at: number): Promise<void>;
    getAlarm(): Promise<number | null>;
    deleteAll(): Promise<void>;
  };
}

/** Calls to the object's methods go over the runtime's RPC, so what they return is awaited. */
type Remote<T> = { [Name in keyof T]: T[Name] extends (...args: infer Args) => infer Result ? (...args: Args) => Promise<Awaited<Result>> : never };

interface DurableObjectNamespace<T> {
  getByName(name: string): Remote<T>;
}

interface Scheduler {
  wait(millis: number): Promise<void>;
}

declare module "cloudflare:workers" {
  export class DurableObject<Env> {
    constructor(state: DurableObjectState, env: Env);
    protected readonly ctx: DurableObjectState;
    protected readonly env: Env;
  }
}

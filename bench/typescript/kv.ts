// A KV namespace that counts what the request spends, for `Server-Timing`.

export class Operations {
  reads = 0;
  writes = 0;
  deletes = 0;
  lists = 0;

  toString(): string {
    return `kv;desc="r=${this.reads} w=${this.writes} d=${this.deletes} l=${this.lists}"`;
  }
}

export class MeteredKv {
  readonly #namespace: KVNamespace;
  readonly #operations: Operations;

  constructor(namespace: KVNamespace, operations: Operations) {
    this.#namespace = namespace;
    this.#operations = operations;
  }

  /** One bulk read; KV bills each key. */
  getMany(keys: string[], cacheTtlSeconds: number): Promise<Map<string, string | null>> {
    this.#operations.reads += keys.length;
    return this.#namespace.get(keys, { type: "text", cacheTtl: cacheTtlSeconds });
  }

  async getBytes(key: string, cacheTtlSeconds: number): Promise<Uint8Array<ArrayBuffer> | null> {
    this.#operations.reads += 1;
    const bytes = await this.#namespace.get(key, { type: "arrayBuffer", cacheTtl: cacheTtlSeconds });
    return bytes === null ? null : new Uint8Array(bytes);
  }

  putBytes(key: string, value: Uint8Array, ttlSeconds: number): Promise<void> {
    this.#operations.writes += 1;
    return this.#namespace.put(key, value, { expirationTtl: ttlSeconds });
  }

  put(key: string, value: string, ttlSeconds: number | undefined, metadata: unknown): Promise<void> {
    this.#operations.writes += 1;
    return this.#namespace.put(key, value, { ...(ttlSeconds !== undefined && { expirationTtl: ttlSeconds }), metadata });
  }

  get(key: string, cacheTtlSeconds: number): Promise<string | null> {
    this.#operations.reads += 1;
    return this.#namespace.get(key, { type: "text", cacheTtl: cacheTtlSeconds });
  }

  /** Every key below `prefix`, page by page. */
  async *list(prefix: string): AsyncGenerator<{ name: string; metadata?: unknown }> {
    let cursor: string | undefined;
    do {
      this.#operations.lists += 1;
      const page = await this.#namespace.list({ prefix, ...(cursor !== undefined && { cursor }) });
      yield* page.keys;
      cursor = page.list_complete ? undefined : page.cursor;
    } while (cursor !== undefined);
  }
}

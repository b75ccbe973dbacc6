// The parts of the Workers runtime that the peer uses and that no standard library of TypeScript declares.

interface KVNamespace {
  get(key: string, options: { type: "text"; cacheTtl?: number }): Promise<string | null>;
  get(key: string, options: { type: "arrayBuffer"; cacheTtl?: number }): Promise<ArrayBuffer | null>;
  get(keys: string[], options: { type: "text"; cacheTtl?: number }): Promise<Map<string, string | null>>;
  put(key: string, value: string | Uint8Array, options?: { expirationTtl?: number; metadata?: unknown }): Promise<void>;
}

interface SubtleCrypto {
  timingSafeEqual(a: ArrayBuffer | ArrayBufferView, b: ArrayBuffer | ArrayBufferView): boolean;
}

// One successful call of every operation of replicated keys.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const stored = async () => {
  const key = `${fresh("key")}/part`;
  await call(`PUT /v1/replicated/${key}`, { raw: "bytes", headers: { "content-type": "text/plain" } });
  return { key };
};

export const examples: Examples = {
  putReplicated: async () => ({ parameters: { key: fresh("key") }, query: "write=all&ttlSeconds=60", raw: "bytes" }),
  getReplicated: async () => ({ parameters: await stored(), query: "read=quorum" }),
  deleteReplicated: async () => ({ status: 204, parameters: await stored() }),
};

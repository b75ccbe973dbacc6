// One successful call of every operation of counters.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const counted = async () => {
  const name = fresh("counter");
  await call(`POST /v1/counters/${name}`, { body: { delta: 2, mode: "exact" } });
  return name;
};

export const examples: Examples = {
  addToCounter: async () => ({ parameters: { name: fresh("counter") }, body: { delta: -3, mode: "exact" }, headers: { "idempotency-key": fresh("key") } }),
  readCounter: async () => ({ parameters: { name: await counted() }, query: "mode=exact" }),
  resetCounter: async () => ({ status: 204, parameters: { name: await counted() }, query: "mode=exact" }),
  listCounters: async () => {
    const prefix = fresh("listed");
    await call(`POST /v1/counters/${prefix}`, { body: {} });
    return { query: `prefix=${prefix}` };
  },
};

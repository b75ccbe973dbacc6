// One successful call of every operation of rate limits.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const policy = { limit: 10, windowSeconds: 60 };
const made = async (stem = "policy") => {
  const name = fresh(stem);
  await call(`PUT /v1/rate-limits/${encodeURIComponent(name)}`, { body: policy });
  return { parameters: { policy: name } };
};

export const examples: Examples = {
  putRateLimit: async () => ({ parameters: { policy: fresh("policy") }, body: { ...policy, algorithm: "sliding-window", onFailure: "deny" } }),
  getRateLimit: () => made(),
  deleteRateLimit: async () => ({ status: 204, ...(await made()) }),
  listRateLimits: () => made(),
  checkRateLimit: async () => ({ ...(await made('we"ird\\ 100 % café')), body: { identifier: "alice", cost: 2 } }),
};

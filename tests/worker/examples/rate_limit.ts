// One successful call of every operation of rate limits.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const policy = { limit: 10, windowSeconds: 60 };
const made = async () => {
  const name = fresh("policy");
  await call(`PUT /v1/rate-limits/${name}`, { body: policy });
  return { parameters: { policy: name } };
};

export const examples: Examples = {
  putRateLimit: async () => ({ parameters: { policy: fresh("policy") }, body: { ...policy, algorithm: "sliding-window", onFailure: "deny" } }),
  getRateLimit: made,
  deleteRateLimit: async () => ({ status: 204, ...(await made()) }),
  listRateLimits: made,
  checkRateLimit: async () => ({ ...(await made()), body: { identifier: "alice", cost: 2 } }),
};

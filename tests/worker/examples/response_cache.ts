// One successful call of every operation on origins. What /v1/fetch answers is the origin's: response_cache.test.ts.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const body = { baseUrl: "https://example.com" };

const configured = async () => {
  const name = fresh("origin");
  await call(`PUT /v1/origins/${name}`, { body });
  return { name };
};

export const examples: Examples = {
  listOrigins: async () => ({}),
  getOrigin: async () => ({ parameters: await configured() }),
  putOrigin: async () => ({ parameters: { name: fresh("origin") }, body }),
  deleteOrigin: async () => ({ status: 204, parameters: await configured() }),
  purgeOrigin: async () => ({ status: 202, parameters: await configured(), body: { all: true } }),
};

// One successful call of every operation of settings.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const stored = async () => {
  const name = fresh("setting");
  await call(`PUT /v1/settings/${name}`, { body: { limit: 5 } });
  return { name };
};

export const examples: Examples = {
  putSetting: async () => ({ parameters: { name: fresh("setting") }, query: "fallback=1", body: { limit: 5 } }),
  getSetting: async () => ({ parameters: await stored(), query: "default=%7B%22more%22%3Atrue%7D" }),
  deleteSetting: async () => ({ status: 204, parameters: await stored() }),
};

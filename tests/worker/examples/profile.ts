// One successful call of every operation of profiles.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const stored = async () => {
  const user = fresh("user");
  await call(`PUT /v1/users/${user}/profile`, { body: { name: "Ada", city: "London" } });
  return { user };
};

export const examples: Examples = {
  getProfile: async () => ({ parameters: await stored(), query: "fields=name" }),
  replaceProfile: async () => ({ parameters: { user: fresh("user") }, body: { name: "Ada" } }),
  patchProfile: async () => ({ parameters: await stored(), body: { city: null } }),
  deleteProfile: async () => ({ status: 204, parameters: await stored() }),
};

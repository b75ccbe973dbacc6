// One successful call of every operation of keys.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const prefix = async () => {
  const user = fresh("user");
  await call(`PUT /v1/users/${user}/profile`, { body: { name: "Ada" } });
  return `prefix=profile/${user}`;
};

export const examples: Examples = {
  listKeys: async () => ({ parameters: { binding: "CONFIG" }, query: `${await prefix()}&delimiter=/` }),
  deleteKeys: async () => ({ parameters: { binding: "CONFIG" }, query: `${await prefix()}&confirm=1` }),
};

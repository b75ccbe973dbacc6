// One successful call of `/health` and `/openapi.json`.
import type { Examples } from "../openapi.test.ts";

export const examples: Examples = {
  health: async () => ({ query: "deep=1" }),
  openapi: async () => ({}),
};

// One successful call of every operation of preferences.
import { fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const someone = () => ({ user: fresh("user") });

export const examples: Examples = {
  getPreferences: async () => ({ parameters: someone() }),
  replacePreferences: async () => ({ parameters: someone(), body: { theme: "dark", language: "pt-BR" } }),
  patchPreferences: async () => ({ parameters: someone(), body: { theme: "dark", timezone: null } }),
  clearPreferences: async () => ({ status: 204, parameters: someone() }),
};

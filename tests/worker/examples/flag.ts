// One successful call of every operation of flags and of OFREP.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const flag = () => ({ state: "ENABLED", variants: { on: true, off: false }, defaultVariant: "off", metadata: { made: fresh("flag") } });
const put = async (key = fresh("flag")) => {
  const { body } = await call(`PUT /v1/flags/${key}`, { body: flag() });
  return { key, revision: body.revision };
};
const ofKey = async () => ({ parameters: { key: (await put()).key } });
const context = { body: { context: { targetingKey: "u" } } };

export const examples: Examples = {
  putFlagDocument: async () => {
    await put();
    return { body: { flags: { f: flag() }, metadata: { version: 1 }, settings: { bucketing: "v2" } } };
  },
  getFlagDocument: ofKey,
  listFlagRevisions: ofKey,
  rollbackFlags: async () => {
    const { revision } = await put();
    await put();
    return { body: { revision } };
  },
  putFlag: async () => ({ status: 201, parameters: { key: fresh("flag") }, body: flag() }),
  getFlag: ofKey,
  deleteFlag: async () => ({ status: 204, ...(await ofKey()) }),
  putFlagOverride: async () => ({ parameters: { key: (await put()).key, user: "u" }, body: { variant: "on" } }),
  deleteFlagOverride: async () => ({ status: 204, parameters: { key: (await put()).key, user: "u" } }),
  evaluateFlag: async () => ({ ...(await ofKey()), ...context }),
  evaluateFlags: async () => ({ ...(await ofKey()), ...context }),
  evaluateFlagsSlash: async () => ({ ...(await ofKey()), ...context }),
};

// One successful call of every operation of the object cache.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const stored = async () => {
  const bucket = fresh("bucket");
  await call(`PUT /v1/cache/${bucket}/k`, { raw: "value", headers: { "content-type": "text/plain" } });
  return { bucket, key: "k" };
};

export const examples: Examples = {
  putObject: async () => ({ status: 204, parameters: { bucket: fresh("bucket"), key: "k" }, raw: "value", headers: { "content-type": "text/plain" } }),
  getObject: async () => ({ parameters: await stored() }),
  deleteObject: async () => ({ status: 204, parameters: await stored() }),
  purgeObjects: async () => ({ status: 202, parameters: { bucket: fresh("bucket") }, body: { all: true } }),
};

// One successful call of every operation of documents.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const migrations = [{ from: 1, to: 2, steps: [{ rename: { from: "name", to: "title" } }] }];

/** A document of version 1 in a collection that is at version 2. */
const stored = async () => {
  const collection = fresh("collection");
  await call(`PUT /v1/collections/${collection}`, { body: { version: 1 } });
  await call(`PUT /v1/collections/${collection}/documents/a`, { body: { name: "Dune" } });
  await call(`PUT /v1/collections/${collection}`, { body: { version: 2, migrations } });
  return { collection, id: "a" };
};

export const examples: Examples = {
  publishCollection: async () => ({ parameters: { collection: fresh("collection") }, body: { version: 2, migrations } }),
  putDocument: async () => ({ parameters: { ...(await stored()), id: "b" }, query: "ttlSeconds=60", body: { title: "Dune" } }),
  // Of the newest version: one that is migrated says so only until it is written back.
  getDocument: async () => {
    const { collection } = await stored();
    await call(`PUT /v1/collections/${collection}/documents/b`, { body: { title: "Dune" } });
    return { parameters: { collection, id: "b" } };
  },
  patchDocument: async () => ({ parameters: await stored(), body: { pages: 412 } }),
  deleteDocument: async () => ({ status: 204, parameters: await stored() }),
  listDocuments: async () => ({ parameters: await stored() }),
  migrateCollection: async () => ({ parameters: await stored(), body: { dryRun: true, budget: 10 } }),
};

// One successful call of every operation of locks.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const acquired = async () => {
  const resource = fresh("lock");
  const { body } = await call(`POST /v1/locks/${resource}/acquire`, { body: { ttlSeconds: 60, owner: "example" } });
  return { parameters: { resource }, lockId: body.lockId as string };
};

export const examples: Examples = {
  acquireLock: async () => ({ parameters: { resource: fresh("lock") }, body: { ttlSeconds: 60, owner: "example", waitSeconds: 1 } }),
  inspectLock: async () => ({ parameters: (await acquired()).parameters }),
  renewLock: async () => {
    const { parameters, lockId } = await acquired();
    return { parameters, body: { lockId, ttlSeconds: 90 } };
  },
  releaseLock: async () => {
    const { parameters, lockId } = await acquired();
    return { status: 204, parameters, body: { lockId } };
  },
};

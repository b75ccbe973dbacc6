// The cron trigger on the built Worker: bounded, resumable, and one failure stops nothing else.
import { createExecutionContext, createScheduledController, waitOnExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, expect, test, vi } from "vitest";
import worker from "./entry.ts";
import { call, fresh } from "./client.ts";

const TURN_MILLIS = 1_200_000;

/** One run of the timer, `turns` later, while `faults` fail. */
async function runTimer(turns = 0, faults = ""): Promise<void> {
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + turns * TURN_MILLIS });
  const context = createExecutionContext();
  await worker.scheduled(createScheduledController({ cron: faults }), env, context);
  await waitOnExecutionContext(context);
}
afterEach(() => void vi.useRealTimers());

const put = (key: string, faults: string) =>
  call(`PUT /v1/replicated/${key}?write=any`, { raw: "x", headers: { "content-type": "text/plain", "x-test-faults": faults } });
const seenIn = async (replica: "US" | "EU" | "ASIA", key: string) => (await env[`REPLICA_${replica}`].get(`dev/replicated/${key}`)) !== null;
const hints = async (key: string) => {
  const lists = await Promise.all([env.REPLICA_US, env.REPLICA_EU, env.REPLICA_ASIA].map((replica) => replica.list({ prefix: `dev/replicated-hint/${key}/` })));
  return lists.flatMap(({ keys }) => keys).length;
};

const migrations = [{ from: 1, to: 2, steps: [{ rename: { from: "name", to: "title" } }] }];
const publish = (collection: string, version: number) =>
  call(`PUT /v1/collections/${collection}`, { body: { version, migrations: version === 1 ? [] : migrations } });
const versions = async (collection: string): Promise<number[]> =>
  (await call(`GET /v1/collections/${collection}/documents?limit=1000`)).body.items.map(({ version }: { version: number }) => version);

/** A collection in version 2 with documents of version 1. */
async function behind(count: number): Promise<string> {
  const collection = fresh("books");
  await publish(collection, 1);
  for (let n = 0; n < count; n++) await call(`PUT /v1/collections/${collection}/documents/${n}`, { body: { name: `${n}` } });
  await publish(collection, 2);
  return collection;
}

test("a value that a replica missed is handed over without a reader, and its hint goes when all were seen to have it", async () => {
  const key = fresh("key");
  expect((await put(key, "REPLICA_EU.put=down")).status).toBe(207);
  expect([await seenIn("EU", key), await hints(key)]).toEqual([false, 1]);
  await runTimer();
  expect([await seenIn("EU", key), await hints(key)]).toEqual([true, 1]);
  await runTimer(1);
  expect(await hints(key)).toBe(0);
});

test("documents of an older version are migrated without a reader, and what users wrote stays as it is", async () => {
  const collection = await behind(3);
  const raw = () => env.CONFIG.get(`dev/document/${collection}/1/own`);
  const [before, versionsBefore] = [await raw(), await versions(collection)];
  await runTimer();
  expect([versionsBefore, await versions(collection)]).toEqual([[1, 1, 1], [2, 2, 2]]);
  expect(await raw()).toBe(before);
});

test("a run is bounded, and the next ones go on where it ended", async () => {
  const collection = await behind(300);
  await runTimer();
  const migrated = async () => (await versions(collection)).filter((version) => version === 2).length;
  const first = await migrated();
  expect(first).toBeLessThanOrEqual(250);
  for (let turn = 0; turn < 12 && (await migrated()) < 300; turn++) await runTimer(1);
  expect(await migrated()).toBe(300);
}, 60_000);

test("one namespace that fails stops no other chore, whichever comes first", async () => {
  const faults = "COUNTERS.list=down,COUNTERS.get=down,REPLICA_ASIA.list=down,REPLICA_ASIA.get=down";
  const [key, collection] = [fresh("key"), await behind(1)];
  await put(key, "REPLICA_EU.put=down");
  // Other tests' collections have their turn too.
  for (let turn = 0; turn < 12; turn++) await runTimer(1, faults);
  expect([await seenIn("EU", key), await versions(collection)]).toEqual([true, [2]]);
  const second = fresh("key");
  await put(second, "REPLICA_EU.put=down");
  for (let turn = 0; turn < 3; turn++) await runTimer(1, "CONFIG.list=down,CONFIG.get=down");
  expect(await seenIn("EU", second)).toBe(true);
});

test("every tenant has its turn", async () => {
  const collection = fresh("books");
  const other = { token: "other-token" };
  await call(`PUT /v1/collections/${collection}`, { ...other, body: { version: 1 } });
  await call(`PUT /v1/collections/${collection}/documents/a`, { ...other, body: { name: "a" } });
  await call(`PUT /v1/collections/${collection}`, { ...other, body: { version: 2, migrations } });
  for (let turn = 0; turn < 12; turn++) await runTimer(1);
  expect((await call(`GET /v1/collections/${collection}/documents`, other)).body.items[0].version).toBe(2);
});

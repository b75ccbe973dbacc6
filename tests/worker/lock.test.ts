// Locks over HTTP on the built Worker: contract, mutual exclusion, fencing, waiting, faults, hostile input.
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, objectCalls, problem, type Answer, type Call } from "./client.ts";

const acquire = (resource: string, body: object = {}, options: Call = {}) =>
  call(`POST /v1/locks/${resource}/acquire`, { ...options, body: { ttlSeconds: 60, ...body } });
const release = (resource: string, lockId: string) => call(`POST /v1/locks/${resource}/release`, { body: { lockId } });
const renew = (resource: string, lockId: string, ttlSeconds = 60) => call(`POST /v1/locks/${resource}/renew`, { body: { lockId, ttlSeconds } });
const token = ({ body }: Answer) => BigInt(body.fencingToken);

const setClock = (millis: number) => vi.useFakeTimers({ toFake: ["Date"], now: millis });
afterEach(() => void vi.useRealTimers());

test("acquire, inspect, renew, release", async () => {
  const resource = fresh("lock");
  const before = Date.now();
  const granted = await acquire(resource, { owner: "worker-1" });
  expect(granted.body).toEqual({ lockId: expect.stringMatching(/^[\w-]{43}$/), fencingToken: expect.stringMatching(/^\d+$/), expiresAt: expect.any(Number) });
  expect(granted.body.expiresAt - before).toBeGreaterThanOrEqual(60_000);
  expect([cost(granted), granted.headers.get("consistency"), granted.headers.get("kv-demo-warning")]).toEqual(["r=0 w=0 d=0 l=0", "strong", null]);

  const { lockId, fencingToken } = granted.body;
  const { body } = await call(`GET /v1/locks/${resource}`);
  expect(body).toEqual({ held: true, owner: "worker-1", expiresAt: granted.body.expiresAt, fencingToken });
  const refused = await acquire(resource);
  expect([problem(refused), refused.body.owner]).toEqual(["409 lock-held", "worker-1"]);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(50);

  const looked = await call(`GET /v1/locks/${resource}`);
  const renewed = await renew(resource, lockId, 3600);
  expect(renewed.body.expiresAt - before).toBeGreaterThanOrEqual(3_600_000);
  expect([granted, looked, refused, renewed].map(objectCalls)).toEqual([1, 1, 1, 1]);
  expect(renewed.body).toMatchObject({ lockId, fencingToken });
  expect(renewed.body.expiresAt).toBeGreaterThan(granted.body.expiresAt);
  expect((await release(resource, lockId)).status).toBe(204);
  expect((await release(resource, lockId)).status).toBe(204);
  expect((await call(`GET /v1/locks/${resource}`)).body).toEqual({ held: false, owner: null, expiresAt: null, fencingToken });
  expect(problem(await renew(resource, lockId))).toBe("409 lock-not-held");
});

test("of 20 who acquire at once one holds it, twenty times over, and tokens grow", async () => {
  const resource = fresh("mutex");
  let last = 0n;
  for (let round = 0; round < 20; round++) {
    const answers = await Promise.all(Array.from({ length: 20 }, (_, index) => acquire(resource, { owner: `${index}` })));
    const holders = answers.filter(({ status }) => status === 200);
    expect(holders.length).toBe(1);
    expect(answers.filter((answer) => problem(answer) === "409 lock-held").length).toBe(19);
    expect(token(holders[0]!)).toBeGreaterThan(last);
    last = token(holders[0]!);
    await release(resource, holders[0]!.body.lockId);
  }
});

test("those who wait get it one after another, first come first", async () => {
  const resource = fresh("queue");
  const first = await acquire(resource);
  const order: number[] = [];
  const waiters = [0, 1, 2].map(async (index) => {
    const granted = await acquire(resource, { owner: `${index}`, waitSeconds: 20 });
    expect(granted.status, granted.text).toBe(200);
    order.push(index);
    expect((await release(resource, granted.body.lockId)).status).toBe(204);
    return token(granted);
  });
  expect((await release(resource, first.body.lockId)).status).toBe(204);
  const tokens = [token(first), ...(await Promise.all(waiters))];
  expect([...order].sort()).toEqual([0, 1, 2]);
  expect(new Set(tokens).size).toBe(4);
  const inOrder = order.map((index) => tokens[index + 1]!);
  expect(inOrder.every((next, index) => next > (index === 0 ? tokens[0]! : inOrder[index - 1]!))).toBe(true);
});

test("who waits in vain is told who holds it", async () => {
  const resource = fresh("vain");
  await acquire(resource, { owner: "stubborn" });
  const refused = await acquire(resource, { waitSeconds: 1 });
  expect([problem(refused), refused.body.owner]).toEqual(["409 lock-held", "stubborn"]);
});

test("a lock that ended is another's, and its old holder can neither renew nor release it", async () => {
  const resource = fresh("ended");
  const now = Date.now();
  setClock(now);
  const old = await acquire(resource, { ttlSeconds: 1 });
  setClock(now + 1500);
  expect((await call(`GET /v1/locks/${resource}`)).body.held).toBe(false);
  const next = await acquire(resource);
  expect(next.status).toBe(200);
  expect(token(next)).toBeGreaterThan(token(old));
  expect(problem(await renew(resource, old.body.lockId))).toBe("409 lock-not-held");
  expect(problem(await release(resource, old.body.lockId))).toBe("409 lock-not-held");
  expect((await call(`GET /v1/locks/${resource}`)).body.held).toBe(true);
});

test("acquiring again with the same key is the same grant", async () => {
  const resource = fresh("again");
  const headers = { "idempotency-key": fresh("key") };
  const [one, two] = [await acquire(resource, {}, { headers }), await acquire(resource, {}, { headers })];
  expect(two.body).toMatchObject({ fencingToken: one.body.fencingToken, expiresAt: one.body.expiresAt });
  expect(problem(await acquire(resource, {}, { headers: { "idempotency-key": fresh("key") } }))).toBe("409 lock-held");
  expect((await release(resource, two.body.lockId)).status).toBe(204);
  expect((await call(`GET /v1/locks/${resource}`)).body.held).toBe(false);
});

describe("an object that fails", () => {
  const faults = (fault: string) => ({ headers: { "x-test-faults": `LOCK.ask=${fault}` } });

  test("is a 503", async () => {
    const resource = fresh("down");
    for (const fault of ["down", "throttled"]) expect(problem(await acquire(resource, {}, faults(fault)))).toBe("503 unavailable");
    expect(problem(await call(`GET /v1/locks/${resource}`, faults("down")))).toBe("503 unavailable");
  });

  test("a grant whose answer was lost is asked for again and is the caller's", async () => {
    const resource = fresh("lost");
    const granted = await acquire(resource, {}, faults("after"));
    expect(granted.status, granted.text).toBe(200);
    expect((await release(resource, granted.body.lockId)).status).toBe(204);
  });
});

test("kv-demo works, costs KV operations and no object, and every reply warns", async () => {
  const resource = fresh("demo");
  const inspect = () => call(`GET /v1/locks/${resource}?mode=kv-demo`);
  const granted = await acquire(resource, { mode: "kv-demo", owner: "one" });
  expect(granted.body).toMatchObject({ lockId: expect.stringMatching(/^kv-demo\./), warning: expect.stringContaining("Workers KV cannot lock") });
  const { lockId, fencingToken, expiresAt } = granted.body;
  const refused = await acquire(resource, { mode: "kv-demo" });
  expect([problem(refused), refused.body.owner]).toEqual(["409 lock-held", "one"]);
  const looked = await inspect();
  expect(looked.body).toEqual({ held: true, owner: "one", expiresAt, fencingToken });
  const renewed = await renew(resource, lockId, 600);
  expect(renewed.body).toMatchObject({ lockId, fencingToken, expiresAt: expect.any(Number) });
  expect(renewed.body.expiresAt).toBeGreaterThan(expiresAt);
  const foreign = [await release(resource, "kv-demo.other"), await renew(resource, "kv-demo.other")];
  expect(foreign.map(problem)).toEqual(["409 lock-not-held", "409 lock-not-held"]);
  const released = await release(resource, lockId);
  const again = await release(resource, lockId);
  expect([released.status, again.status]).toEqual([204, 204]);
  const free = await inspect();
  expect(free.body).toEqual({ held: false, owner: null, expiresAt: null, fencingToken: null });
  const waiting = await acquire(resource, { mode: "kv-demo", waitSeconds: 1 });
  const down = await acquire(resource, { mode: "kv-demo" }, { headers: { "x-test-faults": "COUNTERS.get=down" } });
  expect([waiting, down].map(problem)).toEqual(["400 invalid-request waitSeconds", "503 unavailable"]);

  const costs = [granted, looked, renewed, released, again].map(cost);
  expect(costs).toEqual(["r=2 w=1 d=0 l=0", "r=1 w=0 d=0 l=0", "r=1 w=1 d=0 l=0", "r=1 w=0 d=1 l=0", "r=1 w=0 d=0 l=0"]);
  const all = [granted, refused, looked, renewed, ...foreign, released, again, free, waiting, down];
  for (const answer of all) {
    expect(answer.headers.get("kv-demo-warning"), answer.text).toContain("Workers KV cannot lock");
    expect(objectCalls(answer)).toBe(0);
  }
  for (const { body } of [granted, refused, renewed, ...foreign]) expect(body.warning).toContain("Workers KV cannot lock");
  expect((await call(`GET /v1/locks/${resource}`)).body.held).toBe(false);
});

test("a lock id of another resource or tenant is worth nothing", async () => {
  const [one, two] = [fresh("one"), fresh("two")];
  const [{ body }] = [await acquire(one), await acquire(two)];
  expect(problem(await release(two, body.lockId))).toBe("409 lock-not-held");
  expect((await call(`GET /v1/locks/${one}`, { token: "other-token" })).body).toEqual({ held: false, owner: null, expiresAt: null, fencingToken: null });
  expect((await acquire(one, {}, { token: "other-token" })).status).toBe(200);
});

test("hostile input is refused and names the field", async () => {
  const bad = async (body: object) => problem(await acquire("hostile", body));
  for (const ttlSeconds of [0, -1, 3601, 31_536_000, 1.5, "60", null]) expect(await bad({ ttlSeconds }), `${ttlSeconds}`).toBe("400 invalid-request ttlSeconds");
  for (const waitSeconds of [-1, 26, 0.5]) expect(await bad({ waitSeconds })).toBe("400 invalid-request waitSeconds");
  for (const owner of ["x".repeat(10_240), "a\nb", 7]) expect(await bad({ owner })).toBe("400 invalid-request owner");
  expect(await bad({ mode: "kv" })).toBe("400 invalid-request mode");
  expect(problem(await call("GET /v1/locks/hostile?mode=kv"))).toBe("400 invalid-request mode");
  expect(await bad({ mode: "kv-demo", waitSeconds: 1 })).toBe("400 invalid-request waitSeconds");
  expect(await bad({ ttl: 1 })).toBe("400 invalid-request ttl");
  expect(problem(await acquire("x".repeat(10_240)))).toBe("400 invalid-request resource");
  for (const lockId of ["", "x".repeat(129), 5, null]) {
    expect(problem(await call("POST /v1/locks/hostile/release", { body: { lockId } }))).toBe("400 invalid-request lockId");
  }
  expect((await call("GET /v1/locks/hostile")).body.held).toBe(false);
});

test("an idempotency key is one owner's", async () => {
  const path = `POST /v1/locks/${fresh("lock")}/acquire`;
  const headers = { "idempotency-key": "1" };
  expect((await call(path, { body: { ttlSeconds: 60, owner: "a" }, headers })).status).toBe(200);
  expect(problem(await call(path, { body: { ttlSeconds: 60, owner: "b" }, headers }))).toBe("422 idempotency-key-reused Idempotency-Key");
});

// Counters over HTTP on the built Worker: contract, cost, exactness under concurrency, faults, hostile input.
import { env } from "cloudflare:workers";
import { createExecutionContext, createScheduledController, waitOnExecutionContext } from "cloudflare:test";
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, objectCalls, problem, type Call } from "./client.ts";
import worker from "./entry.ts";

const MAX = Number.MAX_SAFE_INTEGER;
const add = (name: string, body: object = {}, options: Call = {}) => call(`POST /v1/counters/${name}`, { ...options, body });
const exact = (name: string, delta = 1, options: Call = {}) => add(name, { delta, mode: "exact" }, options);
const value = async (name: string, mode: string, options?: Call) => (await call(`GET /v1/counters/${name}?mode=${mode}`, options)).body.value;
const shards = async (name: string) => (await env.COUNTERS.list()).keys.filter((key) => key.name.includes(name));

afterEach(() => void vi.useRealTimers());

describe("approximate", () => {
  test("an increment costs no KV operation, and is in the value here at once", async () => {
    const name = fresh("approximate");
    const accepted = await add(name);
    expect([accepted.status, accepted.body, cost(accepted)]).toEqual([202, { accepted: true }, "r=0 w=0 d=0 l=0"]);
    expect(objectCalls(accepted)).toBe(0);
    expect(accepted.headers.get("consistency")).toBe("eventual");
    for (const delta of [5, -2, 0]) await add(name, { delta });
    const read = await call(`GET /v1/counters/${name}`);
    expect(read.body).toEqual({ value: 4, mode: "approximate", asOf: expect.any(Number), maxLagSeconds: 62 });
    expect([cost(read), objectCalls(read), read.headers.get("consistency")]).toEqual(["r=0 w=0 d=0 l=1", 0, "eventual"]);
  });

  test("a body is not needed", async () => {
    const name = fresh("bare");
    expect((await call(`POST /v1/counters/${name}`)).status).toBe(202);
    expect(await value(name, "approximate")).toBe(1);
  });

  test("many increments at once become one shard that holds them all", async () => {
    const name = fresh("burst");
    await Promise.all(Array.from({ length: 50 }, () => add(name, { delta: 2 })));
    await vi.waitFor(async () => {
      const keys = await shards(name);
      expect(keys.length).toBe(1);
      expect(keys[0]!.metadata).toMatchObject({ value: 100 });
    }, 8000);
  });

  test("a reset is zero at once here, and counts on", async () => {
    const name = fresh("reset");
    await add(name, { delta: 7 });
    const reset = await call(`DELETE /v1/counters/${name}`);
    expect([reset.status, cost(reset)]).toEqual([204, "r=0 w=1 d=0 l=0"]);
    expect(await value(name, "approximate")).toBe(0);
    await add(name, { delta: 3 });
    expect(await value(name, "approximate")).toBe(3);
  });

  test("the cron trigger folds a finished hour into one record and later deletes its shards", async () => {
    const name = fresh("folded");
    await add(name, { delta: 9 });
    await vi.waitFor(async () => expect((await shards(name)).length).toBe(1), 8000);
    const run = async (hours: number, bindings = env) => {
      vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + hours * 3_600_000 });
      const context = createExecutionContext();
      await worker.scheduled(createScheduledController(), bindings, context);
      await waitOnExecutionContext(context);
    };
    const kinds = async () => (await shards(name)).map((key) => key.name.split("/").at(-1));
    const { COUNTERS } = env;
    const down = async () => Promise.reject(new Error("KV GET failed: 503 Service Unavailable"));
    const namespace = (broken: object) => {
      const whole = Object.fromEntries((["get", "put", "delete", "list"] as const).map((call) => [call, (COUNTERS[call] as () => unknown).bind(COUNTERS)]));
      return { ...env, COUNTERS: { ...whole, ...broken } as unknown as KVNamespace };
    };
    // It dies before the record is written, then twice at once, then before what was folded is deleted: nothing counts twice.
    await run(3, namespace({ put: down }));
    expect([await value(name, "approximate"), (await kinds()).length]).toEqual([9, 1]);
    await Promise.all([run(0), run(0)]);
    expect(await kinds()).toContain("fold");
    expect(await value(name, "approximate")).toBe(9);
    await run(1, namespace({ delete: down }));
    expect([await value(name, "approximate"), (await kinds()).length]).toEqual([9, 2]);
    await run(1);
    expect(await kinds()).toEqual(["fold"]);
    expect(await value(name, "approximate")).toBe(9);
  });
});

describe("exact", () => {
  test("50 increments at once are 50, each with a value of its own, at no KV operation", async () => {
    const name = fresh("exact");
    const answers = await Promise.all(Array.from({ length: 50 }, () => exact(name)));
    const values = answers.map(({ body }) => body.value as number).sort((a, b) => a - b);
    expect(values).toEqual(Array.from({ length: 50 }, (_, index) => index + 1));
    expect(new Set(answers.map(cost))).toEqual(new Set(["r=0 w=0 d=0 l=0"]));
    expect(new Set(answers.map(objectCalls))).toEqual(new Set([1]));
    const read = await call(`GET /v1/counters/${name}?mode=exact`);
    expect(read.body).toEqual({ value: 50, mode: "exact", asOf: expect.any(Number), maxLagSeconds: 0 });
    expect([cost(read), read.headers.get("consistency")]).toEqual(["r=0 w=0 d=0 l=0", "strong"]);
  });

  test("what is not said is one, and a reading says when it was made", async () => {
    const name = fresh("unsaid");
    const now = Date.now() + 1000;
    vi.useFakeTimers({ toFake: ["Date"], now });
    expect((await add(name, { mode: "exact" })).body).toEqual({ value: 1 });
    await add(name);
    for (const mode of ["exact", "approximate"]) expect((await call(`GET /v1/counters/${name}?mode=${mode}`)).body).toMatchObject({ value: 1, asOf: now });
  });

  test("an idempotency key counts once, and is refused for another delta", async () => {
    const name = fresh("keyed");
    const options = { headers: { "idempotency-key": fresh("key") } };
    const answers = await Promise.all(Array.from({ length: 10 }, () => exact(name, 5, options)));
    expect(new Set(answers.map(({ body }) => body.value))).toEqual(new Set([5]));
    expect(problem(await exact(name, 6, options))).toBe("422 idempotency-key-reused Idempotency-Key");
    await call(`DELETE /v1/counters/${name}?mode=exact`);
    expect((await exact(name, 5, options)).body.value).toBe(5);
    expect(await value(name, "exact")).toBe(0);
  });

  test("a sum beyond 2^53 - 1 is refused and changes nothing", async () => {
    const name = fresh("large");
    expect((await exact(name, MAX)).body.value).toBe(MAX);
    expect(problem(await exact(name, 1))).toBe("409 counter-overflow delta");
    expect(await value(name, "exact")).toBe(MAX);
    expect((await exact(name, -MAX)).body.value).toBe(0);
    expect((await exact(name, -MAX)).body.value).toBe(-MAX);
    expect(problem(await exact(name, -1))).toBe("409 counter-overflow delta");
  });

  test("a snapshot is in KV soon, for a read without the object and for the list", async () => {
    const name = fresh("snapshot");
    await exact(name, 8);
    await vi.waitFor(async () => {
      const read = await call(`GET /v1/counters/${name}?mode=exact&snapshot=1`);
      expect([read.body.value, cost(read), objectCalls(read), read.headers.get("consistency")]).toEqual([8, "r=1 w=0 d=0 l=0", 0, "eventual"]);
    }, 8000);
    const { body } = await call(`GET /v1/counters?prefix=${name}&mode=exact&limit=1000`);
    expect(body.items).toEqual([{ name, value: 8, mode: "exact" }]);
  });

  test("what exists is listed, also at zero; what was reset is not", async () => {
    const name = fresh("zero");
    const listed = async () => (await call(`GET /v1/counters?prefix=${name}&mode=exact&limit=1000`)).body.items;
    await exact(name, 5);
    await exact(name, -5);
    await vi.waitFor(async () => expect(await listed()).toEqual([{ name, value: 0, mode: "exact" }]), 8000);
    await call(`DELETE /v1/counters/${name}?mode=exact`);
    await vi.waitFor(async () => expect(await listed()).toEqual([]), 8000);
  });

  test("an object that fails is a 503, and one failure with a key is made good", async () => {
    const name = fresh("failing");
    const faults = (fault: string, key?: string) => ({ headers: { "x-test-faults": `COUNTER.ask=${fault}`, ...(key && { "idempotency-key": key }) } });
    for (const fault of ["down", "throttled"]) expect(problem(await exact(name, 1, faults(fault)))).toBe("503 unavailable");
    expect(await value(name, "exact")).toBe(0);
    // It took effect and the answer was lost: asked again with the key, it still counts once.
    const lost = await exact(name, 1, faults("after", fresh("key")));
    expect([lost.status, lost.body]).toEqual([200, { value: 1 }]);
    // Without a key it is not asked again: whether it counted is left open.
    expect(problem(await exact(name, 1, faults("after")))).toBe("503 unavailable");
    expect(await value(name, "exact")).toBe(2);
    expect(await value(name, "exact", faults("twice"))).toBe(2);
  });
});

test("lists are paged, and a cursor is void with another prefix or mode", async () => {
  const prefix = fresh("page");
  for (const part of ["a", "b", "c"]) {
    await add(`${prefix}-${part}`);
  }
  await vi.waitFor(async () => expect((await shards(prefix)).length).toBe(3), 8000);
  const items: object[] = [];
  let cursor: string | null = null;
  let last = "";
  do {
    const page = await call(`GET /v1/counters?prefix=${prefix}&limit=1${cursor === null ? "" : `&cursor=${encodeURIComponent(cursor)}`}`);
    expect(page.status, page.text).toBe(200);
    items.push(...page.body.items);
    cursor = page.body.cursor;
    last = cursor ?? last;
  } while (cursor !== null);
  expect(items).toEqual(["a", "b", "c"].map((part) => ({ name: `${prefix}-${part}`, value: 1, mode: "approximate" })));
  for (const query of ["prefix=x", `prefix=${prefix}&mode=exact`]) {
    expect(problem(await call(`GET /v1/counters?${query}&cursor=${encodeURIComponent(last)}`))).toBe("400 invalid-request cursor");
  }
});

test("tenants do not see each other's counters", async () => {
  const name = fresh("tenant");
  await exact(name, 5);
  await add(name, { delta: 5 });
  for (const mode of ["exact", "approximate"]) expect(await value(name, mode, { token: "other-token" })).toBe(0);
});

test("hostile input is refused and names the field", async () => {
  const bad = async (body: unknown) => problem(await call("POST /v1/counters/hostile", { body }));
  for (const delta of [MAX + 1, -MAX - 1, 1e300, 1.5, "1", true, [], {}]) expect(await bad({ delta }), `${delta}`).toBe("400 invalid-request delta");
  expect(await bad({ mode: "fast" })).toBe("400 invalid-request mode");
  expect(await bad({ deltas: 1 })).toBe("400 invalid-request deltas");
  expect(await bad([1])).toBe("400 invalid-request");
  expect(problem(await call(`POST /v1/counters/${"x".repeat(10_240)}`))).toBe("400 invalid-request name");
  expect(problem(await exact("hostile", 1, { headers: { "idempotency-key": "x".repeat(257) } }))).toBe("400 invalid-request Idempotency-Key");
  expect(problem(await call("POST /v1/counters/hostile", { headers: { "idempotency-key": "" } }))).toBe("400 invalid-request Idempotency-Key");
  expect(problem(await call("POST /v1/counters/hostile?mode=exact", { body: { delta: 5 } }))).toBe("400 invalid-request mode");
  expect(problem(await call("GET /v1/counters/hostile?mode=fast"))).toBe("400 invalid-request mode");
  expect(problem(await call(`GET /v1/counters?prefix=${"x".repeat(257)}`))).toBe("400 invalid-request prefix");
  expect(await value("hostile", "exact")).toBe(0);
});

test("when KV fails, increments are taken, readings are 503", async () => {
  const name = fresh("outage");
  const headers = { "x-test-faults": "COUNTERS.list=down,COUNTERS.put=down" };
  expect((await add(name, {}, { headers })).status).toBe(202);
  expect(problem(await call(`GET /v1/counters/${name}`, { headers }))).toBe("503 unavailable");
  expect(problem(await call(`DELETE /v1/counters/${name}`, { headers }))).toBe("503 unavailable");
});

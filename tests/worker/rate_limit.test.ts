// Rate limits over HTTP on the built Worker: contract, cost, exactness under concurrency, faults, hostile input.
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, objectCalls, problem, type Call } from "./client.ts";

const NOTHING = "r=0 w=0 d=0 l=0";
const OBJECT_DOWN = { "x-test-faults": "LIMITER.ask=down" };

async function policy(fields: object = {}): Promise<string> {
  const name = fresh("policy");
  const answer = await call(`PUT /v1/rate-limits/${name}`, { body: { limit: 3, windowSeconds: 3600, algorithm: "fixed-window", ...fields } });
  expect(answer.status, answer.text).toBe(200);
  return name;
}

const check = (name: string, body: object = {}, options: Call = {}) =>
  call(`POST /v1/rate-limits/${name}/check`, { ...options, body: { identifier: "alice", ...body } });

/** The Worker's clock. Objects go by it too. */
const setClock = (millis: number) => vi.useFakeTimers({ toFake: ["Date"], now: millis });
afterEach(() => void vi.useRealTimers());

describe("policies", () => {
  test("are stored with the documented defaults, read, listed and removed", async () => {
    const name = fresh("policy");
    const put = await call(`PUT /v1/rate-limits/${name}`, { body: { limit: 5, windowSeconds: 1 } });
    const stored = { name, limit: 5, windowSeconds: 1, algorithm: "token-bucket", mode: "exact", onFailure: "allow", updatedAt: expect.any(Number) };
    expect([put.status, put.body, cost(put)]).toEqual([200, stored, "r=0 w=1 d=0 l=0"]);
    const get = await call(`GET /v1/rate-limits/${name}`);
    expect([get.body, get.headers.get("etag"), get.headers.get("consistency")]).toEqual([put.body, put.headers.get("etag"), "eventual"]);
    const { body } = await call("GET /v1/rate-limits?limit=1000");
    expect(body.items).toContainEqual(put.body);
    expect((await call(`DELETE /v1/rate-limits/${name}`)).status).toBe(204);
    expect(problem(await call(`GET /v1/rate-limits/${name}`))).toBe("404 not-found");
    expect(problem(await check(name))).toBe("404 not-found");
  });

  test("are changed under conditions", async () => {
    const name = await policy();
    const etag = (await call(`GET /v1/rate-limits/${name}`)).headers.get("etag")!;
    expect((await call(`GET /v1/rate-limits/${name}`, { headers: { "if-none-match": etag } })).status).toBe(304);
    const body = { limit: 9, windowSeconds: 60 };
    expect(problem(await call(`PUT /v1/rate-limits/${name}`, { body, headers: { "if-match": '"other"' } }))).toBe("412 precondition-failed");
    expect((await call(`PUT /v1/rate-limits/${name}`, { body, headers: { "if-match": etag } })).status).toBe(200);
    expect(problem(await call(`PUT /v1/rate-limits/${name}`, { body, headers: { "if-none-match": "*" } }))).toBe("412 precondition-failed");
  });

  test("are refused with the field's name", async () => {
    const bad = async (fields: object) => problem(await call("PUT /v1/rate-limits/bad", { body: { limit: 1, windowSeconds: 60, ...fields } }));
    for (const limit of [0, -1, 1.5, 1e9 + 1, "3", null]) expect(await bad({ limit }), `${limit}`).toBe("400 invalid-request limit");
    for (const windowSeconds of [0, -60, 2_592_001, 31_536_000, "60", null]) expect(await bad({ windowSeconds }), `${windowSeconds}`).toBe("400 invalid-request windowSeconds");
    const short = await call("PUT /v1/rate-limits/bad", { body: { limit: 1, windowSeconds: 299, mode: "approximate" } });
    expect([problem(short), short.body.detail]).toEqual(["400 invalid-request windowSeconds", expect.stringContaining("a shorter window would end before it is counted; use mode exact")]);
    expect(await bad({ algorithm: "leaky" })).toBe("400 invalid-request algorithm");
    expect(await bad({ mode: "best" })).toBe("400 invalid-request mode");
    expect(await bad({ onFailure: "maybe" })).toBe("400 invalid-request onFailure");
    expect(await bad({ burst: 1 })).toBe("400 invalid-request burst");
    expect(problem(await call("GET /v1/rate-limits/bad"))).toBe("404 not-found");
  });
});

describe.each(["fixed-window", "sliding-window", "token-bucket"])("exact, %s", (algorithm) => {
  test("50 checks at once are admitted exactly as often as the limit says", async () => {
    const name = await policy({ algorithm, limit: 20 });
    const answers = await Promise.all(Array.from({ length: 50 }, () => check(name)));
    const allowed = answers.filter(({ status }) => status === 200);
    expect(allowed.length).toBe(20);
    expect(allowed.map(({ body }) => body.remaining).sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, index) => index));
    expect(answers.filter(({ status }) => status === 429).length).toBe(30);
  });

  test.each([1, 2_592_000])("a window of %i seconds ends", async (windowSeconds) => {
    const now = 1_900_000_000_000;
    setClock(now);
    const name = await policy({ algorithm, limit: 2, windowSeconds });
    for (const status of [200, 200, 429]) expect((await check(name)).status).toBe(status);
    setClock(now + 2100 * windowSeconds);
    for (const status of [200, 200, 429]) expect((await check(name)).status).toBe(status);
  });
});

test("a check says what is left, in the body and in the draft's headers", async () => {
  const name = await policy();
  const first = await check(name, { cost: 2 });
  expect(first.body).toEqual({ allowed: true, limit: 3, remaining: 1, resetSeconds: expect.any(Number), mode: "exact" });
  expect(first.headers.get("ratelimit-policy")).toBe(`"${name}";q=3;w=3600`);
  expect(first.headers.get("ratelimit")).toMatch(new RegExp(`^"${name}";r=1;t=\\d+$`));
  expect([cost(first), objectCalls(first), first.headers.get("consistency")]).toEqual([NOTHING, 1, "strong"]);

  const peek = await check(name, { peek: true });
  expect(peek.body).toMatchObject({ allowed: true, remaining: 1 });
  const over = await check(name, { cost: 2 });
  expect(problem(over)).toBe("429 quota-exceeded");
  expect(over.body).toMatchObject({ allowed: false, limit: 3, remaining: 1, mode: "exact", "violated-policies": [name] });
  expect(over.headers.get("ratelimit-policy")).toBe(first.headers.get("ratelimit-policy"));
  for (const { headers, body } of [first, over]) expect(headers.get("ratelimit")).toMatch(new RegExp(`;t=${body.resetSeconds}$`));
  // Two come back when the window does.
  expect(over.headers.get("retry-after")).toBe(`${over.body.resetSeconds}`);
  expect(over.body.resetSeconds).toBeGreaterThan(0);
  expect(over.headers.get("ratelimit")).toMatch(/;r=1;t=\d+$/);
  expect((await check(name, { identifier: "bob", cost: 3 })).body.remaining).toBe(0);
  expect((await check(name)).body.remaining).toBe(0);
});

test("a client over its limit is denied without an object, until the policy is changed", async () => {
  const name = await policy({ onFailure: "allow" });
  for (let count = 0; count < 4; count++) await check(name);
  // The object is down, and the policy would allow then: only memory can deny.
  const denied = await check(name, {}, { headers: OBJECT_DOWN });
  expect([problem(denied), cost(denied), denied.body.degraded]).toEqual(["429 quota-exceeded", NOTHING, undefined]);
  expect(objectCalls(denied)).toBe(0);
  await call(`PUT /v1/rate-limits/${name}`, { body: { limit: 100, windowSeconds: 3600, algorithm: "fixed-window" } });
  expect((await check(name)).body).toMatchObject({ allowed: true, limit: 100, remaining: 96 });
});

test("an object that fails leaves the answer to the policy", async () => {
  const headers = OBJECT_DOWN;
  const allowed = await check(await policy({ onFailure: "allow" }), {}, { headers });
  expect(allowed.body).toEqual({ allowed: true, limit: 3, remaining: 0, resetSeconds: 5, mode: "exact", degraded: true });
  expect(allowed.headers.get("consistency")).toBe("eventual");
  const name = await policy({ onFailure: "deny" });
  const denied = await check(name, {}, { headers });
  expect([problem(denied), denied.headers.get("retry-after"), denied.body.degraded]).toEqual(["429 quota-exceeded", "5", true]);
  // That denial was of the moment: nothing remembers it.
  expect((await check(name)).body).toMatchObject({ allowed: true, remaining: 2 });
});

test("an answer that was lost is not asked for again, so nothing is taken twice", async () => {
  const name = await policy({ onFailure: "deny" });
  expect((await check(name, {}, { headers: { "x-test-faults": "LIMITER.ask=after" } })).status).toBe(429);
  expect((await check(name, { peek: true })).body.remaining).toBe(2);
});

test("approximate checks cost the request nothing and count within this isolate", async () => {
  const name = await policy({ mode: "approximate", windowSeconds: 300 });
  const answers = [await check(name), await check(name), await check(name), await check(name)];
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 429]);
  expect(new Set(answers.map(cost))).toEqual(new Set([NOTHING]));
  expect(answers.map(objectCalls)).toEqual([0, 0, 0, 0]);
  expect(answers[3]!.body).toMatchObject({ allowed: false, mode: "approximate" });
  expect(answers[0]!.headers.get("consistency")).toBe("eventual");
});

test("addresses of one /64 count together, and an IPv4 address in its IPv6 form counts as itself", async () => {
  const name = await policy();
  await check(name, { identifier: "2001:db8:1:2::1" });
  expect((await check(name, { identifier: "2001:0db8:0001:0002:ffff::9" })).body.remaining).toBe(1);
  expect((await check(name, { identifier: "2001:db8:1:3::1" })).body.remaining).toBe(2);
  await check(name, { identifier: "192.0.2.1" });
  expect((await check(name, { identifier: "::ffff:192.0.2.1" })).body.remaining).toBe(1);
});

describe("several identifiers in one check", () => {
  const both = (name: string, identifiers: string[], more: object = {}, options: Call = {}) =>
    call(`POST /v1/rate-limits/${name}/check`, { ...options, body: { identifiers, ...more } });
  const left = async (name: string, identifier: string) => (await check(name, { identifier, peek: true })).body.remaining;

  test("are all taken from, and the one with least left is named", async () => {
    const name = await policy();
    await check(name, { identifier: "ip" });
    const answer = await both(name, ["user", "ip"]);
    expect(answer.body).toEqual({ allowed: true, limit: 3, remaining: 1, resetSeconds: expect.any(Number), mode: "exact", identifier: "ip" });
    expect([objectCalls(answer), answer.headers.get("ratelimit")]).toEqual([2, expect.stringMatching(/;r=1;t=\d+$/)]);
    expect([await left(name, "user"), await left(name, "ip")]).toEqual([2, 1]);
  });

  test.each(["token-bucket", "fixed-window", "sliding-window"])("one that refuses leaves the others as they were, %s", async (algorithm) => {
    const name = await policy({ algorithm });
    await check(name, { identifier: "m", cost: 3 });
    const denied = await both(name, ["a", "m", "z"], { cost: 2 });
    expect([problem(denied), denied.body.identifier, objectCalls(denied)]).toEqual(["429 quota-exceeded", "m", 3]);
    // The isolate remembers the denial: no object is asked, whatever else is named.
    const again = await both(name, ["b", "m"], { cost: 2 });
    expect([problem(again), again.body.identifier, objectCalls(again)]).toEqual(["429 quota-exceeded", "m", 0]);
    for (const identifier of ["a", "b", "z"]) expect(await left(name, identifier), identifier).toBe(3);
  });

  test("fifty at once with the same two are admitted exactly ten times", async () => {
    const name = await policy({ limit: 10, windowSeconds: 3600 });
    const answers = await Promise.all(Array.from({ length: 50 }, (_, index) => both(name, index % 2 ? ["x", "y"] : ["y", "x"])));
    expect(answers.filter(({ status }) => status === 200).length).toBe(10);
    expect([await left(name, "x"), await left(name, "y")]).toEqual([0, 0]);
  });

  test("look at all without taking, and count once what is there twice", async () => {
    const name = await policy();
    const peek = await both(name, ["u", "v"], { peek: true });
    expect([peek.body.remaining, objectCalls(peek)]).toEqual([3, 2]);
    const twice = await both(name, ["2001:db8::1", "2001:db8:0::2", "2001:0db8::1"]);
    expect([twice.body.remaining, objectCalls(twice)]).toEqual([2, 1]);
  });

  test("work in approximate mode, where nothing is asked of anybody", async () => {
    const name = await policy({ mode: "approximate", windowSeconds: 300 });
    await check(name, { identifier: "full", cost: 3 });
    const denied = await both(name, ["free", "full"]);
    expect([problem(denied), denied.body.identifier, cost(denied), objectCalls(denied)]).toEqual(["429 quota-exceeded", "full", NOTHING, 0]);
    expect((await both(name, ["free", "other"])).body.remaining).toBe(2);
  });

  test("a count that cannot be had is the policy's affair, and what is refused for it goes back", async () => {
    const name = await policy({ onFailure: "deny" });
    const denied = await both(name, ["u", "v"], {}, { headers: OBJECT_DOWN });
    expect([problem(denied), denied.body.degraded]).toEqual(["429 quota-exceeded", true]);
    expect([await left(name, "u"), await left(name, "v")]).toEqual([3, 3]);
  });

  test("hostile lists are refused and name the field", async () => {
    const name = await policy();
    const bad = async (body: object) => problem(await call(`POST /v1/rate-limits/${name}/check`, { body }));
    expect(await bad({})).toBe("400 invalid-request identifier");
    expect(await bad({ identifiers: [] })).toBe("400 invalid-request identifiers");
    expect(await bad({ identifiers: Array(11).fill("x") })).toBe("400 invalid-request identifiers");
    expect(await bad({ identifiers: "x" })).toBe("400 invalid-request identifiers");
    expect(await bad({ identifiers: ["x"], identifier: "x" })).toBe("400 invalid-request identifiers");
    for (const identifier of ["", "x".repeat(257), "a\u0000b", 7, null]) expect(await bad({ identifiers: ["ok", identifier] })).toBe("400 invalid-request identifiers[1]");
    expect(await left(name, "ok")).toBe(3);
    // As for every optional field.
    for (const body of [{ identifier: "u", identifiers: null }, { identifier: null, identifiers: ["u"] }]) {
      expect((await call(`POST /v1/rate-limits/${name}/check`, { body })).status).toBe(200);
    }
  });
});

test("tenants do not share policies or counts", async () => {
  const name = await policy();
  expect(problem(await check(name, {}, { token: "other-token" }))).toBe("404 not-found");
});

test("hostile checks are refused and name the field", async () => {
  const name = await policy();
  const bad = async (fields: object) => problem(await check(name, fields));
  for (const identifier of ["", "x".repeat(10_240), "a\u0000b", 7, null]) expect(await bad({ identifier })).toBe("400 invalid-request identifier");
  for (const cost of [0, -1, 1.5, 4, 1e12, "1"]) expect(await bad({ cost }), `${cost}`).toBe("400 invalid-request cost");
  expect(await bad({ peek: 1 })).toBe("400 invalid-request peek");
  expect(await bad({ more: 1 })).toBe("400 invalid-request more");
  expect((await check(name)).body.remaining).toBe(2);
});

test("a policy that was read lately outlives KV, one never read does not", async () => {
  const headers = { "x-test-faults": "CONFIG.get=down" };
  const name = await policy();
  expect((await check(name, {}, { headers })).status).toBe(200);
  setClock(Date.now() + 60_000);
  expect((await check(name, {}, { headers })).status).toBe(200);
  expect(problem(await check(fresh("never"), {}, { headers }))).toBe("503 unavailable");
});

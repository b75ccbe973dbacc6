// The object cache on the real bundle: the contract, hostile input, failing KV.
import { afterEach, describe, expect, it, test, vi } from "vitest";
import { call, cost, fresh, problem } from "./client";

const JSON_TYPE = { "content-type": "application/json" };
const put = (path: string, raw: BodyInit, headers = {}) => call(`PUT /v1/cache/${path}`, { raw, headers: { "content-type": "text/plain", ...headers } });
const get = (path: string, headers = {}) => call(`GET /v1/cache/${path}`, { headers });
const purge = (bucket: string, body: unknown) => call(`POST /v1/cache/${bucket}/purge`, { body });

describe("an object", () => {
  it("comes back byte for byte with its content type, age, tag and cache status", async () => {
    const bucket = fresh("b");
    const stored = await put(`${bucket}/a/b?ttlSeconds=100`, "<p>hi", { "content-type": "text/html; charset=utf-8" });
    expect([stored.status, cost(stored)]).toEqual([204, "r=0 w=1 d=0 l=0"]);
    const found = await get(`${bucket}/a/b`);
    expect([found.status, found.text, found.headers.get("content-type")]).toEqual([200, "<p>hi", "text/html; charset=utf-8"]);
    expect(found.headers.get("age")).toBe("0");
    expect(found.headers.get("etag")).toBe(stored.headers.get("etag"));
    expect(found.headers.get("cache-status")).toMatch(/^kv-patterns; hit; ttl=(99|100); detail=memory$/);
    expect(found.headers.get("consistency")).toBe("eventual");
    expect(cost(await get(`${bucket}/a/b`))).toBe("r=0 w=0 d=0 l=0");
  });

  it("is read from KV by who sends no-cache, one read and one of its marks", async () => {
    const bucket = fresh("b");
    await put(`${bucket}/k`, "v");
    await get(`${bucket}/k`);
    const found = await get(`${bucket}/k`, { "cache-control": "max-age=0, No-Cache" });
    expect([found.text, cost(found)]).toEqual(["v", "r=3 w=0 d=0 l=0"]);
    expect(found.headers.get("cache-status")).toContain("detail=kv");
    expect(cost(await get(`${bucket}/k`, { "cache-control": "max-age=0" }))).toBe("r=0 w=0 d=0 l=0");
  });

  it("is found under every encoding of its key, and under no other key", async () => {
    const bucket = fresh("b");
    await put(`${bucket}/a/%C3%A9%20x`, "v");
    for (const key of ["a/%C3%A9%20x", "a%2F%c3%a9%20x"]) expect((await get(`${bucket}/${key}`)).status).toBe(200);
    for (const key of ["a", "a/", "a//%C3%A9%20x", "A/%C3%A9%20x"]) expect((await get(`${bucket}/${key}`)).status).toBe(404);
  });

  it("may be empty, and has HEAD and conditional reads", async () => {
    const bucket = fresh("b");
    const { headers } = await put(`${bucket}/k`, "");
    const etag = headers.get("etag")!;
    expect([(await get(`${bucket}/k`)).status, (await get(`${bucket}/k`)).text]).toEqual([200, ""]);
    expect((await call(`HEAD /v1/cache/${bucket}/k`)).status).toBe(200);
    expect((await get(`${bucket}/k`, { "if-none-match": `"other", W/${etag}` })).status).toBe(304);
    expect((await get(`${bucket}/k`, { "if-match": '"other"' })).status).toBe(412);
    expect((await put(`${bucket}/k`, "x", { "if-none-match": "*" })).status).toBe(412);
    expect((await put(`${bucket}/k`, "x", { "if-match": etag })).status).toBe(204);
  });

  it("takes one of several writes at once that name the same version", async () => {
    for (let round = 0; round < 5; round += 1) {
      const bucket = fresh("b");
      const news = await Promise.all(Array.from({ length: 8 }, (_, n) => put(`${bucket}/k`, `${n}`, { "if-none-match": "*" })));
      expect(news.map(({ status }) => status).sort()).toEqual([204, ...Array(7).fill(412)]);
      const etag = (await get(`${bucket}/k`)).headers.get("etag")!;
      const edits = await Promise.all(Array.from({ length: 8 }, (_, n) => put(`${bucket}/k`, `edit ${n}`, { "if-match": etag })));
      expect(edits.map(({ status }) => status).sort()).toEqual([204, ...Array(7).fill(412)]);
    }
  });

  it("is gone after a deletion, at once, also a second time", async () => {
    const bucket = fresh("b");
    await put(`${bucket}/k`, "v");
    for (let i = 0; i < 2; i += 1) expect((await call(`DELETE /v1/cache/${bucket}/k`)).status).toBe(204);
    expect(problem(await get(`${bucket}/k`))).toBe("404 not-found");
    await put(`${bucket}/k`, "w");
    expect((await get(`${bucket}/k`)).text).toBe("w");
  });

  it("belongs to its tenant", async () => {
    const bucket = fresh("b");
    await put(`${bucket}/k`, "v");
    expect((await call(`GET /v1/cache/${bucket}/k`, { token: "other-token" })).status).toBe(404);
    expect((await call(`GET /v1/cache/${bucket}/k`, { token: "flags-token" })).status).toBe(403);
    expect((await call(`GET /v1/cache/${bucket}/k`, { token: null })).status).toBe(401);
  });
});

describe("time", () => {
  /** The clock of the Worker; KV's own clock does not follow it. */
  const setClock = (millis: number) => vi.useFakeTimers({ toFake: ["Date"], now: millis });
  afterEach(() => void vi.useRealTimers());
  const seen = async (path: string) => {
    const { status, headers } = await get(path);
    return [status, headers.get("age"), /ttl=[^;]*/.exec(headers.get("cache-status")!)?.[0]];
  };
  const GONE = [404, null, undefined];

  it("an object lives five minutes, or from one second to a year", async () => {
    const [bucket, start] = [fresh("b"), Date.now()];
    setClock(start);
    for (const key of ["unsaid", "short?ttlSeconds=1", "long?ttlSeconds=31536000"]) expect((await put(`${bucket}/${key}`, "v")).status).toBe(204);
    for (const [millis, short, unsaid] of [
      [999, [200, "0", "ttl=0"], [200, "0", "ttl=299"]],
      [1_000, GONE, [200, "1", "ttl=299"]],
      [299_999, GONE, [200, "299", "ttl=0"]],
      [300_000, GONE, GONE],
    ] as const) {
      setClock(start + millis);
      expect([await seen(`${bucket}/short`), await seen(`${bucket}/unsaid`)], `${millis}`).toEqual([short, unsaid]);
    }
    expect((await seen(`${bucket}/long`))[2]).toBe("ttl=31535700");
  });

  it("past its life an object is served for staleSeconds more, and says so", async () => {
    const [bucket, start] = [fresh("b"), Date.now()];
    setClock(start);
    await put(`${bucket}/k?ttlSeconds=10&staleSeconds=20`, "v");
    for (const [seconds, expected] of [[9, [200, "9", "ttl=1"]], [15, [200, "15", "ttl=-5"]], [29, [200, "29", "ttl=-19"]], [30, GONE]] as const) {
      setClock(start + seconds * 1000);
      expect(await seen(`${bucket}/k`), `${seconds}`).toEqual(expected);
    }
  });
});

describe("a purge", () => {
  it("invalidates by tag, prefix and bucket, at once, one write each, and the key a prefix names", async () => {
    for (const [body, costs, left] of [
      [{ tags: ["red"] }, "w=1 d=0", ["a", "ab/1"]],
      [{ tags: ["red", "blue"] }, "w=2 d=0", ["a", "ab/1"]],
      [{ prefix: "a/" }, "w=1 d=0", ["a", "ab/1"]],
      [{ prefix: "a" }, "w=1 d=1", ["ab/1"]],
      [{ prefix: "ab/" }, "w=1 d=0", ["a", "a/1"]],
      [{ prefix: "a/", all: true }, "w=2 d=0", []],
    ] as const) {
      const bucket = fresh("b");
      await put(`${bucket}/a`, "v");
      await put(`${bucket}/a/1?tags=red`, "v");
      await put(`${bucket}/ab/1`, "v");
      const purged = await purge(bucket, body);
      expect([purged.status, purged.body, cost(purged)]).toEqual([202, { purged: "logical" }, `r=0 ${costs} l=0`]);
      const found = [];
      for (const key of ["a", "a/1", "ab/1"]) if ((await get(`${bucket}/${key}`)).status === 200) found.push(key);
      expect(found, JSON.stringify(body)).toEqual(left);
      await put(`${bucket}/a/1?tags=red`, "again");
      expect((await get(`${bucket}/a/1`)).text).toBe("again");
    }
  });

  it("may be soft: what has a window of staleness is served stale, the rest is gone", async () => {
    const bucket = fresh("b");
    await put(`${bucket}/windowed?staleSeconds=60`, "v");
    await put(`${bucket}/strict`, "v");
    const purged = await purge(bucket, { all: true, soft: true });
    expect([purged.status, cost(purged)]).toEqual([202, "r=0 w=1 d=0 l=0"]);
    const stale = await get(`${bucket}/windowed`);
    expect([stale.status, stale.text, stale.headers.get("cache-status")]).toEqual([200, "v", "kv-patterns; hit; ttl=0; detail=memory"]);
    expect((await get(`${bucket}/strict`)).status).toBe(404);
    await put(`${bucket}/strict`, "w");
    expect((await get(`${bucket}/strict`)).text).toBe("w");
  });

  it("says what is wrong with it", async () => {
    expect(problem(await purge("b", { all: true, soft: 1 }))).toBe("400 invalid-request soft");
    expect(problem(await purge("b", {}))).toBe("400 invalid-request all");
    expect(problem(await purge("b", { all: false }))).toBe("400 invalid-request all");
    expect(problem(await purge("b", { all: "yes" }))).toBe("400 invalid-request all");
    expect(problem(await purge("b", { prefix: "" }))).toBe("400 invalid-request prefix");
    expect(problem(await purge("b", { prefix: "a/".repeat(17) }))).toBe("400 invalid-request prefix");
    expect(problem(await purge("b", { tags: "a" }))).toBe("400 invalid-request tags");
    expect(problem(await purge("b", { keys: [] }))).toBe("400 invalid-request keys");
    expect(problem(await call("POST /v1/cache/b/purge", { raw: "{", headers: JSON_TYPE }))).toBe("400 malformed-json");
  });
});

it("hostile input is refused by name", async () => {
  for (const ttl of ["0", "31536001", "-1", "1.5", "", "x"]) {
    expect(problem(await put(`b/k?ttlSeconds=${ttl}`, "v")), ttl).toBe("400 invalid-request ttlSeconds");
  }
  expect(problem(await put("b/k?staleSeconds=-1", "v"))).toBe("400 invalid-request staleSeconds");
  expect(problem(await put("b/k?tags=a,,b", "v"))).toBe("400 invalid-request tags");
  expect(problem(await put(`b/k?tags=${"t".repeat(129)}`, "v"))).toBe("400 invalid-request tags");
  expect(problem(await put(`b/${"k".repeat(257)}`, "v"))).toBe("400 invalid-request key");
  expect(problem(await put("b/%00", "v"))).toBe("400 invalid-request key");
  expect(problem(await put("b/%FF", "v"))).toBe("400 invalid-request key");
  expect(problem(await put("b/k", new Uint8Array(10 * 1024 * 1024 + 1)))).toBe("413 too-large");
  // Without a length, and larger than what is read of a body beyond its limit.
  const nine = new Uint8Array(9 * 1024 * 1024).fill(1);
  const stream = new ReadableStream({ start: (controller) => (controller.enqueue(nine), controller.close()) });
  expect((await put("b/nine", stream)).status).toBe(204);
  expect((await call("PATCH /v1/cache/b/k")).status).toBe(405);
});

it("a failing KV is 503, unless memory has the object", async () => {
  const bucket = fresh("b");
  await put(`${bucket}/k`, "v");
  await get(`${bucket}/k`);
  const down = { "x-test-faults": "CACHE.get=down, CACHE.put=down, CACHE.delete=down" };
  expect((await get(`${bucket}/k`, down)).text).toBe("v");
  const unknown = await get(`${bucket}/unknown`, down);
  expect([problem(unknown), unknown.headers.get("retry-after")]).toEqual(["503 unavailable", "5"]);
  expect(problem(await put(`${bucket}/k`, "w", down))).toBe("503 unavailable");
  expect(problem(await call(`DELETE /v1/cache/${bucket}/k`, { headers: down }))).toBe("503 unavailable");
});

test("a parameter given twice is refused, not half taken", async () => {
  expect(problem(await call(`PUT /v1/cache/${fresh("bucket")}/k?tags=a&tags=b`, { raw: "1" }))).toBe("400 invalid-request tags");
});

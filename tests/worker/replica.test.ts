// Replicated keys over HTTP on the built Worker: one key in three namespaces, of which some fail.
import { env, exports } from "cloudflare:workers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, problem, type Answer, type Call } from "./client.ts";

const QUARTER_HOUR_MILLIS = 900_000;
const REPLICAS = ["US", "EU", "ASIA"] as const;

const put = (key: string, text: string, query = "", options: Call = {}) =>
  call(`PUT /v1/replicated/${key}${query}`, { raw: text, ...options, headers: { "content-type": "text/plain", ...options.headers } });
const get = (key: string, query = "", options: Call = {}) => call(`GET /v1/replicated/${key}${query}`, options);
const remove = (key: string, query = "", options: Call = {}) => call(`DELETE /v1/replicated/${key}${query}`, options);
/** These replicas fail in this operation. */
const down = (operation: string, ...replicas: string[]): Call => ({
  headers: { "x-test-faults": replicas.map((replica) => `REPLICA_${replica}.${operation}=down`).join(",") },
});
const outcomes = ({ body }: Answer): string => body.replicas.map(({ replica, outcome }: Record<string, string>) => `${replica} ${outcome}`).join(", ");
/** Status, text and replica of a read. */
const seen = ({ status, text, headers }: Answer) => (status === 200 ? `${text} from ${headers.get("replica")}` : status);

/** The clock of the Worker; KV's own clock does not follow it. */
const setClock = (millis: number) => vi.useFakeTimers({ toFake: ["Date"], now: millis });
afterEach(() => void vi.useRealTimers());

describe("the contract", () => {
  test("every replica takes a write, the nearest answers by one read", async () => {
    const key = `${fresh("key")}/with/slashes`;
    const written = await put(key, "hello");
    expect([written.status, outcomes(written), cost(written)]).toEqual([200, "us written, eu written, asia written", "r=0 w=3 d=0 l=0"]);
    const read = await get(key);
    expect([seen(read), cost(read)]).toEqual(["hello from us", "r=1 w=0 d=0 l=0"]);
    expect(read.headers.get("content-type")).toBe("text/plain");
    expect(read.headers.get("consistency")).toBe("eventual");
    for (const policy of ["newest", "quorum"]) {
      expect(cost(await get(key, `?read=${policy}`))).toBe("r=3 w=0 d=0 l=0");
    }
  });

  test.each([["EU", "eu"], ["AF", "eu"], ["AS", "asia"], ["OC", "asia"], ["NA", "us"], ["SA", "us"], ["AN", "us"]])(
    "a reader in %s is answered by %s",
    async (continent, replica) => {
      const key = fresh("key");
      await put(key, "near");
      const reply = await exports.default.fetch(`https://kv.example/v1/replicated/${key}`, {
        headers: { authorization: "Bearer dev-token" },
        cf: { continent },
      } as RequestInit);
      expect([await reply.text(), reply.headers.get("replica")]).toEqual(["near", replica]);
    },
  );

  test("bytes are kept as they are, and a missing key is 404", async () => {
    const key = fresh("key");
    expect(problem(await get(key))).toBe("404 not-found");
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    await call(`PUT /v1/replicated/${key}`, { raw: bytes, headers: { "content-type": "application/x-bytes" } });
    const reply = await exports.default.fetch(`https://kv.example/v1/replicated/${key}`, { headers: { authorization: "Bearer dev-token" } });
    expect(new Uint8Array(await reply.arrayBuffer())).toEqual(bytes);
    expect(reply.headers.get("content-type")).toBe("application/x-bytes");
  });

  test("every write has a tag of its own, for 304 and 412", async () => {
    const key = fresh("key");
    await put(key, "a");
    const tag = (await get(key)).headers.get("etag")!;
    const same = await get(key, "", { headers: { "if-none-match": tag } });
    expect([same.status, same.text, same.headers.get("replica"), same.headers.get("consistency")]).toEqual([304, "", "us", "eventual"]);
    await put(key, "b");
    expect(seen(await get(key, "", { headers: { "if-none-match": tag } }))).toBe("b from us");
    expect(problem(await get(key, "", { headers: { "if-match": tag } }))).toBe("412 precondition-failed");
  });

  test("of writes at once that name the same version one is done, deletions too", async () => {
    for (let round = 0; round < 5; round++) {
      const key = fresh("key");
      const news = await Promise.all(Array.from({ length: 8 }, (_, n) => put(key, `${n}`, "", { headers: { "if-none-match": "*" } })));
      expect(news.map(({ status }) => status).sort()).toEqual([200, ...Array(7).fill(412)]);
      const tag = (await get(key, "?read=newest")).headers.get("etag")!;
      const named = { headers: { "if-match": tag } };
      const edits = await Promise.all([remove(key, "", named), ...Array.from({ length: 8 }, (_, n) => put(key, `${n}`, "", named))]);
      expect(edits.filter(({ status }) => status === 412)).toHaveLength(8);
    }
  });

  test("a value ends with its time to live, also below KV's minute", async () => {
    const key = fresh("key");
    const now = Date.now();
    setClock(now);
    await put(key, "short", "?ttlSeconds=5");
    setClock(now + 4_000);
    expect(seen(await get(key))).toBe("short from us");
    setClock(now + 6_000);
    expect(problem(await get(key))).toBe("404 not-found");
  });

  test("another tenant sees nothing", async () => {
    const key = fresh("key");
    await put(key, "mine");
    expect(problem(await get(key, "", { token: "other-token" }))).toBe("404 not-found");
    await remove(key, "", { token: "other-token" });
    expect(seen(await get(key))).toBe("mine from us");
  });

  test("wrong words, numbers and sizes are refused with their name", async () => {
    const key = fresh("key");
    expect(problem(await put(key, "x", "?write=most"))).toBe("400 invalid-request write");
    expect(problem(await get(key, "?read=oldest"))).toBe("400 invalid-request read");
    expect(problem(await put(key, "x", "?ttlSeconds=0"))).toBe("400 invalid-request ttlSeconds");
    expect(problem(await put("x".repeat(257), "x"))).toBe("400 invalid-request key");
    expect(problem(await put(key, "x".repeat(8 * 1024 * 1024 + 1)))).toBe("413 too-large");
    for (const type of [`text/${"x".repeat(252)}`, "text/\u00e9", "text/a\tb"]) {
      expect(problem(await put(key, "x", "", { headers: { "content-type": type } }))).toBe("400 invalid-request Content-Type");
    }
    expect(problem(await get(key))).toBe("404 not-found");
  });
});

describe("when replicas fail", () => {
  test.each([
    ["any", ["EU"], 207], ["quorum", ["EU"], 207], ["all", ["EU"], 503],
    ["any", ["US", "EU"], 207], ["quorum", ["US", "EU"], 503], ["all", ["US", "EU"], 503],
    ["any", [...REPLICAS], 503], ["quorum", [...REPLICAS], 503],
  ] as const)("write=%s without %s is %i", async (policy, failing, status) => {
    const expected = REPLICAS.map((name) => `${name.toLowerCase()} ${(failing as readonly string[]).includes(name) ? "failed" : "written"}`).join(", ");
    for (const answer of [
      await put(fresh("key"), "x", `?write=${policy}`, down("put", ...failing)),
      await remove(fresh("key"), `?write=${policy}`, down("put", ...failing)),
    ]) {
      expect([answer.status, outcomes(answer)]).toEqual([status, expected]);
      if (status === 503) expect(problem(answer)).toBe("503 too-few-replicas");
    }
  });

  test("a read falls back to the next replica, and a majority needs two", async () => {
    const key = fresh("key");
    await put(key, "x");
    expect(seen(await get(key, "", down("get", "US")))).toBe("x from eu");
    expect(seen(await get(key, "", down("get", "US", "EU")))).toBe("x from asia");
    expect(seen(await get(key, "?read=newest", down("get", "US", "EU")))).toBe("x from asia");
    expect(seen(await get(key, "?read=quorum", down("get", "US")))).toBe("x from eu");
    expect(problem(await get(key, "?read=quorum", down("get", "US", "EU")))).toBe("503 unavailable");
    expect(problem(await get(key, "", down("get", ...REPLICAS)))).toBe("503 unavailable");
  });

  test("a replica that hangs is not waited for", async () => {
    const key = fresh("key");
    await put(key, "x");
    expect(seen(await get(key, "", { headers: { "x-test-faults": "REPLICA_US.get=hang" } }))).toBe("x from eu");
  });

  test("the newest value wins, and a replica that missed it is repaired once that is settled", async () => {
    const key = fresh("key");
    await put(key, "old");
    expect((await put(key, "new", "", down("put", "US"))).status).toBe(207);
    expect(seen(await get(key))).toBe("old from us");
    expect(seen(await get(key, "?read=newest"))).toBe("new from eu");
    expect(seen(await get(key))).toBe("old from us");
    setClock(Date.now() + QUARTER_HOUR_MILLIS + 1000);
    expect(seen(await get(key, "?read=newest"))).toBe("new from eu");
    await expect.poll(async () => seen(await get(key))).toBe("new from us");
  });

  test("a deletion that one replica missed reaches it, and nothing comes back", async () => {
    const key = fresh("key");
    await put(key, "gone");
    expect((await remove(key, "", down("put", "US"))).status).toBe(207);
    expect(problem(await get(key, "?read=newest"))).toBe("404 not-found");
    setClock(Date.now() + QUARTER_HOUR_MILLIS + 1000);
    expect(problem(await get(key, "?read=newest"))).toBe("404 not-found");
    await expect.poll(async () => (await get(key)).status).toBe(404);
    // The tombstone itself is there, as in the others: with those down it is still an absence, and no failure.
    const copies = await Promise.all(REPLICAS.map((name) => env[`REPLICA_${name}`].get(`dev/replicated/${key}`)));
    expect(copies[0]).toContain('"deleted":true');
    expect(new Set(copies).size).toBe(1);
    for (const read of ["", "?read=newest"]) expect(problem(await get(key, read, down("get", "EU", "ASIA")))).toBe("404 not-found");
  });

  // Last, because each failure counts for the breaker of its namespace.
  test("a write that does not say how many is one of a quorum", async () => {
    const failing = down("put", "US", "ASIA");
    expect(problem(await put(fresh("key"), "x", "", failing))).toBe("503 too-few-replicas");
    expect(problem(await remove(fresh("key"), "", failing))).toBe("503 too-few-replicas");
  });
});

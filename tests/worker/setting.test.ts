// Settings over HTTP on the built Worker: where a value comes from while KV answers, and while it does not.
import { describe, expect, test } from "vitest";
import { call, cost, fresh, problem, type Call } from "./client.ts";

const put = (name: string, body: unknown, options: Call = {}, query = "") => call(`PUT /v1/settings/${name}${query}`, { ...options, body });
const get = (name: string, options: Call = {}, query = "") => call(`GET /v1/settings/${name}${query}`, options);
const faults = (plan: string): Call => ({ headers: { "x-test-faults": plan } });
const withDefault = (value: unknown) => `?default=${encodeURIComponent(JSON.stringify(value))}`;

async function stored(value: unknown, query = ""): Promise<string> {
  const name = fresh("setting");
  const answer = await put(name, value, {}, query);
  expect([answer.status, answer.body]).toEqual([200, { value, source: "stored" }]);
  return name;
}

describe("while KV answers", () => {
  test.each([{ limit: 5 }, [1, 2], "text", 0, false, null])("%j is stored by one write and read by one read", async (value) => {
    const name = fresh("setting");
    expect(cost(await put(name, value))).toBe("r=0 w=1 d=0 l=0");
    const answer = await get(name);
    expect([answer.status, answer.body, cost(answer)]).toEqual([200, { value, source: "stored" }, "r=1 w=0 d=0 l=0"]);
    expect(answer.headers.get("consistency")).toBe("eventual");
  });

  test("an object is merged over the default field by field; null and lists are values", async () => {
    const name = await stored({ a: { x: 1 }, list: [1], nothing: null });
    const answer = await get(name, {}, withDefault({ a: { x: 9, y: 2 }, list: [7, 8], nothing: 3, more: true }));
    expect(answer.body).toEqual({ value: { a: { x: 1, y: 2 }, list: [1], nothing: null, more: true }, source: "stored" });
  });

  test("the tag is that of what is stored, whatever the default", async () => {
    const name = fresh("setting");
    const read = (query: string, headers = {}) => call(`GET /v1/settings/${name}${query}`, { headers });
    const absent = await read(withDefault({ a: 1 }));
    expect([absent.status, absent.headers.get("etag")]).toEqual([200, null]);
    expect(problem(await read(withDefault({ a: 1 }), { "if-match": "*" }))).toBe("412 precondition-failed");
    const stored = (await call(`PUT /v1/settings/${name}`, { body: { b: 2 } })).headers.get("etag")!;
    const tag = (await read(withDefault({ a: 1 }))).headers.get("etag")!;
    expect(tag).toBe(stored);
    expect((await read(withDefault({ a: 1 }), { "if-none-match": tag })).status).toBe(304);
    expect((await call(`PUT /v1/settings/${name}`, { body: { b: 3 }, headers: { "if-match": tag } })).status).toBe(200);
  });

  test("nothing stored is the default, and 404 without one", async () => {
    const name = fresh("setting");
    expect((await get(name, {}, withDefault({ limit: 1 }))).body).toEqual({ value: { limit: 1 }, source: "default" });
    expect((await get(name, {}, "?default=null")).body).toEqual({ value: null, source: "default" });
    expect(problem(await get(name))).toBe("404 not-found");
  });

  test("a deleted setting is gone, also from memory and shadow", async () => {
    const name = await stored("kept", "?fallback=1");
    const answer = await call(`DELETE /v1/settings/${name}`);
    expect([answer.status, cost(answer)]).toEqual([204, "r=0 w=0 d=2 l=0"]);
    expect(problem(await get(name))).toBe("404 not-found");
    expect(problem(await get(name, faults("CONFIG.get=down")))).toBe("503 unavailable");
  });

  test("a tag names the version: 304 and 412", async () => {
    const name = await stored({ limit: 5 });
    const tag = (await get(name)).headers.get("etag")!;
    expect(tag).toMatch(/^"[^"]+"$/);
    const same = await get(name, { headers: { "if-none-match": tag } });
    expect([same.status, same.text, same.headers.get("etag"), same.headers.get("consistency")]).toEqual([304, "", tag, "eventual"]);
    expect(problem(await put(name, 1, { headers: { "if-match": '"other"' } }))).toBe("412 precondition-failed");
    expect(problem(await put(name, 1, { headers: { "if-none-match": "*" } }))).toBe("412 precondition-failed");
    const changed = await put(name, { limit: 6 }, { headers: { "if-match": tag } });
    expect([changed.status, cost(changed)]).toEqual([200, "r=1 w=1 d=0 l=0"]);
    expect(problem(await call(`DELETE /v1/settings/${name}`, { headers: { "if-match": tag } }))).toBe("412 precondition-failed");
    expect((await get(name)).headers.get("etag")).toBe(changed.headers.get("etag"));
    expect((await put(fresh("setting"), 1, { headers: { "if-none-match": "*" } })).status).toBe(200);
  });
});

describe("while KV is down", () => {
  const DOWN = faults("CONFIG.get=down");
  const ALL_DOWN = faults("CONFIG.get=down,CACHE.get=down");

  test("the last known value is answered, over the default, without a tag", async () => {
    const name = await stored({ limit: 5 });
    const answer = await get(name, DOWN, withDefault({ limit: 1, more: 2 }));
    expect([answer.status, answer.body]).toEqual([200, { value: { limit: 5, more: 2 }, source: "stale" }]);
    expect(answer.headers.get("etag")).toBeNull();
  });

  test("what is too large to be remembered comes from the shadow", async () => {
    const value = { text: "x".repeat(20_000) };
    const name = await stored(value, "?fallback=1");
    expect((await get(name, DOWN)).body).toEqual({ value, source: "stale" });
    expect(problem(await get(name, ALL_DOWN))).toBe("503 unavailable");
  });

  test("nothing known is the default, or 503", async () => {
    const name = fresh("setting");
    expect((await get(name, ALL_DOWN, withDefault([]))).body).toEqual({ value: [], source: "default" });
    expect(problem(await get(name, ALL_DOWN))).toBe("503 unavailable");
  });

  test("a value that was not stored is not called stored later", async () => {
    const name = fresh("setting");
    expect(problem(await put(name, 1, faults("CONFIG.put=down")))).toBe("503 unavailable");
    expect(problem(await get(name))).toBe("404 not-found");
  });
});

describe("hostile input", () => {
  const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);

  test("is refused with its name", async () => {
    const name = fresh("setting");
    const raw = async (text: string) => problem(await call(`PUT /v1/settings/${name}`, { raw: text }));
    expect(await raw(nested(1000))).toBe("400 malformed-json");
    expect(await raw('{"__proto__":{"admin":true}}')).toBe("400 invalid-request __proto__");
    expect(await raw(`"${"x".repeat(70_000)}"`)).toBe("413 too-large");
    expect(problem(await get(name, {}, "?default={"))).toBe("400 invalid-request default");
    expect(problem(await get(name, {}, `?default=${nested(1000)}`))).toBe("400 invalid-request default");
    expect(problem(await get(name, {}, `?default=${encodeURIComponent('{"a":{"__proto__":{"admin":true}}}')}`))).toBe("400 invalid-request default");
    expect(problem(await put(name, 1, {}, "?fallback=perhaps"))).toBe("400 invalid-request fallback");
    expect(problem(await get("x".repeat(257)))).toBe("400 invalid-request name");
    expect(problem(await get(name))).toBe("404 not-found");
  });

  test("defaults of preferences must suit them", async () => {
    expect(problem(await put("preference-defaults", { theme: "pink" }))).toBe("400 invalid-request theme");
    expect(problem(await put("preference-defaults", [1]))).toBe("400 invalid-request");
    expect(problem(await put("preference-defaults", { "": 1 }))).toBe("400 invalid-request");
  });

  test("another tenant sees nothing", async () => {
    const name = await stored("secret", "?fallback=1");
    for (const options of [{}, faults("CONFIG.get=down")]) {
      expect([404, 503]).toContain((await get(name, { ...options, token: "other-token" })).status);
    }
  });
});

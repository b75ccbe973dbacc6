// Goal: real KV inside workerd keeps the store's contract. Method: the cases that `cargo test` runs over the memory store,
// compiled into a Worker (`contract/`) and run over the namespace CACHE; and the traps of the runtime, shown as they are,
// so that the day they are gone is noticed.
//
// Traps that cannot be written, so no test can spring them: a map stored as `{}` (`Store::put` takes bytes), metadata of
// bulk reads (the trait has none), a Rust future shared between requests (nothing of the store outlives a request), a
// stripped binary (it does not build). Panics that end an isolate are refused by clippy.
import { createExecutionContext } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import Contract from "./contract/build/index.js";

async function run(path: string): Promise<string> {
  const worker = new Contract(createExecutionContext(), env);
  const reply = await worker.fetch(new Request(`https://kv.example/${path}`));
  expect(reply.status).toBe(200);
  return reply.text();
}

const cases = (await run("")).split("\n");

test("there are cases, and one that does not exist is a failure", async () => {
  expect(cases).toContain("limits_are_enforced");
  expect(cases.length).toBeGreaterThan(10);
});

test.each(cases)("%s", async (name) => {
  expect(await run(name)).toBe("kept");
});

describe("the runtime", () => {
  test("drops keys that look like integers from bulk reads, and no key of ours is one", async () => {
    for (const name of ["123", "0", "007", "t/123"]) await env.CACHE.put(name, "here");
    const found = await env.CACHE.get(["123", "0", "007", "t/123"]);
    expect([...found.keys()].sort()).toEqual(["007", "t/123"]);
    const { keys } = await env.CACHE.list({ prefix: "contract/" });
    expect(keys.length).toBeGreaterThan(10);
    for (const { name } of keys) expect(name).toMatch(/^[^/]+\/[^/]+\//);
  });

  test.each([
    ["a lifetime below 60 seconds", () => env.CACHE.put("x", "", { expirationTtl: 59 }), /400 Invalid expiration_ttl/],
    ["an expiration after 2038", () => env.CACHE.put("x", "", { expiration: 2 ** 31 }), /out of range/],
    ["a cacheTtl below 30 seconds", () => env.CACHE.get("x", { cacheTtl: 29 }), /400 Invalid cache_ttl/],
    ["an empty key", () => env.CACHE.get(""), /cannot be empty/],
    ["a key of two dots", () => env.CACHE.put("..", ""), /not allowed as a key name/],
    ["a key of 513 bytes", () => env.CACHE.put("x".repeat(513), ""), /414/],
  ])("refuses %s in words that we classify", async (_, act, message) => {
    await expect((async () => act())()).rejects.toThrow(message);
  });
});

// Keys over HTTP on the built Worker: listing by segments, deletion of a subtree, nothing secret, nothing of others.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { call, fresh, problem, type Call } from "./client.ts";

const list = (query: string, options: Call = {}, binding = "CONFIG") => call(`GET /v1/keys/${binding}?${query}`, options);
const remove = (query: string, options: Call = {}, binding = "CONFIG") => call(`DELETE /v1/keys/${binding}?${query}`, options);

/** A subtree of the tenant with these names below it. */
async function subtree(...names: string[]): Promise<string> {
  const root = `tree/${fresh("root")}`;
  for (const name of names) await env.CONFIG.put(`dev/${root}/${name}`, "x", { metadata: { kind: name.length } });
  return root;
}

describe("listing", () => {
  test("shows keys, or rolls them up into prefixes", async () => {
    const root = await subtree("a", "b/1", "b/2", "c");
    const all = await list(`prefix=${root}/`);
    expect([all.status, all.headers.get("consistency")]).toEqual([200, "eventual"]);
    expect(all.body).toEqual({
      items: ["a", "b/1", "b/2", "c"].map((name) => ({ key: `${root}/${name}`, expiresAt: null, metadata: { kind: name.length } })),
      prefixes: [],
      cursor: null,
    });
    const rolled = await list(`prefix=${root}/&delimiter=/`);
    expect(rolled.body.items.map(({ key }: { key: string }) => key)).toEqual([`${root}/a`, `${root}/c`]);
    expect(rolled.body.prefixes).toEqual([`${root}/b/`]);
    const filtered = await list(`prefix=${root}/&metadata.kind=3`);
    expect(filtered.body.items.map(({ key }: { key: string }) => key)).toEqual([`${root}/b/1`, `${root}/b/2`]);
  });

  test("when a key ends is told in milliseconds, and what has no metadata has null", async () => {
    const root = await subtree();
    const expiration = Math.floor(Date.now() / 1000) + 3600;
    await env.CONFIG.put(`dev/${root}/ends`, "x", { expiration });
    expect((await list(`prefix=${root}`)).body.items).toEqual([{ key: `${root}/ends`, expiresAt: expiration * 1000, metadata: null }]);
  });

  test("a prefix is whole segments", async () => {
    const root = await subtree("user-1/a", "user-12/a");
    expect((await list(`prefix=${root}/user-1`)).body.items).toHaveLength(1);
  });

  test("pages follow each other, and a cursor is void with anything else", async () => {
    const root = await subtree("a", "b", "c");
    const query = `prefix=${root}/&limit=2`;
    const first = await list(query);
    const cursor = encodeURIComponent(first.body.cursor);
    const second = await list(`${query}&cursor=${cursor}`);
    const seen = [...first.body.items, ...second.body.items].map(({ key }: { key: string }) => key);
    expect([seen, second.body.cursor]).toEqual([["a", "b", "c"].map((name) => `${root}/${name}`), null]);
    for (const answer of [
      await list(`prefix=tree/&limit=2&cursor=${cursor}`),
      await list(`${query}&delimiter=/&cursor=${cursor}`),
      await list(`${query}&cursor=${cursor}x`),
      await list(`${query}&cursor=${cursor}`, {}, "CACHE"),
      await list(`${query}&cursor=${cursor}`, { token: "other-token" }),
      await remove(`prefix=${root}/&confirm=1&cursor=${cursor}`),
    ]) {
      expect(problem(answer)).toBe("400 invalid-request cursor");
    }
  });

  test("no secrets' keys, and nothing of another tenant", async () => {
    const { token } = (await call("POST /v1/sessions", { body: { userId: fresh("user") } })).body;
    for (const prefix of ["", "session", "epoch", "revoked"]) {
      expect((await list(`prefix=${prefix}`, {}, "SESSIONS")).body.items, prefix).toEqual([]);
      expect((await remove(`prefix=${prefix}&confirm=1`, {}, "SESSIONS")).body, prefix).toEqual({ deleted: 0, cursor: null });
    }
    expect((await call("POST /v1/sessions/verify", { body: { token } })).status).toBe(200);
    const root = await subtree("a");
    expect((await list(`prefix=${root}`, { token: "other-token" })).body.items).toEqual([]);
    expect((await remove(`prefix=${root}&confirm=1`, { token: "other-token" })).body.deleted).toBe(0);
    expect((await list(`prefix=${root}`)).body.items).toHaveLength(1);
  });

  test("what is no prefix, binding, delimiter or limit is refused with its name", async () => {
    expect((await list("prefix=a//b")).body).toEqual({ items: [], prefixes: [], cursor: null });
    expect(problem(await list(`prefix=${"x".repeat(600)}`))).toBe("400 invalid-request prefix");
    expect(problem(await list("delimiter=-"))).toBe("400 invalid-request delimiter");
    expect(problem(await list("limit=0"))).toBe("400 invalid-request limit");
    expect(problem(await list("", {}, "SECRETS"))).toBe("404 not-found");
  });
});

describe("deletion", () => {
  test("wants a confirmation, and takes the subtree only", async () => {
    const root = await subtree("in/a", "in/b", "inner");
    expect(problem(await remove(`prefix=${root}/in`))).toBe("400 invalid-request confirm");
    expect(problem(await remove(`prefix=${root}/in&confirm=0`))).toBe("400 invalid-request confirm");
    expect((await remove(`prefix=${root}/in&confirm=1`)).body).toEqual({ deleted: 2, cursor: null });
    expect((await list(`prefix=${root}`)).body.items.map(({ key }: { key: string }) => key)).toEqual([`${root}/inner`]);
  });

  test("is bounded and goes on from its cursor", async () => {
    const root = `tree/${fresh("root")}`;
    await Promise.all(Array.from({ length: 510 }, (_, index) => env.CONFIG.put(`dev/${root}/${index}`, "x")));
    const first = (await remove(`prefix=${root}&confirm=1`)).body;
    expect([first.deleted, typeof first.cursor]).toEqual([500, "string"]);
    const second = (await remove(`prefix=${root}&confirm=1&cursor=${encodeURIComponent(first.cursor)}`)).body;
    expect(second).toEqual({ deleted: 10, cursor: null });
    expect((await list(`prefix=${root}`)).body.items).toEqual([]);
    // A thousand operations of a slow machine's local KV.
  }, 60_000);
});

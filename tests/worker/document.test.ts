// Documents over HTTP on the built Worker: migrated when read, written back behind, swept in steps.
import { env } from "cloudflare:workers";
import { describe, expect, test, vi } from "vitest";
import { call, cost, fresh, problem, type Call } from "./client.ts";

const TO_2 = { from: 1, to: 2, steps: [{ rename: { from: "name", to: "title" } }, { add: { field: "tags", default: [] } }] };
const TO_3 = { from: 2, to: 3, steps: [{ convert: { field: "pages", to: "number" } }] };

const publish = (collection: string, version: number, migrations: unknown = [TO_2, TO_3].slice(0, version - 1), options: Call = {}) =>
  call(`PUT /v1/collections/${collection}`, { ...options, body: { version, migrations } });
const path = (collection: string, id: string) => `/v1/collections/${collection}/documents/${id}`;
const put = (collection: string, id: string, body: unknown, query = "", headers = {}) => call(`PUT ${path(collection, id)}${query}`, { body, headers });
const get = (collection: string, id: string, options: Call = {}) => call(`GET ${path(collection, id)}`, options);
const patch = (collection: string, id: string, body: unknown, headers = {}) => call(`PATCH ${path(collection, id)}`, { body, headers });
const remove = (collection: string, id: string, options: Call = {}) => call(`DELETE ${path(collection, id)}`, options);
const sweep = (collection: string, body: object = {}, options: Call = {}) => call(`POST /v1/collections/${collection}/migrate`, { ...options, body });
const keys = async (collection: string) => (await env.CONFIG.list({ prefix: `dev/document/${collection}/` })).keys;

async function collection(version: number): Promise<string> {
  const name = fresh("books");
  const answer = await publish(name, version);
  expect([answer.status, answer.body]).toEqual([200, { version }]);
  return name;
}

describe("the contract", () => {
  test("a document of the schema's version costs one write and one read", async () => {
    const books = await collection(1);
    const stored = await put(books, "dune", { name: "Dune" });
    expect([stored.status, stored.body, cost(stored)]).toEqual([200, { name: "Dune" }, "r=0 w=1 d=0 l=0"]);
    const read = await get(books, "dune");
    expect([read.status, read.body, cost(read)]).toEqual([200, { name: "Dune" }, "r=1 w=0 d=0 l=0"]);
    expect(["document-version", "migrated-from", "consistency", "etag"].map((name) => read.headers.get(name)))
      .toEqual(["1", null, "eventual", stored.headers.get("etag")]);
    const patched = await patch(books, "dune", { pages: "412" });
    expect([patched.body, cost(patched)]).toEqual([{ name: "Dune", pages: "412" }, "r=1 w=1 d=0 l=0"]);
    expect((await remove(books, "dune")).status).toBe(204);
    expect(problem(await get(books, "dune"))).toBe("404 not-found");
    expect(problem(await patch(books, "dune", {}))).toBe("404 not-found");
    expect(problem(await get(fresh("none"), "dune"))).toBe("404 not-found");
  });

  test("tags: 304 with the version, and 412 on every change", async () => {
    const books = await collection(1);
    const tag = (await put(books, "a", { name: "A" }, "", { "if-none-match": "*" })).headers.get("etag")!;
    const same = await get(books, "a", { headers: { "if-none-match": tag } });
    expect([same.status, same.text, same.headers.get("document-version"), same.headers.get("consistency")]).toEqual([304, "", "1", "eventual"]);
    const stale = { "if-match": '"old"' };
    expect(problem(await put(books, "a", {}, "", stale))).toBe("412 precondition-failed");
    expect(problem(await put(books, "a", {}, "", { "if-none-match": "*" }))).toBe("412 precondition-failed");
    expect(problem(await patch(books, "a", {}, stale))).toBe("412 precondition-failed");
    expect(problem(await remove(books, "a", { headers: stale }))).toBe("412 precondition-failed");
    expect((await patch(books, "a", { b: 1 }, { "if-match": tag })).status).toBe(200);
  });

  test("another media type is 415 and names those that are taken", async () => {
    const answer = await patch(await collection(1), "a", {}, { "content-type": "text/plain" });
    expect(problem(answer)).toBe("415 unsupported-media-type");
    expect(answer.headers.get("accept-patch")).toBe("application/merge-patch+json, application/json-patch+json");
  });

  test("another tenant sees nothing", async () => {
    const books = await collection(1);
    await put(books, "a", { name: "A" });
    expect(problem(await get(books, "a", { token: "other-token" }))).toBe("404 not-found");
    await publish(books, 1, [], { token: "other-token" });
    expect(problem(await get(books, "a", { token: "other-token" }))).toBe("404 not-found");
    expect((await call(`GET /v1/collections/${books}/documents`, { token: "other-token" })).body).toEqual({ items: [], cursor: null });
  });
});

describe("migration", () => {
  test("is lazy, is written back behind, and keeps the time to live", async () => {
    const books = await collection(1);
    await put(books, "dune", { name: "Dune" }, "?ttlSeconds=3600");
    await publish(books, 2);
    const read = await get(books, "dune");
    expect([read.status, read.body]).toEqual([200, { title: "Dune", tags: [] }]);
    expect(cost(read)).toBe("r=1 w=0 d=0 l=0");
    expect([read.headers.get("document-version"), read.headers.get("migrated-from")]).toEqual(["2", "1"]);
    await expect.poll(async () => (await keys(books)).length).toBe(2);
    const ends = (await keys(books)).map(({ expiration }) => expiration!);
    expect(Math.abs(ends[0]! - ends[1]!)).toBeLessThanOrEqual(1);
    expect(Math.abs(ends[0]! - Date.now() / 1000 - 3600)).toBeLessThan(60);
    await expect.poll(async () => (await get(books, "dune")).headers.get("migrated-from")).toBe(null);
    const again = await get(books, "dune");
    expect([again.body, again.headers.get("document-version"), cost(again)]).toEqual([read.body, "2", "r=1 w=0 d=0 l=0"]);
  });

  test("a patch keeps the end of its document, or sets the one it names", async () => {
    const books = await collection(1);
    await put(books, "dune", { name: "Dune" }, "?ttlSeconds=3600");
    for (const [query, seconds] of [["", 3600], ["?ttlSeconds=7200", 7200]] as const) {
      expect((await call(`PATCH ${path(books, "dune")}${query}`, { body: { seconds } })).status).toBe(200);
      const [key] = await keys(books);
      expect(Math.abs(key!.expiration! - Date.now() / 1000 - seconds)).toBeLessThan(70);
    }
  });

  test("a record newer than the schema is served and never overwritten", async () => {
    const books = await collection(2);
    await put(books, "dune", { title: "Dune" });
    await publish(books, 1);
    const read = await get(books, "dune");
    expect([read.status, read.body, read.headers.get("document-version")]).toEqual([200, { title: "Dune" }, "2"]);
    expect(problem(await put(books, "dune", {}))).toBe("409 newer-version");
    expect(problem(await patch(books, "dune", {}))).toBe("409 newer-version");
    expect(problem(await remove(books, "dune"))).toBe("409 newer-version");
    expect((await get(books, "dune")).body).toEqual({ title: "Dune" });
  });

  test("a sweep goes in steps, a dry run writes nothing, errors are told", async () => {
    const books = await collection(2);
    for (const id of ["a", "b", "c", "d"]) await put(books, id, { title: id, pages: "1" });
    await put(books, "bad", { title: "bad", pages: "many" });
    await publish(books, 3);
    const before = await keys(books);
    const all = async (dryRun: boolean) => {
      let [cursor, steps, migrated, errors] = [null as string | null, 0, 0, [] as unknown[]];
      do {
        const { status, body } = await sweep(books, { dryRun, budget: 1, cursor });
        expect(status).toBe(200);
        [cursor, steps, migrated, errors] = [body.cursor, steps + 1, migrated + body.migrated, [...errors, ...body.errors]];
      } while (cursor !== null && steps < 50);
      return { steps: steps > 1, migrated, errors };
    };
    const errors = [{ id: "bad", reason: expect.stringContaining("pages cannot be converted") }];
    expect(await all(true)).toEqual({ steps: true, migrated: 4, errors });
    expect(await keys(books)).toEqual(before);
    // What is not said is not dry.
    expect((await sweep(books, { budget: 1 })).body).toMatchObject({ scanned: 1, migrated: 1 });
    expect(await all(false)).toEqual({ steps: true, migrated: 3, errors });
    expect((await sweep(books)).body).toMatchObject({ scanned: 5, versions: { 2: 1, 3: 4 }, migrated: 0, failed: 1, cursor: null });
    expect(problem(await get(books, "bad"))).toBe("422 migration-failed");
    const list = await call(`GET /v1/collections/${books}/documents`);
    expect(cost(list)).toBe("r=0 w=0 d=0 l=1");
    expect(list.body.items.map(({ id, version }: { id: string; version: number }) => [id, version])).toEqual([["a", 3], ["b", 3], ["bad", 2], ["c", 3], ["d", 3]]);
    for (const { version, migratedAt } of list.body.items) expect(migratedAt).toEqual(version === 3 ? expect.any(Number) : null);
  });

  test("a cursor is void in another collection, in another list and for another tenant", async () => {
    const [books, others] = [await collection(1), await collection(1)];
    for (const id of ["a", "b", "c"]) await put(books, id, {});
    const { cursor } = (await sweep(books, { budget: 1 })).body;
    expect(cursor).toEqual(expect.any(String));
    expect((await sweep(books, { budget: 1, cursor })).status).toBe(200);
    expect(problem(await sweep(others, { cursor }))).toBe("400 invalid-request cursor");
    expect(problem(await sweep(books, { cursor: `${cursor}x` }))).toBe("400 invalid-request cursor");
    expect(problem(await call(`GET /v1/collections/${books}/documents?cursor=${encodeURIComponent(cursor)}`))).toBe("400 invalid-request cursor");
    await publish(books, 1, [], { token: "other-token" });
    expect(problem(await sweep(books, { cursor }, { token: "other-token" }))).toBe("400 invalid-request cursor");
  });
});

test("a version is an integer however it is written", async () => {
  const raw = '{"version":2e0,"migrations":[{"from":1.0,"to":2.0,"steps":[]}]}';
  const name = fresh("books");
  expect((await call(`PUT /v1/collections/${name}`, { raw })).status).toBe(200);
});

describe("hostile input", () => {
  const step = (value: unknown) => [{ from: 1, to: 2, steps: [value] }];
  test.each([
    ["a version past the limit", 101, [], "version"],
    ["a gap", 3, [TO_2], "migrations"],
    ["no list", 2, {}, "migrations"],
    ["a leap", 3, [{ from: 1, to: 3, steps: [] }], "migrations/0"],
    ["a way back", 2, [{ from: 2, to: 1, steps: [] }], "migrations/0"],
    ["the same twice", 2, [TO_2, TO_2], "migrations/1"],
    ["an unknown step", 2, step({ explode: { field: "a" } }), "migrations/0/steps/0"],
    ["two keys in a step", 2, step({ remove: { field: "a" }, add: { field: "b", default: 1 } }), "migrations/0/steps/0"],
    ["a prototype", 2, step({ rename: { from: "a", to: "__proto__" } }), "migrations/0/steps/0"],
    ["a rename to nowhere", 2, step({ rename: { from: "a" } }), "migrations/0/steps/0/rename/to"],
    ["a version as text", 2, [{ from: "1", to: 2, steps: [] }], "migrations/0/from"],
    ["a move to where it lies", 2, step({ move: { from: "/a/b", to: "/a" } }), "migrations/0/steps/0"],
    ["a move into itself", 2, step({ move: { from: "/a", to: "/a/b" } }), "migrations/0/steps/0"],
    ["a pointer too deep", 2, step({ move: { from: "/a", to: "/b".repeat(17) } }), "migrations/0/steps/0"],
    ["a cycle", 2, [{ from: 1, to: 2, steps: [{ rename: { from: "a", to: "b" } }, { rename: { from: "b", to: "a" } }] }], "migrations/0/steps/1"],
  ])("a schema with %s is refused", async (_, version, migrations, field) => {
    const name = fresh("books");
    expect(problem(await publish(name, version, migrations))).toBe(`400 invalid-request ${field}`);
    expect(problem(await get(name, "a"))).toBe("404 not-found");
  });

  test("the range of versions that is told is the one that holds", async () => {
    const { body } = await publish(fresh("books"), 101, []);
    expect(body.detail).toBe("Must be an integer from 1 to 100.");
  });

  test("documents and patches past the limits are refused", async () => {
    const books = await collection(1);
    await put(books, "a", { name: "A" });
    const raw = async (method: string, text: string, type = "application/json") =>
      problem(await call(`${method} ${path(books, "a")}`, { raw: text, headers: { "content-type": type } }));
    expect(await raw("PUT", "[".repeat(1000) + "]".repeat(1000))).toBe("400 malformed-json");
    expect(await raw("PUT", '{"a":{"__proto__":1}}')).toBe("400 invalid-request __proto__");
    expect(await raw("PUT", `"${"x".repeat(300_000)}"`)).toBe("413 too-large");
    const operations = "application/json-patch+json";
    expect(await raw("PATCH", `[${Array(101).fill('{"op":"remove","path":"/x"}').join(",")}]`, operations)).toBe("400 invalid-request");
    expect(await raw("PATCH", `[${Array(1_000_000).fill("1").join(",")}]`, operations)).toBe("413 too-large");
    expect(await raw("PATCH", `[{"op":"add","path":"${"/a".repeat(50_000)}","value":1}]`, operations)).toBe("400 invalid-request 0");
    expect(problem(await put(books, "a", {}, "?ttlSeconds=0"))).toBe("400 invalid-request ttlSeconds");
    expect(problem(await sweep(books, { budget: 251 }))).toBe("400 invalid-request budget");
    expect(problem(await sweep(books, { everything: true }))).toBe("400 invalid-request everything");
    expect((await get(books, "a")).body).toEqual({ name: "A" });
  });

  test("an unreadable record is refused, told as such, and kept until a whole document replaces it", async () => {
    const books = await collection(1);
    const key = `dev/document/${books}/a/own`;
    await put(books, "a", { name: "A" });
    for (const record of ["damaged", "preference.1\n{}", 'document.2\n{"later":1}', 'document.1\n{"version":1}']) {
      await env.CONFIG.put(key, record);
      for (const answer of [
        await get(books, "a", { damaged: true }),
        await call(`PATCH ${path(books, "a")}`, { body: {}, damaged: true }),
        await call(`PUT ${path(books, "a")}`, { body: {}, headers: { "if-match": "*" }, damaged: true }),
      ]) {
        expect(problem(answer)).toBe("500 corrupt-record");
      }
      expect(await env.CONFIG.get(key)).toBe(record);
    }
    expect((await put(books, "a", { name: "B" })).status).toBe(200);
    expect((await get(books, "a")).body).toEqual({ name: "B" });
  });

  test("a page has no more items than were asked for", async () => {
    const books = await collection(1);
    for (const id of ["a", "b", "c"]) await put(books, id, {});
    for (const limit of [1, 2]) {
      const { body } = await call(`GET /v1/collections/${books}/documents?limit=${limit}`);
      expect([body.items.length, typeof body.cursor]).toEqual([limit, "string"]);
      expect((await sweep(books, { budget: limit, dryRun: true })).body.scanned).toBe(limit);
    }
  });

  test("503 while KV does not answer", async () => {
    const books = await collection(1);
    expect(problem(await get(books, "a", { headers: { "x-test-faults": "CONFIG.get=down" } }))).toBe("503 unavailable");
  });
});

describe("ends and arrays", () => {
  test("a document that is over is not listed, though KV still has it", async () => {
    const books = fresh("books");
    await call(`PUT /v1/collections/${books}`, { body: { version: 1 } });
    await call(`PUT /v1/collections/${books}/documents/a?ttlSeconds=1`, { body: {} });
    await call(`PUT /v1/collections/${books}/documents/b`, { body: {} });
    const ids = async () => (await call(`GET /v1/collections/${books}/documents`)).body.items.map(({ id }: { id: string }) => id);
    expect(await ids()).toEqual(["a", "b"]);
    await vi.waitFor(async () => expect(await ids()).toEqual(["b"]), 5000);
  });

  test("what is in an array cannot be moved, and is not left behind in silence", async () => {
    const books = fresh("books");
    await call(`PUT /v1/collections/${books}`, { body: { version: 1 } });
    await call(`PUT /v1/collections/${books}/documents/a`, { body: { list: [{ id: 1 }] } });
    const migrations = [{ from: 1, to: 2, steps: [{ move: { from: "/list/0/id", to: "/first" } }] }];
    expect((await call(`PUT /v1/collections/${books}`, { body: { version: 2, migrations } })).status).toBe(200);
    expect(problem(await call(`GET /v1/collections/${books}/documents/a`))).toMatch("422 migration-failed");
  });
});

// Profiles over HTTP on the built Worker: one record per user, changed as a whole or by patches.
import { describe, expect, test } from "vitest";
import { call, cost, fresh, problem, type Call } from "./client.ts";

const path = (user: string) => `/v1/users/${encodeURIComponent(user)}/profile`;
const put = (user: string, body: unknown, options: Call = {}) => call(`PUT ${path(user)}`, { ...options, body });
const patch = (user: string, body: unknown, type = "application/merge-patch+json", headers = {}) =>
  call(`PATCH ${path(user)}`, { body, headers: { "content-type": type, ...headers } });
const get = (user: string, options: Call = {}, query = "") => call(`GET ${path(user)}${query}`, options);

describe("the contract", () => {
  test("a profile is stored by one write, read by one read, patched by one of each", async () => {
    const user = fresh("user");
    expect(problem(await get(user))).toBe("404 not-found");
    const stored = await put(user, { name: "Ada", address: { city: "London", zip: "N1" } });
    expect([stored.status, cost(stored)]).toEqual([200, "r=0 w=1 d=0 l=0"]);
    const patched = await patch(user, { address: { zip: null }, born: 1815 });
    expect([patched.status, cost(patched)]).toEqual([200, "r=1 w=1 d=0 l=0"]);
    const read = await get(user);
    expect(read.body).toEqual({ name: "Ada", address: { city: "London" }, born: 1815 });
    expect([cost(read), read.headers.get("consistency")]).toEqual(["r=1 w=0 d=0 l=0", "eventual"]);
    const gone = await call(`DELETE ${path(user)}`);
    expect([gone.status, cost(gone)]).toEqual([204, "r=0 w=0 d=1 l=0"]);
    expect(problem(await get(user))).toBe("404 not-found");
  });

  test("the fields asked for are shown, with the tag of the whole", async () => {
    const user = fresh("user");
    await put(user, { a: 1, b: null, c: 3 });
    const some = await get(user, {}, "?fields=b,c,unknown");
    expect(some.body).toEqual({ b: null, c: 3 });
    expect(some.headers.get("etag")).toBe((await get(user)).headers.get("etag"));
  });

  test("JSON Patch applies wholly or not at all", async () => {
    const user = fresh("user");
    await put(user, { list: [1, 2], a: { b: 1 } });
    const operations = (body: unknown) => patch(user, body, "application/json-patch+json; charset=utf-8");
    const changed = await operations([{ op: "add", path: "/list/-", value: 3 }, { op: "move", from: "/a/b", path: "/b" }]);
    expect(changed.body).toEqual({ list: [1, 2, 3], a: {}, b: 1 });
    expect(problem(await operations([{ op: "remove", path: "/list" }, { op: "test", path: "/b", value: 2 }]))).toBe("409 patch-test-failed");
    expect(problem(await operations([{ op: "remove", path: "/list" }, { op: "remove", path: "/none" }]))).toBe("400 invalid-request 1");
    expect((await get(user)).body).toEqual(changed.body);
  });

  test("another media type is 415 and names those that are taken", async () => {
    const answer = await patch(fresh("user"), {}, "text/plain");
    expect(problem(answer)).toBe("415 unsupported-media-type");
    expect(answer.headers.get("accept-patch")).toBe("application/merge-patch+json, application/json-patch+json");
  });

  test("tags: 304, and 412 on every change", async () => {
    const user = fresh("user");
    const tag = (await put(user, { a: 1 }, { headers: { "if-none-match": "*" } })).headers.get("etag")!;
    expect((await get(user, { headers: { "if-none-match": tag } })).status).toBe(304);
    const stale = { "if-match": '"old"' };
    expect(problem(await put(user, {}, { headers: stale }))).toBe("412 precondition-failed");
    expect(problem(await put(user, {}, { headers: { "if-none-match": "*" } }))).toBe("412 precondition-failed");
    expect(problem(await patch(user, {}, "application/json", stale))).toBe("412 precondition-failed");
    expect(problem(await call(`DELETE ${path(user)}`, { headers: stale }))).toBe("412 precondition-failed");
    expect((await patch(user, { b: 2 }, "application/json", { "if-match": tag })).body).toEqual({ a: 1, b: 2 });
    expect(problem(await patch(user, { c: 3 }, "application/json", { "if-match": tag }))).toBe("412 precondition-failed");
  });

  test("another tenant sees nothing", async () => {
    const user = fresh("user");
    await put(user, { a: 1 });
    expect(problem(await get(user, { token: "other-token" }))).toBe("404 not-found");
    expect((await call(`DELETE ${path(user)}`, { token: "other-token" })).status).toBe(204);
    expect((await get(user)).body).toEqual({ a: 1 });
  });
});

test("hostile input is refused and changes nothing", async () => {
  const user = fresh("user");
  await put(user, { a: 1 });
  const raw = async (text: string, type = "application/json-patch+json") =>
    problem(await call(`PATCH ${path(user)}`, { raw: text, headers: { "content-type": type } }));
  const operation = '{"op":"add","path":"/a","value":1}';
  expect(await raw(`[${Array(101).fill(operation).join(",")}]`)).toBe("400 invalid-request");
  expect(await raw(`[${Array(1_000_000).fill(operation).join(",")}]`)).toBe("413 too-large");
  expect(await raw('[{"op":"add","path":"/__proto__","value":{}}]')).toBe("400 invalid-request __proto__");
  expect(await raw('[{"op":"add","path":"/a/__proto__/b","value":1}]')).toBe("400 invalid-request 0");
  expect(await raw(`[{"op":"add","path":"${"/a".repeat(20_000)}","value":1}]`)).toBe("400 invalid-request 0");
  expect(await raw('[{"op":"add","path":"","value":[]}]')).toBe("400 invalid-request");
  expect(await raw('[{"op":"explode","path":"/a"}]')).toBe("400 invalid-request 0/op");
  expect(await raw("{}")).toBe("400 invalid-request");
  expect(await raw('{"__proto__":{"x":1}}', "application/json")).toBe("400 invalid-request __proto__");
  expect(await raw("[]", "application/merge-patch+json")).toBe("400 invalid-request");
  expect(await raw(`{"a":${"[".repeat(1000)}${"]".repeat(1000)}}`, "application/json")).toBe("400 malformed-json");
  expect(problem(await put(user, []))).toBe("400 invalid-request");
  // Each copy doubles the document: sizes are looked at in between.
  const doubling = Array.from({ length: 60 }, (_, index) => ({ op: "copy", from: "", path: `/c${index}` }));
  expect(problem(await patch(user, doubling, "application/json-patch+json"))).toBe("400 invalid-request");
  expect((await get(user)).body).toEqual({ a: 1 });
});

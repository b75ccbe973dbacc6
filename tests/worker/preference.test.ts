// Preferences over HTTP on the built Worker: sparse overrides over defaults, fields that do not undo each other.
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, test } from "vitest";
import { call, cost, fresh, problem, type Call } from "./client.ts";

const BUILT_IN = { theme: "light", language: "en", notifications: true, timezone: "UTC" };
const DEFAULTS = "/v1/settings/preference-defaults";

const path = (user: string) => `/v1/users/${encodeURIComponent(user)}/preferences`;
const get = (user: string, options: Call = {}) => call(`GET ${path(user)}`, options);
const put = (user: string, body: unknown, options: Call = {}) => call(`PUT ${path(user)}`, { ...options, body });
const patch = (user: string, body: unknown, type = "application/merge-patch+json", headers = {}) =>
  call(`PATCH ${path(user)}`, { body, headers: { "content-type": type, ...headers } });

async function setDefaults(body: object): Promise<void> {
  const answer = await call(`PUT ${DEFAULTS}`, { body });
  expect(answer.status, answer.text).toBe(200);
}
afterEach(() => call(`DELETE ${DEFAULTS}`));

describe("the contract", () => {
  test("a new user has the defaults, by one bulk read", async () => {
    const answer = await get(fresh("user"));
    expect([answer.status, answer.body]).toEqual([200, BUILT_IN]);
    expect([cost(answer), answer.headers.get("consistency")]).toEqual(["r=5 w=0 d=0 l=0", "eventual"]);
  });

  test("a merge patch changes what it names, one write a field; null gives back the default", async () => {
    const user = fresh("user");
    const dark = await patch(user, { theme: "dark" });
    expect([dark.status, dark.body, cost(dark)]).toEqual([200, { ...BUILT_IN, theme: "dark" }, "r=5 w=1 d=0 l=0"]);
    expect((await patch(user, { language: "fr" }, "application/json")).body).toEqual({ ...BUILT_IN, theme: "dark", language: "fr" });
    expect((await patch(user, { theme: null })).body).toEqual({ ...BUILT_IN, language: "fr" });
    const read = await get(user);
    expect(read.body).toEqual({ ...BUILT_IN, language: "fr" });
  });

  test("a JSON Patch is applied to what its author sees", async () => {
    const user = fresh("user");
    const operations = (body: unknown) => patch(user, body, "application/json-patch+json");
    const changed = await operations([{ op: "test", path: "/theme", value: "light" }, { op: "replace", path: "/theme", value: "dark" }]);
    expect([changed.status, changed.body, cost(changed)]).toEqual([200, { ...BUILT_IN, theme: "dark" }, "r=5 w=1 d=0 l=0"]);
    expect(problem(await operations([{ op: "test", path: "/theme", value: "light" }]))).toBe("409 patch-test-failed");
    expect((await operations([{ op: "remove", path: "/theme" }])).body).toEqual(BUILT_IN);
  });

  test("PUT sets these fields and gives back the others; DELETE gives back all", async () => {
    const user = fresh("user");
    await patch(user, { theme: "dark" });
    expect((await put(user, { language: "de" })).body).toEqual({ ...BUILT_IN, language: "de" });
    const gone = await call(`DELETE ${path(user)}`);
    expect([gone.status, gone.text]).toEqual([204, ""]);
    expect((await get(user)).body).toEqual(BUILT_IN);
  });

  test("tags: 304, and 412 on every change", async () => {
    const user = fresh("user");
    const tag = (await get(user)).headers.get("etag")!;
    const same = await get(user, { headers: { "if-none-match": `"x", W/${tag}` } });
    expect([same.status, same.text, same.headers.get("etag")]).toEqual([304, "", tag]);
    const changed = await patch(user, { theme: "dark" }, undefined, { "if-match": tag });
    expect(changed.headers.get("etag")).toBe((await get(user)).headers.get("etag"));
    const stale = { "if-match": tag };
    for (const answer of [
      await patch(user, { theme: "light" }, undefined, stale),
      await put(user, {}, { headers: stale }),
      await call(`DELETE ${path(user)}`, { headers: stale }),
    ]) {
      expect(problem(answer)).toBe("412 precondition-failed");
    }
    expect((await get(user)).body.theme).toBe("dark");
  });

  test("another media type is 415 and names those that are taken", async () => {
    const answer = await patch(fresh("user"), {}, "application/xml");
    expect(problem(answer)).toBe("415 unsupported-media-type");
    expect(answer.headers.get("accept-patch")).toBe("application/merge-patch+json, application/json-patch+json");
  });

  test("changes of different fields at the same time are all kept", async () => {
    const user = fresh("user");
    const fields = { theme: "dark", language: "it", notifications: false, timezone: "Europe/Rome" };
    await Promise.all(Object.entries(fields).map(([field, value]) => patch(user, { [field]: value })));
    expect((await get(user)).body).toEqual(fields);
  });

  test("another tenant sees and changes nothing", async () => {
    const user = fresh("user");
    await patch(user, { theme: "dark" });
    expect((await get(user, { token: "other-token" })).body).toEqual(BUILT_IN);
    await call(`DELETE ${path(user)}`, { token: "other-token" });
    expect((await get(user)).body.theme).toBe("dark");
  });
});

describe("the tenant's defaults", () => {
  test("reach everyone who never set the field, also after a change of another field", async () => {
    const [set, unset] = [fresh("user"), fresh("user")];
    await patch(set, { theme: "light" });
    await patch(unset, { language: "fr" });
    await setDefaults({ theme: "dark" });
    expect((await get(unset)).body).toEqual({ ...BUILT_IN, language: "fr", theme: "dark" });
    expect((await get(set)).body.theme).toBe("light");
    await setDefaults({ theme: "system" });
    expect((await get(unset)).body.theme).toBe("system");
    expect((await get(unset, { token: "other-token" })).body.theme).toBe("light");
  });

  test("add fields, which take values of their type", async () => {
    const user = fresh("user");
    expect(problem(await patch(user, { editor: { tabs: 8 } }))).toBe("400 invalid-request editor");
    await setDefaults({ editor: { tabs: 4, font: "mono" } });
    expect((await patch(user, { editor: { tabs: 8 } })).body.editor).toEqual({ tabs: 8, font: "mono" });
    await setDefaults({ editor: { tabs: 2, font: "serif" } });
    expect((await get(user)).body.editor).toEqual({ tabs: 8, font: "serif" });
    expect(problem(await patch(user, { editor: 1 }))).toBe("400 invalid-request editor");
    await call(`DELETE ${DEFAULTS}`);
    expect((await get(user)).body).toEqual(BUILT_IN);
  });

  test("an unreadable field is served as its default, and the next change replaces it", async () => {
    const user = fresh("user");
    await patch(user, { theme: "dark", language: "fr" });
    await env.CONFIG.put(`dev/preference/${user}/theme`, "garbage");
    expect((await get(user)).body).toEqual({ ...BUILT_IN, language: "fr" });
    expect((await patch(user, { theme: "dark" })).body.theme).toBe("dark");
    expect((await get(user)).body.theme).toBe("dark");
  });
});

describe("failures and hostile input", () => {
  test("503 while KV does not answer", async () => {
    const headers = { "x-test-faults": "CONFIG.get=down" };
    expect(problem(await get(fresh("user"), { headers }))).toBe("503 unavailable");
    expect(problem(await patch(fresh("user"), { theme: "dark" }, undefined, { "x-test-faults": "CONFIG.put=down" }))).toBe("503 unavailable");
  });

  test.each([
    [{ theme: "pink" }, "theme"],
    [{ language: "not a tag" }, "language"],
    [{ notifications: "yes" }, "notifications"],
    [{ timezone: "../etc" }, "timezone"],
    [{ colour: "red" }, "colour"],
    [{ __proto__x: 1 }, "__proto__x"],
  ])("%j is refused and names the field", async (body, field) => {
    const user = fresh("user");
    expect(problem(await patch(user, body))).toBe(`400 invalid-request ${field}`);
    expect(problem(await put(user, body))).toBe(`400 invalid-request ${field}`);
    expect((await get(user)).body).toEqual(BUILT_IN);
  });

  test("patches that reach for prototypes, too many, too deep", async () => {
    const user = fresh("user");
    const raw = async (text: string, type: string) => problem(await call(`PATCH ${path(user)}`, { raw: text, headers: { "content-type": type } }));
    const [merge, operations] = ["application/merge-patch+json", "application/json-patch+json"];
    expect(await raw('{"__proto__":{"admin":true}}', merge)).toBe("400 invalid-request __proto__");
    expect(await raw('{"__proto__":null}', merge)).toBe("400 invalid-request __proto__");
    expect(await raw('{"theme":{"constructor":{}}}', merge)).toBe("400 invalid-request constructor");
    expect(await raw('[{"op":"add","path":"/__proto__","value":1}]', operations)).toBe("400 invalid-request __proto__");
    expect(await raw(`[${Array(1_000_000).fill("{}").join(",")}]`, operations)).toBe("413 too-large");
    expect(await raw(`[${Array(101).fill('{"op":"remove","path":"/theme"}').join(",")}]`, operations)).toBe("400 invalid-request");
    expect(await raw(`[{"op":"add","path":"${"/a".repeat(10_000)}","value":1}]`, operations)).toBe("400 invalid-request 0");
    expect(await raw(`{"theme":${"[".repeat(1000)}${"]".repeat(1000)}}`, merge)).toBe("400 malformed-json");
    expect(await raw("[]", merge)).toBe("400 invalid-request");
    expect(await raw('"dark"', merge)).toBe("400 invalid-request");
    expect((await get(user)).body).toEqual(BUILT_IN);
  });
});

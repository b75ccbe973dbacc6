// Preferences in strong mode on the built Worker: exact 412, the copy in KV, mixed modes, failures of the object.
import { env } from "cloudflare:workers";
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, problem, type Call } from "./client.ts";

const DAY_MILLIS = 86_400_000;

const path = (user: string, mode = "?mode=strong") => `/v1/users/${user}/preferences${mode}`;
const get = (user: string, options: Call = {}) => call(`GET ${path(user)}`, options);
const patch = (user: string, body: unknown, options: Call = {}) => call(`PATCH ${path(user)}`, { ...options, body });
const eventual = (user: string) => call(`GET ${path(user, "")}`);
const around = (user: string, body: unknown) => call(`PATCH ${path(user, "")}`, { body });
const ifMatch = (tag: string) => ({ headers: { "if-match": tag } });
const tagOf = async (user: string) => (await get(user)).headers.get("etag")!;
const object = (user: string) => env.PREFERENCE.getByName(`dev/preference/${user}`);

afterEach(() => void vi.useRealTimers());

describe("the contract", () => {
  test("of 20 concurrent patches that name the same version one is 200 and 19 are 412, five times over", async () => {
    const user = fresh("user");
    for (let round = 0; round < 5; round++) {
      const tag = await tagOf(user);
      const answers = await Promise.all(Array.from({ length: 20 }, (_, n) => patch(user, { timezone: `Etc/R${round}-${n}` }, ifMatch(tag))));
      const [done] = answers.filter(({ status }) => status === 200);
      const refused = answers.filter((answer) => problem(answer) === "412 precondition-failed");
      expect([answers.filter(({ status }) => status === 200).length, refused.length]).toEqual([1, 19]);
      const now = await get(user);
      expect([now.body, now.headers.get("etag")]).toEqual([done!.body, done!.headers.get("etag")]);
    }
  });

  test("every reply says strong, a read costs one bulk read, and so does a change", async () => {
    const user = fresh("user");
    const read = await get(user);
    expect([read.status, cost(read), read.headers.get("consistency")]).toEqual([200, "r=5 w=0 d=0 l=0", "strong"]);
    const changed = await patch(user, { theme: "dark" });
    expect([changed.body.theme, cost(changed), changed.headers.get("consistency")]).toEqual(["dark", "r=5 w=0 d=0 l=0", "strong"]);
    const replaced = await call(`PUT ${path(user)}`, { body: { language: "de" } });
    expect(replaced.body).toMatchObject({ theme: "light", language: "de" });
    const cleared = await call(`DELETE ${path(user)}`);
    expect([cleared.status, cleared.headers.get("consistency")]).toEqual([204, "strong"]);
    expect((await get(user)).body).toEqual(read.body);
    const same = await get(user, { headers: { "if-none-match": read.headers.get("etag")! } });
    expect([same.status, same.headers.get("consistency")]).toEqual([304, "strong"]);
    const operations = { raw: '[{"op":"test","path":"/theme","value":"no theme"}]', headers: { "content-type": "application/json-patch+json" } };
    const refused = [await get(user, ifMatch('"old"')), await patch(user, {}, ifMatch('"old"')), await call(`PATCH ${path(user)}`, operations)];
    expect(refused.map((answer) => [problem(answer), answer.headers.get("consistency")])).toEqual([
      ["412 precondition-failed", "strong"], ["412 precondition-failed", "strong"], ["409 patch-test-failed", "strong"],
    ]);
  });

  test("a change is read at once in strong mode, and soon without it", async () => {
    const user = fresh("user");
    const changed = await patch(user, { theme: "dark", language: "fr" });
    expect((await get(user)).body).toEqual(changed.body);
    await expect.poll(async () => (await eventual(user)).body).toEqual(changed.body);
    expect((await eventual(user)).headers.get("etag")).toBe(changed.headers.get("etag"));
  });

  test("a JSON Patch that adds up is applied once, also when many come at once", async () => {
    await call("PUT /v1/settings/preference-defaults", { body: { list: [] } });
    const user = fresh("user");
    const add = (value: number) =>
      call(`PATCH ${path(user)}`, { raw: JSON.stringify([{ op: "add", path: "/list/-", value }]), headers: { "content-type": "application/json-patch+json" } });
    const numbers = Array.from({ length: 10 }, (_, n) => n);
    for (const answer of await Promise.all(numbers.map(add))) expect(answer.status, answer.text).toBe(200);
    expect((await get(user)).body.list.toSorted()).toEqual(numbers);
    await call("DELETE /v1/settings/preference-defaults");
  });
});

describe("mixed modes", () => {
  test("what was set without strong mode counts in it", async () => {
    const user = fresh("user");
    const tag = (await around(user, { theme: "dark" })).headers.get("etag")!;
    expect((await patch(user, { language: "fr" }, ifMatch(tag))).body).toMatchObject({ theme: "dark", language: "fr" });
    await expect.poll(async () => (await eventual(user)).body.language).toBe("fr");
    await around(user, { timezone: "Europe/Rome" });
    expect((await get(user)).body).toMatchObject({ theme: "dark", language: "fr", timezone: "Europe/Rome" });
  });

  test("clearing without strong mode clears in it", async () => {
    const user = fresh("user");
    await patch(user, { theme: "dark" });
    await expect.poll(async () => (await eventual(user)).body.theme).toBe("dark");
    await call(`DELETE ${path(user, "")}`);
    expect((await get(user)).body.theme).toBe("light");
  });

  test("a day after the last change the object has forgotten everything, and nothing is lost", async () => {
    const user = fresh("user");
    await patch(user, { theme: "dark" });
    await expect.poll(async () => (await eventual(user)).body.theme).toBe("dark");
    const kept = () => runInDurableObject(object(user), (_, state) => [...state.storage.sql.exec("SELECT name FROM sqlite_master WHERE name = 'kept'")].length);
    expect(await kept()).toBe(1);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + DAY_MILLIS + 1000 });
    expect(await runDurableObjectAlarm(object(user))).toBe(true);
    expect(await kept()).toBe(0);
    expect((await get(user)).body.theme).toBe("dark");
  });
});

describe("failures and hostile input", () => {
  const faults = (plan: string) => ({ headers: { "x-test-faults": plan } });

  test("503 when the object does not answer; what is lost on the way is asked again where that does no harm", async () => {
    const user = fresh("user");
    for (const fault of ["down", "throttled"]) {
      expect(problem(await get(user, faults(`PREFERENCE.ask=${fault}`)))).toBe("503 unavailable");
      expect(problem(await patch(user, { theme: "dark" }, faults(`PREFERENCE.ask=${fault}`)))).toBe("503 unavailable");
    }
    expect((await get(user)).body.theme).toBe("light");
    expect((await patch(user, { theme: "dark" }, faults("PREFERENCE.ask=after"))).body.theme).toBe("dark");
    const headers = { ...ifMatch(await tagOf(user)).headers, ...faults("PREFERENCE.ask=after").headers };
    expect(problem(await patch(user, { theme: "system" }, { headers }))).toBe("503 unavailable");
    expect((await get(user)).body.theme).toBe("system");
  });

  test("503 while KV does not answer, 400 with the field as without strong mode", async () => {
    const user = fresh("user");
    expect(problem(await get(user, faults("CONFIG.get=down")))).toBe("503 unavailable");
    expect(problem(await patch(user, { theme: "pink" }))).toBe("400 invalid-request theme");
    expect(problem(await patch(user, { colour: 1 }))).toBe("400 invalid-request colour");
    expect(problem(await patch(user, JSON.parse('{"__proto__":{"admin":true}}')))).toBe("400 invalid-request __proto__");
    const failed = { raw: '[{"op":"test","path":"/theme","value":"dark"}]', headers: { "content-type": "application/json-patch+json" } };
    expect(problem(await call(`PATCH ${path(user)}`, failed))).toBe("409 patch-test-failed");
    for (const method of ["GET", "PATCH", "PUT", "DELETE"]) {
      const body = method === "GET" || method === "DELETE" ? undefined : {};
      expect(problem(await call(`${method} ${path(user, "?mode=exact")}`, { body }))).toBe("400 invalid-request mode");
    }
  });

  test("tenants have objects of their own", async () => {
    const user = fresh("user");
    await patch(user, { theme: "dark" });
    expect((await get(user, { token: "other-token" })).body.theme).toBe("light");
  });
});

// Goal: the flag routes and OFREP keep their contract in the built Worker, also for hostile input and a failing KV.
// Method: plain requests, each test with a tenant's document of its own making; real clients are in flag.clients.test.ts.
import { beforeEach, describe, expect, test } from "vitest";
import { type Answer, type Call, call, cost, problem } from "./client";

const flag = (defaultVariant: string | null = "off", more: object = {}) => ({
  state: "ENABLED",
  variants: { on: true, off: false },
  ...(defaultVariant === null ? {} : { defaultVariant }),
  ...more,
});

const plan = { if: [{ "==": [{ var: "plan" }, "pro"] }, "on", "off"] };

/** Stores a document, whatever was there. */
async function store(flags: object, more: object = {}, options: Call = {}): Promise<Answer> {
  const answer = await call("PUT /v1/flags", { ...options, body: { flags, ...more } });
  expect([200, 201]).toContain(answer.status);
  return answer;
}

const single = (key: string, context?: unknown, options: Call = {}) =>
  call(`POST /ofrep/v1/evaluate/flags/${key}`, { body: { context }, ...options });
const bulk = (context?: unknown, options: Call = {}) => call("POST /ofrep/v1/evaluate/flags", { body: { context }, ...options });

describe("documents", () => {
  test("a document is stored, read, conditional, and names its revision", async () => {
    const stored = await store({ a: flag(), n: { state: "ENABLED", variants: { x: 1.5 }, defaultVariant: "x" } });
    expect(stored.body).toEqual({ revision: expect.any(String), sequence: expect.any(Number), updatedAt: expect.any(Number) });
    expect(stored.headers.get("etag")).toBe(`"${stored.body.revision}"`);
    const read = await call("GET /v1/flags");
    expect([read.status, read.headers.get("etag"), read.headers.get("consistency")]).toEqual([200, stored.headers.get("etag"), "eventual"]);
    expect(read.body.flags.a).toEqual(flag());
    const known = { "if-none-match": read.headers.get("etag")! };
    expect((await call("GET /v1/flags", { headers: known })).status).toBe(304);
    expect(problem(await call("PUT /v1/flags", { body: { flags: {} }, headers: { "if-match": '"old"' } }))).toBe("412 precondition-failed");
    expect((await call("PUT /v1/flags", { body: { flags: {} }, headers: { "if-match": read.headers.get("etag")! } })).status).toBe(200);
  });

  test("storing what seems to be there is written all the same: it may be stale", async () => {
    const first = await store({ same: flag() });
    const again = await store({ same: flag() });
    expect(cost(again)).toBe("r=1 w=2 d=0 l=0");
    expect([again.body.revision, again.body.sequence > first.body.sequence]).toEqual([first.body.revision, true]);
  });

  test("a flag is made, read, changed on a condition, and removed", async () => {
    await store({});
    const path = "/v1/flags/a%2Fb";
    expect((await call(`PUT ${path}`, { body: flag(), headers: { "if-none-match": "*" } })).status).toBe(201);
    const read = await call(`GET ${path}`);
    expect([read.status, read.body]).toEqual([200, flag()]);
    expect(problem(await call(`PUT ${path}`, { body: flag("on"), headers: { "if-none-match": "*" } }))).toBe("412 precondition-failed");
    expect((await call(`PUT ${path}`, { body: flag("on"), headers: { "if-match": read.headers.get("etag")! } })).status).toBe(200);
    expect(problem(await call(`DELETE ${path}`, { headers: { "if-match": read.headers.get("etag")! } }))).toBe("412 precondition-failed");
    expect((await call(`DELETE ${path}`)).status).toBe(204);
    expect(problem(await call(`GET ${path}`))).toBe("404 not-found");
    expect(problem(await call(`DELETE ${path}`))).toBe("404 not-found");
  });

  test("a flag may be called like a route", async () => {
    await store({ revisions: flag("on"), rollback: flag() });
    expect((await call("GET /v1/flags/%72evisions")).body).toEqual(flag("on"));
    expect((await call("GET /v1/flags/rollback")).body).toEqual(flag());
    expect((await call("GET /v1/flags/revisions")).body.items).toBeInstanceOf(Array);
    expect((await single("revisions")).body.variant).toBe("on");
  });

  test("an override serves one user and collides with no name", async () => {
    await store({ f: flag() });
    for (const user of ["default", "config"]) {
      expect((await call(`PUT /v1/flags/f/overrides/${user}`, { body: { variant: "on" } })).status).toBe(200);
      expect((await single("f", { targetingKey: user })).body).toMatchObject({ value: true, reason: "TARGETING_MATCH" });
      expect((await single("f", { targetingKey: "somebody" })).body.value).toBe(false);
    }
    expect((await call("DELETE /v1/flags/f/overrides/default")).status).toBe(204);
    expect((await single("f", { targetingKey: "default" })).body.value).toBe(false);
    expect(problem(await call("PUT /v1/flags/f/overrides/u", { body: { variant: "no" } }))).toBe("400 invalid-request variant");
    expect(problem(await call("PUT /v1/flags/g/overrides/u", { body: { variant: "on" } }))).toBe("404 not-found");
    expect(problem(await call("PUT /v1/flags/f/overrides/u", { body: {} }))).toBe("400 invalid-request variant");
  });

  test("overrides and rollbacks are made under conditions too, each on the tag of what it changes", async () => {
    const first = await store({ f: flag() });
    const stale = (await call("GET /v1/flags/f")).headers.get("etag")!;
    const change = (tag: string) => ({ headers: { "if-match": tag } });
    const over = await call("PUT /v1/flags/f/overrides/u", { body: { variant: "on" }, ...change(stale) });
    expect([over.status, over.headers.get("etag")]).toEqual([200, (await call("GET /v1/flags/f")).headers.get("etag")]);
    const refused = [
      await call("PUT /v1/flags/f/overrides/u", { body: { variant: "off" }, ...change(stale) }),
      await call("DELETE /v1/flags/f/overrides/u", change(stale)),
      await call("POST /v1/flags/rollback", { body: { revision: first.body.revision }, ...change(first.headers.get("etag")!) }),
    ];
    expect(refused.map(problem)).toEqual(refused.map(() => "412 precondition-failed"));
    expect((await single("f", { targetingKey: "u" })).body.value).toBe(true);
    const now = (await call("GET /v1/flags")).headers.get("etag")!;
    const back = await call("POST /v1/flags/rollback", { body: { revision: first.body.revision }, ...change(now) });
    expect([back.status, back.headers.get("etag")]).toEqual([200, first.headers.get("etag")]);
  });

  test("history and rollback", async () => {
    const first = await store({ f: flag("on") });
    await store({ f: flag("off") });
    const list = await call("GET /v1/flags/revisions?limit=1");
    expect(list.body.items).toHaveLength(1);
    const next = await call(`GET /v1/flags/revisions?limit=1&cursor=${list.body.cursor}`);
    expect(next.body.items[0]).toEqual(first.body);
    const back = await call("POST /v1/flags/rollback", { body: { revision: first.body.revision } });
    expect([back.status, back.body.revision]).toEqual([200, first.body.revision]);
    expect(back.body.sequence).toBeGreaterThan(list.body.items[0].sequence);
    expect((await single("f")).body.value).toBe(true);
    expect(problem(await call("POST /v1/flags/rollback", { body: { revision: "none" } }))).toBe("404 not-found");
    expect(problem(await call("POST /v1/flags/rollback", { body: {} }))).toBe("400 invalid-request revision");
  });

  test("what is wrong is refused with its place", async () => {
    const refused = async (flags: unknown, more: object = {}) => problem(await call("PUT /v1/flags", { body: { flags, ...more } }));
    const rule = (targeting: unknown) => refused({ f: flag("off", { targeting }) });
    expect(await refused({ f: { ...flag(), variants: { on: true, off: "no" } } })).toBe("400 invalid-request /flags/f/variants/on");
    expect(await refused({ f: flag("nope") })).toBe("400 invalid-request /flags/f/defaultVariant");
    expect(await refused({ f: { ...flag(), key: 5 } })).toBe("400 invalid-request /flags/f/key");
    expect(await refused({ f: flag() }, { settings: { bucketing: "v9" } })).toBe("400 invalid-request /settings/bucketing");
    expect(await rule({ nonsense: [] })).toBe("400 invalid-request /flags/f/targeting/nonsense");
    expect(await rule({ $ref: "gone" })).toMatch(/^400 invalid-request \/flags\/f\/targeting/);
    expect(await rule({ fractional: [["on", 2 ** 31], ["off", 1]] })).toMatch(/^400 invalid-request \/flags\/f\/targeting/);
    expect(await rule({ fractional: [["on", -1], ["off", 1]] })).toMatch(/^400 invalid-request \/flags\/f\/targeting/);
    expect(await rule({ if: [true, "gone", "off"] })).toMatch(/^400 invalid-request \/flags\/f\/targeting/);
    const circle = { $evaluators: { a: { $ref: "b" }, b: { $ref: "a" } } };
    expect(await refused({ f: flag() }, circle)).toMatch(/^400 invalid-request \/\$evaluators/);
    const wrong = async (path: string, body: object) => {
      const answer = await call(`PUT /v1/flags/${path}`, { body });
      return [problem(answer), answer.body.detail];
    };
    expect(await wrong("f", { ...flag(), typo: 1 })).toEqual(["400 invalid-request typo", "Unknown member."]);
    expect(await wrong("f", { ...flag(), state: "ON" })).toEqual(["400 invalid-request state", 'Must be "ENABLED" or "DISABLED".']);
    await call("PUT /v1/flags/f", { body: flag() });
    const gone = ["400 invalid-request variant", "Must be the name of one of the variants."];
    expect(await wrong("f/overrides/u", { variant: "gone" })).toEqual(gone);
    const raw = async (text: string) => problem(await call("PUT /v1/flags", { raw: text, headers: { "content-type": "application/json" } }));
    expect(await raw('{"flags":{"a":1,"a":2}}')).toBe("400 malformed-json a");
    expect(await raw("{1:2}")).toBe("400 malformed-json");
    expect(await raw("[".repeat(1_000_000))).toBe("400 malformed-json");
    expect(await raw(" ".repeat(5_000_000))).toBe("413 too-large");
    expect(problem(await call("PUT /v1/flags", { raw: "x", headers: { "content-type": "text/plain" } }))).toBe("415 unsupported-media-type");
  });

  test("a rule nested deeply or enormous is refused in bounded time", async () => {
    let deep: unknown = "on";
    for (let level = 0; level < 60; level++) deep = { if: [true, deep, "off"] };
    const wide = { or: Array.from({ length: 30_000 }, () => ({ var: "x" })) };
    for (const targeting of [deep, wide]) {
      const start = Date.now();
      const answer = await call("PUT /v1/flags", { body: { flags: { f: flag("off", { targeting }) } } });
      expect(answer.status).toBe(400);
      expect(Date.now() - start).toBeLessThan(2000);
    }
  });

  test("scopes and tenants", async () => {
    await store({ mine: flag() });
    expect(problem(await call("GET /v1/flags", { token: "read-token" }))).toBe("403 forbidden");
    expect((await call("GET /v1/flags/mine", { token: "flags-token" })).status).toBe(200);
    expect(problem(await call("GET /v1/flags/mine", { token: "other-token" }))).toBe("404 not-found");
    expect((await single("mine", {}, { token: "other-token" })).body.errorCode).toBe("FLAG_NOT_FOUND");
    expect(problem(await call("GET /v1/flags", { token: null }))).toBe("401 unauthorized");
    expect(problem(await call("PATCH /v1/flags"))).toBe("405 method-not-allowed");
  });

  test("without KV an edit says so and changes nothing", async () => {
    await store({ f: flag("on") });
    for (const faults of ["CONFIG.put=down", "CONFIG.get=down"]) {
      const answer = await call("PUT /v1/flags/f", { body: flag("off"), headers: { "x-test-faults": faults } });
      expect([problem(answer), answer.headers.get("retry-after")]).toEqual(["503 unavailable", "5"]);
    }
    expect((await single("f")).body.value).toBe(true);
  });
});

describe("single evaluation", () => {
  test("answers carry value, variant, reason and metadata, numbers as they were spelled", async () => {
    const numbers = { state: "ENABLED", variants: { i: 1, f: 1.0 }, defaultVariant: "f" };
    // JSON.stringify would write 1.0 as 1.
    const document = JSON.stringify({ flags: { numbers, typed: flag("on", { metadata: { team: "x" } }) }, metadata: { version: "7" } });
    const raw = document.replace('"f":1}', '"f":1.0}');
    expect((await call("PUT /v1/flags", { raw, headers: { "content-type": "application/json" } })).status).toBeLessThan(300);
    expect((await single("numbers")).text).toBe('{"key":"numbers","value":1.0,"reason":"STATIC","variant":"f","metadata":{"version":"7"}}');
    expect((await single("typed")).body).toEqual({ key: "typed", value: true, reason: "STATIC", variant: "on", metadata: { team: "x", version: "7" } });
  });

  test("a key is taken encoded or not", async () => {
    await store({ "a/b c": flag("on") });
    for (const key of ["a/b%20c", "a%2Fb%20c"]) expect((await single(key)).body).toMatchObject({ key: "a/b c", value: true });
  });

  test("no value is an empty variant, unless the set serves the default", async () => {
    const off = { ...flag("on"), state: "DISABLED" };
    await store({ off, bare: flag(null) });
    expect((await single("off")).body).toEqual({ key: "off", reason: "DISABLED", variant: "" });
    expect((await single("bare")).body).toEqual({ key: "bare", reason: "DEFAULT", variant: "" });
    await store({ off }, { settings: { serveDefaultWhenDisabled: true } });
    expect((await single("off")).body).toEqual({ key: "off", reason: "DISABLED", variant: "on", value: true });
  });

  test("failures have the protocol's form", async () => {
    await store({ f: flag("off", { targeting: { "+": [{ var: "n" }, 1] } }) });
    const failure = ({ status, headers, body }: Answer) => [status, headers.get("content-type"), body.key, body.errorCode, typeof body.errorDetails];
    const json = "application/json";
    expect(failure(await single("none"))).toEqual([404, json, "none", "FLAG_NOT_FOUND", "string"]);
    expect(failure(await single("f", [1]))).toEqual([400, json, "f", "INVALID_CONTEXT", "string"]);
    expect(failure(await single("f", { targetingKey: 7 }))).toEqual([400, json, "f", "INVALID_CONTEXT", "string"]);
    expect(failure(await single("f", {}, { raw: "{" }))).toEqual([400, json, "f", "PARSE_ERROR", "string"]);
    expect(failure(await single("f", {}, { raw: "{1:2}" }))).toEqual([400, json, "f", "PARSE_ERROR", "string"]);
    expect(failure(await single("f", {}, { raw: "[]" }))).toEqual([400, json, "f", "PARSE_ERROR", "string"]);
    expect(failure(await single("f", { n: "x" }))).toEqual([400, json, "f", "GENERAL", "string"]);
    expect(failure(await single("f", {}, { token: null }))).toEqual([401, json, "f", "GENERAL", "string"]);
    expect(failure(await single("f", {}, { token: "read-token" }))).toEqual([403, json, "f", "GENERAL", "string"]);
    expect(failure(await call("POST /ofrep/v1/nothing"))).toEqual([404, json, undefined, "GENERAL", "string"]);
    expect(failure(await call("GET /ofrep/v1/evaluate/flags"))).toEqual([405, json, undefined, "GENERAL", "string"]);
  });

  test("a context of a megabyte is refused, one without anything is taken", async () => {
    await store({ f: flag("on") });
    for (const size of [300_000, 1_000_000, 5_000_000]) {
      const huge = await single("f", { targetingKey: "u", text: Array.from({ length: size / 1000 }, () => "x".repeat(1000)) });
      expect([huge.status, huge.body.errorCode]).toEqual([400, "INVALID_CONTEXT"]);
    }
    let deep: unknown = 1;
    for (let level = 0; level < 200; level++) deep = [deep];
    expect((await single("f", { deep })).body.errorCode).toBe("PARSE_ERROR");
    for (const raw of ["", "{}", '{"context":{}}', '{"context":null}']) {
      expect((await single("f", {}, { raw })).body.value).toBe(true);
    }
  });

  test("the place of the request is the platform's word", async () => {
    await store({ f: flag("off", { targeting: { if: [{ "==": [{ var: "cf.country" }, "XX"] }, "on", "off"] } }) });
    expect((await single("f", { cf: { country: "XX" } })).body.value).toBe(false);
  });

  test("an API key is as good as a bearer token, here only", async () => {
    await store({ f: flag("on") });
    const key = { token: null, headers: { "x-api-key": "dev-token" } };
    expect((await single("f", {}, key)).body.value).toBe(true);
    expect((await call("GET /v1/flags", key)).status).toBe(401);
    expect((await single("f", {}, { token: null, headers: { "x-api-key": "wrong" } })).status).toBe(401);
  });
});

describe("bulk evaluation", () => {
  test("all flags in one answer, the wrong ones as failures, with or without a slash", async () => {
    await store({ a: flag("on"), b: flag("off", { targeting: { "+": [{ var: "n" }, 1] } }) }, { metadata: { set: "s" } });
    for (const path of ["/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/"]) {
      const answer = await call(`POST ${path}`, { body: { context: { n: "x" } } });
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "application/json"]);
      expect(answer.body).toEqual({
        flags: [
          { key: "a", value: true, reason: "STATIC", variant: "on", metadata: { set: "s" } },
          { key: "b", errorCode: "GENERAL", errorDetails: expect.any(String), metadata: { set: "s" } },
        ],
        metadata: { set: "s" },
      });
    }
    expect((await bulk([])).body).toEqual({ errorCode: "INVALID_CONTEXT", errorDetails: expect.any(String) });
  });

  test("two hundred flags cost at most one read and no write, then none", async () => {
    const flags = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`flag${i}`, flag("off", { targeting: plan })]));
    await store(flags);
    const first = await bulk({ targetingKey: "u", plan: "pro" });
    expect(first.body.flags.every((item: { value: boolean }) => item.value)).toBe(true);
    expect(["r=0 w=0 d=0 l=0", "r=1 w=0 d=0 l=0"]).toContain(cost(first));
    expect(cost(await bulk({ targetingKey: "u" }))).toBe("r=0 w=0 d=0 l=0");
    expect(cost(await single("flag7", {}))).toBe("r=0 w=0 d=0 l=0");
  });

  test("a tag is good for this context and document only", async () => {
    await store({ f: flag("off", { targeting: plan }) });
    const free = await bulk({ targetingKey: "u", plan: "free" });
    const tag = free.headers.get("etag")!;
    const status = async (context: object, known: string) => (await bulk(context, { headers: { "if-none-match": known } })).status;
    const bare = tag.slice(1, -1);
    for (const known of [tag, `W/${tag}`, bare, `"x", ${tag}`, "*"]) expect(await status({ plan: "free", targetingKey: "u" }, known)).toBe(304);
    const not = await bulk({ targetingKey: "u", plan: "free" }, { headers: { "if-none-match": tag } });
    expect([not.text, not.headers.get("etag")]).toEqual(["", tag]);
    expect(await status({ targetingKey: "u", plan: "pro" }, tag)).toBe(200);
    await store({ f: flag("on") });
    expect(await status({ targetingKey: "u", plan: "free" }, tag)).toBe(200);
  });

  test("where a rule reads the time, the tag is that of the answer, not of the question", async () => {
    const past = { if: [{ ">=": [{ var: "$flagd.timestamp" }, 1] }, "on", "off"] };
    const tags = async () => Promise.all([{ plan: "a" }, { plan: "b" }].map(async (context) => (await bulk(context)).headers.get("etag")!));
    await store({ f: flag("off", { targeting: past }) });
    const [first, second] = await tags();
    expect(first).toBe(second);
    expect((await bulk({}, { headers: { "if-none-match": first! } })).status).toBe(304);
    const never = { if: [{ ">=": [{ var: "$flagd.timestamp" }, 1e12] }, "on", "off"] };
    await store({ f: flag("off", { targeting: never }) });
    expect((await bulk({}, { headers: { "if-none-match": first! } })).status).toBe(200);
    await store({ f: flag("off", { targeting: plan }) });
    const [third, fourth] = await tags();
    expect(third).not.toBe(fourth);
  });

  test("browsers may send If-None-Match and read ETag", async () => {
    const env = { "x-test-env": JSON.stringify({ CORS_ORIGINS: "https://app.example" }), origin: "https://app.example" };
    const preflight = await call("OPTIONS /ofrep/v1/evaluate/flags", { token: null, headers: env });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get("access-control-allow-headers")).toMatch(/If-None-Match.*X-API-Key/);
    await store({ f: flag() });
    const answer = await bulk({}, { headers: env });
    expect(answer.headers.get("access-control-expose-headers")).toContain("ETag");
  });
});

describe("a failing KV", () => {
  beforeEach(async () => void (await store({ f: flag("on") }, {}, { token: "other-token" })));

  test("is not noticed by an isolate that has the document", async () => {
    const down = { token: "other-token", headers: { "x-test-faults": "CONFIG.get=down" } };
    const answer = await single("f", {}, down);
    expect([answer.status, answer.body.value, answer.headers.get("consistency")]).toEqual([200, true, "eventual"]);
  });

  test("is a 503 that OpenFeature clients can read where nothing is known", async () => {
    // A tenant nobody has asked about in this isolate.
    const tokens = { fresh: { sha256: await sha256("fresh-token"), tenant: crypto.randomUUID(), scopes: ["flags:read"] } };
    const headers = { "x-test-faults": "CONFIG.get=down", "x-test-env": JSON.stringify({ API_TOKENS: JSON.stringify(tokens) }) };
    const answer = await single("f", {}, { token: "fresh-token", headers });
    expect([answer.status, answer.headers.get("retry-after"), answer.body.key, answer.body.errorCode]).toEqual([503, "5", "f", "GENERAL"]);
    const edit = await call("PUT /v1/flags", { token: "fresh-token", headers, body: { flags: {} } });
    expect(problem(edit)).toBe("403 forbidden");
  });
});

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// What every route has in common: who may call, ids of requests, CORS, methods, bodies, health.
import { describe, expect, test } from "vitest";
import example from "../../.dev.vars.example?raw";
import { call, cost, fresh, problem, type Call } from "./client.ts";

const BINDINGS = ["CACHE", "CONFIG", "COUNTERS", "REPLICA_ASIA", "REPLICA_EU", "REPLICA_US", "SESSIONS"];
const LIST = "GET /v1/users/alice/sessions";

const variables = (values: object): Record<string, string> => ({ "x-test-env": JSON.stringify(values) });

describe("who may call", () => {
  const bad = ["", "Bearer", "Bearer ", "Basic ZGV2LXRva2Vu", "dev-token", "Bearer dev-token2", "Bearer DEV-TOKEN", "Bearer dev-token x",
    "Bearerdev-token", "Bearer ÿ", `Bearer ${"x".repeat(10_000)}`, "Bearer c91cbbedf8c712e8e2b7517ddeca8fe4fde839ebd8339e0b2001363002b37712"];
  test.each(bad)("not `Authorization: %s`", async (authorization) => {
    const answer = await call(LIST, { token: null, headers: { authorization } });
    expect(problem(answer)).toBe("401 unauthorized");
    expect(cost(answer)).toBe("r=0 w=0 d=0 l=0");
  });

  test("nobody without the header", async () => {
    expect(problem(await call(LIST, { token: null }))).toBe("401 unauthorized");
  });

  test.each(["Bearer", "bearer", "BEARER"])("the scheme as %s", async (scheme) => {
    expect((await call(LIST, { token: null, headers: { authorization: `${scheme} dev-token` } })).status).toBe(200);
  });

  const routes: [string, Call, string][] = [
    ["POST /v1/sessions", { body: { userId: "a" } }, "sessions"],
    ["POST /v1/sessions/verify", { body: { token: "x" } }, "sessions:read"],
    ["POST /v1/sessions/refresh", { body: { token: "x" } }, "sessions"],
    ["POST /v1/sessions/rotate", { body: { token: "x" } }, "sessions"],
    ["POST /v1/sessions/revoke", { body: { token: "x" } }, "sessions"],
    [LIST, {}, "sessions:read"],
    ["DELETE /v1/users/alice/sessions", {}, "sessions"],
    ["DELETE /v1/users/alice/sessions/x", {}, "sessions"],
  ];
  test.each(routes)("%s: the scopes decide", async (route, options, scope) => {
    const flags = await call(route, { ...options, token: "flags-token" });
    expect(problem(flags)).toBe("403 forbidden");
    expect(flags.body.detail).toBe(`The scope \`${scope}\` is needed.`);
    const read = await call(route, { ...options, token: "read-token" });
    if (scope.endsWith(":read")) expect(read.status).not.toBe(403);
    else expect(problem(read)).toBe("403 forbidden");
    expect(cost(flags)).toBe("r=0 w=0 d=0 l=0");
  });

  test("`dev-token`, as whoever starts it here first", async () => {
    const tokens = /^API_TOKENS='(.*)'$/m.exec(example)![1]!;
    expect(Object.values(JSON.parse(tokens))).toEqual([{ sha256: expect.any(String), tenant: "dev", scopes: ["*"] }]);
    expect((await call("POST /v1/sessions", { body: { userId: "a" }, headers: variables({ API_TOKENS: tokens }) })).status).toBe(201);
  });

  test("which paths exist is told to callers only", async () => {
    expect(problem(await call("GET /v1/nothing", { token: null }))).toBe("401 unauthorized");
    expect(problem(await call("GET /v1/nothing"))).toBe("404 not-found");
  });
});

describe("a deployment that is not complete", () => {
  const hash = "a".repeat(64);
  const entry = { sha256: hash, tenant: "dev", scopes: ["*"] };
  const malformed: [string, unknown][] = [
    ["missing", null],
    ["empty", ""],
    ["no JSON", "{"],
    ["a list", "[]"],
    ["an entry that is no object", JSON.stringify({ a: "x" })],
    ["an entry without scopes", JSON.stringify({ a: { ...entry, scopes: undefined } })],
    ["a short hash", JSON.stringify({ a: { ...entry, sha256: hash.slice(1) } })],
    ["a hash that is not hex", JSON.stringify({ a: { ...entry, sha256: "z".repeat(64) } })],
    ["an empty tenant", JSON.stringify({ a: { ...entry, tenant: "" } })],
    ["a tenant with a control character", JSON.stringify({ a: { ...entry, tenant: "a\n" } })],
    ["one good entry and one bad", JSON.stringify({ a: entry, b: { ...entry, tenant: 7 } })],
  ];
  test.each(malformed)("answers 503 where API_TOKENS is %s, to everything but /health", async (_, value) => {
    const headers = variables({ API_TOKENS: value });
    for (const route of [LIST, "POST /v1/sessions", "GET /openapi.json", "GET /nothing", "OPTIONS /v1/sessions"]) {
      const answer = await call(route, { headers });
      expect(problem(answer), route).toBe("503 not-configured");
      expect(answer.body.detail).toContain("API_TOKENS");
    }
    expect((await call("GET /health", { headers })).status).toBe(200);
    expect(problem(await call("GET /health?deep=1", { headers }))).toBe("401 unauthorized");
  });

  test("API_TOKENS may be a JSON variable instead of text", async () => {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode("a token")));
    const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("").toUpperCase();
    const headers = variables({ API_TOKENS: { app: { ...entry, sha256, scopes: ["*:read"] } } });
    expect((await call(LIST, { token: "a token", headers })).status).toBe(200);
    expect(problem(await call("POST /v1/sessions", { token: "a token", headers, body: { userId: "a" } }))).toBe("403 forbidden");
    expect(problem(await call(LIST, { headers }))).toBe("401 unauthorized");
  });

  test("a missing namespace is named to the caller", async () => {
    const answer = await call(LIST, { headers: variables({ SESSIONS: null }) });
    expect(problem(answer)).toBe("503 not-configured");
    expect(answer.body.detail).toContain("`SESSIONS`");
  });
});

describe("request ids", () => {
  test.each(["a", "abc-1._X", "x".repeat(128)])("keeps %s", async (id) => {
    for (const route of ["GET /health", LIST, "GET /nothing"]) {
      expect((await call(route, { headers: { "x-request-id": id } })).headers.get("x-request-id")).toBe(id);
    }
  });

  test.each(["", "x".repeat(129), "a b", "a,b", 'a"b', "é", "a\tb", "<script>"])("replaces %j", async (id) => {
    const ids = await Promise.all([1, 2].map(async () => {
      return (await call("GET /health", { headers: { "x-request-id": id } })).headers.get("x-request-id");
    }));
    expect(ids).toEqual([expect.stringMatching(/^[0-9a-f]{32}$/), expect.stringMatching(/^[0-9a-f]{32}$/)]);
    expect(ids[0]).not.toBe(ids[1]);
  });
});

describe("methods and paths", () => {
  test.each(["GET /health", "GET /openapi.json", LIST])("HEAD of %s has the same head and no body", async (route) => {
    const [get, head] = [await call(route), await call(route.replace("GET", "HEAD"))];
    expect([head.status, head.text]).toEqual([200, ""]);
    // On the wire a GET has its length too; the runtime adds it there.
    expect(head.headers.get("content-length")).toBe(String(new TextEncoder().encode(get.text).length));
    expect([...head.headers.keys()].filter((name) => name !== "content-length")).toEqual([...get.headers.keys()]);
    expect(head.headers.get("content-type")).toBe("application/json");
    expect(cost(head)).toBe(cost(get));
  });

  const allowed: [string, string][] = [
    ["/health", "GET, HEAD, OPTIONS"],
    ["/openapi.json", "GET, HEAD, OPTIONS"],
    ["/v1/sessions", "POST, OPTIONS"],
    ["/v1/sessions/verify", "POST, OPTIONS"],
    ["/v1/users/a/sessions", "GET, HEAD, DELETE, OPTIONS"],
    ["/v1/users/a%2Fb/sessions/c", "DELETE, OPTIONS"],
  ];
  test.each(allowed)("%s takes %s", async (path, allow) => {
    const options = await call(`OPTIONS ${path}`, { token: null });
    expect([options.status, options.text, options.headers.get("allow")]).toEqual([204, "", allow]);
    const others = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "PROPFIND"].filter((method) => !allow.split(", ").includes(method));
    for (const method of others) {
      const answer = await call(`${method} ${path}`);
      expect([answer.status, answer.headers.get("allow")], method).toEqual([405, allow]);
    }
  });

  const nowhere = ["/", "/v1", "/v1/", "/v2/sessions", "/v1/sessions/", "/v1/sessions/verify/", "/v1/sessions/verify/x", "/v1/sessions/unknown",
    "//v1/sessions", "/V1/sessions", "/v1/Sessions", "/v1/sessions%2Fverify", "/v1/users", "/v1/users/a", "/v1/users/a/sessions/b/c",
    "/health/", "/health/x", "/healthy", "/__proto__", "/constructor", "/v1/constructor", "/favicon.ico", "/v1/users/a/sessions/"];
  test.each(nowhere)("%s is nowhere", async (path) => {
    for (const method of ["GET", "POST", "OPTIONS"]) {
      expect(problem(await call(`${method} ${path}`)), method).toBe("404 not-found");
    }
  });
});

describe("CORS", () => {
  const origin = "https://app.example";
  const headers = { ...variables({ CORS_ORIGINS: `https://other.example , ${origin}` }), origin };

  test("an origin of the list may read", async () => {
    for (const route of ["GET /health", LIST, "GET /nothing"]) {
      const answer = await call(route, { headers });
      expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
      // What the contract names: without this no script sees it.
      expect(answer.headers.get("access-control-expose-headers")!.split(", ")).toEqual(expect.arrayContaining(["ETag", "Retry-After", "RateLimit",
        "RateLimit-Policy", "X-Request-Id", "Server-Timing", "Consistency", "Age", "Cache-Status", "X-Cache", "Document-Version", "Migrated-From", "Replica"]));
      expect(answer.headers.get("vary")).toBe("Origin");
      expect(answer.headers.get("access-control-allow-credentials")).toBe(null);
    }
  });

  test("a preflight needs no token and names methods and headers", async () => {
    const preflight = { ...headers, "access-control-request-method": "POST", "access-control-request-headers": "authorization" };
    const answer = await call("OPTIONS /v1/sessions", { token: null, headers: preflight });
    expect(answer.status).toBe(204);
    expect(answer.headers.get("access-control-allow-origin")).toBe(origin);
    expect(answer.headers.get("access-control-allow-methods")).toBe("GET, HEAD, POST, PUT, PATCH, DELETE");
    for (const name of ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Idempotency-Key", "Origin-Authorization", "X-Request-Id"]) {
      expect(answer.headers.get("access-control-allow-headers")).toContain(name);
    }
    expect(answer.headers.get("access-control-max-age")).toBe("86400");
    expect(cost(answer)).toBe("r=0 w=0 d=0 l=0");
  });

  const foreign = ["https://evil.example", "https://app.example.evil.example", "http://app.example", "https://APP.example", "null",
    "https://app.example:8443", "https://other.example , https://app.example", ""];
  test.each(foreign)("the origin %j gets no word", async (text) => {
    for (const route of ["GET /health", "OPTIONS /v1/sessions"]) {
      const answer = await call(route, { headers: { ...headers, origin: text } });
      expect([...answer.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
      expect(answer.headers.get("vary")).toBe("Origin");
    }
  });

  test("without a list there is no CORS at all, also for an empty origin", async () => {
    for (const text of [origin, ""]) {
      const answer = await call("GET /health", { headers: { origin: text } });
      expect([...answer.headers.keys()].filter((name) => name.startsWith("access-control") || name === "vary")).toEqual([]);
    }
  });
});

describe("bodies", () => {
  const LIMIT = 65_536;
  /** A good body of so many bytes. */
  const padded = (bytes: number) => `{"userId":"alice"${" ".repeat(bytes - 18)}}`;
  const streamed = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    return new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += 10_000) controller.enqueue(bytes.slice(at, at + 10_000));
        controller.close();
      },
    });
  };

  test("of 65536 bytes are taken, with a length and without", async () => {
    const text = padded(LIMIT);
    expect(text.length).toBe(LIMIT);
    expect((await call("POST /v1/sessions", { raw: text, headers: { "content-length": String(LIMIT) } })).status).toBe(201);
    expect((await call("POST /v1/sessions", { raw: streamed(text) })).status).toBe(201);
  });

  test("of one byte more are refused, with a length and without", async () => {
    const text = padded(LIMIT + 1);
    const told = await call("POST /v1/sessions", { raw: text, headers: { "content-length": String(LIMIT + 1) } });
    const untold = await call("POST /v1/sessions", { raw: streamed(text) });
    for (const answer of [told, untold]) expect(problem(answer)).toBe("413 too-large");
    expect(told.body.detail).toContain("65536");
  });

  test("without an end are given up some megabytes past the limit", async () => {
    let sent = 0;
    const endless = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array((sent += 100_000) && 100_000).fill(32)) });
    expect(problem(await call("POST /v1/sessions", { raw: endless }))).toBe("413 too-large");
    // Up to there it is read, so that a client that can only send hears the answer.
    expect(sent).toBeLessThan(9 * 1024 * 1024);
  });

  test.each(["text/plain", "application/xml", "application/jsonx", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "json"])(
    "of the type %j are refused",
    async (type) => {
      const answer = await call("POST /v1/sessions", { raw: padded(100), headers: { "content-type": type } });
      expect(problem(answer)).toBe("415 unsupported-media-type");
    },
  );

  test.each(["application/json", "Application/JSON; charset=utf-8", " application/json ;x=y"])("of the type %j are taken", async (type) => {
    expect((await call("POST /v1/sessions", { raw: padded(100), headers: { "content-type": type } })).status).toBe(201);
  });
});

describe("health", () => {
  test("is open and costs nothing", async () => {
    const answer = await call("GET /health", { token: null });
    expect([answer.status, answer.body]).toEqual([200, { status: "ok", version: expect.stringMatching(/^\d+\.\d+\.\d+$/) }]);
    expect(cost(answer)).toBe("r=0 w=0 d=0 l=0");
  });

  test("deep needs a token, and writes and reads every namespace", async () => {
    expect(problem(await call("GET /health?deep=1", { token: null }))).toBe("401 unauthorized");
    const answer = await call("GET /health?deep=1", { token: "read-token" });
    expect(answer.status).toBe(200);
    expect(answer.body.bindings).toEqual(Object.fromEntries(BINDINGS.map((name) => [name, "ok"])));
    expect(cost(answer)).toBe("r=7 w=7 d=0 l=0");
    expect(problem(await call("GET /health?deep=maybe"))).toBe("400 invalid-request deep");
  });

  test("deep names what fails", async () => {
    const headers = { "x-test-faults": "COUNTERS.put=spent", ...variables({ CACHE: null }) };
    const answer = await call("GET /health?deep=1", { headers });
    expect([answer.status, answer.body.status]).toEqual([503, "degraded"]);
    const failing = Object.entries(answer.body.bindings).filter(([, state]) => state !== "ok");
    expect(failing).toEqual([["CACHE", "failing"], ["COUNTERS", "failing"]]);
  });
});

test("requests that meet in one isolate do not disturb each other", async () => {
  const users = Array.from({ length: 20 }, () => fresh("user"));
  const created = await Promise.all(users.map((userId) => call("POST /v1/sessions", { body: { userId } })));
  const verified = await Promise.all(created.map(({ body }) => call("POST /v1/sessions/verify", { body: { token: body.token } })));
  expect(verified.map(({ body }) => body.userId)).toEqual(users);
});

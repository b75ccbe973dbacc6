// Hostile input: a table of it with the documented answer to each, then a seeded fuzz whose every reply must be one that
// /openapi.json describes. That no reply is a 500 or holds internal text is checked by `call` itself.
import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import { call, fresh, problem, type Call } from "./client.ts";
import { openapi, violations, type Operation } from "./openapi.ts";

const PATHS: [string, (id: string) => string][] = [
  ["GET list", (id) => `GET /v1/users/${id}/sessions`],
  ["DELETE all", (id) => `DELETE /v1/users/${id}/sessions`],
  ["DELETE one of a user", (id) => `DELETE /v1/users/${id}/sessions/AAAAAAAAAAAAAAAAAAAAAA`],
  ["DELETE one by id", (id) => `DELETE /v1/users/alice/sessions/${id}`],
];
const field = (route: string) => (route.includes("/alice/") ? "id" : "user");
const utf8 = (text: string) => new TextEncoder().encode(text).length;

describe("ids in a path", () => {
  const good = ["a", ":", "a:b", "/", "a/b/../c", "//", "%", "%25", "%2F", "😀", "\u00e9", "e\u0301", "مرحبا", "a b", "+", "?x=1", "#x", "&", "=", "\\", "'", '"',
    "<script>", "${x}", "{{x}}", "__proto__", "constructor", "null", "0", "123", "-1", "*", "...", " ", "\u00a0", "\u200b", "\u202e", "\ufeff", "\ufffd",
    "x".repeat(256), "😀".repeat(64), "%".repeat(256), "/".repeat(256), "' OR 1=1 --", "..%2f..", "a\\u0000"];
  const bad: [string, string][] = [
    ["a NUL", "%00"], ["a line break", "a%0Ab"], ["CR LF and a header", "a%0D%0ASet-Cookie:%20x=1"], ["DEL", "%7F"], ["a C1 control", "%C2%85"],
    ["ESC", "%1B%5B31m"], ["257 bytes", "x".repeat(257)], ["257 bytes of two each", encodeURIComponent("é".repeat(128)) + "x"], ["10 KB", "x".repeat(10_240)],
    ["10 KB of escapes", "%41".repeat(10_240)], ["a lone percent", "%"], ["half an escape", "a%4"], ["an escape of no hex", "%zz"], ["a sign in an escape", "%+1"],
    ["a lone continuation byte", "%80"], ["an invalid byte", "%FF"], ["half a character", "%E2%82"], ["an overlong slash", "%C0%AF"], ["a surrogate", "%ED%A0%80"],
    ["a character beyond Unicode", "%F4%90%80%80"], ["nothing", ""],
  ];

  test.each(PATHS)("%s takes what is UTF-8 without control characters", async (_, route) => {
    for (const id of good) {
      expect(utf8(id)).toBeLessThanOrEqual(256);
      const answer = await call(route(encodeURIComponent(id)));
      expect(answer.status, `${id}: ${answer.text}`).toBe(route("x").startsWith("GET") ? 200 : 204);
    }
  });

  test.each(PATHS)("%s refuses the rest and names the parameter", async (_, route) => {
    for (const [what, id] of bad) {
      const got = problem(await call(route(id)));
      // An empty id at the end of a path makes it another path.
      expect(got, what).toBe(id === "" && field(route("x")) === "id" ? "404 not-found" : `400 invalid-request ${field(route("x"))}`);
    }
  });

  test("dot segments are resolved by every URL parser before they get here", async () => {
    for (const dots of ["..", "%2e%2e", ".%2E"]) {
      expect(problem(await call(`GET /v1/users/${dots}/sessions`)), dots).toBe("405 method-not-allowed");
      expect(problem(await call(`GET /v1/users/a/sessions/${dots}/${dots}/${dots}/health`)), dots).toBe("404 not-found");
    }
  });

  test("are kept as they are, each a user of its own", async () => {
    const prefix = fresh("id");
    const names = ["a/b", "a%2Fb", "a:b", "a b", "a+b", "A/B", "\u00e9", "e\u0301", "a/b/", "/a/b"].map((name) => `${prefix}${name}`);
    for (const userId of names) await call("POST /v1/sessions", { body: { userId } });
    for (const userId of names) {
      const { body } = await call(`GET /v1/users/${encodeURIComponent(userId)}/sessions`);
      expect(body.items.map((item: { userId: string }) => item.userId), userId).toEqual([userId]);
    }
  });

  test("another tenant's ids, and keys disguised as ids, reach nothing", async () => {
    const userId = fresh("victim");
    const { token, session } = (await call("POST /v1/sessions", { body: { userId } })).body;
    const { keys } = await env.SESSIONS.list();
    const key = keys.find(({ name }) => name.endsWith(session.id))!.name;
    const tag = key.split("/")[2]!;
    for (const disguise of [userId, key, tag, `../dev/${userId}`, `dev/${userId}`, session.id, `${tag}/${session.id}`]) {
      const path = `/v1/users/${encodeURIComponent(disguise)}/sessions`;
      expect((await call(`GET ${path}`, { token: "other-token" })).body).toEqual({ items: [], cursor: null });
      for (const route of [`DELETE ${path}`, `DELETE ${path}/${session.id}`, `DELETE ${path}/${encodeURIComponent(key)}`]) {
        expect((await call(route, { token: "other-token" })).status).toBe(204);
      }
    }
    expect((await call("POST /v1/sessions/verify", { body: { token } })).status).toBe(200);
    expect(await env.SESSIONS.get(key)).not.toBe(null);
  });
});

describe("queries", () => {
  const LIST = "GET /v1/users/alice/sessions";
  test.each([
    ["?limit=%zz", "400 invalid-request limit"],
    ["?limit=%FF", "400 invalid-request limit"],
    ["?%FF=1", "400 invalid-request %FF"],
    ["?limit=1&limit=0", "400 invalid-request limit"],
    ["?limit=0&limit=1", "400 invalid-request limit"],
    ["?limit=%31", "200 is not a problem"],
    ["?limit=१", "400 invalid-request limit"],
    ["?&&&", "200 is not a problem"],
    ["?=", "200 is not a problem"],
    ["?unknown=1", "200 is not a problem"],
    [`?cursor=${"A".repeat(12_000)}`, "400 invalid-request cursor"],
    ["?cursor=%00", "400 invalid-request cursor"],
    ["??limit=0", "200 is not a problem"],
  ])("%s", async (query, expected) => {
    expect(problem(await call(`${LIST}${query}`))).toBe(expected);
  });
});

const nested = (depth: number, open = "[", close = "]") => open.repeat(depth) + close.repeat(depth);
const bytes = (...parts: (string | number[])[]) => {
  return Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...new TextEncoder().encode(part)] : part)));
};

describe("bodies", () => {
  const malformed = "400 malformed-json";
  const table: [string, BodyInit, string][] = [
    ["nothing", "", malformed],
    ["blanks", " \n\t ", malformed],
    ["a list", "[]", "400 invalid-request"],
    ["null", "null", "400 invalid-request"],
    ["a text", '"userId"', "400 invalid-request"],
    ["a number", "7", "400 invalid-request"],
    ["an unknown field", '{"userId":"a","admin":true}', "400 invalid-request admin"],
    ["a field in another case", '{"userid":"a"}', "400 invalid-request userId"],
    ["__proto__", '{"userId":"a","__proto__":{"x":1}}', "400 invalid-request __proto__"],
    ["an empty field name", '{"userId":"a","":1}', "400 invalid-request"],
    ["an unknown field that is null", '{"userId":"a","x":null}', "400 invalid-request x"],
    ["a key twice", '{"userId":"a","userId":"b"}', "400 malformed-json userId"],
    ["a key twice, once escaped", '{"userId":"a","user\\u0049d":"b"}', "400 malformed-json userId"],
    ["a key twice, nested", '{"userId":"a","data":{"x":[{"y":1,"y":1}]}}', "400 malformed-json y"],
    ["33 levels", `{"userId":"a","data":${nested(32)}}`, malformed],
    ["32 levels", `{"userId":"a","data":${nested(31)}}`, "201 is not a problem"],
    ["32000 levels", `{"userId":"a","data":${nested(32_000)}}`, malformed],
    ["levels that never close", `{"userId":"a","data":${"[".repeat(60_000)}`, malformed],
    ["objects that never close", '{"a":'.repeat(10_000), malformed],
    ["a user that is a number", '{"userId":7}', "400 invalid-request userId"],
    ["a user that is null", '{"userId":null}', "400 invalid-request userId"],
    ["a user that is a list", '{"userId":["a"]}', "400 invalid-request userId"],
    ["a user with NUL", '{"userId":"a\\u0000"}', "400 invalid-request userId"],
    ["a user with a line break", '{"userId":"a\\r\\nSet-Cookie: x"}', "400 invalid-request userId"],
    ["a raw control character", '{"userId":"a\nb"}', malformed],
    ["roles that are a text", '{"userId":"a","roles":"admin"}', "400 invalid-request roles"],
    ["a role that is null", '{"userId":"a","roles":[null]}', "400 invalid-request roles[0]"],
    ["an email that is an object", '{"userId":"a","email":{}}', "400 invalid-request email"],
    ["seconds as a text", '{"userId":"a","idleSeconds":"60"}', "400 invalid-request idleSeconds"],
    ["whole seconds as 1e2", '{"userId":"a","idleSeconds":1e2}', "201 is not a problem"],
    ["whole seconds as 60.0", '{"userId":"a","idleSeconds":60.0}', "201 is not a problem"],
    ["seconds as 1e-2", '{"userId":"a","idleSeconds":1e-2}', "400 invalid-request idleSeconds"],
    ["seconds as 1e300", '{"userId":"a","idleSeconds":1e300}', "400 invalid-request idleSeconds"],
    ["negative seconds", '{"userId":"a","idleSeconds":-60}', "400 invalid-request idleSeconds"],
    ["seconds beyond 64 bits", '{"userId":"a","idleSeconds":18446744073709551616}', "400 invalid-request idleSeconds"],
    ["seconds of 1000 digits", `{"userId":"a","idleSeconds":${"9".repeat(1000)}}`, malformed],
    ["a number beyond all", '{"userId":"a","data":1e999}', malformed],
    ["a number of 1000 decimals", `{"userId":"a","data":0.${"1".repeat(1000)}}`, "201 is not a problem"],
    ["NaN", '{"userId":"a","data":NaN}', malformed],
    ["Infinity", '{"userId":"a","data":-Infinity}', malformed],
    ["a leading zero", '{"userId":"a","idleSeconds":060}', malformed],
    ["hexadecimal", '{"userId":"a","idleSeconds":0x60}', malformed],
    ["a trailing comma", '{"userId":"a",}', malformed],
    ["a comment", '{"userId":"a"}//', malformed],
    ["single quotes", "{'userId':'a'}", malformed],
    ["something after the end", '{"userId":"a"}{}', malformed],
    ["NUL after the end", '{"userId":"a"}\0', malformed],
    ["a byte order mark", bytes([0xef, 0xbb, 0xbf], '{"userId":"a"}'), malformed],
    ["UTF-16", bytes([0xff, 0xfe], [..."{}"].flatMap((c) => [c.charCodeAt(0), 0])), malformed],
    ["invalid UTF-8", bytes('{"userId":"', [0xff], '"}'), malformed],
    ["an overlong NUL", bytes('{"userId":"', [0xc0, 0x80], '"}'), malformed],
    ["half a surrogate pair", '{"userId":"\\ud83d"}', malformed],
    ["the other half", '{"userId":"\\ude00"}', malformed],
    ["a raw surrogate", bytes('{"userId":"', [0xed, 0xa0, 0x80], '"}'), malformed],
    ["half an escape", '{"userId":"\\u12"}', malformed],
    ["an unfinished text", '{"userId":"a', malformed],
    ["gzip", new Uint8Array([0x1f, 0x8b, 8, 0]), malformed],
    ["a form", "userId=a", malformed],
    ["100 KB of blanks", " ".repeat(100_000), "413 too-large"],
    ["10000 fields", `{${Array.from({ length: 4000 }, (_, i) => `"f${i}":1`).join(",")}}`, "400 invalid-request userId"],
    ["a field name of 60 KB", `{"userId":"a","${"x".repeat(60_000)}":1}`, `400 invalid-request ${"x".repeat(60_000)}`],
    ["a user of 10 KB", `{"userId":"${"x".repeat(10_240)}"}`, "400 invalid-request userId"],
    ["a pair of surrogates", '{"userId":"\\ud83d\\ude00"}', "201 is not a problem"],
    ["-0 and 1.0", '{"userId":"a","data":[-0,1.0,1e2]}', "201 is not a problem"],
  ];
  test.each(table)("%s", async (_, raw, expected) => {
    expect(problem(await call("POST /v1/sessions", { raw }))).toBe(expected);
  });
});

describe("tokens", () => {
  const VERBS: [string, string][] = [["verify", "401 session-invalid"], ["refresh", "401 session-invalid"], ["rotate", "401 session-invalid"], ["revoke", "204 is not a problem"]];
  test.each(VERBS)("%s of what is no token", async (verb, expected) => {
    const hostile = ["", " ", "kvs_", "x", "null", "\0", "a\r\nb", "😀".repeat(18), "kvs_" + "=".repeat(68), "kvs_" + "/".repeat(68), "KVS_" + "A".repeat(68),
      "kvs_" + "A".repeat(67), "kvs_" + "A".repeat(69), "x".repeat(60_000), "../../dev", "Bearer dev-token", "dev-token"];
    for (const token of hostile) {
      expect(problem(await call(`POST /v1/sessions/${verb}`, { body: { token } })), token.slice(0, 80)).toBe(expected);
    }
  });

  test.each(VERBS)("%s without a token, or with one of another type", async (verb) => {
    for (const options of [{}, { body: {} }, { body: { token: null } }, { body: { token: 7 } }, { body: { token: ["x"] } }, { body: { token: {} } }, { body: { token: true } }]) {
      expect(problem(await call(`POST /v1/sessions/${verb}`, options)), JSON.stringify(options)).toBe("400 invalid-request token");
    }
    expect(problem(await call(`POST /v1/sessions/${verb}`, { body: { token: "x", more: 1 } }))).toBe("400 invalid-request more");
    expect(problem(await call(`POST /v1/sessions/${verb}?token=x`))).toBe("400 invalid-request token");
  });

  test.each(VERBS)("%s of hostile cookies", async (verb, expected) => {
    for (const value of ["__Host-session=", '__Host-session="', "__Host-session=%00", `__Host-session=${"x".repeat(10_000)}`]) {
      expect(problem(await call(`POST /v1/sessions/${verb}`, { headers: { cookie: value } })), value.slice(0, 40)).toBe(expected);
    }
    for (const value of ["", ";;;", "=", "__Host-session", "a=b"]) {
      expect(problem(await call(`POST /v1/sessions/${verb}`, { headers: { cookie: value } })), value).toBe("400 invalid-request token");
    }
  });
});

describe("a seeded fuzz", async () => {
  const document = await openapi();
  const operations = document.operations.filter(({ tags }) => tags.includes("sessions"));
  const { token } = (await call("POST /v1/sessions", { body: { userId: "alice" } })).body;

  /** mulberry32: a small generator whose runs can be repeated. */
  function generator(seed: number) {
    const next = () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
    const below = (end: number) => Math.floor(next() * end);
    const one = <T>(items: readonly T[]): T => items[below(items.length)]!;
    return { below, one, chance: (share: number) => next() < share };
  }
  type Random = ReturnType<typeof generator>;

  const CHARACTERS = ["a", "Z", "0", ":", "/", "%", "\\", '"', " ", "é", "😀", "\0", "\n", "\u007f", "\ud800", "\ufeff", "{", "}", "[", ",", ".", "x".repeat(300)];
  const text = (random: Random) => Array.from({ length: random.below(6) }, () => random.one(CHARACTERS)).join("");
  const FIELDS = ["userId", "email", "roles", "data", "idleSeconds", "absoluteSeconds", "token", "__proto__", ""];

  function value(random: Random, depth: number): string {
    const kind = random.below(depth > 3 ? 7 : 9);
    if (kind === 0) return random.one(["null", "true", "false"]);
    if (kind === 1) return random.one(["0", "-0", "60", "59", "1e3", "60.5", "-1", "9007199254740993", "18446744073709551616", "1e400", "31536001"]);
    if (kind === 2) return JSON.stringify(token);
    if (kind < 7) return JSON.stringify(text(random));
    if (kind === 7) return `[${Array.from({ length: random.below(4) }, () => value(random, depth + 1)).join(",")}]`;
    return object(random, depth + 1);
  }

  function object(random: Random, depth: number): string {
    const member = () => `${JSON.stringify(random.chance(0.8) ? random.one(FIELDS) : text(random))}:${value(random, depth)}`;
    return `{${Array.from({ length: random.below(5) }, member).join(",")}}`;
  }

  function body(random: Random, operation: Operation): BodyInit {
    if (random.chance(0.25)) return operation.id === "createSession" ? '{"userId":"alice"}' : JSON.stringify({ token });
    const whole = random.chance(0.9) ? object(random, 0) : value(random, 0);
    if (!random.chance(0.2)) return whole;
    const damaged = new TextEncoder().encode(whole);
    if (damaged.length > 0) damaged[random.below(damaged.length)] = random.below(256);
    return damaged;
  }

  function id(random: Random): string {
    if (random.chance(0.1)) return random.one(["%zz", "%FF", "%E2%82", "%00", "%2F", "%25", "%", "x".repeat(300)]);
    const name = text(random).toWellFormed();
    // Those two, and nothing, would make it another path.
    return ["", ".", ".."].includes(name) ? "alice" : encodeURIComponent(name);
  }

  function request(random: Random, operation: Operation): [string, Call] {
    const path = operation.path.replace(/\{\w+\}/g, () => id(random));
    const options: Call = { headers: {} };
    if (random.chance(0.15)) options.token = random.one([null, "", "other-token", "read-token", "flags-token", "x"]);
    if (random.chance(0.1)) options.headers!["cookie"] = `__Host-session=${random.one([token, "x", '"', ""])}`;
    if (random.chance(0.1)) options.headers!["content-type"] = random.one(["text/plain", "application/json;charset=x", "json"]);
    if (random.chance(0.1)) options.headers!["x-request-id"] = random.one(["ok", "not ok", "x".repeat(200)]);
    if (operation.description.requestBody !== undefined && random.chance(0.95)) options.raw = body(random, operation);
    const names = ["cookie", "limit", "cursor", "%FF", "x"];
    const values = ["0", "1", "true", "1000", "1001", "%", "%FF", "", "AAAA", token];
    const pairs = Array.from({ length: random.below(3) }, () => [random.one(names), random.one(values)] as const);
    // One that comes twice is always refused.
    const query = pairs.filter(([name], at) => pairs.findIndex(([other]) => other === name) === at).map((pair) => pair.join("=")).join("&");
    return [`${operation.method} ${path}${query === "" ? "" : `?${query}`}`, options];
  }

  test.each([1, 2, 3, 4, 5])("seed %i: every reply is a documented one", async (seed) => {
    const random = generator(seed);
    const statuses = new Map<number, number>();
    for (let index = 0; index < 120; index += 1) {
      const operation = random.one(operations);
      const [route, options] = request(random, operation);
      const answer = await call(route, options);
      expect(violations(document, operation, answer), `${route} ${JSON.stringify(options)}`).toEqual([]);
      expect(answer.status, route).not.toBe(503);
      statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1);
    }
    // Otherwise it would test the doorman only.
    for (const status of [200, 201, 204, 400, 401, 403]) expect(statuses.get(status) ?? 0, String(status)).toBeGreaterThan(0);
  });
});

// Sessions over HTTP on the built Worker: every call of the contract, its cost, and what KV holds afterwards.
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, problem, type Answer, type Call } from "./client.ts";

const DAY_SECONDS = 86_400;
const COOKIE = "__Host-session";

interface Session {
  id: string;
  userId: string;
  email: string | null;
  roles: string[];
  data: unknown;
  createdAt: number;
  lastSeenAt: number;
  expiresAt: number;
}

async function issue(fields: object = {}, options: Call = {}): Promise<{ token: string; session: Session }> {
  const answer = await call("POST /v1/sessions", { ...options, body: { userId: fresh("user"), ...fields } });
  expect(answer.status, answer.text).toBe(201);
  return answer.body;
}

const use = (verb: string, token: string, options: Call = {}) =>
  call(`POST /v1/sessions/${verb}`, { ...options, body: { token } });
const verify = (token: string, options?: Call) => use("verify", token, options);
const sessionsOf = (user: string) => `/v1/users/${encodeURIComponent(user)}/sessions`;
const ids = (answer: Answer): string[] => answer.body.items.map(({ id }: Session) => id);

async function isValid(token: string): Promise<boolean> {
  const answer = await verify(token);
  if (answer.status !== 200) expect(problem(answer)).toBe("401 session-invalid");
  return answer.status === 200;
}

/** Every key of the namespace with its bytes. Local KV gives all of them in one page. */
async function stored(): Promise<Map<string, ArrayBuffer>> {
  const { keys } = await env.SESSIONS.list();
  const values = keys.map(async ({ name }) => [name, (await env.SESSIONS.get(name, "arrayBuffer"))!] as const);
  return new Map(await Promise.all(values));
}

/** The clock of the Worker; KV's own clock does not follow it. */
const setClock = (millis: number) => vi.useFakeTimers({ toFake: ["Date"], now: millis });
afterEach(() => void vi.useRealTimers());

describe("create", () => {
  test("gives a token once and a session with the documented defaults", async () => {
    const before = Date.now();
    const answer = await call("POST /v1/sessions", { body: { userId: "alice" } });
    expect(answer.status).toBe(201);
    const { token, session } = answer.body;
    expect(token).toMatch(/^kvs_[A-Za-z0-9_-]{68}$/);
    expect(session).toEqual({
      id: expect.stringMatching(/^[A-Za-z0-9_-]{22}$/),
      userId: "alice",
      email: null,
      roles: [],
      data: null,
      createdAt: expect.any(Number),
      lastSeenAt: session.createdAt,
      expiresAt: session.createdAt + DAY_SECONDS * 1000,
    });
    expect(session.createdAt).toBeGreaterThanOrEqual(before);
    expect(session.createdAt).toBeLessThanOrEqual(Date.now());
    expect(answer.headers.get("cache-control")).toBe("no-store");
    expect(answer.headers.get("consistency")).toBe("eventual");
    expect(cost(answer)).toBe("r=0 w=1 d=0 l=0");
  });

  test("keeps what it was given", async () => {
    const given = {
      userId: "zoë / 😀:%",
      email: "zoe@example.com",
      roles: ["admin", "ops: *"],
      data: { nested: [1, 1.5, "x", null, { deep: true }], big: 9_007_199_254_740_991 },
    };
    const { token, session } = await issue({ ...given, idleSeconds: 60, absoluteSeconds: 31_536_000 });
    expect(session).toMatchObject({ ...given, expiresAt: session.createdAt + 60_000 });
    expect((await verify(token)).body).toEqual(session);
  });

  test("ends at the earlier of the two limits", async () => {
    const { session } = await issue({ idleSeconds: 3600, absoluteSeconds: 60 });
    expect(session.expiresAt - session.createdAt).toBe(60_000);
  });

  const refused: [string, object, string][] = [
    ["no user", { userId: undefined }, "userId"],
    ["an empty user", { userId: "" }, "userId"],
    ["a user of 257 bytes", { userId: "é".repeat(128) + "x" }, "userId"],
    ["a user with a control character", { userId: "a\u0085b" }, "userId"],
    ["an email of 321 bytes", { email: "x".repeat(321) }, "email"],
    ["65 roles", { roles: Array(65).fill("r") }, "roles"],
    ["a role of 129 bytes", { roles: ["ok", "r".repeat(129)] }, "roles[1]"],
    ["an empty role", { roles: [""] }, "roles[0]"],
    ["data of 16385 bytes", { data: "x".repeat(16_383) }, "data"],
    ["59 idle seconds", { idleSeconds: 59 }, "idleSeconds"],
    ["more than a year", { absoluteSeconds: 31_536_001 }, "absoluteSeconds"],
    ["half a second", { idleSeconds: 60.5 }, "idleSeconds"],
    ["a number as text", { idleSeconds: "60" }, "idleSeconds"],
    ["an unknown field", { ttl: 60 }, "ttl"],
  ];
  test.each(refused)("refuses %s", async (_, fields, field) => {
    const answer = await call("POST /v1/sessions", { body: { userId: "alice", ...fields } });
    expect(problem(answer)).toBe(`400 invalid-request ${field}`);
    expect(cost(answer)).toBe("r=0 w=0 d=0 l=0");
  });

  test("takes everything at its limit", async () => {
    await issue({
      userId: "é".repeat(128),
      email: "x".repeat(320),
      roles: Array(64).fill("r".repeat(128)),
      data: "x".repeat(16_382),
      idleSeconds: 60,
      absoluteSeconds: 60,
    });
  });

  test("ends a user's oldest sessions where the deployment caps them", async () => {
    const start = Date.now();
    const userId = fresh("capped");
    const headers = { "x-test-env": JSON.stringify({ SESSIONS_PER_USER_MAX: "2" }) };
    const issued = [];
    for (const second of [0, 1, 2, 3]) {
      setClock(start + second * 1000);
      issued.push(await issue({ userId }, { headers }));
    }
    const valid = await Promise.all(issued.map(({ token }) => isValid(token)));
    expect(valid).toEqual([false, false, true, true]);
  });

  test.each(["five", "-1", "1.5", "4294967296"])("is refused where the cap is %j, and what there is goes on", async (cap) => {
    const { token } = await issue();
    const headers = { "x-test-env": JSON.stringify({ SESSIONS_PER_USER_MAX: cap }) };
    const refused = await call("POST /v1/sessions", { headers, body: { userId: fresh("capped") } });
    expect(problem(refused)).toBe("503 not-configured");
    expect(refused.body.detail).toContain("SESSIONS_PER_USER_MAX");
    expect((await verify(token, { headers })).status).toBe(200);
  });
});

describe("verify", () => {
  test("costs two reads and no write", async () => {
    const answer = await verify((await issue()).token);
    expect(answer.status).toBe(200);
    expect(cost(answer)).toBe("r=2 w=0 d=0 l=0");
    expect(answer.headers.get("consistency")).toBe("eventual");
  });

  test("answers alike for unknown, revoked, expired and malformed tokens", async () => {
    const live = await issue({ idleSeconds: 60 });
    const revoked = await issue();
    await use("revoke", revoked.token);
    const unknown = await issue();
    for (const name of (await stored()).keys()) if (name.endsWith(unknown.session.id)) await env.SESSIONS.delete(name);
    const answers = [await verify(revoked.token), await verify(unknown.token), await verify("not a token")];
    setClock(Date.now() + 60_000);
    answers.push(await verify(live.token));
    for (const { status, text } of answers) expect([status, text]).toEqual([401, answers[0]!.text]);
  });

  test("asks KV nothing about a malformed token", async () => {
    const { token } = await issue();
    const wrong = [token.slice(0, -1), `${token}A`, token.replace("kvs_", "kvs-"), `kvs_${"A".repeat(68)}`, token.toLowerCase(), ""];
    for (const text of wrong) {
      const answer = await verify(text);
      expect(problem(answer)).toBe("401 session-invalid");
      expect(cost(answer)).toBe("r=0 w=0 d=0 l=0");
    }
  });
});

describe("time", () => {
  test("a session idles out to the millisecond, whatever KV still holds", async () => {
    const { token, session } = await issue({ idleSeconds: 3600 });
    setClock(session.createdAt + 3_599_999);
    expect(await isValid(token)).toBe(true);
    setClock(session.createdAt + 3_600_000);
    expect(await isValid(token)).toBe(false);
    expect([...(await stored()).keys()].some((name) => name.endsWith(session.id))).toBe(true);
  });

  test("refresh writes at most once a minute", async () => {
    const { token, session } = await issue();
    setClock(session.createdAt + 59_999);
    const early = await use("refresh", token);
    expect([early.body, cost(early)]).toEqual([session, "r=2 w=0 d=0 l=0"]);
    setClock(session.createdAt + 60_000);
    const due = await use("refresh", token);
    const refreshed = { ...session, lastSeenAt: session.lastSeenAt + 60_000, expiresAt: session.expiresAt + 60_000 };
    expect([due.body, cost(due)]).toEqual([refreshed, "r=3 w=1 d=0 l=0"]);
    const again = await use("refresh", token);
    expect([again.body, cost(again)]).toEqual([refreshed, "r=2 w=0 d=0 l=0"]);
  });

  test("refresh never passes the absolute limit", async () => {
    const { token, session } = await issue({ idleSeconds: 3600, absoluteSeconds: 7200 });
    setClock(session.createdAt + 3_000_000);
    expect((await use("refresh", token)).body.expiresAt).toBe(session.createdAt + 6_600_000);
    setClock(session.createdAt + 6_000_000);
    expect((await use("refresh", token)).body.expiresAt).toBe(session.createdAt + 7_200_000);
    setClock(session.createdAt + 7_199_999);
    expect(await isValid(token)).toBe(true);
    setClock(session.createdAt + 7_200_000);
    expect(await isValid(token)).toBe(false);
    expect(problem(await use("refresh", token))).toBe("401 session-invalid");
    expect(problem(await use("rotate", token))).toBe("401 session-invalid");
  });
});

describe("rotate", () => {
  test("gives a new token for the same session content, and the old one proves nothing", async () => {
    const old = await issue({ email: "a@example.com", roles: ["r"], data: [1], absoluteSeconds: 7200 });
    setClock(old.session.createdAt + 10_000);
    const answer = await use("rotate", old.token);
    expect(answer.status).toBe(200);
    expect(Object.keys(answer.body).sort()).toEqual(["session", "token"]);
    expect(cost(answer)).toBe("r=3 w=2 d=1 l=0");
    expect(answer.headers.get("cache-control")).toBe("no-store");
    const { token, session } = answer.body;
    expect(token).not.toBe(old.token);
    expect(session.id).not.toBe(old.session.id);
    expect(session).toEqual({ ...old.session, id: session.id, lastSeenAt: old.session.createdAt + 10_000, expiresAt: old.session.createdAt + 7_200_000 });
    expect([await isValid(old.token), await isValid(token)]).toEqual([false, true]);
    expect(problem(await use("rotate", old.token))).toBe("401 session-invalid");
  });
});

describe("revoke", () => {
  test("is 204 and final, also when already gone or never there", async () => {
    const { token } = await issue();
    for (const _ of [1, 2]) {
      const answer = await use("revoke", token);
      expect([answer.status, answer.text, cost(answer)]).toEqual([204, "", "r=0 w=1 d=1 l=0"]);
      expect(answer.headers.get("consistency")).toBe("eventual");
      expect(await isValid(token)).toBe(false);
    }
    const never = await use("revoke", "no token at all");
    expect([never.status, cost(never)]).toEqual([204, "r=0 w=0 d=0 l=0"]);
  });

  test("a session of a user by its id, and of that user only", async () => {
    const userId = fresh("user");
    const [one, two] = [await issue({ userId }), await issue({ userId })];
    const foreign = await call(`DELETE ${sessionsOf(fresh("somebody"))}/${one.session.id}`);
    expect([foreign.status, await isValid(one.token)]).toEqual([204, true]);
    const own = await call(`DELETE ${sessionsOf(userId)}/${one.session.id}`);
    expect([own.status, own.text, cost(own)]).toEqual([204, "", "r=0 w=1 d=1 l=0"]);
    expect([await isValid(one.token), await isValid(two.token)]).toEqual([false, true]);
  });

  test("everything of a user is one write that leaves later sessions alone", async () => {
    const userId = fresh("user");
    const [one, two, other] = [await issue({ userId }), await issue({ userId }), await issue()];
    setClock(Date.now() + 1);
    const answer = await call(`DELETE ${sessionsOf(userId)}`);
    expect([answer.status, answer.text, cost(answer)]).toEqual([204, "", "r=0 w=1 d=0 l=0"]);
    expect([await isValid(one.token), await isValid(two.token), await isValid(other.token)]).toEqual([false, false, true]);
    expect(ids(await call(`GET ${sessionsOf(userId)}`))).toEqual([]);
    setClock(Date.now() + 1);
    expect(await isValid((await issue({ userId })).token)).toBe(true);
  });
});

describe("list", () => {
  test("shows the live sessions of one user, without tokens", async () => {
    const userId = fresh("user");
    const issued = [await issue({ userId }), await issue({ userId, data: { a: 1 } }), await issue({ userId })];
    await issue({ userId: `${userId}2` });
    await use("revoke", issued[2]!.token);
    const answer = await call(`GET ${sessionsOf(userId)}`);
    expect(answer.status).toBe(200);
    expect(cost(answer)).toBe("r=3 w=0 d=0 l=1");
    expect(answer.headers.get("consistency")).toBe("eventual");
    const byId = (a: Session, b: Session) => a.id.localeCompare(b.id);
    const expected = issued.slice(0, 2).map(({ session }) => session).sort(byId);
    expect({ ...answer.body, items: answer.body.items.sort(byId) }).toEqual({ items: expected, cursor: null });
    expect(answer.text).not.toContain("kvs_");
  });

  test("is empty for a user nobody knows", async () => {
    expect((await call(`GET ${sessionsOf(fresh("nobody"))}`)).body).toEqual({ items: [], cursor: null });
  });

  test("pages through everything once", async () => {
    const userId = fresh("user");
    const issued = await Promise.all(Array.from({ length: 5 }, () => issue({ userId })));
    const seen: string[] = [];
    let cursor: string | null = "";
    for (let page = 0; cursor !== null && page < 9; page += 1) {
      const query: string = cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`;
      const answer = await call(`GET ${sessionsOf(userId)}?limit=2${query}`);
      expect(answer.status, answer.text).toBe(200);
      expect(ids(answer).length).toBeLessThanOrEqual(2);
      seen.push(...ids(answer));
      cursor = answer.body.cursor;
    }
    expect(cursor).toBe(null);
    expect(seen.sort()).toEqual(issued.map(({ session }) => session.id).sort());
  });

  test("refuses a cursor of another list, tenant or hand", async () => {
    const userId = fresh("user");
    for (const _ of [1, 2]) await issue({ userId });
    const { cursor } = (await call(`GET ${sessionsOf(userId)}?limit=1`)).body;
    expect(cursor).toEqual(expect.any(String));
    const other = fresh("user");
    const flipped = (cursor.startsWith("A") ? "B" : "A") + cursor.slice(1);
    const misuses: [string, string, string][] = [
      [other, cursor, "dev-token"],
      [userId, cursor, "other-token"],
      [userId, flipped, "dev-token"],
      [userId, cursor.slice(0, -1), "dev-token"],
      [userId, "", "dev-token"],
      [userId, "x".repeat(5000), "dev-token"],
      [userId, "not base64!", "dev-token"],
    ];
    for (const [user, text, token] of misuses) {
      const answer = await call(`GET ${sessionsOf(user)}?limit=1&cursor=${encodeURIComponent(text)}`, { token });
      expect(problem(answer), text).toBe("400 invalid-request cursor");
      expect(cost(answer)).toBe("r=0 w=0 d=0 l=0");
    }
  });

  test.each(["0", "1001", "-1", "1.5", "", "x", "1e2", "+1", "99999999999999999999"])("refuses the limit %j", async (limit) => {
    const answer = await call(`GET ${sessionsOf("alice")}?limit=${encodeURIComponent(limit)}`);
    expect(problem(answer)).toBe("400 invalid-request limit");
  });

  test.each(["1", "1000"])("takes the limit %s", async (limit) => {
    expect((await call(`GET ${sessionsOf("alice")}?limit=${limit}`)).status).toBe(200);
  });
});

describe("cookie", () => {
  const withCookie = (value: string): Call => ({ headers: { cookie: value } });

  test("create and rotate set it on request, with every attribute", async () => {
    const created = await call("POST /v1/sessions?cookie=1", { body: { userId: "alice", absoluteSeconds: 7200 } });
    const attributes = "Path=/; Max-Age=7200; Secure; HttpOnly; SameSite=Lax";
    expect(created.headers.get("set-cookie")).toBe(`${COOKIE}=${created.body.token}; ${attributes}`);
    const rotated = await call("POST /v1/sessions/rotate?cookie=1", withCookie(`${COOKIE}=${created.body.token}`));
    expect(rotated.status).toBe(200);
    expect(rotated.headers.get("set-cookie")).toMatch(`${COOKIE}=${rotated.body.token}; Path=/; Max-Age=`);
  });

  test("it lasts until the absolute limit, because a refresh moves the idle one", async () => {
    const created = await call("POST /v1/sessions?cookie=1", { body: { userId: "alice", idleSeconds: 90, absoluteSeconds: 7200 } });
    expect(created.headers.get("set-cookie")).toContain("Max-Age=7200;");
    const unsaid = await call("POST /v1/sessions?cookie=1", { body: { userId: "alice" } });
    expect(unsaid.headers.get("set-cookie")).toContain(`Max-Age=${7 * DAY_SECONDS};`);
  });

  test.each([".", ".."])("a user that no path can name is none: %j", async (userId) => {
    expect(problem(await call("POST /v1/sessions", { body: { userId } }))).toBe("400 invalid-request userId");
  });

  test.each(["", "?cookie=0", "?cookie=false"])("nothing is set by %j", async (query) => {
    const answer = await call(`POST /v1/sessions${query}`, { body: { userId: "alice" } });
    expect([answer.status, answer.headers.get("set-cookie")]).toEqual([201, null]);
    const rotated = await call(`POST /v1/sessions/rotate${query}`, { body: { token: answer.body.token } });
    expect([rotated.status, rotated.headers.get("set-cookie")]).toEqual([200, null]);
  });

  test("another word than 1 or 0 is refused", async () => {
    const answer = await call("POST /v1/sessions?cookie=yes", { body: { userId: "alice" } });
    expect(problem(answer)).toBe("400 invalid-request cookie");
  });

  test("verify, refresh, rotate and revoke take it where the body has no token", async () => {
    let { token, session } = await issue();
    for (const body of [undefined, {}, { token: null }]) {
      for (const verb of ["verify", "refresh"]) {
        const answer = await call(`POST /v1/sessions/${verb}`, { ...withCookie(`a=b; ${COOKIE}=${token}; c=d`), body });
        expect([answer.status, answer.body.id]).toEqual([200, session.id]);
      }
    }
    const rotated = await call("POST /v1/sessions/rotate", withCookie(`${COOKIE}="${token}"`));
    expect([rotated.status, await isValid(token)]).toEqual([200, false]);
    ({ token } = rotated.body);
    expect((await call("POST /v1/sessions/revoke", withCookie(`${COOKIE}=${token}`))).status).toBe(204);
    expect(await isValid(token)).toBe(false);
  });

  test("the body's token goes before it, and a cookie of another name is none", async () => {
    const [one, two] = [await issue(), await issue()];
    const both = await call("POST /v1/sessions/verify", { ...withCookie(`${COOKIE}=${one.token}`), body: { token: two.token } });
    expect(both.body.id).toBe(two.session.id);
    for (const name of [`x${COOKIE}`, `${COOKIE}x`, "session", "__host-session"]) {
      expect(problem(await call("POST /v1/sessions/verify", withCookie(`${name}=${one.token}`)))).toBe("400 invalid-request token");
    }
  });
});

describe("tenants", () => {
  test("see and end nothing of each other", async () => {
    const userId = fresh("user");
    const { token, session } = await issue({ userId });
    const other = { token: "other-token" };
    expect(problem(await verify(token, other))).toBe("401 session-invalid");
    expect(problem(await use("refresh", token, other))).toBe("401 session-invalid");
    expect(problem(await use("rotate", token, other))).toBe("401 session-invalid");
    expect((await use("revoke", token, other)).status).toBe(204);
    expect((await call(`DELETE ${sessionsOf(userId)}`, other)).status).toBe(204);
    expect((await call(`DELETE ${sessionsOf(userId)}/${session.id}`, other)).status).toBe(204);
    expect((await call(`GET ${sessionsOf(userId)}`, other)).body.items).toEqual([]);
    expect(await isValid(token)).toBe(true);
  });
});

describe("what KV holds", () => {
  const base64url = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  const hex = (bytes: Uint8Array) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  test("no token and nothing of its secret, only its hash", async () => {
    const { token, session } = await issue();
    const decoded = atob(token.slice(4).replace(/-/g, "+").replace(/_/g, "/"));
    const bytes = Uint8Array.from(decoded, (character) => character.charCodeAt(0));
    const secret = bytes.slice(0, 32);
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice(0, 48)));
    const { keys } = await env.SESSIONS.list();
    const values = [...(await stored()).values()].map((value) => new TextDecoder().decode(value));
    const everything = JSON.stringify(keys) + values.join("\n");
    for (const text of [token, token.slice(4, 46), base64url(secret), hex(secret)]) {
      expect(everything).not.toContain(text);
    }
    expect(everything).toContain(base64url(hash));
    expect(everything).toContain(session.id);
    expect(session.id).not.toContain(base64url(hash).slice(0, 8));
  });

  test("records that KV may collect, a minute after the session's end", async () => {
    const { session } = await issue({ idleSeconds: 3600 });
    const { keys } = await env.SESSIONS.list();
    const { expiration } = keys.find(({ name }) => name.endsWith(session.id))!;
    expect(expiration! * 1000).toBeGreaterThanOrEqual(session.expiresAt + 59_000);
    expect(expiration! * 1000).toBeLessThanOrEqual(session.expiresAt + 62_000);
  });

  const encode = (text: string) => new TextEncoder().encode(text);
  const unreadable: [string, (good: string) => Uint8Array][] = [
    ["nothing", () => encode("")],
    ["garbage", () => encode("garbage")],
    ["what is no text", () => new Uint8Array([0xff, 0x00, 0xfe])],
    ["a record of another kind", (good) => encode(good.replace("session.1", "document.1"))],
    ["a newer format", (good) => encode(good.replace("session.1", "session.2"))],
    ["half a record", (good) => encode(good.slice(0, good.length / 2))],
    ["a record with an unknown field", (good) => encode(good.replace('{"hash"', '{"admin":true,"hash"'))],
    ["a record without a limit", (good) => encode(good.replace(/"idle_seconds":\d+/, '"idle_seconds":null'))],
    ["a record with a field twice", (good) => encode(good.replace('{"hash"', '{"user":"eve","hash"'))],
    ["JSON without a head", (good) => encode(good.split("\n")[1]!)],
    ["bare JavaScript", () => encode("{}")],
  ];
  test.each(unreadable)("%s is refused by every call and kept byte for byte", async (_, damage) => {
    const { token, session } = await issue();
    const key = [...(await stored()).keys()].find((name) => name.endsWith(session.id))!;
    const planted = damage((await env.SESSIONS.get(key))!);
    await env.SESSIONS.put(key, planted);
    for (const verb of ["verify", "refresh", "rotate"]) expect(problem(await use(verb, token))).toBe("401 session-invalid");
    expect((await call(`GET ${sessionsOf(session.userId)}`)).body).toEqual({ items: [], cursor: null });
    expect(new Uint8Array((await env.SESSIONS.get(key, "arrayBuffer"))!)).toEqual(planted);
  });

  test("another session's record under this token's key proves nothing", async () => {
    const userId = fresh("user");
    const [one, two] = [await issue({ userId }), await issue({ userId })];
    const names = [...(await stored()).keys()];
    const keyOf = ({ session }: { session: Session }) => names.find((name) => name.endsWith(session.id))!;
    await env.SESSIONS.put(keyOf(two), (await env.SESSIONS.get(keyOf(one)))!);
    expect([await isValid(one.token), await isValid(two.token)]).toEqual([true, false]);
  });

  test("an unreadable epoch of a user proves no session of that user, and is kept", async () => {
    const { token, session } = await issue();
    await call(`DELETE ${sessionsOf(session.userId)}`);
    const tag = [...(await stored()).keys()].find((name) => name.endsWith(session.id))!.split("/")[2]!;
    await env.SESSIONS.put(`dev/epoch/${tag}`, "session-epoch.9\n{}");
    expect(await isValid(token)).toBe(false);
    const listed = await call(`GET ${sessionsOf(session.userId)}`);
    expect([listed.status, listed.body]).toEqual([200, { items: [], cursor: null }]);
    expect(await env.SESSIONS.get(`dev/epoch/${tag}`)).toBe("session-epoch.9\n{}");
  });
});

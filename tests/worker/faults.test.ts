// KV failing under sessions, chosen per request: the answer is 503 with Retry-After, never a false 200 or 401, and afterwards
// nothing is lost. Real waits (a second for KV's 429, the deadline for what hangs) are spent once, by requests side by side.
//
// The isolate remembers failures (retry budget, breaker, spent quota), so the order matters: what needs retries comes first.
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, problem, type Answer } from "./client.ts";

afterEach(() => void vi.useRealTimers());
const setClock = (millis: number) => vi.useFakeTimers({ toFake: ["Date"], now: millis });

interface Issued {
  token: string;
  session: { id: string; userId: string; createdAt: number };
}

async function issue(userId = fresh("user")): Promise<Issued> {
  const answer = await call("POST /v1/sessions", { body: { userId } });
  expect(answer.status, answer.text).toBe(201);
  return answer.body;
}

const failing = (faults: string) => ({ headers: { "x-test-faults": faults } });
const use = (verb: string, token: string, faults?: string) => {
  return call(`POST /v1/sessions/${verb}`, { body: { token }, ...(faults === undefined ? {} : failing(faults)) });
};

async function isValid(token: string): Promise<boolean> {
  const answer = await use("verify", token);
  if (answer.status !== 200) expect(problem(answer)).toBe("401 session-invalid");
  return answer.status === 200;
}

/** Keys and values, to see that a failed call changed nothing. */
async function snapshot(): Promise<Record<string, string | null>> {
  const { keys } = await env.SESSIONS.list();
  return Object.fromEntries(await Promise.all(keys.map(async ({ name }) => [name, await env.SESSIONS.get(name)] as const)));
}

function expectUnavailable(answer: Answer, retryAfter = "5"): void {
  expect(problem(answer), answer.text).toBe("503 unavailable");
  expect(answer.headers.get("retry-after")).toBe(retryAfter);
}

const user = ({ session }: Issued) => `/v1/users/${session.userId}/sessions`;

// First, because retries have a budget.
describe("failing twice, then working: the caller notices nothing but the cost", () => {
  const calls: [string, string, (issued: Issued) => Promise<Answer>, number, string][] = [
    ["verify", "get", ({ token }) => use("verify", token, "SESSIONS.get=twice"), 200, "r=6 w=0 d=0 l=0"],
    ["create", "put", ({ session }) => call("POST /v1/sessions", { body: { userId: session.userId }, ...failing("SESSIONS.put=twice") }), 201, "r=0 w=3 d=0 l=0"],
    ["list", "list", (issued) => call(`GET ${user(issued)}`, failing("SESSIONS.list=twice")), 200, "r=2 w=0 d=0 l=3"],
    ["revoke", "delete", ({ token }) => use("revoke", token, "SESSIONS.delete=twice"), 204, "r=0 w=1 d=3 l=0"],
  ];
  test.each(calls)("%s, %s", async (_, __, act, status, operations) => {
    const answer = await act(await issue());
    expect([answer.status, cost(answer)]).toEqual([status, operations]);
  });
});

describe("KV is down", () => {
  test("no token is called valid or invalid, and nothing changes", async () => {
    const issued = await issue();
    const revoked = await issue();
    await use("revoke", revoked.token);
    setClock(issued.session.createdAt + 120_000);
    const before = await snapshot();
    for (const { token } of [issued, revoked]) {
      for (const verb of ["verify", "refresh", "rotate"]) expectUnavailable(await use(verb, token, "SESSIONS.get=down"));
      expect(await snapshot()).toEqual(before);
    }
    expect([await isValid(issued.token), await isValid(revoked.token)]).toEqual([true, false]);
  });

  test("what needs no KV is answered all the same", async () => {
    expect(problem(await use("verify", "no token", "SESSIONS.get=down"))).toBe("401 session-invalid");
    expect(problem(await call("POST /v1/sessions", { body: {}, ...failing("SESSIONS.put=down") }))).toBe("400 invalid-request userId");
    expect((await call("GET /health", failing("SESSIONS.get=down"))).status).toBe(200);
  });

  test("create: no token is given away, and no record is left", async () => {
    const before = await snapshot();
    const answer = await call("POST /v1/sessions?cookie=1", { body: { userId: "alice" }, ...failing("SESSIONS.put=down") });
    expectUnavailable(answer);
    expect(answer.headers.get("set-cookie")).toBe(null);
    expect(await snapshot()).toEqual(before);
  });

  test("refresh: a write that fails leaves the session as it was", async () => {
    const { token, session } = await issue();
    setClock(session.createdAt + 120_000);
    expectUnavailable(await use("refresh", token, "SESSIONS.put=down"));
    expect((await use("verify", token)).body).toEqual(session);
  });

  test("list: no empty list", async () => {
    const issued = await issue();
    for (const operation of ["list", "get"]) expectUnavailable(await call(`GET ${user(issued)}`, failing(`SESSIONS.${operation}=down`)));
    expect((await call(`GET ${user(issued)}`)).body.items).toEqual([issued.session]);
  });

  test("revoke, revoke one, revoke all: no false 204, and repeating does it", async () => {
    const issued = await issue();
    const calls = [`DELETE ${user(issued)}`, `DELETE ${user(issued)}/${issued.session.id}`];
    for (const route of calls) expectUnavailable(await call(route, failing("SESSIONS.put=down")));
    expectUnavailable(await use("revoke", issued.token, "SESSIONS.put=down"));
    expect(await isValid(issued.token)).toBe(true);
    expectUnavailable(await use("revoke", issued.token, "SESSIONS.delete=down"));
    expect((await use("revoke", issued.token)).status).toBe(204);
    expect(await isValid(issued.token)).toBe(false);
  });
});

describe("a write that fails after it took effect", () => {
  test("create: 503, and the record that is left proves nothing, because nobody has its token", async () => {
    const userId = fresh("user");
    const answer = await call("POST /v1/sessions", { body: { userId }, ...failing("SESSIONS.put=after") });
    expectUnavailable(answer);
    expect(answer.text).not.toContain("kvs_");
    expect((await call(`GET /v1/users/${userId}/sessions`)).body.items.length).toBe(1);
    expect((await call(`DELETE /v1/users/${userId}/sessions`)).status).toBe(204);
    setClock(Date.now() + 1000);
    expect((await call(`GET /v1/users/${userId}/sessions`)).body.items).toEqual([]);
  });

  test("refresh: 503, and the session is alive, refreshed", async () => {
    const { token, session } = await issue();
    setClock(session.createdAt + 120_000);
    expectUnavailable(await use("refresh", token, "SESSIONS.put=after"));
    expect((await use("verify", token)).body.lastSeenAt).toBe(session.createdAt + 120_000);
  });

  test("revoke: 503, and the session is dead", async () => {
    const [one, two] = [await issue(), await issue()];
    expectUnavailable(await use("revoke", one.token, "SESSIONS.put=after, SESSIONS.delete=after"));
    expectUnavailable(await use("revoke", two.token, "SESSIONS.delete=after"));
    expect([await isValid(one.token), await isValid(two.token)]).toEqual([true, false]);
    expect((await use("revoke", one.token)).status).toBe(204);
    expect(await isValid(one.token)).toBe(false);
  });

  test("revoke all: 503, and everything is dead", async () => {
    const issued = await issue();
    setClock(issued.session.createdAt + 1000);
    expectUnavailable(await call(`DELETE ${user(issued)}`, failing("SESSIONS.put=after")));
    expect(await isValid(issued.token)).toBe(false);
  });
});

describe("rotate keeps a working token", () => {
  const plans = ["get=down", "put=down", "delete=down", "put=after", "delete=after", "put=after, SESSIONS.delete=down", "get=down, SESSIONS.put=down, SESSIONS.delete=down"];
  test.each(plans)("%s", async (plan) => {
    const old = await issue();
    const answer = await use("rotate", old.token, `SESSIONS.${plan}`);
    if (answer.status === 200) {
      expect(await isValid(answer.body.token)).toBe(true);
      if (await isValid(old.token)) expect(answer.body.previousStillValid).toBe(true);
    } else {
      expectUnavailable(answer);
      expect(await isValid(old.token)).toBe(true);
    }
  });

  test("and says so when the old one could not be taken back", async () => {
    const old = await issue();
    const answer = await use("rotate", old.token, "SESSIONS.delete=down");
    expect([answer.status, answer.body.previousStillValid]).toEqual([200, true]);
    expect([await isValid(old.token), await isValid(answer.body.token)]).toEqual([true, true]);
  });
});

describe("quota and limits", () => {
  test("a spent quota is answered at once with a long Retry-After, other operations go on", async () => {
    // Yesterday: the isolate believes it until midnight, and this file has more to do today.
    setClock(Date.now() - 86_400_000);
    const { token } = await issue();
    const answer = await call("POST /v1/sessions", { body: { userId: "alice" }, ...failing("SESSIONS.put=spent") });
    expectUnavailable(answer, "3600");
    expect(cost(answer)).toBe("r=0 w=1 d=0 l=0");
    expect(await isValid(token)).toBe(true);
    const again = await call("POST /v1/sessions", { body: { userId: "alice" } });
    expectUnavailable(again, "3600");
    expect(cost(again)).toBe("r=0 w=0 d=0 l=0");
    vi.useRealTimers();
    await issue();
  });

  test("429: a refresh answers with the stored session, everything else with 503", async () => {
    const issued = await issue();
    const started = performance.now();
    setClock(issued.session.createdAt + 120_000);
    const faults = "SESSIONS.put=throttled";
    const [created, refreshed, revokedAll, rotated] = await Promise.all([
      call("POST /v1/sessions", { body: { userId: "alice" }, ...failing(faults) }),
      use("refresh", issued.token, faults),
      call(`DELETE ${user(issued)}`, failing(faults)),
      use("rotate", issued.token, faults),
    ]);
    for (const answer of [created, revokedAll, rotated]) expectUnavailable(answer, "1");
    expect([refreshed.status, refreshed.body]).toEqual([200, issued.session]);
    expect(await isValid(issued.token)).toBe(true);
    expect(performance.now() - started).toBeLessThan(5000);
  });
});

test("what hangs is answered within the deadline, and disturbs nobody", { timeout: 15_000 }, async () => {
  const issued = await Promise.all(Array.from({ length: 5 }, () => issue()));
  const started = performance.now();
  const plans: [string, string][] = [["verify", "get"], ["rotate", "get"], ["rotate", "put"], ["rotate", "delete"], ["revoke", "put"]];
  const hung = plans.map(async ([verb, operation], index) => {
    const answer = await use(verb, issued[index]!.token, `SESSIONS.${operation}=hang`);
    return { answer, seconds: (performance.now() - started) / 1000 };
  });
  const bindings = ["CACHE", "CONFIG", "COUNTERS", "REPLICA_US", "REPLICA_EU", "REPLICA_ASIA"];
  const health = call("GET /health?deep=1", failing(bindings.map((name) => `${name}.put=hang`).join(",")));
  expect((await issue()).token).toMatch(/^kvs_/);
  expect((performance.now() - started) / 1000).toBeLessThan(2);
  const [verify, rotateGet, rotatePut, rotateDelete, revoke] = await Promise.all(hung);
  for (const { answer } of [verify!, rotateGet!, rotatePut!, revoke!]) expectUnavailable(answer);
  expect([rotateDelete!.answer.status, rotateDelete!.answer.body.previousStillValid]).toEqual([200, true]);
  for (const { seconds } of [verify!, rotateGet!, rotatePut!, rotateDelete!, revoke!]) expect(seconds).toBeLessThan(6);
  for (const { token } of issued) expect(await isValid(token)).toBe(true);
  // All namespaces that hang take one deadline together.
  expect((await health).body.bindings).toEqual({ SESSIONS: "ok", ...Object.fromEntries(bindings.map((name) => [name, "failing"])) });
  expect((performance.now() - started) / 1000).toBeLessThan(6);
});

// Last: it opens the breaker.
test("when KV stays down, the breaker answers without asking, and closes by itself", async () => {
  const { token } = await issue();
  let answer: Answer;
  for (let count = 0; count < 40; count += 1) expectUnavailable((answer = await use("verify", token, "SESSIONS.get=down")));
  expect(cost(answer!)).toBe("r=0 w=0 d=0 l=0");
  expectUnavailable(await use("verify", token));
  setClock(Date.now() + 60_000);
  expect(await isValid(token)).toBe(true);
  expect(await isValid(token)).toBe(true);
});

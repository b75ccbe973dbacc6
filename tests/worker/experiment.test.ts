// Goal: the experiment routes keep their contract in the built Worker, also for hostile input and a failing KV.
// Method: plain requests, each test with an experiment of its own.
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, test, vi } from "vitest";
import { call, cost, fresh, problem } from "./client";

afterEach(() => void vi.useRealTimers());

const halves = [{ name: "control", weight: 1 }, { name: "blue", weight: 1 }];
const definition = (more: object = {}) => ({ variants: halves, status: "running", ...more });
const failing = (faults: string) => ({ headers: { "x-test-faults": faults } });

const put = (name: string, more: object = {}, query = "") => call(`PUT /v1/experiments/${name}${query}`, { body: definition(more) });
async function made(more: object = {}): Promise<string> {
  const name = fresh("experiment");
  expect((await put(name, more)).status).toBe(201);
  return name;
}
const assign = (name: string, userId: string, more: object = {}) => call(`POST /v1/experiments/${name}/assignments`, { body: { userId, ...more } });
const event = (name: string, userId: string, metric = "exposure", more: object = {}) =>
  call(`POST /v1/experiments/${name}/events`, { body: { userId, metric, ...more } });
const results = async (name: string) => (await call(`GET /v1/experiments/${name}/results`)).body;
const total = (report: { variants: { exposures: number }[] }) => report.variants.reduce((sum, { exposures }) => sum + exposures, 0);

describe("definitions", () => {
  test("one is made, read, changed on a condition, listed, and removed", async () => {
    const name = fresh("a/b experiment");
    const path = `/v1/experiments/${encodeURIComponent(name)}`;
    const created = await call(`PUT ${path}`, { body: definition() });
    expect([created.status, cost(created)]).toEqual([201, "r=1 w=1 d=0 l=0"]);
    expect(created.body).toEqual({
      name, variants: halves, status: "running", salt: expect.any(String), sticky: false, overrides: {},
      createdAt: expect.any(Number), updatedAt: expect.any(Number),
    });
    const read = await call(`GET ${path}`);
    expect([read.body, read.headers.get("etag"), cost(read)]).toEqual([created.body, created.headers.get("etag"), "r=1 w=0 d=0 l=0"]);
    const etag = read.headers.get("etag")!;
    expect((await call(`GET ${path}`, { headers: { "if-none-match": etag } })).status).toBe(304);
    expect(problem(await call(`PUT ${path}`, { body: definition(), headers: { "if-none-match": "*" } }))).toBe("412 precondition-failed");
    expect(problem(await call(`PUT ${path}`, { body: definition(), headers: { "if-match": '"x"' } }))).toBe("412 precondition-failed");
    const paused = await call(`PUT ${path}`, { body: definition({ status: "paused" }), headers: { "if-match": etag } });
    expect([paused.status, paused.body.salt, paused.body.createdAt]).toEqual([200, created.body.salt, created.body.createdAt]);
    const again = await call(`PUT ${path}`, { body: definition({ status: "paused" }) });
    expect([again.status, cost(again)]).toEqual([200, "r=1 w=0 d=0 l=0"]);
    const { items } = (await call("GET /v1/experiments?limit=1000")).body;
    expect(items).toContainEqual(paused.body);
    expect((await call("GET /v1/experiments", { token: "other-token" })).body).toEqual({ items: [], cursor: null });
    expect(problem(await call(`GET ${path}`, { token: "other-token" }))).toBe("404 not-found");
    expect(problem(await call(`DELETE ${path}`, { headers: { "if-match": etag } }))).toBe("412 precondition-failed");
    expect((await call(`DELETE ${path}`)).status).toBe(204);
    for (const method of ["GET", "DELETE"]) expect(problem(await call(`${method} ${path}`))).toBe("404 not-found");
    expect(problem(await assign(encodeURIComponent(name), "u"))).toBe("404 not-found");
  });

  test("the secret is in no reply", async () => {
    const name = await made({ sticky: true });
    const stored = JSON.parse((await env.CONFIG.get(`dev/experiment/${name}`))!.split("\n")[1]!);
    expect(stored.secret).toMatch(/^[\w-]{43}$/);
    const replies = await Promise.all([put(name, { sticky: true }), assign(name, "u"), event(name, "u"), call(`GET /v1/experiments/${name}/results`), call("GET /v1/experiments?limit=1000")]);
    for (const { text } of replies) for (const hidden of [stored.secret, stored.id]) expect(text).not.toContain(hidden);
  });

  const wrong: [string, object, string][] = [
    ["no variants", { variants: undefined }, "variants"],
    ["an empty list", { variants: [] }, "variants"],
    ["no list", { variants: {} }, "variants"],
    ["21 variants", { variants: Array.from({ length: 21 }, (_, n) => ({ name: `v${n}`, weight: 1 })) }, "variants"],
    ["a variant that is no object", { variants: [7] }, "variants[0]"],
    ["the same name twice", { variants: [halves[0], halves[0]] }, "variants"],
    ["an empty name", { variants: [{ name: "", weight: 1 }] }, "variants[0].name"],
    ["a long name", { variants: [{ name: "x".repeat(129), weight: 1 }] }, "variants[0].name"],
    ["no weight", { variants: [halves[0], { name: "b" }] }, "variants[1].weight"],
    ["a negative weight", { variants: [{ name: "a", weight: -1 }] }, "variants[0].weight"],
    ["a broken weight", { variants: [{ name: "a", weight: 0.5 }] }, "variants[0].weight"],
    ["a weight that overflows", { variants: [{ name: "a", weight: 2 ** 64 }] }, "variants[0].weight"],
    ["weights without a sum", { variants: [{ name: "a", weight: 0 }, { name: "b", weight: 0 }] }, "variants"],
    ["a variant that is none", { variants: [5] }, "variants[0]"],
    ["an unknown field of a variant", { variants: [{ name: "a", weight: 1, share: 1 }] }, "variants[0].share"],
    ["no status", { status: undefined }, "status"],
    ["another status", { status: "Running" }, "status"],
    ["an empty salt", { salt: "" }, "salt"],
    ["a long salt", { salt: "x".repeat(257) }, "salt"],
    ["a salt with a separator", { salt: "a\u001fb" }, "salt"],
    ["sticky as a number", { sticky: 1 }, "sticky"],
    ["overrides as a list", { overrides: [] }, "overrides"],
    ["an override to nowhere", { overrides: { u: "green" } }, "overrides.u"],
    ["101 overrides", { overrides: Object.fromEntries(Array.from({ length: 101 }, (_, n) => [`u${n}`, "blue"])) }, "overrides"],
    ["a layer that is no object", { layer: "page" }, "layer"],
    ["a layer without a name", { layer: { start: 0, end: 1 } }, "layer.name"],
    ["a layer without an end", { layer: { name: "page", start: 0 } }, "layer.end"],
    ["a slot before the first", { layer: { name: "page", start: -1, end: 1 } }, "layer.start"],
    ["a slot after the last", { layer: { name: "page", start: 0, end: 1_000_001 } }, "layer.end"],
    ["no slots", { layer: { name: "page", start: 5, end: 5 } }, "layer"],
    ["an unknown field of a layer", { layer: { name: "page", start: 0, end: 5, share: 1 } }, "layer.share"],
    ["an unknown field", { typo: 1 }, "typo"],
  ];
  test.each(wrong)("%s is refused with its place", async (_, more, field) => {
    expect(problem(await put(fresh("wrong"), more))).toBe(`400 invalid-request ${field}`);
  });

  test("scopes: reads may assign, only writes may count and change", async () => {
    const name = await made();
    expect(problem(await call(`POST /v1/experiments/${name}/assignments`, { token: "flags-token", body: { userId: "u" } }))).toBe("403 forbidden");
    expect(problem(await call(`PATCH /v1/experiments/${name}`))).toBe("405 method-not-allowed");
    expect(problem(await put(name, {}, "?allowReassign=yes"))).toBe("400 invalid-request allowReassign");
  });
});

describe("assignment", () => {
  test("costs nothing in a warm isolate, and the user's id collides with nothing", async () => {
    const name = await made({ salt: "s" });
    for (const user of ["default", "config", "a:b", "a/b", "ü", "x".repeat(256)]) {
      const answers = [await assign(name, user), await assign(name, user)];
      expect(answers[0]!.body).toEqual({ variant: expect.stringMatching(/^(control|blue)$/), reason: "assigned" });
      expect(answers[1]!.body).toEqual(answers[0]!.body);
      expect(cost(answers[1]!)).toBe("r=0 w=0 d=0 l=0");
    }
    for (const userId of ["", "x".repeat(257), "a\u0000b", 7, null, ["u"]]) {
      expect(problem(await assign(name, userId as string))).toBe("400 invalid-request userId");
    }
    expect(problem(await assign(name, "u", { userName: 1 }))).toBe("400 invalid-request userName");
  });

  test("one read in ten seconds", async () => {
    const name = await made();
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 11_000 });
    expect([cost(await assign(name, "u")), cost(await assign(name, "u"))]).toEqual(["r=1 w=0 d=0 l=0", "r=0 w=0 d=0 l=0"]);
  });

  test("draft, paused and ended give control to everybody, with a token or without", async () => {
    const name = await made({ sticky: true, variants: [{ name: "control", weight: 0 }, { name: "blue", weight: 1 }] });
    const { stickyToken, variant } = (await assign(name, "u")).body;
    expect(variant).toBe("blue");
    expect((await assign(name, "u", { stickyToken })).body.reason).toBe("sticky");
    for (const status of ["draft", "paused", "ended"]) {
      expect((await put(name, { sticky: true, status, variants: [{ name: "control", weight: 0 }, { name: "blue", weight: 1 }] })).status).toBe(200);
      for (const more of [{}, { stickyToken }]) {
        expect((await assign(name, "u", more)).body).toEqual({ variant: "control", reason: "notRunning" });
      }
      expect((await event(name, "u", "exposure", { stickyToken })).body).toEqual({ variant: "control", counted: false });
    }
  });

  test("an edit that moves users is refused with their share, unless allowed; a token keeps its user", async () => {
    const variants = (control: number, blue: number) => ({ sticky: true, salt: "s", variants: [{ name: "control", weight: control }, { name: "blue", weight: blue }] });
    const name = await made(variants(9, 1));
    const user = "user-1";
    const { variant, stickyToken } = (await assign(name, user)).body;
    expect(variant).toBe("control");
    const refused = await put(name, variants(0, 1));
    expect([problem(refused), refused.body.detail]).toEqual(["409 would-reassign variants", expect.stringContaining("0.900000")]);
    expect(refused.body.share).toBeCloseTo(0.9, 12);
    expect((await put(name, variants(18, 2))).status).toBe(200);
    expect((await put(name, { ...variants(0, 1), status: "paused" })).status).toBe(200);
    expect(problem(await put(name, variants(0, 1)))).toBe("409 would-reassign variants");
    expect((await put(name, variants(0, 1), "?allowReassign=1")).status).toBe(200);
    expect((await assign(name, user)).body).toMatchObject({ variant: "blue", reason: "assigned" });
    expect((await assign(name, user, { stickyToken })).body).toMatchObject({ variant: "control", reason: "sticky" });
    // Somebody else's, another experiment's, and no token at all.
    expect((await assign(name, "user-2", { stickyToken })).body.reason).toBe("assigned");
    expect((await assign(await made(variants(1, 9)), user, { stickyToken })).body.reason).toBe("assigned");
    expect((await assign(name, user, { stickyToken: "junk" })).body.reason).toBe("assigned");
    expect(problem(await assign(name, user, { stickyToken: "x".repeat(257) }))).toBe("400 invalid-request stickyToken");
  });

  test("a tester gets the variant asked for, and does not count", async () => {
    const name = await made({ overrides: { eve: "blue", config: "control" } });
    expect((await assign(name, "eve")).body).toEqual({ variant: "blue", reason: "assigned" });
    expect((await assign(name, "config")).body).toEqual({ variant: "control", reason: "assigned" });
    expect((await event(name, "eve")).body).toEqual({ variant: "blue", counted: false });
    expect(total(await results(name))).toBe(0);
  });
});

describe("layers", () => {
  test("experiments of one layer share no user, and refuse each other's slots", async () => {
    const layer = fresh("layer");
    const slots = (start: number, end: number) => ({ layer: { name: layer, start, end } });
    const [one, two] = [await made(slots(0, 500_000)), await made(slots(500_000, 1_000_000))];
    expect((await call(`GET /v1/experiments/${one}`)).body.layer).toEqual({ name: layer, start: 0, end: 500_000 });
    const users = Array.from({ length: 40 }, (_, n) => `u${n}`);
    const reasons = await Promise.all(users.map(async (user) => [(await assign(one, user)).body.reason, (await assign(two, user)).body.reason].sort()));
    expect(new Set(reasons.map(String))).toEqual(new Set(["assigned,notInLayer"]));
    const outside = users[(await Promise.all(users.map((user) => assign(one, user)))).findIndex(({ body }) => body.reason === "notInLayer")]!;
    expect((await assign(one, outside)).body).toEqual({ variant: "control", reason: "notInLayer" });
    expect((await event(one, outside)).body).toEqual({ variant: "control", counted: false });
    const taken = await put(two, slots(400_000, 1_000_000));
    expect([problem(taken), taken.body.experiment]).toEqual(["409 slots-taken layer", one]);
    const shrunk = await put(one, slots(0, 250_000));
    expect([problem(shrunk), shrunk.body.share]).toEqual(["409 would-reassign variants", 0.125]);
    expect((await put(one, { ...slots(0, 250_000), status: "ended" })).status).toBe(200);
    expect((await put(two, slots(250_000, 1_000_000))).status).toBe(200);
  });
});

describe("events and results", () => {
  test("an event counts once, at one write, and nothing is stored under the user's id", async () => {
    const name = await made();
    const first = await event(name, "alice@example.com");
    expect([first.status, first.body.counted, cost(first)]).toEqual([202, true, "r=0 w=1 d=0 l=0"]);
    const second = await event(name, "alice@example.com");
    expect([second.status, cost(second)]).toEqual([202, "r=0 w=0 d=0 l=0"]);
    await event(name, "alice@example.com", "purchase", { value: 10 });
    await event(name, "bob", "purchase", { value: 10 });
    const report = await results(name);
    expect(total(report)).toBe(1);
    const seen = report.variants.find(({ exposures }: { exposures: number }) => exposures === 1);
    expect(seen.metrics).toMatchObject([{ metric: "purchase", conversions: 1, rate: 1, valueSum: 10 }]);
    expect(report.excluded).toEqual({ switched: 0, unexposed: 1, removed: 0 });
    const { keys } = await env.COUNTERS.list();
    expect(keys.filter(({ name }) => name.includes("alice"))).toEqual([]);
  });

  test("of an event with several values the last one counts, also where an earlier one comes back", async () => {
    const name = await made();
    await event(name, "u");
    for (const value of [1, 2, 1]) {
      expect((await event(name, "u", "purchase", { value })).status).toBe(202);
      const { variants } = await results(name);
      const [purchase] = variants.find(({ exposures }: { exposures: number }) => exposures === 1).metrics;
      expect([purchase.conversions, purchase.valueSum]).toEqual([1, value]);
    }
  });

  test("rates, intervals and tests against control; no verdict without data", async () => {
    const name = await made({ salt: "results" });
    const users = Array.from({ length: 60 }, (_, n) => `u${n}`);
    const placed = await Promise.all(users.map(async (user) => (await event(name, user)).body.variant));
    await Promise.all(users.filter((_, n) => n % 3 === 0).map((user) => event(name, user, "purchase")));
    const answer = await call(`GET /v1/experiments/${name}/results`);
    expect([answer.headers.get("consistency"), cost(answer)]).toEqual(["eventual", "r=0 w=0 d=0 l=1"]);
    const report = answer.body;
    expect([report.control, report.truncated, report.sampledShare]).toEqual(["control", false, 1]);
    expect(report.sampleRatio).toMatchObject({ exposures: 60, mismatch: false });
    for (const { variant, exposures, metrics } of report.variants) {
      expect(exposures).toBe(placed.filter((name) => name === variant).length);
      const [purchase] = metrics;
      const conversions = users.filter((_, n) => n % 3 === 0 && placed[n] === variant).length;
      expect([purchase.conversions, purchase.rate]).toEqual([conversions, conversions / exposures]);
      expect(purchase.rateInterval.low).toBeLessThan(purchase.rate);
      if (variant === "control") expect(purchase.comparison).toBe(null);
      else expect(purchase.comparison).toMatchObject({ uplift: expect.any(Number), pValue: expect.any(Number), alwaysValidPValue: expect.any(Number), probabilityToBeatControl: expect.any(Number), verdict: null, withheld: "notEnoughData" });
    }
  });

  test("a sample ratio that does not fit withholds the verdict", async () => {
    const name = await made({ salt: "lost" });
    const users = Array.from({ length: 80 }, (_, n) => `u${n}`);
    const placed = await Promise.all(users.map(async (user) => (await assign(name, user)).body.variant));
    await Promise.all(users.filter((_, n) => placed[n] === "blue").map((user) => event(name, user)));
    await event(name, users[placed.indexOf("blue")]!, "purchase");
    const report = await results(name);
    expect(report.sampleRatio.mismatch).toBe(true);
    expect(report.variants[1].metrics[0].comparison).toMatchObject({ verdict: null, withheld: "sampleRatioMismatch" });
  });

  test("hostile events are refused with their place", async () => {
    const name = await made();
    for (const metric of ["", "x".repeat(129), "a\nb", 7, null]) expect(problem(await event(name, "u", metric as string))).toBe("400 invalid-request metric");
    for (const value of ["1", true, 1e16, -1e16, {}]) expect(problem(await event(name, "u", "m", { value }))).toBe("400 invalid-request value");
    expect(problem(await event(name, "u", "m", { count: 2 }))).toBe("400 invalid-request count");
    expect(problem(await event(fresh("none"), "u"))).toBe("404 not-found");
    for (const metric of ["__proto__", "a/b", "%2F", '"'.repeat(128), "ü".repeat(64)]) expect((await event(name, "u", metric)).status).toBe(202);
    await event(name, "u");
    const { variants } = await results(name);
    const seen = variants.find(({ exposures }: { exposures: number }) => exposures === 1);
    expect(seen.metrics.map(({ conversions }: { conversions: number }) => conversions)).toEqual([1, 1, 1, 1, 1]);
  });

  test("an experiment made anew shares nothing with its namesake", async () => {
    const name = await made();
    await event(name, "u");
    await call(`DELETE /v1/experiments/${name}`);
    await put(name);
    expect(total(await results(name))).toBe(0);
  });
});

describe("KV fails", () => {
  test("assignment goes on with what the isolate knows; nothing is called counted that is not", async () => {
    const name = await made();
    const before = (await assign(name, "u")).body;
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 11_000 });
    const answer = await call(`POST /v1/experiments/${name}/assignments`, { body: { userId: "u" }, ...failing("CONFIG.get=down") });
    expect([answer.status, answer.body]).toEqual([200, before]);
    const lost = await call(`POST /v1/experiments/${name}/events`, { body: { userId: "u", metric: "exposure" }, ...failing("COUNTERS.put=down") });
    expect(problem(lost)).toBe("503 unavailable");
    expect(total(await results(name))).toBe(0);
    expect((await event(name, "u")).status).toBe(202);
    expect(total(await results(name))).toBe(1);
    expect(problem(await call(`GET /v1/experiments/${name}/results`, failing("COUNTERS.list=down")))).toBe("503 unavailable");
  });

  test("an edit says so and changes nothing; one that happened all the same is seen", async () => {
    const name = await made();
    const pause = (faults: string) => call(`PUT /v1/experiments/${name}`, { body: definition({ status: "paused" }), ...failing(faults) });
    for (const faults of ["CONFIG.get=down", "CONFIG.put=down"]) expect(problem(await pause(faults))).toBe("503 unavailable");
    expect((await assign(name, "u")).body.reason).toBe("assigned");
    expect(problem(await pause("CONFIG.put=after"))).toBe("503 unavailable");
    expect((await assign(name, "u")).body.reason).toBe("notRunning");
    expect(problem(await call(`DELETE /v1/experiments/${name}`, failing("CONFIG.delete=down")))).toBe("503 unavailable");
  });

  test("a second event within the second is as good as the first", async () => {
    const name = await made();
    await event(name, "u");
    const again = await call(`POST /v1/experiments/${name}/events`, { body: { userId: "v", metric: "exposure" }, ...failing("COUNTERS.put=throttled") });
    expect([again.status, again.body.counted]).toEqual([202, true]);
  });
});

// What api.md promises of every resource alike, tried on each: ids, bodies, lists, cursors, entity tags, tenants, request ids.
// Method: where OpenAPI says what an operation takes, the tables come from there, so that a new operation is tried by itself.
import { describe, expect, test, vi } from "vitest";
import { call, fresh, problem, type Call } from "./client.ts";
import { examples, openapi, resolve, route, type Example, type Operation } from "./openapi.ts";

const document = await openapi();
const operations = document.operations.filter(({ path }) => !path.startsWith("/v1/fetch/"));
// OFREP has its own form of errors.
const ours = operations.filter(({ tags }) => !tags.includes("ofrep"));
const named = (some: Operation[]) => some.map((operation) => [operation.id, operation] as const);

const parametersOf = ({ path }: Operation) => [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);

describe("scopes", async () => {
  const TOKEN = "scoped-token";
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(TOKEN)));
  const sha256 = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  /** What is below a user has a scope of its own; OFREP reads flags. */
  const resource = ({ path }: Operation) => (path.startsWith("/ofrep/") ? "flags" : path.replace("/v1/users/{user}", "/v1").split("/")[2]!);
  /** A POST because of what it takes: nothing that a caller has stored changes. */
  const READS = ["verifySession", "evaluateFlag", "evaluateFlags", "evaluateFlagsSlash", "assignVariant", "checkRateLimit"];

  test.each(named(operations.filter(({ open }) => !open)))("%s: its resource's, for reading with `:read` too, and no other's", async (id, operation) => {
    const example = await examples[id]!();
    const status = async (scope: string) => {
      const API_TOKENS = JSON.stringify({ one: { sha256, tenant: "dev", scopes: [scope] } });
      const headers = { ...example.headers, "x-test-env": JSON.stringify({ API_TOKENS }) };
      return (await call(route(operation, example), { ...example, headers, token: TOKEN })).status;
    };
    const [own, good] = [resource(operation), example.status ?? 200];
    const isRead = operation.method === "GET" || READS.includes(id);
    for (const scope of [own === "locks" ? "counters" : "locks", `${own}x`, `x${own}`, `${own}:write`, ":read"]) expect(await status(scope), scope).toBe(403);
    expect(await status(`${own}:read`), `${own}:read`).toBe(isRead ? good : 403);
    expect(await status(own), own).toBe(good);
  });
});

describe("ids in a path", () => {
  const bad = ["%00", "a%0Ab", "%7F", "%C2%85", "%zz", "%", "%FF", "%ED%A0%80", "x".repeat(257), encodeURIComponent("é".repeat(128)) + "x"];
  test.each(named(ours.filter((operation) => parametersOf(operation).length > 0)))("%s refuses bad ones and names the parameter", async (id, operation) => {
    const example = await examples[id]!();
    for (const parameter of parametersOf(operation)) {
      for (const value of bad) {
        const marked = route(operation, { ...example, parameters: { ...example.parameters, [parameter]: "MARK" } });
        expect(problem(await call(marked.replace("MARK", value), example)), value).toBe(`400 invalid-request ${parameter}`);
      }
    }
  });

  // Not the ids of sessions, whose form is ours; bindings are a few; origins have 128 bytes.
  const free = ours.filter((operation) => parametersOf(operation).some((name) => !["binding", "id"].includes(name)) && operation.method === "GET");
  test.each(named(free.filter(({ tags }) => !tags.includes("origins"))))("%s takes any UTF-8 of up to 256 bytes, decoded once", async (id, operation) => {
    const example = await examples[id]!();
    for (const parameter of parametersOf(operation)) {
      for (const value of ["x".repeat(256), "😀".repeat(64), "%25", "a/b", "a b+c", "../x", "é:\"'"]) {
        const { status, text } = await call(route(operation, { ...example, parameters: { ...example.parameters, [parameter]: value } }), example);
        expect([200, 404], `${value}: ${text}`).toContain(status);
      }
    }
  });
});

describe("JSON bodies", () => {
  type Schema = Record<string, any>;
  const schemaOf = ({ description }: Operation): Schema | undefined => {
    const schema = description.requestBody?.content["application/json"]?.schema;
    return schema && resolve(document, schema);
  };
  // Faults of flags are named by their place in the whole document: flag.test.ts.
  const strict = ours.filter((operation) => schemaOf(operation)?.additionalProperties === false && !operation.id.startsWith("putFlag"));

  /** Values that `schema` refuses. */
  function wrong(schema: Schema): unknown[] {
    const { type, enum: words, minimum, maximum, exclusiveMinimum, minLength, maxLength, maxItems } = resolve(document, schema);
    const kind = (Array.isArray(type) ? type.find((one: string) => one !== "null") : type) ?? (words && "string");
    const values: unknown[] = [];
    if (kind === "string") values.push(7, true, ["x"], { x: "x" });
    if (words?.some((word: unknown) => typeof word === "string")) values.push("nonsense", "");
    if (kind === "string" && minLength > 0) values.push("");
    if (kind === "string" && maxLength !== undefined) values.push("x".repeat(maxLength + 1));
    if (kind === "integer") values.push("1", 1.5, true, [], {}, 1e300);
    if (kind === "number") values.push("1", true, []);
    if (minimum !== undefined) values.push(minimum - 1);
    if (exclusiveMinimum !== undefined) values.push(exclusiveMinimum);
    if (maximum !== undefined) values.push(maximum + 1);
    if (kind === "boolean") values.push("true", 1, 0, {});
    if (kind === "array") values.push("x", { 0: "x" }, 7);
    if (kind === "array" && maxItems !== undefined) values.push(Array(maxItems + 1).fill("x"));
    if (kind === "object") values.push("x", 7, true);
    return values;
  }

  test.each(named(strict))("%s: an unknown field, a wrong type and a number out of range are 400 and named", async (id, operation) => {
    const schema = schemaOf(operation)!;
    const example = await examples[id]!();
    const body = example.body as Record<string, unknown>;
    const tried = async (changed: object) => problem(await call(route(operation, example), { ...example, body: changed }));
    expect(await tried({ ...body, unknown: 1 })).toBe("400 invalid-request unknown");
    expect(await tried([body])).toBe("400 invalid-request");
    for (const name of schema.required ?? []) {
      const { [name]: _, ...rest } = body;
      expect(await tried(rest), `without ${name}`).toBe(`400 invalid-request ${name}`);
    }
    for (const [name, property] of Object.entries<Schema>(schema.properties)) {
      for (const value of wrong(property)) {
        const told = await tried({ ...body, [name]: value });
        // A field of its own may have a field to blame: `roles[3]`, `migrations[0].steps`.
        expect(told, `${name}: ${JSON.stringify(value).slice(0, 80)}`).toMatch(new RegExp(`^400 invalid-request ${name}(\\W|$)`));
      }
    }
  });

  test("the table is not empty", () => expect(strict.length).toBeGreaterThan(12));
});

describe("lists", () => {
  const put = (path: string, body: unknown) => call(`PUT ${path}`, { body });
  /** By operation: makes two items or more, and gives the list they are in. */
  const FILLED: Record<string, () => Promise<string>> = {
    listSessions: async () => {
      const userId = fresh("user");
      for (const _ of [1, 2]) await call("POST /v1/sessions", { body: { userId } });
      return `/v1/users/${userId}/sessions?`;
    },
    listFlagRevisions: async () => {
      for (const _ of [1, 2]) await put(`/v1/flags/${fresh("flag")}`, { state: "ENABLED", variants: { on: true }, defaultVariant: "on" });
      return "/v1/flags/revisions?";
    },
    listOrigins: async () => {
      for (const _ of [1, 2]) await put(`/v1/origins/${fresh("origin")}`, { baseUrl: "https://example.com" });
      return "/v1/origins?";
    },
    listExperiments: async () => {
      for (const _ of [1, 2]) await put(`/v1/experiments/${fresh("experiment")}`, { variants: [{ name: "control", weight: 1 }], status: "draft" });
      return "/v1/experiments?";
    },
    listCounters: async () => {
      const prefix = fresh("counter");
      for (const end of ["a", "b"]) await call(`POST /v1/counters/${prefix}${end}`);
      // Written in the background.
      await vi.waitFor(async () => expect((await call(`GET /v1/counters?prefix=${prefix}`)).body.items.length).toBe(2), { timeout: 5000 });
      return `/v1/counters?prefix=${prefix}&`;
    },
    listRateLimits: async () => {
      for (const _ of [1, 2]) await put(`/v1/rate-limits/${fresh("policy")}`, { limit: 1, windowSeconds: 60 });
      return "/v1/rate-limits?";
    },
    listDocuments: async () => {
      const collection = fresh("collection");
      await put(`/v1/collections/${collection}`, { version: 1 });
      for (const id of ["a", "b"]) await put(`/v1/collections/${collection}/documents/${id}`, {});
      return `/v1/collections/${collection}/documents?`;
    },
    listKeys: async () => {
      const prefix = fresh("user");
      for (const end of ["/a", "/b"]) await put(`/v1/users/${encodeURIComponent(prefix + end)}/profile`, {});
      return "/v1/keys/CONFIG?prefix=profile/&";
    },
  };
  const taking = operations.filter(({ method, description }) => {
    const parameters: { $ref?: string }[] = description.parameters ?? [];
    return method === "GET" && parameters.some(({ $ref }) => $ref === "#/components/parameters/Limit");
  });

  test("the table has every list", () => expect(Object.keys(FILLED).sort()).toEqual(taking.map(({ id }) => id).sort()));

  test.each(Object.entries(FILLED))("%s: pages of 1 to 1000, nothing else", async (_, fill) => {
    const list = await fill();
    for (const limit of ["0", "1001", "-1", "1.5", "", "x", "%31%30%30%31"]) {
      expect(problem(await call(`GET ${list}limit=${limit}`)), limit).toBe("400 invalid-request limit");
    }
    for (const limit of [1, 1000]) {
      const { status, body } = await call(`GET ${list}limit=${limit}`);
      expect(status).toBe(200);
      expect(body.items.length).toBeLessThanOrEqual(limit);
      expect([null, "string"]).toContain(body.cursor === null ? null : typeof body.cursor);
    }
    for (const cursor of ["x", "%00", "A".repeat(2000), ""]) {
      expect(problem(await call(`GET ${list}cursor=${cursor}`)), cursor).toBe("400 invalid-request cursor");
    }
  });

  test("a cursor is good for its own list and tenant only", async () => {
    const first = async (fill: () => Promise<string>) => {
      const list = await fill();
      const { body } = await call(`GET ${list}limit=1`);
      expect(body.cursor, list).toEqual(expect.any(String));
      return { list, cursor: encodeURIComponent(body.cursor) };
    };
    const pages = [];
    for (const fill of Object.values(FILLED)) pages.push(await first(fill));
    // The same kind of list, below another prefix.
    for (const kind of ["listSessions", "listCounters", "listDocuments"]) pages.push(await first(FILLED[kind]!));
    for (const { list, cursor } of pages) {
      expect((await call(`GET ${list}limit=1&cursor=${cursor}`)).status, list).toBe(200);
      const theirs = await call(`GET ${list}limit=1&cursor=${cursor}`, { token: "other-token" });
      // The other tenant has no such collection.
      expect([problem(theirs), list], list).toEqual(["400 invalid-request cursor", list]);
      for (const other of pages.filter((page) => page.list !== list)) {
        expect(problem(await call(`GET ${other.list}limit=1&cursor=${cursor}`)), `${list} in ${other.list}`).toBe("400 invalid-request cursor");
      }
    }
  });
});

/** A document that is replaced whole: where it is, two versions of it, and what it cannot do. */
interface Mutable {
  at: () => Promise<string> | string;
  bodies: [unknown, unknown];
  raw?: boolean;
  /** Where the tenant has one of it: every other test changes it. */
  single?: boolean;
  alwaysThere?: boolean;
}

const flag = (variant: string) => ({ state: "ENABLED", variants: { on: true, off: false }, defaultVariant: variant });
const experiment = (weight: number) => ({ variants: [{ name: "control", weight: 1 }, { name: "b", weight }], status: "draft" });
const DOCUMENTS: Record<string, Mutable> = {
  "a cached object": { at: () => `/v1/cache/${fresh("bucket")}/a/b`, bodies: ["one", "two"], raw: true },
  "an origin": { at: () => `/v1/origins/${fresh("origin")}`, bodies: [{ baseUrl: "https://a.example" }, { baseUrl: "https://b.example" }] },
  "a flag": { at: () => `/v1/flags/${fresh("flag")}`, bodies: [flag("on"), flag("off")] },
  "an experiment": { at: () => `/v1/experiments/${fresh("experiment")}`, bodies: [experiment(1), experiment(2)] },
  "a rate limit": { at: () => `/v1/rate-limits/${fresh("policy")}`, bodies: [{ limit: 1, windowSeconds: 60 }, { limit: 2, windowSeconds: 60 }] },
  preferences: { at: () => `/v1/users/${fresh("user")}/preferences`, bodies: [{ theme: "dark" }, { theme: "light" }], alwaysThere: true },
  "a profile": { at: () => `/v1/users/${fresh("user")}/profile`, bodies: [{ a: 1 }, { a: 2 }] },
  "a document": {
    at: async () => {
      const collection = fresh("collection");
      await call(`PUT /v1/collections/${collection}`, { body: { version: 1 } });
      return `/v1/collections/${collection}/documents/d`;
    },
    bodies: [{ a: 1 }, { a: 2 }],
  },
  "a setting": { at: () => `/v1/settings/${fresh("setting")}`, bodies: [{ a: 1 }, { a: 2 }] },
  "a replicated key": { at: () => `/v1/replicated/${fresh("key")}/x`, bodies: ["one", "two"], raw: true },
  "the flag document": { at: () => "/v1/flags", bodies: [{ flags: {} }, { flags: { f: flag("on") } }], single: true },
};

describe("mutable documents", () => {
  const FAILED = "412 precondition-failed";

  test.each(Object.entries(DOCUMENTS))("%s has a strong tag, with which If-Match and If-None-Match work", async (_, kind) => {
    const path = await kind.at();
    const get = (headers: Record<string, string> = {}) => call(`GET ${path}`, { headers });
    const put = (version: 0 | 1, headers: Record<string, string> = {}) => {
      const body = kind.bodies[version];
      return call(`PUT ${path}`, kind.raw ? { raw: body as string, headers: { "content-type": "text/plain", ...headers } } : { body, headers });
    };
    const refused = async (reply: Promise<Awaited<ReturnType<typeof call>>>) => {
      const answer = await reply;
      expect([problem(answer), answer.headers.get("consistency"), answer.headers.get("etag")]).toEqual([FAILED, "eventual", null]);
    };
    const isThere = kind.alwaysThere || (await get()).status === 200;

    if (!isThere) {
      const absent = await get();
      expect([problem(absent), absent.headers.get("consistency")]).toEqual(["404 not-found", "eventual"]);
      await refused(put(0, { "if-match": "*" }));
    }
    const made = await put(0, isThere ? {} : { "if-none-match": "*" });
    expect([200, 201, 204], made.text).toContain(made.status);
    const read = await get();
    const tag = read.headers.get("etag")!;
    expect(tag).toMatch(/^"[\x21\x23-\x7e]+"$/);
    expect([read.status, made.headers.get("etag"), read.headers.get("consistency")]).toEqual([200, tag, "eventual"]);
    const head = await call(`HEAD ${path}`);
    expect([head.status, head.text, head.headers.get("etag")]).toEqual([200, "", tag]);

    for (const known of [tag, `W/${tag}`, `"x", ${tag}`, "*"]) {
      const same = await get({ "if-none-match": known });
      expect([same.status, same.text, same.headers.get("etag"), same.headers.get("consistency")], known).toEqual([304, "", tag, "eventual"]);
    }
    expect((await get({ "if-none-match": '"x"' })).status).toBe(200);
    expect((await get({ "if-match": tag })).status).toBe(200);
    await refused(get({ "if-match": '"x"' }));

    await refused(put(1, { "if-match": '"x"' }));
    // A weak tag never matches strongly (RFC 9110 §13.1.1).
    await refused(put(1, { "if-match": `W/${tag}` }));
    await refused(put(1, { "if-none-match": "*" }));
    await refused(put(1, { "if-none-match": tag }));
    expect((await get()).headers.get("etag")).toBe(tag);

    const changed = await put(1, { "if-match": `"x", ${tag}` });
    expect([200, 204], changed.text).toContain(changed.status);
    const after = (await get()).headers.get("etag")!;
    expect(after).not.toBe(tag);
    expect(changed.headers.get("etag")).toBe(after);
    await refused(put(0, { "if-match": tag }));

    if (kind.single) return;
    await refused(call(`DELETE ${path}`, { headers: { "if-match": tag } }));
    expect((await get()).headers.get("etag")).toBe(after);
    expect((await call(`DELETE ${path}`, { headers: { "if-match": after } })).status).toBe(204);
    if (!kind.alwaysThere) expect(problem(await get())).toBe("404 not-found");
  });

  const apart = Object.entries(DOCUMENTS).filter(([, kind]) => !kind.alwaysThere && !kind.single);
  test.each(apart)("%s of one tenant is neither shown to nor ended by another", async (_, kind) => {
    const path = await kind.at();
    const body = (version: 0 | 1): Call => {
      const value = kind.bodies[version];
      return kind.raw ? { raw: value as string, headers: { "content-type": "text/plain" } } : { body: value };
    };
    await call(`PUT ${path}`, body(0));
    const before = await call(`GET ${path}`);
    expect(problem(await call(`GET ${path}`, { token: "other-token" }))).toBe("404 not-found");
    await call(`DELETE ${path}`, { token: "other-token" });
    await call(`PUT ${path}`, { ...body(1), token: "other-token" });
    const after = await call(`GET ${path}`);
    expect([after.status, after.text, after.headers.get("etag")]).toEqual([200, before.text, before.headers.get("etag")]);
  });
});

test("no method stands twice in Allow, whatever else a path may be", async () => {
  for (const path of ["/v1/flags/revisions", "/v1/flags/rollback", "/v1/cache/b/purge"]) {
    const methods = (await call(`OPTIONS ${path}`)).headers.get("allow")!.split(", ");
    expect(methods.length, path).toBe(new Set(methods).size);
  }
});

describe("every reply", () => {
  test.each(named(operations))("%s carries the caller's request id, whatever becomes of it", async (id, operation) => {
    const example: Example = await examples[id]!();
    const headers = { ...example.headers, "x-request-id": "Mine-1._" };
    const changes: Partial<Call>[] = [{}, { token: null }, { token: "no-scope-token" }];
    const answers = [];
    for (const change of changes) answers.push(await call(route(operation, example), { ...example, headers, ...change }));
    answers.push(await call(route({ ...operation, method: "PROPFIND" }, example), { headers }));
    answers.push(await call(route({ ...operation, method: "OPTIONS" }, example), { headers, token: null }));
    for (const answer of answers) expect(answer.headers.get("x-request-id"), String(answer.status)).toBe("Mine-1._");
  });
});

// Goal: the OpenAPI document tells the truth. Method: every operation in it is called well and badly, and each reply must
// be one the document describes. A new operation needs one line in `examples/`; the rest finds it by itself.
import { describe, expect, test } from "vitest";
import { call, problem, type Call } from "./client.ts";
import { examples, openapi, route, violations, type Example, type Operation } from "./openapi.ts";

export type { Example, Examples } from "./openapi.ts";

const document = await openapi();
// What /v1/fetch answers is the origin's: response_cache.test.ts.
const operations = document.operations.filter(({ path }) => !path.startsWith("/v1/fetch/"));
const EVERY_BINDING = ["SESSIONS", "CACHE", "CONFIG", "COUNTERS", "REPLICA_US", "REPLICA_EU", "REPLICA_ASIA"];
const EVERYTHING_DOWN = EVERY_BINDING.flatMap((name) => ["get", "put", "delete", "list"].map((call) => `${name}.${call}=down`)).join(",");

/** Calls the operation as its example says, changed by `change`; the reply must be a documented one. */
async function checked(operation: Operation, change: Partial<Call & Example> = {}) {
  const example = { ...(await examples[operation.id]!()), ...change };
  const answer = await call(route(operation, example), example);
  expect(violations(document, operation, answer)).toEqual([]);
  return { answer, example };
}

test("the document and the examples speak of the same operations", () => {
  expect(operations.map(({ id }) => id).sort()).toEqual(Object.keys(examples).sort());
  expect(document.text.openapi).toBe("3.1.0");
});

test("a reply that is not documented is noticed", async () => {
  const operation = operations.find(({ id }) => id === "createSession")!;
  const { answer } = await checked(operation);
  const headers = new Headers(answer.headers);
  headers.delete("consistency");
  expect(violations(document, operation, { ...answer, headers })).toEqual(["the header Consistency is missing"]);
  expect(violations(document, operation, { ...answer, headers: new Headers([...answer.headers, ["x-more", "1"]]) })).toEqual(["the header x-more is not documented of 201"]);
  expect(violations(document, operation, { ...answer, status: 299 })[0]).toContain("299 is not documented");
  expect(violations(document, operation, { ...answer, body: { ...answer.body, token: "x" } })).not.toEqual([]);
  expect(violations(document, operation, { ...answer, body: { ...answer.body, more: 1 } })).not.toEqual([]);
});

describe.each(operations.map((operation) => [operation.id, operation] as const))("%s", (_, operation) => {
  // OFREP has its own form of errors, and takes a body of any media type; its tests are in flag.test.ts.
  const speaksProblems = !operation.tags.includes("ofrep");
  const takesJson = speaksProblems && operation.description.requestBody?.content["application/json"] !== undefined;

  test("answers as documented", async () => {
    const { answer, example } = await checked(operation);
    expect(answer.status, answer.text).toBe(example.status ?? 200);
  });

  if (!operation.open && speaksProblems) {
    test("wants a token with the scope", async () => {
      expect(problem((await checked(operation, { token: null })).answer)).toBe("401 unauthorized");
      expect(problem((await checked(operation, { token: "no-scope-token" })).answer)).toBe("403 forbidden");
    });
  }

  if (takesJson) {
    test("refuses what is no JSON, another media type and too much", async () => {
      const bad = async (change: Partial<Call>) => problem((await checked(operation, { body: undefined, ...change })).answer);
      expect(await bad({ raw: "{" })).toBe("400 malformed-json");
      expect(await bad({ raw: "{}", headers: { "content-type": "text/plain" } })).toBe("415 unsupported-media-type");
      expect(await bad({ raw: `"${"x".repeat(30_000_000)}"` })).toBe("413 too-large");
    });
  }

  if (operation.method === "GET") {
    test("HEAD is GET without the body", async () => {
      const example = await examples[operation.id]!();
      const [get, head] = [await call(route(operation, example), example), await call(route({ ...operation, method: "HEAD" }, example), example)];
      expect([head.status, head.text]).toEqual([get.status, ""]);
      expect([...head.headers.keys()].filter((name) => name !== "content-length")).toEqual([...get.headers.keys()]);
    });
  }

  test("OPTIONS and 405 name the method", async () => {
    const example = await examples[operation.id]!();
    const options = await call(route({ ...operation, method: "OPTIONS" }, example), { token: null });
    expect([options.status, options.text]).toEqual([204, ""]);
    expect(options.headers.get("allow")!.split(", ")).toEqual(expect.arrayContaining([operation.method, "OPTIONS"]));
    const wrong = await call(route({ ...operation, method: "PROPFIND" }, example));
    expect(wrong.status).toBe(405);
    if (speaksProblems) expect(problem(wrong)).toBe("405 method-not-allowed");
    expect(wrong.headers.get("allow")).toBe(options.headers.get("allow"));
  });
});

describe("when every record is unreadable", async () => {
  const faults = EVERY_BINDING.map((name) => `${name}.get=corrupt`).join(",");
  const prepared = await Promise.all(operations.map(async (operation) => [operation.id, operation, await examples[operation.id]!()] as const));
  test.each(prepared)("%s does as documented", async (_, operation, example) => {
    const headers = { ...example.headers, "x-test-faults": faults };
    const answer = await call(route(operation, example), { ...example, headers, damaged: true });
    expect(violations(document, operation, answer)).toEqual([]);
  });
});

// Last, because the isolate's breakers count these failures; what the calls need is made before the first of them.
describe("when no namespace answers", async () => {
  const prepared = await Promise.all(operations.map(async (operation) => [operation.id, operation, await examples[operation.id]!()] as const));
  test.each(prepared)("%s does as documented", async (_, operation, example) => {
    const headers = { ...example.headers, "x-test-faults": EVERYTHING_DOWN };
    const answer = await call(route(operation, example), { ...example, headers });
    expect(violations(document, operation, answer)).toEqual([]);
  });
});

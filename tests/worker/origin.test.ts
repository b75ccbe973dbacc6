// What an origin may answer to the built Worker: as many fields as the platform takes, and no status of no class.
import { exports } from "cloudflare:workers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { call, fresh, problem } from "./client.ts";

const real = globalThis.fetch;
let answer: () => Response;
beforeEach(() => {
  globalThis.fetch = async () => answer();
});
afterEach(() => {
  globalThis.fetch = real;
});

/** Where an origin of a name that nobody has used is reached. */
async function configured(): Promise<string> {
  const name = fresh("origin");
  expect((await call(`PUT /v1/origins/${name}`, { body: { baseUrl: "https://origin.example" } })).status).toBe(200);
  return `/v1/fetch/${name}/a`;
}

test("every field of an origin comes back as it was put", async () => {
  const path = `/v1/origins/${fresh("origin")}`;
  const body = {
    baseUrl: "https://origin.example/base", memorySeconds: 1, freshSeconds: 2, staleSeconds: 3, staleIfErrorSeconds: 4, earlyRefreshBeta: 0.5,
    tags: ["a", "b"], respectCacheControl: false, timeoutSeconds: 5,
  };
  expect((await call(`PUT ${path}`, { body })).body).toMatchObject(body);
  expect((await call(`GET ${path}`)).body).toMatchObject(body);
});

/** `Response` itself makes none below 200 or above 599. */
const ofStatus = (status: number) => Object.defineProperty(new Response("x", { headers: { "Cache-Control": "max-age=60" } }), "status", { value: status });

test.each([0, 100, 101, 199, 600, 999])("the status %i is passed to nobody: 502 with a problem", async (status) => {
  const path = await configured();
  answer = () => ofStatus(status);
  for (const method of ["GET", "POST"]) expect(problem(await call(`${method} ${path}`)), method).toBe("502 origin-unreachable");
});

test.each([200, 299, 404, 499, 500, 599])("the status %i is passed on", async (status) => {
  const path = await configured();
  answer = () => ofStatus(status);
  for (const method of ["GET", "POST"]) {
    // Not `call`, which knows that no 500 of ours is ever right.
    const reply = await exports.default.fetch(`https://kv.example${path}`, { method, headers: { authorization: "Bearer dev-token" } });
    expect([reply.status, await reply.text()], method).toEqual([status, "x"]);
  }
});

const fields = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, at) => [`x-field-${at}`, `${at}`]));

test("three hundred fields are passed on, also by what is stored", async () => {
  const path = await configured();
  answer = () => new Response("x", { headers: { ...fields(300), "Cache-Control": "max-age=60" } });
  for (const word of ["MISS", "HIT"]) {
    const { status, headers } = await call(`GET ${path}`);
    expect([status, headers.get("x-cache")]).toEqual([200, word]);
    expect(Object.fromEntries([...headers].filter(([name]) => name.startsWith("x-field-")))).toEqual(fields(300));
  }
});

test("more fields than anybody takes are no answer", async () => {
  const path = await configured();
  answer = () => new Response("x", { headers: fields(1025) });
  expect(problem(await call(`GET ${path}`))).toBe("502 origin-unreachable");
});

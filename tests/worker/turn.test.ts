// Changes that cross in one isolate: each sees what the one before has written, so none is lost and a condition holds for one.
import { afterEach, expect, test, vi } from "vitest";
import { call, fresh } from "./client.ts";

const flag = { state: "ENABLED", variants: { on: true, off: false }, defaultVariant: "on" };
const statuses = async (calls: Promise<{ status: number }>[]) => (await Promise.all(calls)).map(({ status }) => status).sort();
const eight = <T>(make: (at: number) => T) => Array.from({ length: 8 }, (_, at) => make(at));

test("overrides of one flag, and flags of one document, are all kept", async () => {
  const key = fresh("flag");
  expect((await call(`PUT /v1/flags/${key}`, { body: flag })).status).toBe(201);
  expect(await statuses(eight((at) => call(`PUT /v1/flags/${key}/overrides/u${at}`, { body: { variant: "off" } })))).toEqual(eight(() => 200));
  expect(await statuses(eight((at) => call(`PUT /v1/flags/${key}-${at}`, { body: flag })))).toEqual(eight(() => 201));
  expect(Object.keys((await call(`GET /v1/flags/${key}`)).body.overrides)).toHaveLength(8);
  for (let at = 0; at < 8; at += 1) expect((await call(`GET /v1/flags/${key}-${at}`)).status).toBe(200);
});

const experiment = { variants: [{ name: "a", weight: 1 }, { name: "b", weight: 1 }], status: "running" };
const collection = fresh("collection");
const documents: [string, (at: number) => unknown][] = [
  [`/v1/flags/${fresh("flag")}`, (at) => ({ ...flag, metadata: { at } })],
  [`/v1/experiments/${fresh("experiment")}`, (at) => ({ ...experiment, overrides: { [`user${at}`]: "a" } })],
  [`/v1/rate-limits/${fresh("limit")}`, (at) => ({ limit: 10 + at, windowSeconds: 60 })],
  [`/v1/origins/${fresh("origin")}`, (at) => ({ baseUrl: `https://origin${at}.example` })],
  [`/v1/settings/${fresh("setting")}`, (at) => at],
  [`/v1/users/${fresh("user")}/profile`, (at) => ({ at })],
  [`/v1/users/${fresh("user")}/preferences`, (at) => ({ timezone: `Etc/GMT-${at + 1}` })],
  [`/v1/collections/${collection}/documents/d`, (at) => ({ at })],
];

test.each(documents)("of many changes of %s that name one version, one is made", async (path, body) => {
  await call(`PUT /v1/collections/${collection}`, { body: { version: 1 } });
  const before = await call(`PUT ${path}`, { body: body(8) });
  expect(before.status).toBeLessThan(300);
  const headers = { "if-match": before.headers.get("etag")! };
  const made = await statuses(eight((at) => call(`PUT ${path}`, { body: body(at), headers })));
  expect(made).toEqual([200, ...Array.from({ length: 7 }, () => 412)]);
});

test("of many who create, one does", async () => {
  const path = `/v1/experiments/${fresh("experiment")}`;
  const made = await statuses(eight(() => call(`PUT ${path}`, { body: experiment, headers: { "if-none-match": "*" } })));
  expect(made).toEqual([201, ...Array.from({ length: 7 }, () => 412)]);
});

test("of two experiments that want the same slots of a layer, one gets them", async () => {
  const layer = { name: fresh("layer"), start: 0, end: 1000 };
  const put = () => call(`PUT /v1/experiments/${fresh("experiment")}`, { body: { ...experiment, layer } });
  expect(await statuses([put(), put()])).toEqual([201, 409]);
});

test("a patch of a record sees the one before", async () => {
  const path = `/v1/users/${fresh("user")}/profile`;
  await call(`PUT ${path}`, { body: {} });
  expect(await statuses(eight((at) => call(`PATCH ${path}`, { body: { [`field${at}`]: at } })))).toEqual(eight(() => 200));
  expect(Object.keys((await call(`GET ${path}`)).body)).toHaveLength(8);
});

test("a schema has a version too", async () => {
  const path = `/v1/collections/${fresh("collection")}`;
  const first = await call(`PUT ${path}`, { body: { version: 1 }, headers: { "if-none-match": "*" } });
  expect(first.status).toBe(200);
  const second = { version: 2, migrations: [{ from: 1, to: 2, steps: [] }] };
  expect((await call(`PUT ${path}`, { body: second, headers: { "if-none-match": "*" } })).status).toBe(412);
  expect((await call(`PUT ${path}`, { body: second, headers: { "if-match": '"nope"' } })).status).toBe(412);
  expect((await call(`PUT ${path}`, { body: second, headers: { "if-match": first.headers.get("etag")! } })).status).toBe(200);
});

afterEach(() => void vi.useRealTimers());

test("who takes too long loses the turn", async () => {
  const path = `PUT /v1/settings/${fresh("setting")}`;
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() });
  const hung = call(path, { body: 1, headers: { "x-test-faults": "CONFIG.put=hang" } });
  const next = call(path, { body: 2 });
  // Half a second each five milliseconds: KV's own deadline, which runs in real time, ends the one that hangs much later.
  const ticks = setInterval(() => vi.setSystemTime(Date.now() + 500), 5);
  expect(await Promise.race([next.then(({ status }) => status), hung.then(() => "the one that hangs")])).toBe(200);
  clearInterval(ticks);
  expect((await hung).status).toBe(503);
});

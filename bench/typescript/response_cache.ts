// The read-through HTTP cache: memory, then KV, then the origin, for GET. The rules of RFC 9111 that an ordinary origin needs:
// Cache-Control, Expires, Age, Vary, Authorization, Set-Cookie, validators of a client; no revalidation, no ranges, no purge.
// Requests for the same URI that come at once share one promise.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem, readJson } from "./problem.ts";

const MEMORY_MS = 30_000;
const MEMORY_ENTRIES_MAX = 1000;
const BODY_BYTES_MAX = 8 * 1024 * 1024;
const CACHE_TTL_SECONDS = 30;
const SITE_HEADER = "origin.1\n";
const HOP_BY_HOP = ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"];
const POISONING = /^(forwarded|x-forwarded-.+|x-host|x-http-method(-override)?|x-method-override|x-original-.+|x-rewrite-url|x-override-url)$/;

const site = z.strictObject({
  baseUrl: z.url({ protocol: /^https?$/ }),
  memorySeconds: z.int().min(0).max(86_400).default(30),
  timeoutSeconds: z.int().min(1).max(300).default(30),
});
type Site = z.infer<typeof site>;

const stored = z.strictObject({
  status: z.int(),
  headers: z.array(z.tuple([z.string(), z.string()])),
  vary: z.array(z.tuple([z.string(), z.string().nullable()])),
  receivedAt: z.int(),
  initialAge: z.int(),
  lifetime: z.int(),
});
interface Entry extends z.infer<typeof stored> {
  body: Uint8Array<ArrayBuffer>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
const sites = new Map<string, { site: Site; checkedAt: number }>();
const memory = new Map<string, { entry: Entry; checkedAt: number }>();
const flights = new Map<string, Promise<Entry | null>>();

function directives(field: string | null | undefined): Map<string, string> {
  const found = new Map<string, string>();
  for (const match of (field ?? "").matchAll(/([\w-]+)(?:=(?:"([^"]*)"|([^\s,]*)))?/g)) {
    found.set((match[1] ?? "").toLowerCase(), match[2] ?? match[3] ?? "");
  }
  return found;
}

function lifetimeOf(headers: Headers, now: number): number | null {
  const control = directives(headers.get("cdn-cache-control") ?? headers.get("cache-control"));
  if (control.has("no-store") || control.has("private") || control.has("no-cache")) return null;
  const age = control.get("s-maxage") ?? control.get("max-age");
  if (age !== undefined) return Number.parseInt(age, 10) || 0;
  const expires = Date.parse(headers.get("expires") ?? "");
  const date = Date.parse(headers.get("date") ?? "");
  return Number.isNaN(expires) ? null : Math.max(0, Math.floor((expires - (Number.isNaN(date) ? now : date)) / 1000));
}

/** The entry of an answer that may be stored. */
async function storable(request: Headers, response: Response, now: number): Promise<Entry | null> {
  const lifetime = lifetimeOf(response.headers, now);
  const vary = (response.headers.get("vary") ?? "").toLowerCase().split(",").map((name) => name.trim()).filter((name) => name !== "");
  const isPublic = /\b(public|s-maxage|must-revalidate)\b/i.test(response.headers.get("cache-control") ?? "");
  if (lifetime === null || response.status === 206 || response.headers.has("set-cookie") || vary.includes("*") || vary.includes("cookie")) return null;
  if (request.has("authorization") && !isPublic) return null;
  if (Number(response.headers.get("content-length") ?? 0) > BODY_BYTES_MAX) return null;
  const body = new Uint8Array(await response.arrayBuffer());
  const headers = [...response.headers].filter(([name]) => !HOP_BY_HOP.includes(name) && name !== "age");
  const initialAge = Number.parseInt(response.headers.get("age") ?? "0", 10) || 0;
  return { status: response.status, headers, vary: vary.map((name) => [name, request.get(name)]), receivedAt: now, initialAge, lifetime, body };
}

function encode({ body, ...rest }: Entry): Uint8Array {
  const line = encoder.encode(`${JSON.stringify(rest)}\n`);
  const whole = new Uint8Array(line.byteLength + body.byteLength);
  whole.set(line);
  whole.set(body, line.byteLength);
  return whole;
}

function decode(whole: Uint8Array<ArrayBuffer>): Entry | null {
  const end = whole.indexOf(10);
  try {
    return { ...stored.parse(JSON.parse(decoder.decode(whole.subarray(0, end)))), body: whole.subarray(end + 1) };
  } catch {
    return null;
  }
}

async function keyOf(tenant: string, name: string, url: string): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(`GET\0${url}`)));
  return `${encodeURIComponent(tenant)}/response/${encodeURIComponent(name)}/${digest.toBase64({ alphabet: "base64url", omitPadding: true })}`;
}

function forwarded(headers: Headers): Headers {
  const sent = new Headers();
  for (const [name, value] of headers) {
    if (!HOP_BY_HOP.includes(name) && !POISONING.test(name) && name !== "host" && name !== "authorization" && name !== "origin-authorization") sent.append(name, value);
  }
  const theirs = headers.get("origin-authorization");
  if (theirs !== null) sent.set("authorization", theirs);
  sent.append("via", "1.1 kv-patterns");
  return sent;
}

function answer(c: Context<App>, entry: Entry, now: number, status: string): Response {
  const headers = new Headers(entry.headers);
  const age = entry.initialAge + Math.floor((now - entry.receivedAt) / 1000);
  const isHit = status.startsWith("hit");
  if (isHit) headers.set("age", String(age));
  headers.set("cache-status", `kv-patterns; ${status}${isHit ? `; ttl=${entry.lifetime - age}` : ""}`);
  headers.set("x-cache", isHit ? "HIT" : "MISS");
  headers.set("x-request-id", c.get("requestId"));
  headers.delete("content-length");
  const etag = headers.get("etag");
  if (etag !== null && c.req.header("if-none-match") === etag) return new Response(null, { status: 304, headers });
  return new Response(entry.body, { status: entry.status, headers });
}

async function siteOf(c: Context<App>, name: string, now: number): Promise<Site> {
  const key = `${encodeURIComponent(c.var.tenant)}/origin/${encodeURIComponent(name)}`;
  const known = sites.get(key);
  if (known !== undefined && now - known.checkedAt < MEMORY_MS) return known.site;
  const text = (await c.var.config.getMany([key], CACHE_TTL_SECONDS)).get(key);
  if (!text?.startsWith(SITE_HEADER)) throw new Problem(404, "not-found", "Not found");
  const read = site.parse(JSON.parse(text.slice(SITE_HEADER.length)));
  sites.set(key, { site: read, checkedAt: now });
  return read;
}

export const origins = new Hono<App>();

origins.put("/:name", async (c) => {
  const config = await readJson(c, site);
  const key = `${encodeURIComponent(c.var.tenant)}/origin/${encodeURIComponent(c.req.param("name"))}`;
  await c.var.config.put(key, SITE_HEADER + JSON.stringify(config), 31_536_000, null);
  sites.set(key, { site: config, checkedAt: Date.now() });
  return c.json({ name: c.req.param("name"), ...config });
});

export const gateway = new Hono<App>();

async function find(c: Context<App>, key: string, config: Site, now: number): Promise<Entry | null> {
  const known = memory.get(key);
  if (known !== undefined && now - known.checkedAt < config.memorySeconds * 1000) return known.entry;
  const bytes = await c.var.cache.getBytes(key, CACHE_TTL_SECONDS);
  const entry = bytes === null ? null : decode(bytes);
  if (entry !== null) remember(key, entry, now);
  return entry;
}

function remember(key: string, entry: Entry, now: number): void {
  memory.delete(key);
  memory.set(key, { entry, checkedAt: now });
  for (const oldest of memory.keys()) {
    if (memory.size <= MEMORY_ENTRIES_MAX) break;
    memory.delete(oldest);
  }
}

gateway.get("/:name/*", async (c) => {
  const now = Date.now();
  const name = decodeURIComponent(c.req.param("name"));
  const config = await siteOf(c, name, now);
  const { pathname, search } = new URL(c.req.url);
  const url = config.baseUrl.replace(/\/$/, "") + pathname.slice(`/v1/fetch/${c.req.param("name")}`.length) + search;
  const key = await keyOf(c.var.tenant, name, url);
  const headers = forwarded(c.req.raw.headers);
  const control = directives(c.req.header("cache-control"));
  const found = await find(c, key, config, now);
  const matches = found?.vary.every(([field, value]) => headers.get(field) === value) ?? false;
  const age = found === null ? 0 : found.initialAge + Math.floor((now - found.receivedAt) / 1000);
  if (found !== null && matches && age < found.lifetime && !control.has("no-cache") && !control.has("no-store")) {
    return answer(c, found, now, "hit");
  }
  let passed: Response | undefined;
  const ask = async () => {
    const response = await fetch(url, { headers, redirect: "manual", signal: AbortSignal.timeout(config.timeoutSeconds * 1000) });
    const entry = control.has("no-store") ? null : await storable(headers, response, Date.now());
    if (entry === null) {
      passed = response;
      return null;
    }
    remember(key, entry, Date.now());
    c.executionCtx.waitUntil(c.var.cache.putBytes(key, encode(entry), Math.max(60, entry.lifetime + 86_400)));
    return entry;
  };
  const flight = flights.get(key) ?? ask().finally(() => flights.delete(key));
  flights.set(key, flight);
  const entry = (await flight) ?? (passed === undefined ? await ask() : null);
  if (entry !== null) return answer(c, entry, Date.now(), `fwd=${found === null ? "uri-miss" : "request"}; fwd-status=${entry.status}; stored`);
  if (passed === undefined) throw new Problem(502, "bad-gateway", "Bad gateway");
  const reply = new Response(passed.body, passed);
  reply.headers.set("cache-status", `kv-patterns; fwd=uri-miss; fwd-status=${passed.status}`);
  reply.headers.set("x-cache", "MISS");
  reply.headers.set("x-request-id", c.get("requestId"));
  return reply;
});

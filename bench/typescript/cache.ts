// The object cache: bytes with a time to live, kept in the isolate for 30 s and in KV; purged by marks, read in one bulk read.
// A reader that sends `Cache-Control: no-cache` asks past the isolate.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem } from "./problem.ts";

const MEMORY_MS = 30_000;
const MEMORY_BYTES_MAX = 16 * 1024 * 1024;
const OBJECT_BYTES_MAX = 10 * 1024 * 1024;
const CACHE_TTL_SECONDS = 30;
const SECONDS_MAX = 31_536_000;
const COLLECT_MARGIN_SECONDS = 60;
const PREFIXES_MAX = 16;
const MARK_HEADER = "cache-mark.1\n";

const id = z.string().min(1).max(256).regex(/^\P{Cc}*$/u);
const tag = z.string().min(1).max(128).regex(/^\P{Cc}*$/u);
const seconds = (least: number) => z.coerce.number().int().min(least).max(SECONDS_MAX);
const putQuery = z.strictObject({
  ttlSeconds: seconds(1).default(300),
  staleSeconds: seconds(0).default(0),
  tags: z.string().transform((text) => text.split(",")).pipe(z.array(tag).max(16)).default([]),
});
const head = z.strictObject({
  contentType: z.string(),
  etag: z.string(),
  asked: z.int(),
  freshUntil: z.int(),
  staleUntil: z.int(),
  tags: z.array(z.string()),
});
const mark = z.strictObject({ at: z.int() });

type Head = z.infer<typeof head>;
interface Entry extends Head {
  bytes: Uint8Array;
}
interface Kept {
  entry: Entry;
  checkedAt: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });
/** In the order of use: the first is the one used longest ago. */
const memory = new Map<string, Kept>();
let memoryBytes = 0;
const marks = new Map<string, { at: number; checkedAt: number }>();

function remember(key: string, entry: Entry, checkedAt: number): void {
  forget(key);
  if (entry.bytes.byteLength > MEMORY_BYTES_MAX / 8) return;
  memory.set(key, { entry, checkedAt });
  memoryBytes += entry.bytes.byteLength + 256;
  for (const oldest of memory.keys()) {
    if (memoryBytes <= MEMORY_BYTES_MAX) break;
    forget(oldest);
  }
}

function forget(key: string): void {
  const known = memory.get(key);
  if (known === undefined) return;
  memory.delete(key);
  memoryBytes -= known.entry.bytes.byteLength + 256;
}

function encode({ bytes, ...rest }: Entry): Uint8Array {
  const line = encoder.encode(`cache.1\n${JSON.stringify(rest)}\n`);
  const whole = new Uint8Array(line.byteLength + bytes.byteLength);
  whole.set(line);
  whole.set(bytes, line.byteLength);
  return whole;
}

/** An entry that cannot be read is none. */
function decode(whole: Uint8Array): Entry | null {
  const first = whole.indexOf(10);
  const second = whole.indexOf(10, first + 1);
  if (second < 0) return null;
  try {
    if (decoder.decode(whole.subarray(0, first)) !== "cache.1") return null;
    return { ...head.parse(JSON.parse(decoder.decode(whole.subarray(first + 1, second)))), bytes: whole.subarray(second + 1) };
  } catch {
    return null;
  }
}

async function tagOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return `"${digest.subarray(0, 16).toBase64({ alphabet: "base64url", omitPadding: true })}"`;
}

function checked<Schema extends z.ZodType>(field: string, schema: Schema, value: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new Problem(400, "invalid-field", "Invalid field", { field: parsed.error.issues[0]?.path.join(".") || field });
}

interface Place {
  key: string;
  root: string;
  scopes: string[];
}

function place(c: Context<App>): Place {
  const [bucket, ...rest] = c.req.path.slice("/v1/cache/".length).split("/");
  const name = checked("bucket", id, decodeURIComponent(bucket ?? ""));
  const key = checked("key", id, decodeURIComponent(rest.join("/")));
  const space = `${encodeURIComponent(c.var.tenant)}/cache`;
  const root = `${space}-mark/${encodeURIComponent(name)}`;
  const segments = key.split("/").slice(0, PREFIXES_MAX + 1).map(encodeURIComponent);
  const prefixes = segments.slice(0, -1).map((_, i) => `prefix/${segments.slice(0, i + 1).join("/")}`);
  return { key: `${space}/${encodeURIComponent(name)}/${encodeURIComponent(key)}`, root, scopes: ["all", ...prefixes] };
}

/** The latest of the hard and of the soft marks; what is not known well is read, in one call. */
async function purgedAt(c: Context<App>, { root, scopes }: Place, tags: string[], now: number, maxAgeMs: number) {
  const hard = [...scopes, ...tags.map((name) => `tag/${encodeURIComponent(name)}`)].map((scope) => `${root}/${scope}`);
  const soft = hard.map((key) => `${root}/soft${key.slice(root.length)}`);
  const keys = [...hard, ...soft];
  const unknown = keys.filter((key) => now - (marks.get(key)?.checkedAt ?? 0) >= maxAgeMs);
  if (unknown.length > 0) {
    for (const [key, text] of await c.var.cache.getMany(unknown, CACHE_TTL_SECONDS)) {
      const at = text?.startsWith(MARK_HEADER) ? mark.parse(JSON.parse(text.slice(MARK_HEADER.length))).at : 0;
      marks.set(key, { at, checkedAt: now });
    }
  }
  const latest = (of: string[]) => Math.max(...of.map((key) => marks.get(key)?.at ?? 0));
  return { gone: latest(hard), stale: latest(soft) };
}

export const cache = new Hono<App>();

cache.use(async (c, next) => {
  c.header("Consistency", "eventual");
  await next();
});

cache.put("/:bucket/*", async (c) => {
  const { ttlSeconds, staleSeconds, tags } = checked("query", putQuery, c.req.query());
  const contentType = checked("Content-Type", z.string().max(256).regex(/^[ -~]*$/), c.req.header("content-type") ?? "application/octet-stream");
  const bytes = new Uint8Array(await c.req.arrayBuffer());
  if (bytes.byteLength > OBJECT_BYTES_MAX) throw new Problem(413, "content-too-large", "Content too large");
  const now = Date.now();
  const freshUntil = now + ttlSeconds * 1000;
  const etag = await tagOf(bytes);
  const entry = { contentType, etag, asked: now, freshUntil, staleUntil: freshUntil + staleSeconds * 1000, tags, bytes };
  const { key } = place(c);
  await c.var.cache.putBytes(key, encode(entry), ttlSeconds + staleSeconds + COLLECT_MARGIN_SECONDS);
  remember(key, entry, now);
  c.header("ETag", etag);
  return c.body(null, 204);
});

cache.get("/:bucket/*", async (c) => {
  const at = place(c);
  const now = Date.now();
  const maxAgeMs = /\bno-cache\b/i.test(c.req.header("cache-control") ?? "") ? 0 : MEMORY_MS;
  let known = memory.get(at.key);
  let tier = "memory";
  if (known === undefined || now - known.checkedAt >= maxAgeMs) {
    const bytes = await c.var.cache.getBytes(at.key, CACHE_TTL_SECONDS);
    const entry = bytes === null ? null : decode(bytes);
    tier = "kv";
    known = entry === null ? undefined : { entry, checkedAt: now };
  } else {
    memory.delete(at.key);
    memory.set(at.key, known);
  }
  const entry = known?.entry;
  if (entry === undefined || now >= entry.staleUntil) throw new Problem(404, "not-found", "Not found");
  const purged = await purgedAt(c, at, entry.tags, now, maxAgeMs);
  if (entry.asked <= purged.gone) throw new Problem(404, "not-found", "Not found");
  if (tier === "kv") remember(at.key, entry, now);
  c.header("ETag", entry.etag);
  if (c.req.header("if-none-match") === entry.etag) return c.body(null, 304);
  c.header("Age", String(Math.floor((now - entry.asked) / 1000)));
  c.header("Cache-Status", `kv-patterns; hit; ttl=${Math.trunc((Math.min(entry.freshUntil, entry.asked <= purged.stale ? purged.stale : Infinity) - now) / 1000)}; detail=${tier}`);
  c.header("X-Content-Type-Options", "nosniff");
  return c.body(entry.bytes as Uint8Array<ArrayBuffer>, 200, { "content-type": entry.contentType });
});

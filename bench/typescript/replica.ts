// Replicated keys in three namespaces: a write goes to all of them with one stamp, a read asks the nearest, and the next
// one where that has nothing, fails, or is slow. A stored value is a head of two lines and the caller's bytes behind it.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App, Env } from "./context.ts";
import { Problem } from "./problem.ts";
import { nextStamp } from "./stamp.ts";

const HEDGE_MS = 250;
const CACHE_TTL_SECONDS = 60;
const BYTES_MAX = 8 * 1024 * 1024;
const HEADER = "replica.1\n";
const LINE_FEED = 10;

const REPLICAS = [
  { name: "us", binding: "REPLICA_US", continents: ["NA", "SA", "AN"] },
  { name: "eu", binding: "REPLICA_EU", continents: ["EU", "AF"] },
  { name: "asia", binding: "REPLICA_ASIA", continents: ["AS", "OC"] },
] as const;

const headOf = z.strictObject({
  stamp: z.string(),
  expiresAt: z.int().optional(),
  contentType: z.string().optional(),
  deleted: z.boolean().optional(),
});

interface Copy {
  stamp: string;
  contentType: string | undefined;
  bytes: Uint8Array | null;
}

const keyOf = (c: Context<App>) => `${encodeURIComponent(c.var.tenant)}/replicated/${encodeURIComponent(c.req.param("key")!)}`;

async function readCopy(c: Context<App>, binding: (typeof REPLICAS)[number]["binding"], key: string): Promise<Copy | null> {
  c.var.operations.reads += 1;
  const namespace: Env[typeof binding] = c.env[binding];
  const buffer = await namespace.get(key, { type: "arrayBuffer", cacheTtl: CACHE_TTL_SECONDS });
  if (buffer === null) return null;
  const stored = new Uint8Array(buffer);
  const end = stored.indexOf(LINE_FEED, HEADER.length);
  const head = headOf.parse(JSON.parse(new TextDecoder().decode(stored.subarray(HEADER.length, end))));
  const isGone = head.deleted === true || (head.expiresAt !== undefined && head.expiresAt <= Date.now());
  return { stamp: head.stamp, contentType: head.contentType, bytes: isGone ? null : stored.subarray(end + 1) };
}

export const replicated = new Hono<App>();

replicated.put("/:key{.+}", async (c) => {
  const bytes = new Uint8Array(await c.req.arrayBuffer());
  if (bytes.byteLength > BYTES_MAX) throw new Problem(413, "too-large", "The body is too large");
  const head = new TextEncoder().encode(`${HEADER}${JSON.stringify({ stamp: nextStamp(), contentType: c.req.header("content-type") })}\n`);
  const value = new Uint8Array(head.byteLength + bytes.byteLength);
  value.set(head);
  value.set(bytes, head.byteLength);
  c.var.operations.writes += REPLICAS.length;
  const outcomes = await Promise.allSettled(REPLICAS.map(({ binding }) => c.env[binding].put(keyOf(c), value)));
  const replicas = outcomes.map(({ status }, i) => ({ replica: REPLICAS[i]!.name, outcome: status === "fulfilled" ? "written" : "failed" }));
  const failed = replicas.filter(({ outcome }) => outcome === "failed").length;
  if (failed > 1) throw new Problem(503, "too-few-replicas", "Too few replicas took the write", { headers: { "retry-after": "5" } });
  c.header("Consistency", "eventual");
  return c.json({ replicas }, failed === 0 ? 200 : 207);
});

replicated.get("/:key{.+}", async (c) => {
  const continent = (c.req.raw as Request & { cf?: { continent?: string } }).cf?.continent ?? "";
  const isNear = ({ continents }: (typeof REPLICAS)[number]) => (continents as readonly string[]).includes(continent);
  const order = [...REPLICAS.filter(isNear), ...REPLICAS.filter((replica) => !isNear(replica))];
  const key = keyOf(c);
  let failures = 0;
  for (const { name, binding } of order) {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const slow = new Promise<undefined>((resolve) => {
      timer = setTimeout(resolve, HEDGE_MS);
    });
    const copy = await Promise.race([readCopy(c, binding, key).catch(() => undefined), slow]);
    clearTimeout(timer);
    if (copy === undefined) failures += 1;
    if (copy == null) continue;
    if (copy.bytes === null) throw new Problem(404, "not-found", "Not found");
    const tag = `"${copy.stamp}"`;
    c.header("ETag", tag);
    c.header("Consistency", "eventual");
    c.header("Replica", name);
    c.header("X-Content-Type-Options", "nosniff");
    if (c.req.header("if-none-match") === tag) return c.body(null, 304);
    return c.body(copy.bytes as Uint8Array<ArrayBuffer>, 200, { "content-type": copy.contentType ?? "application/octet-stream" });
  }
  if (failures === order.length) throw new Problem(503, "unavailable", "Temporarily unavailable", { headers: { "retry-after": "5" } });
  throw new Problem(404, "not-found", "Not found");
});

// Counters: approximate increments are gathered in memory and written once a second as a running total under the isolate's
// own key, which one list adds up; exact ones are a call to the counter's object. Resets, folding and lists are left out,
// but for the list by which a writer would hear of a reset.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import type { MeteredKv } from "./kv.ts";
import { Problem, readJson } from "./problem.ts";

const ID_BYTES_MAX = 256;
const WRITE_MS = 1000;
const RESET_CHECK_MS = 30_000;
const HOUR_MS = 3_600_000;
const LAG_SECONDS = 62;

const encoder = new TextEncoder();
const increment = z.strictObject({
  delta: z.int().default(1),
  mode: z.enum(["approximate", "exact"]).default("approximate"),
});
const shardMetadata = z.object({ value: z.int(), since: z.int() });

interface Held {
  shard: string;
  bucket: number;
  since: number;
  total: number;
  written: number;
  flushedAt: number;
  resetCheckedAt: number;
  isScheduled: boolean;
}

const held = new Map<string, Held>();

function nameOf(c: Context<App>): string {
  const name = c.req.param("name") ?? "";
  const length = encoder.encode(name).byteLength;
  if (length < 1 || length > ID_BYTES_MAX || /\p{Cc}/u.test(name)) {
    throw new Problem(400, "invalid-field", "Invalid field", { field: "name" });
  }
  return name;
}

const prefixOf = (tenant: string, name: string) => `${encodeURIComponent(tenant)}/counter/${encodeURIComponent(name)}/`;

async function flush(kv: MeteredKv, prefix: string, own: Held): Promise<void> {
  const wait = own.flushedAt + WRITE_MS - Date.now();
  if (wait > 0) await scheduler.wait(wait);
  own.isScheduled = false;
  const now = Date.now();
  if (now >= own.resetCheckedAt + RESET_CHECK_MS) {
    for await (const { name } of kv.list(`${prefix}reset/`)) if (Number(name.split("/").at(-1)) > own.since) own.total = 0;
    own.resetCheckedAt = now;
  }
  own.flushedAt = Date.now();
  const record = { value: own.total, since: own.since };
  await kv.put(`${prefix}s/${own.bucket}/${own.shard}`, `counter-shard.1\n${JSON.stringify(record)}`, undefined, record);
  own.written = record.value;
}

function add(c: Context<App>, prefix: string, delta: number): void {
  const now = Date.now();
  const bucket = Math.floor(now / HOUR_MS);
  let own = held.get(prefix);
  if (own === undefined || own.bucket !== bucket) {
    own = { shard: crypto.randomUUID(), bucket, since: now, total: 0, written: 0, flushedAt: 0, resetCheckedAt: 0, isScheduled: false };
    held.set(prefix, own);
  }
  const total = own.total + delta;
  if (!Number.isSafeInteger(total)) throw new Problem(409, "counter-overflow", "The counter would overflow", { field: "delta" });
  own.total = total;
  if (own.isScheduled) return;
  own.isScheduled = true;
  c.executionCtx.waitUntil(flush(c.var.counters, prefix, own));
}

export const counters = new Hono<App>();

counters.post("/:name", async (c) => {
  const name = nameOf(c);
  const { delta, mode } = await readJson(c, increment);
  const prefix = prefixOf(c.var.tenant, name);
  if (mode === "approximate") {
    add(c, prefix, delta);
    c.header("Consistency", "eventual");
    return c.json({ accepted: true }, 202);
  }
  const key = c.req.header("idempotency-key") ?? null;
  const answer = await c.env.COUNTER.getByName(prefix).add(`${prefix}exact`, delta, key);
  if (answer === "overflow") throw new Problem(409, "counter-overflow", "The counter would overflow", { field: "delta" });
  if (answer === "reused") throw new Problem(422, "idempotency-key-reused", "The key was used for another request");
  c.header("Consistency", "strong");
  return c.json(answer);
});

counters.get("/:name", async (c) => {
  const prefix = prefixOf(c.var.tenant, nameOf(c));
  const own = held.get(prefix);
  let value = own?.total ?? 0;
  // Not the exact counter's snapshot beside them.
  for await (const { name, metadata } of c.var.counters.list(`${prefix}s/`)) {
    if (own === undefined || !name.endsWith(own.shard)) value += shardMetadata.parse(metadata).value;
  }
  c.header("Consistency", "eventual");
  return c.json({ value, mode: "approximate", asOf: Date.now(), maxLagSeconds: LAG_SECONDS });
});

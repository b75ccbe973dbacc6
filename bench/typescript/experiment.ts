// Experiments: one record in KV, assignment by weighted rendezvous hashing over SHA-256, as ours: each variant draws a time
// from the user's hash, divided by its weight, and the shortest wins. An isolate looks for an edit every ten seconds.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem, readJson } from "./problem.ts";

const FRESH_MS = 10_000;
const CACHE_TTL_SECONDS = 30;
const HEADER = "experiment.1\n";
/** Longest life KV takes here; the record has none of its own. */
const TTL_SECONDS = 315_360_000;
const SEPARATOR = "\u001f";

// eslint-disable-next-line no-control-regex
const id = z.string().min(1).max(256).regex(/^[^\u0000-\u001f\u007f-\u009f]*$/);
const definition = z.strictObject({
  variants: z.array(z.strictObject({ name: id, weight: z.int().min(0).max(1_000_000_000) })).min(1).max(20),
  status: z.enum(["draft", "running", "paused", "ended"]),
  salt: id,
});
const assignment = z.strictObject({ userId: id, stickyToken: z.string().max(256).optional() });

type Definition = z.infer<typeof definition>;

const loaded = new Map<string, { experiment: Definition; checkedAt: number }>();
const encoder = new TextEncoder();

const keyOf = (tenant: string, name: string) => `${encodeURIComponent(tenant)}/experiment/${encodeURIComponent(name)}`;

async function current(c: Context<App>, name: string): Promise<Definition> {
  const key = keyOf(c.var.tenant, name);
  const known = loaded.get(key);
  if (known !== undefined && Date.now() - known.checkedAt < FRESH_MS) return known.experiment;
  const text = (await c.var.config.getMany([key], CACHE_TTL_SECONDS)).get(key) ?? null;
  if (text === null || !text.startsWith(HEADER)) throw new Problem(404, "not-found", "Not found");
  const experiment = definition.parse(JSON.parse(text.slice(HEADER.length)));
  loaded.set(key, { experiment, checkedAt: Date.now() });
  return experiment;
}

/** An exponential waiting time, from the upper 53 of the hash's first 64 bits. */
async function waitingTime(salt: string, variant: string, user: string): Promise<number> {
  const digest = await crypto.subtle.digest("SHA-256", encoder.encode([salt, variant, user].join(SEPARATOR)));
  const hash = new DataView(digest).getBigUint64(0) >> 11n;
  return -Math.log((Number(hash) + 0.5) / 2 ** 53);
}

async function place({ salt, variants }: Definition, user: string): Promise<string> {
  let best = { time: Infinity, name: "" };
  for (const { name, weight } of variants) {
    if (weight === 0) continue;
    const time = (await waitingTime(salt, name, user)) / weight;
    if (time < best.time) best = { time, name };
  }
  return best.name;
}

export const experiments = new Hono<App>();

experiments.use(async (c, next) => {
  c.header("Consistency", "eventual");
  await next();
});

experiments.put("/:name", async (c) => {
  const experiment = await readJson(c, definition);
  const key = keyOf(c.var.tenant, c.req.param("name"));
  await c.var.config.put(key, HEADER + JSON.stringify(experiment), TTL_SECONDS, null);
  loaded.set(key, { experiment, checkedAt: Date.now() });
  return c.json({ name: c.req.param("name"), ...experiment }, 201);
});

experiments.post("/:name/assignments", async (c) => {
  const { userId } = await readJson(c, assignment);
  const experiment = await current(c, c.req.param("name"));
  if (experiment.status !== "running") return c.json({ variant: experiment.variants[0]?.name, reason: "notRunning" });
  return c.json({ variant: await place(experiment, userId), reason: "assigned" });
});

// Flags: flagd documents in one key, evaluated by flagd's own JavaScript engine, over OFREP. An isolate keeps the engine with
// the document loaded and looks for a newer one every ten seconds. The engine runs interpreted, because Workers forbid
// generated code; its hash is generation v2.

import { FlagdCore } from "@openfeature/flagd-core";
import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem, readJson } from "./problem.ts";

const POINTER_MS = 10_000;
const CACHE_TTL_SECONDS = 30;
const HEADER = "flag.1\n";
/** Longest life KV takes here; the record has none of its own. */
const TTL_SECONDS = 315_360_000;

const flagDocument = z.object({ flags: z.record(z.string(), z.unknown()) });
const evaluationRequest = z.object({ context: z.record(z.string(), z.unknown()).default({}) });

interface Loaded {
  core: FlagdCore;
  text: string;
  checkedAt: number;
}

const loaded = new Map<string, Loaded>();
const quiet = { error() {}, warn() {}, info() {}, debug() {} };

function load(tenant: string, text: string): FlagdCore {
  const known = loaded.get(tenant);
  if (known?.text === text) {
    known.checkedAt = Date.now();
    return known.core;
  }
  const core = new FlagdCore(undefined, quiet, { disableDynamicCodeGeneration: true });
  core.setConfigurations(text.slice(HEADER.length));
  loaded.set(tenant, { core, text, checkedAt: Date.now() });
  return core;
}

const keyOf = (tenant: string) => `${encodeURIComponent(tenant)}/flag`;

async function coreOf(c: Context<App>): Promise<FlagdCore> {
  const known = loaded.get(c.var.tenant);
  if (known !== undefined && Date.now() - known.checkedAt < POINTER_MS) return known.core;
  const key = keyOf(c.var.tenant);
  const text = (await c.var.config.getMany([key], CACHE_TTL_SECONDS)).get(key) ?? null;
  if (text === null || !text.startsWith(HEADER)) throw new Problem(404, "not-found", "Not found");
  return load(c.var.tenant, text);
}

async function etag(body: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(body));
  return `"${new Uint8Array(digest).subarray(0, 16).toBase64({ alphabet: "base64url", omitPadding: true })}"`;
}

export const flags = new Hono<App>();

flags.put("/", async (c) => {
  const text = HEADER + JSON.stringify(await readJson(c, flagDocument));
  await c.var.config.put(keyOf(c.var.tenant), text, TTL_SECONDS, null);
  load(c.var.tenant, text);
  return c.json({ updatedAt: Date.now() }, 201);
});

export const ofrep = new Hono<App>();

ofrep.use(async (c, next) => {
  c.header("Consistency", "eventual");
  await next();
});

ofrep.post("/", async (c) => {
  const { context } = await readJson(c, evaluationRequest);
  const answers = (await coreOf(c)).resolveAll(context as never, quiet);
  const items = answers.map(({ flagKey, value, reason, variant }) => ({ key: flagKey, value, reason, variant }));
  const body = JSON.stringify({ flags: items });
  const tag = await etag(body);
  c.header("ETag", tag);
  if (c.req.header("if-none-match") === tag) return c.body(null, 304);
  return c.body(body, 200, { "content-type": "application/json" });
});

ofrep.post("/:key{.+}", async (c) => {
  const { context } = await readJson(c, evaluationRequest);
  const core = await coreOf(c);
  const key = c.req.param("key");
  const variants = core.getFlag(key)?.variants;
  if (variants === undefined) return c.json({ key, errorCode: "FLAG_NOT_FOUND", errorDetails: "no such flag" }, 404);
  const { value, reason, variant } = core.resolveBooleanEvaluation(key, false, context as never, quiet);
  return c.json({ key, value, reason, variant });
});

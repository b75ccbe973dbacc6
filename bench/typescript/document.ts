// Documents with a schema version: migrated when read, by steps kept as data; the copy in the newest version is written
// behind. A read is 1 read; the schema is remembered for 30 seconds.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import type { MeteredKv } from "./kv.ts";
import { Problem, readJson } from "./problem.ts";
import { etag, nextStamp } from "./stamp.ts";

const CACHE_TTL_SECONDS = 60;
const SCHEMA_MS = 30_000;
const WRITE_BACK_MS = 60_000;
const HEADER = "document.1\n";
const SCHEMA_HEADER = "collection.1\n";

const step = z.union([
  z.strictObject({ rename: z.strictObject({ from: z.string(), to: z.string() }) }),
  z.strictObject({ add: z.strictObject({ field: z.string(), default: z.unknown() }) }),
  z.strictObject({ remove: z.strictObject({ field: z.string() }) }),
  z.strictObject({ convert: z.strictObject({ field: z.string(), to: z.enum(["string", "number", "boolean"]) }) }),
]);
const schemaBody = z.strictObject({
  version: z.int().min(1).max(100),
  migrations: z.array(z.strictObject({ from: z.int(), to: z.int(), steps: z.array(step).max(50) })).default([]),
});
const documentBody = z.record(z.string(), z.unknown());
const record = z.strictObject({ version: z.int(), stamp: z.string(), migratedAt: z.int().optional(), data: documentBody });

type Schema = z.infer<typeof schemaBody>;
type Step = z.infer<typeof step>;
type Fields = Record<string, unknown>;

const schemas = new Map<string, { schema: Schema; at: number }>();
const writtenBack = new Map<string, { at: number; stored: string | undefined }>();

const collectionKey = (c: Context<App>) => `${encodeURIComponent(c.var.tenant)}/collection/${encodeURIComponent(c.req.param("collection")!)}`;
const documentKey = (c: Context<App>, part: string) =>
  `${encodeURIComponent(c.var.tenant)}/document/${encodeURIComponent(c.req.param("collection")!)}/${encodeURIComponent(c.req.param("id")!)}/${part}`;

async function schemaOf(c: Context<App>): Promise<Schema> {
  const key = collectionKey(c);
  const known = schemas.get(key);
  if (known !== undefined && Date.now() - known.at < SCHEMA_MS) return known.schema;
  const text = await c.var.config.get(key, CACHE_TTL_SECONDS);
  if (text === null) throw new Problem(404, "not-found", "Not found");
  const schema = schemaBody.parse(JSON.parse(text.slice(SCHEMA_HEADER.length)));
  schemas.set(key, { schema, at: Date.now() });
  return schema;
}

function apply(fields: Fields, step: Step): void {
  if ("rename" in step) {
    const { from, to } = step.rename;
    if (!(from in fields)) return;
    if (to in fields) throw new Problem(422, "migration-failed", "The document cannot be migrated");
    fields[to] = fields[from];
    delete fields[from];
  } else if ("add" in step) {
    if (!(step.add.field in fields)) fields[step.add.field] = structuredClone(step.add.default);
  } else if ("remove" in step) {
    delete fields[step.remove.field];
  } else {
    const { field, to } = step.convert;
    if (fields[field] == null) return;
    const value = to === "string" ? String(fields[field]) : to === "number" ? Number(fields[field]) : fields[field] === "true";
    if (Number.isNaN(value)) throw new Problem(422, "migration-failed", "The document cannot be migrated");
    fields[field] = value;
  }
}

function migrate(schema: Schema, from: number, data: Fields): Fields {
  const fields = { ...data };
  for (let version = from; version < schema.version; version += 1) {
    for (const step of schema.migrations.find((migration) => migration.from === version)?.steps ?? []) apply(fields, step);
  }
  return fields;
}

/** Writes the copy unless there is one. Says for which original one is stored. */
async function writeBack(kv: MeteredKv, key: string, stamp: string, version: number, data: Fields): Promise<void> {
  const text = await kv.get(key, CACHE_TTL_SECONDS);
  const known = text === null ? undefined : record.safeParse(JSON.parse(text.slice(HEADER.length))).data;
  if (known?.stamp !== stamp || known.version !== version) {
    const migratedAt = Date.now();
    await kv.put(key, HEADER + JSON.stringify({ version, stamp, migratedAt, data }), undefined, { version, stamp, migratedAt });
  }
  writtenBack.set(key, { at: Date.now(), stored: `${stamp} ${version}` });
}

export const collections = new Hono<App>();

collections.put("/:collection", async (c) => {
  const schema = await readJson(c, schemaBody);
  const key = collectionKey(c);
  await c.var.config.put(key, SCHEMA_HEADER + JSON.stringify(schema), undefined, null);
  schemas.set(key, { schema, at: Date.now() });
  return c.json({ version: schema.version });
});

collections.put("/:collection/documents/:id", async (c) => {
  const data = await readJson(c, documentBody);
  const { version } = await schemaOf(c);
  const stamp = nextStamp();
  await c.var.config.put(documentKey(c, "own"), HEADER + JSON.stringify({ version, stamp, data }), undefined, { version, stamp });
  return c.json(data);
});

collections.get("/:collection/documents/:id", async (c) => {
  const schema = await schemaOf(c);
  const text = await c.var.config.get(documentKey(c, "own"), CACHE_TTL_SECONDS);
  if (text === null) throw new Problem(404, "not-found", "Not found");
  const { version, stamp, data: own } = record.parse(JSON.parse(text.slice(HEADER.length)));
  const data = version < schema.version ? migrate(schema, version, own) : own;
  if (version < schema.version) {
    const key = documentKey(c, "migrated");
    const known = writtenBack.get(key);
    if (known?.stored !== `${stamp} ${schema.version}`) {
      c.header("Migrated-From", String(version));
      if (known === undefined || Date.now() - known.at >= WRITE_BACK_MS) {
        writtenBack.set(key, { at: Date.now(), stored: undefined });
        c.executionCtx.waitUntil(writeBack(c.var.config, key, stamp, schema.version, data).catch(() => {}));
      }
    }
  }
  const body = JSON.stringify(data);
  const tag = await etag(body);
  c.header("ETag", tag);
  c.header("Consistency", "eventual");
  c.header("Document-Version", String(Math.max(version, schema.version)));
  if (c.req.header("if-none-match") === tag) return c.body(null, 304);
  return c.body(body, 200, { "content-type": "application/json" });
});

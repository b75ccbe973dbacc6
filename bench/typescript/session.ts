// Sessions: create is 1 write and no read; verify and refresh are 1 bulk read of 2 keys, refresh writes at most once a minute.
//
// A token is "kvs_" and base64url of 51 bytes: 32 of secret, 16 that name the user, 3 of checksum. Only its hash is
// stored, and the record's public id is derived from that hash. A user's epoch, one key, ends every session made before it.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import type { MeteredKv } from "./kv.ts";
import { Problem, readJson } from "./problem.ts";

const SECRET_BYTES = 32;
const TAG_BYTES = 16;
const CHECKSUM_BYTES = 3;
const TOKEN_PREFIX = "kvs_";
const CACHE_TTL_SECONDS = 30;
const REFRESH_INTERVAL_MS = 60_000;
const KV_TTL_SECONDS_MIN = 60;
const ID_BYTES_MAX = 256;
const EMAIL_BYTES_MAX = 320;
const ROLES_MAX = 64;
const ROLE_BYTES_MAX = 128;
const DATA_BYTES_MAX = 16 * 1024;
const RECORD_HEADER = "session.1\n";
const EPOCH_HEADER = "epoch.1\n";

const encoder = new TextEncoder();

const byteLength = (value: string) => encoder.encode(value).byteLength;
const text = (bytesMax: number) => z.string().refine((value) => byteLength(value) <= bytesMax, `must be at most ${bytesMax} bytes`);

const userId = text(ID_BYTES_MAX)
  .min(1)
  .regex(/^\P{Cc}*$/u, "must not hold control characters");

const createBody = z.strictObject({
  userId,
  email: text(EMAIL_BYTES_MAX).nullable().default(null),
  roles: z.array(text(ROLE_BYTES_MAX)).max(ROLES_MAX).default([]),
  data: z
    .unknown()
    .refine((data) => byteLength(JSON.stringify(data) ?? "") <= DATA_BYTES_MAX, `must be at most ${DATA_BYTES_MAX} bytes`)
    .default(null),
  idleSeconds: z.int().min(60).max(31_536_000).default(86_400),
  absoluteSeconds: z.int().min(60).max(31_536_000).default(604_800),
});

const tokenBody = z.strictObject({ token: z.string().max(256) });

const record = z.strictObject({
  hash: z.string(),
  userId: z.string(),
  email: z.string().nullable(),
  roles: z.array(z.string()),
  data: z.unknown(),
  createdAt: z.int(),
  lastSeenAt: z.int(),
  idleSeconds: z.int(),
  absoluteSeconds: z.int(),
});

const epochRecord = z.strictObject({ revokedBefore: z.int() });

type SessionRecord = z.infer<typeof record>;

interface Credential {
  id: string;
  /** Base64url of the hash that is stored. */
  hash: string;
  digest: Uint8Array;
  key: string;
  epochKey: string;
}

function base64url(bytes: Uint8Array): string {
  return bytes.toBase64({ alphabet: "base64url", omitPadding: true });
}

async function sha256(...parts: (Uint8Array | string)[]): Promise<Uint8Array> {
  const bytes = parts.map((part) => (typeof part === "string" ? encoder.encode(part) : part));
  const whole = new Uint8Array(bytes.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of bytes) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

async function credentialOf(tenant: string, secretAndTag: Uint8Array): Promise<Credential> {
  const digest = await sha256(secretAndTag);
  const id = base64url((await sha256("id", digest)).subarray(0, TAG_BYTES));
  const user = base64url(secretAndTag.subarray(SECRET_BYTES));
  const space = encodeURIComponent(tenant);
  return { id, hash: base64url(digest), digest, key: `${space}/session/${user}/${id}`, epochKey: `${space}/epoch/${user}` };
}

/** A new token and what it is known by. */
async function issue(tenant: string, user: string): Promise<{ token: string; credential: Credential }> {
  const tag = (await sha256("user\0", tenant, "\0", user)).subarray(0, TAG_BYTES);
  const bytes = new Uint8Array(SECRET_BYTES + TAG_BYTES + CHECKSUM_BYTES);
  crypto.getRandomValues(bytes.subarray(0, SECRET_BYTES));
  bytes.set(tag, SECRET_BYTES);
  const credential = await credentialOf(tenant, bytes.slice(0, SECRET_BYTES + TAG_BYTES));
  bytes.set(credential.digest.subarray(0, CHECKSUM_BYTES), SECRET_BYTES + TAG_BYTES);
  return { token: TOKEN_PREFIX + base64url(bytes), credential };
}

/** What a token names, or null when it cannot be one of ours; that costs no KV operation. */
async function parseToken(tenant: string, token: string): Promise<Credential | null> {
  const match = /^kvs_([A-Za-z0-9_-]{68})$/.exec(token);
  if (match?.[1] === undefined) return null;
  const bytes = Uint8Array.fromBase64(match[1], { alphabet: "base64url" });
  const credential = await credentialOf(tenant, bytes.slice(0, SECRET_BYTES + TAG_BYTES));
  const checksum = bytes.subarray(SECRET_BYTES + TAG_BYTES);
  return crypto.subtle.timingSafeEqual(checksum, credential.digest.subarray(0, CHECKSUM_BYTES)) ? credential : null;
}

function expiresAt({ createdAt, lastSeenAt, idleSeconds, absoluteSeconds }: SessionRecord): number {
  return Math.min(lastSeenAt + idleSeconds * 1000, createdAt + absoluteSeconds * 1000);
}

function view(id: string, session: SessionRecord) {
  const { userId, email, roles, data, createdAt, lastSeenAt } = session;
  return { id, userId, email, roles, data, createdAt, lastSeenAt, expiresAt: expiresAt(session) };
}

function decode<Schema extends z.ZodType>(header: string, text: string, schema: Schema): z.infer<Schema> {
  if (!text.startsWith(header)) throw new Problem(503, "corrupt-record", "Corrupt record");
  try {
    return schema.parse(JSON.parse(text.slice(header.length)));
  } catch {
    throw new Problem(503, "corrupt-record", "Corrupt record");
  }
}

async function write(kv: MeteredKv, key: string, session: SessionRecord, now: number): Promise<void> {
  const ttlSeconds = Math.max(Math.ceil((expiresAt(session) - now) / 1000), KV_TTL_SECONDS_MIN);
  await kv.put(key, RECORD_HEADER + JSON.stringify(session), ttlSeconds, { createdAt: session.createdAt });
}

function sameHash(stored: string, digest: Uint8Array): boolean {
  const hash = Uint8Array.fromBase64(stored, { alphabet: "base64url" });
  return hash.byteLength === digest.byteLength && crypto.subtle.timingSafeEqual(hash, digest);
}

const invalid = () => new Problem(401, "session-invalid", "Session invalid", { headers: { "www-authenticate": "Bearer" } });

async function load(c: Context<App>, now: number): Promise<{ credential: Credential; session: SessionRecord }> {
  const { token } = await readJson(c, tokenBody);
  const credential = await parseToken(c.var.tenant, token);
  if (credential === null) throw invalid();
  const found = await c.var.sessions.getMany([credential.key, credential.epochKey], CACHE_TTL_SECONDS);
  const text = found.get(credential.key) ?? null;
  if (text === null) throw invalid();
  const session = decode(RECORD_HEADER, text, record);
  const epoch = found.get(credential.epochKey) ?? null;
  const revokedBefore = epoch === null ? 0 : decode(EPOCH_HEADER, epoch, epochRecord).revokedBefore;
  if (!sameHash(session.hash, credential.digest) || now >= expiresAt(session) || session.createdAt <= revokedBefore) throw invalid();
  return { credential, session };
}

export const sessions = new Hono<App>();

sessions.use(async (c, next) => {
  c.header("Consistency", "eventual");
  await next();
});

sessions.post("/", async (c) => {
  const body = await readJson(c, createBody);
  const now = Date.now();
  const { token, credential } = await issue(c.var.tenant, body.userId);
  const session = { ...body, hash: credential.hash, createdAt: now, lastSeenAt: now };
  await write(c.var.sessions, credential.key, session, now);
  c.header("Cache-Control", "no-store");
  return c.json({ token, session: view(credential.id, session) }, 201);
});

sessions.post("/verify", async (c) => {
  const { credential, session } = await load(c, Date.now());
  return c.json(view(credential.id, session));
});

sessions.post("/refresh", async (c) => {
  const now = Date.now();
  const { credential, session } = await load(c, now);
  if (now - session.lastSeenAt < REFRESH_INTERVAL_MS) return c.json(view(credential.id, session));
  const refreshed = { ...session, lastSeenAt: now };
  await write(c.var.sessions, credential.key, refreshed, now);
  return c.json(view(credential.id, refreshed));
});

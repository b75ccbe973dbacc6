// Locks: one object per resource. Only a hash of the lock id is stored. Waiting, renewing and inspecting are left out.

import { Hono } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem, readJson } from "./problem.ts";

const OWNER_BYTES_MAX = 256;

const encoder = new TextEncoder();
const acquireBody = z.strictObject({
  ttlSeconds: z.int().min(1).max(3600),
  owner: z
    .string()
    .refine((owner) => encoder.encode(owner).byteLength <= OWNER_BYTES_MAX && !/\p{Cc}/u.test(owner), "must be at most 256 bytes without control characters")
    .nullable()
    .default(null),
});
const releaseBody = z.strictObject({ lockId: z.string().min(1).max(128) });

const base64url = (bytes: Uint8Array) => bytes.toBase64({ alphabet: "base64url", omitPadding: true });

async function hash(secret: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", encoder.encode(secret))));
}

const objectOf = (tenant: string, resource: string) => `${encodeURIComponent(tenant)}/lock/${encodeURIComponent(resource)}`;

export const locks = new Hono<App>();

locks.use(async (c, next) => {
  c.header("Consistency", "strong");
  await next();
});

locks.post("/:resource/acquire", async (c) => {
  const { ttlSeconds, owner } = await readJson(c, acquireBody);
  const lockId = base64url(crypto.getRandomValues(new Uint8Array(32)));
  const given = c.req.header("idempotency-key");
  const key = given === undefined ? null : await hash(given);
  const lock = c.env.LOCK.getByName(objectOf(c.var.tenant, c.req.param("resource")));
  const answer = await lock.acquire(await hash(lockId), key, owner, ttlSeconds);
  if ("fencingToken" in answer) return c.json({ lockId, ...answer });
  throw new Problem(409, "lock-held", "The lock is held", {
    headers: { "retry-after": `${answer.retryAfterSeconds}` },
    more: { owner: answer.heldBy },
  });
});

locks.post("/:resource/release", async (c) => {
  const { lockId } = await readJson(c, releaseBody);
  const lock = c.env.LOCK.getByName(objectOf(c.var.tenant, c.req.param("resource")));
  if (!(await lock.release(await hash(lockId)))) throw new Problem(409, "lock-not-held", "The lock is not held by this id");
  return c.body(null, 204);
});

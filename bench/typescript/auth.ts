// Bearer tokens from the secret API_TOKENS: name to `{ sha256, tenant, scopes }`. No KV operation is spent on them.

import type { MiddlewareHandler } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem } from "./problem.ts";

const apiTokens = z.record(
  z.string(),
  z.strictObject({ sha256: z.hex().length(64), tenant: z.string().min(1), scopes: z.array(z.string()) }),
);

interface Caller {
  sha256: Uint8Array;
  tenant: string;
  scopes: Set<string>;
}

const encoder = new TextEncoder();
let parsed: { source: string; callers: Caller[] } | undefined;

/** The secret is constant for the life of an isolate, so it is parsed once. */
function callersOf(source: string): Caller[] {
  if (parsed?.source !== source) {
    const callers = Object.values(apiTokens.parse(JSON.parse(source))).map(({ sha256, tenant, scopes }) => ({
      sha256: Uint8Array.fromHex(sha256),
      tenant,
      scopes: new Set(scopes),
    }));
    parsed = { source, callers };
  }
  return parsed.callers;
}

/** Every token is compared, in constant time each, so that the time taken does not tell which one was near. */
async function callerOf(source: string, token: string): Promise<Caller | undefined> {
  const hash = await crypto.subtle.digest("SHA-256", encoder.encode(token));
  let caller: Caller | undefined;
  for (const candidate of callersOf(source)) {
    if (crypto.subtle.timingSafeEqual(hash, candidate.sha256)) caller = candidate;
  }
  return caller;
}

/** Lets a request pass whose token has `resource` (or every resource) among its scopes. */
export function authenticate(resource: string): MiddlewareHandler<App> {
  return async (c, next) => {
    if (!c.env.API_TOKENS) throw new Problem(503, "not-configured", "Not configured", { detail: "Set the secret API_TOKENS." });
    const token = /^Bearer +(\S+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
    const caller = token === undefined ? undefined : await callerOf(c.env.API_TOKENS, token);
    if (caller === undefined) {
      throw new Problem(401, "unauthorized", "Unauthorized", { headers: { "www-authenticate": "Bearer" } });
    }
    const wanted = c.req.method === "GET" ? [resource, `${resource}:read`] : [resource];
    if (!caller.scopes.has("*") && !wanted.some((scope) => caller.scopes.has(scope))) {
      throw new Problem(403, "forbidden", "Forbidden", { detail: `The token lacks the scope ${resource}.` });
    }
    c.set("tenant", caller.tenant);
    await next();
  };
}

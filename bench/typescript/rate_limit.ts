// Rate limits, exact mode: one object per policy and identifier; policies are read from KV once per half minute, and a
// denial is remembered for as long as it holds, at most a minute. The sliding window, approximate mode and lists of
// identifiers are left out.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import type { Decision, Policy } from "./objects.ts";
import { Problem, readJson } from "./problem.ts";

const ID_BYTES_MAX = 256;
const LIMIT_MAX = 1_000_000_000;
const POLICY_MS = 30_000;
const DENIAL_MS_MAX = 60_000;
const ENTRIES_MAX = 5000;

const encoder = new TextEncoder();
const id = z
  .string()
  .min(1)
  .refine((text) => encoder.encode(text).byteLength <= ID_BYTES_MAX && !/\p{Cc}/u.test(text), "must be 1 to 256 bytes without control characters");
const policyBody = z.strictObject({
  limit: z.int().min(1).max(LIMIT_MAX),
  windowSeconds: z.int().min(1).max(2_592_000),
  algorithm: z.enum(["fixed-window", "token-bucket"]).default("token-bucket"),
});
const checkBody = z.strictObject({
  identifier: id,
  cost: z.int().min(1).max(LIMIT_MAX).default(1),
  peek: z.boolean().default(false),
});

const policies = new Map<string, { policy: Policy; until: number }>();
const denials = new Map<string, { cost: number; decision: Decision; policy: Policy; at: number; until: number }>();

const keyOf = (tenant: string, name: string) => `${encodeURIComponent(tenant)}/rate-limit/${encodeURIComponent(name)}`;

/** An IPv6 address counts as its /64. */
function normalise(identifier: string): string {
  if (!identifier.includes(":")) return identifier;
  try {
    const address = new URL(`http://[${identifier}]`).hostname.slice(1, -1);
    const [head = "", tail] = address.split("::");
    const left = head === "" ? [] : head.split(":");
    const right = tail === undefined || tail === "" ? [] : tail.split(":");
    const groups = tail === undefined ? left : [...left, ...Array<string>(8 - left.length - right.length).fill("0"), ...right];
    return `${groups.slice(0, 4).join(":")}::/64`;
  } catch {
    return identifier;
  }
}

async function policyOf(c: Context<App>, name: string): Promise<Policy> {
  const key = keyOf(c.var.tenant, name);
  const known = policies.get(key);
  if (known !== undefined && Date.now() < known.until) return known.policy;
  const text = await c.var.config.get(key, 30);
  if (text === null) throw new Problem(404, "not-found", "Not found");
  const policy = JSON.parse(text) as Policy;
  policies.set(key, { policy, until: Date.now() + POLICY_MS });
  return policy;
}

function verdict(c: Context<App>, policy: Policy, { allowed, remaining, resetSeconds }: Decision): Response {
  const name = policy.name.replace(/[\\"]/g, "\\$&");
  const headers = {
    consistency: "strong",
    "ratelimit-policy": `"${name}";q=${policy.limit};w=${policy.windowSeconds}`,
    ratelimit: `"${name}";r=${remaining};t=${Math.max(resetSeconds, remaining === 0 ? 1 : 0)}`,
  };
  const body = { allowed, limit: policy.limit, remaining, resetSeconds, mode: "exact" };
  if (allowed) return c.json(body, 200, headers);
  const more = { ...body, "violated-policies": [policy.name] };
  throw new Problem(429, "quota-exceeded", "The quota is exceeded", {
    detail: "The quota of this identifier is used up.",
    headers: { ...headers, "retry-after": `${Math.max(resetSeconds, 1)}` },
    more,
  });
}

export const rateLimits = new Hono<App>();

rateLimits.put("/:policy", async (c) => {
  const name = id.parse(c.req.param("policy"));
  const policy: Policy = { name, ...(await readJson(c, policyBody)), updatedAt: Date.now() };
  const key = keyOf(c.var.tenant, name);
  await c.var.config.put(key, JSON.stringify(policy), undefined, policy);
  policies.set(key, { policy, until: Date.now() + POLICY_MS });
  for (const denied of denials.keys()) if (denied.startsWith(`${key}/`)) denials.delete(denied);
  return c.json(policy);
});

rateLimits.post("/:policy/check", async (c) => {
  const name = c.req.param("policy");
  const { identifier, cost, peek } = await readJson(c, checkBody);
  const object = `${keyOf(c.var.tenant, name)}/${encodeURIComponent(normalise(identifier))}`;
  const denied = denials.get(object);
  const now = Date.now();
  if (denied !== undefined && now < denied.until && cost >= denied.cost) {
    const resetSeconds = Math.max(1, denied.decision.resetSeconds - Math.floor((now - denied.at) / 1000));
    return verdict(c, denied.policy, { ...denied.decision, resetSeconds });
  }
  const policy = await policyOf(c, name);
  if (cost > policy.limit) throw new Problem(400, "invalid-field", "Invalid field", { field: "cost" });
  const decision = await c.env.LIMITER.getByName(object).check(policy, cost, peek);
  if (!decision.allowed) {
    if (denials.size >= ENTRIES_MAX) denials.clear();
    denials.set(object, { cost, decision, policy, at: now, until: now + Math.min(decision.resetSeconds * 1000, DENIAL_MS_MAX) });
  }
  return verdict(c, policy, decision);
});

// The floor of limits: an allowed check is 1 object call, with the policy in memory for half a minute; a denied one is an
// answer from memory.

const POLICY_KEY = "bench/rate-limit/api";
let policyReadAt = 0;

async function put(request, env) {
  const policy = await request.json();
  await env.CONFIG.put(POLICY_KEY, JSON.stringify(policy), { metadata: policy });
  policyReadAt = Date.now();
  return Response.json(policy);
}

async function allowed(request, env) {
  const { identifier } = await request.json();
  if (policyReadAt + 30_000 < Date.now()) {
    policyReadAt = Date.now();
    await env.CONFIG.get(POLICY_KEY, { type: "text", cacheTtl: 30 });
  }
  const reply = await env.LIMITER.getByName(`bench/api/${identifier}`).fetch("https://object/", { method: "POST", body: "{}" });
  const { allowed, remaining } = await reply.json();
  return Response.json({ allowed, limit: 1_000_000_000, remaining, resetSeconds: 1, mode: "exact" });
}

const problem = {
  type: "/problems/quota-exceeded",
  title: "The quota is exceeded",
  status: 429,
  detail: "The quota of this identifier is used up.",
  allowed: false,
  limit: 1,
  mode: "exact",
  remaining: 0,
  resetSeconds: 2_592_000,
  "violated-policies": ["tight"],
};

async function denied(request) {
  await request.json();
  return Response.json(problem, { status: 429, headers: { "content-type": "application/problem+json" } });
}

export default {
  "PUT /v1/rate-limits/api": put,
  "PUT /v1/rate-limits/tight": put,
  "POST /v1/rate-limits/api/check": allowed,
  "POST /v1/rate-limits/tight/check": denied,
};

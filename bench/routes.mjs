// The table of what is measured. A row is one entry:
//
//   name      as printed and as `--routes=` takes it
//   method, path, status
//   prepare   optional; `async (call) => state`, makes what the requests need, through the peer's own HTTP. It runs before
//             every round, on an empty KV, and is not counted. `call({ method, path, body })` answers `{ status, json }`
//   request   optional; `(i, state) => ({ path?, headers?, body? })`, request number i of the `VARIANTS` that a sample repeats
//             in turn; a body of bytes is sent as it is, any other as JSON
//
// The same row drives the three peers: `floor/<pattern>.js` and `typescript/<pattern>.ts` need a handler for it, and ours
// has one already. A pattern with a Durable Object also names it in `peers.mjs`.

/** Different requests in a sample: enough that no peer lives off one hot key, few enough to prepare in a moment. */
export const VARIANTS = 64;

const member = (i) => ({
  userId: `user-${String(i).padStart(4, "0")}`,
  email: `user-${String(i).padStart(4, "0")}@example.com`,
  roles: ["member", "editor"],
  data: { plan: "team", locale: "en-GB", seats: 12, trial: false },
});

/** One live session per variant; their tokens. Made anew for each round, so that no refresh is due to write. */
async function issueTokens(call) {
  const tokens = [];
  for (let i = 0; i < VARIANTS; i += 1) {
    const { json } = await call({ method: "POST", path: "/v1/sessions", body: member(i) });
    tokens.push(json.token);
  }
  return tokens;
}

/** Two hundred flags, each with a rule that asks for a plan and then splits by user. */
async function storeFlags(call) {
  const targeting = { if: [{ "==": [{ var: "plan" }, "team"] }, "on", { fractional: [["on", 25], ["off", 75]] }] };
  const flag = { state: "ENABLED", variants: { on: true, off: false }, defaultVariant: "off", targeting };
  const flags = Object.fromEntries(Array.from({ length: 200 }, (_, i) => [`flag-${String(i).padStart(3, "0")}`, flag]));
  await call({ method: "PUT", path: "/v1/flags", body: { flags, settings: { bucketing: "v2" } } });
}

/** Every other user is decided by the plan, the others by their hash. */
const contextOf = (i) => ({ context: { targetingKey: `user-${i}`, plan: i % 2 === 0 ? "team" : "free", seats: 12 } });

/** A running experiment with two variants. */
async function startExperiment(call) {
  const variants = [{ name: "control", weight: 50 }, { name: "treated", weight: 50 }];
  await call({ method: "PUT", path: "/v1/experiments/checkout", body: { variants, status: "running", salt: "checkout" } });
}

export const routes = [
  { name: "health", method: "GET", path: "/health", status: 200 },
  {
    name: "session-create",
    method: "POST",
    path: "/v1/sessions",
    status: 201,
    request: (i) => ({ body: member(i) }),
  },
  {
    name: "session-verify",
    method: "POST",
    path: "/v1/sessions/verify",
    status: 200,
    prepare: issueTokens,
    request: (i, tokens) => ({ body: { token: tokens[i] } }),
  },
  {
    name: "session-refresh",
    method: "POST",
    path: "/v1/sessions/refresh",
    status: 200,
    prepare: issueTokens,
    request: (i, tokens) => ({ body: { token: tokens[i] } }),
  },
  {
    name: "flag-evaluate",
    method: "POST",
    path: "/ofrep/v1/evaluate/flags/flag-007",
    status: 200,
    prepare: storeFlags,
    request: (i) => ({ body: contextOf(i) }),
  },
  {
    name: "flag-evaluate-200",
    method: "POST",
    path: "/ofrep/v1/evaluate/flags",
    status: 200,
    prepare: storeFlags,
    request: (i) => ({ body: contextOf(i) }),
  },
  {
    name: "experiment-assign",
    method: "POST",
    path: "/v1/experiments/checkout/assignments",
    status: 200,
    prepare: startExperiment,
    request: (i) => ({ body: { userId: `user-${String(i).padStart(4, "0")}` } }),
  },
];

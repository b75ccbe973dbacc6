// The table of what is measured. A row is one entry:
//
//   name      as printed and as `--routes=` takes it
//   method, path, status
//   prepare   optional; `async (call, origin) => state`, makes what the requests need, through the peer's own HTTP. It runs before
//             every round, on an empty KV, and is not counted. `call({ method, path, body, status })` answers
//             `{ status, json }`; a status from 400 on is an error unless it is the one that was named. `origin` is the URL of one on
//             loopback, whose answers may be kept for an hour
//   request   optional; `(i, state) => ({ path?, headers?, body? })`, request number i of the `VARIANTS` that a sample repeats
//             in turn; a body of bytes is sent as it is, any other as JSON
//   background  optional; KV operations per request by which peers may differ, where the work is done once a second or less
//             often, however many requests there are
//
// The same row drives the three peers: `floor/<pattern>.js` and `typescript/<pattern>.ts` need a handler for it, and ours
// has one already. A pattern with a Durable Object also names it in `peers.mjs`.

import { setTimeout as delay } from "node:timers/promises";

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

/** Requests in whose samples a schema, remembered for 30 seconds, may be read anew. */
const SCHEMA_READS = 0.02;

/** A preference that differs from the default. */
const preferDark = (call) => call({ method: "PATCH", path: "/v1/users/ada/preferences", body: { theme: "dark" } });

const book = { name: "Dune", author: "Frank Herbert", pages: "412", published: 1965, languages: ["en", "fr", "de"] };

/** A document of the first version, in a schema of the first or the third one. */
async function storeBook(call, collection, version) {
  const to2 = { from: 1, to: 2, steps: [{ rename: { from: "name", to: "title" } }, { add: { field: "tags", default: [] } }] };
  const to3 = { from: 2, to: 3, steps: [{ convert: { field: "pages", to: "number" } }] };
  await call({ method: "PUT", path: `/v1/collections/${collection}`, body: { version: 1, migrations: [] } });
  await call({ method: "PUT", path: `/v1/collections/${collection}/documents/dune`, body: book });
  if (version > 1) await call({ method: "PUT", path: `/v1/collections/${collection}`, body: { version, migrations: [to2, to3] } });
}

/** A second's work in the background, over the requests that a sample has even when it is short. */
const BACKGROUND = 0.02;

/** A counter with something in it; its first increment is written at once. */
async function count(call) {
  for (let i = 0; i < 3; i += 1) await call({ method: "POST", path: "/v1/counters/hits", body: { delta: 1 } });
  for (let tries = 0; tries < 100; tries += 1) {
    const { json } = await call({ method: "GET", path: "/v1/counters/hits" });
    if (json.value > 0) return;
    await delay(50);
  }
}

// Windows begin at their multiples: one of an hour would end in the middle of some run.
const putPolicy = (call, name, limit) =>
  call({ method: "PUT", path: `/v1/rate-limits/${name}`, body: { limit, windowSeconds: 2_592_000, algorithm: "fixed-window" } });

/** A policy of one unit, used up by every identifier; each isolate knows it. */
async function useUp(call) {
  await putPolicy(call, "tight", 1);
  for (let i = 0; i < VARIANTS; i += 1) {
    for (let n = 0; n < 2; n += 1) await call({ method: "POST", path: "/v1/rate-limits/tight/check", body: identify(i), status: 429 });
  }
}

const identify = (i) => ({ identifier: `user-${String(i).padStart(4, "0")}` });

/** Objects of two kilobytes. */
async function storeObjects(call) {
  for (let i = 0; i < VARIANTS; i += 1) {
    await call({ method: "PUT", path: `/v1/cache/bench/object-${i}?ttlSeconds=300`, body: Buffer.alloc(2048, 97 + (i % 26)) });
  }
}

/** An origin, all of whose pages have been asked for once. */
async function fillGateway(call, origin) {
  await call({ method: "PUT", path: "/v1/origins/site", body: { baseUrl: origin } });
  for (let i = 0; i < VARIANTS; i += 1) await call({ method: "GET", path: `/v1/fetch/site/page-${i}` });
}

/** Past what is remembered: an object is read from KV, a page from its origin. */
const anew = { "Cache-Control": "no-cache" };

export const routes = [
  { name: "health", method: "GET", path: "/health", status: 200 },
  {
    name: "cache-hit-memory",
    method: "GET",
    status: 200,
    prepare: storeObjects,
    request: (i) => ({ path: `/v1/cache/bench/object-${i}` }),
  },
  {
    name: "cache-hit-kv",
    method: "GET",
    status: 200,
    prepare: storeObjects,
    request: (i) => ({ path: `/v1/cache/bench/object-${i}`, headers: anew }),
  },
  {
    name: "gateway-hit",
    method: "GET",
    status: 200,
    prepare: fillGateway,
    request: (i) => ({ path: `/v1/fetch/site/page-${i}` }),
  },
  {
    name: "gateway-miss",
    method: "GET",
    status: 200,
    prepare: fillGateway,
    request: (i) => ({ path: `/v1/fetch/site/page-${i}`, headers: anew }),
  },
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
  {
    name: "preferences-read",
    method: "GET",
    path: "/v1/users/ada/preferences",
    status: 200,
    prepare: preferDark,
  },
  {
    name: "preferences-patch",
    // Of many users: changes of one user's that cross take turns.
    method: "PATCH",
    status: 200,
    request: (i) => ({ path: `/v1/users/user-${i}/preferences`, body: { theme: i % 2 === 0 ? "dark" : "light" } }),
  },
  {
    name: "document-read",
    method: "GET",
    path: "/v1/collections/books/documents/dune",
    status: 200,
    background: SCHEMA_READS,
    prepare: (call) => storeBook(call, "books", 1),
  },
  {
    // Two versions behind: migrated for every answer; its copy is written behind the first one.
    name: "document-read-migrating",
    method: "GET",
    path: "/v1/collections/older/documents/dune",
    status: 200,
    background: SCHEMA_READS,
    prepare: (call) => storeBook(call, "older", 3),
  },
  {
    name: "replica-read-nearest",
    method: "GET",
    path: "/v1/replicated/motd",
    status: 200,
    prepare: (call) => call({ method: "PUT", path: "/v1/replicated/motd", body: { text: "Open from nine to five, except on Sundays." } }),
  },
  {
    name: "counter-add",
    method: "POST",
    path: "/v1/counters/hits",
    status: 202,
    background: BACKGROUND,
    request: () => ({ body: { delta: 1 } }),
  },
  {
    name: "counter-add-exact",
    method: "POST",
    path: "/v1/counters/hits",
    status: 200,
    background: BACKGROUND,
    request: () => ({ body: { delta: 1, mode: "exact" } }),
  },
  {
    name: "counter-read",
    method: "GET",
    path: "/v1/counters/hits",
    status: 200,
    background: BACKGROUND,
    prepare: count,
  },
  {
    name: "limit-allowed",
    method: "POST",
    path: "/v1/rate-limits/api/check",
    status: 200,
    background: BACKGROUND,
    prepare: (call) => putPolicy(call, "api", 1_000_000_000),
    request: (i) => ({ body: identify(i) }),
  },
  {
    name: "limit-denied",
    method: "POST",
    path: "/v1/rate-limits/tight/check",
    status: 429,
    background: BACKGROUND,
    prepare: useUp,
    request: (i) => ({ body: identify(i) }),
  },
  {
    // The holder asks again with its key: the state is loaded and stored as for a first grant, and it is never refused.
    name: "lock-acquire",
    method: "POST",
    path: "/v1/locks/job/acquire",
    status: 200,
    request: () => ({ headers: { "Idempotency-Key": "nightly-run" }, body: { ttlSeconds: 3600, owner: "worker-1" } }),
  },
  {
    // Of a lock that is free already: loaded and not stored. A request that is repeated can give back only once.
    name: "lock-release",
    method: "POST",
    path: "/v1/locks/free/release",
    status: 204,
    request: () => ({ body: { lockId: "Mzc0NDJmMTk4ZGM2NDYyYjk2ZmVjOGI1ZDY3YmM4NDA" } }),
  },
];

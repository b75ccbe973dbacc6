// The traffic of the soak: what is asked, how often, which statuses are expected, and what must hold afterwards.
//
// An operation is `{ weight, statuses, run(client) }`; `client.call` gives the reply. 503 is expected everywhere but where a
// pattern promises an answer without KV. `verify` asks everything again when the faults are over.

import { Fence, Register, Sum, Tokens } from "./model.mjs";

const KEYS = 400;
const SESSIONS_MAX = 600;
const LIMIT = { limit: 20, windowSeconds: 5, algorithm: "fixed-window" };

const tokens = new Tokens();
const exact = Array.from({ length: 20 }, () => new Sum());
const approximate = Array.from({ length: 20 }, () => new Sum());
const registers = (path, body) => Array.from({ length: KEYS }, (_, i) => ({ path: path(i), body, register: new Register() }));
const kept = [
  ...registers((i) => `/v1/users/user-${i}/profile`, (version) => ({ version })),
  ...registers((i) => `/v1/collections/notes/documents/${i}`, (version) => ({ version })),
  ...registers((i) => `/v1/settings/setting-${i}`, (version) => ({ version })),
  ...registers((i) => `/v1/replicated/page/${i}?write=all`, (version) => ({ version })),
];
const fences = Array.from({ length: 20 }, () => new Fence());
const held = new Set();
const admitted = new Map();
let version = 0;

/** Remembers what is wrong with an answer whose status is as expected. */
const faults = [];
const wrong = (text) => faults.push(text);

const pick = (client, list) => list[Math.floor(client.random() * list.length)];
const below = (client, end) => Math.floor(client.random() * end);
const post = (path, body, headers) => ({ method: "POST", path, body, headers });

/** The version a reply's body speaks of; nothing for a 404. */
function versionIn({ status, json }) {
  return status === 404 ? undefined : (json.value ?? json).version;
}

async function withToken(client, use) {
  const token = tokens.take(client.random);
  if (token === undefined) return createSession(client);
  return use(token);
}

async function createSession(client) {
  const reply = await client.call(post("/v1/sessions", { userId: `user-${below(client, KEYS)}`, roles: ["member"] }));
  if (reply.status === 201) tokens.alive.push(reply.json.token);
  return reply;
}

async function write(client) {
  const { path, body, register } = pick(client, kept);
  if (register.isBusy) return client.call({ method: "GET", path });
  register.isBusy = true;
  const mine = (version += 1);
  const reply = await client.call({ method: "PUT", path, body: body(mine) });
  if (reply.status === 200) register.acknowledged(mine);
  else register.unknown(mine);
  register.isBusy = false;
  return reply;
}

/** Adds until it is acknowledged: the same key each time, so that it counts once. */
async function addExactly(client) {
  const number = below(client, exact.length);
  const delta = 1 + below(client, 5);
  const request = post(`/v1/counters/exact-${number}`, { delta, mode: "exact" }, { "Idempotency-Key": `add-${(version += 1)}` });
  let reply = await client.call(request);
  for (let again = 0; reply.status !== 200 && again < 5; again += 1) reply = await client.call(request);
  if (reply.status === 200) exact[number].acknowledged += delta;
  else wrong(`an exact increment was refused six times: ${reply.status}`);
  return reply;
}

async function check(client) {
  const identifier = `client-${below(client, 10)}`;
  const reply = await client.call(post("/v1/rate-limits/soak/check", { identifier }));
  if (reply.status === 200) admitted.set(identifier, (admitted.get(identifier) ?? 0) + 1);
  return reply;
}

async function lock(client) {
  const number = below(client, fences.length);
  const reply = await client.call(post(`/v1/locks/lock-${number}/acquire`, { ttlSeconds: 30, owner: `client-${client.id}` }));
  if (reply.status !== 200) return reply;
  if (held.has(number)) wrong(`lock ${number} was granted while it was held`);
  if (!fences[number].admits(reply.json.fencingToken)) wrong(`lock ${number}: the fencing token ${reply.json.fencingToken} is not greater`);
  held.add(number);
  const seen = await client.call({ method: "GET", path: `/v1/locks/lock-${number}` });
  if (seen.json?.owner !== `client-${client.id}`) wrong(`a lock that is held is said to be ${seen.json?.owner}'s`);
  held.delete(number);
  const released = await client.call(post(`/v1/locks/lock-${number}/release`, { lockId: reply.json.lockId }));
  if (released.status !== 204 && released.status !== 503) wrong(`a lock that was held is not released: ${released.status}`);
  return reply;
}

export const operations = {
  "session create": { weight: 4, statuses: [201, 503], run: createSession },
  "session verify": {
    weight: 20,
    // 201: there was none, so one was made.
    statuses: [200, 201, 503],
    run: (client) => withToken(client, async (token) => {
      const reply = await client.call(post("/v1/sessions/verify", { token }));
      tokens.alive.push(token);
      return reply;
    }),
  },
  "session rotate": {
    weight: 2,
    statuses: [200, 201, 503],
    run: (client) => withToken(client, async (token) => {
      const reply = await client.call(post("/v1/sessions/rotate", { token }));
      // After a 503 nobody has the new token, and the old one may be either.
      if (reply.status === 200) {
        tokens.alive.push(reply.json.token);
        if (!reply.json.previousStillValid) tokens.dead.push(token);
      }
      return reply;
    }),
  },
  "session revoke": {
    weight: 3,
    statuses: [201, 204, 503],
    run: (client) => withToken(client, async (token) => {
      const reply = await client.call(post("/v1/sessions/revoke", { token }));
      if (reply.status === 204) tokens.dead.push(token);
      return reply;
    }),
  },
  "session list": { weight: 1, statuses: [200, 503], run: (client) => client.call({ method: "GET", path: `/v1/users/user-${below(client, KEYS)}/sessions` }) },
  // 404: somebody else is writing it, so it was read.
  write: { weight: 8, statuses: [200, 207, 404, 503], run: write },
  read: { weight: 12, statuses: [200, 404, 503], run: (client) => client.call({ method: "GET", path: pick(client, kept).path }) },
  "setting with a default": {
    weight: 4,
    // Promised whatever KV does.
    statuses: [200],
    run: (client) => client.call({ method: "GET", path: `/v1/settings/setting-${below(client, KEYS)}?default=%7B%22on%22%3Atrue%7D` }),
  },
  "preference patch": {
    weight: 3,
    statuses: [200, 503],
    run: (client) => client.call({ method: "PATCH", path: `/v1/users/user-${below(client, KEYS)}/preferences`, body: { theme: pick(client, ["dark", "light"]) } }),
  },
  "preference read": { weight: 4, statuses: [200, 503], run: (client) => client.call({ method: "GET", path: `/v1/users/user-${below(client, KEYS)}/preferences` }) },
  "counter, exact": { weight: 6, statuses: [200], run: addExactly },
  "counter, approximate": {
    weight: 8,
    statuses: [202],
    run: async (client) => {
      const number = below(client, approximate.length);
      const reply = await client.call(post(`/v1/counters/views-${number}`, { delta: 1 }));
      if (reply.status === 202) approximate[number].acknowledged += 1;
      return reply;
    },
  },
  "rate limit check": { weight: 8, statuses: [200, 429], run: check },
  lock: { weight: 4, statuses: [200, 409], run: lock },
  "flags evaluate": {
    weight: 12,
    statuses: [200],
    run: (client) => client.call(post("/ofrep/v1/evaluate/flags/soak", { context: { targetingKey: `user-${below(client, KEYS)}` } })),
  },
  "experiment assign": { weight: 6, statuses: [200, 503], run: (client) => client.call(post("/v1/experiments/soak/assignments", { userId: `user-${below(client, KEYS)}` })) },
  "experiment event": {
    weight: 2,
    statuses: [202, 503],
    run: (client) => client.call(post("/v1/experiments/soak/events", { userId: `user-${below(client, KEYS)}`, metric: pick(client, ["exposure", "purchase"]) })),
  },
  "cache put": {
    weight: 4,
    statuses: [204, 503],
    run: (client) => client.call({ method: "PUT", path: `/v1/cache/pages/page/${below(client, 4000)}?ttlSeconds=120&tags=soak`, body: Buffer.alloc(512 + below(client, 16_000), "x") }),
  },
  "cache get": { weight: 12, statuses: [200, 404, 503], run: (client) => client.call({ method: "GET", path: `/v1/cache/pages/page/${below(client, 4000)}` }) },
  "cache purge": { weight: 0.05, statuses: [202, 503], run: (client) => client.call(post("/v1/cache/pages/purge", { tags: ["soak"] })) },
  "keys list": { weight: 0.5, statuses: [200, 503], run: (client) => client.call({ method: "GET", path: "/v1/keys/CONFIG?prefix=profile/&limit=100" }) },
  "hostile body": { weight: 2, statuses: [400], run: (client) => client.call(post("/v1/sessions", { userId: 7, nonsense: "x".repeat(below(client, 4000)) })) },
};

/** Sessions past this many would only make the lists long. */
export const isCrowded = () => tokens.alive.length > SESSIONS_MAX;

/** What the traffic needs, made while nothing fails. */
export async function prepareTraffic(call) {
  const made = [
    await call({ method: "PUT", path: "/v1/collections/notes", body: { version: 1 } }),
    await call({ method: "PUT", path: "/v1/rate-limits/soak", body: LIMIT }),
    await call({ method: "PUT", path: "/v1/flags/soak", body: { state: "ENABLED", variants: { on: true, off: false }, defaultVariant: "on", targeting: { fractional: [["on", 50], ["off", 50]] } } }),
    await call({ method: "PUT", path: "/v1/experiments/soak", body: { variants: [{ name: "control", weight: 1 }, { name: "b", weight: 1 }], status: "running" } }),
  ];
  for (const { status, json } of made) if (status >= 300) throw new Error(`preparing failed: ${status} ${JSON.stringify(json)}`);
}

/** What was acknowledged and does not hold, in sentences; and what was looked at. */
export async function verify(call, seconds) {
  const broken = [...faults];
  const looked = {};
  const count = (what) => (looked[what] = (looked[what] ?? 0) + 1);
  for (const [state, list, expected] of [["live", tokens.alive, 200], ["dead", tokens.dead, 401]]) {
    for (const token of list) {
      const { status } = await call(post("/v1/sessions/verify", { token }));
      count(`${state} sessions`);
      if (status !== expected) broken.push(`a ${state} session is answered ${status}`);
    }
  }
  for (const [mode, sums, name] of [["exact", exact, "exact"], ["approximate", approximate, "views"]]) {
    for (const [number, { acknowledged }] of sums.entries()) {
      const { status, json } = await call({ method: "GET", path: `/v1/counters/${name}-${number}?mode=${mode}` });
      count(`${mode} counters`);
      if (json?.value !== acknowledged) broken.push(`the ${mode} counter ${number} is ${status} ${json?.value}, acknowledged ${acknowledged}`);
    }
  }
  for (const { path, register } of kept) {
    const reply = await call({ method: "GET", path });
    count("values");
    const found = versionIn(reply);
    if (!register.possible.has(found)) broken.push(`${path} holds ${found}, acknowledged ${[...register.possible].join(" or ")}`);
  }
  // Windows that the run touched at most.
  const most = LIMIT.limit * (Math.ceil(seconds / LIMIT.windowSeconds) + 1);
  for (const [identifier, times] of admitted) {
    count("rate limits");
    if (times > most) broken.push(`${identifier} was admitted ${times} times, of at most ${most}`);
  }
  return { broken, looked };
}

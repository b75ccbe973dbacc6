// The floor of counters: approximate increments are one number in memory, written once a second with one list per half
// minute, in the background; an exact one is 1 object call; a reading is 1 list.

const KEY = "bench/counter/hits/s/0/floor";
const accepted = { accepted: true };

let total = 0;
let writtenAt = 0;
let listedAt = 0;
let isScheduled = false;

async function flush(env) {
  const wait = writtenAt + 1000 - Date.now();
  if (wait > 0) await scheduler.wait(wait);
  isScheduled = false;
  writtenAt = Date.now();
  if (listedAt + 30_000 < writtenAt) {
    listedAt = writtenAt;
    await env.COUNTERS.list({ prefix: "bench/counter/hits/reset/" });
  }
  await env.COUNTERS.put(KEY, `${total}`, { metadata: { value: total, since: 1_800_000_000_000 } });
}

async function add(request, env, context) {
  const { mode } = await request.json();
  if (mode === "exact") {
    const reply = await env.COUNTER.getByName("bench/hits").fetch("https://object/", { method: "POST", body: "{}" });
    return Response.json(await reply.json());
  }
  total += 1;
  if (!isScheduled) {
    isScheduled = true;
    context.waitUntil(flush(env));
  }
  return Response.json(accepted, { status: 202 });
}

async function read(request, env) {
  const { keys } = await env.COUNTERS.list({ prefix: "bench/counter/hits/" });
  const value = keys.reduce((sum, { metadata }) => sum + metadata.value, 0);
  return Response.json({ value, mode: "approximate", asOf: Date.now(), maxLagSeconds: 62 });
}

export default {
  "POST /v1/counters/hits": add,
  "GET /v1/counters/hits": read,
};

// The in-memory KV of `kv.js` with KV's faults: one write per key and second, answers that fail before or after their effect,
// that come late, or that never come.
//
// `x-kv-faults: {"before":0.01,...}` sets the shares of a kind of fault, and answers how many of each there were so far.

import kv from "./kv.js";

/** What happens to an operation, by the share of operations it happens to. */
let shares = {};
const counts = { throttled: 0, before: 0, after: 0, late: 0, never: 0 };
/** When each key was last written, in milliseconds; emptied of what is over a second old from time to time. */
const writtenAt = new Map();
const SAME_KEY_MILLIS = 1000;
const LATE_MILLIS = 900;
/** Longer than any attempt is waited for. */
const NEVER_MILLIS = 10_000;

/** mulberry32: the same faults in every run with the same requests. */
let state = 1;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

function drawn() {
  let left = random();
  for (const [fault, share] of Object.entries(shares)) {
    if (left < share) return fault;
    left -= share;
  }
  return undefined;
}

const failed = (status, text) => new Response(text, { status, statusText: text });

/** Whether this write comes too soon after another of its key. Failing ones count too: KV had them. */
function isTooSoon(request) {
  if (request.method !== "PUT" && request.method !== "DELETE") return false;
  const now = Date.now();
  if (writtenAt.size > 10_000) {
    for (const [key, at] of writtenAt) if (now - at >= SAME_KEY_MILLIS) writtenAt.delete(key);
  }
  const key = `${request.headers.get("x-kv-namespace")} ${request.url}`.replace(/\?.*/, "");
  if (now - (writtenAt.get(key) ?? 0) < SAME_KEY_MILLIS) return true;
  if (request.method === "PUT") writtenAt.set(key, now);
  return false;
}

export default {
  async fetch(request) {
    const order = request.headers.get("x-kv-faults");
    if (order !== null) {
      shares = JSON.parse(order);
      return Response.json(counts);
    }
    if (request.headers.has("x-kv-control")) return kv.fetch(request);
    const fault = drawn();
    if (fault === "before") {
      counts.before += 1;
      await request.arrayBuffer();
      return failed(503, "Service Unavailable");
    }
    if (isTooSoon(request)) {
      counts.throttled += 1;
      await request.arrayBuffer();
      return failed(429, "Too Many Requests");
    }
    const reply = await kv.fetch(request);
    if (fault === undefined) return reply;
    counts[fault] += 1;
    // The effect is there at once in all three: one that comes long after it was given up is the simulator's matter.
    if (fault === "after") return failed(500, "Internal Server Error");
    await scheduler.wait(fault === "late" ? LATE_MILLIS : NEVER_MILLIS);
    return reply;
  },
};

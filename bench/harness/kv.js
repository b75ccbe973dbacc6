// A Workers KV in memory, speaking the wire protocol that workerd's `kvNamespace` binding speaks.
//
// It runs as a workerd process of its own, so its CPU is nobody's. It is one strongly consistent store: the benchmark
// measures cost, the simulator measures consistency. It refuses what KV refuses (lengths, lifetimes, bulk sizes), so that
// no peer gains by asking for something the platform would not do, and it counts operations as KV bills them: a bulk
// read counts its keys, missing ones included.
//
// Namespaces are told apart by the header `x-kv-namespace: <peer>/<binding>`, which each binding's configuration adds, and
// operations are counted per peer. A request with `x-kv-control: counts` answers the counters by peer, with `reset` it
// also empties every namespace and starts counting anew.
// Limits: https://developers.cloudflare.com/kv/platform/limits/

const KEY_BYTES_MAX = 512;
const METADATA_BYTES_MAX = 1024;
const LIFETIME_SECONDS_MIN = 60;
const CACHE_TTL_SECONDS_MIN = 30;
const BULK_KEYS_MAX = 100;
const LIST_KEYS_MAX = 1000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Namespace name to its entries: key to `{ value: ArrayBuffer, metadata: string | null, expiration: number | null }`. */
const namespaces = new Map();
/** Peer to its operations. */
const countsByPeer = new Map();

function countsOf(peer) {
  if (!countsByPeer.has(peer)) countsByPeer.set(peer, { reads: 0, writes: 0, deletes: 0, lists: 0, calls: 0 });
  return countsByPeer.get(peer);
}

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

function nowSeconds() {
  return Date.now() / 1000;
}

function live(entries, key) {
  const entry = entries.get(key);
  if (entry === undefined) return null;
  return entry.expiration !== null && entry.expiration <= nowSeconds() ? null : entry;
}

function checkKey(key) {
  const length = encoder.encode(key).byteLength;
  if (length > KEY_BYTES_MAX) throw new Refusal(414, `UTF-8 encoded length of ${length} exceeds key length limit of ${KEY_BYTES_MAX}.`);
}

function checkCacheTtl(seconds) {
  if (seconds !== null && seconds < CACHE_TTL_SECONDS_MIN) {
    throw new Refusal(400, `Invalid cache_ttl of ${seconds}. Cache TTL must be at least ${CACHE_TTL_SECONDS_MIN}.`);
  }
}

function integer(params, name) {
  const text = params.get(name);
  return text === null ? null : Number.parseInt(text, 10);
}

function expirationOf(params) {
  const ttl = integer(params, "expiration_ttl");
  if (ttl !== null) {
    if (ttl < LIFETIME_SECONDS_MIN) throw new Refusal(400, `Invalid expiration_ttl of ${ttl}. Expiration TTL must be at least 60.`);
    return Math.floor(nowSeconds()) + ttl;
  }
  const at = integer(params, "expiration");
  if (at !== null && at < nowSeconds() + LIFETIME_SECONDS_MIN) {
    throw new Refusal(400, `Invalid expiration of ${at}. Expiration times must be at least 60 seconds in the future.`);
  }
  return at;
}

function get({ entries, counts }, key, params) {
  checkCacheTtl(integer(params, "cache_ttl"));
  counts.reads += 1;
  const entry = live(entries, key);
  if (entry === null) return new Response("Not Found", { status: 404 });
  return new Response(entry.value, { headers: entry.metadata === null ? {} : { "cf-kv-metadata": entry.metadata } });
}

async function put({ entries, counts }, key, params, request) {
  // Answering before the body was read makes the runtime report a lost connection to the caller.
  const value = await request.arrayBuffer();
  const metadata = request.headers.get("cf-kv-metadata");
  const length = metadata === null ? 0 : encoder.encode(metadata).byteLength;
  if (length > METADATA_BYTES_MAX) throw new Refusal(413, `Metadata length of ${length} exceeds limit of ${METADATA_BYTES_MAX}.`);
  const expiration = expirationOf(params);
  counts.writes += 1;
  entries.set(key, { value, metadata, expiration });
  return new Response(null, { status: 200 });
}

async function bulkGet({ entries, counts }, request) {
  const { keys, type, withMetadata, cacheTtl } = await request.json();
  if (keys.length > BULK_KEYS_MAX) throw new Refusal(400, `You can request a maximum of ${BULK_KEYS_MAX} keys`);
  if (keys.length === 0) throw new Refusal(400, "You must request a minimum of 1 key");
  checkCacheTtl(cacheTtl === undefined ? null : Number(cacheTtl));
  counts.reads += keys.length;
  const found = {};
  for (const key of keys) {
    checkKey(key);
    const entry = live(entries, key);
    const text = entry === null ? null : decoder.decode(entry.value);
    const value = text !== null && type === "json" ? JSON.parse(text) : text;
    if (withMetadata && entry !== null) found[key] = { value, metadata: entry.metadata === null ? null : JSON.parse(entry.metadata) };
    else found[key] = value;
  }
  return Response.json(found);
}

/** KV lists in the order of the keys' UTF-8 bytes, which JavaScript's order of UTF-16 units is not beyond the BMP. */
function byUtf8(a, b) {
  const [left, right] = [encoder.encode(a), encoder.encode(b)];
  for (let i = 0; i < Math.min(left.length, right.length); i += 1) {
    if (left[i] !== right[i]) return left[i] - right[i];
  }
  return left.length - right.length;
}

function list({ entries, counts }, params) {
  counts.lists += 1;
  const prefix = params.get("prefix") ?? "";
  const limit = Math.min(integer(params, "key_count_limit") ?? LIST_KEYS_MAX, LIST_KEYS_MAX);
  const names = [...entries.keys()].filter((key) => key.startsWith(prefix) && live(entries, key) !== null).sort(byUtf8);
  const after = params.get("cursor");
  const start = after === null || after === "" ? 0 : names.findIndex((name) => byUtf8(name, after) > 0);
  const page = start < 0 ? [] : names.slice(start, start + limit);
  const complete = start < 0 || start + limit >= names.length;
  const keys = page.map((name) => {
    const { metadata, expiration } = entries.get(name);
    return {
      name,
      ...(expiration === null ? {} : { expiration }),
      ...(metadata === null ? {} : { metadata: JSON.parse(metadata) }),
    };
  });
  return Response.json(complete ? { keys, list_complete: true } : { keys, list_complete: false, cursor: page.at(-1) });
}

function control(command) {
  const answer = Response.json(Object.fromEntries(countsByPeer));
  if (command === "reset") {
    namespaces.clear();
    countsByPeer.clear();
  }
  return answer;
}

async function operate(request) {
  const namespace = request.headers.get("x-kv-namespace");
  if (namespace === null) throw new Refusal(400, "x-kv-namespace is missing");
  if (!namespaces.has(namespace)) namespaces.set(namespace, new Map());
  const store = { entries: namespaces.get(namespace), counts: countsOf(namespace.split("/")[0]) };
  const { pathname, searchParams } = new URL(request.url);
  store.counts.calls += 1;
  if (request.method === "POST" && pathname === "/bulk/get") return bulkGet(store, request);
  if (request.method === "GET" && pathname === "/") return list(store, searchParams);
  const key = decodeURIComponent(pathname.slice(1));
  checkKey(key);
  if (request.method === "GET") return get(store, key, searchParams);
  if (request.method === "PUT") return put(store, key, searchParams, request);
  if (request.method === "DELETE") {
    store.counts.deletes += 1;
    store.entries.delete(key);
    return new Response(null, { status: 200 });
  }
  throw new Refusal(405, `${request.method} is not an operation of KV`);
}

export default {
  async fetch(request) {
    const command = request.headers.get("x-kv-control");
    if (command !== null) return control(command);
    try {
      return await operate(request);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return new Response(error.message, { status: error.status, statusText: error.message });
    }
  },
};

// The crossings between Rust and JavaScript that happen on every request, each made once instead of once per field.
// Every crossing costs, and so does every string; see docs/performance.md.

// The queue of Rust's tasks runs on this. The runtime's own costs ten times as much, because it is not the engine's.
// What is thrown still ends as the uncaught exception that it would be there, except a trap: entry.js has to know at once
// that this instance is over, before the next one is at work.
const platformMicrotask = globalThis.queueMicrotask;
const resolved = Promise.resolve();
const uncaught = (error) => {
  if (globalThis.__worker_init_state.endedBy?.(error)) return;
  platformMicrotask(() => {
    throw error;
  });
};
globalThis.queueMicrotask = (callback) => {
  resolved.then(() => {
    try {
      callback();
    } catch (error) {
      uncaught(error);
    }
  });
};

// A request comes from entry.js as `{ method, url, headers, whole }`, where `whole` is the platform's.

/** A text of the request's `cf`, say its `continent`; empty when there is none. */
export function requestCf({ whole }, name) {
  const value = whole.cf?.[name];
  return typeof value === "string" ? value : "";
}

/** Tells Rust how the promise ended. One callback serves all awaits of an instance. */
export function settle(promise, id, settled) {
  promise.then(
    (value) => settled(id, true, value),
    (error) => settled(id, false, error),
  );
}

/** The same after some time. With Node compatibility a timer is an object; its number stops it as well. */
export function startTimer(millis, id, settled) {
  return Number(setTimeout(settled, millis, id, true));
}

/**
 * A promise of this request that ends with another's, which never fails. The runtime marks each promise with the request that
 * makes it, and so comes back to it whoever ends it; but where the engine has optimized `new Promise`, after some ten thousand
 * calls, the mark is missing and what follows runs in the other's request. `Promise.withResolvers` is never optimized.
 */
export function follow(promise) {
  const { promise: own, resolve } = Promise.withResolvers();
  promise.then(resolve);
  return own;
}

export function stopTimer(timer) {
  clearTimeout(timer);
}

const HEADERS = ["authorization", "x-request-id", "origin"];

/** Method, URL and the headers every request is asked for, one a line; an absent header is an empty line. */
export function requestHead(request) {
  const { headers } = request;
  let head = `${request.method}\n${request.url}`;
  for (const name of HEADERS) head += `\n${headers.get(name) ?? ""}`;
  return head;
}

/** So much of a body beyond its limit is still read: a client that cannot send to its end may never see the answer. */
const DISCARDED_BYTES_MAX = 8 * 1024 * 1024;

/** The body's bytes, or null when it has more than `limit`. */
export async function requestBody({ headers, whole }, limit) {
  const length = headers.get("content-length");
  if (length !== null) return Number(length) > limit ? null : new Uint8Array(await whole.arrayBuffer());
  if (whole.body === null) return new Uint8Array();
  const chunks = [];
  let total = 0;
  for await (const chunk of whole.body) {
    total += chunk.byteLength;
    if (total > limit + DISCARDED_BYTES_MAX) return null;
    if (total <= limit) chunks.push(chunk);
  }
  return total > limit ? null : joined(chunks, total);
}

/** `fields` holds name, value, name, value, one a line. `body` is a view into WASM memory, so it is copied. */
export function response(status, fields, body) {
  return new Response(body === undefined ? null : body.slice(), { status, headers: headersOf(fields) });
}

/** The same for a body that is a stream. */
export function streamResponse(status, fields, stream) {
  return new Response(stream, { status, headers: headersOf(fields) });
}

/** An object, which the runtime takes in half the time of a list of pairs; that only where a name comes twice. */
function headersOf(fields) {
  const lines = fields.split("\n");
  const headers = {};
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const name = lines[i];
    if (name in headers) return pairs(lines);
    headers[name] = lines[i + 1];
  }
  return headers;
}

function pairs(lines) {
  const headers = [];
  for (let i = 0; i + 1 < lines.length; i += 2) headers.push([lines[i], lines[i + 1]]);
  return headers;
}

/** The fields of a message: name, value, name, value, one a line. */
export function headerFields({ headers }) {
  const lines = [];
  for (const [name, value] of headers) lines.push(name, value);
  return lines.join("\n");
}

/** The answer of an origin, or undefined when its head did not come in time. Cloudflare's own cache stays out of it. */
export async function originFetch(url, method, fields, upload, timeoutMillis) {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), timeoutMillis);
  const body = upload?.whole.body ?? null;
  try {
    const init = { method, headers: headersOf(fields), body, redirect: "manual", signal: controller.signal };
    return await fetch(url, { ...init, cf: { cacheTtl: -1 } });
  } catch (error) {
    if (controller.signal.aborted) return undefined;
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

const STALLED = new Error("the body stopped coming");

async function nextChunk(reader, idleMillis) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(reject, idleMillis, STALLED)));
  try {
    return await Promise.race([reader.read(), late]);
  } finally {
    clearTimeout(timer);
  }
}

function joined(chunks, total) {
  if (chunks.length === 1) return chunks[0];
  const bytes = new Uint8Array(total);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}

/**
 * The whole body as bytes; a stream of it from its beginning when it has more than `limit`; undefined when it stopped coming;
 * rejects when it is cut off.
 */
export async function gatherBody({ body }, limit, idleMillis) {
  if (body === null) return new Uint8Array();
  const reader = body.getReader();
  const chunks = [];
  let total = 0;
  try {
    while (total <= limit) {
      const { done, value } = await nextChunk(reader, idleMillis);
      if (done) return joined(chunks, total);
      chunks.push(value);
      total += value.byteLength;
    }
  } catch (error) {
    if (error !== STALLED) throw error;
    reader.cancel(error).catch(() => {});
    return undefined;
  }
  return new ReadableStream({
    async pull(controller) {
      const chunk = chunks.shift();
      const { done, value } = chunk === undefined ? await nextChunk(reader, idleMillis) : { done: false, value: chunk };
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: (reason) => reader.cancel(reason),
  });
}

/**
 * The body as a stream that keeps a copy, read as fast as it comes up to `limit` and to its end although nobody listens any
 * more. `done` gets the copy before the stream ends, null when it is too large, undefined when it was cut off.
 */
export function copyBody({ body }, limit, length, idleMillis, done) {
  if (body === null) {
    done(new Uint8Array());
    return null;
  }
  const reader = body.getReader();
  const chunks = [];
  let total = 0;
  let heard = true;
  const keep = (copy) => {
    try {
      done(copy);
    } catch {
      // The instance that wanted it is gone.
    }
  };
  /** Passes one chunk on; whether there may be more. */
  const next = async (controller) => {
    const { done: ended, value } = await nextChunk(reader, idleMillis);
    if (ended) {
      if (total <= limit) keep(joined(chunks, total));
      if (heard) controller.close();
      return false;
    }
    total += value.byteLength;
    if (total <= limit) chunks.push(value);
    if (heard) controller.enqueue(value);
    return true;
  };
  /** What is kept anyway may as well wait in the stream's queue. */
  const ahead = async (controller) => {
    try {
      while (total <= limit && (await next(controller)));
    } catch (error) {
      keep(undefined);
      if (heard) controller.error(error);
    }
    if (total <= limit) return;
    chunks.length = 0;
    keep(null);
    if (!heard) await reader.cancel();
  };
  let passed;
  const copy = new ReadableStream(
    {
      start(controller) {
        passed = ahead(controller);
      },
      async pull(controller) {
        await passed;
        if (total > limit) await next(controller);
      },
      async cancel(reason) {
        heard = false;
        if (total > limit) await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  return length === undefined ? copy : copy.pipeThrough(new FixedLengthStream(length));
}

const cached = (type, ttl) => (ttl === 0 ? { type } : { type, cacheTtl: ttl });

export async function kvGet(namespace, key, ttl) {
  const value = await namespace.get(key, cached("arrayBuffer", ttl));
  return value === null ? null : new Uint8Array(value);
}

/** The values in the order of the keys (one a line): a string, null when missing, undefined when the runtime lost it. */
export async function kvGetMany(namespace, keys, ttl) {
  const names = keys.split("\n");
  const values = await namespace.get(names, cached("text", ttl));
  return names.map((name) => values.get(name));
}

export function kvPut(namespace, key, value, ttl, metadata) {
  const options = {};
  if (ttl !== 0) options.expirationTtl = ttl;
  if (metadata !== "") options.metadata = JSON.parse(metadata);
  return namespace.put(key, value.slice(), options);
}

export function kvDelete(namespace, key) {
  return namespace.delete(key);
}

/** The page as JSON text: one string crosses instead of thousands of small objects. */
export async function kvList(namespace, prefix, cursor, limit) {
  const page = await namespace.list({ prefix, limit, ...(cursor === "" ? {} : { cursor }) });
  const keys = page.keys.map(({ name, expiration, metadata }) => [
    name,
    expiration ?? null,
    metadata === undefined || metadata === null ? null : JSON.stringify(metadata),
  ]);
  return JSON.stringify([keys, page.list_complete ? null : page.cursor]);
}

/** What an object answers to a call, as text. */
export async function askObject(namespace, name, call) {
  return namespace.getByName(name).ask(call);
}

/** The text `json` of the query's one row; undefined without a row. */
export function sqlJson(sql, query) {
  return sql.exec(query).toArray()[0]?.json;
}

/** Runs a query that has one text to bind. */
export function sqlRun(sql, query, text) {
  sql.exec(query, text);
}

const CONFIG = [
  "API_TOKENS",
  "CORS_ORIGINS",
  "SESSIONS_PER_USER_MAX",
  "ROOT_ORIGIN",
  "ROOT_ORIGIN_POLICY",
  "ALLOW_LOOPBACK_ORIGINS",
];
let known = [];

/** The settings as JSON text, or undefined when they are those given last time: most requests then cross no string. */
export function configIfChanged(env, have) {
  if (have && CONFIG.every((name, i) => env[name] === known[i])) return undefined;
  known = CONFIG.map((name) => env[name]);
  const text = (value) => (typeof value === "string" || value === undefined ? value : JSON.stringify(value));
  return JSON.stringify(Object.fromEntries(CONFIG.map((name, i) => [name, text(known[i])])));
}

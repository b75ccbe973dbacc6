// The crossings between Rust and JavaScript that happen on every request, each made once instead of once per field.
// Every crossing costs, and so does every string; see ARCHITECTURE.md, "Where the time goes".

const HEADERS = ["authorization", "x-request-id", "origin"];

/** Method, URL and the headers every request is asked for, one a line; an absent header is an empty line. */
export function requestHead(request) {
  const { headers } = request;
  let head = `${request.method}\n${request.url}`;
  for (const name of HEADERS) head += `\n${headers.get(name) ?? ""}`;
  return head;
}

/** The body's bytes, or null when it has more than `limit`: a body without a length is given up as soon as it passes it. */
export async function requestBody(request, limit) {
  const length = request.headers.get("content-length");
  if (length !== null) return Number(length) > limit ? null : new Uint8Array(await request.arrayBuffer());
  if (request.body === null) return new Uint8Array();
  const chunks = [];
  let total = 0;
  for await (const chunk of request.body) {
    total += chunk.byteLength;
    if (total > limit) return null;
    chunks.push(chunk);
  }
  const bytes = new Uint8Array(total);
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return bytes;
}

/** `fields` holds name, value, name, value, one a line. `body` is a view into WASM memory, so it is copied. */
export function response(status, fields, body) {
  return new Response(body === undefined ? null : body.slice(), { status, headers: pairs(fields) });
}

/** The same for a body that is a stream. */
export function streamResponse(status, fields, stream) {
  return new Response(stream, { status, headers: pairs(fields) });
}

function pairs(fields) {
  const lines = fields.split("\n");
  const headers = [];
  for (let i = 0; i + 1 < lines.length; i += 2) headers.push([lines[i], lines[i + 1]]);
  return headers;
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

const CONFIG = ["API_TOKENS", "CORS_ORIGINS", "SESSIONS_PER_USER_MAX"];
let known = [];

/** The settings as JSON text, or undefined when they are those given last time: most requests then cross no string. */
export function configIfChanged(env, have) {
  if (have && CONFIG.every((name, i) => env[name] === known[i])) return undefined;
  known = CONFIG.map((name) => env[name]);
  const text = (value) => (typeof value === "string" || value === undefined ? value : JSON.stringify(value));
  return JSON.stringify(Object.fromEntries(CONFIG.map((name, i) => [name, text(known[i])])));
}

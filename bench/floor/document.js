// The floor of reading a document: 1 get, and an answer of the length of the real one. Nothing is migrated.

const HEADER = "document.1\n";
const keyOf = (collection) => `bench/document/${collection}/dune/own`;
const collectionOf = (request) => request.url.split("/")[5];

/** Only to prepare a round. */
async function put(request, env) {
  const data = await request.json();
  const stamp = `${Date.now().toString(16).padStart(12, "0")}-0000-000000000000`;
  await env.CONFIG.put(keyOf(collectionOf(request)), `${HEADER}${JSON.stringify({ version: 1, stamp, data })}`);
  return Response.json(data);
}

/** Only to prepare a round. */
async function publish(request) {
  return Response.json({ version: (await request.json()).version });
}

async function read(request, env) {
  const found = await env.CONFIG.get(keyOf(collectionOf(request)), { type: "text", cacheTtl: 60 });
  const { data } = JSON.parse(found.slice(HEADER.length));
  return Response.json(data, { headers: { "document-version": "1" } });
}

async function readOlder(request, env) {
  const found = await env.CONFIG.get(keyOf(collectionOf(request)), { type: "text", cacheTtl: 60 });
  const { name: title, ...rest } = JSON.parse(found.slice(HEADER.length)).data;
  return Response.json({ ...rest, tags: [], title }, { headers: { "document-version": "3" } });
}

export default {
  "PUT /v1/collections/books": publish,
  "PUT /v1/collections/older": publish,
  "PUT /v1/collections/books/documents/dune": put,
  "PUT /v1/collections/older/documents/dune": put,
  "GET /v1/collections/books/documents/dune": read,
  "GET /v1/collections/older/documents/dune": readOlder,
};

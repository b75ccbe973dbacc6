// The floor of the gateway: a hit is bytes at hand, a miss is 1 fetch and 1 put after the answer.

const memory = new Map();
let base = "";

/** Only to prepare a round. */
async function configure(request) {
  const site = await request.json();
  base = site.baseUrl;
  return Response.json(site);
}

async function get(request, env, context, path) {
  const forced = request.headers.get("cache-control") !== null;
  const known = memory.get(path);
  if (known !== undefined && !forced) return new Response(known.bytes, { headers: known.headers });
  const answer = await fetch(base + path.slice("/v1/fetch/site".length));
  const headers = { "content-type": answer.headers.get("content-type"), "cache-control": answer.headers.get("cache-control") };
  const bytes = await answer.arrayBuffer();
  memory.set(path, { bytes, headers });
  context.waitUntil(env.CACHE.put(path, bytes, { expirationTtl: 3600 }));
  return new Response(bytes, { headers });
}

export default { "PUT /v1/origins/*": configure, "GET /v1/fetch/*": get };

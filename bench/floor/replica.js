// The floor of a replicated key: a write is 3 puts, the nearest read 1 get.

const KEY = "bench/replicated/motd";

async function put(request, env) {
  const bytes = await request.arrayBuffer();
  await Promise.all([env.REPLICA_US, env.REPLICA_EU, env.REPLICA_ASIA].map((replica) => replica.put(KEY, bytes)));
  return Response.json({ replicas: [] });
}

async function read(request, env) {
  const bytes = await env.REPLICA_US.get(KEY, { type: "arrayBuffer", cacheTtl: 60 });
  return new Response(bytes, { headers: { "content-type": "application/octet-stream" } });
}

export default {
  "PUT /v1/replicated/motd": put,
  "GET /v1/replicated/motd": read,
};

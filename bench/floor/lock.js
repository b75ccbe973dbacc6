// The floor of locks: 1 object call each. The lock id is random, and means nothing.

const ask = async (env, body) => (await env.LOCK.getByName("bench/job").fetch("https://object/", { method: "POST", body: JSON.stringify(body) })).json();

async function acquire(request, env) {
  await request.json();
  const lockId = crypto.getRandomValues(new Uint8Array(32)).toBase64({ alphabet: "base64url", omitPadding: true });
  return Response.json({ lockId, ...(await ask(env, { id: lockId })) });
}

async function release(request, env) {
  await request.json();
  await ask(env, {});
  return new Response(null, { status: 204 });
}

export default {
  "POST /v1/locks/job/acquire": acquire,
  "POST /v1/locks/free/release": release,
};

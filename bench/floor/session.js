// The floor of the session calls: create is 1 put, verify and refresh are 1 bulk get of 2 keys.
//
// The token is random but for its length means nothing: its first characters name the user, the next the record, so that
// the keys are as long as the real ones and no hash is computed.

const TENANT = "bench";
const CACHE_TTL_SECONDS = 30;

function keysOf(token) {
  const user = token.slice(4, 26);
  return [`${TENANT}/session/${user}/${token.slice(26, 48)}`, `${TENANT}/epoch/${user}`];
}

async function create(request, env) {
  const { userId, email, roles, data } = await request.json();
  const now = Date.now();
  const token = `kvs_${crypto.getRandomValues(new Uint8Array(51)).toBase64({ alphabet: "base64url" })}`;
  const [key] = keysOf(token);
  const expiresAt = now + 86_400_000;
  const session = { id: token.slice(26, 48), userId, email, roles, data, createdAt: now, lastSeenAt: now, expiresAt };
  const value = `session.1\n${JSON.stringify({ hash: token.slice(0, 43), session })}`;
  await env.SESSIONS.put(key, value, { expirationTtl: 604_800, metadata: { createdAt: now } });
  return Response.json({ token, session }, { status: 201 });
}

async function read(request, env) {
  const { token } = await request.json();
  const [key, epochKey] = keysOf(token);
  const found = await env.SESSIONS.get([key, epochKey], { type: "text", cacheTtl: CACHE_TTL_SECONDS });
  return Response.json(JSON.parse(found.get(key).slice("session.1\n".length)).session);
}

export default {
  "POST /v1/sessions": create,
  "POST /v1/sessions/verify": read,
  "POST /v1/sessions/refresh": read,
};

// The floor of preferences: a read is 1 bulk get of 5 keys, a patch of one field that and 1 put. Nothing is merged.

const FIELDS = ["theme", "language", "notifications", "timezone"];
const keyOf = (field) => `bench/preference/ada/${field}`;
const KEYS = ["bench/setting/preference-defaults", ...FIELDS.map(keyOf)];
const HEADER = "preference.1\n";

const document = (theme) => ({ language: "en", notifications: true, theme, timezone: "UTC" });

async function read(request, env) {
  const found = await env.CONFIG.get(KEYS, { type: "text", cacheTtl: 60 });
  return Response.json(document(JSON.parse(found.get(KEYS[1]).slice(HEADER.length)).value));
}

async function patch(request, env) {
  const { theme } = await request.json();
  await env.CONFIG.get(KEYS, { type: "text", cacheTtl: 60 });
  const stamp = `${Date.now().toString(16).padStart(12, "0")}-0000-000000000000`;
  await env.CONFIG.put(KEYS[1], `${HEADER}${JSON.stringify({ stamp, value: theme })}`);
  return Response.json(document(theme));
}

export default {
  "GET /v1/users/ada/preferences": read,
  "PATCH /v1/users/ada/preferences": patch,
};

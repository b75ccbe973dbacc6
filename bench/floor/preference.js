// The floor of preferences: a read is 1 bulk get of 5 keys, a patch of one field that and 1 put. Nothing is merged.

const FIELDS = ["theme", "language", "notifications", "timezone"];
const keysOf = (path) => {
  const user = path.split("/", 4)[3];
  return ["bench/setting/preference-defaults", ...FIELDS.map((field) => `bench/preference/${user}/${field}`)];
};
const HEADER = "preference.1\n";

const document = (theme) => ({ language: "en", notifications: true, theme, timezone: "UTC" });

async function read(request, env, context, path) {
  const keys = keysOf(path);
  const found = await env.CONFIG.get(keys, { type: "text", cacheTtl: 60 });
  return Response.json(document(JSON.parse(found.get(keys[1]).slice(HEADER.length)).value));
}

async function patch(request, env, context, path) {
  const keys = keysOf(path);
  const { theme } = await request.json();
  await env.CONFIG.get(keys, { type: "text", cacheTtl: 60 });
  const stamp = `${Date.now().toString(16).padStart(12, "0")}-0000-000000000000`;
  await env.CONFIG.put(keys[1], `${HEADER}${JSON.stringify({ stamp, value: theme })}`);
  return Response.json(document(theme));
}

export default {
  "GET /v1/users/*": read,
  "PATCH /v1/users/*": patch,
};

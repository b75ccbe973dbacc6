// Preferences: a key per field, merged over the tenant's and the built-in defaults when read. A read is 1 bulk read of 5
// keys, a merge patch that and 1 write per field. `If-Match` compares with what was read.

import { Hono } from "hono";
import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";
import { Problem, readJson } from "./problem.ts";
import { etag, nextStamp } from "./stamp.ts";

const CACHE_TTL_SECONDS = 60;
const TOMBSTONE_SECONDS = 30 * 86_400;
const HEADER = "preference.1\n";
const SETTING_HEADER = "setting.1\n";
const FIELDS = ["theme", "language", "notifications", "timezone"] as const;

const theme = z.enum(["light", "dark", "system"]);
const language = z.string().max(35).regex(/^[a-z]{2,8}(-[a-z0-9]{1,8})*$/i);
const notifications = z.boolean();
const timezone = z.string().regex(/^[a-z][a-z0-9_+-]{0,13}(\/[a-z][a-z0-9_+-]{0,13}){0,2}$/i);
const preferences = z.strictObject({ theme, language, notifications, timezone });
const patchBody = z.strictObject({
  theme: theme.nullable().optional(),
  language: language.nullable().optional(),
  notifications: notifications.nullable().optional(),
  timezone: timezone.nullable().optional(),
});
const userId = z.string().min(1).max(256).regex(/^\P{Cc}*$/u);
const entry = z.strictObject({ stamp: z.string(), value: z.unknown().optional() });
const stored = z.strictObject({ value: preferences.partial() });

type Preferences = z.infer<typeof preferences>;

const DEFAULTS: Preferences = { theme: "light", language: "en", notifications: true, timezone: "UTC" };

const spaceOf = (c: Context<App>) => {
  const user = userId.safeParse(decodeURIComponent(c.req.param("user") ?? ""));
  if (!user.success) throw new Problem(400, "invalid-field", "Invalid field", { field: "user" });
  return `${encodeURIComponent(c.var.tenant)}/preference/${encodeURIComponent(user.data)}`;
};

async function find(c: Context<App>, space: string): Promise<Preferences> {
  const defaultsKey = `${encodeURIComponent(c.var.tenant)}/setting/preference-defaults`;
  const keys = [defaultsKey, ...FIELDS.map((field) => `${space}/${field}`)];
  const found = await c.var.config.getMany(keys, CACHE_TTL_SECONDS);
  const defaults = found.get(defaultsKey);
  const document: Record<string, unknown> = { ...DEFAULTS };
  if (defaults != null) Object.assign(document, stored.parse(JSON.parse(defaults.slice(SETTING_HEADER.length))).value);
  for (const field of FIELDS) {
    const text = found.get(`${space}/${field}`);
    if (text == null || !text.startsWith(HEADER)) continue;
    const { value } = entry.parse(JSON.parse(text.slice(HEADER.length)));
    if (value !== undefined && preferences.shape[field].safeParse(value).success) document[field] = value;
  }
  return document as Preferences;
}

async function answer(c: Context<App>, document: Preferences): Promise<Response> {
  const body = JSON.stringify(document);
  const tag = await etag(body);
  c.header("ETag", tag);
  c.header("Consistency", "eventual");
  if (c.req.method === "GET" && c.req.header("if-none-match") === tag) return c.body(null, 304);
  return c.body(body, 200, { "content-type": "application/json" });
}

export const preferencesOfUsers = new Hono<App>();

preferencesOfUsers.get("/:user/preferences", async (c) => answer(c, await find(c, spaceOf(c))));

preferencesOfUsers.patch("/:user/preferences", async (c) => {
  const space = spaceOf(c);
  const patch = await readJson(c, patchBody);
  const current = await find(c, space);
  const condition = c.req.header("if-match");
  if (condition !== undefined && condition !== "*" && condition !== (await etag(JSON.stringify(current)))) {
    throw new Problem(412, "precondition-failed", "The precondition failed");
  }
  const stamp = nextStamp();
  const changes = Object.entries(patch);
  await Promise.all(
    changes.map(([field, value]) => {
      const text = HEADER + JSON.stringify(value === null ? { stamp } : { stamp, value });
      return c.var.config.put(`${space}/${field}`, text, value === null ? TOMBSTONE_SECONDS : undefined, null);
    }),
  );
  const set = changes.map(([field, value]) => [field, value ?? DEFAULTS[field as keyof Preferences]]);
  return answer(c, { ...current, ...Object.fromEntries(set) });
});

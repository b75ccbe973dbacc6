// `typescript`: the job of this project's Worker as a good engineer would write it with Hono and zod: the same checks,
// the same KV calls, the same replies, its own key space. One file per pattern, mounted below.

import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { cors } from "hono/cors";
import { requestId } from "hono/request-id";
import { authenticate } from "./auth.ts";
import { cache } from "./cache.ts";
import type { App } from "./context.ts";
import { counters } from "./counter.ts";
import { collections } from "./document.ts";
import { experiments } from "./experiment.ts";
import { flags, ofrep } from "./flag.ts";
import { MeteredKv, Operations } from "./kv.ts";
import { locks } from "./lock.ts";
import { onError, Problem } from "./problem.ts";
import { preferencesOfUsers } from "./preference.ts";
import { rateLimits } from "./rate_limit.ts";
import { replicated } from "./replica.ts";
import { gateway, origins } from "./response_cache.ts";
import { sessions } from "./session.ts";

export { Counter, Limiter, Lock } from "./objects.ts";

const BODY_BYTES_MAX = 64 * 1024;
const VERSION = "0.1.0";

const app = new Hono<App>();

app.use(requestId());

app.use(async (c, next) => {
  const operations = new Operations();
  c.set("operations", operations);
  await next();
  c.header("Server-Timing", operations.toString());
});

const allowListedOrigins = cors({
  origin: (origin, c) => (c.env.CORS_ORIGINS.split(",").includes(origin) ? origin : null),
  exposeHeaders: ["X-Request-Id", "Server-Timing"],
});

// Only browsers send `Origin`; for everybody else Hono's middleware would build headers that nobody reads.
app.use((c, next) => (c.req.header("origin") === undefined ? next() : allowListedOrigins(c, next)));

app.use(
  bodyLimit({
    maxSize: BODY_BYTES_MAX,
    onError: () => {
      throw new Problem(413, "content-too-large", "Content too large");
    },
  }),
);

app.get("/health", (c) => c.json({ status: "ok", version: VERSION }));

app.use("/v1/sessions/*", authenticate("sessions"), async (c, next) => {
  c.set("sessions", new MeteredKv(c.env.SESSIONS, c.var.operations));
  await next();
});
app.route("/v1/sessions", sessions);

for (const path of ["/v1/flags", "/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/*"]) {
  app.use(path, authenticate("flags"), async (c, next) => {
    c.set("config", new MeteredKv(c.env.CONFIG, c.var.operations));
    await next();
  });
}
app.route("/v1/flags", flags);
app.route("/ofrep/v1/evaluate/flags", ofrep);

app.use("/v1/experiments/*", authenticate("experiments"), async (c, next) => {
  c.set("config", new MeteredKv(c.env.CONFIG, c.var.operations));
  await next();
});
app.route("/v1/experiments", experiments);

for (const [path, resource] of [["/v1/cache/*", "cache"], ["/v1/origins/*", "origins"], ["/v1/fetch/*", "origins"]] as const) {
  app.use(path, authenticate(resource), async (c, next) => {
    c.set("cache", new MeteredKv(c.env.CACHE, c.var.operations));
    c.set("config", new MeteredKv(c.env.CONFIG, c.var.operations));
    await next();
  });
}
app.route("/v1/cache", cache);
app.route("/v1/origins", origins);
app.route("/v1/fetch", gateway);

for (const [path, resource] of [["/v1/users/*", "preferences"], ["/v1/collections/*", "documents"]] as const) {
  app.use(path, authenticate(resource), async (c, next) => {
    c.set("config", new MeteredKv(c.env.CONFIG, c.var.operations));
    await next();
  });
}
app.route("/v1/users", preferencesOfUsers);
app.route("/v1/collections", collections);

app.use("/v1/replicated/*", authenticate("replicated"));
app.route("/v1/replicated", replicated);

app.use("/v1/counters/*", authenticate("counters"), async (c, next) => {
  c.set("counters", new MeteredKv(c.env.COUNTERS, c.var.operations));
  await next();
});
app.route("/v1/counters", counters);

app.use("/v1/rate-limits/*", authenticate("rate-limits"), async (c, next) => {
  c.set("config", new MeteredKv(c.env.CONFIG, c.var.operations));
  await next();
});
app.route("/v1/rate-limits", rateLimits);

app.use("/v1/locks/*", authenticate("locks"));
app.route("/v1/locks", locks);

app.notFound(() => {
  throw new Problem(404, "not-found", "Not found");
});
app.onError(onError);

export default app;

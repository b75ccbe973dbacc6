// `floor`: what the platform itself costs. The same KV calls and a reply of the same length, and nothing else: no
// authentication, no validation, no hashing, no headers but the content type. Nothing that does the job can be cheaper.
//
// One file per pattern exports its handlers by "METHOD /path", or "METHOD /v1/group/*" for all below; each is
// `(request, env, context, path) => Response`.

import cache from "./cache.js";
import counter from "./counter.js";
import document from "./document.js";
import experiment from "./experiment.js";
import flag from "./flag.js";
import health from "./health.js";
import lock from "./lock.js";
import preference from "./preference.js";
import rateLimit from "./rate_limit.js";
import replica from "./replica.js";
import responseCache from "./response_cache.js";
import session from "./session.js";

export { Counter, Limiter, Lock } from "./objects.js";

const patterns = [cache, counter, document, experiment, flag, health, lock, preference, rateLimit, replica, responseCache, session];
const handlers = Object.assign({}, ...patterns);

export default {
  fetch(request, env, context) {
    const path = request.url.slice(request.url.indexOf("/", "http://".length));
    const handler = handlers[`${request.method} ${path}`] ?? handlers[`${request.method} ${path.split("/", 3).join("/")}/*`];
    return handler === undefined ? new Response(null, { status: 404 }) : handler(request, env, context, path);
  },
};

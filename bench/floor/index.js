// `floor`: what the platform itself costs. The same KV calls and a reply of the same length, and nothing else: no
// authentication, no validation, no hashing, no headers but the content type. Nothing that does the job can be cheaper.
//
// One file per pattern exports its handlers by "METHOD /path"; each is `(request, env) => Response`.

import document from "./document.js";
import experiment from "./experiment.js";
import flag from "./flag.js";
import health from "./health.js";
import preference from "./preference.js";
import replica from "./replica.js";
import session from "./session.js";

const handlers = { ...document, ...experiment, ...flag, ...health, ...preference, ...replica, ...session };

export default {
  fetch(request, env) {
    const path = request.url.slice(request.url.indexOf("/", "http://".length));
    const handler = handlers[`${request.method} ${path}`];
    return handler === undefined ? new Response(null, { status: 404 }) : handler(request, env);
  },
};

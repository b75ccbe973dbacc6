// How the tests call: one function, the local token unless another is named, JSON in and out.
import { exports } from "cloudflare:workers";

export interface Call {
  token?: string | null;
  body?: unknown;
  raw?: BodyInit;
  headers?: Record<string, string>;
  /** Whether the test has damaged a record this call needs, so that 500 is an answer. */
  damaged?: boolean;
}

export interface Answer {
  status: number;
  headers: Headers;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
  text: string;
}

/** Calls `METHOD /path`. The body is parsed when the reply says it is JSON; `raw` is sent as it is, called JSON. */
export async function call(route: string, { token = "dev-token", body, raw, headers = {}, damaged = false }: Call = {}): Promise<Answer> {
  const [method, path] = route.split(" ") as [string, string];
  const init = new Headers(headers);
  if (token !== null) init.set("authorization", `Bearer ${token}`);
  if ((body !== undefined || raw !== undefined) && !init.has("content-type")) init.set("content-type", "application/json");
  const reply = await exports.default.fetch(`https://kv.example${path}`, {
    method,
    headers: init,
    body: raw ?? (body === undefined ? null : JSON.stringify(body)),
    redirect: "manual",
  });
  const text = await reply.text();
  const json = /json/.test(reply.headers.get("content-type") ?? "") && text !== "";
  const answer = { status: reply.status, headers: reply.headers, body: json ? JSON.parse(text) : undefined, text };
  checkAlways(route, method, answer, damaged);
  return answer;
}

/** What a reply to a client may never hold: places in our code, the runtime's own texts. */
const INTERNAL = /panick|\.rs\b|\bwasm|RuntimeError|TypeError|JsValue|KV (GET|PUT|DELETE|failed)|limit exceeded|connection lost|unwrap|\bat \S+:\d+/i;

/** What holds for every reply, so that every test checks it. */
function checkAlways(route: string, method: string, { status, headers, body, text }: Answer, damaged: boolean): void {
  const path = route.split(" ")[1] ?? "";
  // What an origin answers, also its absence, is passed on; below the root mount nothing is ours.
  if (!/^\/(v1|ofrep|health|openapi\.json)/.test(path)) return;
  if (path.startsWith("/v1/fetch/") && (status === 502 || status === 504)) return;
  const wrong = (what: string) => new Error(`${route} answered ${status} ${what}: ${text.slice(0, 500)}`);
  const isCorrupt = damaged && status === 500 && body?.type === "/problems/corrupt-record";
  if (status >= 500 && status !== 503 && !isCorrupt) throw wrong("which no request may cause");
  if (!/^[A-Za-z0-9._-]{1,128}$/.test(headers.get("x-request-id") ?? "")) throw wrong("without a request id");
  if (!/^kv;desc="r=\d+ w=\d+ d=\d+ l=\d+"$/.test(headers.get("server-timing") ?? "")) throw wrong("without its cost");
  if (method === "HEAD") return;
  if (status >= 400) {
    const isHealth = headers.get("content-type") === "application/json" && body?.status === "degraded";
    // OpenFeature clients read their protocol's own form.
    const isOfrep = route.includes(" /ofrep/") && headers.get("content-type") === "application/json";
    if (isOfrep && (typeof body.errorCode !== "string" || typeof body.errorDetails !== "string")) throw wrong("which is no OFREP failure");
    if (headers.get("content-type") !== "application/problem+json" && !isHealth && !isOfrep) throw wrong("which is not a problem");
    if (INTERNAL.test(text)) throw wrong("with internal text");
    if (!isHealth && !isOfrep && body.status !== status) throw wrong("with another status in its body");
  }
  if (status === 503 && !/^[1-9]\d*$/.test(headers.get("retry-after") ?? "")) throw wrong("without Retry-After");
  if (status === 401 && headers.get("www-authenticate") !== "Bearer") throw wrong("without WWW-Authenticate");
}

/** The KV operations a reply says it took. */
export const cost = ({ headers }: Answer) => /desc="(.*)"/.exec(headers.get("server-timing") ?? "")?.[1];

/** The calls to Durable Objects that a request made. */
export const objectCalls = ({ headers }: Answer) => Number(headers.get("x-test-object-calls"));

/** A problem's status, slug and field, for comparison in one line. */
export const problem = ({ status, headers, body }: Answer) => {
  if (headers.get("content-type") !== "application/problem+json") return `${status} is not a problem`;
  return [status, body.type.replace("/problems/", ""), body.field].filter((part) => part !== undefined).join(" ");
};

/** A name nobody has used, so that tests in one file do not meet. */
export const fresh = (stem: string) => `${stem}-${crypto.randomUUID()}`;

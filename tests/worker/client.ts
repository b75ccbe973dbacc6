// How the tests call: one function, the local token unless another is named, JSON in and out.
import { exports } from "cloudflare:workers";

export interface Call {
  token?: string | null;
  body?: unknown;
  raw?: BodyInit;
  headers?: Record<string, string>;
}

export interface Answer {
  status: number;
  headers: Headers;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  body: any;
  text: string;
}

/** Calls `METHOD /path`. The body is parsed when the reply says it is JSON. */
export async function call(route: string, { token = "dev-token", body, raw, headers = {} }: Call = {}): Promise<Answer> {
  const [method, path] = route.split(" ") as [string, string];
  const init = new Headers(headers);
  if (token !== null) init.set("authorization", `Bearer ${token}`);
  if (body !== undefined && !init.has("content-type")) init.set("content-type", "application/json");
  const reply = await exports.default.fetch(`https://kv.example${path}`, {
    method,
    headers: init,
    body: raw ?? (body === undefined ? null : JSON.stringify(body)),
    redirect: "manual",
  });
  const text = await reply.text();
  const json = /json/.test(reply.headers.get("content-type") ?? "") && text !== "";
  return { status: reply.status, headers: reply.headers, body: json ? JSON.parse(text) : undefined, text };
}

/** The KV operations a reply says it took. */
export const cost = ({ headers }: Answer) => /desc="(.*)"/.exec(headers.get("server-timing") ?? "")?.[1];

/** A problem's status, slug and field, for comparison in one line. */
export const problem = ({ status, headers, body }: Answer) => {
  if (headers.get("content-type") !== "application/problem+json") return `${status} is not a problem`;
  return [status, body.type.replace("/problems/", ""), body.field].filter((part) => part !== undefined).join(" ");
};

/** A name nobody has used, so that tests in one file do not meet. */
export const fresh = (stem: string) => `${stem}-${crypto.randomUUID()}`;

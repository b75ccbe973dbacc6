// Errors as RFC 9457 problem details. Anything that is not a `Problem` is answered without its text.

import type { Context } from "hono";
import * as z from "zod";
import type { App } from "./context.ts";

interface Details {
  detail?: string;
  field?: string;
  headers?: Record<string, string>;
  /** Members of its own (RFC 9457 §3.2). */
  more?: Record<string, unknown>;
}

export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly slug: string,
    readonly title: string,
    readonly details: Details = {},
  ) {
    super(title);
  }

  toResponse(): Response {
    const { detail, field, headers, more } = this.details;
    const body = { type: `/problems/${this.slug}`, title: this.title, status: this.status, detail, field, ...more };
    return Response.json(body, { status: this.status, headers: { ...headers, "content-type": "application/problem+json" } });
  }
}

export function onError(error: Error, c: Context<App>): Response {
  if (!(error instanceof Problem)) console.error(c.var.requestId, error);
  const problem = error instanceof Problem ? error : new Problem(500, "internal", "Internal error");
  const response = problem.toResponse();
  // A response made here replaces the one that middleware wrote its headers to.
  c.res.headers.forEach((value, name) => {
    if (name !== "content-type" && name !== "content-length") response.headers.set(name, value);
  });
  return response;
}

/** The request's JSON body as `schema` wants it, or the problem that names the field to blame. */
export async function readJson<Schema extends z.ZodType>(c: Context<App>, schema: Schema): Promise<z.infer<Schema>> {
  if (!/^application\/json\b/i.test(c.req.header("content-type") ?? "")) {
    throw new Problem(415, "unsupported-media-type", "Unsupported media type", { detail: "Send application/json." });
  }
  let body: unknown;
  try {
    body = await c.req.json();
  } catch {
    throw new Problem(400, "invalid-json", "Invalid JSON");
  }
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const field = issue?.code === "unrecognized_keys" ? issue.keys[0] : issue?.path.join(".");
  throw new Problem(400, "invalid-field", "Invalid field", { detail: issue?.message, field });
}

// What /openapi.json promises, one good call of each operation, and whether a reply keeps the promise. JSON Schema needs a validator that works without `eval`.
import { Validator, type Schema } from "@cfworker/json-schema";
import { call, type Answer } from "./client.ts";

type Json = Record<string, any>;

/** One call that succeeds. */
export interface Example {
  /** 200 when not said. */
  status?: number;
  parameters?: Record<string, string>;
  query?: string;
  body?: unknown;
  raw?: BodyInit;
  headers?: Record<string, string>;
}

/** By `operationId`. A function, because most calls need something made before. */
export type Examples = Record<string, () => Promise<Example>>;

const files = import.meta.glob<{ examples: Examples }>("./examples/*.ts", { eager: true });
export const examples: Examples = Object.assign({}, ...Object.values(files).map((file) => file.examples));

/** `METHOD /path`, filled in as the example says. */
export function route({ method, path }: Operation, { parameters = {}, query }: Example): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(parameters[name] ?? "x"));
  return `${method} ${filled}${query === undefined ? "" : `?${query}`}`;
}

export interface Operation {
  id: string;
  method: string;
  /** The template, such as `/v1/users/{user}/sessions`. */
  path: string;
  tags: string[];
  /** Whether a call without a token may be answered. */
  open: boolean;
  description: Json;
}

export interface Document {
  text: Json;
  operations: Operation[];
}

export async function openapi(): Promise<Document> {
  const { body: text } = await call("GET /openapi.json", { token: null });
  const operations = Object.entries<Json>(text.paths).flatMap(([path, { parameters: _, ...methods }]) => {
    // `x-any-method` says that a path takes every method; there is no operation to try.
    const described = Object.entries<Json>(methods).filter(([method]) => !method.startsWith("x-"));
    return described.map(([method, description]): Operation => {
      const security: Json[] = description.security ?? text.security;
      const open = security.some((way) => Object.keys(way).length === 0);
      return { id: description.operationId, method: method.toUpperCase(), path, tags: description.tags, open, description };
    });
  });
  return { text, operations };
}

/** `value`, or what its `$ref` names. */
export const resolve = (document: Document, value: Json): Json => {
  if (typeof value?.$ref !== "string") return value;
  return value.$ref.slice(2).split("/").reduce((at: Json, step: string) => at[step], document.text);
};

const validators = new WeakMap<Json, Validator>();

/** What is wrong with `value` by `schema`, which may refer to the document's components. */
function faults(document: Document, schema: Json, value: unknown): string[] {
  let validator = validators.get(schema);
  if (validator === undefined) {
    const whole = { ...schema, components: document.text.components } as Schema;
    validators.set(schema, (validator = new Validator(whole, "2020-12", false)));
  }
  return validator.validate(value).errors.map(({ instanceLocation, error }) => `${instanceLocation}: ${error}`);
}

/** What any reply may carry, and no operation says. */
const OF_ANY_REPLY = /^(content-(type|length)|vary|x-content-type-options|access-control-.*|x-test-.*)$/;

/** How `answer` breaks what is documented of `operation`: nothing, when it keeps it. */
export function violations(document: Document, operation: Operation, answer: Answer): string[] {
  const { status, headers } = answer;
  const known = operation.description.responses[status];
  if (known === undefined) return [`the status ${status} is not documented: ${answer.text.slice(0, 300)}`];
  const response = resolve(document, known);
  const broken: string[] = [];

  // Headers that may be missing say `required: false`.
  for (const [name, reference] of Object.entries<Json>(response.headers ?? {})) {
    const header = resolve(document, reference);
    const value = headers.get(name);
    if (value === null && header.required !== false) broken.push(`the header ${name} is missing`);
    if (value !== null) broken.push(...faults(document, header.schema, value).map((fault) => `the header ${name} ${fault}`));
  }

  const documented = Object.keys(response.headers ?? {}).map((name) => name.toLowerCase());
  for (const name of headers.keys()) {
    if (!documented.includes(name) && !OF_ANY_REPLY.test(name)) broken.push(`the header ${name} is not documented of ${status}`);
  }

  const contents: Json = response.content ?? {};
  const type = headers.get("content-type")?.split(";")[0] ?? "";
  const content = contents[type] ?? contents["*/*"];
  if (Object.keys(contents).length === 0) {
    if (answer.text !== "") broken.push("a body where none is documented");
  } else if (content === undefined) {
    broken.push(`the content type ${type} is not documented`);
  } else if (content.schema !== undefined && answer.body !== undefined) {
    broken.push(...faults(document, content.schema, answer.body));
  }
  return broken;
}

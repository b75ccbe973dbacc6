// The public JSON Patch cases (json-patch/json-patch-tests, as published to npm), each as a PATCH of a stored document.
import cases from "json-patch-test-suite/tests.json";
import specification from "json-patch-test-suite/spec_tests.json";
import { beforeAll, expect, test } from "vitest";
import { call, fresh, problem } from "./client.ts";

interface Case {
  comment?: string;
  doc: unknown;
  patch: unknown;
  expected?: unknown;
  error?: string;
}

const isDoubled = ({ error }: Case) => error?.includes("two 'op' members") === true;
const all = [...(cases as Case[]), ...(specification as Case[])];
// Two of the four that their authors disabled have a member twice, which a JavaScript value cannot hold: below.
const usable = all.filter((one) => !isDoubled(one));
const collection = fresh("cases");
const patch = (id: number, raw: string) =>
  call(`PATCH /v1/collections/${collection}/documents/${id}`, { raw, headers: { "content-type": "application/json-patch+json" } });

// The first call also starts the Worker.
beforeAll(async () => {
  expect((await call(`PUT /v1/collections/${collection}`, { body: { version: 1 } })).status).toBe(200);
}, 60_000);

test("there are 95 of them, of which two need a parser of their own", () => {
  expect([all.length, usable.length]).toEqual([95, 93]);
});

test.each(usable.map((one, id) => [id, one.comment ?? JSON.stringify(one.patch), one] as const))("%i: %s", async (id, _, { doc, patch: operations, expected, error }) => {
  await call(`PUT /v1/collections/${collection}/documents/${id}`, { body: doc });
  const answer = await patch(id, JSON.stringify(operations));
  const { body: stored } = await call(`GET /v1/collections/${collection}/documents/${id}`);
  if (error === undefined) {
    expect([answer.status, answer.body]).toEqual([200, expected ?? doc]);
    expect(stored).toEqual(expected ?? doc);
  } else {
    expect([400, 409], answer.text).toContain(answer.status);
    expect(stored).toEqual(doc);
  }
});

test.each([
  ['{"op":"add"}', "400 invalid-request", "The body must be an array of operations."],
  ['[{"op":"add","path":"/a"}]', "400 invalid-request 0/value", "Required."],
  ['[{"op":"test","path":"","value":{}},{"op":"spam","path":"/a"}]', "400 invalid-request 1/op", "Must be one of: add, remove, replace, move, copy, test."],
  ['[{"op":"remove","path":"a"}]', "400 invalid-request 0/path", 'Must be a JSON Pointer, such as "/a/0" (RFC 6901).'],
  ["[7]", "400 invalid-request 0", "Must be an object."],
])("%s is told what is wrong", async (raw, expected, detail) => {
  const answer = await patch(0, raw);
  expect([problem(answer), answer.body.detail]).toEqual([expected, detail]);
});

test("a member that stands twice in an operation is refused", async () => {
  const answer = await patch(0, '[{"op":"add","path":"/baz","value":"qux","op":"remove"}]');
  expect([answer.status, answer.body.field]).toEqual([400, "op"]);
});

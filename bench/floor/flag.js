// The floor of evaluation: the isolate has the document, so no KV call, and an answer of the same length is at hand. It is
// always the same one: nothing is evaluated, the context is read and forgotten.

const single = { key: "flag-007", value: true, reason: "TARGETING_MATCH", variant: "on" };
let bulk = { flags: [] };

/** Only to prepare a round: remembers the keys, so that the answer has the length of the real one. */
async function put(request) {
  const { flags } = await request.json();
  bulk = { flags: Object.keys(flags).map((key) => ({ ...single, key })) };
  return Response.json({ revision: "0123456789012345678901", sequence: 1, updatedAt: 1 }, { status: 201 });
}

async function evaluate(request) {
  await request.json();
  return Response.json(single);
}

async function evaluateAll(request) {
  await request.json();
  return Response.json(bulk, { headers: { etag: '"0123456789012345678901"' } });
}

export default {
  "PUT /v1/flags": put,
  "POST /ofrep/v1/evaluate/flags/flag-007": evaluate,
  "POST /ofrep/v1/evaluate/flags": evaluateAll,
};

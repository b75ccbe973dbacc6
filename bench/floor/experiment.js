// The floor of assignment: the isolate has the experiment, so no KV call, and an answer of the same length is at hand. It
// is always the same one: nothing is hashed, the user is read and forgotten.

const assigned = { variant: "control", reason: "assigned" };

/** Only to prepare a round. */
async function put(request) {
  return Response.json({ name: "checkout", ...(await request.json()) }, { status: 201 });
}

async function assign(request) {
  await request.json();
  return Response.json(assigned);
}

export default {
  "PUT /v1/experiments/checkout": put,
  "POST /v1/experiments/checkout/assignments": assign,
};

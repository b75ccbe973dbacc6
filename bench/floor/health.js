// The floor of `GET /health`: a constant.

export default {
  "GET /health": () => Response.json({ status: "ok", version: "0.1.0" }),
};

// One successful call of every operation of sessions.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const issue = async () => (await call("POST /v1/sessions", { body: { userId: fresh("user") } })).body;
const ofToken = async () => ({ body: { token: (await issue()).token } });

export const examples: Examples = {
  createSession: async () => ({
    status: 201,
    query: "cookie=1",
    body: { userId: fresh("user"), email: "a@example.com", roles: ["admin"], data: { theme: "dark" }, idleSeconds: 60 },
  }),
  verifySession: ofToken,
  refreshSession: ofToken,
  rotateSession: ofToken,
  revokeSession: async () => ({ status: 204, ...(await ofToken()) }),
  listSessions: async () => ({ parameters: { user: (await issue()).session.userId } }),
  revokeUserSessions: async () => ({ status: 204, parameters: { user: (await issue()).session.userId } }),
  revokeUserSession: async () => {
    const { session } = await issue();
    return { status: 204, parameters: { user: session.userId, id: session.id } };
  },
};

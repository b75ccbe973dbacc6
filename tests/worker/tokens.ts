// Who may call in the tests: two tenants, and one tenant's tokens with fewer scopes.

interface Caller {
  token: string;
  tenant: string;
  scopes: string[];
}

/** By the name under which `API_TOKENS` lists them. */
const CALLERS: Record<string, Caller> = {
  dev: { token: "dev-token", tenant: "dev", scopes: ["*"] },
  other: { token: "other-token", tenant: "other", scopes: ["*"] },
  read: { token: "read-token", tenant: "dev", scopes: ["sessions:read"] },
  flags: { token: "flags-token", tenant: "dev", scopes: ["flags"] },
  none: { token: "no-scope-token", tenant: "dev", scopes: [] },
};

async function sha256Hex(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The value of the secret `API_TOKENS`: hashes, never the tokens themselves. */
export async function apiTokens(): Promise<string> {
  const entries = Object.entries(CALLERS).map(async ([name, { token, tenant, scopes }]) => {
    return [name, { sha256: await sha256Hex(token), tenant, scopes }] as const;
  });
  return JSON.stringify(Object.fromEntries(await Promise.all(entries)));
}

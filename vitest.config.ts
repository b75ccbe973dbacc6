// The tests of the built bundle, inside workerd with real local KV. Build before (`npm test` does).
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { apiTokens } from "./tests/worker/tokens.ts";

export default defineConfig({
  plugins: [
    cloudflareTest(async () => ({
      // Not wrangler.toml's `main`: the bundle, with bindings that can be made to fail.
      main: "./tests/worker/entry.ts",
      // Nothing of a test may leave the machine.
      remoteBindings: false,
      wrangler: { configPath: "./wrangler.toml" },
      // Of .dev.vars, which `npm start` leaves behind, nothing is to be seen here.
      miniflare: { bindings: { API_TOKENS: await apiTokens(), ALLOW_LOOPBACK_ORIGINS: "" } },
    })),
  ],
  // A slow shared machine may take many times what a quiet one takes.
  test: { include: ["tests/worker/**/*.test.ts"], testTimeout: 60_000, hookTimeout: 60_000 },
});

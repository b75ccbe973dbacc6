// The Worker under `wrangler dev` with local KV, ready to answer.
import { copyFileSync, existsSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { Problem, packageEnv, root, start, step } from "./lib.mjs";

const READY_WITHIN_MS = 60_000;

/** Both addresses of `localhost`: wrangler may listen on either. */
export async function checkPortIsFree(number) {
  for (const host of ["127.0.0.1", "::1"]) {
    const failure = await new Promise((resolve) => {
      const server = createServer();
      server.on("error", (error) => resolve(error.code));
      server.listen(number, host, () => server.close(() => resolve(undefined)));
    });
    if (failure === "EADDRINUSE") {
      throw new Problem(`Port ${number} is in use: stop what listens there, or choose another with PORT=... npm start.`);
    }
    if (failure === "EACCES") throw new Problem(`Port ${number} may not be opened by this user: choose one above 1023.`);
  }
}

/** A port that is free at the moment. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

async function localSecrets() {
  await step("Local secrets in .dev.vars", async () => {
    if (existsSync(join(root, ".dev.vars"))) return "kept";
    copyFileSync(join(root, ".dev.vars.example"), join(root, ".dev.vars"));
    return "written from .dev.vars.example";
  });
}

/** Resolves when /health answers 200; a Problem when wrangler ends before, or takes too long. */
async function healthy(address, ended) {
  let over;
  ended.then((code) => (over = `wrangler ended (${code}) before the Worker answered.`));
  const deadline = performance.now() + READY_WITHIN_MS;
  let last = "no answer";
  while (performance.now() < deadline) {
    if (over !== undefined) throw new Problem(over);
    try {
      const reply = await fetch(`${address}/health`, { signal: AbortSignal.timeout(5000) });
      await reply.arrayBuffer();
      if (reply.ok) return;
      last = `status ${reply.status}`;
    } catch {
      // Not listening yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Problem(`${address}/health did not answer 200 within ${READY_WITHIN_MS / 1000} seconds: ${last}.`);
}

/** Serves the bundle on a port; `options` go to wrangler. Resolves when /health answers. */
export async function serve(number, options = []) {
  await localSecrets();
  await checkPortIsFree(number);
  const address = `http://localhost:${number}`;
  // Without it wrangler asks the network for a sample of `request.cf`.
  const env = { ...packageEnv, CLOUDFLARE_CF_FETCH_ENABLED: "false" };
  let wrangler;
  await step(`wrangler dev on ${address}`, async () => {
    wrangler = start("wrangler", ["dev", "--port", String(number), "--show-interactive-dev-session=false", ...options], { env });
    await healthy(address, wrangler.ended);
  });
  return { address, wrangler };
}

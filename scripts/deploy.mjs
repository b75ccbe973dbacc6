// npm run deploy: `wrangler deploy` of a fresh bundle. What follows `--` goes to wrangler: npm run deploy -- --dry-run
import { prepare } from "./bundle.mjs";
import { main, packageEnv, run } from "./lib.mjs";

await main(async () => {
  await prepare({ release: true });
  // wrangler may ask: which account, whether to make the namespaces.
  await run("wrangler", ["deploy", ...process.argv.slice(2)], { env: packageEnv, stdin: "inherit" });
});

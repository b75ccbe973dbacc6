// npm run soak: bench/soak.mjs over a fresh bundle, on the Node of node_modules. What follows `--` goes to it.
import { prepare } from "./bundle.mjs";
import { main, packageEnv, run } from "./lib.mjs";

await main(async () => {
  await prepare();
  await run("node", ["bench/soak.mjs", ...process.argv.slice(2)], { env: packageEnv });
});

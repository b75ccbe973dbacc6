// npm run bench: the benchmark over a fresh bundle, on the Node of node_modules. What follows `--` goes to it.
import { prepare } from "./bundle.mjs";
import { main, packageEnv, run } from "./lib.mjs";

await main(async () => {
  await prepare({ release: true });
  await run("node", ["bench/run.mjs", ...process.argv.slice(2)], { env: packageEnv });
});

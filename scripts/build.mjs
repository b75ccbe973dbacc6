// npm run build: everything the Worker needs, then the Worker.
import { prepare, weigh } from "./bundle.mjs";
import { main } from "./lib.mjs";

await main(async () => {
  await prepare();
  weigh();
});

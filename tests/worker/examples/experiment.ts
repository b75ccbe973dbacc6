// One successful call of every operation of experiments.
import { call, fresh } from "../client.ts";
import type { Examples } from "../openapi.test.ts";

const definition = { variants: [{ name: "control", weight: 1 }, { name: "blue", weight: 1 }], status: "running", sticky: true };
const put = async () => {
  const name = fresh("experiment");
  await call(`PUT /v1/experiments/${name}`, { body: definition });
  return { parameters: { name } };
};
const event = (metric: string, userId = "u") => ({ body: { userId, metric, value: 1.5 } });

export const examples: Examples = {
  listExperiments: put,
  putExperiment: async () => ({ status: 201, parameters: { name: fresh("experiment") }, body: { ...definition, salt: "s", overrides: { eve: "blue" }, layer: { name: fresh("layer"), start: 0, end: 500_000 } } }),
  getExperiment: put,
  deleteExperiment: async () => ({ status: 204, ...(await put()) }),
  assignVariant: async () => ({ ...(await put()), body: { userId: "u" } }),
  recordEvent: async () => ({ status: 202, ...(await put()), ...event("exposure") }),
  experimentResults: async () => {
    const experiment = await put();
    for (const userId of ["a", "b", "c"]) {
      for (const metric of ["exposure", "purchase"]) await call(`POST /v1/experiments/${experiment.parameters.name}/events`, event(metric, userId));
    }
    return experiment;
  },
};

// Goal: published OpenFeature clients work with this server unchanged. Method: the real SDKs and providers from npm, whose
// requests go to the built Worker. What the clients themselves get wrong is asserted, not hidden.
import { exports } from "cloudflare:workers";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import { OFREPWebProvider } from "@openfeature/ofrep-web-provider";
import { OpenFeature as Server } from "@openfeature/server-sdk";
import { OpenFeature as Web } from "@openfeature/web-sdk";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { call } from "./client.ts";

const baseUrl = "https://kv.example";
const plan = { if: [{ "==": [{ var: "plan" }, "pro"] }, "big", "small"] };
const typed = (small: unknown, big: unknown, more: object = {}) => ({
  state: "ENABLED",
  variants: { small, big },
  defaultVariant: "small",
  targeting: plan,
  ...more,
});
const flags = {
  bool: typed(false, true),
  text: typed("s", "b"),
  number: typed(1, 2.5),
  object: typed({ n: 1 }, { n: 2 }),
  off: { ...typed(false, true), state: "DISABLED" },
  share: { ...typed("s", "b"), targeting: { fractional: [["small", 50], ["big", 50]] } },
  "a/b c": typed(false, true),
  broken: { ...typed("s", "b"), targeting: { "+": [{ var: "plan" }, 1] } },
};

/** What the clients asked and were answered: method, path and status. */
const log: string[] = [];
const into = (options: { token?: string | null } = {}) => async (request: RequestInfo | URL, init?: RequestInit) => {
  const asked = new Request(request, init);
  if (options.token !== null) asked.headers.set("authorization", `Bearer ${options.token ?? "dev-token"}`);
  const reply = await exports.default.fetch(asked);
  log.push(`${asked.method} ${new URL(asked.url).pathname} ${reply.status}`);
  return reply;
};

beforeAll(async () => {
  const stored = await call("PUT /v1/flags", { body: { flags, metadata: { set: "shop" } } });
  expect(stored.status, stored.text).toBeLessThan(300);
});

describe("@openfeature/server-sdk with @openfeature/ofrep-provider", () => {
  const client = async (fetchImplementation = into()) => {
    const domain = crypto.randomUUID();
    await Server.setProviderAndWait(domain, new OFREPProvider({ baseUrl, fetchImplementation }));
    return Server.getClient(domain);
  };

  test("every type, by context, with reason, variant and metadata", async () => {
    const flags = await client();
    const pro = { targetingKey: "u", plan: "pro" };
    expect(await flags.getBooleanDetails("bool", false, pro)).toMatchObject({ value: true, variant: "big", reason: "TARGETING_MATCH", flagMetadata: { set: "shop" } });
    expect(await flags.getStringValue("text", "-", pro)).toBe("b");
    expect(await flags.getNumberValue("number", 0, pro)).toBe(2.5);
    expect(await flags.getNumberValue("number", 0, {})).toBe(1);
    expect(await flags.getObjectValue("object", {}, pro)).toEqual({ n: 2 });
    expect((await flags.getStringDetails("share", "-", { targetingKey: "u" })).reason).toBe("SPLIT");
    // This version does not encode the key.
    expect(await flags.getBooleanValue("a/b c", false, pro)).toBe(true);
    expect(log).toContain("POST /ofrep/v1/evaluate/flags/a/b%20c 200");
  });

  test("failures become OpenFeature's error codes and the code's default", async () => {
    const flags = await client();
    expect(await flags.getBooleanDetails("gone", true)).toMatchObject({ value: true, errorCode: "FLAG_NOT_FOUND", reason: "ERROR" });
    expect(await flags.getStringDetails("broken", "-", { plan: "x" })).toMatchObject({ value: "-", errorCode: "GENERAL" });
    expect(await flags.getBooleanDetails("text", true)).toMatchObject({ value: true, errorCode: "TYPE_MISMATCH" });
    // A context this SDK lets through and the protocol does not.
    const bad = { targetingKey: 7 } as never;
    expect(await flags.getBooleanDetails("bool", true, bad)).toMatchObject({ value: true, errorCode: "INVALID_CONTEXT" });
  });

  test("0.1.3 takes an answer without a value for an error; the flag set can serve the default instead", async () => {
    const flags = await client();
    expect(await flags.getBooleanDetails("off", true)).toMatchObject({ value: true, errorCode: "GENERAL" });
  });

  test("without a token, or with one of another scope, the code's default", async () => {
    for (const token of [null, "wrong", "no-scope-token"]) {
      const details = await (await client(into({ token }))).getBooleanDetails("bool", true);
      expect(details).toMatchObject({ value: true, errorCode: "GENERAL", reason: "ERROR" });
    }
  });

  afterAll(() => Server.close());
});

describe("@openfeature/web-sdk with @openfeature/ofrep-web-provider", () => {
  const options = { baseUrl, cacheMode: "disabled", changeDetection: "none", disableVisibilityRefresh: true } as const;

  test("one bulk call per context, a 304 when nothing changed, and the values", async () => {
    const domain = crypto.randomUUID();
    await Web.setContext(domain, { targetingKey: "u", plan: "free" });
    await Web.setProviderAndWait(domain, new OFREPWebProvider({ ...options, fetchImplementation: into() }));
    const flags = Web.getClient(domain);
    expect(flags.getBooleanDetails("bool", true)).toMatchObject({ value: false, variant: "small", reason: "TARGETING_MATCH" });
    expect(flags.getStringValue("text", "-")).toBe("s");
    expect(flags.getNumberValue("number", 0)).toBe(1);
    expect(flags.getObjectValue("object", {})).toEqual({ n: 1 });
    // A disabled flag has no value: the code's default, with the reason.
    expect(flags.getBooleanDetails("off", true)).toMatchObject({ value: true, reason: "DISABLED" });
    expect(flags.getStringDetails("broken", "-")).toMatchObject({ value: "-", errorCode: "GENERAL" });

    log.length = 0;
    await Web.setContext(domain, { targetingKey: "u", plan: "free" });
    await Web.setContext(domain, { targetingKey: "u", plan: "pro" });
    expect(log).toEqual(["POST /ofrep/v1/evaluate/flags 304", "POST /ofrep/v1/evaluate/flags 200"]);
    expect(flags.getBooleanValue("bool", false)).toBe(true);
    expect(flags.getNumberValue("number", 0)).toBe(2.5);
    expect(flags.getObjectValue("object", {})).toEqual({ n: 2 });

    await call("PUT /v1/flags/bool/overrides/u", { body: { variant: "small" } });
    await Web.setContext(domain, { targetingKey: "u", plan: "pro" });
    expect(flags.getBooleanValue("bool", true)).toBe(false);
  });

  test("a refused token is an error of the provider", async () => {
    const domain = crypto.randomUUID();
    await expect(Web.setProviderAndWait(domain, new OFREPWebProvider({ ...options, fetchImplementation: into({ token: "wrong" }) }))).rejects.toThrow();
    expect(Web.getClient(domain).getBooleanValue("bool", true)).toBe(true);
  });

  afterAll(() => Web.close());
});

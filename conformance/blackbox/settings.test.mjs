// What a deployment that is set up badly answers.
import { describe, expect, test } from "vitest";

import { ADMIN_TOKEN, newSecret, token } from "../tokens.mjs";
import { Host } from "./host.mjs";
import { bearer, configure, refusedWith, startJwtHost } from "./jwt_host.mjs";
import { send } from "./raw_socket.mjs";

describe("a deployment with a bad setting answers nothing else", () => {
  const SHORT = "short-admin-token-0123456789";
  const CASES = {
    AUTH: { vars: { AUTH: "sometimes" } },
    ADMIN_TOKEN: { vars: { ADMIN_TOKEN: SHORT } },
    // As `echo` gives it to `wrangler secret put`.
    "ADMIN_TOKEN has": { vars: { ADMIN_TOKEN: `${ADMIN_TOKEN}\n` } },
    CORS_ORIGINS: { vars: { CORS_ORIGINS: "https://good.example,https://bad.example/" } },
    LOG_REQUESTS: { vars: { LOG_REQUESTS: "some" } },
    SEGMENT_APPENDS: { vars: { SEGMENT_APPENDS: "0" } },
    SEGMENTS: { vars: {}, without: ["SEGMENTS"] },
  };

  test.concurrent.each(Object.entries(CASES))("%s", async (name, { vars, without }) => {
    const host = await startJwtHost(vars, { without });
    try {
      const requests = [
        ["GET", "/health"],
        ["GET", "/nothing"],
        ["PUT", "/v1/p/config"],
        ["PUT", "/v1/p/stream/a"],
        ["GET", "/v1/p/stream/a?offset=-1&live=sse"],
        ["OPTIONS", "/v1/p/stream/a"],
      ];
      for (const [method, path] of requests) {
        for (const authorization of [ADMIN_TOKEN, SHORT]) {
          const response = await send(host.url, method, path, bearer(authorization));
          // A page may show what is wrong.
          expect(response.headers.get("access-control-allow-origin")).toBe("*");
          const error = await refusedWith(response, 500, "MISCONFIGURED", path);
          expect(error.message).toContain(name);
          expect(JSON.stringify(error)).not.toContain(SHORT);
        }
      }
      expect(host.console).not.toContain(SHORT);
      expect(host.console).not.toContain(ADMIN_TOKEN);
    } finally {
      await host.stop();
    }
  });

  test.concurrent("REGISTRY, where a project is looked up", async () => {
    const host = await startJwtHost({}, { without: ["REGISTRY"] });
    try {
      const path = "p/stream/a";
      const answers = [
        fetch(`${host.url}/v1/${path}`),
        fetch(`${host.url}/v1/${path}`, { headers: bearer(token("p", newSecret())) }),
        fetch(`${host.url}/v1/${path}`, { method: "OPTIONS" }),
        configure(host, "GET", "p/config"),
        configure(host, "PUT", "p/config", { signingSecret: newSecret() }),
      ];
      for (const answer of answers) {
        const error = await refusedWith(await answer, 500, "MISCONFIGURED");
        expect(error.message).toContain("REGISTRY");
      }
      await refusedWith(await fetch(`${host.url}/health`), 500, "MISCONFIGURED");
    } finally {
      await host.stop();
    }
  });

  test.concurrent("without ADMIN_TOKEN nobody creates a project", async () => {
    const host = await Host.start({ AUTH: "jwt" });
    try {
      for (const authorization of [ADMIN_TOKEN, "", "undefined", "null"]) {
        const body = { signingSecret: newSecret() };
        const headers = { authorization: `Bearer ${authorization}` };
        await refusedWith(await configure(host, "PUT", "p/config", body, headers), 401, "UNAUTHORIZED");
      }
    } finally {
      await host.stop();
    }
  });
});

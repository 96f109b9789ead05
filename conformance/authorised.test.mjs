// The published suite against a service that asks for tokens, through a proxy that adds one.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

import { startProxy } from "./token_proxy.mjs";
import { createProject, token } from "./tokens.mjs";

// The suite's streams have no project in their URLs.
const PROJECT = "_default";

const target = process.env.CONFORMANCE_TEST_URL;
if (!target) throw new Error("CONFORMANCE_TEST_URL is not set: run `cargo xtask test --only conformance-auth`");

// One of its tests asks as a page of this origin.
const secret = await createProject(target, PROJECT, { corsOrigins: ["https://example.com"] });
const proxy = await startProxy(target, token(PROJECT, secret));

runConformanceTests({ baseUrl: proxy.url });

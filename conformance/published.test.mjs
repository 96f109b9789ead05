// The published suite with its default options, unpatched. It appends `/v1/stream/...`
// to the base URL by itself. Option `subscriptions` is for the reserved `__ds` API,
// which this server does not have.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

const baseUrl = process.env.CONFORMANCE_TEST_URL;
if (!baseUrl) throw new Error("CONFORMANCE_TEST_URL is not set: run `cargo xtask test --only conformance`");

runConformanceTests({ baseUrl });

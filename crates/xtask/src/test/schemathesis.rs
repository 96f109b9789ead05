//! Step `schemathesis`: requests made from the OpenAPI document, legal ones and others, against the
//! served Worker (`conformance/schemathesis`). What the document does not say of an answer, its
//! status, media type, headers or body, is a failure; so is any 5xx.
//!
//! The document is checked against OpenAPI first. The requests follow from a fixed seed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use protocol::name::Project;
use protocol::time::UnixMillis;
use protocol::token::{self, Claims, Scope};
use serde_json::json;

use super::checks::number_before;
use super::conformance::ADMIN_TOKEN;
use super::{Context, Report};
use crate::host::{Host, Options};
use crate::process;
use crate::setup;

const SEED: &str = "1";
/// Requests of an operation that are drawn at random, beside those that follow from its schema.
const EXAMPLES_MAX: &str = "10";
/// Live reads end soon, and a failure is no wait of half a minute.
const VARS: [&str; 3] = ["LONG_POLL_TIMEOUT_MS=100", "SSE_LIFETIME_MS=300", "LOG_REQUESTS=errors"];
const REQUEST_TIMEOUT_SECONDS: &str = "20";

/// The project of `one_stream.toml`.
const PROJECT: &str = "schemathesis";
const SIGNING_SECRET: &str = "signing-secret-of-tests-0123456789abcdef";
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    setup::schemathesis(&context.paths)?;
    let mut report = valid(context)?;
    report.add(&open(context)?);
    report.add(&authorised(context)?);
    Ok(report)
}

/// The document is one of OpenAPI.
fn valid(context: &Context) -> Result<Report> {
    let mut validator = process::command(
        &context.paths,
        setup::python_tool(&context.paths, "openapi-spec-validator"),
    );
    context.check("openapi", validator.arg(document(context)))
}

/// Against a service that is open to everybody: where things are, and anywhere.
fn open(context: &Context) -> Result<Report> {
    let state = tempfile::tempdir()?;
    let mut host = start(context, state.path(), &["AUTH=none"])?;
    let service = Service { caller: "everybody", url: host.url(), token: None };
    let mut report = requests(context, "one_stream", &service, "coverage,fuzzing")?;
    report.add(&requests(context, "anywhere", &service, "coverage,fuzzing")?);
    host.stop()?;
    report.output.push_str(&host.log());
    Ok(report)
}

/// Against one that asks for a token: with one, and without.
fn authorised(context: &Context) -> Result<Report> {
    let state = tempfile::tempdir()?;
    let mut host = start(context, state.path(), &["AUTH=jwt", ADMIN_TOKEN])?;
    let token = Some(token_of_new_project(&host.url())?);
    let service = Service { caller: "authorised", url: host.url(), token };
    let mut report = requests(context, "one_stream", &service, "coverage")?;
    let service = Service { caller: "anonymous", token: None, ..service };
    report.add(&requests(context, "one_stream", &service, "coverage")?);
    host.stop()?;
    report.output.push_str(&host.log());
    Ok(report)
}

fn start(context: &Context, state: &Path, vars: &[&str]) -> Result<Host> {
    let vars = VARS.iter().chain(vars).map(|var| (*var).to_owned()).collect();
    let persist = Some(state.join("state"));
    Host::start(&context.paths, &Options { persist, vars, ..Options::default() })
}

/// Creates the project and signs a token that may do everything in it.
fn token_of_new_project(url: &str) -> Result<String> {
    let admin = ADMIN_TOKEN.split_once('=').map(|(_, token)| token).unwrap_or_default();
    let created = ureq::put(format!("{url}/v1/{PROJECT}/config"))
        .header("authorization", format!("Bearer {admin}"))
        .send(json!({ "signingSecret": SIGNING_SECRET }).to_string())
        .context("creating a project")?;
    ensure!(created.status() == 201, "creating a project: {}", created.status());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let claims = Claims {
        project: Project::parse(PROJECT)?,
        scope: Scope::Manage,
        expires: UnixMillis((now + TOKEN_LIFETIME).as_secs().saturating_mul(1_000)),
        not_before: None,
        streams: None,
    };
    Ok(token::sign(&claims, SIGNING_SECRET.as_bytes()))
}

/// A service, and who asks it.
struct Service {
    caller: &'static str,
    url: String,
    token: Option<String>,
}

/// Runs one configuration of `conformance/schemathesis`.
fn requests(context: &Context, name: &str, service: &Service, phases: &str) -> Result<Report> {
    let home = context.paths.conformance().join("schemathesis");
    // It leaves files wherever it runs.
    let scratch = tempfile::tempdir()?;
    let mut command =
        process::command(&context.paths, setup::python_tool(&context.paths, "schemathesis"));
    command.current_dir(scratch.path());
    command.env("SCHEMATHESIS_HOOKS", home.join("hooks.py")).env("SERVICE_URL", &service.url);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("NO_COLOR", "1");
    command.arg("--config-file").arg(home.join(format!("{name}.toml")));
    command.arg("run").arg(document(context)).args(["--url", &service.url]);
    command.args(["--phases", phases, "--max-examples", EXAMPLES_MAX, "--seed", SEED]);
    command.args(["--request-timeout", REQUEST_TIMEOUT_SECONDS]);
    // How slow the machine is, and how many cases a filter leaves out, says nothing of the service.
    command.args(["--suppress-health-check", "all", "--warnings", "off"]);
    authorise(&mut command, service.token.as_deref());
    let log = format!("schemathesis-{name}-{}", service.caller);
    let report = context.check(&log, &mut command)?;
    Ok(counted(report))
}

fn authorise(command: &mut Command, token: Option<&str>) {
    if let Some(token) = token {
        command.env("SERVICE_TOKEN", token);
        command.args(["--header", &format!("Authorization: Bearer {token}")]);
    }
}

fn document(context: &Context) -> PathBuf {
    context.paths.worker().join("src/openapi.json")
}

/// The report of one run, with its cases counted one by one.
fn counted(mut report: Report) -> Report {
    let (passed, found) = count(&report.output);
    report.passed = passed;
    // Without a case nothing was tested, and a run that ends badly has failed whatever it found.
    report.failed = report.failed.max(found).max((passed == 0).into());
    report
}

/// Reads `802 generated, 802 passed` or `630 generated, 7 found 5 unique failures`: cases that are
/// as documented, and failures.
fn count(output: &str) -> (u32, u32) {
    let Some(line) = output.lines().find(|line| line.contains(" generated, ")) else {
        return (0, 0);
    };
    let of = |word| number_before(line, word).unwrap_or_default();
    let bad = of(" found ");
    (of(" generated").saturating_sub(bad), bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_counted() {
        let line = |text: &str| format!("Test cases:\n  {text}\n\nSeed: 1\n");
        assert_eq!(count(&line("802 generated, 802 passed")), (802, 0));
        assert_eq!(count(&line("630 generated, 7 found 5 unique failures")), (623, 7));
        assert_eq!(count("nothing ran"), (0, 0));
    }

    #[test]
    fn a_run_without_cases_has_failed() {
        assert_eq!(counted(Report::single(true, "No tests".into())).failed, 1);
        let all = counted(Report::single(true, "  2 generated, 2 passed".into()));
        assert_eq!((all.passed, all.failed), (2, 0));
    }
}

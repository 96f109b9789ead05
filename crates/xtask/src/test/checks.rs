//! Steps that need nothing but cargo, or not even that.

use anyhow::Result;

use super::{Context, Report};
use crate::{docs, process};

const WASM: &str = "wasm32-unknown-unknown";
/// Crates that are compiled into the Worker.
const WORKER_CRATES: [&str; 5] = [
    "protocol",
    "engine",
    "durable-streams-core",
    "durable-streams-subscription",
    "durable-streams-worker",
];
/// Crates that never see the platform, and what they must not depend on.
pub(super) const PURE_CRATES: [&str; 2] = ["protocol", "engine"];
const PLATFORM_CRATES: [&str; 6] =
    ["worker", "worker-sys", "js-sys", "web-sys", "wasm-bindgen", "wasm-bindgen-futures"];

pub(super) fn fmt(context: &Context) -> Result<Report> {
    cargo(context, "fmt", &["fmt", "--all", "--check"])
}

/// Natively everything, and what becomes the Worker as wasm, where other code is compiled in.
pub(super) fn clippy(context: &Context) -> Result<Report> {
    let mut report = cargo(
        context,
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    let mut wasm = vec!["clippy", "--target", WASM];
    wasm.extend(WORKER_CRATES.iter().flat_map(|name| ["--package", name]));
    wasm.extend(["--", "-D", "warnings"]);
    report.add(&cargo(context, "clippy-wasm", &wasm)?);
    Ok(report)
}

/// With private items, which public ones may link to: these pages are for whoever works on this
/// workspace.
pub(super) fn doc(context: &Context) -> Result<Report> {
    let mut command = process::command(&context.paths, "cargo");
    command
        .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    context.check("doc", &mut command)
}

/// `protocol` and `engine` run natively and on wasm32 because they know no platform.
pub(super) fn deny_deps(context: &Context) -> Result<Report> {
    let mut report = Report::default();
    for name in PURE_CRATES {
        let mut tree = process::command(&context.paths, "cargo");
        tree.args(["tree", "--edges", "normal", "--target", "all", "--prefix", "none"]);
        tree.args(["--package", name]);
        let tree = process::stdout(&mut tree)?;
        let denied: Vec<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|dependency| PLATFORM_CRATES.contains(dependency))
            .collect();
        let output = format!("{name} depends on {denied:?}\n");
        report.add(&Report::single(denied.is_empty(), output));
    }
    Ok(report)
}

/// The pages that are made from the code are the ones on disk.
pub(super) fn docs(context: &Context) -> Result<Report> {
    docs::check(&context.paths)?;
    Ok(Report::single(true, String::new()))
}

/// Unit, property and documentation tests of all crates, natively.
pub(super) fn unit(context: &Context) -> Result<Report> {
    Ok(counted(cargo(context, "unit", &["test", "--workspace", "--no-fail-fast"])?))
}

/// The report of a `cargo test`, with its tests counted one by one.
pub(super) fn counted(mut report: Report) -> Report {
    let (passed, failed) = count(&report.output);
    // Without a failed test it was the compiler: that is one failure.
    report.failed = report.failed.max(failed);
    report.passed = passed;
    report
}

/// Adds up the lines `test result: ok. 3 passed; 1 failed; ...`.
fn count(output: &str) -> (u32, u32) {
    output
        .lines()
        .filter(|line| line.starts_with("test result:"))
        .map(|line| {
            let of = |word| number_before(line, word).unwrap_or_default();
            (of("passed"), of("failed"))
        })
        .fold((0, 0), |sum, line| (sum.0 + line.0, sum.1 + line.1))
}

/// The number that stands before a word in a runner's line.
pub(super) fn number_before(line: &str, word: &str) -> Option<u32> {
    let (before, _) = line.split_once(word)?;
    before.trim_end().rsplit(' ').next()?.parse().ok()
}

fn cargo(context: &Context, log: &str, args: &[&str]) -> Result<Report> {
    context.check(log, process::command(&context.paths, "cargo").args(args))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_binaries() {
        let output = "running 3 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
            test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
            error: test failed";
        assert_eq!(count(output), (13, 2));
    }
}

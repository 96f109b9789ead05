//! The unit and property tests of the pure crates once more, as wasm: what runs natively must do
//! the same where integers of the pointer's size have 32 bits. Node is the host, through WASI.

use anyhow::Result;

use super::checks::PURE_CRATES;
use super::{Context, Report, checks};
use crate::process;
use crate::setup;

const TARGET: &str = "wasm32-wasip1";

pub(super) fn run(context: &Context) -> Result<Report> {
    setup::ensure_target(&context.paths, TARGET)?;
    let runner = context.paths.root().join("crates/xtask/src/test/wasi.mjs");
    let mut command = process::command(&context.paths, "cargo");
    command.args(["test", "--lib", "--no-fail-fast", "--target", TARGET]);
    command.args(PURE_CRATES.iter().flat_map(|name| ["--package", name]));
    command.env(
        "CARGO_TARGET_WASM32_WASIP1_RUNNER",
        format!("node --no-warnings {}", runner.display()),
    );
    let report = context.check("unit-wasm", &mut command)?;
    Ok(checks::counted(report))
}

//! Step `soak-fanout`: a short run of `cargo xtask soak fanout`.

use std::fs::{self, File};

use anyhow::Result;

use super::{Context, Report};
use crate::setup;
use crate::soak::{self, FanoutOptions};

const ROUNDS: u32 = 3;

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    setup::conformance(&context.paths)?;
    fs::create_dir_all(context.paths.logs())?;
    let log = context.paths.logs().join("test-soak-fanout.log");
    let progress = File::create(&log)?;
    let mut output = String::new();
    let options = FanoutOptions { rounds: ROUNDS, ..FanoutOptions::default() };
    let holds = soak::play_fanout(&context.paths, &options, progress.into(), |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    output.push_str(&fs::read_to_string(&log)?);
    Ok(Report::single(holds, output))
}

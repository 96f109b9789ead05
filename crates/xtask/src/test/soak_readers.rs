//! Step `soak-readers`: a short run of `cargo xtask soak readers`.

use std::fs::{self, File};

use anyhow::Result;

use super::{Context, Report};
use crate::setup;
use crate::soak::{self, ReadersOptions};

/// As many as two cores serve beside everything else that a test run does.
const READERS: u32 = 300;
const SECONDS: u32 = 60;

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    setup::conformance(&context.paths)?;
    fs::create_dir_all(context.paths.logs())?;
    let log = context.paths.logs().join("test-soak-readers.log");
    let progress = File::create(&log)?;
    let mut output = String::new();
    let options =
        ReadersOptions { readers: READERS, seconds: SECONDS, ..ReadersOptions::default() };
    let holds = soak::play_readers(&context.paths, &options, progress.into(), |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    output.push_str(&fs::read_to_string(&log)?);
    Ok(Report::single(holds, output))
}

//! Step `demo`: the demonstration is also a test, of the official client across a killed host.

use std::fs::{self, File};

use anyhow::Result;

use super::{Context, Report};
use crate::demo::{self, Options};
use crate::setup;

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    setup::conformance(&context.paths)?;
    fs::create_dir_all(context.paths.logs())?;
    let log = context.paths.logs().join("test-demo.log");
    let progress = File::create(&log)?;
    let mut output = String::new();
    let is_proven = demo::play(&context.paths, &Options::default(), progress.into(), |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    output.push_str(&fs::read_to_string(&log)?);
    Ok(Report::single(is_proven, output))
}

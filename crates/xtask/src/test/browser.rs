//! Step `browser`: the example page in headless Chromium (`conformance/browser`).

use anyhow::Result;

use super::{Context, Report, blackbox};
use crate::setup;

pub(super) fn run(context: &Context) -> Result<Report> {
    setup::conformance(&context.paths)?;
    setup::chromium(&context.paths)?;
    blackbox::suite(context, "browser")
}

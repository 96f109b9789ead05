//! `cargo xtask soak readers`: thousands of live readers of all modes, some of whom stop reading.
//!
//! Node reads, appends and judges (`conformance/soak/readers.mjs`). Here the Worker gets limits
//! under which everything happens within minutes, and the host's console is looked through.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::Result;

use super::kill;
use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::plug::{self, Script, State};
use crate::setup;

/// Catch-ups that are read from segments, SSE connections that end while the soak lasts, and
/// readers that are sent away soon after they have stopped reading.
const VARS: [&str; 3] =
    ["SEGMENT_BYTES=262144", "SSE_LIFETIME_MS=45000", "SLOW_READER_TIMEOUT_MS=10000"];
/// Events that readers never cause, whatever they do.
const DENIED: [&str; 7] = [
    "segment_corrupt",
    "segment_missing",
    "load_failed",
    "alarm_failed",
    "storage_failed",
    "rotate_failed",
    "internal",
];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// How many readers there are at any time
    #[arg(long, default_value_t = Self::default().readers)]
    pub(crate) readers: u32,
    /// How long they read, beside the start and the end
    #[arg(long, default_value_t = Self::default().seconds)]
    pub(crate) seconds: u32,
    /// Seed of what readers and writers decide
    #[arg(long, default_value_t = Self::default().seed)]
    pub(crate) seed: u32,
    /// How they read: long-poll, sse, ws
    #[arg(long, default_value_t = Self::default().modes)]
    pub(crate) modes: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { readers: 2000, seconds: 600, seed: 1, modes: "long-poll,sse,ws".to_owned() }
    }
}

pub(super) fn run(paths: &Paths, options: &Options) -> Result<bool> {
    setup::tools(paths)?;
    setup::conformance(paths)?;
    build::worker(paths, Profile::Release)?;
    play(paths, options, Stdio::inherit(), |line| println!("{line}"))
}

/// Plays it once; `true` when everything holds. `say` gets the lines for people. The Worker must
/// be built.
pub(crate) fn play(
    paths: &Paths,
    options: &Options,
    progress: Stdio,
    mut say: impl FnMut(&str),
) -> Result<bool> {
    let Options { readers, seconds, seed, modes } = options;
    let script = Script {
        path: "soak/readers.mjs",
        args: vec![
            format!("--readers={readers}"),
            format!("--seconds={seconds}"),
            format!("--seed={seed}"),
            format!("--modes={modes}"),
        ],
        port: None,
        vars: VARS.iter().map(|var| (*var).to_owned()).collect(),
        state: State::Disk,
    };
    let mut events = BTreeMap::new();
    let is_satisfied =
        plug::play(paths, &script, progress, &mut say, |log| kill::count(log, &mut events))?;
    let counted: Vec<String> =
        events.iter().map(|(name, lines)| format!("{} {name}", lines.len())).collect();
    say(&format!("soak: the host logged {}", counted.join(", ")));
    let denied: Vec<&String> =
        DENIED.iter().filter_map(|name| events.get(*name)).flatten().collect();
    for line in &denied {
        say(&format!("soak: FAILED: the host logged {line}"));
    }
    Ok(is_satisfied && denied.is_empty())
}

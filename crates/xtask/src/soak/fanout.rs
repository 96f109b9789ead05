//! `cargo xtask soak fanout`: sessions follow sources while the host dies, again and again.
//!
//! Node publishes, subscribes and judges (`conformance/soak/fanout.mjs`), and asks for the kills
//! ([`crate::plug`]). Here the Worker gets limits under which a few hundred sessions need everything that
//! there is: shards, the queue, alarms, and bytes from the object store. The hosts' consoles are
//! looked through as well.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::Result;

use super::kill;
use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::plug::{self, Script, State};
use crate::setup;

/// Sources with a few subscribers, and such with several shards of them; ranges that are cold.
const VARS: [&str; 3] = ["FANOUT_INLINE_MAX=25", "SHARD_MEMBERS_MAX=60", "SEGMENT_BYTES=20000"];
/// Events that a host causes only when something is broken, however often it is killed.
const DENIED: [&str; 6] = [
    "segment_corrupt",
    "segment_missing",
    "load_failed",
    "alarm_failed",
    "storage_failed",
    "fanout_gap",
];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// How often the host is killed
    #[arg(long, default_value_t = Self::default().rounds)]
    pub(crate) rounds: u32,
    /// How many sessions there are
    #[arg(long, default_value_t = Self::default().sessions)]
    pub(crate) sessions: u32,
    /// Seed of the moments and of what is asked
    #[arg(long, default_value_t = Self::default().seed)]
    pub(crate) seed: u32,
    /// Instead of that: one source with so many subscribers, and nobody is killed
    #[arg(long, value_name = "SESSIONS", conflicts_with_all = ["rounds", "sessions", "seed"])]
    pub(crate) wide: Option<u32>,
}

impl Options {
    /// The run with thousands of subscribers of one source.
    pub(crate) fn wide() -> Self {
        Self { wide: Some(5000), ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 30, sessions: 200, seed: 1, wide: None }
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
    let Options { rounds, sessions, seed, wide } = options;
    let (args, vars) = match wide {
        // With the limits of a deployment.
        Some(sessions) => (vec![format!("--wide={sessions}")], Vec::new()),
        None => (
            vec![
                format!("--rounds={rounds}"),
                format!("--sessions={sessions}"),
                format!("--seed={seed}"),
            ],
            VARS.iter().map(|var| (*var).to_owned()).collect(),
        ),
    };
    let state = if wide.is_some() { State::Memory } else { State::Disk };
    let script = Script { path: "soak/fanout.mjs", args, port: None, vars, state };
    let mut events = BTreeMap::new();
    let is_satisfied =
        plug::play(paths, &script, progress, &mut say, |log| kill::count(log, &mut events))?;
    let counted: Vec<String> =
        events.iter().map(|(name, lines)| format!("{} {name}", lines.len())).collect();
    say(&format!("soak: the hosts logged {}", counted.join(", ")));
    let denied: Vec<&String> =
        DENIED.iter().filter_map(|name| events.get(*name)).flatten().collect();
    for line in &denied {
        say(&format!("soak: FAILED: the host logged {line}"));
    }
    Ok(is_satisfied && denied.is_empty())
}

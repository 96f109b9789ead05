//! `cargo xtask soak kill`: the host dies under load, again and again, while it rotates.
//!
//! Node makes the load and judges what became of it (`conformance/soak`), and asks for the kills
//! ([`crate::plug`]). Here the hosts' consoles are looked through: a segment that cannot be read
//! is a failure even if nobody happened to need it.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::Result;
use serde_json::Value;

use crate::build::{self, Profile};
use crate::paths::Paths;
use crate::plug::{self, Script, State};
use crate::setup;

/// Rotation every few appends, objects that are swept soon, and pages of several segments.
const VARS: [&str; 2] = ["SEGMENT_BYTES=600", "SEGMENT_GRACE_MS=500"];
/// Events that a healthy store never causes.
const DENIED: [&str; 5] =
    ["segment_corrupt", "segment_missing", "load_failed", "alarm_failed", "rotate_failed"];
/// Events that are part of the summary.
const COUNTED: [&str; 3] = ["rotated", "upload_failed", "swept"];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// How often the host is killed
    #[arg(long, default_value_t = Self::default().rounds)]
    pub(crate) rounds: u32,
    /// Seed of the moments and of what is asked
    #[arg(long, default_value_t = Self::default().seed)]
    pub(crate) seed: u32,
    /// Do not wait for the uploads that were cut off, which takes a minute
    #[arg(long)]
    pub(crate) hurry: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 100, seed: 1, hurry: false }
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
    let mut args = vec![format!("--rounds={}", options.rounds), format!("--seed={}", options.seed)];
    if options.hurry {
        args.push("--hurry".to_owned());
    }
    let script = Script {
        path: "soak/main.mjs",
        args,
        port: None,
        vars: VARS.iter().map(|var| (*var).to_owned()).collect(),
        state: State::Disk,
    };
    let mut events = BTreeMap::new();
    let is_satisfied =
        plug::play(paths, &script, progress, &mut say, |log| count(log, &mut events))?;
    let of = |name: &str| events.get(name).map_or(0, Vec::len);
    let counted: Vec<String> = COUNTED.iter().map(|name| format!("{} {name}", of(name))).collect();
    say(&format!("soak: the hosts logged {}", counted.join(", ")));
    let denied: Vec<&String> =
        DENIED.iter().filter_map(|name| events.get(*name)).flatten().collect();
    for line in &denied {
        say(&format!("soak: FAILED: the host logged {line}"));
    }
    Ok(is_satisfied && denied.is_empty())
}

/// Sorts the events of a host's console by name.
pub(super) fn count(log: &str, events: &mut BTreeMap<String, Vec<String>>) {
    for line in log.lines() {
        let event = serde_json::from_str::<Value>(line).ok();
        let name = event.as_ref().and_then(|event| event.get("event")).and_then(Value::as_str);
        if let Some(name) = name {
            events.entry(name.to_owned()).or_default().push(line.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_sorted_by_name_and_other_lines_left_out() {
        let mut events = BTreeMap::new();
        let log = "{\"event\":\"swept\"}\nhost: what\n{\"x\":1}\n{\"event\":\"swept\",\"n\":2}\n{";
        count(log, &mut events);
        assert_eq!(events.keys().collect::<Vec<_>>(), ["swept"]);
        assert_eq!(events["swept"].len(), 2);
    }
}

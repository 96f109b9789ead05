//! What is measured: one file a topic, one function a scenario, listed in [`SCENARIOS`].

mod append;
mod cold;
mod cost;
mod fanout;
mod footprint;
mod length;
mod live;
mod memory;
mod read;
mod ws_append;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::host::Host;
use crate::http::{Client, write_request};
use crate::live::Mode;
use crate::load::{self, Expected, Load, Measured, Until};
use crate::report::{Outcome, Target};
use crate::rounds::{Pair, Sample, Settings};
use crate::system;

/// What every scenario needs.
pub(crate) struct Bench {
    pub(crate) root: PathBuf,
    /// Directory for the state of further hosts.
    pub(crate) state: PathBuf,
    pub(crate) ours: Host,
    pub(crate) ceiling: Host,
    pub(crate) settings: Settings,
    /// Of the scenarios before this one.
    pub(crate) peaks: Peaks,
}

/// Largest resident sizes of workerd, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peaks {
    ours: u64,
    ceiling: u64,
}

/// Measures; gets its own name, and returns what it found.
pub(crate) type Scenario = fn(&Bench, &str) -> Result<Vec<Outcome>>;

/// All scenarios, in the order they run.
pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("append-1", append::alone),
    ("append-16", |bench, name| append::together(bench, name, 16, 0.60)),
    ("append-64", |bench, name| append::together(bench, name, 64, 0.75)),
    ("append-256", |bench, name| append::together(bench, name, 256, 0.80)),
    ("append-producer-64", append::producers),
    ("append-json-100", append::batches),
    ("append-1mib", append::large),
    ("read-9kb", read::json),
    ("read-1mib", read::chunks),
    ("read-cold", cold::read),
    ("rotate", cold::rotate),
    ("length-1m", |bench, name| length::compare(bench, name, 1_000_000)),
    ("length-10m", |bench, name| length::compare(bench, name, 10_000_000)),
    ("ws-append-1", ws_append::single),
    ("ws-append-50", ws_append::batches),
    ("live-long-poll-1", |bench, name| live::latency(bench, name, (Mode::LongPoll, 1))),
    ("live-long-poll-100", |bench, name| live::latency(bench, name, (Mode::LongPoll, 100))),
    ("live-long-poll-1000", |bench, name| live::latency(bench, name, (Mode::LongPoll, 1_000))),
    ("live-long-poll-5000", |bench, name| live::latency(bench, name, (Mode::LongPoll, 5_000))),
    ("live-sse-1", |bench, name| live::latency(bench, name, (Mode::Sse, 1))),
    ("live-sse-100", |bench, name| live::latency(bench, name, (Mode::Sse, 100))),
    ("live-sse-1000", |bench, name| live::latency(bench, name, (Mode::Sse, 1_000))),
    ("live-sse-5000", |bench, name| live::latency(bench, name, (Mode::Sse, 5_000))),
    ("live-ws-1", |bench, name| live::latency(bench, name, (Mode::Ws, 1))),
    ("live-ws-100", |bench, name| live::latency(bench, name, (Mode::Ws, 100))),
    ("live-ws-1000", |bench, name| live::latency(bench, name, (Mode::Ws, 1_000))),
    ("live-ws-5000", |bench, name| live::latency(bench, name, (Mode::Ws, 5_000))),
    ("memory-reader", memory::readers),
    ("cost-1", |bench, name| cost::appends(bench, name, (1, 2_000), 1.50)),
    ("cost-64", |bench, name| cost::appends(bench, name, (64, 20_000), 0.75)),
    ("publish-10", |bench, name| fanout::publish(bench, name, 10)),
    ("publish-150", |bench, name| fanout::publish(bench, name, 150)),
    ("publish-1000", |bench, name| fanout::publish(bench, name, 1_000)),
    ("publish-5000", |bench, name| fanout::publish(bench, name, 5_000)),
    ("publish-burst", fanout::burst),
    ("subscribe", fanout::subscribe),
    ("cost-delivery", cost::deliveries),
    ("wasm-size", footprint::wasm_size),
    ("wasm-start", footprint::wasm_start),
    ("memory-peak", footprint::memory),
];

/// Time before a round counts: connections open, the object wakes, code gets hot.
const WARM_UP: Duration = Duration::from_millis(400);

/// Scripts that host the two Workers, from the root of the repository.
pub(crate) const OURS: &str = "wrangler/host.mjs";
pub(crate) const CEILING: &str = "crates/bench/ceiling/host.mjs";

/// The body of most appends.
const SMALL_BODY: [u8; 256] = [b'a'; 256];

const JSON: &str = "content-type: application/json\r\n";
/// Content type of streams whose bytes are not looked at.
const BINARY: &str = "content-type: application/octet-stream\r\n";

impl Bench {
    /// What both hosts wrote to their consoles.
    pub(crate) fn logs(&self) -> String {
        format!("{}{}", self.ours.log(), self.ceiling.log())
    }

    /// The peaks of the scenarios before and of this one.
    pub(crate) fn peaks_now(&self) -> Peaks {
        let peak = |host: &Host| system::peak_memory(host.workerd()).unwrap_or_default();
        Peaks {
            ours: self.peaks.ours.max(peak(&self.ours)),
            ceiling: self.peaks.ceiling.max(peak(&self.ceiling)),
        }
    }

    fn until(&self) -> Until {
        Until::Time { warm_up: WARM_UP, counted: self.settings.counted }
    }

    /// Makes a stream of ours; returns its URL path.
    fn create(&self, name: &str, headers: &str) -> Result<String> {
        create(&self.ours, name, headers)
    }

    /// A further host of ours, with variables of its own.
    fn host_with(&self, name: &str, vars: &[&str]) -> Result<Host> {
        Host::start(&self.root.join(OURS), &self.state.join(name), vars)
    }

    /// A further host of the ceiling.
    fn ceiling_host(&self, name: &str) -> Result<Host> {
        Host::start(&self.root.join(CEILING), &self.state.join(name), &[])
    }

    /// Sends one request over and over.
    fn repeat(
        &self,
        host: &Host,
        connections: usize,
        bytes: &[u8],
        expected: Expected,
    ) -> Result<Measured> {
        let load = Load { port: host.port(), connections, until: self.until(), expected };
        load::run(&load, |_, out| out.extend_from_slice(bytes))
    }
}

/// Makes a stream at a host; returns its URL path.
fn create(host: &Host, name: &str, headers: &str) -> Result<String> {
    let path = format!("/v1/stream/bench/{name}");
    Client::connect(host.port())?.call(("PUT", &path), headers, b"", 201)?;
    Ok(path)
}

/// A request as it goes over the wire.
fn request(method: &str, target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 256);
    write_request(&mut out, method, target, headers, body);
    out
}

const fn status(status: u16) -> Expected {
    Expected { status, body_bytes: None }
}

/// An outcome of a pair: ours, the ceiling, and the ratio of `of`, in multiples of `scale`.
fn outcome(
    name: &str,
    unit: &'static str,
    pair: &Pair,
    (of, scale): (fn(&Sample) -> f64, f64),
    target: Option<Target>,
) -> Outcome {
    eprintln!("    {}", pair.summary());
    Outcome {
        name: name.to_owned(),
        value: pair.ours(of) * scale,
        unit,
        ceiling: Some(pair.other(of) * scale),
        ratio: Some(pair.ratio(of)),
        target,
    }
}

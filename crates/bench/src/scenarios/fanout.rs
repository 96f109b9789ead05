//! Fan-out: publishes to streams with many sessions, and subscribing.
//!
//! Ceiling of a publish: a bare object that has as many others store a row each, all at once, and answers when
//! they have.
//!
//! A publish that is answered `inline` names how many sessions have it. Otherwise the sessions'
//! streams are asked for their tails: a sample after each publish, all of them at the end, so that
//! nothing counts that did not arrive.

use std::cell::Cell;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{Bench, JSON, OURS, outcome, request, status};
use crate::host::Host;
use crate::http::{Client, Parser};
use crate::link;
use crate::load::{self, Load, Measured, Until};
use crate::report::{Outcome, Target};
use crate::rounds::{self, Sample, Settings, alone, interleave, median};

/// Bytes of a message, and of the same as it lies in a stream.
const MESSAGE_BYTES: usize = 256;
const STORED_BYTES: u64 = MESSAGE_BYTES as u64 + 2;

/// Sessions that a publish is answered for, at most, when it has reached all of them.
const INLINE_MAX: usize = 200;

/// Sessions that are asked whether a message has arrived.
const SAMPLE: usize = 8;
const LOOK: Duration = Duration::from_millis(2);
const ARRIVAL_MAX: Duration = Duration::from_secs(60);

/// More sessions than these are not all awake at a time.
const MANY: usize = 1_000;
/// After so long an object sleeps that nobody asks.
const SLEEP: Duration = Duration::from_secs(12);
/// Where Linux has files that are in memory.
const MEMORY: &str = "/dev/shm";

/// Of a burst.
const BURST_MESSAGES: u64 = 1_000;
const BURST_SESSIONS: usize = 150;
const BURST_CONNECTIONS: usize = 64;

/// Connections over which sessions are subscribed outside of a measurement.
const SUBSCRIBING: usize = 8;

/// Publishes one after another to a stream with so many sessions.
pub(super) fn publish(bench: &Bench, name: &str, sessions: usize) -> Result<Vec<Outcome>> {
    link::allow_connections(3 * sessions as u64)?;
    if sessions > INLINE_MAX {
        return queued(bench, name, sessions);
    }
    let host = bench.host_with("fan-out", &[])?;
    let source = Source::make(&host, name, sessions)?;
    let until = bench.until();
    let other = |_| {
        let path = format!("/object/fan/{name}?{sessions}");
        let bytes = request("POST", &path, JSON, &message());
        bench.repeat(&bench.ceiling, 1, &bytes, status(204))
    };
    let ours = |_| source.publish_inline(1, until);
    let pair = interleave(&bench.settings, (&host, ours), (&bench.ceiling, other))?;
    source.check(&mut Client::connect(host.port())?)?;
    let scale = sessions as f64;
    let target = (sessions == BURST_SESSIONS).then_some(Target::RatioMin(0.70));
    let rate = outcome(name, "deliveries/s", &pair, (|s| s.rate, scale), target);
    let quantile = |name: String, unit, of: fn(&Sample) -> f64| Outcome {
        name,
        value: pair.ours(of),
        unit,
        ceiling: Some(pair.other(of)),
        ratio: Some(pair.ratio(of)),
        target: None,
    };
    Ok(vec![
        rate,
        quantile(format!("{name}-p50"), "ms p50", |s| s.p50_ms),
        quantile(format!("{name}-p99"), "ms p99", |s| s.p99_ms),
    ])
}

/// Publishes whose deliveries nobody waits for: each is sent when the one before has arrived everywhere.
///
/// Of thousands of sessions most sleep between two messages: waking one opens three files, of which it makes
/// two. So many have their state in memory, where that costs the same from the first to the last; and
/// nobody publishes before the sessions' objects sleep, whose files would be too many beside their streams'.
fn queued(bench: &Bench, name: &str, sessions: usize) -> Result<Vec<Outcome>> {
    let is_many = sessions > MANY;
    let memory = Path::new(MEMORY);
    let memory = (is_many && memory.is_dir()).then(|| tempfile::tempdir_in(memory)).transpose()?;
    let state = memory.as_ref().map_or(bench.state.as_path(), TempDir::path);
    let host = Host::start(&bench.root.join(OURS), &state.join("fan-out"), &[])?;
    let source = Source::make(&host, name, sessions)?;
    if is_many {
        thread::sleep(SLEEP);
    }
    let settings = Settings { rounds: bench.settings.rounds.min(3), ..bench.settings };
    let publishes = if is_many { 3 } else { 10 };
    let answered = Cell::new(0.0);
    let samples = alone(&settings, source.host, |_| {
        let (arrived, answers) = source.publish_and_wait(publishes)?;
        answered.set(answers.latency_ms(0.5));
        Ok(arrived)
    })?;
    source.check(&mut Client::connect(source.host.port())?)?;
    let rate = single(name, "deliveries/s", &samples, (|s| s.rate, sessions as f64), None);
    let p50 = single(&format!("{name}-p50"), "ms p50", &samples, (|s| s.p50_ms, 1.0), None);
    let p99 = single(&format!("{name}-p99"), "ms p99", &samples, (|s| s.p99_ms, 1.0), None);
    let answer = Outcome { name: format!("{name}-answer"), value: answered.get(), ..p50.clone() };
    eprintln!("    {}", rounds::summary(&samples));
    Ok(vec![rate, p50, p99, answer])
}

/// As many publishes as many connections can, until every session has every message.
pub(super) fn burst(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    let host = bench.host_with("fan-out", &[])?;
    let source = Source::make(&host, name, BURST_SESSIONS)?;
    let samples = alone(&bench.settings, &host, |_| {
        source.publish_inline(BURST_CONNECTIONS, Until::Requests(BURST_MESSAGES))
    })?;
    source.check(&mut Client::connect(host.port())?)?;
    eprintln!("    {}", rounds::summary(&samples));
    let target = Some(Target::ValueMin(25_000.0));
    let scale = BURST_SESSIONS as f64;
    Ok(vec![single(name, "deliveries/s", &samples, (|s| s.rate, scale), target)])
}

/// Subscribing sessions that exist to one more stream, and sessions that do not exist yet.
pub(super) fn subscribe(bench: &Bench, name: &str) -> Result<Vec<Outcome>> {
    const SESSIONS: usize = 50;
    const STREAMS: usize = 8;
    let host = bench.host_with("fan-out", &[])?;
    let known = alone(&bench.settings, &host, |round| {
        let stream = |number| format!("{name}-{round}-{number}");
        let session = |number| format!("{name}-{round}-{number}");
        for number in 0..=STREAMS {
            create(&host, &stream(number))?;
        }
        subscribe_all(&host, SUBSCRIBING, SESSIONS, |at| (session(at), stream(0)))?;
        subscribe_all(&host, 1, SESSIONS * STREAMS, |at| {
            (session(at % SESSIONS), stream(1 + at / SESSIONS))
        })
    })?;
    let new = alone(&bench.settings, &host, |round| {
        create(&host, &format!("{name}-new-{round}"))?;
        subscribe_all(&host, 1, SESSIONS, |at| {
            (format!("{name}-new-{round}-{at}"), format!("{name}-new-{round}"))
        })
    })?;
    eprintln!("    known {}\n    new   {}", rounds::summary(&known), rounds::summary(&new));
    let p50: fn(&Sample) -> f64 = |s| s.p50_ms;
    Ok(vec![
        single(name, "ms p50", &known, (p50, 1.0), Some(Target::ValueMax(3.0))),
        single(&format!("{name}-p99"), "ms p99", &known, (|s| s.p99_ms, 1.0), None),
        single(&format!("{name}-new"), "ms p50", &new, (p50, 1.0), None),
    ])
}

/// A stream with sessions.
pub(super) struct Source<'a> {
    host: &'a Host,
    sessions: Vec<Session>,
    /// A publish as it goes over the wire.
    publish: Vec<u8>,
    published: Cell<u64>,
}

struct Session {
    /// URL path of its stream.
    path: String,
    /// Where its tail was before the first publish.
    start: u64,
}

impl<'a> Source<'a> {
    /// Makes the stream and subscribes so many new sessions.
    pub(super) fn make(host: &'a Host, name: &str, sessions: usize) -> Result<Self> {
        create(host, name)?;
        let session = |number| format!("{name}-{number}");
        subscribe_all(host, SUBSCRIBING, sessions, |at| (session(at), name.to_owned()))?;
        let mut client = Client::connect(host.port())?;
        let sessions = (0..sessions).map(|number| {
            let path = format!("/v1/bench/stream/session/{}?offset=now", session(number));
            let start = tail(&mut client, &path)?;
            Ok(Session { path, start })
        });
        let sessions = sessions.collect::<Result<_>>()?;
        let publish = request("POST", &format!("/v1/bench/publish/{name}"), JSON, &message());
        Ok(Self { host, sessions, publish, published: Cell::new(0) })
    }

    /// Publishes over so many connections, until all sessions have everything. Most answers say so; when one
    /// does not, because the machine was busy, the sessions are asked, and that time counts.
    pub(super) fn publish_inline(&self, connections: usize, until: Until) -> Result<Measured> {
        let load = Load { port: self.host.port(), connections, until, expected: status(204) };
        let wanted = self.sessions.len().to_string();
        let mut late = 0u64;
        let look = |reply: &Parser| {
            let has = |name, value| reply.header(name) == Some(value);
            let is_done =
                has("stream-fanout-mode", "inline") && has("stream-fanout-successes", &wanted);
            late += u64::from(!is_done);
            Ok(())
        };
        let mut measured = load::run_and(&load, |_, out| out.extend(&self.publish), look)
            .with_context(|| self.host.log())?;
        self.published.set(self.published.get() + measured.answered);
        if late > 0 {
            let started = Instant::now();
            self.check(&mut Client::connect(self.host.port())?)?;
            measured.elapsed += started.elapsed();
            eprintln!("    {late} of {} publishes were answered early", measured.answered);
        }
        Ok(measured)
    }

    /// Publishes one after another. Returns how long each took until all sessions had it, and until it was
    /// answered.
    fn publish_and_wait(&self, publishes: u64) -> Result<(Measured, Measured)> {
        let (mut arrived, mut answered) = (Measured::nothing()?, Measured::nothing()?);
        let mut client = Client::connect(self.host.port())?;
        for _ in 0..publishes {
            let started = Instant::now();
            let one = Load {
                port: self.host.port(),
                connections: 1,
                until: Until::Requests(1),
                expected: status(204),
            };
            load::run(&one, |_, out| out.extend(&self.publish))?;
            answered.count(started, Instant::now());
            self.published.set(self.published.get() + 1);
            let step = (self.sessions.len() / SAMPLE).max(1);
            for session in self.sessions.iter().rev().step_by(step) {
                self.wait_for(session, &mut client)?;
            }
            arrived.count(started, Instant::now());
            arrived.answered += 1;
            arrived.elapsed += started.elapsed();
        }
        Ok((arrived, answered))
    }

    /// Waits until a session has everything.
    fn wait_for(&self, session: &Session, client: &mut Client) -> Result<()> {
        let wanted = session.start + self.published.get() * STORED_BYTES;
        let started = Instant::now();
        loop {
            let tail = tail(client, &session.path)?;
            if tail == wanted {
                return Ok(());
            }
            if tail > wanted || started.elapsed() > ARRIVAL_MAX {
                bail!("{} has {tail} instead of {wanted}: {}", session.path, self.host.log());
            }
            thread::sleep(LOOK);
        }
    }

    /// Makes sure that every session has everything, once.
    pub(super) fn check(&self, client: &mut Client) -> Result<()> {
        self.sessions.iter().try_for_each(|session| self.wait_for(session, client))
    }
}

/// A JSON message.
fn message() -> Vec<u8> {
    const FRAME: usize = r#"{"text":""}"#.len();
    format!(r#"{{"text":"{}"}}"#, "a".repeat(MESSAGE_BYTES - FRAME)).into_bytes()
}

fn create(host: &Host, name: &str) -> Result<()> {
    let path = format!("/v1/bench/stream/{name}");
    Client::connect(host.port())?.call(("PUT", &path), JSON, b"", 201)?;
    Ok(())
}

/// Subscribes so many times, each a session to a stream.
fn subscribe_all(
    host: &Host,
    connections: usize,
    times: usize,
    pair: impl Fn(usize) -> (String, String),
) -> Result<Measured> {
    let (port, until) = (host.port(), Until::Requests(times as u64));
    let load = Load { port, connections: connections.min(times), until, expected: status(200) };
    let next = Cell::new(0);
    let measured = load::run(&load, |_, out| {
        let (session, stream) = pair(next.replace(next.get() + 1));
        let body = format!(r#"{{"sessionId":"{session}","streamId":"{stream}"}}"#);
        out.extend(request("POST", "/v1/bench/subscribe", JSON, body.as_bytes()));
    });
    measured.with_context(|| host.log())
}

/// Position of a stream's tail.
fn tail(client: &mut Client, path: &str) -> Result<u64> {
    let reply = client.call(("GET", path), "", b"", 200)?;
    let offset = reply.header("stream-next-offset").context("no stream-next-offset")?;
    let (_, position) = offset.split_once('_').context("an offset without a position")?;
    position.parse().context("a position that is no number")
}

/// An outcome without a ceiling: the median of `of`, in multiples of `scale`.
fn single(
    name: &str,
    unit: &'static str,
    samples: &[Sample],
    (of, scale): (fn(&Sample) -> f64, f64),
    target: Option<Target>,
) -> Outcome {
    let value = median(samples.iter().map(of)) * scale;
    Outcome { name: name.to_owned(), value, unit, ceiling: None, ratio: None, target }
}

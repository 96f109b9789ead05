//! The load generator: a closed loop over keep-alive connections on one thread.
//!
//! Every connection has one request in flight and sends the next as soon as the response is
//! complete, so a rate is `connections / latency` and the server is never asked for more than it
//! answers. One thread and one epoll loop: the generator shares two cores with the server, and
//! what it costs is taken from both sides of a comparison alike.
//!
//! Warm-up requests are answered but not counted. After the deadline nothing new is sent and what
//! is in flight is awaited, so a server is idle when the next measurement starts. Any unexpected
//! status or length ends the benchmark.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use mio::{Events, Poll};

use crate::http::Parser;
use crate::link::{self, Link, READ_BUFFER_BYTES};

/// A server that does not react for so long is broken.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Which request is due: connection, and how many this connection sent before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) connection: usize,
    pub(crate) request: u64,
}

/// What every response has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) status: u16,
    /// Length of the body.
    pub(crate) body_bytes: Option<u64>,
}

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// After a warm-up and a time that counts.
    Time { warm_up: Duration, counted: Duration },
    /// After so many requests; all count.
    Requests(u64),
}

/// What to send to whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) port: u16,
    pub(crate) connections: usize,
    pub(crate) until: Until,
    pub(crate) expected: Expected,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Requests answered within the counted time.
    pub(crate) counted: u64,
    /// Requests answered at all.
    pub(crate) answered: u64,
    pub(crate) elapsed: Duration,
    /// Latencies in microseconds.
    pub(crate) latency_us: Histogram<u64>,
    /// CPU time of the server for what was answered, where it did other things as well.
    pub(crate) server_cpu: Option<Duration>,
}

impl Measured {
    pub(crate) fn nothing() -> Result<Self> {
        Ok(Self {
            counted: 0,
            answered: 0,
            elapsed: Duration::ZERO,
            latency_us: Histogram::new_with_bounds(1, 120_000_000, 3)?,
            server_cpu: None,
        })
    }

    /// Counts one answer to what was sent at `started`.
    pub(crate) fn count(&mut self, started: Instant, now: Instant) {
        self.counted += 1;
        let latency_us = u64::try_from((now - started).as_micros()).unwrap_or(u64::MAX);
        self.latency_us.saturating_record(latency_us);
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.counted as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency, in milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency_us.value_at_quantile(quantile) as f64 / 1000.0
    }
}

struct Connection {
    link: Link,
    parser: Parser,
    started: Instant,
    requests: u64,
    /// Whether a response is awaited.
    waiting: bool,
}

/// The time that counts, and what was counted in it.
pub(crate) struct Window {
    opens: Instant,
    closes: Option<Instant>,
    requests_left: u64,
    measured: Measured,
}

impl Window {
    pub(crate) fn new(until: Until) -> Result<Self> {
        let now = Instant::now();
        let (opens, closes, requests_left) = match until {
            Until::Time { warm_up, counted } => {
                (now + warm_up, Some(now + warm_up + counted), u64::MAX)
            }
            Until::Requests(requests) => (now, None, requests),
        };
        Ok(Self { opens, closes, requests_left, measured: Measured::nothing()? })
    }

    /// Whether one more request may be sent.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let open = self.requests_left > 0 && self.closes.is_none_or(|closes| now < closes);
        if open {
            self.requests_left = self.requests_left.saturating_sub(1);
        }
        open
    }

    pub(crate) fn count(&mut self, started: Instant, now: Instant) {
        self.measured.answered += 1;
        if now >= self.opens && self.closes.is_none_or(|closes| now < closes) {
            self.measured.count(started, now);
        }
    }

    /// What was measured, at the end.
    pub(crate) fn close(mut self) -> Measured {
        self.measured.elapsed = self.closes.unwrap_or_else(Instant::now) - self.opens;
        self.measured
    }
}

/// Runs a load. `request` writes the request of a turn into the (empty) buffer.
///
/// # Errors
/// An unexpected response, a broken connection, a silent server.
pub(crate) fn run(load: &Load, request: impl FnMut(Turn, &mut Vec<u8>)) -> Result<Measured> {
    run_and(load, request, |_| Ok(()))
}

/// Runs a load and shows every answer to `look`.
///
/// # Errors
/// Those of [`run`], and of `look`.
pub(crate) fn run_and(
    load: &Load,
    mut request: impl FnMut(Turn, &mut Vec<u8>),
    mut look: impl FnMut(&Parser) -> Result<()>,
) -> Result<Measured> {
    let mut poll = Poll::new()?;
    let mut connections = connect(load, &poll)?;
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    let mut window = Window::new(load.until)?;
    for (index, connection) in connections.iter_mut().enumerate() {
        if window.take(Instant::now()) {
            connection.send(index, &mut request)?;
        }
    }
    let mut active = connections.iter().filter(|connection| connection.waiting).count();
    while active > 0 {
        link::wait(&mut poll, &mut events, SILENCE_MAX)?;
        if events.is_empty() {
            bail!("{active} requests unanswered for {SILENCE_MAX:?}");
        }
        for event in &events {
            let index = event.token().0;
            let Some(connection) = connections.get_mut(index) else { continue };
            if event.is_writable() {
                connection.link.flush()?;
            }
            if !event.is_readable() || !connection.receive(&mut buffer)? {
                continue;
            }
            let now = Instant::now();
            connection.check(load.expected)?;
            look(&connection.parser)?;
            window.count(connection.started, now);
            if window.take(now) {
                connection.send(index, &mut request)?;
            } else {
                active -= 1;
            }
        }
    }
    Ok(window.close())
}

fn connect(load: &Load, poll: &Poll) -> Result<Vec<Connection>> {
    (0..load.connections)
        .map(|index| {
            Ok(Connection {
                link: Link::connect(load.port, poll, index)?,
                parser: Parser::counting(),
                started: Instant::now(),
                requests: 0,
                waiting: false,
            })
        })
        .collect()
}

impl Connection {
    fn send(&mut self, index: usize, request: &mut impl FnMut(Turn, &mut Vec<u8>)) -> Result<()> {
        let turn = Turn { connection: index, request: self.requests };
        self.requests += 1;
        self.parser.reset();
        self.waiting = true;
        self.started = Instant::now();
        self.link.send(|out| request(turn, out))
    }

    /// Reads what there is; `true` when the response is complete.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let (mut done, waiting) = (false, self.waiting);
        self.link.receive(buffer, |bytes| {
            if !waiting {
                bail!("bytes that nobody asked for");
            }
            done |= self.parser.push(bytes)?;
            Ok(())
        })?;
        self.waiting &= !done;
        Ok(done)
    }

    fn check(&self, expected: Expected) -> Result<()> {
        let length = self.parser.body_bytes();
        if self.parser.status() != expected.status {
            bail!("expected status {}, got {}", expected.status, self.parser.excerpt());
        }
        match expected.body_bytes {
            Some(wanted) if wanted != length => {
                bail!("expected {wanted} bytes, got {length}: {}", self.parser.excerpt())
            }
            _ => Ok(()),
        }
    }
}

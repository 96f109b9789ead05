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

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::http::Parser;

/// A server that does not react for so long is broken.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const READ_BUFFER_BYTES: usize = 256 << 10;

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
}

impl Measured {
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
    stream: TcpStream,
    out: Vec<u8>,
    /// Bytes of `out` that were sent.
    sent: usize,
    parser: Parser,
    started: Instant,
    requests: u64,
    /// Whether a response is awaited.
    waiting: bool,
}

/// The time that counts, and what was counted in it.
struct Window {
    opens: Instant,
    closes: Option<Instant>,
    requests_left: u64,
    measured: Measured,
}

impl Window {
    fn new(until: Until) -> Result<Self> {
        let now = Instant::now();
        let (opens, closes, requests_left) = match until {
            Until::Time { warm_up, counted } => {
                (now + warm_up, Some(now + warm_up + counted), u64::MAX)
            }
            Until::Requests(requests) => (now, None, requests),
        };
        let measured = Measured {
            counted: 0,
            answered: 0,
            elapsed: Duration::ZERO,
            latency_us: Histogram::new_with_bounds(1, 120_000_000, 3)?,
        };
        Ok(Self { opens, closes, requests_left, measured })
    }

    /// Whether one more request may be sent.
    fn take(&mut self, now: Instant) -> bool {
        let open = self.requests_left > 0 && self.closes.is_none_or(|closes| now < closes);
        if open {
            self.requests_left = self.requests_left.saturating_sub(1);
        }
        open
    }

    fn count(&mut self, started: Instant, now: Instant) {
        self.measured.answered += 1;
        if now < self.opens || self.closes.is_some_and(|closes| now >= closes) {
            return;
        }
        self.measured.counted += 1;
        let latency_us = u64::try_from((now - started).as_micros()).unwrap_or(u64::MAX);
        self.measured.latency_us.saturating_record(latency_us);
    }
}

/// Runs a load. `request` writes the request of a turn into the (empty) buffer.
///
/// # Errors
/// An unexpected response, a broken connection, a silent server.
pub(crate) fn run(load: &Load, mut request: impl FnMut(Turn, &mut Vec<u8>)) -> Result<Measured> {
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
        poll.poll(&mut events, Some(SILENCE_MAX)).or_else(ignore_interruption)?;
        if events.is_empty() {
            bail!("{active} requests unanswered for {SILENCE_MAX:?}");
        }
        for event in &events {
            let index = event.token().0;
            let Some(connection) = connections.get_mut(index) else { continue };
            if event.is_writable() {
                connection.flush()?;
            }
            if !event.is_readable() || !connection.receive(&mut buffer)? {
                continue;
            }
            let now = Instant::now();
            connection.check(load.expected)?;
            window.count(connection.started, now);
            if window.take(now) {
                connection.send(index, &mut request)?;
            } else {
                active -= 1;
            }
        }
    }
    let end = window.closes.unwrap_or_else(Instant::now);
    window.measured.elapsed = end - window.opens;
    Ok(window.measured)
}

fn connect(load: &Load, poll: &Poll) -> Result<Vec<Connection>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, load.port));
    (0..load.connections)
        .map(|index| {
            // Connected while blocking: the backlog is shorter than the largest scenario.
            let stream = std::net::TcpStream::connect(address).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), interest)?;
            Ok(Connection {
                stream,
                out: Vec::new(),
                sent: 0,
                parser: Parser::counting(),
                started: Instant::now(),
                requests: 0,
                waiting: false,
            })
        })
        .collect()
}

fn ignore_interruption(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

impl Connection {
    fn send(&mut self, index: usize, request: &mut impl FnMut(Turn, &mut Vec<u8>)) -> Result<()> {
        self.out.clear();
        self.sent = 0;
        request(Turn { connection: index, request: self.requests }, &mut self.out);
        self.requests += 1;
        self.parser.reset();
        self.waiting = true;
        self.started = Instant::now();
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        while let Some(rest) = self.out.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }

    /// Reads what there is; `true` when the response is complete.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut done = false;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(read) => {
                    if !self.waiting {
                        bail!("bytes that nobody asked for");
                    }
                    done |= self.parser.push(buffer.get(..read).unwrap_or_default())?;
                    // A short read has emptied the socket: what comes later is a new event.
                    if read < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("receiving"),
            }
        }
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

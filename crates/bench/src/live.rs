//! The load generator of live readers: many of them on one stream, and one writer.
//!
//! All readers and the writer share one thread and one epoll loop. Every write ends in a marker,
//! `<00000012>`, its number; a reader looks for markers in the bytes as they stream past and takes
//! nothing else apart. Markers must come in order, each once, at every reader: anything else ends
//! the benchmark.
//!
//! A write counts from the moment its request is sent to the moment the last reader has its
//! marker. Writes are [`INTERVAL`] apart, or as far as they take: the next one is sent when the one
//! before has reached everybody. So a service that cannot keep up with the pace is measured by how
//! long a write takes, not by how long the queue grew in the time of a round.
//!
//! A long-poll reader asks again, from the offset of its last answer, at once. One that is between
//! two requests gets the write as soon as it asks. An overloaded workerd closes connections whose
//! request it does not come to read in time; where nothing of an answer has come, the client
//! connects again, as any would, and so does the writer between two writes. That is counted and
//! told.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::event::Event;
use mio::{Events, Poll};

use crate::http::{Parser, write_request};
use crate::link::{self, Connection, Link, READ_BUFFER_BYTES};
use crate::load::{Measured, SILENCE_MAX};
use crate::system;
use crate::ws::{self, Incoming};

/// Token of the writer's connection; a reader's is its index.
const WRITER: usize = usize::MAX >> 1;
/// Time between two writes.
const INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of a write, with its marker.
const WRITE_BYTES: usize = 256;
const MARKER_DIGITS: usize = 8;
/// Writes that are delivered before those that count.
const WARM_UP_WRITES: u64 = 1;
/// Readers that ask at once; the others follow when they are attached. An overloaded server closes
/// connections whose first request it does not come to read.
const ATTACHING_MAX: usize = 250;
/// Connections that may be closed before the server counts as broken.
const RECONNECTS_MAX: u64 = 10_000;
/// Part of its files that a server may keep open of those it opened for readers, once they have
/// left: databases and pipes come and go.
const FILES_KEPT: usize = 256;
/// How often the server is made to look whether its readers are still there.
const LEAVE_WRITES_MAX: usize = 20;
/// What is written is text, so that no mode encodes it.
pub(crate) const TEXT: &str = "content-type: text/plain\r\n";

/// How readers read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    LongPoll,
    Sse,
    Ws,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::LongPoll => "long-poll",
            Self::Sse => "sse",
            Self::Ws => "ws",
        }
    }
}

/// What is read and written.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A stream of ours: its path, and its tail.
    Stream { path: String, tail: String },
    /// What the ceiling has under this name.
    Bare { name: String },
}

impl Source {
    /// Target of a reader's request that has seen so many writes, and whose last answer named
    /// this offset.
    fn read(&self, mode: Mode, seen: u64, offset: Option<&str>) -> String {
        let mode = mode.word();
        match self {
            Self::Stream { path, tail } => {
                format!("{path}?offset={}&live={mode}", offset.unwrap_or(tail))
            }
            Self::Bare { name } => format!("/edge/{mode}/{name}?{seen}"),
        }
    }

    /// Target of an append.
    pub(crate) fn write(&self) -> String {
        match self {
            Self::Stream { path, .. } => path.clone(),
            Self::Bare { name } => format!("/object/live/{name}"),
        }
    }
}

/// Finds markers in a stream of bytes.
#[derive(Debug, Default)]
struct Markers {
    /// Digits of the marker that has begun; `None` outside of one.
    digits: Option<usize>,
    number: u64,
    /// Number of the next marker.
    next: u64,
}

impl Markers {
    fn scan(&mut self, mut bytes: &[u8]) -> Result<()> {
        loop {
            if self.digits.is_none() {
                let Some(at) = bytes.iter().position(|&byte| byte == b'<') else { return Ok(()) };
                bytes = bytes.get(at + 1..).unwrap_or_default();
                (self.digits, self.number) = (Some(0), 0);
            }
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            match (byte, self.digits) {
                (b'0'..=b'9', Some(digits)) if digits < MARKER_DIGITS => {
                    self.digits = Some(digits + 1);
                    self.number = self.number * 10 + u64::from(byte - b'0');
                }
                (b'>', Some(MARKER_DIGITS)) => {
                    if self.number != self.next {
                        bail!("a reader got write {} instead of {}", self.number, self.next);
                    }
                    self.next += 1;
                    self.digits = None;
                }
                _ => bail!("a marker with {:?} in it", char::from(byte)),
            }
        }
    }
}

fn body(write: u64) -> Vec<u8> {
    let marker = format!("<{write:0MARKER_DIGITS$}>");
    let mut body = vec![b'a'; WRITE_BYTES - marker.len()];
    body.extend_from_slice(marker.as_bytes());
    body
}

#[derive(Debug)]
enum Protocol {
    Http(Parser),
    Ws(Incoming),
}

/// What has come to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Received {
    /// More is to come.
    Part,
    /// The last of a response.
    Response,
    /// The server has closed the connection.
    End,
}

#[derive(Debug)]
struct Reader {
    link: Link,
    protocol: Protocol,
    markers: Markers,
    /// Where the last answer of a long-poll said to go on.
    offset: Option<String>,
}

impl Reader {
    fn ask(&mut self, mode: Mode, source: &Source) -> Result<()> {
        let target = source.read(mode, self.markers.next, self.offset.as_deref());
        let headers = if mode == Mode::Ws { ws::UPGRADE } else { "" };
        self.link.send(|out| write_request(out, "GET", &target, headers, b""))
    }

    /// Whether the server has begun to answer.
    fn is_attached(&self) -> bool {
        match &self.protocol {
            Protocol::Http(parser) => parser.has_head(),
            Protocol::Ws(incoming) => incoming.is_open(),
        }
    }

    /// Takes what has come.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        let mut done = false;
        let (protocol, markers) = (&mut self.protocol, &mut self.markers);
        let connection = self.link.receive_or_end(buffer, |bytes| match protocol {
            Protocol::Http(parser) => {
                done |= parser.push_and(bytes, &mut |part| markers.scan(part))?;
                Ok(())
            }
            Protocol::Ws(incoming) => incoming.push(bytes, &mut |part| markers.scan(part.bytes)),
        })?;
        Ok(match (connection, done) {
            (_, true) => Received::Response,
            (Connection::Open, false) => Received::Part,
            (Connection::Closed, false) => Received::End,
        })
    }

    /// What follows a complete response: a long-poll asks again.
    fn go_on(&mut self, mode: Mode, source: &Source) -> Result<()> {
        let Protocol::Http(parser) = &mut self.protocol else { return Ok(()) };
        if mode != Mode::LongPoll || !matches!(parser.status(), 200 | 204) {
            bail!("a live read ended: {}", parser.excerpt());
        }
        self.offset = parser.header("stream-next-offset").map(str::to_owned);
        parser.reset();
        self.ask(mode, source)
    }

    /// Asks once more on a connection of its own, when the server has closed one without a word.
    fn connect_again(&mut self, link: Link, mode: Mode, source: &Source) -> Result<()> {
        if self.is_attached() {
            let seen = self.markers.next;
            bail!("the server closed an attached reader that has {seen} writes");
        }
        self.link = link;
        self.ask(mode, source)
    }
}

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    /// Absent when the server has closed it between two writes.
    link: Option<Link>,
    parser: Parser,
    writes: u64,
    answered: u64,
}

impl Writer {
    fn write(&mut self, source: &Source) -> Result<()> {
        let body = body(self.writes);
        self.writes += 1;
        self.parser.reset();
        let link = self.link.as_mut().context("the writer has no connection")?;
        link.send(|out| write_request(out, "POST", &source.write(), TEXT, &body))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.flush()?;
        let parser = &mut self.parser;
        let mut done = false;
        let connection = link.receive_or_end(buffer, |bytes| {
            done |= parser.push(bytes)?;
            Ok(())
        })?;
        if done {
            if parser.status() != 204 {
                bail!("a write was refused: {}", parser.excerpt());
            }
            self.answered += 1;
        }
        if connection == Connection::Closed {
            if self.answered < self.writes {
                bail!("the server closed the connection of a write");
            }
            self.link = None;
        }
        Ok(())
    }
}

/// Readers that are attached to one source, and its writer.
pub(crate) struct Audience {
    port: u16,
    mode: Mode,
    source: Source,
    poll: Poll,
    readers: Vec<Reader>,
    writer: Writer,
    /// Readers that the server answers.
    attached: usize,
    /// Readers that have every write.
    complete: usize,
    /// Connections that the server has closed between two requests.
    reconnects: u64,
    buffer: Vec<u8>,
}

impl Audience {
    /// Attaches readers. Those of SSE and WebSocket are known to be attached afterwards; of a
    /// long-poll only its answer is ever seen.
    pub(crate) fn attach(port: u16, mode: Mode, readers: usize, source: Source) -> Result<Self> {
        let mut audience = Self {
            port,
            mode,
            source,
            poll: Poll::new()?,
            readers: Vec::with_capacity(readers),
            writer: Writer { link: None, parser: Parser::counting(), writes: 0, answered: 0 },
            attached: 0,
            complete: readers,
            reconnects: 0,
            buffer: vec![0; READ_BUFFER_BYTES],
        };
        for index in 0..readers {
            audience.add(index)?;
            let wave = index + 1;
            if mode != Mode::LongPoll && (wave % ATTACHING_MAX == 0 || wave == readers) {
                audience.run_until(|audience| audience.attached == wave)?;
            }
        }
        Ok(audience)
    }

    fn add(&mut self, index: usize) -> Result<()> {
        let protocol = match self.mode {
            Mode::Ws => Protocol::Ws(Incoming::new()),
            Mode::Sse | Mode::LongPoll => Protocol::Http(Parser::counting()),
        };
        let link = Link::connect(self.port, &self.poll, index)?;
        let mut reader = Reader { link, protocol, markers: Markers::default(), offset: None };
        reader.ask(self.mode, &self.source)?;
        self.readers.push(reader);
        Ok(())
    }

    /// Reads on for a while.
    pub(crate) fn idle(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.turn(left)?;
        }
        Ok(())
    }

    /// Writes one after the other, each to everybody. The CPU time is the one of `server` for all
    /// writes, those of the warm-up included.
    pub(crate) fn measure(&mut self, writes: u64, server: u32) -> Result<Measured> {
        let mut measured = Measured::nothing()?;
        let cpu = || system::cpu_time(server).unwrap_or_default();
        let cpu_before = cpu();
        let mut opens = Instant::now();
        for number in 0..WARM_UP_WRITES + writes {
            if number == WARM_UP_WRITES {
                opens = Instant::now();
            }
            let (sent, received) = self.deliver()?;
            measured.answered += self.readers.len() as u64;
            if number >= WARM_UP_WRITES {
                measured.count(sent, received);
            }
            self.idle((sent + INTERVAL).saturating_duration_since(Instant::now()))?;
        }
        if self.reconnects > 0 {
            eprintln!("    {} connections were closed between requests", self.reconnects);
        }
        measured.elapsed = opens.elapsed();
        measured.server_cpu = Some(cpu().saturating_sub(cpu_before));
        Ok(measured)
    }

    /// Closes the readers' connections and waits until the server has noticed: it has
    /// `files_before` open files again. It looks at a reader only when it writes to it, and until
    /// then each one costs it two files. Those of two rounds are more than a process may have.
    pub(crate) fn leave(mut self, server: u32, files_before: Option<usize>) -> Result<()> {
        let Some(before) = files_before else { return Ok(()) };
        self.readers.clear();
        self.complete = 0;
        for _ in 0..LEAVE_WRITES_MAX {
            let open = system::open_files(server).unwrap_or_default();
            if open <= before + FILES_KEPT {
                return Ok(());
            }
            self.deliver()?;
            self.idle(Duration::from_secs(1))?;
        }
        bail!("the server does not notice that its readers have left");
    }

    /// One write: when it was sent, and when the last reader had it.
    fn deliver(&mut self) -> Result<(Instant, Instant)> {
        self.complete = 0;
        if self.writer.link.is_none() {
            self.writer.link = Some(Link::connect(self.port, &self.poll, WRITER)?);
        }
        let sent = Instant::now();
        self.writer.write(&self.source)?;
        self.run_until(|audience| audience.complete == audience.readers.len())?;
        let received = Instant::now();
        // Nearly always answered before.
        self.run_until(|audience| audience.writer.answered == audience.writer.writes)?;
        Ok((sent, received))
    }

    fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let mut progress = Instant::now();
        while !done(self) {
            if self.turn(SILENCE_MAX)? {
                progress = Instant::now();
            } else if progress.elapsed() > SILENCE_MAX {
                let (mode, readers) = (self.mode.word(), self.readers.len());
                let (attached, complete) = (self.attached, self.complete);
                bail!(
                    "{mode}: of {readers} readers {attached} are answered and {complete} have \
                     write {}, and nothing has come for {SILENCE_MAX:?}",
                    self.writer.writes
                );
            }
        }
        Ok(())
    }

    /// Takes the events that there are, or waits for some. Whether a reader got any further.
    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        let mut events = Events::with_capacity(1024);
        link::wait(&mut self.poll, &mut events, timeout)?;
        let mut progress = false;
        for event in &events {
            let index = event.token().0;
            if index == WRITER {
                self.writer.receive(&mut self.buffer)?;
                progress = true;
            } else {
                progress |= self.serve(index, event)?;
            }
        }
        Ok(progress)
    }

    /// Takes an event of a reader. Whether it got any further.
    fn serve(&mut self, index: usize, event: &Event) -> Result<bool> {
        let Some(reader) = self.readers.get_mut(index) else { return Ok(false) };
        if event.is_writable() {
            reader.link.flush()?;
        }
        if !event.is_readable() {
            return Ok(false);
        }
        let (was_attached, seen) = (reader.is_attached(), reader.markers.next);
        let received = reader.receive(&mut self.buffer).with_context(|| self.mode.word())?;
        self.attached += usize::from(!was_attached && reader.is_attached());
        let now_seen = reader.markers.next;
        self.complete += usize::from(now_seen > seen && now_seen == self.writer.writes);
        match received {
            Received::Part => {}
            Received::Response => reader.go_on(self.mode, &self.source)?,
            Received::End => {
                self.reconnects += 1;
                if self.reconnects > RECONNECTS_MAX {
                    bail!("the server has closed {} connections", self.reconnects);
                }
                let link = Link::connect(self.port, &self.poll, index)?;
                reader.connect_again(link, self.mode, &self.source)?;
            }
        }
        Ok(!was_attached || now_seen > seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_in_every_way_of_cutting() {
        let bytes = [b"data: ".as_slice(), &body(0), b"\n\n", &body(1), b"a"].concat();
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let mut markers = Markers::default();
            markers.scan(first).unwrap();
            markers.scan(second).unwrap();
            assert_eq!(markers.next, 2, "cut at {cut}");
        }
    }

    #[test]
    fn a_write_that_is_missing_doubled_or_torn_is_an_error() {
        let scan = |bytes: &[u8]| Markers::default().scan(bytes);
        assert!(scan(&body(1)).is_err());
        assert!(scan(&[body(0), body(0)].concat()).is_err());
        assert!(scan(b"<0000a").is_err());
        assert!(scan(b"<000000000>").is_err());
    }

    #[test]
    fn a_write_has_its_size_and_ends_in_its_marker() {
        assert_eq!(body(12).len(), WRITE_BYTES);
        assert!(body(12).ends_with(b"<00000012>"));
    }
}

//! As much of HTTP/1.1 as a load generator needs: an incremental response parser, and a blocking
//! client for what happens outside of a measurement.
//!
//! One request is in flight on a connection, so bytes after the end of a response are an error.
//! Bodies come with `Content-Length` or chunked; one that ends with the connection is refused.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest head of a response.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest line of a chunked body.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Bytes of a body that are kept when the caller does not want them, for error messages.
const EXCERPT_BYTES: usize = 512;
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of the body that are missing.
    Length(u64),
    ChunkSize,
    /// Bytes of the chunk that are missing.
    Chunk(u64),
    /// The line end after a chunk's bytes.
    ChunkEnd,
    Trailer,
    Done,
}

/// Takes responses apart as their bytes arrive.
#[derive(Debug)]
pub(crate) struct Parser {
    state: State,
    /// Status line and headers, without the empty line.
    head: Vec<u8>,
    line: Vec<u8>,
    body: Vec<u8>,
    keep: usize,
    body_bytes: u64,
    status: u16,
}

impl Parser {
    /// A parser that counts bodies.
    pub(crate) fn counting() -> Self {
        Self::keeping(EXCERPT_BYTES)
    }

    fn keeping(keep: usize) -> Self {
        Self {
            state: State::Head,
            head: Vec::with_capacity(1024),
            line: Vec::new(),
            body: Vec::new(),
            keep,
            body_bytes: 0,
            status: 0,
        }
    }

    /// Makes the parser ready for the next response.
    pub(crate) fn reset(&mut self) {
        self.state = State::Head;
        self.head.clear();
        self.line.clear();
        self.body.clear();
        self.body_bytes = 0;
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Length of the body, decoded.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// What the server said, shortened, for an error message.
    pub(crate) fn excerpt(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        let first = head.lines().next().unwrap_or_default();
        format!("{first} {}", String::from_utf8_lossy(&self.body))
    }

    /// The value of a header; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let head = std::str::from_utf8(&self.head).ok()?;
        head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Whether the head of the response is there.
    pub(crate) fn has_head(&self) -> bool {
        self.state != State::Head
    }

    /// Takes the next bytes; `true` when the response is complete.
    ///
    /// # Errors
    /// What is not HTTP as described above.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<bool> {
        self.push_and(bytes, &mut |_| Ok(()))
    }

    /// Takes the next bytes and shows those of the body, decoded, to `sink`; `true` when the
    /// response is complete.
    ///
    /// # Errors
    /// What is not HTTP as described above; errors of `sink`.
    pub(crate) fn push_and(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<bool> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.push_head(bytes)?,
                State::Length(missing) => {
                    let (taken, rest) = self.take_body(bytes, missing, sink)?;
                    let missing = missing - taken;
                    self.state = if missing == 0 { State::Done } else { State::Length(missing) };
                    rest
                }
                State::Chunk(missing) => {
                    let (taken, rest) = self.take_body(bytes, missing, sink)?;
                    let missing = missing - taken;
                    self.state = if missing == 0 { State::ChunkEnd } else { State::Chunk(missing) };
                    rest
                }
                State::ChunkSize | State::ChunkEnd | State::Trailer => self.push_line(bytes)?,
                State::Done => bail!("bytes after the end of a response"),
            };
        }
        Ok(self.state == State::Done)
    }

    fn push_head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        const END: &[u8] = b"\r\n\r\n";
        let known = self.head.len();
        self.head.extend_from_slice(bytes);
        let from = known.saturating_sub(END.len() - 1);
        let unseen = self.head.get(from..).unwrap_or_default();
        let Some(at) = unseen.windows(END.len()).position(|window| window == END) else {
            if self.head.len() > HEAD_BYTES_MAX {
                bail!("a head of more than {HEAD_BYTES_MAX} bytes");
            }
            return Ok(&[]);
        };
        let end = from + at;
        let rest = bytes.get(end + END.len() - known..).unwrap_or_default();
        self.head.truncate(end);
        self.read_head()?;
        Ok(rest)
    }

    fn read_head(&mut self) -> Result<()> {
        let head = std::str::from_utf8(&self.head).context("a head that is not UTF-8")?;
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        self.status = status.and_then(|text| text.parse().ok()).context("no HTTP/1.1 status")?;
        let chunked = self
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let length = self.header("content-length").map(str::parse::<u64>);
        self.state = match (self.status, chunked, length) {
            (204 | 304, ..) | (_, false, Some(Ok(0))) => State::Done,
            (_, true, _) => State::ChunkSize,
            (_, false, Some(Ok(length))) => State::Length(length),
            _ => bail!("a body of unknown length: {}", self.excerpt()),
        };
        Ok(())
    }

    fn take_body<'a>(
        &mut self,
        bytes: &'a [u8],
        missing: u64,
        sink: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<(u64, &'a [u8])> {
        let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
        let (part, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
        let room = self.keep.saturating_sub(self.body.len());
        self.body.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        self.body_bytes += part.len() as u64;
        sink(part)?;
        Ok((part.len() as u64, rest))
    }

    fn push_line<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        let Some(at) = bytes.iter().position(|&byte| byte == b'\n') else {
            self.line.extend_from_slice(bytes);
            if self.line.len() > LINE_BYTES_MAX {
                bail!("a line of more than {LINE_BYTES_MAX} bytes in a chunked body");
            }
            return Ok(&[]);
        };
        let (part, rest) = bytes.split_at_checked(at + 1).unwrap_or((bytes, &[]));
        self.line.extend_from_slice(part);
        let line =
            std::str::from_utf8(&self.line).context("a chunk line that is not UTF-8")?.trim();
        self.state = match self.state {
            State::ChunkSize => {
                let digits = line.split(';').next().unwrap_or_default();
                match u64::from_str_radix(digits, 16).context("no chunk size")? {
                    0 => State::Trailer,
                    size => State::Chunk(size),
                }
            }
            State::ChunkEnd if line.is_empty() => State::ChunkSize,
            State::Trailer if line.is_empty() => State::Done,
            State::Trailer => State::Trailer,
            state => bail!("unexpected line in a chunked body ({state:?})"),
        };
        self.line.clear();
        Ok(rest)
    }
}

/// Appends a request to `out`. `headers` are whole lines, each with its line end.
pub(crate) fn write_request(
    out: &mut Vec<u8>,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: localhost\r\n");
    out.extend_from_slice(headers.as_bytes());
    if method != "GET" {
        out.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// A blocking keep-alive connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    parser: Parser,
    out: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, parser: Parser::keeping(usize::MAX), out: Vec::new() })
    }

    /// Sends a request and returns the response, which must have the status `expected`.
    ///
    /// # Errors
    /// Another status, with what the server said; a connection that fails.
    pub(crate) fn call(
        &mut self,
        request: (&str, &str),
        headers: &str,
        body: &[u8],
        expected: u16,
    ) -> Result<&Parser> {
        let (method, target) = request;
        self.out.clear();
        write_request(&mut self.out, method, target, headers, body);
        self.stream.write_all(&self.out)?;
        self.parser.reset();
        let mut buffer = [0; 16 << 10];
        loop {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                bail!("{method} {target}: the server closed the connection");
            }
            if self.parser.push(buffer.get(..read).unwrap_or_default())? {
                break;
            }
        }
        if self.parser.status() != expected {
            bail!("{method} {target}: expected {expected}, got {}", self.parser.excerpt());
        }
        Ok(&self.parser)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way of cutting the bytes gives the same response.
    fn parse_in_all_cuts(bytes: &[u8]) -> (u16, Vec<u8>) {
        let mut found = None;
        for cut in 0..bytes.len() {
            let mut parser = Parser::keeping(usize::MAX);
            let (first, second) = bytes.split_at(cut);
            assert!(!parser.push(first).unwrap());
            assert!(parser.push(second).unwrap());
            assert_eq!(parser.body_bytes(), parser.body.len() as u64);
            let response = (parser.status(), parser.body);
            assert_eq!(*found.get_or_insert(response.clone()), response);
        }
        found.unwrap()
    }

    #[test]
    fn bodies_have_a_length_or_chunks_or_are_absent() {
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(parse_in_all_cuts(length), (200, b"hello".to_vec()));
        let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
            2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(parse_in_all_cuts(chunks), (200, b"hello".to_vec()));
        assert_eq!(parse_in_all_cuts(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"), (204, vec![]));
    }

    #[test]
    fn what_is_not_a_response_is_refused() {
        for bytes in [
            &b"HTTP/1.0 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
        ] {
            assert!(Parser::counting().push(bytes).is_err());
        }
    }

    #[test]
    fn headers_are_found_by_name() {
        let mut parser = Parser::counting();
        parser.push(b"HTTP/1.1 204 No Content\r\nStream-Next-Offset: 1_2\r\n\r\n").unwrap();
        assert_eq!(parser.header("stream-next-offset"), Some("1_2"));
        assert_eq!(parser.header("etag"), None);
    }
}

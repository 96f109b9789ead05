//! As much of WebSocket (RFC 6455) as a load generator needs: the request for one, frames of the
//! client, and an incremental parser of what the server sends.
//!
//! No extension is offered, so none is used; the server's key is not checked. Fragments are shown
//! as they come, so a message of several frames ends with the frame that says so.

use anyhow::{Context, Result, bail};

/// Headers that ask for a WebSocket.
pub(crate) const UPGRADE: &str = "upgrade: websocket\r\nconnection: upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    sec-websocket-protocol: durable-streams.v1\r\n";

/// Longest head of a response.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest head of a frame without mask.
const FRAME_HEAD_BYTES_MAX: usize = 10;

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Appends a text frame to `out`. The mask is zero: nothing on the way caches by content.
pub(crate) fn write_text(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(FINAL | TEXT);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => out.push(MASKED | length),
        (_, Ok(length)) => {
            out.push(MASKED | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// A part of a message of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) bytes: &'a [u8],
    /// Whether the message ends with it.
    pub(crate) last: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The answer to the request for a socket.
    Answer,
    FrameHead,
    /// Bytes of the frame that are missing.
    Payload {
        kind: u8,
        last: bool,
        missing: u64,
    },
}

/// Takes apart what the server sends.
#[derive(Debug)]
pub(crate) struct Incoming {
    state: State,
    /// What has come of a head, or of the payload of a frame that is no data.
    head: Vec<u8>,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { state: State::Answer, head: Vec::new() }
    }

    /// Whether the server has opened the socket.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(self.state, State::Answer)
    }

    /// Takes the next bytes and shows the messages in them to `sink`.
    ///
    /// # Errors
    /// An answer that opens no socket, a frame that closes it, what is no frame; errors of `sink`.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Answer => self.push_answer(bytes)?,
                State::FrameHead => self.push_head(bytes, sink)?,
                State::Payload { kind, last, missing } => {
                    let taken = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
                    let (part, rest) = bytes.split_at_checked(taken).unwrap_or((bytes, &[]));
                    let missing = missing - part.len() as u64;
                    self.take(kind, part, last && missing == 0, missing == 0, sink)?;
                    self.state = match missing {
                        0 => State::FrameHead,
                        _ => State::Payload { kind, last, missing },
                    };
                    rest
                }
            };
        }
        Ok(())
    }

    fn push_answer<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8]> {
        const END: &[u8] = b"\r\n\r\n";
        let known = self.head.len();
        self.head.extend_from_slice(bytes);
        let found = self.head.windows(END.len()).position(|window| window == END);
        if found.is_some() && !self.head.starts_with(b"HTTP/1.1 101 ") {
            bail!("no WebSocket: {}", String::from_utf8_lossy(&self.head));
        }
        let Some(at) = found else {
            if self.head.len() > HEAD_BYTES_MAX {
                bail!("a head of more than {HEAD_BYTES_MAX} bytes");
            }
            return Ok(&[]);
        };
        self.head.clear();
        self.state = State::FrameHead;
        Ok(bytes.get((at + END.len()).saturating_sub(known)..).unwrap_or_default())
    }

    fn push_head<'a>(
        &mut self,
        bytes: &'a [u8],
        sink: &mut impl FnMut(Part<'_>) -> Result<()>,
    ) -> Result<&'a [u8]> {
        let known = self.head.len();
        let room = FRAME_HEAD_BYTES_MAX.saturating_sub(known).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..room).unwrap_or_default());
        let Some((first, length, head_bytes)) = frame_head(&self.head)? else { return Ok(&[]) };
        self.head.clear();
        let (kind, last) = (first & 0x0f, first & FINAL != 0);
        if length == 0 {
            self.take(kind, &[], last, true, sink)?;
        } else {
            self.state = State::Payload { kind, last, missing: length };
        }
        Ok(bytes.get(head_bytes.saturating_sub(known)..).unwrap_or_default())
    }

    fn take(
        &mut self,
        kind: u8,
        bytes: &[u8],
        last: bool,
        frame_ends: bool,
        sink: &mut impl FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        match kind {
            CLOSE => {
                self.head.extend_from_slice(bytes);
                if frame_ends {
                    let (code, reason) = self.head.split_at_checked(2).unwrap_or_default();
                    let code = code.try_into().map_or(0, u16::from_be_bytes);
                    bail!("the server closed a socket: {code} {}", String::from_utf8_lossy(reason));
                }
                Ok(())
            }
            PING | PONG => Ok(()),
            _ => sink(Part { bytes, last }),
        }
    }
}

/// First byte of a frame, length of its payload and of its head; `None` when some of it is missing.
fn frame_head(bytes: &[u8]) -> Result<Option<(u8, u64, usize)>> {
    let Some((&[first, second], rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    if second & MASKED != 0 || first & 0x70 != 0 {
        bail!("a frame of a server is neither masked nor extended: {first:#x} {second:#x}");
    }
    Ok(match second {
        126 => rest.first_chunk().map(|&length| (first, u64::from(u16::from_be_bytes(length)), 4)),
        127 => {
            let length = rest.first_chunk().map(|&length| u64::from_be_bytes(length));
            length.map(|length| (first, length, 10))
        }
        length => Some((first, u64::from(length), 2)),
    })
}

/// The whole text of a message, collected from its parts.
#[derive(Debug, Default)]
pub(crate) struct Text {
    collected: Vec<u8>,
}

impl Text {
    /// The message that ends with `part`, if one does, for `read`.
    pub(crate) fn push<T>(
        &mut self,
        part: Part<'_>,
        read: impl FnOnce(&str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.collected.extend_from_slice(part.bytes);
        if !part.last {
            return Ok(None);
        }
        let text = std::str::from_utf8(&self.collected).context("a frame that is not UTF-8")?;
        let read = read(text)?;
        self.collected.clear();
        Ok(Some(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            length @ ..126 => out.push(u8::try_from(length).unwrap()),
            length @ ..65_536 => {
                out.push(126);
                out.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                out.push(127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(payload);
        out
    }

    fn messages(pieces: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
        let mut incoming = Incoming::new();
        let (mut messages, mut open) = (Vec::new(), Vec::new());
        for piece in pieces {
            incoming.push(piece, &mut |part| {
                open.extend_from_slice(part.bytes);
                if part.last {
                    messages.push(std::mem::take(&mut open));
                }
                Ok(())
            })?;
        }
        Ok(messages)
    }

    #[test]
    fn messages_are_the_same_in_every_way_of_cutting() {
        let (long, longer) = (vec![b'b'; 300], vec![b'c'; 70_000]);
        let mut bytes = ANSWER.to_vec();
        bytes.extend(frame(0x81, b"one"));
        bytes.extend(frame(0x82, &long));
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x01, b"fr"));
        bytes.extend(frame(0x80, b"agments"));
        bytes.extend(frame(0x82, b""));
        bytes.extend(frame(0x82, &longer));
        let expected = [b"one".to_vec(), long, b"fragments".to_vec(), Vec::new(), longer].to_vec();
        for cut in (0..500).chain([bytes.len() - 1]) {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(messages(&[first, second]).unwrap(), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(messages(&single).unwrap(), expected);
    }

    #[test]
    fn the_end_and_a_refusal_say_why() {
        let close = frame(0x88, &[&1008_u16.to_be_bytes()[..], b"why"].concat());
        let error = messages(&[ANSWER, &close]).unwrap_err().to_string();
        assert!(error.contains("1008 why"), "{error}");
        let error = messages(&[b"HTTP/1.1 404 Not Found\r\n\r\n"]).unwrap_err().to_string();
        assert!(error.contains("404"), "{error}");
        assert!(messages(&[ANSWER, &[0x81, 0x83]]).is_err(), "masked");
    }

    #[test]
    fn frames_of_the_client_have_every_form_of_length() {
        for (length, head) in [(5, 6), (126, 8), (70_000, 14)] {
            let mut out = Vec::new();
            write_text(&mut out, &vec![b'x'; length]);
            assert_eq!(out.len(), head + length);
        }
    }
}

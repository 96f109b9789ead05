//! The load generator of appends over one WebSocket: frames are sent ahead of their acks, up to a
//! number that are unanswered.
//!
//! An ack with a `count` answers as many frames, and its id must be the one of the last of them. A
//! nack, an error frame or a closed socket ends the benchmark; control frames are passed over.

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use mio::{Events, Poll};
use serde::Deserialize;

use crate::http::write_request;
use crate::link::{self, Link, READ_BUFFER_BYTES};
use crate::load::{Measured, SILENCE_MAX, Until, Window};
use crate::ws::{self, Incoming, Text};

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipeline<'a> {
    pub(crate) port: u16,
    /// Target of the request for a socket.
    pub(crate) target: &'a str,
    /// JSON text of the payload of each append.
    pub(crate) payload: &'a str,
    /// Frames that may be unanswered.
    pub(crate) unanswered_max: usize,
    /// Whether acks name what they answer; otherwise each answers one frame.
    pub(crate) named: bool,
    pub(crate) until: Until,
}

/// A frame of the server, as far as it matters.
#[derive(Deserialize)]
struct Answer {
    ack: Option<Ack>,
    nack: Option<serde_json::Value>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Ack {
    id: u64,
    #[serde(default = "one")]
    count: u64,
}

fn one() -> u64 {
    1
}

/// Frames that were sent, and those that were answered.
struct Flight {
    /// When each of the unanswered frames was sent.
    sent: VecDeque<Instant>,
    answered: u64,
    window: Window,
}

impl Flight {
    /// Takes a frame of the server.
    fn take(&mut self, text: &str, named: bool) -> Result<()> {
        let answer: Answer = serde_json::from_str(text).with_context(|| text.to_owned())?;
        if answer.nack.is_some() || answer.error.is_some() {
            bail!("an append was refused: {text}");
        }
        let Some(ack) = answer.ack else { return Ok(()) };
        if named && ack.id != self.answered + ack.count - 1 {
            bail!("after {} appends came {text}", self.answered);
        }
        let now = Instant::now();
        for _ in 0..ack.count {
            let sent = self.sent.pop_front().context("an ack of nothing")?;
            self.window.count(sent, now);
        }
        self.answered += ack.count;
        Ok(())
    }
}

/// Runs the load.
///
/// # Errors
/// A refused append, an ack out of order, a socket that closes, a silent server.
pub(crate) fn run(pipeline: &Pipeline<'_>) -> Result<Measured> {
    let mut poll = Poll::new()?;
    let mut link = Link::connect(pipeline.port, &poll, 0)?;
    link.send(|out| write_request(out, "GET", pipeline.target, ws::UPGRADE, b""))?;
    let (mut incoming, mut text) = (Incoming::new(), Text::default());
    let (mut events, mut buffer) = (Events::with_capacity(8), vec![0; READ_BUFFER_BYTES]);
    while !incoming.is_open() {
        wait(&mut poll, &mut events)?;
        link.receive(&mut buffer, |bytes| incoming.push(bytes, &mut |_| Ok(())))?;
    }
    let window = Window::new(pipeline.until)?;
    let mut flight = Flight { sent: VecDeque::new(), answered: 0, window };
    let mut next = 0;
    loop {
        next += fill(pipeline, &mut link, &mut flight, next)?;
        if flight.sent.is_empty() {
            return Ok(flight.window.close());
        }
        wait(&mut poll, &mut events)?;
        link.flush()?;
        link.receive(&mut buffer, |bytes| {
            incoming.push(bytes, &mut |part| {
                text.push(part, |text| flight.take(text, pipeline.named)).map(|_| ())
            })
        })?;
    }
}

fn wait(poll: &mut Poll, events: &mut Events) -> Result<()> {
    link::wait(poll, events, SILENCE_MAX)?;
    if events.is_empty() {
        bail!("no answer for {SILENCE_MAX:?}");
    }
    Ok(())
}

/// Sends as many frames as may be unanswered; returns their number.
fn fill(pipeline: &Pipeline<'_>, link: &mut Link, flight: &mut Flight, first: u64) -> Result<u64> {
    let now = Instant::now();
    let mut frame = String::with_capacity(pipeline.payload.len() + 64);
    let mut sent = 0;
    link.send(|out| {
        while flight.sent.len() < pipeline.unanswered_max && flight.window.take(now) {
            frame.clear();
            let (id, payload) = (first + sent, pipeline.payload);
            // Writing to a string cannot fail.
            let _ = write!(frame, r#"{{"append":{{"id":{id},"payload":{payload}}}}}"#);
            ws::write_text(out, frame.as_bytes());
            flight.sent.push_back(now);
            sent += 1;
        }
    })?;
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn flight(frames: usize) -> Flight {
        let until = Until::Time { warm_up: Duration::ZERO, counted: Duration::from_secs(60) };
        let sent = std::iter::repeat_n(Instant::now(), frames).collect();
        Flight { sent, answered: 0, window: Window::new(until).unwrap() }
    }

    #[test]
    fn an_ack_answers_one_frame_or_a_run() {
        let mut flight = flight(4);
        flight.take(r#"{"type":"control","streamNextOffset":"0_1"}"#, true).unwrap();
        assert_eq!((flight.answered, flight.sent.len()), (0, 4));
        flight.take(r#"{"ack":{"id":0,"streamNextOffset":"0_1"}}"#, true).unwrap();
        flight.take(r#"{"ack":{"id":3,"count":3}}"#, true).unwrap();
        assert_eq!((flight.answered, flight.sent.len()), (4, 0));
    }

    #[test]
    fn acks_out_of_order_and_refusals_end_the_benchmark() {
        for text in [
            r#"{"ack":{"id":1}}"#,
            r#"{"ack":{"id":1,"count":3}}"#,
            r#"{"ack":{"id":4,"count":5}}"#,
            r#"{"nack":{"id":0,"error":{}}}"#,
            r#"{"error":{"code":"RATE_LIMITED"}}"#,
        ] {
            assert!(flight(4).take(text, true).is_err(), "{text}");
        }
        assert!(flight(4).take(r#"{"ack":{"id":7}}"#, false).is_ok());
    }
}

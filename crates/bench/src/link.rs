//! A connection of a load generator: a socket that never blocks, registered with a poll.
//!
//! Events are edge-triggered: whoever is told that a link is readable reads until there is nothing
//! left. Anything but "not now" ends the benchmark.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bytes that are read from a socket at once.
pub(crate) const READ_BUFFER_BYTES: usize = 256 << 10;

/// Whether the server has closed a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connection {
    Open,
    Closed,
}

/// A connection and what has to be sent on it.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    out: Vec<u8>,
    /// Bytes of `out` that were sent.
    sent: usize,
}

impl Link {
    /// Connects to a port of this machine. The token of its events is `index`.
    pub(crate) fn connect(port: u16, poll: &Poll, index: usize) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Connected while blocking: the backlog is shorter than the largest scenario.
        let stream = std::net::TcpStream::connect(address).context("connecting")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(index), interest)?;
        Ok(Self { stream, out: Vec::new(), sent: 0 })
    }

    /// Sends what `write` adds to what is still unsent.
    pub(crate) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        write(&mut self.out);
        self.flush()
    }

    /// Sends on, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<()> {
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

    /// Reads what there is and hands it to `take` piece by piece. A server must not close the
    /// connection.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        match self.receive_or_end(buffer, take)? {
            Connection::Open => Ok(()),
            Connection::Closed => bail!("the server closed a connection"),
        }
    }

    /// As [`Link::receive`], for a connection that the server may close.
    pub(crate) fn receive_or_end(
        &mut self,
        buffer: &mut [u8],
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Connection> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(Connection::Closed),
                Ok(read) => {
                    take(buffer.get(..read).unwrap_or_default())?;
                    // A short read has emptied the socket: what comes later is a new event.
                    if read < buffer.len() {
                        return Ok(Connection::Open);
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(Connection::Open),
                    ErrorKind::ConnectionReset => return Ok(Connection::Closed),
                    ErrorKind::Interrupted => {}
                    _ => return Err(error).context("receiving"),
                },
            }
        }
    }
}

/// Waits for events, at most for `timeout`.
pub(crate) fn wait(poll: &mut Poll, events: &mut Events, timeout: Duration) -> Result<()> {
    match poll.poll(events, Some(timeout)) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error).context("polling"),
        _ => Ok(()),
    }
}

/// Lets this process, and the hosts that it starts from now on, have so many connections.
pub(crate) fn allow_connections(connections: u64) -> Result<()> {
    // Files of the runtime, databases, pipes.
    const OTHERS: u64 = 1024;
    let limit = getrlimit(Resource::Nofile);
    let wanted = connections + OTHERS;
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised)
        .with_context(|| format!("{wanted} open files are needed (ulimit -n)"))
}

//! Step `local-host`: the local host starts, survives a pulled plug and leaves nothing behind.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Report};
use crate::host::{Host, Options};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn run(context: &Context) -> Result<Report> {
    context.worker()?;
    let state = tempfile::tempdir()?;
    let persist = Some(state.path().join("state"));
    let options = Options { persist, ..Options::default() };

    let mut host = Host::start(&context.paths, &options)?;
    answers(host.port())?;
    let second = Host::start(&context.paths, &options);
    ensure!(second.is_err(), "a second host took the same state");
    host.kill_hard()?;
    is_free(host.port())?;

    let mut again = Host::start(&context.paths, &options).context("after SIGKILL")?;
    answers(again.port())?;
    let occupied =
        Host::start(&context.paths, &Options { port: again.port(), ..Options::default() });
    ensure!(occupied.is_err(), "two hosts serve port {}", again.port());
    again.stop()?;
    is_free(again.port())?;
    Ok(Report::single(true, again.log()))
}

/// Any answer will do: what the Worker answers is tested elsewhere.
fn answers(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 "), "no HTTP answer: {answer:?}");
    Ok(())
}

fn is_free(port: u16) -> Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map(drop)
        .with_context(|| format!("port {port} is still taken"))
}

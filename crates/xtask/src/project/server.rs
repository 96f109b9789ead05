//! A service of a few prepared answers, one connection each, for tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// Gives its answers in order, then closes its port.
pub(super) struct Server {
    url: String,
    requests: Receiver<Request>,
}

/// What a client sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) line: String,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Server {
    /// Serves these statuses and bodies.
    pub(super) fn start(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<(u16, String)> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let (sender, requests) = channel();
        thread::spawn(move || {
            for (status, body) in answers {
                let (stream, _) = listener.accept().unwrap();
                // Before the answer, so that a client who has it finds the request recorded.
                sender.send(Request::read(&stream)).unwrap();
                answer(stream, status, &body);
            }
        });
        Self { url, requests }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// What came so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

impl Request {
    fn read(stream: &TcpStream) -> Self {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut headers = Vec::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut request = Self { line: line.trim_end().to_owned(), headers, body: String::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        reader.take(length).read_to_string(&mut request.body).unwrap();
        request
    }

    /// A header by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn answer(mut stream: TcpStream, status: u16, body: &str) {
    let mut head = format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n");
    if status != 204 {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    if status == 302 {
        head.push_str("location: http://127.0.0.1:1/\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
}

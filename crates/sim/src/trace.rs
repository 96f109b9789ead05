//! The trace of a run: its last lines for people, a hash of all of them for the determinism test.

use std::collections::VecDeque;

/// Lines kept for the report of a failure.
const LINES_KEPT: usize = 30;

/// What a run has done so far.
#[derive(Debug)]
pub struct Trace {
    lines: VecDeque<String>,
    hash: u64,
    /// Whether every line also goes to standard error.
    echo: bool,
}

impl Trace {
    /// An empty trace; `echo` prints each line as it comes.
    #[must_use]
    pub fn new(echo: bool) -> Self {
        Self { lines: VecDeque::new(), hash: 0xcbf2_9ce4_8422_2325, echo }
    }

    /// Adds a line.
    pub fn line(&mut self, text: String) {
        for byte in text.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.echo {
            eprintln!("{text}");
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }

    /// FNV-1a of all lines so far, each with its line feed.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}

/// Debug output cut to what fits a line.
pub(crate) fn short(value: &impl std::fmt::Debug) -> String {
    let mut text = format!("{value:?}");
    if text.len() > 240 {
        let cut = (0..=240).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}

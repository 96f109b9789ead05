//! What clients ask for: bodies, creates, appends, and how often which.
//!
//! Every message carries a token of its own, `<n>`, so that its bytes can be found again without
//! asking anybody who might be wrong about it.

use engine::Bounds;
use engine::append::Append;
use engine::create::Create;
use protocol::content_type::ContentType;
use protocol::headers::StreamSeq;
use protocol::lifetime::Lifetime;
use protocol::limits::{BODY_BYTES_MAX, FANOUT_HOLD_MAX_MS, LIVE_CREDIT_BYTES, STREAM_BYTES_MAX};
use protocol::producer::{Epoch, Producer, ProducerId, Seq};
use protocol::time::UnixMillis;

use crate::model::{Body, ModelLife};
use crate::rng::Rng;

/// What a seed's run looks like: drawn once, so that seeds differ in kind and not only in detail.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Number of stream paths.
    pub paths: usize,
    /// Weights of the actions, in the order of [`Action::ALL`].
    pub weights: [u32; Action::ALL.len()],
    /// Percent of verbs with an injected fault.
    pub fault_percent: u64,
    /// Percent of messages between objects that are lost, doubled or answered in vain.
    pub message_fault_percent: u64,
    /// Whether bodies may span rows.
    pub large: bool,
    /// Content type of most streams; any when absent.
    pub kind: Option<Kind>,
    /// Percent of streams with a lifetime.
    pub lifetime_percent: u64,
    /// What the deployment allows a stream.
    pub bounds: Bounds,
    /// Whether hot bytes become segments.
    pub rotates: bool,
    /// Percent of calls of the object store that go wrong.
    pub store_fault_percent: u64,
    /// Live readers.
    pub live: LiveProfile,
}

/// What live readers of a seed are like.
#[derive(Clone, Debug)]
pub struct LiveProfile {
    /// How many there are at most.
    pub clients_max: usize,
    /// How many open connections at once.
    pub crowd: usize,
    /// Readers that an object takes.
    pub readers_max: u64,
    /// Long-polls among them.
    pub waiters_max: u64,
    /// Readers that one turn serves at most.
    pub turn_readers: u64,
    /// Bytes of a page, about.
    pub chunk: u64,
    /// Bytes granted and not consumed.
    pub window: u64,
    /// Percent of their actions in which something breaks.
    pub fault_percent: u64,
}

/// What the scheduler can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A PUT of a new stream.
    Create,
    /// A group of concurrent appends.
    Append,
    /// Many single appends in a row.
    Burst,
    /// DELETE.
    Delete,
    /// HEAD.
    Head,
    /// A catch-up read: one or several pages.
    Read,
    /// A PUT of a fork.
    Fork,
    /// An earlier request once more.
    Retry,
    /// A live client, or a crowd of them, opens connections.
    Attach,
    /// A live client or its edge goes away, or a connection breaks.
    Leave,
    /// A message between objects arrives, or does not.
    Message,
    /// A making of a fork stops waiting, or is dropped by its object.
    Impatience,
    /// Something that waits for the object store goes on, in the object or in the store.
    Store,
    /// An object loses its memory.
    Crash,
    /// An alarm goes off, once or twice.
    Alarm,
    /// Time passes.
    Advance,
    /// The clock is set: back, or far ahead.
    Jump,
    /// An object serves live readers that wait for a turn.
    Turn,
    /// Live clients, their edges and the sockets between do their next things.
    Live,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 19] = [
        Self::Create,
        Self::Append,
        Self::Burst,
        Self::Delete,
        Self::Head,
        Self::Read,
        Self::Fork,
        Self::Retry,
        Self::Attach,
        Self::Leave,
        Self::Message,
        Self::Impatience,
        Self::Store,
        Self::Crash,
        Self::Alarm,
        Self::Advance,
        Self::Jump,
        Self::Turn,
        Self::Live,
    ];
}

const TYPICAL: [u32; Action::ALL.len()] =
    [12, 60, 1, 6, 3, 20, 14, 12, 12, 4, 60, 2, 150, 6, 12, 12, 2, 60, 60];

impl Profile {
    /// Draws a profile.
    pub fn draw(rng: &mut Rng) -> Self {
        let mut weights = TYPICAL;
        for weight in &mut weights {
            // Swarm testing: what is absent gives room to what is there.
            *weight = match rng.below(8) {
                0 => 0,
                1 => *weight * 4,
                _ => *weight,
            };
        }
        weights[0] = weights[0].max(6);
        weights[1] = weights[1].max(10);
        if rng.chance(80) {
            weights[2] = 0;
        }
        // Positions as in `Action::ALL`: fork 6, message 10, store 12, alarm 14, advance 15.
        let large = rng.chance(2);
        let slow_forks = rng.chance(20);
        if slow_forks {
            // Forks under way for a long time, and much that happens meanwhile.
            (weights[6], weights[10], weights[14], weights[15]) = (60, 30, 40, 40);
        }
        if rng.chance(40) {
            // Much that becomes cold, and forks of it.
            (weights[1], weights[6], weights[10], weights[12]) = (160, 20, 90, 300);
        }
        if large {
            // Few steps: they are to reach pages that several rows fill.
            (weights[2], weights[6], weights[10], weights[12]) = (0, 40, 120, 120);
        }
        let kinds = [None, Some(Kind::Json), Some(Kind::Text), Some(Kind::Binary)];
        let kind = if large && rng.chance(50) { Some(Kind::Json) } else { rng.pick(&kinds) };
        let live = Self::draw_live(rng, large);
        if live.clients_max == 0 {
            // Positions as above: attach 8, leave 9, turn 17, live 18.
            (weights[8], weights[9], weights[17], weights[18]) = (0, 0, 0, 0);
        }
        Self {
            paths: rng.pick(&[1, 2, 3, 3, 4, 5]),
            weights,
            fault_percent: rng.pick(if slow_forks { &[20, 40] } else { &[0, 10, 20, 40] }),
            message_fault_percent: rng.pick(&[0, 5, 30]),
            large,
            kind,
            lifetime_percent: rng.pick(&[0, 10, 50]),
            bounds: Self::draw_bounds(rng, large || weights[2] > 0),
            rotates: rng.chance(80),
            store_fault_percent: rng.pick(&[0, 10, 40]),
            live,
        }
    }

    /// Whether instances end by themselves.
    #[must_use]
    pub fn crashes(&self) -> bool {
        self.weights[13] > 0
    }

    fn draw_live(rng: &mut Rng, large: bool) -> LiveProfile {
        // Nobody, some, or hundreds.
        let (clients_max, crowd) = match rng.below(100) {
            0..20 => (0, 0),
            20..23 if !large => (400, 250),
            _ => (12, 2),
        };
        let small = !large && rng.chance(70);
        LiveProfile {
            clients_max,
            crowd,
            readers_max: if rng.chance(15) { 3 } else { 1_000 },
            waiters_max: if rng.chance(15) { 1 } else { 1_000 },
            turn_readers: rng.pick(&[1, 3, 8, 1_000]),
            chunk: if small { 1 + rng.below(80) } else { 1 << 18 },
            window: if small { 1 + rng.below(200) } else { LIVE_CREDIT_BYTES },
            fault_percent: rng.pick(&[0, 5, 20]),
        }
    }

    fn draw_bounds(rng: &mut Rng, long: bool) -> Bounds {
        let most = rng.pick(&[8, 60, 400]);
        let segment_bytes = if rng.chance(85) { 1 + rng.below(most) } else { 1 << 40 };
        Bounds {
            bytes_max: if rng.chance(5) { 300 } else { STREAM_BYTES_MAX },
            // Long streams of tiny segments make every audit expensive.
            segment_bytes: if long { segment_bytes * 64 } else { segment_bytes },
            segment_appends: rng.pick(&[3, 10, 1 << 40]) * if long { 64 } else { 1 },
            lend_bytes: if rng.chance(50) { 1 << 20 } else { 1 + rng.below(40) },
            fork_copy_bytes_max: rng.pick(&[10, 200, 1 << 40, 1 << 40]),
            grace_ms: rng.pick(&[0, 1_000, 60_000]),
            fanout_hold_ms: FANOUT_HOLD_MAX_MS,
        }
    }
}

/// Kinds of content that the engine treats differently, or might.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages with boundaries.
    Json,
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    fn spellings(self) -> [&'static str; 2] {
        match self {
            Self::Json => ["application/json", "Application/JSON; charset=utf-8"],
            Self::Text => ["text/plain", "text/plain; charset=utf-8"],
            Self::Binary => ["application/octet-stream", "APPLICATION/octet-stream"],
        }
    }

    /// The kind of a content type.
    #[must_use]
    pub fn of(content_type: &ContentType) -> Self {
        match content_type.essence() {
            "application/json" => Self::Json,
            "text/plain" => Self::Text,
            _ => Self::Binary,
        }
    }
}

/// Requests of clients; counts their tokens.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    tokens: u64,
    sequence: u64,
}

/// An append with what its body becomes and the tokens in it.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// As the engine gets it.
    pub append: Append<Vec<u8>>,
    /// What the body becomes in JSON mode.
    pub wire: Option<Vec<u8>>,
    /// First token in the body, if it has any.
    pub token: Option<u64>,
}

fn content_type(text: &str) -> ContentType {
    ContentType::parse(text).unwrap_or_default()
}

/// Whether a stream that is created now is to be public: some are. The clock decides, not a draw, so
/// that seeds go on telling the stories that they told before there were public streams.
pub(crate) fn is_public(now: UnixMillis) -> bool {
    now.0.is_multiple_of(8)
}

impl Workload {
    fn token(&mut self) -> String {
        self.tokens += 1;
        format!("<{}>", self.tokens)
    }

    /// A content type of the profile's kind.
    pub fn content_type(&self, rng: &mut Rng, profile: &Profile) -> ContentType {
        let any = rng.pick(&[Kind::Json, Kind::Text, Kind::Binary]);
        let kind = profile.kind.filter(|_| rng.chance(90)).unwrap_or(any);
        content_type(rng.pick(&kind.spellings()))
    }

    fn length(rng: &mut Rng, profile: &Profile) -> usize {
        const MIB: usize = 1 << 20;
        if profile.large && rng.chance(20) {
            let base = rng.pick(&[65_536, 70_000, 600_000, MIB, MIB + 1, 2_600_000]);
            return base - rng.index(3);
        }
        rng.index(24)
    }

    /// A body that fits a kind.
    pub fn body(&mut self, rng: &mut Rng, profile: &Profile, kind: Kind) -> Body {
        let length = Self::length(rng, profile);
        if kind == Kind::Json {
            return self.json_body(rng, length);
        }
        let mut sent = self.token().into_bytes();
        let filler: &[u8] = if kind == Kind::Text { b"abc \n\xc3\xa9" } else { b"\0\xff\n\r,]z" };
        sent.extend((0..length).map(|at| filler[at % filler.len()]));
        Body { sent, wire: None }
    }

    fn json_body(&mut self, rng: &mut Rng, length: usize) -> Body {
        let array = rng.chance(60);
        let messages = if array { rng.index(5) } else { 1 };
        // Together no more than the largest body.
        let length = length.min(BODY_BYTES_MAX as usize / 5);
        let space = |rng: &mut Rng| rng.pick(&["", "", " ", "\n", "\r\n\t"]);
        let mut sent = String::from(space(rng));
        let mut wire = String::new();
        if array {
            sent.push('[');
        }
        for at in 0..messages {
            let token = self.token();
            let filler = "é".repeat(length / 2);
            // White space inside a message, and what the log keeps of it.
            let (inside, kept) = rng.pick(&[("", ""), (" ", " "), ("\n", " "), ("\r\n", "  ")]);
            let text = |space: &str| match at % 3 {
                0 => format!("{{{space}\"t\":\"{token}{filler}\"}}"),
                1 => format!("\"{token}\\n{filler}\""),
                _ => format!("[[1,{space}-2.50e+3],{space}\"{token}\"]"),
            };
            sent.push_str(space(rng));
            sent.push_str(&text(inside));
            sent.push_str(space(rng));
            sent.push_str(if at + 1 < messages { "," } else { "" });
            wire.push_str(&text(kept));
            wire.push_str(",\n");
        }
        if array {
            sent.push(']');
        }
        // An array as the only value would be flattened; that is the case `array` itself.
        sent.push_str(space(rng));
        Body { sent: sent.into_bytes(), wire: Some(wire.into_bytes()) }
    }

    /// A lifetime as the profile has it.
    pub fn lifetime(&self, rng: &mut Rng, profile: &Profile, now: UnixMillis) -> Lifetime {
        if !rng.chance(profile.lifetime_percent) {
            return Lifetime::Unlimited;
        }
        match rng.below(5) {
            0 => Lifetime::ExpiresAt { at: UnixMillis(now.0 + rng.below(120_000)) },
            1 => Lifetime::ExpiresAt { at: UnixMillis(now.0.saturating_sub(rng.below(3))) },
            2 => Lifetime::Ttl { seconds: rng.below(60) },
            _ => Lifetime::Ttl { seconds: rng.pick(&[60, 61, 600, 40_000]) },
        }
    }

    /// A PUT of a stream that is no fork.
    pub fn create(
        &mut self,
        rng: &mut Rng,
        profile: &Profile,
        now: UnixMillis,
    ) -> (Create<Vec<u8>>, Body) {
        let named = Some(self.content_type(rng, profile)).filter(|_| rng.chance(90));
        let kind = Kind::of(&named.clone().unwrap_or_default());
        let body = self.first_body(rng, profile, kind);
        let create = Create {
            content_type: named,
            lifetime: self.lifetime(rng, profile, now),
            closed: rng.chance(8),
            public: is_public(now),
            session: None,
            body: body.sent.clone(),
            fork: None,
        };
        (create, body)
    }

    /// The body of a PUT: often none, sometimes not JSON.
    pub fn first_body(&mut self, rng: &mut Rng, profile: &Profile, kind: Kind) -> Body {
        match rng.below(10) {
            0..5 => Body::empty(),
            5 => Body { sent: b"{\"broken\":".to_vec(), wire: None },
            _ => self.body(rng, profile, kind),
        }
    }

    /// One append to a stream as it is now; `None` when the client believes that there is none.
    pub fn append(
        &mut self,
        rng: &mut Rng,
        profile: &Profile,
        life: Option<&ModelLife>,
    ) -> AppendRequest {
        let stream_type = life.map(|life| life.content_type.clone()).unwrap_or_default();
        let kind = Kind::of(&stream_type);
        let close = rng.chance(3);
        let body = match rng.below(40) {
            0 => Body { sent: b"[1,".to_vec(), wire: None },
            1 => Body::empty(),
            _ if close && rng.chance(50) => Body::empty(),
            _ => self.body(rng, profile, kind),
        };
        let named = match rng.below(40) {
            0 => None,
            1 => Some(self.content_type(rng, profile)),
            _ => Some(content_type(rng.pick(&kind.spellings()))),
        };
        let has_token = body.sent.contains(&b'<');
        let token = has_token.then(|| first_token(&body.sent)).flatten();
        let append = Append {
            content_type: named,
            body: body.sent,
            producer: rng.chance(40).then(|| self.producer(rng, life)),
            seq: rng.chance(10).then(|| self.stream_seq(rng)).flatten(),
            close,
            delivery: None,
        };
        AppendRequest { append, wire: body.wire, token }
    }

    /// A producer's tuple: mostly the next one, or any way to be wrong.
    fn producer(&self, rng: &mut Rng, life: Option<&ModelLife>) -> Producer {
        let name = rng.pick(&["p", "q", "r", "a-producer-with-a-longer-name"]);
        let id = ProducerId::parse(name).unwrap_or_else(|_| unreachable!("the names are valid"));
        let last = life.and_then(|life| life.producers.get(&id)).copied();
        let (epoch, seq) = last.map_or((Epoch(0), Seq(0)), |(epoch, seq)| (epoch, Seq(seq.0 + 1)));
        let (epoch, seq) = match rng.below(20) {
            0 => (epoch.0, seq.0 + 1 + rng.below(2)),
            1..4 => (epoch.0, seq.0.saturating_sub(1 + rng.below(2))),
            4 => (epoch.0.saturating_sub(1), rng.below(3)),
            5 => (epoch.0 + 1 + rng.below(3), 0),
            6 => (epoch.0 + 1, rng.below(3)),
            _ => (epoch.0, seq.0),
        };
        Producer { id, epoch: Epoch(epoch), seq: Seq(seq) }
    }

    fn stream_seq(&mut self, rng: &mut Rng) -> Option<StreamSeq> {
        self.sequence += 1;
        let number = if rng.chance(80) { self.sequence } else { rng.below(self.sequence) };
        StreamSeq::parse(&format!("{number:06}")).ok()
    }
}

/// The first token in some bytes.
pub(crate) fn first_token(bytes: &[u8]) -> Option<u64> {
    let start = bytes.iter().position(|byte| *byte == b'<')? + 1;
    let length = bytes[start..].iter().position(|byte| *byte == b'>')?;
    std::str::from_utf8(&bytes[start..start + length]).ok()?.parse().ok()
}

/// How often each token stands in some bytes.
pub(crate) fn count_tokens(bytes: &[u8]) -> std::collections::BTreeMap<u64, u64> {
    let mut counts = std::collections::BTreeMap::new();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'<') {
        if let Some(token) = first_token(&bytes[at..(at + 24).min(bytes.len())]) {
            *counts.entry(token).or_insert(0) += 1;
        }
    }
    counts
}

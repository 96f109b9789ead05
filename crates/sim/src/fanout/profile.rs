//! What a seed does: how much of each fault, and how clients behave.
//!
//! Profiles differ in kind, so that some seeds are calm enough for rare interleavings to be reached, and
//! others never get anything done.

use crate::rng::Rng;

/// The temper of one seed. Faults are counted of a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) name: &'static str,
    pub(super) sources: u64,
    pub(super) sessions: u64,
    pub(super) members_max: u64,
    pub(super) shards_max: u64,
    pub(super) inline_max: u64,
    pub(super) concurrency: u64,
    pub(super) range_bytes: u64,
    pub(super) deadline_ms: u64,
    pub(super) hold_ms: u64,
    /// Questions or answers that are lost.
    pub(super) lost: u64,
    /// Messages that take seconds, or hours.
    pub(super) slow: u64,
    /// Questions that arrive twice.
    pub(super) twice: u64,
    /// Commits and reads that fail.
    pub(super) storage: u64,
    /// Steps at which an object crashes.
    pub(super) crash: u64,
    /// Steps at which something fails for a while.
    pub(super) outage: u64,
    /// The queue refuses, or loses.
    pub(super) queue: u64,
    /// Alarms that ring a second time.
    pub(super) ring_twice: u64,
    /// Steps at which time goes on by minutes or hours.
    pub(super) jump: u64,
    /// What clients do: append, put source, delete source, put session, delete session, subscribe,
    /// unsubscribe, look.
    pub(super) wishes: [u32; 8],
    /// Sources with a lifetime, percent.
    pub(super) mortal_sources: u64,
    /// Sessions with a short lifetime, percent.
    pub(super) mortal_sessions: u64,
    /// Largest skew of a machine's clock.
    pub(super) skew_ms: u64,
}

const CALM: Profile = Profile {
    name: "calm",
    sources: 2,
    sessions: 4,
    members_max: 3,
    shards_max: 4,
    inline_max: 10,
    concurrency: 3,
    range_bytes: 60,
    deadline_ms: 5_000,
    hold_ms: 86_400_000,
    lost: 0,
    slow: 0,
    twice: 0,
    storage: 0,
    crash: 0,
    outage: 0,
    queue: 0,
    ring_twice: 0,
    jump: 1,
    wishes: [40, 4, 1, 5, 1, 14, 4, 3],
    mortal_sources: 5,
    mortal_sessions: 10,
    skew_ms: 50,
};

const KINDS: [Profile; 10] = [
    CALM,
    Profile { name: "lossy", lost: 120, slow: 120, twice: 120, ..CALM },
    Profile { name: "crashy", crash: 40, storage: 40, lost: 20, ring_twice: 100, ..CALM },
    Profile { name: "queue-less", queue: 500, lost: 30, crash: 5, inline_max: 0, ..CALM },
    Profile { name: "breaker", outage: 25, sessions: 6, members_max: 6, lost: 30, ..CALM },
    Profile { name: "outage", outage: 12, jump: 20, lost: 10, slow: 30, ..CALM },
    Profile {
        name: "sources come and go",
        wishes: [30, 14, 10, 5, 1, 16, 3, 2],
        mortal_sources: 40,
        lost: 50,
        slow: 80,
        crash: 8,
        jump: 8,
        ..CALM
    },
    Profile {
        name: "sessions come and go",
        wishes: [30, 4, 1, 12, 10, 22, 10, 4],
        mortal_sessions: 60,
        lost: 50,
        slow: 100,
        twice: 60,
        crash: 8,
        jump: 8,
        ..CALM
    },
    Profile {
        name: "members come and go",
        wishes: [20, 3, 0, 4, 1, 40, 30, 1],
        lost: 60,
        slow: 120,
        twice: 100,
        crash: 5,
        storage: 10,
        members_max: 2,
        ..CALM
    },
    Profile {
        name: "everything",
        lost: 50,
        slow: 60,
        twice: 50,
        storage: 20,
        crash: 15,
        outage: 8,
        queue: 150,
        ring_twice: 50,
        jump: 10,
        wishes: [40, 8, 5, 6, 4, 18, 8, 3],
        mortal_sources: 20,
        mortal_sessions: 30,
        ..CALM
    },
];

impl Profile {
    /// The profile of a seed.
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let kind = rng.pick(&KINDS);
        Self {
            sources: 1 + rng.below(3),
            sessions: kind.sessions.max(3) + rng.below(3),
            members_max: kind.members_max.saturating_sub(rng.below(2)),
            shards_max: rng.pick(&[2, 4, 4, 8]),
            inline_max: if kind.inline_max == 0 { 0 } else { rng.pick(&[0, 1, 10, 10]) },
            concurrency: rng.pick(&[1, 2, 5]),
            range_bytes: rng.pick(&[10, 40, 40, 200, 4_096]),
            hold_ms: rng.pick(&[3_600_000, 86_400_000]),
            skew_ms: rng.pick(&[0, 50, 50, 5_000, 120_000]),
            ..kind
        }
    }
}

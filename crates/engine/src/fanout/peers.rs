//! The others: what a subscription object and a session's object need of the world.

use std::future::Future;

use protocol::fanout::{Deliver, Delivered, Message, QueueMessage};
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use crate::log::Blob;

/// Whom a message is for, by the name of its object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A stream: a source, or a session's.
    Stream(String),
    /// A subscription object: see [`protocol::fanout::ShardId::object_name`].
    Subscription(String),
    /// A session's object.
    Session(String),
}

/// There is no answer, for this reason. What was asked for may have been done, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer(pub String);

/// A range of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched<B> {
    /// The bytes, as on the wire.
    Range {
        /// Position after the last byte; past the first one unless that is the tail.
        to: Position,
        /// Generation that the offsets of the range carry.
        offsets: Generation,
        /// The bytes.
        bytes: B,
    },
    /// The life is over, and its bytes are gone.
    Lapsed {
        /// Its final tail.
        tail: Position,
    },
    /// The source knows of no such life.
    NoLife,
}

/// What an operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A delivery has failed, and will be tried again.
    DeliveryFailed {
        /// Id of the session.
        session: String,
        /// First position of what was to be delivered.
        from: Position,
        /// Position after the last: of a single message, what its publisher was answered.
        to: Position,
        /// How often in a row.
        attempt: u32,
        /// What is known of why.
        cause: String,
    },
    /// A subscriber was dropped: its session is over.
    Dropped {
        /// Id of the session.
        session: String,
    },
    /// A session was told that a range is lost.
    Gap {
        /// Id of the session.
        session: String,
        /// First position that is lost.
        from: Position,
        /// Position after the last.
        to: Position,
    },
    /// Most deliveries fail.
    BreakerOpened,
    /// Deliveries succeed again.
    BreakerClosed,
    /// The queue takes no messages.
    QueueFailed {
        /// What is known of why.
        cause: String,
    },
    /// The source did not hand out a range.
    SourceFailed {
        /// What is known of why.
        cause: String,
    },
    /// Storage failed while a step was made; it is made again.
    StorageFailed {
        /// What is known of why.
        cause: String,
    },
}

/// The others, and the time.
#[allow(async_fn_in_trait, reason = "nothing here moves between threads")]
pub trait Peers {
    /// Representation of bytes that are passed on.
    type Bytes: Blob;

    /// The time.
    fn now(&self) -> UnixMillis;

    /// Waits.
    fn sleep(&self, ms: u64) -> impl Future<Output = ()>;

    /// Asks another object. The platform's deadline ends it at the latest.
    async fn ask<M: Message>(&self, to: &Address, message: &M) -> Result<M::Answer, NoAnswer>;

    /// Reads a range of a source: from `from`, about `limit` bytes.
    async fn replicate(
        &self,
        source: &str,
        generation: Generation,
        from: Position,
        limit: u64,
    ) -> Result<Fetched<Self::Bytes>, NoAnswer>;

    /// Delivers a range to a session's stream.
    async fn deliver(
        &self,
        stream: &str,
        message: &Deliver,
        bytes: &Self::Bytes,
    ) -> Result<Delivered, NoAnswer>;

    /// Puts a message into the queue.
    async fn enqueue(&self, message: &QueueMessage) -> Result<(), NoAnswer>;

    /// Tells the operator.
    fn tell(&self, event: Event);
}

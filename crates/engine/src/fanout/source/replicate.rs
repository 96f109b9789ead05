//! What a shard reads of a source: also of one that clients no longer see.

use protocol::limits::FANOUT_HOLD_MAX_MS;
use protocol::offset::{Generation, Position};
use protocol::time::UnixMillis;

use crate::life::{Life, Phase};
use crate::log::{Log, LogError};
use crate::read::{Dress, Page, ReadError};
use crate::stream::{Current, Missing, Stream};

const _: () = assert!(FANOUT_HOLD_MAX_MS > 0, "zero stands for a hold that is over");

/// A part of a source for its shards.
#[derive(Clone, Debug)]
pub enum Replicated<B> {
    /// Bytes as on the wire, here or in the object store.
    Page(Page<B>),
    /// The life is over and its bytes are gone.
    Lapsed {
        /// Its final tail.
        tail: Position,
    },
    /// There is no such life, or none that shards know of.
    NoLife,
}

impl<L: Log> Stream<L> {
    /// A page of about `limit` bytes of a life that clients see, or that is held for shards. Does not
    /// count as an access.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn replicate(
        &mut self,
        generation: Generation,
        from: Position,
        limit: u64,
        now: UnixMillis,
    ) -> Result<Replicated<L::Bytes>, LogError> {
        self.settle(now)?;
        if self.generation() == Some(generation) {
            return match self.page(from, limit, Dress::Wire, now) {
                Ok(page) => Ok(Replicated::Page(page)),
                Err(ReadError::Missing(Missing::Log(error))) => Err(error),
                Err(_) => Ok(Replicated::NoLife),
            };
        }
        let soft = self.current.as_ref().filter(|current| current.life.generation == generation);
        if let Some(current) = soft {
            let (life, tail) = (&current.life, current.life.checkpoint);
            return match life.phase {
                Phase::SoftDeleted if self.is_kept_for_shards(life) => {
                    Ok(Replicated::Page(self.wire_page(current, from, limit)?))
                }
                Phase::SoftDeleted if self.shards.has(generation) => {
                    Ok(Replicated::Lapsed { tail })
                }
                _ => Ok(Replicated::NoLife),
            };
        }
        match self.shards.held.get(&generation) {
            None => Ok(Replicated::NoLife),
            Some(life) if life.phase == Phase::Lapsed => {
                Ok(Replicated::Lapsed { tail: life.checkpoint })
            }
            Some(life) => {
                let current = self.held_life(life)?;
                Ok(Replicated::Page(self.wire_page(&current, from, limit)?))
            }
        }
    }

    /// A held life as it was when it ended.
    fn held_life(&self, life: &Life) -> Result<Current, LogError> {
        let mut current = Current::new(life.clone());
        current.tail = life.checkpoint;
        // A newer life's segments lie behind.
        let keys = life.base..life.key(life.checkpoint);
        if let Some(last) = self.log.last_segment(keys)? {
            current.cold = life.position(last.end());
        }
        Ok(current)
    }
}

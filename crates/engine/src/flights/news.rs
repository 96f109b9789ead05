//! What an answer to a write says to those who read later.
//!
//! # Errors
//! None: when an answer does not tell, everything may be new.
//!
//! # What does not belong here
//! What follows from it: see [`super::Flights::wrote`].

use super::Reach;

/// A request that changes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// To its end.
    Append,
    /// Begins or ends its life.
    Life,
}

/// What is known of a stream since a write was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing that was not known before.
    Nothing,
    /// It goes this far.
    Reach(Reach),
    /// Its life may have begun or ended.
    NewLife,
}

impl News {
    /// What an answer says by its status and by the tail that it names, if it does.
    #[must_use]
    pub fn of(write: Write, status: u16, tail: Option<Reach>) -> Self {
        match (write, status) {
            // Refusals that name the tail tell as much.
            (Write::Append, _) | (Write::Life, 200) => tail.map_or(Self::Nothing, Self::Reach),
            // Of a failure nobody knows whether it came before or after the commit.
            (Write::Life, 201 | 204 | 500..) => Self::NewLife,
            (Write::Life, _) => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::offset::Offset;

    const OPEN: Reach = Reach { next: Offset::ZERO, closed: false };
    const CLOSED: Reach = Reach { next: Offset::ZERO, closed: true };

    #[test]
    fn an_append_tells_the_tail_if_its_answer_does() {
        for status in [200, 204, 409] {
            assert_eq!(News::of(Write::Append, status, Some(CLOSED)), News::Reach(CLOSED));
        }
        for status in [400, 404, 503] {
            assert_eq!(News::of(Write::Append, status, None), News::Nothing);
        }
    }

    #[test]
    fn a_life_is_new_after_a_create_a_delete_or_a_failure() {
        for status in [201, 204, 500, 503] {
            assert_eq!(News::of(Write::Life, status, Some(OPEN)), News::NewLife);
        }
    }

    #[test]
    fn confirming_that_a_stream_exists_tells_its_tail() {
        assert_eq!(News::of(Write::Life, 200, Some(CLOSED)), News::Reach(CLOSED));
    }

    #[test]
    fn a_refusal_changes_nothing() {
        for status in [400, 401, 403, 404, 409, 410, 413, 429] {
            assert_eq!(News::of(Write::Life, status, None), News::Nothing);
        }
    }
}

//! Which operation answers which error codes.
//!
//! The one table: the OpenAPI document is made from it. A code that an operation answers without
//! standing here is a status or a code that clients were not told of.

use crate::error::ErrorCode;
use crate::error::ErrorCode as E;

use super::{Operation, Resource};

/// What any request may be answered.
const EVERYWHERE: &[ErrorCode] = &[
    E::UriTooLong,
    E::HeadersTooLarge,
    E::RateLimited,
    E::Unavailable,
    E::Misconfigured,
    E::Internal,
];

/// What any request that names a project may be answered.
const OF_PROJECTS: &[ErrorCode] = &[E::InvalidProject, E::Unauthorized, E::Forbidden];

/// What any request that names a stream may be answered.
const OF_STREAMS: &[ErrorCode] = &[E::InvalidPath, E::StorageFailed];

/// What any request with a body may be answered.
const OF_BODIES: &[ErrorCode] = &[E::BodyTooLarge, E::BodyIncomplete, E::RequestTimeout];

/// What no operation answers, since the request is none.
pub const OF_NO_OPERATION: &[ErrorCode] = &[E::MethodNotAllowed];

/// What is told over a WebSocket only, with the socket's end or as the answer to an append.
pub const OF_SOCKETS: &[ErrorCode] =
    &[E::InvalidFrame, E::InvalidAppend, E::MessageTooLarge, E::TooManyUnacked];

impl Operation {
    /// The codes that it may answer, each once, in no particular order. [`OF_NO_OPERATION`] and
    /// [`OF_SOCKETS`] are no operation's.
    pub fn errors(self) -> impl Iterator<Item = ErrorCode> {
        let resource = self.resource();
        let has_project = !matches!(resource, Resource::Health | Resource::OpenApi);
        let when = |holds: bool, codes: &'static [ErrorCode]| if holds { codes } else { &[] };
        [
            EVERYWHERE,
            when(has_project, OF_PROJECTS),
            when(resource == Resource::Stream, OF_STREAMS),
            when(matches!(self.method(), "PUT" | "POST" | "PATCH"), OF_BODIES),
            self.own_errors(),
        ]
        .into_iter()
        .flatten()
        .copied()
    }

    /// What it answers beside what its kind answers.
    const fn own_errors(self) -> &'static [ErrorCode] {
        match self {
            Operation::CreateStream => &[
                E::Reserved,
                E::StreamExists,
                E::InvalidHeader,
                E::InvalidContentType,
                E::InvalidLifetime,
                E::InvalidOffset,
                E::StaleOffset,
                E::InvalidJson,
                E::ForkSourceNotFound,
                E::ForkSourceGone,
                E::ForkBeyondTail,
                E::ForkSubOffset,
                E::ForkContentType,
                E::ForkTooDeep,
                E::StreamFull,
                E::SegmentCorrupt,
            ],
            Operation::AppendStream => &[
                E::Reserved,
                E::StreamNotFound,
                E::StreamGone,
                E::InvalidHeader,
                E::InvalidContentType,
                E::ContentTypeMissing,
                E::ContentTypeMismatch,
                E::InvalidProducer,
                E::StaleEpoch,
                E::EpochStart,
                E::ProducerGap,
                E::StreamSeqConflict,
                E::StreamClosed,
                E::EmptyBody,
                E::EmptyArray,
                E::InvalidJson,
                E::StreamFull,
            ],
            Operation::ReadStream => &[
                E::RouteNotFound,
                E::StreamNotFound,
                E::StreamGone,
                E::InvalidQuery,
                E::InvalidOffset,
                E::StaleOffset,
                E::OffsetBeyondTail,
                E::TooManyReaders,
                E::UpgradeRequired,
                E::InvalidSubprotocol,
                E::InvalidCredit,
                E::SegmentCorrupt,
            ],
            Operation::HeadStream | Operation::StreamStats => {
                &[E::RouteNotFound, E::StreamNotFound, E::StreamGone]
            }
            Operation::DeleteStream => &[E::Reserved, E::StreamNotFound, E::StreamGone],
            Operation::ReadConfig => &[E::ProjectNotFound],
            Operation::CreateProject => &[E::InvalidBody, E::ProjectExists],
            Operation::ChangeConfig => &[E::InvalidBody, E::ProjectNotFound],
            Operation::AddSecret => &[E::InvalidBody, E::ProjectNotFound, E::TooManySecrets],
            Operation::RemoveSecret => &[E::ProjectNotFound, E::SecretNotFound, E::LastSecret],
            Operation::Reconcile => &[E::InvalidQuery, E::StorageFailed],
            Operation::Health | Operation::OpenApi => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_somebodys() {
        let operations = Operation::ALL.iter().flat_map(|operation| operation.errors());
        let told: BTreeSet<ErrorCode> = operations.collect();
        let others = [OF_NO_OPERATION, OF_SOCKETS].concat();
        for code in ErrorCode::ALL {
            assert!(told.contains(code) != others.contains(code), "{code}");
        }
    }

    #[test]
    fn no_operation_lists_a_code_twice() {
        for operation in Operation::ALL {
            let codes: Vec<ErrorCode> = operation.errors().collect();
            let unique: BTreeSet<ErrorCode> = codes.iter().copied().collect();
            assert_eq!(unique.len(), codes.len(), "{}", operation.id());
        }
    }
}

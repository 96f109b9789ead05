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

/// What a request may be answered that names a session in its URL.
const OF_SESSIONS: &[ErrorCode] = &[E::InvalidSession];

/// What an append may be answered.
const OF_APPENDS: &[ErrorCode] = &[
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
];

/// What a request may be answered whose JSON body names a session and streams.
const OF_SUBSCRIBING: &[ErrorCode] =
    &[E::InvalidBody, E::InvalidContentType, E::Reserved, E::SourceIsSession];

/// Why a session is not subscribed to a stream.
const OF_SUBSCRIPTIONS: &[ErrorCode] = &[
    E::SessionNotFound,
    E::SessionExists,
    E::StreamNotFound,
    E::StreamGone,
    E::ContentTypeMismatch,
    E::InvalidOffset,
    E::StaleOffset,
    E::OffsetBeyondTail,
    E::TooManySubscriptions,
    E::TooManySubscribers,
];

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
        let names_stream = matches!(resource, Resource::Stream | Resource::Publish);
        let names_session = matches!(resource, Resource::Session | Resource::SessionTouch);
        let appends = matches!(self, Operation::AppendStream | Operation::Publish);
        let subscribes = matches!(self, Operation::Subscribe | Operation::SubscribeBatch);
        let when = |holds: bool, codes: &'static [ErrorCode]| if holds { codes } else { &[] };
        [
            EVERYWHERE,
            when(has_project, OF_PROJECTS),
            when(names_stream, OF_STREAMS),
            when(names_session, OF_SESSIONS),
            when(self.reads_body(), OF_BODIES),
            when(appends, OF_APPENDS),
            when(subscribes || self == Operation::Unsubscribe, OF_SUBSCRIBING),
            when(subscribes, OF_SUBSCRIPTIONS),
            self.own_errors(),
        ]
        .into_iter()
        .flatten()
        .copied()
    }

    /// Whether the service reads the body of its requests.
    fn reads_body(self) -> bool {
        match self {
            Operation::TouchSession => false,
            Operation::Unsubscribe => true,
            _ => matches!(self.method(), "PUT" | "POST" | "PATCH"),
        }
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
            Operation::AppendStream => &[E::Reserved],
            Operation::Publish => &[E::Reserved, E::SourceIsSession],
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
            Operation::CreateSession => &[E::InvalidBody, E::InvalidContentType, E::SessionExists],
            Operation::ShowSession | Operation::DeleteSession | Operation::TouchSession => {
                &[E::SessionNotFound]
            }
            Operation::Subscribe | Operation::SubscribeBatch => &[],
            Operation::Unsubscribe => &[E::SessionNotFound],
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

//! The route table: every operation of the service, and who may call it.
//!
//! The router looks an [`Operation`] up before it does anything else, so what is not in the table
//! cannot be called. The OpenAPI document is made from it, and the tests of authorisation walk it.
//!
//! What each answers when it fails stands beside it: [`errors`].
//!
//! **What stays out.** How a token is checked ([`crate::token`]), and what an operation does.

pub mod errors;

use crate::name::{Reserved, Route};

/// What a caller has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing.
    Open,
    /// A token with the scope `read`; none for what is public.
    Read,
    /// A token with the scope `read`, also where everybody may read.
    Token,
    /// A token with the scope `write`.
    Write,
    /// A token with the scope `manage`.
    Manage,
    /// A token with the scope `manage`, or the deployment's admin token.
    Config,
    /// The deployment's admin token.
    Admin,
}

impl Access {
    /// The word in the OpenAPI document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Access::Open => "open",
            Access::Read => "read",
            Access::Token => "token",
            Access::Write => "write",
            Access::Manage => "manage",
            Access::Config => "config",
            Access::Admin => "admin",
        }
    }
}

/// What stands at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A stream.
    Stream,
    /// A session.
    Session,
    /// A session's end.
    SessionTouch,
    /// What sessions are subscribed to.
    Subscribe,
    /// The same, many at a time.
    SubscribeBatch,
    /// Ends of subscriptions.
    Unsubscribe,
    /// A stream that sessions are subscribed to.
    Publish,
    /// A project's record.
    Config,
    /// A project's signing secrets.
    Secrets,
    /// One of them.
    Secret,
    /// The object store compared with the logs.
    Reconcile,
    /// Name and version.
    Health,
    /// The OpenAPI document.
    OpenApi,
}

impl Resource {
    /// Every resource.
    pub const ALL: &[Resource] = &[
        Resource::Stream,
        Resource::Session,
        Resource::SessionTouch,
        Resource::Subscribe,
        Resource::SubscribeBatch,
        Resource::Unsubscribe,
        Resource::Publish,
        Resource::Config,
        Resource::Secrets,
        Resource::Secret,
        Resource::Reconcile,
        Resource::Health,
        Resource::OpenApi,
    ];

    /// The URL path, with its parameters in braces.
    #[must_use]
    pub const fn template(self) -> &'static str {
        match self {
            Resource::Stream => "/v1/{project}/stream/{path}",
            Resource::Session => "/v1/{project}/session/{session}",
            Resource::SessionTouch => "/v1/{project}/session/{session}/touch",
            Resource::Subscribe => "/v1/{project}/subscribe",
            Resource::SubscribeBatch => "/v1/{project}/subscribe/batch",
            Resource::Unsubscribe => "/v1/{project}/unsubscribe",
            Resource::Publish => "/v1/{project}/publish/{path}",
            Resource::Config => "/v1/{project}/config",
            Resource::Secrets => "/v1/{project}/config/secrets",
            Resource::Secret => "/v1/{project}/config/secrets/{id}",
            Resource::Reconcile => "/v1/{project}/reconcile",
            Resource::Health => "/health",
            Resource::OpenApi => "/openapi.json",
        }
    }

    /// What a route leads to.
    #[must_use]
    pub const fn of(route: &Route) -> Option<Resource> {
        match route {
            Route::Stream { .. } => Some(Resource::Stream),
            Route::Session { .. } => Some(Resource::Session),
            Route::SessionTouch { .. } => Some(Resource::SessionTouch),
            Route::Subscribe { .. } => Some(Resource::Subscribe),
            Route::SubscribeBatch { .. } => Some(Resource::SubscribeBatch),
            Route::Unsubscribe { .. } => Some(Resource::Unsubscribe),
            Route::Publish { .. } => Some(Resource::Publish),
            Route::Config { .. } => Some(Resource::Config),
            Route::Secrets { .. } => Some(Resource::Secrets),
            Route::Secret { .. } => Some(Resource::Secret),
            Route::Reconcile { .. } => Some(Resource::Reconcile),
            Route::Health => Some(Resource::Health),
            Route::OpenApi => Some(Resource::OpenApi),
            Route::ProjectRoot { .. } | Route::NotFound => None,
        }
    }

    /// Its methods, as they stand in `Allow`.
    #[must_use]
    pub const fn methods(self) -> &'static str {
        match self {
            Resource::Stream => "GET, HEAD, POST, PUT, DELETE, OPTIONS",
            Resource::Config => "GET, HEAD, PUT, PATCH, OPTIONS",
            Resource::Session => "GET, HEAD, PUT, DELETE, OPTIONS",
            Resource::SessionTouch
            | Resource::Subscribe
            | Resource::SubscribeBatch
            | Resource::Publish
            | Resource::Secrets => "POST, OPTIONS",
            Resource::Unsubscribe | Resource::Secret => "DELETE, OPTIONS",
            Resource::Reconcile | Resource::Health | Resource::OpenApi => "GET, HEAD, OPTIONS",
        }
    }
}

/// Declares [`Operation`]: one entry a route with its id, resource, method, access and summary.
macro_rules! operations {
    ($($variant:ident $id:literal $resource:ident $method:literal $access:ident $summary:literal)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $(#[doc = $summary] $variant,)*
        }

        impl Operation {
            /// Every operation, in the order of the docs.
            pub const ALL: &[Operation] = &[$(Operation::$variant),*];

            /// Its name in logs, metrics and the OpenAPI document: camelCase.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Operation::$variant => $id,)* }
            }

            /// What it acts on.
            #[must_use]
            pub const fn resource(self) -> Resource {
                match self { $(Operation::$variant => Resource::$resource,)* }
            }

            /// Its method.
            #[must_use]
            pub const fn method(self) -> &'static str {
                match self { $(Operation::$variant => $method,)* }
            }

            /// Who may call it.
            #[must_use]
            pub const fn access(self) -> Access {
                match self { $(Operation::$variant => Access::$access,)* }
            }

            /// One sentence.
            #[must_use]
            pub const fn summary(self) -> &'static str {
                match self { $(Operation::$variant => $summary,)* }
            }
        }
    };
}

operations! {
    CreateStream "createStream" Stream "PUT" Write "Create a stream, or confirm that it exists."
    AppendStream "appendStream" Stream "POST" Write "Append to a stream, close it, or both."
    ReadStream "readStream" Stream "GET" Read "Read a stream: catch up, long-poll, SSE or WebSocket."
    HeadStream "headStream" Stream "HEAD" Read "Tell a stream's metadata."
    DeleteStream "deleteStream" Stream "DELETE" Write "Delete a stream."
    StreamStats "streamStats" Stream "GET" Manage "Tell what a stream holds and who reads it (`?stats`)."
    CreateSession "createSession" Session "PUT" Write "Create a session, or confirm that it exists."
    ShowSession "showSession" Session "GET" Token "Show a session and what it is subscribed to."
    DeleteSession "deleteSession" Session "DELETE" Write "Delete a session, its stream and its subscriptions."
    TouchSession "touchSession" SessionTouch "POST" Token "Move a session's end."
    Subscribe "subscribe" Subscribe "POST" Write "Subscribe a session to a stream; it is made if it is not there."
    SubscribeBatch "subscribeBatch" SubscribeBatch "POST" Write "Subscribe a session to many streams."
    Unsubscribe "unsubscribe" Unsubscribe "DELETE" Write "End a session's subscription to a stream."
    Publish "publish" Publish "POST" Write "Append to a stream, and tell what became of it at its subscribers."
    ReadConfig "readConfig" Config "GET" Config "Show a project, without its secrets."
    CreateProject "createProject" Config "PUT" Admin "Create a project."
    ChangeConfig "changeConfig" Config "PATCH" Config "Change a project's origins, or whether it is public."
    AddSecret "addSecret" Secrets "POST" Config "Add a signing secret to a project."
    RemoveSecret "removeSecret" Secret "DELETE" Config "Remove a signing secret from a project."
    Reconcile "reconcile" Reconcile "GET" Manage "Compare a page of the object store, or of a stream's subscribers, with those who have them."
    Health "health" Health "GET" Open "Tell name and version."
    OpenApi "openApi" OpenApi "GET" Open "Describe the service."
}

/// Why a request is none of the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoOperation {
    /// Nothing stands at the URL.
    NoResource,
    /// The resource does not have the method; these it has.
    NoMethod(Resource),
    /// Clients may not write there.
    Reserved,
    /// Nothing is published to a session's own stream.
    SourceIsSession,
}

impl Operation {
    /// What a request asks for. `has_stats`: whether its query has the parameter `stats`.
    ///
    /// # Errors
    /// [`NoOperation`] for what is not in the table. OPTIONS is no operation: whoever may see that
    /// a resource exists may ask for its methods.
    pub fn of(route: &Route, method: &str, has_stats: bool) -> Result<Operation, NoOperation> {
        let Some(resource) = Resource::of(route) else { return Err(NoOperation::NoResource) };
        let found = match (resource, method) {
            (Resource::Stream, "GET") if has_stats => Some(Operation::StreamStats),
            (Resource::Stream, "HEAD") => Some(Operation::HeadStream),
            (_, "HEAD") => Operation::find(resource, "GET"),
            _ => Operation::find(resource, method),
        };
        let operation = found.ok_or(NoOperation::NoMethod(resource))?;
        let (Route::Stream { reserved: Some(reserved), .. }
        | Route::Publish { reserved: Some(reserved), .. }) = route
        else {
            return Ok(operation);
        };
        match (operation.access(), reserved) {
            (_, Reserved::Session) if operation == Operation::Publish => {
                Err(NoOperation::SourceIsSession)
            }
            (Access::Write, _) => Err(NoOperation::Reserved),
            (_, Reserved::Session) => Ok(operation),
            (_, Reserved::Subscriptions) => Err(NoOperation::NoResource),
        }
    }

    /// Whether the streams that it acts on stand in the body: whoever reads that checks whether the
    /// caller's token covers them.
    #[must_use]
    pub const fn names_streams_in_body(self) -> bool {
        matches!(self, Operation::Subscribe | Operation::SubscribeBatch | Operation::Unsubscribe)
    }

    fn find(resource: Resource, method: &str) -> Option<Operation> {
        let mut all = Operation::ALL.iter().copied();
        all.find(|operation| operation.resource() == resource && operation.method() == method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const PATHS: [(&str, Option<Resource>); 15] = [
        ("/v1/p/stream/a/b", Some(Resource::Stream)),
        ("/v1/stream/a", Some(Resource::Stream)),
        ("/v1/p/session/a", Some(Resource::Session)),
        ("/v1/p/session/a/touch", Some(Resource::SessionTouch)),
        ("/v1/p/subscribe", Some(Resource::Subscribe)),
        ("/v1/p/subscribe/batch", Some(Resource::SubscribeBatch)),
        ("/v1/p/unsubscribe", Some(Resource::Unsubscribe)),
        ("/v1/p/publish/a/b", Some(Resource::Publish)),
        ("/v1/p/config", Some(Resource::Config)),
        ("/v1/p/config/secrets", Some(Resource::Secrets)),
        ("/v1/p/config/secrets/00ff", Some(Resource::Secret)),
        ("/v1/p/reconcile", Some(Resource::Reconcile)),
        ("/health", Some(Resource::Health)),
        ("/openapi.json", Some(Resource::OpenApi)),
        ("/v1/p/stream", None),
    ];

    #[test]
    fn every_resource_has_a_path_and_its_methods() {
        for (path, resource) in PATHS {
            assert_eq!(Resource::of(&Route::parse(path).unwrap()), resource, "{path}");
        }
        for resource in Resource::ALL {
            assert!(PATHS.iter().any(|(_, known)| *known == Some(*resource)), "{resource:?}");
            let operations = Operation::ALL.iter().filter(|o| o.resource() == *resource);
            let mut methods: BTreeSet<&str> = operations.map(|o| o.method()).collect();
            methods.insert("OPTIONS");
            if methods.contains("GET") {
                methods.insert("HEAD");
            }
            assert_eq!(resource.methods().split(", ").collect::<BTreeSet<_>>(), methods);
        }
    }

    #[test]
    fn every_operation_is_found_by_its_method() {
        let ids: BTreeSet<&str> = Operation::ALL.iter().map(|operation| operation.id()).collect();
        assert_eq!(ids.len(), Operation::ALL.len());
        for operation in Operation::ALL {
            let known = PATHS.iter().find(|(_, known)| *known == Some(operation.resource()));
            let route = Route::parse(known.unwrap().0).unwrap();
            let has_stats = *operation == Operation::StreamStats;
            assert_eq!(Operation::of(&route, operation.method(), has_stats), Ok(*operation));
            assert!(operation.summary().ends_with('.'));
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_refused() {
        let of =
            |path: &str, method: &str| Operation::of(&Route::parse(path).unwrap(), method, false);
        assert_eq!(of("/v1/p/stream/a", "PATCH"), Err(NoOperation::NoMethod(Resource::Stream)));
        assert_eq!(of("/v1/p/stream/a", "get"), Err(NoOperation::NoMethod(Resource::Stream)));
        assert_eq!(of("/v1/p", "GET"), Err(NoOperation::NoResource));
        assert_eq!(of("/v1/p/stream", "PUT"), Err(NoOperation::NoResource));
        assert_eq!(of("/v1/p/config/secrets/a/b", "DELETE"), Err(NoOperation::NoResource));
        for method in ["PUT", "POST", "DELETE"] {
            assert_eq!(of("/v1/p/stream/session/a", method), Err(NoOperation::Reserved));
            assert_eq!(of("/v1/p/stream/__ds/a", method), Err(NoOperation::Reserved));
        }
        assert_eq!(of("/v1/p/publish/session/a", "POST"), Err(NoOperation::SourceIsSession));
        assert_eq!(of("/v1/p/publish/__ds/a", "POST"), Err(NoOperation::Reserved));
        assert_eq!(of("/v1/p/publish/a", "GET"), Err(NoOperation::NoMethod(Resource::Publish)));
        assert_eq!(of("/v1/p/session/a", "POST"), Err(NoOperation::NoMethod(Resource::Session)));
        assert_eq!(of("/v1/p/stream/session/a", "GET"), Ok(Operation::ReadStream));
        assert_eq!(of("/v1/p/stream/__ds/a", "GET"), Err(NoOperation::NoResource));
    }
}

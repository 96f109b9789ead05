//! The way of every request: size, route, CORS, gate, rate; then what it asks for; then the end.
//!
//! ```text
//! begin ─► size ─► route ─► registry ─► CORS ─► gate ─► rate ─► dispatch ─► finish
//! ```
//!
//! Nothing here waits unless it has to: with the project's record in memory and without a rate
//! limiter, a request reaches its object in the turn in which it came. Refusals on the way are
//! completed, logged and counted like every other answer.

use std::borrow::Cow;
use std::rc::Rc;

use js_sys::Promise;
use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::name::{NameError, Route};
use protocol::registry::ProjectRecord;
use protocol::routes::{Access, NoOperation, Operation, Resource};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use super::audience::Audience;
use super::cors::Cors;
use super::exchange::{Exchange, Told};
use super::gate::{self, Caller, Question};
use super::rate;
use crate::body;
use crate::config::{Auth, Config};
use crate::js;
use crate::registry::{self, Known};
use crate::request::{query_values, split_url};
use crate::respond::{Failure, Reply, sentence};

/// A request that may do what it asks for.
pub struct Admitted {
    /// What it asks for.
    pub operation: Operation,
    /// Of what.
    pub route: Route,
    /// The request.
    pub exchange: Exchange,
    /// Who asks.
    pub caller: Caller,
}

/// Does what an admitted request asks for. A rejection becomes a 503.
pub type Dispatch = fn(&Admitted) -> Result<Promise, JsValue>;

/// A request, and what it was found to be.
struct Asked {
    exchange: Exchange,
    config: Rc<Config>,
    route: Route,
}

/// Answers a request.
pub fn serve(exchange: Exchange, dispatch: Dispatch) -> Promise {
    let asked = match Asked::of(exchange) {
        Ok(asked) => asked,
        Err(promise) => return promise,
    };
    match (asked.kept_record(), rate::limiter(&asked.exchange.env)) {
        (Some(record), None) => asked.answer(Ok(record), None, dispatch),
        (record, limiter) => future_to_promise(async move {
            // Whoever makes the edge ask the registry is counted by address before it does.
            let key = match &record {
                Some(record) => asked.rate_key(record.as_deref()),
                None => asked.address_key(),
            };
            let excess = match limiter {
                Some(limiter) => rate::check(&limiter, &key).await.err(),
                None => None,
            };
            let record = match record {
                Some(record) => Ok(record),
                None if excess.is_some() => Ok(None),
                None => asked.load_record().await,
            };
            JsFuture::from(asked.answer(record, excess, dispatch)).await
        }),
    }
}

impl Asked {
    /// Finds out what a request is; or the answer to one that is none.
    fn of(exchange: Exchange) -> Result<Self, Promise> {
        let config = match Config::of(&exchange.env) {
            Ok(config) => config,
            Err(error) => return Err(refused(&exchange, error.into(), None)),
        };
        let path = super::path_of(&exchange.preamble.url);
        let route = match exchange.preamble.check_size() {
            Ok(()) => Route::parse(path).map_err(|error| bad_name(&error)),
            Err(failure) => Err(failure),
        };
        match route {
            Ok(route) => Ok(Self { exchange, config, route }),
            Err(failure) => Err(refused(&exchange, failure, Some(&config))),
        }
    }

    /// What is known of the project, when nobody has to be asked.
    fn kept_record(&self) -> Option<Known> {
        match self.route.project() {
            Some(project) if self.config.auth == Auth::Jwt => registry::kept(project),
            _ => Some(None),
        }
    }

    async fn load_record(&self) -> Result<Known, Failure> {
        match self.route.project() {
            Some(project) => registry::load(project, &self.exchange.env).await,
            None => Ok(None),
        }
    }

    /// Who is counted: the bearer of a good token, or an address.
    fn rate_key(&self, record: Option<&ProjectRecord>) -> String {
        let judged = self.operation().and_then(|operation| self.admit(operation, record));
        match judged.ok().and_then(|caller| caller.token_id) {
            Some(id) => rate::token_key(&id),
            None => self.address_key(),
        }
    }

    fn address_key(&self) -> String {
        rate::address_key(self.exchange.preamble.address.as_deref().unwrap_or("unknown"))
    }

    fn operation(&self) -> Result<Operation, Failure> {
        let preamble = &self.exchange.preamble;
        Operation::of(&self.route, &preamble.method, preamble.has_stats()).map_err(
            |none| match none {
                NoOperation::NoResource => no_resource(),
                NoOperation::NoMethod(resource) => no_method(resource),
                NoOperation::Reserved => {
                    let message = "This path is reserved for the service.";
                    Failure::new(ErrorCode::Reserved, message)
                }
                NoOperation::SourceIsSession => {
                    let message = "The stream of a session is no source.";
                    Failure::new(ErrorCode::SourceIsSession, message)
                }
            },
        )
    }

    fn admit(
        &self,
        operation: Operation,
        record: Option<&ProjectRecord>,
    ) -> Result<Caller, Failure> {
        let stream = self.route.stream_path();
        let project = self.route.project();
        let question = Question { operation, project, stream: stream.as_deref() };
        gate::admit(&question, &self.exchange.preamble, &self.config, record, js::now())
    }

    /// Answers, once it is known what the registry says, and whether the caller asks too often
    /// (`excess`): a page may read that as well.
    fn answer(
        self,
        record: Result<Known, Failure>,
        excess: Option<Failure>,
        dispatch: Dispatch,
    ) -> Promise {
        let origins = match &record {
            Ok(Some(record)) => Some(&record.cors_origins),
            _ => None,
        };
        let preamble = &self.exchange.preamble;
        let cors = Cors::decide(preamble.origin.as_deref(), Some(&self.config), origins);
        let is_preflight = preamble.method == "OPTIONS";
        let judged = record.and_then(|record| {
            if let Some(failure) = excess {
                return Err(failure);
            }
            if is_preflight {
                return Ok(None);
            }
            let operation = self.operation()?;
            Ok(Some((operation, self.admit(operation, record.as_deref())?)))
        });
        let Self { exchange, config, route } = self;
        match judged {
            Ok(Some((operation, caller))) => {
                let admitted = Admitted { operation, route, exchange, caller };
                let promise = dispatch(&admitted).unwrap_or_else(|error| Promise::reject(&error));
                admitted.finish(&promise, &cors, &config)
            }
            Ok(None) => {
                let reply = match Resource::of(&route) {
                    Some(resource) => cors.preflight(resource.methods()),
                    None => no_resource().reply(),
                };
                let promise = resolved(&exchange.request, reply);
                let told = told(&route, "preflight");
                exchange.finish(&promise, &told, (&cors, false), Some(&config))
            }
            Err(failure) => {
                let told = Told { code: Some(failure.error.code), ..told(&route, "refused") };
                let promise = resolved(&exchange.request, failure.reply());
                exchange.finish(&promise, &told, (&cors, false), Some(&config))
            }
        }
    }
}

impl Admitted {
    /// The values of some parameters of its query.
    ///
    /// # Errors
    /// `INVALID_QUERY`: one stands twice, or is not percent-encoded UTF-8.
    pub fn query_values<const N: usize>(
        &self,
        names: [&str; N],
    ) -> Result<[Option<String>; N], Failure> {
        query_values(split_url(&self.exchange.preamble.url).2, names)
    }

    /// Name of the stream's object.
    pub(super) fn object(&self) -> Result<String, JsValue> {
        match &self.route {
            Route::Stream { name, .. } => Ok(name.object_name()),
            _ => Err(JsValue::from_str("an operation on a stream names none")),
        }
    }

    fn finish(&self, promise: &Promise, cors: &Cors, config: &Config) -> Promise {
        let is_read = self.operation.access() == Access::Read;
        let is_private = is_read
            && config.auth == Auth::Jwt
            && self.caller.audience == Audience::Authorised
            && !self.caller.is_public;
        let told = told(&self.route, self.operation.id());
        self.exchange.finish(promise, &told, (cors, is_private), Some(config))
    }
}

fn told<'a>(route: &'a Route, operation: &'static str) -> Told<'a> {
    let path = match route.stream_path() {
        Some(Cow::Borrowed(path)) => Some(Cow::Borrowed(path.as_str())),
        Some(Cow::Owned(path)) => Some(Cow::Owned(path.to_string())),
        None => None,
    };
    let project = route.project().map(|project| project.as_str());
    Told { operation, project, path, code: None }
}

/// The answer to a request that is no request of anything.
fn refused(exchange: &Exchange, failure: Failure, config: Option<&Config>) -> Promise {
    let cors = Cors::decide(exchange.preamble.origin.as_deref(), config, None);
    let code = Some(failure.error.code);
    let told = Told { operation: "refused", project: None, path: None, code };
    let promise = resolved(&exchange.request, failure.reply());
    exchange.finish(&promise, &told, (&cors, false), config)
}

/// A response that is there already, as the promise that the platform wants. A body that nobody
/// wants is read first, so that its client sees the response.
fn resolved(request: &web_sys::Request, reply: Reply) -> Promise {
    let response = match reply.into_response() {
        Ok(response) => JsValue::from(response),
        Err(error) => return Promise::reject(&error),
    };
    if matches!(request.method().as_str(), "GET" | "HEAD" | "OPTIONS") {
        return Promise::resolve(&response);
    }
    let request = Clone::clone(request);
    future_to_promise(async move {
        body::discard(&request).await;
        Ok(response)
    })
}

fn no_resource() -> Failure {
    Failure::new(ErrorCode::RouteNotFound, "There is no such resource.")
}

fn no_method(resource: Resource) -> Failure {
    let methods = resource.methods();
    let message = format!("This resource has the methods {methods}.");
    Failure::new(ErrorCode::MethodNotAllowed, message).header(name::ALLOW, methods)
}

/// A path that names nothing legal.
fn bad_name(error: &NameError) -> Failure {
    let code = match error {
        NameError::UrlTooLong => ErrorCode::UriTooLong,
        NameError::InvalidProject => ErrorCode::InvalidProject,
        NameError::InvalidSession => ErrorCode::InvalidSession,
        _ => ErrorCode::InvalidPath,
    };
    ApiError::new(code, sentence(error)).into()
}

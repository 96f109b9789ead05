//! Calls of objects by name.

use std::cell::RefCell;

use js_sys::{Function, Promise};
use protocol::error::ErrorCode;
use protocol::headers::name;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use crate::js::Namespace;
use crate::respond::{Failure, internal};

/// Name of the Durable Object binding of streams.
pub const STREAM_BINDING: &str = "STREAM";

/// Name of the Durable Object binding of sessions.
pub const SESSION_BINDING: &str = "SESSION";

/// Name of the Durable Object binding of sources' subscribers.
pub const SUBSCRIPTION_BINDING: &str = "SUBSCRIPTION";

/// Starts a call of an object: the promise of its response.
///
/// # Errors
/// What the platform throws: the deployment has no such binding, or the request's body was read.
pub fn call_object(
    binding: &'static str,
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<Promise, JsValue> {
    namespace(binding, env)?.get_by_name(object)?.fetch(request)
}

/// The namespace of a binding.
///
/// # Errors
/// The deployment has no such binding.
pub fn namespace(binding: &'static str, env: &Env) -> Result<Namespace, JsValue> {
    thread_local! {
        /// The bindings: the same objects for the whole life of the isolate. There are a handful, so
        /// looking through them is faster than hashing a name.
        static NAMESPACES: RefCell<Vec<(&'static str, Namespace)>> = const { RefCell::new(Vec::new()) };
    }
    let find = |known: &Vec<(&'static str, Namespace)>| {
        known.iter().find(|(name, _)| *name == binding).map(|(_, namespace)| namespace.clone())
    };
    let known = NAMESPACES.with(|known| known.try_borrow().ok().and_then(|known| find(&known)));
    if let Some(namespace) = known {
        return Ok(namespace);
    }
    let namespace = env.durable_object(binding)?;
    let namespace: Namespace = JsValue::from(namespace.as_ref()).unchecked_into();
    NAMESPACES.with(|known| {
        if let Ok(mut known) = known.try_borrow_mut() {
            known.push((binding, namespace.clone()));
        }
    });
    Ok(namespace)
}

/// Passes a request on to a stream's object, and its response back, as they are.
///
/// # Errors
/// `UNAVAILABLE`: the object did not answer. Whether it did what it was asked is unknown.
pub async fn forward(
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    forward_to(STREAM_BINDING, request, object, env).await
}

/// [`forward`] to an object of any kind.
///
/// # Errors
/// `UNAVAILABLE`: the object did not answer. Whether it did what it was asked is unknown.
pub async fn forward_to(
    binding: &'static str,
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let failed = |error| no_answer(binding, &error);
    let response = JsFuture::from(call_object(binding, request, object, env).map_err(failed)?);
    response.await.map(JsCast::unchecked_into).map_err(failed)
}

/// The object of a stream did not answer.
fn unavailable(error: JsValue) -> Failure {
    no_answer(STREAM_BINDING, &error)
}

/// An object did not answer.
pub(crate) fn no_answer(binding: &'static str, error: &JsValue) -> Failure {
    let (doing, message) = match binding {
        SESSION_BINDING => ("calling the session", "The session did not answer; ask again."),
        SUBSCRIPTION_BINDING => {
            ("calling the subscribers", "The stream's subscribers did not answer; ask again.")
        }
        _ => ("calling the stream", "The stream did not answer; ask again."),
    };

    internal(doing, error);
    Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1")
}

/// Turns a rejection into the response that tells it.
pub(super) fn unavailable_callback() -> Function {
    thread_local! {
        static UNAVAILABLE: Function = Closure::<dyn Fn(JsValue) -> Result<JsValue, JsValue>>::new(
            |error| unavailable(error).reply().into_response().map(JsValue::from),
        )
        .into_js_value()
        .unchecked_into();
    }
    UNAVAILABLE.with(Clone::clone)
}

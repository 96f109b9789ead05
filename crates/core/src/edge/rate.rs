//! The rate limit of requests, where the deployment binds a limiter.
//!
//! The bearer of a good token is counted by that token; everybody else, those with bad tokens among
//! them, by their address, so that trying tokens is slow.
//!
//! # Error semantics
//! 429 `RATE_LIMITED` beyond the limit. A limiter that fails lets the request through: it protects
//! the service and is no part of what is right.

use std::cell::OnceCell;
use std::net::Ipv6Addr;

use js_sys::{Object, Promise, Reflect};
use protocol::error::ErrorCode;
use protocol::headers::name;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use crate::respond::{Failure, internal};

/// Name of the binding; a deployment may do without.
const BINDING: &str = "RATE_LIMITER";

/// Seconds after which a client may ask again: the shorter of the two periods that a limiter can
/// have.
const RETRY_AFTER_SECONDS: &str = "10";

#[wasm_bindgen]
extern "C" {
    /// A binding of Workers' rate limiting.
    pub(super) type RateLimiter;

    #[wasm_bindgen(method, catch)]
    fn limit(this: &RateLimiter, options: &Object) -> Result<Promise, JsValue>;
}

/// The deployment's limiter, if it has one.
pub(super) fn limiter(env: &Env) -> Option<RateLimiter> {
    thread_local! {
        /// The bindings are the same for the whole life of the isolate.
        static LIMITER: OnceCell<JsValue> = const { OnceCell::new() };
    }
    let find = || Reflect::get(env, &BINDING.into()).unwrap_or(JsValue::UNDEFINED);
    let binding = LIMITER.with(|known| known.get_or_init(find).clone());
    (!binding.is_undefined()).then(|| binding.unchecked_into())
}

/// Who is counted: the bearer of a token.
pub(super) fn token_key(token_id: &str) -> String {
    format!("token:{token_id}")
}

/// Who is counted: an address. Of IPv6 the network of a customer, who has all of its addresses.
pub(super) fn address_key(address: &str) -> String {
    match address.parse::<Ipv6Addr>() {
        Ok(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("network:{a:x}:{b:x}:{c:x}:{d:x}")
        }
        Err(_) => format!("address:{address}"),
    }
}

/// Counts a request.
pub(super) async fn check(limiter: &RateLimiter, key: &str) -> Result<(), Failure> {
    let options = Object::new();
    // A fresh object takes any property.
    let _ = Reflect::set(&options, &"key".into(), &key.into());
    let outcome = match limiter.limit(&options) {
        Ok(promise) => JsFuture::from(promise).await,
        Err(error) => Err(error),
    };
    let success = outcome.and_then(|outcome| Reflect::get(&outcome, &"success".into()));
    match success {
        Ok(success) if success.is_falsy() => {
            let message =
                "You have sent more requests than the deployment allows; ask again later.";
            let failure = Failure::new(ErrorCode::RateLimited, message);
            Err(failure.header(name::RETRY_AFTER, RETRY_AFTER_SECONDS))
        }
        Ok(_) => Ok(()),
        Err(error) => {
            internal("counting a request", &error);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_customer_are_one() {
        assert_eq!(address_key("192.0.2.7"), "address:192.0.2.7");
        assert_eq!(address_key("2001:db8:1:2:3::9"), address_key("2001:db8:1:2:ffff::1"));
        assert_ne!(address_key("2001:db8:1:2::1"), address_key("2001:db8:1:3::1"));
    }
}

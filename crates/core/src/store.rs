//! The object store: an R2 bucket as the engine's [`Segments`].
//!
//! An upload that the platform rejects may still have happened, so it is `Unknown`. Names are
//! written once: a put is conditional on there being no such object, and when there is one, it
//! must be the same.

use std::ops::Range;
use std::time::Duration;

use engine::log::Blob;
use engine::segments::{Listed, Outcome, Pause, Retrying, Segments, Stored, Unavailable};
use js_sys::{Array, ArrayBuffer, Object, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::{Delay, Env};

use crate::js::message;
use crate::object::JsBytes;

/// Name of the R2 binding.
pub(crate) const SEGMENTS_BINDING: &str = "SEGMENTS";

#[wasm_bindgen]
extern "C" {
    /// An R2 bucket.
    #[derive(Clone)]
    type Bucket;

    #[wasm_bindgen(method, catch)]
    fn put(
        this: &Bucket,
        name: &str,
        value: &JsValue,
        options: &JsValue,
    ) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn head(this: &Bucket, name: &str) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn get(this: &Bucket, name: &str, options: &JsValue) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn delete(this: &Bucket, names: &Array) -> Result<Promise, JsValue>;

    #[wasm_bindgen(method, catch)]
    fn list(this: &Bucket, options: &JsValue) -> Result<Promise, JsValue>;

    /// An object of the bucket, with or without its body.
    type Found;

    #[wasm_bindgen(method, getter, js_name = key)]
    fn name(this: &Found) -> String;

    #[wasm_bindgen(method, getter)]
    fn size(this: &Found) -> f64;

    #[wasm_bindgen(method, getter, js_name = customMetadata)]
    fn metadata(this: &Found) -> JsValue;

    #[wasm_bindgen(method, catch, js_name = arrayBuffer)]
    fn array_buffer(this: &Found) -> Result<Promise, JsValue>;
}

/// The bucket, asked again before anybody hears of a failure.
pub(crate) type Store = Retrying<R2, Timer>;

/// The deployment's bucket.
pub(crate) fn store(env: &Env) -> Result<Store, Unavailable> {
    let bucket = Reflect::get(env, &SEGMENTS_BINDING.into()).unwrap_or(JsValue::UNDEFINED);
    if bucket.is_undefined() {
        return Err(Unavailable(format!("the binding {SEGMENTS_BINDING} is missing")));
    }
    Ok(Retrying::new(R2 { bucket: bucket.unchecked_into() }, Timer))
}

/// Waits on the platform's timer.
pub(crate) struct Timer;

impl Pause for Timer {
    async fn pause(&self, ms: u64) {
        Delay::from(Duration::from_millis(ms)).await;
    }
}

/// An R2 bucket.
pub(crate) struct R2 {
    bucket: Bucket,
}

async fn settled(promise: Result<Promise, JsValue>) -> Result<JsValue, JsValue> {
    JsFuture::from(promise?).await
}

fn unavailable(error: JsValue) -> Unavailable {
    Unavailable(message(&error))
}

/// A JavaScript object of some properties.
fn object(properties: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (name, value) in properties {
        // A fresh object takes any property.
        let _ = Reflect::set(&object, &(*name).into(), value);
    }
    object.into()
}

/// `null` and `undefined` mean that there is no such object.
fn found(value: JsValue) -> Option<Found> {
    (!value.is_null() && !value.is_undefined()).then(|| value.unchecked_into())
}

impl R2 {
    async fn stored(&self, name: &str) -> Result<Option<Stored>, JsValue> {
        let Some(found) = found(settled(self.bucket.head(name)).await?) else { return Ok(None) };
        let sum = Reflect::get(&found.metadata(), &"sum".into()).ok();
        let sum = sum.and_then(|sum| sum.as_string()).and_then(|sum| sum.parse().ok());
        // An object without a sum is not ours: no sum of ours is all that it has.
        Ok(Some(Stored { size: found.size() as u64, sum: sum.unwrap_or(0) }))
    }

    async fn try_put(
        &self,
        name: &str,
        parts: Vec<JsBytes>,
        stored: Stored,
    ) -> Result<Outcome, JsValue> {
        let body = JsBytes::concat(&parts);
        drop(parts);
        let options = object(&[
            ("onlyIf", object(&[("etagDoesNotMatch", "*".into())])),
            ("customMetadata", object(&[("sum", stored.sum.to_string().into())])),
        ]);
        let put = settled(self.bucket.put(name, body.array(), &options)).await?;
        if found(put).is_some() || self.stored(name).await? == Some(stored) {
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Failed("another object has this name".into()))
    }
}

impl Segments for R2 {
    type Bytes = JsBytes;

    async fn put(&self, name: &str, parts: Vec<JsBytes>, stored: Stored) -> Outcome {
        let outcome = self.try_put(name, parts, stored).await;
        outcome.unwrap_or_else(|error| Outcome::Unknown(message(&error)))
    }

    async fn head(&self, name: &str) -> Result<Option<Stored>, Unavailable> {
        self.stored(name).await.map_err(unavailable)
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Option<JsBytes>, Unavailable> {
        let length = range.end.saturating_sub(range.start);
        let offset = (range.start as f64).into();
        let range = object(&[("offset", offset), ("length", (length as f64).into())]);
        let options = object(&[("range", range)]);
        let got = settled(self.bucket.get(name, &options)).await.map_err(unavailable)?;
        let Some(found) = found(got) else { return Ok(None) };
        let buffer = settled(found.array_buffer()).await.map_err(unavailable)?;
        let buffer: ArrayBuffer = buffer.unchecked_into();
        Ok(Some(JsBytes::new(Uint8Array::new(&buffer))))
    }

    async fn delete(&self, names: &[String]) -> Outcome {
        if names.is_empty() {
            return Outcome::Done;
        }
        let names: Array = names.iter().map(|name| JsValue::from_str(name)).collect();
        match settled(self.bucket.delete(&names)).await {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Unknown(message(&error)),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Listed>, Unavailable> {
        let mut options = vec![("prefix", prefix.into()), ("limit", limit.into())];
        if let Some(after) = after {
            options.push(("startAfter", after.into()));
        }
        let page = settled(self.bucket.list(&object(&options))).await.map_err(unavailable)?;
        let objects = Reflect::get(&page, &"objects".into()).map_err(unavailable)?;
        let listed = |found: JsValue| {
            let found: Found = found.unchecked_into();
            Listed { name: found.name(), size: found.size() as u64 }
        };
        Ok(Array::from(&objects).iter().map(listed).collect())
    }
}

//! Rotation: the object's side of moving hot rows to the object store, and the sweeping of what
//! nothing references.
//!
//! The engine says what to upload and what becomes of it; here is only the waiting in between.
//! Rows are collected a megabyte at a time, and appends are served between any two steps.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use engine::log::{LogError, Marker};
use engine::rotate::{Collected, Rotation, Sealed, Upload};
use engine::segments::{Outcome, Segments};
use futures::future::{Either, select};
use worker::Delay;

use super::{Inner, JsBytes};
use crate::js;
use crate::metrics::{Level, event};
use crate::respond::Failure;
use crate::store::store;

/// How often a fork waits for an upload that makes its source cooler.
const UPLOADS_AWAITED: u32 = 100;

/// Longest time that a put may take.
const UPLOAD_TIMEOUT_MS: u64 = 60_000;

/// Whether an upload of this instance is under way.
#[derive(Default)]
pub(crate) struct Uploading(Rc<Cell<bool>>);

/// The right to upload: one at a time. It ends when it is dropped.
struct Turn(Rc<Cell<bool>>);

impl Uploading {
    pub(crate) fn is_going_on(&self) -> bool {
        self.0.get()
    }

    fn begin(&self) -> Option<Turn> {
        (!self.0.replace(true)).then(|| Turn(Rc::clone(&self.0)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Inner {
    /// What an earlier instance did not get to: an upload whose outcome nobody knows, or one that
    /// was due. To be called when the stream may just have been loaded.
    pub(crate) fn take_up(self: &Rc<Self>) {
        if !self.is_fresh.take() {
            return;
        }
        self.serve_readers();
        let interrupted = self.with_stream(|stream| stream.interrupted());
        let Ok(Some(rotation)) = interrupted else { return self.rotate_if_due() };
        let inner = Rc::clone(self);
        self.state.wait_until(async move {
            inner.resume_upload(rotation).await;
            inner.rotate_if_due();
        });
    }

    /// Begins to upload when enough is hot, without making anybody wait.
    pub(crate) fn rotate_if_due(self: &Rc<Self>) {
        let due = || self.with_stream(|stream| stream.rotation_due(js::now()));
        if !due().unwrap_or(false) {
            return;
        }
        let Some(turn) = self.uploading.begin() else { return };
        let inner = Rc::clone(self);
        self.state.wait_until(async move {
            let due = || inner.with_stream(|stream| stream.rotation_due(js::now()));
            while due().unwrap_or(false) && inner.rotate_logged().await {}
            drop(turn);
        });
    }

    /// Uploads now, or waits for the upload that is under way: what is hot may be too much for a
    /// fork.
    pub(crate) async fn rotate_for_fork(&self) {
        for _ in 0..UPLOADS_AWAITED {
            if let Some(_turn) = self.uploading.begin() {
                self.rotate_logged().await;
                return;
            }
            Delay::from(Duration::from_millis(50)).await;
        }
    }

    /// `true` when a segment was made.
    async fn rotate_logged(&self) -> bool {
        match self.rotate().await {
            Ok(published) => published,
            Err(failure) => {
                self.rotate_failed(&failure);
                false
            }
        }
    }

    async fn rotate(&self) -> Result<bool, Failure> {
        let began = js::now();
        let object = self.name()?;
        let Some(collected) = self.with_stream(|stream| stream.collect())?? else {
            return Ok(false);
        };
        let Some(mut sealed) = self.collect_all(collected).await? else { return Ok(false) };
        let begun =
            self.with_stream(|stream| stream.begin_rotation(&object, &sealed, js::now()))??;
        let Some(rotation) = begun else { return Ok(false) };
        let parts = std::mem::take(&mut sealed.parts);
        let stored = sealed.stored();
        let outcome = match store(&self.env) {
            Ok(store) => {
                let put = Box::pin(store.put(&rotation.name, parts, stored));
                match select(put, Delay::from(self.upload_timeout()?)).await {
                    Either::Left((outcome, _)) => outcome,
                    Either::Right(_) => Outcome::Unknown("it took too long".into()),
                }
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let upload = match &outcome {
            Outcome::Done => return self.published(&rotation, sealed, began),
            Outcome::Failed(_) => Upload::Failed,
            Outcome::Unknown(_) => Upload::Unknown,
        };
        let details =
            [("segment", rotation.name.clone().into()), ("outcome", format!("{outcome:?}").into())];
        event(&self.env, (Level::Error, "upload_failed"), &object, 1, &details);
        self.with_stream(|stream| stream.rotation_failed(&rotation, upload, js::now()))??;
        Ok(false)
    }

    /// How long a put may take: well below the grace of uploads whose outcome is unknown, which is
    /// ten times the grace of segments.
    fn upload_timeout(&self) -> Result<Duration, Failure> {
        let grace_ms = self.config()?.limits.segment_grace_ms;
        Ok(Duration::from_millis(grace_ms.saturating_mul(5).min(UPLOAD_TIMEOUT_MS)))
    }

    fn published(
        &self,
        rotation: &Rotation,
        sealed: Sealed<JsBytes>,
        began: protocol::time::UnixMillis,
    ) -> Result<bool, Failure> {
        let published =
            self.with_stream(|stream| stream.publish(rotation, sealed, js::now()))??;
        if published {
            self.rotated_at.set(Some(js::now()));
        }
        let what = if published { "rotated" } else { "upload_given_up" };
        let details = [
            ("segment", rotation.name.clone().into()),
            ("ms", js::now().saturating_since_ms(began).into()),
        ];
        let bytes = rotation.to.0.saturating_sub(rotation.from.0);
        event(&self.env, (Level::Info, what), &self.name()?, bytes, &details);
        Ok(published)
    }

    /// Collects step by step; `None` when the bytes are not what they were.
    async fn collect_all(
        &self,
        mut collected: Collected<JsBytes>,
    ) -> Result<Option<Sealed<JsBytes>>, Failure> {
        loop {
            let step: Result<bool, LogError> =
                self.with_stream(|stream| stream.collect_step(&mut collected))?;
            if !step? {
                return Ok(None);
            }
            if collected.is_complete() {
                return Ok(Some(collected.seal()));
            }
            Delay::from(Duration::ZERO).await;
        }
    }

    /// An upload that lost its instance: its object is adopted or given up.
    pub(crate) async fn resume_upload(&self, rotation: Rotation) {
        let Some(_turn) = self.uploading.begin() else { return };
        if let Err(failure) = self.adopt_or_give_up(&rotation).await {
            self.rotate_failed(&failure);
        }
    }

    async fn adopt_or_give_up(&self, rotation: &Rotation) -> Result<(), Failure> {
        let collected = self.with_stream(|stream| stream.collect_again(rotation))?;
        let Some(sealed) = self.collect_all(collected).await? else { return Ok(()) };
        let found = match store(&self.env) {
            Ok(store) => store.head(&rotation.name).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(Some(found)) if found == sealed.stored() => {
                self.published(rotation, sealed, js::now())?;
            }
            Ok(_) => {
                let unknown = Upload::Unknown;
                self.with_stream(|stream| stream.rotation_failed(rotation, unknown, js::now()))??;
            }
            // The duty asks again.
            Err(error) => {
                let details =
                    [("segment", rotation.name.clone().into()), ("cause", error.0.into())];
                event(&self.env, (Level::Error, "head_failed"), &self.name()?, 1, &details);
            }
        }
        Ok(())
    }

    /// Deletes objects that nothing references any more.
    pub(crate) async fn sweep(&self, markers: Vec<Marker>) {
        if markers.is_empty() {
            return;
        }
        let names: Vec<String> = markers.iter().map(|marker| marker.name.clone()).collect();
        let outcome = match store(&self.env) {
            Ok(store) => store.delete(&names).await,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let deleted = outcome == Outcome::Done;
        let what = match deleted {
            true => (Level::Info, "swept"),
            false => (Level::Error, "sweep_failed"),
        };
        let stream = self.name().unwrap_or_default();
        let details = [("first", names.first().cloned().into())];
        event(&self.env, what, &stream, names.len() as u64, &details);
        let noted = self.with_stream(|stream| stream.swept(&markers, deleted, js::now()));
        if let Err(failure) = noted.and_then(|noted| noted.map_err(Failure::from)) {
            // The markers are handed out again.
            self.rotate_failed(&failure);
        }
    }

    fn rotate_failed(&self, failure: &Failure) {
        let details = [("cause", failure.error.to_string().into())];
        let stream = self.name().unwrap_or_default();
        event(&self.env, (Level::Error, "rotate_failed"), &stream, 1, &details);
    }

    /// Tells the operator, once, when a stream holds four fifths of what it may.
    pub(crate) fn watch_quota(&self) {
        let Ok((hot, max)) = self.with_stream(|stream| stream.quota()) else { return };
        let is_near = hot >= max / 5 * 4;
        if self.is_nearly_full.replace(is_near) || !is_near {
            return;
        }
        let details = [("bytes_max", max.into())];
        let stream = self.name().unwrap_or_default();
        event(&self.env, (Level::Error, "quota_near"), &stream, hot, &details);
    }
}

//! Group commit: appends that arrive while the previous group is on its way to the disk are
//! planned together and committed as one transaction.
//!
//! ```text
//! append ─► queue ─► [commit group] ─► answers (held by the output gate)
//!                         │
//!                     sync() … meanwhile the queue fills … ─► [commit group] …
//! ```
//!
//! A lone append waits for nobody. While other appends are still arriving in the object, a
//! zero-delay timer precedes the group so that they can join it. Each append is judged and
//! answered on its own, in arrival order.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use engine::append::{Append, AppendError, Appended};
use futures::channel::oneshot;
use protocol::error::ErrorCode;
use protocol::limits::GROUP_APPENDS_MAX;
use wasm_bindgen_futures::JsFuture;
use worker::Delay;

use super::{Inner, JsBytes};
use crate::js;
use crate::respond::{Failure, internal};

/// An append that waits for its group.
struct Waiting {
    append: Append<JsBytes>,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
}

/// The queue in front of the log.
#[derive(Default)]
pub(crate) struct Appends {
    queue: RefCell<Vec<Waiting>>,
    /// Whether somebody commits groups.
    committing: Cell<bool>,
    /// Appends whose bodies are still being read.
    arriving: Cell<u32>,
}

/// Counts an append from its first byte until it is queued or refused.
pub(crate) struct Arriving<'a>(&'a Cell<u32>);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Appends {
    /// Announces an append whose body is about to be read.
    pub(crate) fn arrive(&self) -> Arriving<'_> {
        self.arriving.set(self.arriving.get().saturating_add(1));
        Arriving(&self.arriving)
    }

    /// The next group, in arrival order.
    fn take_group(&self) -> Vec<Waiting> {
        let Ok(mut queue) = self.queue.try_borrow_mut() else { return Vec::new() };
        let group = usize::try_from(GROUP_APPENDS_MAX).unwrap_or(usize::MAX).min(queue.len());
        queue.drain(..group).collect()
    }

    fn is_empty(&self) -> bool {
        self.queue.try_borrow().is_ok_and(|queue| queue.is_empty())
    }
}

impl Inner {
    /// Appends in the next group.
    pub(crate) async fn append(
        self: &Rc<Self>,
        append: Append<JsBytes>,
        arriving: Arriving<'_>,
    ) -> Result<Appended, Failure> {
        let (answer, answered) = oneshot::channel();
        match self.appends.queue.try_borrow_mut() {
            Ok(mut queue) => queue.push(Waiting { append, answer }),
            Err(_) => return Err(lost()),
        }
        drop(arriving);
        if !self.appends.committing.replace(true) {
            self.start_committing();
        }
        match answered.await {
            Ok(outcome) => Ok(outcome?),
            Err(oneshot::Canceled) => Err(lost()),
        }
    }

    fn start_committing(self: &Rc<Self>) {
        let alone = self.appends.arriving.get() == 0;
        if alone {
            self.commit_group();
        }
        let inner = Rc::clone(self);
        self.state.wait_until(async move {
            if alone {
                inner.synced().await;
            }
            while !inner.appends.is_empty() {
                if inner.appends.arriving.get() > 0 {
                    Delay::from(Duration::ZERO).await;
                }
                inner.commit_group();
                inner.synced().await;
            }
            inner.appends.committing.set(false);
        });
    }

    fn commit_group(&self) {
        let group = self.appends.take_group();
        let (appends, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.append, waiting.answer)).unzip();
        let outcome = self.with_stream(|stream| stream.append_group(appends, js::now()));
        // A load that failed drops the senders, and each member is answered as lost.
        let Ok(outcome) = outcome else { return };
        for (answer, reply) in answers.into_iter().zip(outcome.replies) {
            // A receiver that is gone was abandoned by its client; the append stands.
            let _ = answer.send(reply);
        }
        if let Some(growth) = outcome.growth {
            self.broadcast(growth);
        }
    }

    /// Waits until what was committed is on disk.
    async fn synced(&self) {
        let outcome = match self.storage.sync() {
            Ok(promise) => JsFuture::from(promise).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            internal("waiting for the disk", &error);
        }
    }
}

fn lost() -> Failure {
    Failure::new(ErrorCode::StorageFailed, "The stream's storage failed; nothing was changed.")
}

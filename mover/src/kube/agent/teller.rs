//! How far a transfer is, in the status and in the metrics.
//!
//! Owns: what was told last. Must not: decide when it is told, or answer the order.

use std::sync::Arc;

use serde_json::json;

use super::metrics::{AgentMetrics, Moved, StageSums};
use super::status::{StatusWriter, Written, now};
use super::stopper::{Cause, Stopper};
use super::work::Kind;
use crate::pipeline::progress::Progress;

/// Tells how far a transfer is, whenever that changed.
pub(super) struct Teller<'a> {
    writer: &'a StatusWriter,
    metrics: &'a AgentMetrics,
    kind: Kind,
    stopper: &'a Stopper,
    progress: Arc<Progress>,
    told: Moved,
    /// Extents that the source of changed blocks had told by then: it answers, though nothing moves yet.
    answers: u64,
    stages: StageSums,
    queued: u64,
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        (writer, stopper): (&'a StatusWriter, &'a Stopper),
        metrics: &'a AgentMetrics,
        kind: Kind,
        progress: Arc<Progress>,
    ) -> Self {
        Self {
            writer,
            metrics,
            kind,
            stopper,
            progress,
            told: Moved::default(),
            answers: 0,
            stages: StageSums::default(),
            queued: 0,
        }
    }

    /// Adds what was moved since the last time to the metrics; whether that is anything.
    pub(super) fn count(&mut self) -> bool {
        let now = Moved::of(&self.progress);
        let (metrics, kind) = (self.metrics, self.kind);
        metrics.observe_moved(kind, &self.told, &now);
        let stages = StageSums::of(&self.progress);
        metrics.stages().observe(kind, &self.stages, &stages);
        self.stages = stages;
        let queued = Progress::read_of(&self.progress.queued);
        metrics.stages().observe_queue(self.queued, queued);
        self.queued = queued;
        let changed = now != self.told;
        self.told = now;
        changed
    }

    pub(super) async fn tell(&mut self) {
        let answers = Progress::read_of(&self.progress.told);
        let is_answered = answers != std::mem::replace(&mut self.answers, answers);
        // Both are asked: what was moved is counted whether it is told or not.
        if !(self.count() | is_answered) {
            return;
        }
        let total = Progress::read_of(&self.progress.total);
        let done = Progress::read_of(&self.progress.done).min(total);
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let fields = json!({
            "progress": { "totalBytes": bytes(total), "bytesDone": bytes(done) },
            "transfer": { "lastProgress": now() },
        });
        match self.writer.write(&fields).await {
            Ok(Written::Yes) => {}
            Ok(Written::NotWanted) => self.stopper.stop(Cause::Superseded),
            // The next report says the same and more.
            Err(error) => tracing::debug!(%error, "tell no progress"),
        }
    }
}

impl Drop for Teller<'_> {
    /// What was on its way when a transfer failed is on its way no more.
    fn drop(&mut self) {
        self.metrics.stages().observe_queue(self.queued, 0);
    }
}

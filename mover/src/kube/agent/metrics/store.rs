//! What was asked of stores.
//!
//! Owns: these metrics. Must not: count: stores do.

use prometheus::{IntCounter, IntCounterVec, Registry};

use super::request_times::RequestTimesMetric;
use crate::metrics::register::{counter, counters, registered};
use crate::repository::store::RequestCounts;

#[derive(Debug)]
pub(super) struct StoreMetrics {
    requests: IntCounterVec,
    transferred: IntCounterVec,
    retries: IntCounter,
    errors: IntCounter,
    throttles: IntCounter,
    times: RequestTimesMetric,
}

impl StoreMetrics {
    pub(super) fn new(r: &Registry) -> Self {
        let metrics = Self {
            requests: counters(
                r,
                "store_requests_total",
                "Requests to stores.",
                &["operation"],
            ),
            transferred: counters(
                r,
                "store_transferred_bytes_total",
                "Bodies moved.",
                &["direction"],
            ),
            retries: counter(r, "store_retries_total", "Requests that were sent again."),
            errors: counter(
                r,
                "store_errors_total",
                "Requests that failed; an object that is not there is an answer.",
            ),
            throttles: counter(
                r,
                "store_throttles_total",
                "Requests that the store answered by asking for fewer, or not in time.",
            ),
            times: registered(r, RequestTimesMetric::new()),
        };
        metrics.add(&RequestCounts::default());
        metrics
    }

    /// Adds what was asked since a store was opened.
    pub(super) fn add(&self, counts: &RequestCounts) {
        for (operation, count) in [
            ("put", counts.put),
            ("get", counts.get),
            ("head", counts.head),
            ("list", counts.list),
            ("delete", counts.delete),
        ] {
            self.requests.with_label_values(&[operation]).inc_by(count);
        }
        let sent = self.transferred.with_label_values(&["sent"]);
        sent.inc_by(counts.put_bytes);
        let received = self.transferred.with_label_values(&["received"]);
        received.inc_by(counts.get_bytes);
        self.retries.inc_by(counts.retries);
        self.errors.inc_by(counts.errors);
        self.throttles.inc_by(counts.throttles);
        self.times.add(&counts.times);
    }
}

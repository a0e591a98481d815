//! How long requests to stores take, as a histogram of Prometheus.
//!
//! Owns: adding up distributions that stores counted themselves, which the histograms of the library cannot. Must not: measure.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use crate::repository::store::{RequestTimes, TIME_BOUNDS};

const NAME: &str = "store_request_duration_seconds";
const HELP: &str = "Time of a request to a store that is reached over a network.";

/// The sum of what all stores counted. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct RequestTimesMetric {
    desc: Desc,
    sum: Arc<Mutex<RequestTimes>>,
}

impl RequestTimesMetric {
    pub(super) fn new() -> Self {
        let desc = Desc::new(
            NAME.to_owned(),
            HELP.to_owned(),
            Vec::new(),
            std::collections::HashMap::new(),
        );
        Self {
            desc: desc.expect("name and help are constant and valid"),
            sum: Arc::default(),
        }
    }

    pub(super) fn add(&self, times: &RequestTimes) {
        let mut sum = self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        for (sum, class) in sum.classes.iter_mut().zip(times.classes) {
            *sum = sum.saturating_add(class);
        }
        sum.micros = sum.micros.saturating_add(times.micros);
    }
}

impl Collector for RequestTimesMetric {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let sum = *self.sum.lock().unwrap_or_else(PoisonError::into_inner);
        let mut below = 0;
        let buckets = TIME_BOUNDS.iter().zip(sum.classes).map(|(bound, class)| {
            below += class;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(sum.classes.iter().sum());
        histogram.set_sample_sum(std::time::Duration::from_micros(sum.micros).as_secs_f64());
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let mut family = MetricFamily::default();
        family.set_name(NAME.to_owned());
        family.set_help(HELP.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(vec![metric]);
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::register::{registered, registry, text};

    #[test]
    fn classes_become_buckets() {
        let registry = registry("x");
        let metric = registered(&registry, RequestTimesMetric::new());
        let mut times = RequestTimes {
            micros: 2_500_000,
            ..RequestTimes::default()
        };
        times.classes[0] = 3;
        times.classes[2] = 2;
        times.classes[TIME_BOUNDS.len()] = 1;
        metric.add(&times);
        metric.add(&times);
        let text = text(&registry).unwrap();
        for line in [
            "x_store_request_duration_seconds_bucket{le=\"0.005\"} 6",
            "x_store_request_duration_seconds_bucket{le=\"0.01\"} 6",
            "x_store_request_duration_seconds_bucket{le=\"60\"} 10",
            "x_store_request_duration_seconds_bucket{le=\"+Inf\"} 12",
            "x_store_request_duration_seconds_sum 5",
            "x_store_request_duration_seconds_count 12",
        ] {
            assert!(text.contains(line), "no `{line}` in\n{text}");
        }
    }
}

//! Making and registering metrics, the same for every process.
//!
//! Owns: the calls. Must not: name a metric. Names, help texts and labels are constants of the callers, so that a wrong one fails in every test.

#![cfg_attr(
    not(feature = "kubernetes"),
    expect(
        dead_code,
        reason = "controller and agent have kinds of metrics that a run has not"
    )
)]

use prometheus::core::Collector;
use prometheus::{
    CounterVec, Encoder as _, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::error::{Error, ErrorKind, Result};

const CONSTANT: &str = "metric names are constant, valid and unique";

/// A registry whose metrics all begin with `prefix` and `_`.
pub(crate) fn registry(prefix: &str) -> Registry {
    Registry::new_custom(Some(prefix.to_owned()), None).expect(CONSTANT)
}

/// Registers a metric and gives it back.
pub(crate) fn registered<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> C {
    registry.register(Box::new(metric.clone())).expect(CONSTANT);
    metric
}

/// A whole number that goes up and down.
pub(crate) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(name, help).expect(CONSTANT))
}

/// A number with a fraction.
pub(crate) fn float(registry: &Registry, name: &str, help: &str) -> Gauge {
    registered(registry, Gauge::new(name, help).expect(CONSTANT))
}

/// Whole numbers by labels.
pub(crate) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let family = IntGaugeVec::new(Opts::new(name, help), labels);
    registered(registry, family.expect(CONSTANT))
}

/// Numbers with fractions by labels.
pub(crate) fn floats(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    let family = GaugeVec::new(Opts::new(name, help), labels);
    registered(registry, family.expect(CONSTANT))
}

/// What only grows.
pub(crate) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(name, help).expect(CONSTANT))
}

/// What only grows, by labels.
pub(crate) fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> IntCounterVec {
    let family = IntCounterVec::new(Opts::new(name, help), labels);
    registered(registry, family.expect(CONSTANT))
}

/// What only grows, with fractions, by labels.
pub(crate) fn sums(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> CounterVec {
    let family = CounterVec::new(Opts::new(name, help), labels);
    registered(registry, family.expect(CONSTANT))
}

/// Distributions by labels.
pub(crate) fn histograms(
    registry: &Registry,
    (name, help): (&str, &str),
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(
        registry,
        HistogramVec::new(options, labels).expect(CONSTANT),
    )
}

/// The text form of all metrics, as Prometheus reads it.
///
/// # Errors
/// `Internal`, if the registry cannot be written.
pub(crate) fn text(registry: &Registry) -> Result<String> {
    let failed = |error| Error::new(ErrorKind::Internal, "encode the metrics").source(error);
    let mut bytes = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut bytes)
        .map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// As the whole numbers of metrics hold it.
pub(crate) fn saturated(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What `manifests/METRICS.md` lists under a prefix: `name{labels}`, with the labels in their order.
#[cfg(test)]
pub(crate) fn documented(prefix: &str) -> std::collections::BTreeSet<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/METRICS.md");
    let page = std::fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let (labels, _) = rest.split_once("| ")?;
        let name = name.starts_with(prefix).then_some(name)?;
        Some(format!("{name}{{{}}}", labels.trim()))
    };
    page.lines().filter_map(row).collect()
}

/// The same of a registry; only families that have a series are there.
#[cfg(test)]
pub(crate) fn known(registry: &Registry) -> std::collections::BTreeSet<String> {
    let family = |family: &prometheus::proto::MetricFamily| {
        let labels = family.get_metric()[0].get_label();
        let labels: Vec<&str> = labels.iter().map(|label| label.name()).collect();
        format!("{}{{{}}}", family.name(), labels.join(", "))
    };
    registry.gather().iter().map(family).collect()
}

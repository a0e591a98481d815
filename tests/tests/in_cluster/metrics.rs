//! Prometheus scrapes controller and agent, and says what the status says.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::cluster::product::{agent_name, repository_root};
use tests::prometheus::{self, Prometheus};

use crate::bed::{Bed, CONTROLLER, LIMIT, NODE};

/// Longest wait for the next scrape, which is a second away.
const SCRAPE: Duration = Duration::from_secs(60);
const NEW: &str = "snaphaul_agent_data_bytes_total{data=\"new\",kind=\"backup\"}";

pub(crate) fn prometheus_sees(bed: &mut Bed) -> Result<()> {
    let (claim, image) = bed.claim("data", 32)?;
    bed.count()?;
    let agent = agent_name(NODE);
    let before = bed.metric(&agent, NEW)?.context("the agent counts")?;
    bed.backup("measured", "data", &json!({}), &image)?;
    let status = bed.completed("measured")?["status"].clone();
    #[expect(clippy::cast_precision_loss, reason = "some mebibytes")]
    let stored = status["incrementalBytes"].as_i64().context("bytes")? as f64;
    ensure!(stored > 0.0, "{status}");
    let targets = [
        (
            "controller",
            bed.product.port(CONTROLLER).context("it runs")?,
        ),
        ("agent", bed.product.port(&agent).context("it runs")?),
    ];
    let server = Prometheus::start(&targets)?;
    let volume = format!(
        "{{namespace=\"{}\",persistentvolumeclaim=\"data\",repository=\"store\"}}",
        bed.namespace
    );
    let gauge = |name: &str| format!("snaphaul_controller_volume_{name}{volume}");
    for (query, expected) in [
        ("up".to_owned(), vec![1.0, 1.0]),
        (NEW.to_owned(), vec![before + stored]),
        (gauge("last_point_new_bytes"), vec![stored]),
        (gauge("last_point_size_bytes"), vec![f64::from(32 << 20)]),
        // Without the gauge there is no answer, and with an old one another.
        (
            format!("time() - {} < bool 3600", gauge("last_success_timestamp_seconds")),
            vec![1.0],
        ),
        (gauge("base_snapshots"), vec![1.0]),
        (
            "snaphaul_controller_phase_duration_seconds_count{kind=\"PodVolumeBackup\",phase=\"transfer\"} > bool 0".to_owned(),
            vec![1.0],
        ),
        (
            "snaphaul_agent_stage_busy_seconds_total{kind=\"backup\",stage=\"encode\"} > bool 0".to_owned(),
            vec![1.0],
        ),
        ("snaphaul_agent_queue_bytes".to_owned(), vec![0.0]),
    ] {
        let mut found = Vec::new();
        bed.wait(SCRAPE, &format!("{expected:?} of {query}"), || {
            found = server.query(&query)?;
            Ok(found == expected)
        })
        .with_context(|| format!("the last answer is {found:?}"))?;
    }
    for name in [CONTROLLER, &agent] {
        let page = bed.page(name, "/metrics")?;
        prometheus::check_metrics(&page).with_context(|| name.to_owned())?;
    }
    let folder = repository_root()?.join("manifests/prometheus");
    prometheus::check_file("rules", &folder.join("alerts.yaml"))?;
    prometheus::check_file("config", &folder.join("prometheus.yaml"))?;
    // The gauges go with the volume.
    bed.api.delete(&claim.path())?;
    bed.wait(LIMIT, "end of the volume's gauges", || {
        Ok(!bed.page(CONTROLLER, "/metrics")?.contains(&volume))
    })
}

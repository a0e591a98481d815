//! Prometheus, as Debian packages it: a server that scrapes, and `promtool`.
//!
//! Owns: their start and questions to them. Must not: install them (`tests/run` does) or know a metric.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::http_get;
use crate::part;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::server::free_ports;

/// Seen: 1 s on an idle 2-core machine.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Prometheus {
    port: u16,
    _process: Process,
    _folder: Scratch,
}

impl Prometheus {
    /// Starts one that asks each target, a job and its port on this machine, every second.
    ///
    /// # Errors
    /// Where it is not installed or does not come up.
    pub fn start(targets: &[(&str, u16)]) -> Result<Self> {
        let folder = Scratch::new("prometheus")?;
        let mut config = "global: {scrape_interval: 1s}\nscrape_configs:\n".to_owned();
        for (job, port) in targets {
            writeln!(
                config,
                "- {{job_name: {job}, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}"
            )?;
        }
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config)?;
        let [port] = free_ports::<1>()?;
        let args = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        let program = part::program("prometheus", "prometheus")?;
        let process = Process::start(&program, &args, &[], &folder.join("log"))?;
        process.wait_until(START_LIMIT, || http_get::get(port, "/-/ready").is_ok())?;
        Ok(Self {
            port,
            _process: process,
            _folder: folder,
        })
    }

    /// The values that a query gives now.
    ///
    /// # Errors
    /// Where it is not understood.
    pub fn query(&self, query: &str) -> Result<Vec<f64>> {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in query.bytes() {
            write!(path, "%{byte:02x}")?;
        }
        let answer: Value = serde_json::from_str(&http_get::get(self.port, &path)?)?;
        let results = answer["data"]["result"]
            .as_array()
            .with_context(|| answer.to_string())?;
        let value = |result: &Value| Ok(result["value"][1].as_str().context("a value")?.parse()?);
        results.iter().map(value).collect()
    }
}

/// What `promtool check metrics` says against a page of metrics.
///
/// # Errors
/// What it says.
pub fn check_metrics(page: &str) -> Result<()> {
    let mut child = Command::new(part::program("promtool", "prometheus")?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().context("it is piped")?;
    input.write_all(page.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(())
}

/// Checks a file of rules (`rules`) or of a server (`config`).
///
/// # Errors
/// What is wrong with it.
pub fn check_file(what: &str, file: &Path) -> Result<()> {
    let output = Command::new(part::program("promtool", "prometheus")?)
        .args(["check", what])
        .arg(file)
        .output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{}: {}", file.display(), String::from_utf8_lossy(&said));
    }
    Ok(())
}

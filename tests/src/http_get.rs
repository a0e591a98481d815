//! One HTTP request to a server on this machine.
//!
//! Owns: GET without encryption, as Prometheus and its targets answer it. Must not: follow redirects or keep connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest wait for a piece of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The body of `path` at a port of this machine.
///
/// # Errors
/// Where nobody answers, or with anything but 200.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // A server answers 1.0 in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no end of the head: {answer}"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{path} answers {head}: {body}");
    }
    Ok(body.to_owned())
}

/// The value of a series in a page of metrics; nothing where it is not there. Labels come in the order of the page.
///
/// # Errors
/// Where the value is no number.
pub fn series(page: &str, series: &str) -> Result<Option<f64>> {
    let value = page
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| Ok(value.parse()?)).transpose()
}

//! A small S3 client of the tests' own: Signature V4 by hand, `curl` as transport.
//!
//! Owns: buckets of the tests, and objects put, read or damaged behind the product's back. Must not: share code with the
//! product's client, so that neither hides the other's mistakes.

mod versions;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use aws_lc_rs::{digest, hmac};

use crate::part;
use crate::server::{Endpoint, Login};

pub use versions::Version;

/// The only region the servers of the tests know.
pub const REGION: &str = "us-east-1";

/// One bucket, used as its owner.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The server.
    pub endpoint: Endpoint,
    /// Name of the bucket.
    pub name: String,
    login: Login,
}

/// Status and body of an answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body, whole.
    pub body: Vec<u8>,
}

impl Bucket {
    /// A bucket by name; nothing is made.
    #[must_use]
    pub fn new(endpoint: &Endpoint, name: &str) -> Self {
        Self {
            endpoint: endpoint.clone(),
            name: name.to_owned(),
            login: endpoint.owner.clone(),
        }
    }

    /// Makes the bucket; one that is there already is fine.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn create(&self) -> Result<()> {
        match self.request("PUT", "", &[], &[])? {
            Answer {
                status: 200 | 409, ..
            } => Ok(()),
            answer => bail!("make bucket {}: {answer:?}", self.name),
        }
    }

    /// Stores an object.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn put(&self, key: &str, body: &[u8]) -> Result<()> {
        self.request("PUT", key, &[], body)?
            .success("PUT", key)
            .map(drop)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// Where it is missing.
    pub fn get(&self, key: &str) -> Result<Vec<u8>> {
        Ok(self
            .request("GET", key, &[], &[])?
            .success("GET", key)?
            .body)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn delete(&self, key: &str) -> Result<()> {
        self.request("DELETE", key, &[], &[])?
            .success("DELETE", key)
            .map(drop)
    }

    /// Lets the endpoint's reader GET and LIST, where that takes a policy.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn let_read(&self) -> Result<()> {
        if !self.endpoint.reader_needs_policy {
            return Ok(());
        }
        let policy = serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"AWS": ["arn:aws:iam:::user/reader"]},
                "Action": ["s3:ListBucket", "s3:GetObject"],
                "Resource": [format!("arn:aws:s3:::{}", self.name), format!("arn:aws:s3:::{}/*", self.name)],
            }],
        });
        let answer = self.request("PUT", "", &[("policy", "")], policy.to_string().as_bytes())?;
        answer.success("PUT policy of", &self.name).map(drop)
    }

    /// All keys that begin with `prefix`, ascending.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>> {
        let mut keys: Vec<String> = Vec::new();
        loop {
            let after = keys.last().cloned().unwrap_or_default();
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            if !after.is_empty() {
                query.push(("start-after", &after));
            }
            let answer = self
                .request("GET", "", &query, &[])?
                .success("LIST", prefix)?;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let before = keys.len();
            keys.extend(
                text.split("<Key>")
                    .skip(1)
                    .filter_map(|rest| rest.split("</Key>").next())
                    .map(str::to_owned),
            );
            if keys.len() == before || !text.contains("<IsTruncated>true") {
                return Ok(keys);
            }
        }
    }

    fn request(
        &self,
        method: &str,
        key: &str,
        query: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        self.request_with(method, key, query, &[], body)
    }

    fn request_with(
        &self,
        method: &str,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let path = if key.is_empty() {
            format!("/{}", self.name)
        } else {
            format!("/{}/{}", self.name, encode(key, true))
        };
        let mut pairs: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false)))
            .collect();
        pairs.sort();
        self.send("s3", &[method, &path, &pairs.join("&")], headers, body)
    }

    fn sts(&self, body: &[u8]) -> Result<Answer> {
        let form = [("content-type", "application/x-www-form-urlencoded")];
        self.send("sts", &["POST", "/", ""], &form, body)
    }

    /// Sends `[method, path, query]` to one service of the server.
    fn send(
        &self,
        service: &str,
        request: &[&str; 3],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let [method, path, query] = request;
        let moment = timestamp(SystemTime::now())?;
        let body_hash = hex(digest::digest(&digest::SHA256, body).as_ref());
        let mut signed = vec![
            ("host", self.endpoint.host()),
            ("x-amz-content-sha256", body_hash.as_str()),
            ("x-amz-date", moment.as_str()),
        ];
        signed.extend(headers);
        if let Some(token) = &self.login.token {
            signed.push(("x-amz-security-token", token));
        }
        signed.sort_unstable();
        let authorization = self.sign(service, request, &signed);
        let curl = part::program("curl", "curl")?;
        let mut command = Command::new(curl);
        command.args([
            "--silent",
            "--show-error",
            "--max-time",
            "300",
            "--path-as-is",
            "--request",
            method,
        ]);
        command.args([
            "--write-out",
            "%{stderr}%{http_code}",
            "--header",
            "Expect:",
        ]);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            command.args(["--header", "Content-Type:"]);
        }
        for (name, value) in signed.iter().filter(|(name, _)| *name != "host") {
            command.arg("--header").arg(format!("{name}: {value}"));
        }
        command
            .arg("--header")
            .arg(format!("Authorization: {authorization}"));
        if let Some(ca) = &self.endpoint.ca_file {
            command.arg("--cacert").arg(ca);
        }
        if matches!(*method, "PUT" | "POST") {
            command.args(["--data-binary", "@-"]);
        }
        command.arg(format!(
            "{}{path}{}{query}",
            self.endpoint.url,
            if query.is_empty() { "" } else { "?" }
        ));
        exchange(command, body).with_context(|| format!("{method} {} {path}", self.endpoint.name))
    }

    /// Signature V4 of `[method, path, query]` with these headers, which are sorted and hold the date and the body's hash.
    fn sign(&self, service: &str, request: &[&str; 3], headers: &[(&str, &str)]) -> String {
        let value = |wanted| {
            let found = headers.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| *value).unwrap_or_default()
        };
        let (moment, body_hash) = (value("x-amz-date"), value("x-amz-content-sha256"));
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{value}\n"))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{lines}\n{names}\n{body_hash}",
            request[0], request[1], request[2],
        );
        let day = &moment[..8];
        let scope = format!("{day}/{REGION}/{service}/aws4_request");
        let canonical_hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let mut key = format!("AWS4{}", self.login.secret).into_bytes();
        for part in [day, REGION, service, "aws4_request"] {
            key = mac(&key, part);
        }
        let signature = hex(&mac(
            &key,
            &format!("AWS4-HMAC-SHA256\n{moment}\n{scope}\n{canonical_hash}"),
        ));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.login.access
        )
    }
}

impl Answer {
    fn success(self, verb: &str, key: &str) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        bail!(
            "{verb} {key}: {} {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
    }
}

fn exchange(mut command: Command, body: &[u8]) -> Result<Answer> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A server that refuses early closes the pipe; its answer tells why.
        let _ = input.write_all(body);
    }
    let output = child.wait_with_output()?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = told
        .get(told.len().saturating_sub(3)..)
        .and_then(|code| code.parse().ok());
    match status {
        Some(status) if output.status.success() => Ok(Answer {
            status,
            body: output.stdout,
        }),
        _ => bail!("curl ended with {}: {told}", output.status),
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

fn hex(bytes: &[u8]) -> String {
    mover::repository::ids::to_hex(bytes)
}

fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'/' if keep_slash => out.push('/'),
            _ => write!(out, "%{byte:02X}").expect("writing to a String never fails"),
        }
    }
    out
}

/// `YYYYMMDDTHHMMSSZ`, by the days-to-civil arithmetic of the proleptic Gregorian calendar (years from 1 March).
fn timestamp(now: SystemTime) -> Result<String> {
    let seconds = now.duration_since(UNIX_EPOCH)?.as_secs();
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Ok(format!(
        "{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_match_known_dates() {
        let at = |seconds| timestamp(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_795_259_645), "20261121T111405Z");
    }

    #[test]
    fn keys_are_encoded_as_s3_wants() {
        assert_eq!(encode("a b/ü", true), "a%20b/%C3%BC");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }
}

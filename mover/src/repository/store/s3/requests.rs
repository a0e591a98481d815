//! Single requests: each one try, with a deadline of its own.
//!
//! Owns: what goes onto the wire and how answers are read. Must not: retry, or count.

use std::future::Future;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::Bytes;

use super::S3Store;
use super::checksum::Checksum;
use super::failure::{Failure, Remedy, classify};
use super::locks::Retention;
use super::retry::Timing;
use crate::error::ErrorKind;
use crate::repository::store::ObjectInfo;
use crate::repository::store::object_name::check_name;
use crate::repository::store::profile::PayloadSigning;

/// Keys asked for in one page: the most that S3 gives.
const PAGE: i32 = 1000;

/// Memory taken for a body before its bytes come, whatever length the server claims.
const TRUSTED_LEN: usize = 64 << 20;

/// A body on its way; built once for all tries.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) body: Bytes,
    pub(super) checksum: Checksum,
    pub(super) signing: PayloadSigning,
    /// Sends `If-None-Match: *`.
    pub(super) create_only: bool,
    /// Locks the object as it is stored.
    pub(super) retention: Option<Retention>,
}

impl S3Store {
    pub(super) async fn put_request(&self, upload: &Upload) -> Result<(), Failure> {
        let deadline = self.options.timing.deadline(upload.body.len());
        let mut request = self
            .client
            .put_object()
            .bucket(&self.options.bucket)
            .key(&upload.key)
            .body(ByteStream::from(upload.body.clone()));
        request = upload.checksum.set(request);
        if upload.create_only {
            request = request.if_none_match("*");
        }
        if let Some(retention) = upload.retention {
            request = request
                .object_lock_mode(retention.header_mode())
                .object_lock_retain_until_date(retention.header_until());
        }
        let mut request = request.customize();
        if upload.signing == PayloadSigning::Unsigned {
            request = request.disable_payload_signing();
        }
        let answer = in_time("answer", deadline, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        self.note_version(answer.version_id());
        Ok(())
    }

    /// Reads an object or a part of it; a part behind the end is empty.
    pub(super) async fn get_request(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, Failure> {
        let timing = &self.options.timing;
        let mut request = self
            .client
            .get_object()
            .bucket(&self.options.bucket)
            .key(key);
        if let Some(range) = &range {
            request = request.range(range_header(range));
        }
        let answer = match in_time("answer", timing.first_byte, request.send()).await? {
            Ok(answer) => answer,
            Err(e) => {
                let failure = classify(&e);
                // The range begins at or behind the end.
                return if failure.status == Some(416) && range.is_some() {
                    Ok(Bytes::new())
                } else {
                    Err(failure)
                };
            }
        };
        let skip = skipped(&answer, range.as_ref())?;
        let body = read_answer(answer, timing).await?;
        Ok(clip(body, skip, range))
    }

    pub(super) async fn head_request(
        &self,
        key: &str,
    ) -> Result<Option<(u64, Option<SystemTime>)>, Failure> {
        let request = self
            .client
            .head_object()
            .bucket(&self.options.bucket)
            .key(key);
        match in_time("answer", self.options.timing.first_byte, request.send()).await? {
            Ok(answer) => Ok(Some((
                size(answer.content_length()),
                time(answer.last_modified()),
            ))),
            Err(e) => match classify(&e) {
                failure if failure.is_missing() => Ok(None),
                failure => Err(failure),
            },
        }
    }

    /// One page: objects, and the token of the next page.
    pub(super) async fn list_request(
        &self,
        prefix: &str,
        token: Option<&str>,
    ) -> Result<(Vec<ObjectInfo>, Option<String>), Failure> {
        let request = self
            .client
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .prefix(prefix)
            .max_keys(PAGE)
            .set_continuation_token(token.map(str::to_owned));
        let answer = in_time("answer", self.options.timing.first_byte, request.send())
            .await?
            .map_err(|e| classify(&e))?;
        let next = match (answer.is_truncated(), answer.next_continuation_token()) {
            (Some(true), Some(next)) => Some(next.to_owned()),
            (Some(true), None) => {
                let cause = "the server cut the list without saying how to go on";
                return Err(Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause));
            }
            _ => None,
        };
        let objects = answer.contents().iter().filter_map(|object| {
            let name = object.key()?.strip_prefix(self.options.prefix.as_str())?;
            // Markers of folders and other people's objects are none of ours.
            check_name(name).ok()?;
            Some(ObjectInfo {
                name: name.to_owned(),
                size: size(object.size()),
                modified: time(object.last_modified()),
            })
        });
        Ok((objects.collect(), next))
    }

    /// Learns from an answer whether the bucket keeps versions; `null` names the only one of a bucket that does not.
    fn note_version(&self, version: Option<&str>) {
        if version.is_some_and(|version| version != "null") {
            self.keeps_versions.store(true, Ordering::Relaxed);
        }
    }

    /// Deletes an object or one version of it.
    pub(super) async fn delete_request(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> Result<(), Failure> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.options.bucket)
            .key(key)
            .set_version_id(version.map(str::to_owned));
        match in_time("answer", self.options.timing.first_byte, request.send()).await? {
            Ok(answer) => {
                self.note_version(answer.version_id());
                Ok(())
            }
            Err(e) => match classify(&e) {
                // Some servers say so of a key that is gone already; of a bucket all say it with a code of its own.
                failure if failure.is_missing() && !failure.cause.contains("NoSuchBucket") => {
                    Ok(())
                }
                failure => Err(failure),
            },
        }
    }
}

pub(super) async fn in_time<T>(
    what: &str,
    deadline: Duration,
    request: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::time::timeout(deadline, request)
        .await
        .map_err(|_| Failure::late(what, deadline))
}

fn range_header(range: &Range<u64>) -> String {
    // A last byte beyond what the server's numbers hold is left out.
    match range
        .end
        .checked_sub(1)
        .filter(|last| i64::try_from(*last).is_ok())
    {
        Some(last) if last < i64::MAX.unsigned_abs() => format!("bytes={}-{last}", range.start),
        _ => format!("bytes={}-", range.start),
    }
}

/// Bytes in front of the part asked for: a server that ignores `Range` sends the whole object.
fn skipped(answer: &GetObjectOutput, range: Option<&Range<u64>>) -> Result<u64, Failure> {
    let Some(range) = range else { return Ok(0) };
    let Some(sent) = answer.content_range() else {
        return Ok(range.start);
    };
    let first = sent
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('-'))
        .and_then(|(first, _)| first.parse().ok());
    if first == Some(range.start) {
        return Ok(0);
    }
    let cause = format!(
        "the server sent `{sent}` when asked for bytes from {}",
        range.start
    );
    Err(Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause))
}

/// The body of an answer, whole and in time.
pub(super) async fn read_answer(
    answer: GetObjectOutput,
    timing: &Timing,
) -> Result<Bytes, Failure> {
    let announced = answer
        .content_length()
        .and_then(|len| usize::try_from(len).ok());
    let deadline = timing.first_byte + timing.transfer(announced.unwrap_or(TRUSTED_LEN));
    in_time("complete body", deadline, read_body(answer.body, announced)).await?
}

async fn read_body(mut body: ByteStream, announced: Option<usize>) -> Result<Bytes, Failure> {
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(TRUSTED_LEN));
    loop {
        match body.try_next().await {
            Ok(Some(part)) => bytes.extend_from_slice(&part),
            Ok(None) => break,
            Err(e) => {
                let cause = format!("the answer was cut off after {} bytes: {e}", bytes.len());
                return Err(Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause));
            }
        }
    }
    match announced {
        Some(len) if len != bytes.len() => {
            let cause = format!(
                "the answer was cut off after {} of {len} bytes",
                bytes.len()
            );
            Err(Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause))
        }
        _ => Ok(Bytes::from(bytes)),
    }
}

fn clip(body: Bytes, skip: u64, range: Option<Range<u64>>) -> Bytes {
    let Some(range) = range else { return body };
    let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let start = usize::try_from(skip).unwrap_or(usize::MAX).min(body.len());
    let end = start.saturating_add(wanted).min(body.len());
    body.slice(start..end)
}

pub(super) fn size(len: Option<i64>) -> u64 {
    len.and_then(|len| u64::try_from(len).ok()).unwrap_or(0)
}

pub(super) fn time(time: Option<&DateTime>) -> Option<SystemTime> {
    time.and_then(|time| SystemTime::try_from(*time).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive_on_the_wire() {
        assert_eq!(range_header(&(0..1)), "bytes=0-0");
        assert_eq!(range_header(&(5..10)), "bytes=5-9");
        assert_eq!(range_header(&(5..u64::MAX)), "bytes=5-");
        assert_eq!(range_header(&(5..1 << 63)), "bytes=5-");
    }

    #[test]
    fn a_server_that_ignores_ranges_is_understood() {
        let whole = Bytes::from_static(b"0123456789");
        assert_eq!(clip(whole.clone(), 3, Some(3..6)), "345");
        assert_eq!(clip(whole.clone(), 3, Some(3..60)), "3456789");
        assert_eq!(clip(whole.clone(), 30, Some(30..60)), "");
        assert_eq!(clip(whole, 0, None), "0123456789");
        let answer = GetObjectOutput::builder()
            .content_range("bytes 3-5/10")
            .build();
        assert_eq!(skipped(&answer, Some(&(3..6))).unwrap(), 0);
        assert!(
            skipped(&answer, Some(&(4..6))).is_err(),
            "another part than the one asked for"
        );
        let whole = GetObjectOutput::builder().build();
        assert_eq!(skipped(&whole, Some(&(4..6))).unwrap(), 4);
    }
}

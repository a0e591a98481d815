//! What a failed request means: try again, try less, or tell the user what to fix.
//!
//! Owns: the one place where HTTP status, S3 code and connection errors become an error kind. Must not: retry, or repeat
//! anything of the request but its outcome: headers hold signatures.

use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::ErrorKind;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Nothing: the same request would fail again.
    None,
    /// Try again after a pause.
    Retry,
    /// Try again after a pause, and with fewer requests at once.
    Slower,
}

/// One failed try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) remedy: Remedy,
    /// HTTP status, where the server answered.
    pub(super) status: Option<u16>,
    /// What happened, for people.
    pub(super) cause: String,
    pub(super) hint: Option<String>,
    /// Pause that the server asked for.
    pub(super) asked_pause: Option<Duration>,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, remedy: Remedy, cause: impl Into<String>) -> Self {
        Self {
            kind,
            remedy,
            status: None,
            cause: cause.into(),
            hint: None,
            asked_pause: None,
        }
    }

    /// Whether something is wrong: that an object is not there, or is there already, is an answer.
    pub(super) fn is_trouble(&self) -> bool {
        !matches!(self.status, Some(404 | 412)) && self.kind != ErrorKind::NotFound
    }

    /// The request did not end in time.
    pub(super) fn late(what: &str, after: Duration) -> Self {
        let cause = format!("no {what} within {} s", after.as_secs_f64());
        Self::new(ErrorKind::Unavailable, Remedy::Slower, cause)
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the object or bucket asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether the server surely did nothing: it said so.
    pub(super) fn is_final(&self) -> bool {
        self.remedy == Remedy::None
    }
}

/// Judges what the SDK reports.
pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let (answer, raw) = (service.err(), service.raw());
            let header = |name| raw.headers().get(name);
            let mut failure = judge(
                raw.status().as_u16(),
                answer.code(),
                answer.message(),
                header("x-amz-bucket-region"),
            );
            failure.asked_pause = header("retry-after")
                .and_then(|text| text.parse().ok())
                .map(Duration::from_secs);
            if let Some(id) = header("x-amz-request-id").filter(|id| !id.is_empty()) {
                failure.cause = format!("{} (request {id})", failure.cause);
            }
            failure
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            // Proxies answer with pages that are no S3 errors.
            judge(status, None, Some(&chain(error)), None)
        }
        SdkError::TimeoutError(_) => {
            Failure::new(ErrorKind::Unavailable, Remedy::Slower, chain(error)).hint(CHECK_ENDPOINT)
        }
        _ => judge_connection(error),
    }
}

const CHECK_ENDPOINT: &str = "check --s3-endpoint and that the server runs";

fn judge(status: u16, code: Option<&str>, message: Option<&str>, region: Option<&str>) -> Failure {
    let cause = match (code, message) {
        (Some(code), Some(message)) => format!("{status} {code}: {message}"),
        (Some(text), None) | (None, Some(text)) => format!("{status} {text}"),
        (None, None) => format!("status {status}"),
    };
    let mut failure = judge_code(status, code.unwrap_or_default(), region, &cause)
        .unwrap_or_else(|| judge_status(status, &cause));
    failure.status = Some(status);
    failure
}

/// Codes that say more than their status.
fn judge_code(status: u16, code: &str, region: Option<&str>, cause: &str) -> Option<Failure> {
    let last = |kind, hint: &str| Failure::new(kind, Remedy::None, cause).hint(hint);
    Some(match code {
        "NoSuchBucket" => last(
            ErrorKind::NotFound,
            "create the bucket, or check --repo, --s3-endpoint and --s3-path-style",
        ),
        "ObjectLockConfigurationNotFoundError" => last(
            ErrorKind::InvalidRequest,
            "the bucket was made without Object Lock",
        ),
        "PermanentRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException" => {
            let hint = match region {
                Some(region) => {
                    format!("the bucket is in the region {region}: give --s3-region {region}")
                }
                None => {
                    "check --s3-region and --s3-endpoint against where the bucket is".to_owned()
                }
            };
            last(ErrorKind::InvalidRequest, &hint)
        }
        "SignatureDoesNotMatch" => last(
            ErrorKind::AccessDenied,
            "check the secret key and --s3-region",
        ),
        "InvalidAccessKeyId" => last(
            ErrorKind::AccessDenied,
            "the server does not know this access key",
        ),
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => last(
            ErrorKind::AccessDenied,
            "the session token is no longer valid: get new credentials",
        ),
        "RequestTimeTooSkewed" => last(ErrorKind::AccessDenied, "set this machine's clock"),
        // Ceph RGW, MinIO.
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "StorageFull" => last(
            ErrorKind::NoSpace,
            "free space or raise the quota of the bucket",
        ),
        "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "InvalidDigest" => last(
            ErrorKind::Corrupt,
            "the body changed on its way: check memory and network of this machine",
        ),
        "SlowDown"
        | "TooManyRequests"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => Failure::new(ErrorKind::Unavailable, Remedy::Slower, cause)
            .hint("the server limits requests: lower --jobs or try later"),
        "RequestTimeout" | "IncompleteBody" if status == 400 => {
            Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause)
        }
        _ => return None,
    })
}

fn judge_status(status: u16, cause: &str) -> Failure {
    let last = |kind| Failure::new(kind, Remedy::None, cause);
    match status {
        301 | 302 | 307 | 308 => last(ErrorKind::InvalidRequest).hint("check --s3-region and --s3-endpoint"),
        401 | 403 => last(ErrorKind::AccessDenied)
            .hint("check the credentials and what the policies of user and bucket allow (get, put, list, delete; with Object Lock s3:PutObjectRetention)"),
        404 => last(ErrorKind::NotFound),
        409 => Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause),
        408 | 429 | 503 => Failure::new(ErrorKind::Unavailable, Remedy::Slower, cause)
            .hint("the server is overloaded: lower --jobs or try later"),
        501 => last(ErrorKind::InvalidRequest),
        507 => last(ErrorKind::NoSpace).hint("free space on the server"),
        500..=599 => {
            Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause).hint("look into the server's log")
        }
        // Cut short, or an answer that could not be read.
        200..=299 => Failure::new(ErrorKind::Unavailable, Remedy::Retry, cause),
        _ => last(ErrorKind::InvalidRequest),
    }
}

/// No answer at all: credentials, name, connection, trust.
fn judge_connection<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: std::error::Error + 'static,
{
    let text = chain(error);
    if let Some(failure) = judge_credentials(error, &text) {
        return failure;
    }
    let last = |kind, hint: &str| Failure::new(kind, Remedy::None, text.clone()).hint(hint);
    let contains = |needle: &str| text.contains(needle);
    if contains("invalid peer certificate") {
        // A wrong authority that has the name of the right one shows as a bad signature.
        return if contains("UnknownIssuer") || contains("BadSignature") {
            last(
                ErrorKind::AccessDenied,
                "give the file with the server's authority: --s3-ca-file FILE",
            )
        } else if contains("NotValidForName") || contains("not valid for name") {
            last(
                ErrorKind::AccessDenied,
                "the certificate is for another host name: check --s3-endpoint",
            )
        } else {
            last(
                ErrorKind::AccessDenied,
                "renew the server's certificate, or set this machine's clock",
            )
        };
    }
    if contains("InvalidContentType") || contains("corrupt message") {
        return last(
            ErrorKind::InvalidRequest,
            "the server does not speak TLS there: use http:// in --s3-endpoint",
        );
    }
    if contains("AlertReceived") || contains("HandshakeFailure") {
        return last(
            ErrorKind::AccessDenied,
            "client and server share no TLS version or cipher",
        );
    }
    if matches!(error, SdkError::ConstructionFailure(_)) {
        return Failure::new(ErrorKind::InvalidRequest, Remedy::None, text);
    }
    let hint = if contains("dns error") || contains("lookup address") {
        "check the host name in --s3-endpoint; a server without names for buckets needs --s3-path-style"
    } else {
        CHECK_ENDPOINT
    };
    Failure::new(ErrorKind::Unavailable, Remedy::Retry, text).hint(hint)
}

fn judge_credentials(error: &(dyn std::error::Error + 'static), text: &str) -> Option<Failure> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(credentials) = inner.downcast_ref::<CredentialsError>() {
            return Some(match credentials {
                CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_) => {
                    Failure::new(ErrorKind::Unavailable, Remedy::Retry, text)
                        .hint("the source of the AWS credentials does not answer")
                }
                _ => Failure::new(ErrorKind::AccessDenied, Remedy::None, text)
                    .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"),
            });
        }
        cause = inner.source();
    }
    None
}

/// Texts of all causes; each once, for wrappers repeat what they wrap.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, code: &str) -> (ErrorKind, Remedy) {
        let failure = judge(status, Some(code), Some("text"), None);
        assert!(failure.cause.contains(code) && failure.status == Some(status));
        (failure.kind, failure.remedy)
    }

    #[test]
    fn what_cannot_get_better_is_final() {
        for (status, code, kind) in [
            (400, "InvalidArgument", ErrorKind::InvalidRequest),
            (401, "", ErrorKind::AccessDenied),
            (403, "AccessDenied", ErrorKind::AccessDenied),
            (403, "InvalidAccessKeyId", ErrorKind::AccessDenied),
            (403, "SignatureDoesNotMatch", ErrorKind::AccessDenied),
            (400, "ExpiredToken", ErrorKind::AccessDenied),
            (404, "NoSuchBucket", ErrorKind::NotFound),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (301, "PermanentRedirect", ErrorKind::InvalidRequest),
            (501, "NotImplemented", ErrorKind::InvalidRequest),
            (403, "QuotaExceeded", ErrorKind::NoSpace),
            (507, "", ErrorKind::NoSpace),
            (400, "BadDigest", ErrorKind::Corrupt),
        ] {
            assert_eq!(
                judged(status, code),
                (kind, Remedy::None),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        for (status, code, remedy) in [
            (409, "ConditionalRequestConflict", Remedy::Retry),
            (500, "InternalError", Remedy::Retry),
            (502, "", Remedy::Retry),
            (400, "RequestTimeout", Remedy::Retry),
            (429, "", Remedy::Slower),
            (503, "SlowDown", Remedy::Slower),
            (503, "ServiceUnavailable", Remedy::Slower),
            (200, "", Remedy::Retry),
        ] {
            assert_eq!(
                judged(status, code),
                (ErrorKind::Unavailable, remedy),
                "{status} {code}"
            );
        }
    }

    #[test]
    fn a_wrong_region_is_named() {
        let failure = judge(301, Some("PermanentRedirect"), None, Some("eu-west-1"));
        assert!(failure.hint.unwrap().contains("--s3-region eu-west-1"));
    }
}

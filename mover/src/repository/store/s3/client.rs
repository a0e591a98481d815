//! Builds the SDK client: transport, trust, region and credentials.
//!
//! Owns: which parts of the AWS environment are used. Must not: send a request, or hold credentials longer than needed.
//! The SDK neither retries nor computes checksums, frames no body as aws-chunked and watches no stream: `s3` does what is
//! needed of it, at a fifth of the CPU time.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::{
    EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider,
};
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileCredentialsProvider, ProfileFileRegionProvider};
use aws_config::provider_config::ProviderConfig;
use aws_config::web_identity_token::WebIdentityTokenCredentialsProvider;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    AppName, BehaviorVersion, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::Builder as HttpBuilder;
use aws_smithy_http_client::tls;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::retry::Timing;
use crate::error::{Error, ErrorKind, Result};

/// Region that servers other than AWS take when none is configured.
const FALLBACK_REGION: &str = "us-east-1";

/// Where a bucket is and how to reach it.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// Name of the bucket.
    pub bucket: String,
    /// What every key begins with: empty, or ending with `/`.
    pub prefix: String,
    /// Address of the server, where it is not AWS; without it `AWS_ENDPOINT_URL_S3` and the profile are asked.
    pub endpoint: Option<String>,
    /// Region; without it the AWS environment and the profile are asked.
    pub region: Option<String>,
    /// Names the bucket in the path instead of the host name.
    pub path_style: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The same authorities as PEM text; asked before the file.
    pub ca_pem: Option<String>,
    /// Credentials that do not come from the AWS environment.
    pub credentials: Option<S3Credentials>,
    /// Deadlines and retries.
    pub timing: Timing,
}

/// A key pair; the secret is shown nowhere and erased from memory when dropped.
#[derive(Clone)]
pub struct S3Credentials {
    access_key: String,
    secret_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl S3Credentials {
    /// A long-lived key pair.
    #[must_use]
    pub fn new(access_key: &str, secret_key: &str) -> Self {
        Self {
            access_key: access_key.to_owned(),
            secret_key: Zeroizing::new(secret_key.to_owned()),
            session_token: None,
        }
    }

    /// The same keys for as long as a session lasts.
    #[must_use]
    pub fn with_session_token(self, token: &str) -> Self {
        Self {
            session_token: Some(Zeroizing::new(token.to_owned())),
            ..self
        }
    }
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials(redacted)")
    }
}

/// Builds the client; runs inside the store's runtime.
pub(super) async fn client(options: &S3Options) -> Result<Client> {
    let endpoint = options.endpoint.clone().or_else(endpoint_of_environment);
    if let Some(endpoint) = &endpoint {
        check_endpoint(endpoint)?;
    }
    let region = region(options).await;
    let http = http_client(options, endpoint.as_deref())?;
    let credentials = credentials(options, endpoint.is_some(), &region).await;
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.timing.connect)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .app_name(AppName::new("snaphaul").expect("a short plain name"))
        .region(region)
        .credentials_provider(credentials)
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let shared = loader.load().await;
    let config = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(options.path_style)
        .build();
    Ok(Client::from_conf(config))
}

fn endpoint_of_environment() -> Option<String> {
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
}

fn check_endpoint(endpoint: &str) -> Result<()> {
    let host = ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| endpoint.strip_prefix(scheme));
    let fits = host.is_some_and(|host| {
        !host.is_empty() && !host.contains('@') && !host.contains(char::is_whitespace)
    });
    if fits {
        return Ok(());
    }
    // Repeated without what may be credentials in front of an `@`.
    let shown = endpoint.rsplit_once('@').map_or(endpoint, |(_, rest)| rest);
    Err(Error::new(
        ErrorKind::InvalidRequest,
        format!("read the S3 endpoint `{}`", shown.escape_debug()),
    )
    .hint(
        "an endpoint begins with http:// or https:// and names a host: https://s3.example.com:9000",
    ))
}

async fn region(options: &S3Options) -> Region {
    let given = options.region.clone().map(Region::new);
    let chain = RegionProviderChain::first_try(given)
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new());
    chain
        .region()
        .await
        .unwrap_or_else(|| Region::from_static(FALLBACK_REGION))
}

/// The transport to the server. Plain HTTP does not load the system's authorities, which a small container may lack.
fn http_client(options: &S3Options, endpoint: Option<&str>) -> Result<SharedHttpClient> {
    let trust = match (&options.ca_pem, &options.ca_file) {
        (None, None) => tls::TrustStore::default(),
        (Some(pem), _) => {
            check_authorities(pem.as_bytes(), &|kind, message| {
                Error::new(kind, message).hint("give PEM certificates of authorities")
            })?;
            tls::TrustStore::empty().with_pem_certificate(pem.as_bytes())
        }
        (None, Some(path)) => {
            tls::TrustStore::empty().with_pem_certificate(read_authorities(path)?)
        }
    };
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
        return Ok(HttpBuilder::new().build_http());
    }
    https_client(trust)
}

fn https_client(trust: tls::TrustStore) -> Result<SharedHttpClient> {
    let context = tls::TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|e| Error::new(ErrorKind::Internal, "set up TLS").source(e))?;
    Ok(HttpBuilder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::AwsLc,
        ))
        .tls_context(context)
        .build_https())
}

/// Reads a PEM file and checks every certificate in it.
fn read_authorities(path: &Path) -> Result<Vec<u8>> {
    let refuse = |kind, message: &str| {
        Error::new(kind, message)
            .object(path.display())
            .hint("--s3-ca-file takes a PEM file of certificate authorities")
    };
    let pem = std::fs::read(path).map_err(|e| {
        let kind = match e.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::AccessDenied,
            _ => ErrorKind::Io,
        };
        refuse(kind, "read the CA file").source(e)
    })?;
    check_authorities(&pem, &refuse)?;
    Ok(pem)
}

/// Refuses what the SDK would panic on, or what holds no certificate.
fn check_authorities(pem: &[u8], refuse: &dyn Fn(ErrorKind, &str) -> Error) -> Result<()> {
    let invalid = |message| refuse(ErrorKind::InvalidRequest, message);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|e| invalid("parse the CA file").source(e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| invalid("use a certificate of the CA file").source(e))?;
    }
    if roots.is_empty() {
        return Err(invalid("find a certificate in the CA file"));
    }
    Ok(())
}

/// Environment, profile, web identity, container; on AWS also the metadata service of the machine. With a server of one's
/// own nobody answers there, and the attempt costs seconds, so then it must be named by `AWS_EC2_METADATA_SERVICE_ENDPOINT`.
async fn credentials(
    options: &S3Options,
    own_server: bool,
    region: &Region,
) -> SharedCredentialsProvider {
    if let Some(keys) = &options.credentials {
        let keys = Credentials::new(
            &keys.access_key,
            keys.secret_key.as_str(),
            keys.session_token.as_ref().map(|token| token.to_string()),
            None,
            "options",
        );
        return SharedCredentialsProvider::new(keys);
    }
    let mut config = ProviderConfig::without_region().with_region(Some(region.clone()));
    if let Ok(http) = https_client(tls::TrustStore::default()) {
        config = config.with_http_client(http);
    }
    let metadata_is_named = std::env::var_os("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some();
    if !own_server || metadata_is_named {
        let chain = DefaultCredentialsChain::builder()
            .configure(config)
            .region(region.clone())
            .build()
            .await;
        return SharedCredentialsProvider::new(chain);
    }
    let profile = ProfileFileCredentialsProvider::builder()
        .configure(&config)
        .build();
    let web_identity = WebIdentityTokenCredentialsProvider::builder()
        .configure(&config)
        .build();
    let container = EcsCredentialsProvider::builder().configure(&config).build();
    SharedCredentialsProvider::new(
        CredentialsProviderChain::first_try(
            "Environment",
            EnvironmentVariableCredentialsProvider::new(),
        )
        .or_else("Profile", profile)
        .or_else("WebIdentityToken", web_identity)
        .or_else("EcsContainer", container),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_and_no_credentials() {
        for endpoint in ["http://127.0.0.1:9000", "https://s3.example.com"] {
            assert!(check_endpoint(endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in [
            "s3.example.com",
            "https://",
            "ftp://x",
            "https://key:secret@s3.example.com",
            "http://a b",
        ] {
            let error = check_endpoint(endpoint).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let options = S3Options {
            credentials: Some(S3Credentials::new("AKIAEXAMPLE", "wJalrXUtnFEMI")),
            ..S3Options::default()
        };
        let shown = format!("{options:?}");
        assert!(
            !shown.contains("wJalrXUtnFEMI") && !shown.contains("AKIAEXAMPLE"),
            "{shown}"
        );
    }

    #[test]
    fn a_ca_file_is_checked_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read_authorities(&folder.path().join("none.pem")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        for text in [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let path = folder.path().join("bad.pem");
            std::fs::write(&path, text).unwrap();
            assert_eq!(
                read_authorities(&path).unwrap_err().kind(),
                ErrorKind::InvalidRequest,
                "{text:?}"
            );
        }
    }
}

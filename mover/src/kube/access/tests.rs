//! A bucket and a directory, reached with what the API server would hold.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::json;

use super::*;
use crate::repository::access::InitOptions;
use crate::repository::format::Cipher;
use crate::repository::store::profile::StoreProfile;
use crate::repository::store::s3::in_process::{InProcessServer, Quirks};

fn secret(pairs: &[(&str, &str)]) -> SecretObject {
    let pairs = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())));
    SecretObject {
        data: Some(pairs.collect::<BTreeMap<_, _>>()),
        ..SecretObject::default()
    }
}

fn access(spec: serde_json::Value) -> RepositoryAccess {
    let keys = [
        ("AWS_ACCESS_KEY_ID", "AKIATESTONLY"),
        ("AWS_SECRET_ACCESS_KEY", "only-for-tests"),
    ];
    let key = "k".repeat(32);
    RepositoryAccess {
        name: "r".to_owned(),
        spec: serde_json::from_value(spec).unwrap(),
        expected: None,
        secret: Some(secrets::encryption(secret(&[("key", &key)]), "s").unwrap()),
        credentials: Some(secrets::credentials(secret(&keys), "s").unwrap()),
    }
}

/// Only the repository that is expected is opened; the text of an access shows no secret.
fn is_proved(mut access: RepositoryAccess) {
    let options = InitOptions {
        cipher: Cipher::Aes256Gcm,
        chunk_size: 128 << 10,
        segment_size: 32 << 20,
        profile: StoreProfile::default(),
        created_unix_secs: 1_700_000_000,
    };
    let store = access.connect(Bandwidth::default(), true).unwrap();
    let made = access::init(store, &options, access.secret()).unwrap();
    let limits = Bandwidth {
        upload: Some(1 << 30),
        download: None,
    };
    assert_eq!(
        access.open(limits).unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    access.expected = Some(made.config.repository.to_string());
    access.open(limits).unwrap();
    access.expected = Some("0".repeat(32));
    let refused = access.open(limits).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidRequest);
    assert!(
        refused
            .to_string()
            .contains(&made.config.repository.to_string()),
        "{refused}"
    );
    assert!(!format!("{access:?}").contains("kkkk"));
}

#[test]
fn a_bucket_is_reached_with_the_authority_and_the_credentials_of_the_resource() {
    let server = InProcessServer::start(Quirks {
        tls: true,
        ..Quirks::default()
    })
    .unwrap();
    let authority = std::fs::read_to_string(server.ca_file()).unwrap();
    let s3 = json!({
        "bucket": "test",
        "prefix": "a/b",
        "endpoint": format!("https://{}", server.address()),
        "region": "us-east-1",
        "pathStyle": true,
        "caBundle": authority,
    });
    is_proved(access(json!({ "s3": s3 })));
    assert!(
        server
            .seen()
            .iter()
            .any(|request| request.target.contains("/test/a/b/config"))
    );
    let mut bad = s3;
    bad["caBundle"] = json!("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n");
    let refused = access(json!({ "s3": bad })).connect(Bandwidth::default(), false);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidRequest);
}

#[test]
fn a_directory_is_the_same_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("repo");
    is_proved(access(json!({ "directory": { "path": path } })));
}

//! The service of a cluster: TLS by its own authority, tokens that end, streams that are cut after a while.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use changed_blocks::csi::{
    BlockType, ClusterMetadata, ClusterSnapshot, CsiSource, Notices, Token, TokenError,
    TokenFuture, TokenSource,
};
use changed_blocks::{SourceErrorKind, contract};
use csi_proto::connect::{self, ConnectError, TlsEndpoint};
use csi_proto::{Channel, Status};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::runtime::Runtime;
use tonic::transport::Identity;

use crate::csi_source::server::{Asked, Item, Scripted};
use crate::csi_source::volume::Volume;
use crate::{TYPES, delta, runtime, set, source_of};

/// The authority of a cluster's service, and what it signed.
struct Authority {
    pem: Vec<u8>,
    identity: Identity,
}

impl Authority {
    /// Signs for `name`.
    fn signing(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = vec![name.to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        Self {
            pem: issuer.pem().into_bytes(),
            identity: Identity::from_pem(certificate.pem(), key.serialize_pem()),
        }
    }
}

/// Makes tokens that end, and knows which are good.
#[derive(Clone)]
struct Mint {
    made: Arc<AtomicU32>,
    life: Duration,
    good: Arc<Mutex<BTreeSet<String>>>,
}

impl Mint {
    fn new(life: Duration) -> Self {
        Self {
            made: Arc::default(),
            life,
            good: Arc::default(),
        }
    }

    fn made(&self) -> u32 {
        self.made.load(Ordering::SeqCst)
    }

    fn is_good(&self, token: &str) -> bool {
        self.good.lock().unwrap().contains(token)
    }

    fn end_all(&self) {
        self.good.lock().unwrap().clear();
    }
}

impl TokenSource for Mint {
    fn token(&mut self) -> TokenFuture<'_> {
        let number = self.made.fetch_add(1, Ordering::SeqCst);
        let secret = format!("token {number}");
        self.good.lock().unwrap().insert(secret.clone());
        let expires = SystemTime::now() + self.life;
        Box::pin(async move { Ok(Token { secret, expires }) })
    }
}

/// Refuses with what it holds.
struct NoTokens(TokenError);

impl TokenSource for NoTokens {
    fn token(&mut self) -> TokenFuture<'_> {
        let error = self.0.clone();
        Box::pin(async move { Err(error) })
    }
}

struct Bed {
    server: Scripted,
    source: CsiSource<ClusterMetadata>,
    notices: Notices,
    _runtime: Runtime,
}

fn endpoint(port: u16, authority: &Authority) -> TlsEndpoint {
    TlsEndpoint {
        address: format!("127.0.0.1:{port}"),
        ca_certificates: authority.pem.clone(),
        server_name: None,
    }
}

fn bed(
    size: u64,
    tokens: impl TokenSource + 'static,
    script: impl Fn(&Asked) -> Vec<Item> + Send + Sync + 'static,
) -> Bed {
    let runtime = runtime();
    let authority = Authority::signing("127.0.0.1");
    let server = Scripted::new(script);
    let port = server.serve_cluster(&runtime, authority.identity.clone());
    let channel = runtime
        .block_on(connect::tls(&endpoint(port, &authority)))
        .unwrap();
    let service = service(channel, tokens);
    let (source, notices) = source_of(service, size, &runtime);
    Bed {
        server,
        source,
        notices,
        _runtime: runtime,
    }
}

fn service(channel: Channel, tokens: impl TokenSource + 'static) -> ClusterMetadata {
    let snapshot = ClusterSnapshot {
        namespace: "shop".to_owned(),
        name: "db-snapshot".to_owned(),
    };
    ClusterMetadata::new(channel, snapshot, Box::new(tokens))
}

fn refused(token: &str) -> Vec<Item> {
    vec![Item::Fail(Status::unauthenticated(format!(
        "{token} is not accepted"
    )))]
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn the_source_keeps_the_contract() {
    for (seed, block_type) in (100..).zip(TYPES) {
        let volume = Volume::random(seed, 3000, block_type);
        let honest = volume.clone();
        let mint = Mint::new(HOUR);
        let mut bed = bed(volume.size(), mint.clone(), move |asked| {
            honest.honest(asked, 7)
        });
        contract::check_delta(&mut bed.source, volume.size(), &volume.set());
        contract::check_allocated(&mut bed.source, volume.size(), &volume.set());
        assert_eq!(bed.notices.all(), Vec::<String>::new());
        assert_eq!(mint.made(), 1, "a good token is kept");
    }
}

#[test]
fn the_service_gets_names_and_the_base_as_the_driver_knows_it() {
    let volume = Volume::random(110, 100, BlockType::Fixed);
    let honest = volume.clone();
    let mut bed = bed(volume.size(), Mint::new(HOUR), move |asked| {
        honest.honest(asked, 7)
    });
    delta(&mut bed.source).unwrap();
    let expected = Asked {
        number: 0,
        snapshot: "db-snapshot".to_owned(),
        base: Some("snapshot/1".to_owned()),
        offset: 0,
        max_results: 7,
        namespace: "shop".to_owned(),
        token: "token 0".to_owned(),
        ..Asked::default()
    };
    assert_eq!(bed.server.asked()[0], expected);
}

#[test]
fn a_token_that_soon_ends_is_not_used_again() {
    let volume = Volume::random(120, 300, BlockType::Fixed);
    let honest = volume.clone();
    let mint = Mint::new(Duration::from_secs(59));
    let good = mint.clone();
    let mut bed = bed(volume.size(), mint.clone(), move |asked| {
        if !good.is_good(&asked.token) {
            return refused(&asked.token);
        }
        // Whoever calls again needs another one.
        good.end_all();
        let mut items = honest.honest(asked, 7);
        items.truncate(3);
        items
    });
    assert_eq!(set(&delta(&mut bed.source).unwrap()), volume.set());
    let calls = u32::try_from(bed.server.offsets().len()).unwrap();
    assert!(calls > 3);
    assert_eq!(mint.made(), calls);
}

#[test]
fn a_stream_that_lived_too_long_goes_on_with_a_new_token() {
    let volume = Volume::random(130, 300, BlockType::Variable);
    let honest = volume.clone();
    let mint = Mint::new(HOUR);
    let good = mint.clone();
    let mut bed = bed(volume.size(), mint.clone(), move |asked| {
        if !good.is_good(&asked.token) {
            return refused(&asked.token);
        }
        let mut items = honest.honest(asked, 7);
        if items.len() > 3 {
            // As the sidecar does after ten minutes: the token has ended as well.
            good.end_all();
            items.truncate(3);
            items.push(Item::Fail(Status::deadline_exceeded(
                "stream lived too long",
            )));
        }
        items
    });
    assert_eq!(set(&delta(&mut bed.source).unwrap()), volume.set());
    let asked = bed.server.asked();
    let cut = asked.len() - 2;
    assert!(cut >= 3);
    assert_eq!(mint.made(), u32::try_from(cut).unwrap() + 1);
    let tokens: BTreeSet<_> = asked.iter().map(|asked| &asked.token).collect();
    assert_eq!(
        tokens.len(),
        cut + 1,
        "a token was used again after its stream was cut"
    );
}

#[test]
fn a_token_that_is_refused_is_replaced_once() {
    let volume = Volume::random(140, 100, BlockType::Fixed);
    let honest = volume.clone();
    let mint = Mint::new(HOUR);
    let mut second = bed(volume.size(), mint.clone(), move |asked| {
        if asked.token == "token 0" {
            return refused(&asked.token);
        }
        honest.honest(asked, 7)
    });
    assert_eq!(set(&delta(&mut second.source).unwrap()), volume.set());
    assert_eq!(mint.made(), 2);
    let mut never = bed(volume.size(), Mint::new(HOUR), |asked| {
        refused(&asked.token)
    });
    let error = delta(&mut never.source).unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::FullBackup);
    let expected = "GetMetadataDelta: Unauthenticated: (redacted) is not accepted: refused again with new credentials";
    assert_eq!(error.to_string(), expected);
    assert_eq!(never.notices.all(), [format!("no delta: {expected}")]);
}

#[test]
fn codes_of_the_sidecar_end_in_a_reason() {
    let cases = [
        (
            Status::permission_denied("no access"),
            1,
            "this identity may not ask",
        ),
        (
            Status::unavailable("snapshot not found"),
            5,
            "5 calls failed, 5 of them in a row",
        ),
        (
            Status::internal("no such service"),
            5,
            "5 calls failed, 5 of them in a row",
        ),
        (
            Status::invalid_argument("another driver"),
            1,
            "does not accept the pair or the snapshot",
        ),
        (
            Status::deadline_exceeded("too long"),
            5,
            "5 calls failed, 5 of them in a row",
        ),
    ];
    for (status, calls, why) in cases {
        let expected = status.clone();
        let mut bed = bed(1 << 20, Mint::new(HOUR), move |_| {
            vec![Item::Fail(status.clone())]
        });
        let reason = delta(&mut bed.source).unwrap_err().to_string();
        assert!(reason.ends_with(why), "{reason}");
        assert!(reason.contains(expected.message()), "{reason}");
        assert_eq!(bed.server.offsets(), vec![0; calls]);
    }
}

#[test]
fn without_a_token_nothing_is_asked() {
    let gone = TokenError::Unreachable("the API server is away".to_owned());
    let denied = TokenError::Refused("not allowed".to_owned());
    for (error, why) in [(gone, "5 of them in a row"), (denied, "may not ask")] {
        let text = error.to_string();
        let mut bed = bed(1 << 20, NoTokens(error), |_| Vec::new());
        let reason = delta(&mut bed.source).unwrap_err().to_string();
        assert!(reason.contains(&text) && reason.ends_with(why), "{reason}");
        assert_eq!(bed.server.asked(), []);
    }
}

#[test]
fn only_the_authority_of_the_service_is_believed() {
    let runtime = runtime();
    let authority = Authority::signing("metadata.shop.svc");
    let server = Scripted::new(|_| Vec::new());
    let port = server.serve_cluster(&runtime, authority.identity.clone());
    let connect = |endpoint: &TlsEndpoint| runtime.block_on(connect::tls(endpoint)).map(drop);
    let stranger = TlsEndpoint {
        server_name: Some("metadata.shop.svc".to_owned()),
        ..endpoint(port, &Authority::signing("metadata.shop.svc"))
    };
    let other_name = endpoint(port, &authority);
    for bad in [stranger, other_name] {
        let error = connect(&bad).unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let right = TlsEndpoint {
        server_name: Some("metadata.shop.svc".to_owned()),
        ..endpoint(port, &authority)
    };
    connect(&right).unwrap();
    assert_eq!(server.asked(), []);
}

#[test]
fn a_token_is_never_printed() {
    let token = Token {
        secret: "k9-never-in-a-log".to_owned(),
        expires: SystemTime::UNIX_EPOCH,
    };
    assert!(!format!("{token:?}").contains("k9"), "{token:?}");
}

//! Every real S3 server: the client of the tests itself, the store contract, and whole backups.
//!
//! `cargo test -p tests --test s3 -- ceph-rgw` runs the cases of one server, `-- contract` one case on each.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use tests::bucket::Bucket;
use tests::cases::{self, Case, Site};

fn main() -> ExitCode {
    cases::run(&[
        Case {
            name: "own_client",
            run: own_client,
            servers: &[],
        },
        Case {
            name: "reader_is_refused",
            run: reader_is_refused,
            servers: &["seaweedfs", "ceph-rgw"],
        },
    ])
}

/// The servers are up, keep what they are given, and check signatures.
fn own_client(site: &Site) -> Result<()> {
    let body = vec![0x5a; 3_000_000];
    site.bucket.put("a/long name/ü+&.bin", &body)?;
    ensure!(site.bucket.get("a/long name/ü+&.bin")? == body);
    site.bucket.put("a/b", b"")?;
    ensure!(site.bucket.list("a/")?.len() == 2);
    site.bucket.delete("a/b")?;
    ensure!(site.bucket.list("a/b")?.is_empty());
    let mut stranger = site.endpoint.clone();
    stranger.owner.secret.push('x');
    ensure!(
        Bucket::new(&stranger, &site.bucket.name)
            .get("a/long name/ü+&.bin")
            .is_err()
    );
    Ok(())
}

/// The read-only user of the rig is read-only, so that tests about refusals test what they say.
fn reader_is_refused(site: &Site) -> Result<()> {
    site.bucket.put("kept", b"kept")?;
    let mut endpoint = site.endpoint.clone();
    if let Some(reader) = &site.endpoint.reader {
        endpoint.owner = reader.clone();
    }
    let reader = Bucket::new(&endpoint, &site.bucket.name);
    ensure!(reader.put("new", b"new").is_err());
    if site.endpoint.name == "seaweedfs" {
        ensure!(reader.get("kept")? == b"kept");
    }
    Ok(())
}

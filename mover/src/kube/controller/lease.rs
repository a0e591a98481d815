//! Leader election: one controller works, others wait.
//!
//! Owns: the Lease object, and when a lease counts as expired. Must not: be relied on for correctness: for a moment there may be two
//! leaders, and every write is such that this does no harm.
//!
//! As in client-go a lease has expired when it was not changed for its duration by our own clock: clocks of different nodes are not
//! compared. Taking it is a write over the version that was seen, so that one of several wins.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::kube::answer;

/// Name of the Lease in the system namespace.
pub const NAME: &str = "snaphaul-controller";

/// A candidate for the lease.
pub struct Candidate {
    api: Api<Lease>,
    identity: String,
    duration: Duration,
    seen: Option<Seen>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A lease as it was first seen in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// What to do about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It does not exist: create it.
    Create,
    /// It is ours: say that we are here.
    Renew,
    /// It is free or expired: take it.
    Take,
    /// Somebody else has it.
    Wait,
}

impl Candidate {
    /// A candidate of this name. `duration` must be the same for all.
    #[must_use]
    pub fn new(api: Api<Lease>, identity: &str, duration: Duration) -> Self {
        Self {
            api,
            identity: identity.to_owned(),
            duration,
            seen: None,
        }
    }

    /// Waits until this candidate has the lease. Failures are logged and tried again.
    pub async fn acquire(&mut self) {
        loop {
            match self.try_once().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease could not be looked at"),
            }
            tokio::time::sleep(self.duration / 5).await;
        }
    }

    /// Renews the lease until that fails for longer than two thirds of its duration, and says why.
    pub async fn hold(&mut self) -> Error {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.duration / 5).await;
            let left = (self.duration * 2 / 3).saturating_sub(renewed.elapsed());
            let outcome = tokio::time::timeout(left.max(self.duration / 10), self.try_once()).await;
            let why = match outcome {
                Ok(Ok(true)) => {
                    renewed = Instant::now();
                    continue;
                }
                Ok(Ok(false)) => return lost("somebody else took it"),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the API server does not answer".to_owned(),
            };
            tracing::warn!(why, "the lease could not be renewed");
            if renewed.elapsed() >= self.duration * 2 / 3 {
                return lost(&why);
            }
        }
    }

    /// Gives the lease up, so that the next leader need not wait. Best effort.
    pub async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.api.get_opt(NAME).await else {
            return;
        };
        if holder(&lease) != Some(&self.identity) {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
            tracing::info!(%error, "the lease could not be given up");
        }
    }

    /// One look and at most one write; whether the lease is ours then.
    async fn try_once(&mut self) -> Result<bool> {
        let failed = |error| answer::failed("read or write the lease", NAME, error);
        let lease = self.api.get_opt(NAME).await.map_err(failed)?;
        let step = self.step(lease.as_ref(), Instant::now());
        let now = MicroTime(Timestamp::now());
        let written = match step {
            Step::Wait => return Ok(false),
            Step::Create => {
                let fresh = self.claim(Lease::default(), now, true);
                self.api.create(&PostParams::default(), &fresh).await
            }
            Step::Renew | Step::Take => {
                let claim = self.claim(lease.unwrap_or_default(), now, step == Step::Take);
                self.api.replace(NAME, &PostParams::default(), &claim).await
            }
        };
        match written {
            Ok(lease) => {
                self.seen = Some(Seen {
                    version: lease.metadata.resource_version,
                    at: Instant::now(),
                });
                Ok(true)
            }
            Err(error) if answer::is_conflict(&error) => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }

    fn step(&mut self, lease: Option<&Lease>, now: Instant) -> Step {
        let Some(lease) = lease else {
            return Step::Create;
        };
        let version = lease.metadata.resource_version.clone();
        let seen = match self.seen.take() {
            Some(seen) if seen.version == version => seen,
            _ => Seen { version, at: now },
        };
        let age = now.duration_since(seen.at);
        self.seen = Some(seen);
        match holder(lease) {
            None => Step::Take,
            Some(holder) if holder == self.identity => Step::Renew,
            Some(_) if age >= self.duration => Step::Take,
            Some(_) => Step::Wait,
        }
    }

    fn claim(&self, lease: Lease, now: MicroTime, fresh: bool) -> Lease {
        let before = lease.spec.unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0);
        Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..lease.metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
                acquire_time: if fresh {
                    Some(now.clone())
                } else {
                    before.acquire_time
                },
                renew_time: Some(now),
                lease_transitions: Some(if fresh {
                    transitions.saturating_add(1)
                } else {
                    transitions
                }),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease
        .spec
        .as_ref()?
        .holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

fn lost(why: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("keep the lease of the leader: {why}"),
    )
    .object(NAME)
    .hint("another controller goes on; this one starts again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate() -> Candidate {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _inside = runtime.enter();
        let client = kube::Client::try_from(config).unwrap();
        Candidate::new(
            Api::namespaced(client, "system"),
            "me",
            Duration::from_secs(15),
        )
    }

    fn lease(holder: &str, version: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                ..LeaseSpec::default()
            }),
        }
    }

    #[test]
    fn a_lease_expires_by_our_own_clock_and_only_while_nobody_writes_it() {
        let mut me = candidate();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(me.step(None, at(0)), Step::Create);
        assert_eq!(me.step(Some(&lease("you", "1")), at(0)), Step::Wait);
        assert_eq!(me.step(Some(&lease("you", "1")), at(14)), Step::Wait);
        assert_eq!(me.step(Some(&lease("you", "2")), at(16)), Step::Wait);
        assert_eq!(me.step(Some(&lease("you", "2")), at(31)), Step::Take);
        assert_eq!(me.step(Some(&lease("", "3")), at(32)), Step::Take);
        assert_eq!(me.step(Some(&lease("me", "4")), at(33)), Step::Renew);
    }
}

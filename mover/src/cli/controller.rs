//! `snaphaul controller`.
//!
//! Owns: flags to settings, and the process around the controller. Must not: decide anything about backups.

use std::time::Duration;

use tokio::sync::watch;

use super::args::{ControllerArgs, RunArgs};
use super::config::invalid;
use super::run::{Outcome, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::kube::access::Bandwidth;
use crate::kube::connection::Connection;
use crate::kube::controller;
use crate::kube::controller::holder::HolderSettings;
use crate::kube::controller::settings::{Deadlines, Settings};
use crate::pipeline::progress::StopFlag;

/// Shortest lease: a busy API server may take a second to answer.
const SHORTEST_LEASE: Duration = Duration::from_secs(3);
/// Shortest deadline of a lost agent: by then it has stopped writing (`kube::agent::leave`).
const SHORTEST_AGENT_DEADLINE: Duration = Duration::from_secs(45);
/// How often the signal handlers' flag is looked at.
const SIGNAL_PACE: Duration = Duration::from_millis(100);

pub(super) fn run(run: &Run, args: &ControllerArgs, limits: &RunArgs) -> Result<Outcome> {
    let settings = settings(args, limits)?;
    run.signals.stop_cleanly(true);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("controller")
        .enable_all()
        .build()
        .map_err(|error| Error::new(ErrorKind::Io, "start the controller").source(error))?;
    runtime.block_on(serve(settings, run.stop_flag()))?;
    Ok(Outcome::default())
}

async fn serve(settings: Settings, flag: StopFlag) -> Result<()> {
    let connection = Connection::infer().await?;
    let (stop, stopped) = watch::channel(false);
    let signals = async {
        while !flag.is_stopped() {
            tokio::time::sleep(SIGNAL_PACE).await;
        }
        let _ = stop.send(true);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = controller::run(connection, settings, stopped) => outcome,
        () = signals => Ok(()),
    }
}

fn settings(args: &ControllerArgs, limits: &RunArgs) -> Result<Settings> {
    if args.lease < SHORTEST_LEASE {
        return Err(invalid("use a lease that is shorter than 3 seconds")
            .hint("give --lease at least 3s: a busy API server may take a second to answer"));
    }
    if args.agent_deadline < SHORTEST_AGENT_DEADLINE {
        return Err(invalid("give work to another node after less than 45 seconds").hint(
            "give --agent-deadline at least 45s: an agent that is cut off stops to write after 30 seconds",
        ));
    }
    if let Some(alias) = &args.cluster_alias {
        if alias.contains('/') {
            return Err(invalid("use a cluster alias with a slash")
                .object(alias)
                .hint(
                    "it is one part of the names of volumes: use letters, digits, `.`, `_`, `-`",
                ));
        }
        super::config::checked_name("cluster", alias)?;
    }
    Ok(Settings {
        namespace: args.namespace.clone(),
        cluster_alias: args.cluster_alias.clone(),
        identity: identity(args.identity.as_deref()),
        pod: args.identity.clone(),
        listen: args.listen,
        holder: HolderSettings {
            namespace: args.namespace.clone(),
            image: args.holder_image.clone().unwrap_or_default(),
            image_pull_policy: args.holder_image_pull_policy.clone(),
            host_path: args.holder_host_path.clone(),
            priority_class: args.holder_priority_class.clone(),
        },
        slots_per_node: usize::from(args.slots_per_node),
        workers: usize::from(args.workers),
        deadlines: Deadlines {
            snapshot: args.snapshot_deadline,
            expose: args.expose_deadline,
            no_progress: args.progress_deadline,
            agent_lost: args.agent_deadline,
            clean: args.clean_deadline,
            ..Deadlines::default()
        },
        base_max_age: args.base_max_age,
        sweep_every: args.sweep_every.max(Duration::from_secs(1)),
        repository_every: args.repository_every.max(Duration::from_secs(1)),
        lease: args.lease,
        maintains: args.maintenance,
        maintenance_bandwidth: Bandwidth {
            upload: limits.limit_upload,
            download: limits.limit_download,
        },
        per_volume_metrics: args.per_volume_metrics,
        profiles_config_map: args.driver_profiles.clone(),
    })
}

/// Two processes must never have one identity: a container that is started again has the name of the one before, and another start.
fn identity(pod: Option<&str>) -> String {
    let host = || nix::unistd::gethostname().ok()?.into_string().ok();
    let name = pod.map(str::to_owned).or_else(host);
    let mut salt = [0; 4];
    let _ = getrandom::fill(&mut salt);
    format!(
        "{}-{:08x}",
        name.unwrap_or_else(|| "controller".to_owned()),
        u32::from_be_bytes(salt)
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn parsed(line: &str) -> Result<Settings> {
        let cli = Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace()));
        let cli = cli.unwrap();
        match &cli.command {
            Command::Controller(args) => settings(args, &cli.run),
            other => panic!("not a controller: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let settings = parsed("controller").unwrap();
        assert_eq!(settings.deadlines, Deadlines::default());
        assert_eq!(settings.slots_per_node, 2);
        assert_eq!(settings.lease, Duration::from_secs(15));
        assert!(settings.per_volume_metrics && settings.maintains);
        assert_ne!(settings.identity, parsed("controller").unwrap().identity);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for line in ["controller --lease 1s", "controller --cluster-alias a/b"] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{line}");
        }
    }
}

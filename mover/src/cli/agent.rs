//! `snaphaul agent`.
//!
//! Owns: flags to options. Must not: know orders.

use super::args::{AgentArgs, RunArgs};
use super::run::{Outcome, Run};
use crate::error::Result;
use crate::kube::access::Bandwidth;
use crate::kube::agent::{self, AgentOptions};
use crate::pipeline::budget::DEFAULT_MEMORY_BYTES;

pub(super) fn run(run: &Run, args: &AgentArgs, limits: &RunArgs) -> Result<Outcome> {
    let options = options(args, limits, run.config.jobs);
    run.signals.stop_cleanly(true);
    agent::run(options, &run.stop_flag())?;
    Ok(Outcome::default())
}

fn options(args: &AgentArgs, limits: &RunArgs, jobs: usize) -> AgentOptions {
    let usual = DEFAULT_MEMORY_BYTES * u64::from(args.slots);
    AgentOptions {
        node: args.node_name.clone(),
        system_namespace: args.namespace.clone(),
        holder_directory: args.holder_directory.clone(),
        metadata_address: args.snapshot_metadata_address.clone(),
        listen: args.listen,
        slots: usize::from(args.slots),
        memory: limits.memory.unwrap_or(usual),
        jobs,
        bandwidth: Bandwidth {
            upload: limits.limit_upload,
            download: limits.limit_download,
        },
        grace: args.grace,
        report_every: args.report_every,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::error::ErrorKind;

    fn parsed(line: &str) -> AgentOptions {
        let cli = Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace()));
        let cli = cli.unwrap();
        match &cli.command {
            Command::Agent(args) => options(args, &cli.run, 4),
            other => panic!("not an agent: {other:?}"),
        }
    }

    #[test]
    fn memory_is_for_all_slots_together() {
        let usual = parsed("agent --node-name n");
        assert_eq!((usual.slots, usual.memory), (2, 2 * DEFAULT_MEMORY_BYTES));
        assert_eq!(usual.listen.port(), 9117);
        usual.check().unwrap();
        let tight = parsed("agent --node-name n --slots 3 --memory 1GiB --limit-upload 5MB/s");
        tight.check().unwrap();
        assert_eq!(tight.bandwidth.upload, Some(5_000_000));
        for line in [
            "agent --node-name n --slots 4 --memory 1GiB",
            "agent --node-name=",
        ] {
            let error = parsed(line).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{line}");
        }
    }
}

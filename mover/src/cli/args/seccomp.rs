//! Flags of `seccomp`.
//!
//! Owns: names and help. Must not: hold the profile.

use std::path::PathBuf;

use clap::Args;

const EXAMPLES: &str = "\
Examples:
  snaphaul seccomp
      prints the profile
  snaphaul seccomp --install /var/lib/kubelet/seccomp
      writes snaphaul-agent.json there, as the agent's init container does";

/// Flags of `seccomp`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SeccompArgs {
    /// Folder of a kubelet's seccomp profiles, in which the profile is written or replaced
    #[arg(long, value_name = "DIR")]
    pub install: Option<PathBuf>,
}

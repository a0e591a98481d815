//! Flags of `key`.
//!
//! Owns: names and help of the key commands. Must not: read secrets.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const KEY_EXAMPLES: &str = "\
Examples:
  snaphaul key list --repo /backup/vms
  snaphaul key add --new-key-file robot.key --repo /backup/vms
      a second way in, beside the passphrase that is asked for
  snaphaul key rotate --passphrase-file old --new-passphrase-file new --repo /backup/vms
      the new passphrase takes the place of the old one
  snaphaul key export --output sheet.txt --repo /backup/vms
      a recovery sheet: print it, lock it away, delete the file

Every key unwraps the same master key, which never changes: removing or rotating a key keeps its holder from opening the
repository as it is from now on. Somebody who kept a copy of the repository's key slots, or the master key, can still use it.
If that is a danger, copy the points to a new repository.";

/// Flags of `key`.
#[derive(Args, Debug)]
#[command(after_help = KEY_EXAMPLES)]
pub struct KeyArgs {
    /// Which of the key commands.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// The commands of `key`.
#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub enum KeyCommand {
    /// List the key slots: what kind each is, how it is derived, when it was made; never a secret
    List,
    /// Add a passphrase or key file that opens the repository, too
    Add(NewSecretArgs),
    /// Remove a key, but neither the last one nor the one that opens the repository for this command
    Remove(RemoveArgs),
    /// Put a new passphrase or key file in the place of the one that opens the repository
    Rotate(NewSecretArgs),
    /// Print a recovery sheet for paper: the master key itself, and how to use it
    Export(ExportArgs),
}

/// The secret of a new key; without any of them a terminal is asked twice.
#[derive(Args, Clone, Debug, Default)]
pub struct NewSecretArgs {
    /// Read the new passphrase from FILE (one trailing newline is dropped)
    #[arg(long, value_name = "FILE", conflicts_with = "new_key_file")]
    pub new_passphrase_file: Option<PathBuf>,

    /// Take the bytes of FILE, at least 32 random ones, as the new key
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
}

/// Flags of `key remove`.
#[derive(Args, Debug)]
pub struct RemoveArgs {
    /// Id from `key list`, or its unique beginning
    pub id: String,
}

/// Flags of `key export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// Write the sheet to FILE, which only its owner can read, instead of stdout; FILE must not exist
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

//! What follows an answer of a driver: pure decisions, one table.
//!
//! Owns: which calls are repeated, and when the outcome of one is unknown. Must not: call anybody, wait, or read a clock.
//!
//! From the specification: any call may be repeated unchanged; a call that was cancelled, ran out of time, found nobody or met
//! an operation that is pending may still be at work, so that only the same call tells how it ended; what is to be taken back and
//! is not there counts as taken back.

use csi_proto::Code;

use crate::error::ErrorKind;

/// The calls that are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rpc {
    /// Is the driver well?
    Probe,
    /// Who is it?
    GetPluginInfo,
    /// What can it do at all?
    GetPluginCapabilities,
    /// What can its controller do?
    ControllerGetCapabilities,
    /// What can its node do?
    NodeGetCapabilities,
    /// Which node is this?
    NodeGetInfo,
    /// Is this snapshot there?
    ListSnapshots,
    /// Is it on the next page?
    NextSnapshots,
    /// How large is this volume?
    ControllerGetVolume,
    /// Which volumes are there, and how large?
    ListVolumes,
    /// And on the next page?
    NextVolumes,
    /// Freezes a volume.
    CreateSnapshot,
    /// Removes a snapshot.
    DeleteSnapshot,
    /// Makes a volume, empty or of a snapshot.
    CreateVolume,
    /// Removes a volume.
    DeleteVolume,
    /// Attaches a volume to this node.
    ControllerPublish,
    /// Detaches it.
    ControllerUnpublish,
    /// Prepares a volume on this node.
    NodeStage,
    /// Takes that back.
    NodeUnstage,
    /// Makes the device appear.
    NodePublish,
    /// Makes it go.
    NodeUnpublish,
}

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To know something.
    Ask,
    /// To make something, or bring it nearer.
    Make,
    /// To take that back.
    Undo,
}

impl Rpc {
    /// Name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Probe => "Probe",
            Self::GetPluginInfo => "GetPluginInfo",
            Self::GetPluginCapabilities => "GetPluginCapabilities",
            Self::ControllerGetCapabilities => "ControllerGetCapabilities",
            Self::NodeGetCapabilities => "NodeGetCapabilities",
            Self::NodeGetInfo => "NodeGetInfo",
            Self::ListSnapshots | Self::NextSnapshots => "ListSnapshots",
            Self::ControllerGetVolume => "ControllerGetVolume",
            Self::ListVolumes | Self::NextVolumes => "ListVolumes",
            Self::CreateSnapshot => "CreateSnapshot",
            Self::DeleteSnapshot => "DeleteSnapshot",
            Self::CreateVolume => "CreateVolume",
            Self::DeleteVolume => "DeleteVolume",
            Self::ControllerPublish => "ControllerPublishVolume",
            Self::ControllerUnpublish => "ControllerUnpublishVolume",
            Self::NodeStage => "NodeStageVolume",
            Self::NodeUnstage => "NodeUnstageVolume",
            Self::NodePublish => "NodePublishVolume",
            Self::NodeUnpublish => "NodeUnpublishVolume",
        }
    }

    /// Whether it makes something under a name, which the driver calls by an id that only the answer tells.
    #[must_use]
    pub fn is_named(self) -> bool {
        matches!(self, Self::CreateSnapshot | Self::CreateVolume)
    }

    /// What it is for.
    #[must_use]
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Probe
            | Self::GetPluginInfo
            | Self::GetPluginCapabilities
            | Self::ControllerGetCapabilities
            | Self::NodeGetCapabilities
            | Self::NodeGetInfo
            | Self::ListSnapshots
            | Self::NextSnapshots
            | Self::ControllerGetVolume
            | Self::ListVolumes
            | Self::NextVolumes => Purpose::Ask,
            Self::CreateSnapshot
            | Self::CreateVolume
            | Self::ControllerPublish
            | Self::NodeStage
            | Self::NodePublish => Purpose::Make,
            Self::DeleteSnapshot
            | Self::DeleteVolume
            | Self::ControllerUnpublish
            | Self::NodeUnstage
            | Self::NodeUnpublish => Purpose::Undo,
        }
    }
}

/// Whether a call that failed did anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The driver says that it did not.
    NotDone,
    /// It may have, or may still be at it.
    Unknown,
}

/// What to do after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Done,
    /// The same call again, after a pause.
    Again,
    /// A final answer.
    Stop(Outcome),
}

/// Decides by the status code. A failure of the connection counts as `Unavailable`, whatever code it is dressed in.
#[must_use]
pub fn next(rpc: Rpc, code: Code) -> Next {
    match (rpc.purpose(), code) {
        (_, Code::Ok) => Next::Done,
        // Of a token: it never becomes good again.
        (_, Code::Aborted) if matches!(rpc, Rpc::NextSnapshots | Rpc::NextVolumes) => {
            Next::Stop(Outcome::NotDone)
        }
        (_, Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted) => {
            Next::Again
        }
        // Answered only where the driver does not dare to say that it is detached.
        (Purpose::Undo, Code::NotFound) if rpc == Rpc::ControllerUnpublish => Next::Again,
        (Purpose::Undo, Code::NotFound) => Next::Done,
        // In use for a little longer, or a backend that hiccups: what was made has to go.
        (
            Purpose::Undo,
            Code::FailedPrecondition | Code::Internal | Code::Unknown | Code::ResourceExhausted,
        ) => Next::Again,
        // No call has them in the specification: a driver that failed half-way may have made the thing before.
        (Purpose::Make, code) if rpc.is_named() && is_unclear(code) => Next::Stop(Outcome::Unknown),
        _ => Next::Stop(Outcome::NotDone),
    }
}

/// Codes that say that a driver failed, and not what it did before.
#[must_use]
pub fn is_unclear(code: Code) -> bool {
    matches!(code, Code::Unknown | Code::Internal | Code::DataLoss)
}

/// The reaction of the caller, and what a person does next.
#[must_use]
pub fn meaning(rpc: Rpc, code: Code) -> (ErrorKind, &'static str) {
    match code {
        Code::InvalidArgument if rpc == Rpc::DeleteSnapshot => (
            ErrorKind::InvalidRequest,
            "a member of a group snapshot goes with its group only",
        ),
        Code::InvalidArgument => (
            ErrorKind::InvalidRequest,
            "the driver refuses the request: check the volume id, --csi-parameter, --csi-snapshot-parameter and --csi-secrets \
             against its storage class and snapshot class",
        ),
        Code::PermissionDenied => (
            ErrorKind::AccessDenied,
            "the account in --csi-secrets lacks a right in the storage system: grant it, then run again",
        ),
        Code::Unauthenticated => (
            ErrorKind::AccessDenied,
            "give the driver's current secrets with --csi-secrets",
        ),
        Code::NotFound => not_found(rpc),
        Code::AlreadyExists => (
            ErrorKind::Io,
            "something else has the name or the path of this run: run again, which takes new ones",
        ),
        Code::ResourceExhausted if rpc == Rpc::ControllerPublish => (
            ErrorKind::NoSpace,
            "the node has as many volumes as it may: detach one, or work on another node",
        ),
        Code::ResourceExhausted => (
            ErrorKind::NoSpace,
            "the storage system is out of space or quota: free some, then run again",
        ),
        Code::FailedPrecondition if rpc == Rpc::CreateSnapshot => (
            ErrorKind::Io,
            "the volume may have as many snapshots as it is allowed: delete some, then run again",
        ),
        Code::FailedPrecondition => (
            ErrorKind::Io,
            "the volume is not in a state for this: look at the log of the driver",
        ),
        Code::OutOfRange => (
            ErrorKind::InvalidRequest,
            "the driver cannot make a volume of this size: look at its limits",
        ),
        Code::Unimplemented => (
            ErrorKind::InvalidRequest,
            "the driver cannot do this: see `snaphaul csi info`",
        ),
        Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable | Code::Aborted => (
            ErrorKind::Unavailable,
            "look at the log of the driver; the next run cleans up and tries again",
        ),
        _ => (ErrorKind::Io, "look at the log of the driver"),
    }
}

/// What is missing differs: the volume of the user, or what the run made itself.
fn not_found(rpc: Rpc) -> (ErrorKind, &'static str) {
    match rpc {
        Rpc::CreateVolume => (
            ErrorKind::Io,
            "the snapshot that the volume is made of is gone, or a pool that --csi-parameter names: look who deletes snapshots \
             meanwhile, then run again, which takes a new one",
        ),
        Rpc::ControllerPublish => (
            ErrorKind::Io,
            "the volume that this run made is gone, or the driver's controller does not know this node: look who deletes volumes \
             meanwhile and whether the driver is registered here, then run again",
        ),
        Rpc::NodeStage | Rpc::NodePublish => (
            ErrorKind::Io,
            "the volume that this run made is gone: look who deletes volumes meanwhile, then run again, which makes a new one",
        ),
        Rpc::ControllerUnpublish => (
            ErrorKind::Io,
            "the driver does not know the volume or this node any more: look in the storage system whether it is attached",
        ),
        Rpc::ListSnapshots | Rpc::NextSnapshots => (
            ErrorKind::NotFound,
            "check the id: it is the snapshotHandle of the VolumeSnapshotContent, not its name",
        ),
        _ => (
            ErrorKind::NotFound,
            "check the id: it is the volumeHandle of the PersistentVolume, not its name",
        ),
    }
}

#[cfg(test)]
mod tests;

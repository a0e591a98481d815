//! Condition types and the reasons they are set with.
//!
//! Owns: the words and their meaning, which the documentation lists. Must not: decide when they hold.

/// Condition: the resource is valid and may use what it names.
pub const ACCEPTED: &str = "Accepted";
/// Condition: the frozen source exists.
pub const SNAPSHOT_READY: &str = "SnapshotReady";
/// Condition: a device that can be opened exists on `status.node`.
pub const DEVICE_READY: &str = "DeviceReady";
/// Condition: True when done, False with a reason when it never will be.
pub const SUCCEEDED: &str = "Succeeded";
/// Condition: False where something temporary could not be removed in time; absent otherwise.
pub const CLEANED: &str = "Cleaned";
/// Condition of a repository: agents can use it.
pub const READY: &str = "Ready";
/// Condition of a repository: what was stored is still there and right, as far as it was looked at.
pub const HEALTHY: &str = "Healthy";

/// Condition of a repository: what it holds was offered to the namespaces it belongs to; absent without `spec.sync`.
pub const SYNCED: &str = "Synced";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why a condition has its status. Programs compare the name; people read the documentation of the reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in the condition.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }

            /// The word's documentation.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+),)+ }
            }

            /// The reason of this name.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
            }
        }
    };
}

reasons! {
    /// The resource is valid and everything it names exists.
    Valid,
    /// The claim, pod, snapshot or repository that is named does not exist.
    NotFound,
    /// The repository does not serve this namespace.
    NamespaceNotAllowed,
    /// The point belongs to another namespace or cluster, and no grant names this one.
    PointNotGranted,
    /// The repository is not ready.
    RepositoryNotReady,
    /// The volume cannot be backed up as blocks: it is no CSI volume, or its driver serves files only.
    UnsupportedVolume,
    /// The claim is not bound to a volume.
    ClaimNotBound,
    /// No snapshot class could be chosen; the message lists those that would do.
    NoSnapshotClass,
    /// The storage class needs secrets of the source namespace.
    ClassNeedsSourceNamespace,
    /// The driver takes the snapshot.
    SnapshotPending,
    /// The snapshot exists and is ready.
    SnapshotTaken,
    /// The driver could not take the snapshot in time; its own words are in the message.
    SnapshotFailed,
    /// The driver keeps no more snapshots of this volume.
    SnapshotLimitReached,
    /// Other volumes are moved first; the message says how many.
    WaitingForSlot,
    /// The claim has no pod yet, and its storage class makes volumes where the first one is scheduled.
    WaitingForConsumer,
    /// No node has an agent that can reach the volume.
    NoAgent,
    /// The working copy is being made and attached.
    Exposing,
    /// The device is open to the agent.
    Exposed,
    /// The working copy or its pod did not come up in time; the message says what it waited for.
    ExposeFailed,
    /// The agent moves data.
    Moving,
    /// The agent's node is gone; another one takes over.
    AgentLost,
    /// No progress for longer than allowed.
    NoProgress,
    /// The total time that the user allowed has passed.
    DeadlineExceeded,
    /// The agent ended with an error; the message is its.
    TransferFailed,
    /// The target claim cannot be used: it exists, is in use, or is too small.
    TargetRefused,
    /// The new volume is being handed to the claim.
    Binding,
    /// Something temporary could not be removed in time; the message names it, and the controller goes on trying.
    LeftBehind,
    /// It was cancelled.
    Cancelled,
    /// It is done.
    Done,
    /// The repository was not verified yet.
    NotVerified,
    /// The last verification found nothing wrong.
    Verified,
    /// Stored data is damaged or missing; the message says which points are hurt and what to do.
    DamageFound,
    /// Garbage collection or verification failed several times in a row; the message says why.
    MaintenanceFailed,
    /// Garbage was collected.
    Collected,
    /// The points of the repository are being read, or turned into PodVolumeBackups.
    Syncing,
    /// Every point has a PodVolumeBackup, or had one and somebody deleted it, as far as `spec.sync` and grants say so.
    PointsSynced,
    /// Not every point could be turned into a PodVolumeBackup; the message says why, and the controller goes on trying.
    SyncFailed,
}

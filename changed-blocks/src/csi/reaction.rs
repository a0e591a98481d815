//! What a failed call means for the answer: pure.
//!
//! Owns: the table. Must not: count attempts, or wait.
//!
//! Facts: error tables of the CSI specification (`GetMetadataAllocated Errors`, `GetMetadataDelta Errors`, general codes), and the
//! codes of the external-snapshot-metadata sidecar, which adds 14 for objects that are not there (so that 14 may be for ever), 16
//! for tokens and 4 for streams that lived longer than it allows (10 minutes unless told otherwise).

use csi_proto::Code;

/// What to do about a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Call again at the end of what is known, after a while.
    Again,
    /// The same with another token: the stream lived long, and the next one asks who calls.
    AgainWithToken,
    /// Call again with another token, once.
    NewToken,
    /// The offset is behind the end of the volume, if that can be.
    BehindTheEnd,
    /// Waiting does not help; why, in words for a person.
    Stop(&'static str),
}

/// What `code` means.
pub(super) fn to(code: Code) -> Reaction {
    match code {
        // Codes of a connection that broke, of a driver that starts again, and of a busy one.
        Code::Unavailable
        | Code::Internal
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unknown
        // Nobody ends a stream without an error by this one.
        | Code::Ok => Reaction::Again,
        Code::DeadlineExceeded | Code::Cancelled => Reaction::AgainWithToken,
        Code::Unauthenticated => Reaction::NewToken,
        Code::OutOfRange => Reaction::BehindTheEnd,
        Code::InvalidArgument => Reaction::Stop("the driver does not accept the pair or the snapshot"),
        Code::NotFound => Reaction::Stop("the driver does not have the snapshot or its base any more"),
        Code::PermissionDenied => Reaction::Stop("this identity may not ask"),
        Code::FailedPrecondition => {
            Reaction::Stop("the storage does not keep track of changes of this volume")
        }
        Code::Unimplemented => Reaction::Stop("the driver has no such call, or it is switched off"),
        Code::AlreadyExists | Code::DataLoss => Reaction::Stop("the driver gave up"),
    }
}

//! The whole table, call by call.

use super::*;

const CODES: [Code; 17] = [
    Code::Ok,
    Code::Cancelled,
    Code::Unknown,
    Code::InvalidArgument,
    Code::DeadlineExceeded,
    Code::NotFound,
    Code::AlreadyExists,
    Code::PermissionDenied,
    Code::ResourceExhausted,
    Code::FailedPrecondition,
    Code::Aborted,
    Code::OutOfRange,
    Code::Unimplemented,
    Code::Internal,
    Code::Unavailable,
    Code::DataLoss,
    Code::Unauthenticated,
];

const RPCS: [Rpc; 18] = [
    Rpc::Probe,
    Rpc::GetPluginInfo,
    Rpc::GetPluginCapabilities,
    Rpc::ControllerGetCapabilities,
    Rpc::NodeGetCapabilities,
    Rpc::NodeGetInfo,
    Rpc::ListSnapshots,
    Rpc::ListVolumes,
    Rpc::CreateSnapshot,
    Rpc::DeleteSnapshot,
    Rpc::CreateVolume,
    Rpc::DeleteVolume,
    Rpc::ControllerPublish,
    Rpc::ControllerUnpublish,
    Rpc::NodeStage,
    Rpc::NodeUnstage,
    Rpc::NodePublish,
    Rpc::NodeUnpublish,
];

/// One letter a code, in the order of the numbers: d done, a again, n stop (not done), u stop (unknown).
fn row(rpc: Rpc) -> String {
    CODES
        .iter()
        .map(|code| match next(rpc, *code) {
            Next::Done => 'd',
            Next::Again => 'a',
            Next::Stop(Outcome::NotDone) => 'n',
            Next::Stop(Outcome::Unknown) => 'u',
        })
        .collect()
}

#[test]
fn the_table_is_the_one_of_the_specification() {
    //                 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
    let ask = "dannannnnnannnann";
    let make = "dannannnnnannnann";
    // What failed in a way that the specification does not know may have been made before.
    let named = "daunannnnnannuaun";
    let undo = "daanadnnaaannaann";
    for rpc in RPCS {
        let wanted = match rpc.purpose() {
            Purpose::Ask => ask,
            Purpose::Make if rpc.is_named() => named,
            Purpose::Make => make,
            Purpose::Undo if rpc == Rpc::ControllerUnpublish => "daanaannaaannaann",
            Purpose::Undo => undo,
        };
        assert_eq!(row(rpc), wanted, "{}", rpc.name());
    }
}

#[test]
fn what_may_still_be_running_is_never_final() {
    for rpc in RPCS {
        for code in [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::Unavailable,
        ] {
            assert_eq!(next(rpc, code), Next::Again, "{} {code:?}", rpc.name());
        }
    }
}

#[test]
fn bad_requests_are_never_repeated() {
    for rpc in RPCS {
        for code in [
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::Unimplemented,
        ] {
            assert_eq!(
                next(rpc, code),
                Next::Stop(Outcome::NotDone),
                "{} {code:?}",
                rpc.name()
            );
        }
    }
}

#[test]
fn every_failure_says_what_to_do() {
    for rpc in RPCS {
        for code in CODES.into_iter().filter(|code| *code != Code::Ok) {
            let (kind, hint) = meaning(rpc, code);
            assert!(!hint.is_empty());
            assert_ne!(kind, ErrorKind::Internal, "{} {code:?}", rpc.name());
        }
    }
    assert_eq!(
        meaning(Rpc::CreateSnapshot, Code::ResourceExhausted).0,
        ErrorKind::NoSpace
    );
    assert_eq!(
        meaning(Rpc::CreateSnapshot, Code::Unauthenticated).0,
        ErrorKind::AccessDenied
    );
}

#[test]
fn names_are_distinct() {
    let names: std::collections::HashSet<_> = RPCS.iter().map(|rpc| rpc.name()).collect();
    assert_eq!(names.len(), RPCS.len());
}

#[test]
fn what_is_missing_is_named_by_call() {
    let hint = |rpc| meaning(rpc, Code::NotFound);
    let (kind, text) = hint(Rpc::CreateSnapshot);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("volumeHandle"), "{text}");
    let (kind, text) = hint(Rpc::ListSnapshots);
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("snapshotHandle"), "{text}");
    // What the run made itself: no name of the user is wrong.
    for (rpc, what) in [
        (Rpc::CreateVolume, "the snapshot"),
        (Rpc::ControllerPublish, "this node"),
        (Rpc::NodeStage, "the volume that this run made"),
        (Rpc::NodePublish, "the volume that this run made"),
    ] {
        let (kind, text) = hint(rpc);
        assert_eq!(kind, ErrorKind::Io, "{}", rpc.name());
        assert!(text.contains(what), "{}: {text}", rpc.name());
        assert!(!text.contains("volumeHandle"), "{}: {text}", rpc.name());
    }
}

#[test]
fn a_page_that_is_taken_back_is_asked_for_from_the_beginning() {
    for rpc in [Rpc::NextSnapshots, Rpc::NextVolumes] {
        assert_eq!(next(rpc, Code::Aborted), Next::Stop(Outcome::NotDone));
    }
}

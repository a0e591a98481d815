//! Which answers are repeated, and what is said in the end.

use std::cell::Cell;

use super::*;

fn caller(step: Duration) -> Caller {
    Caller {
        runtime: ControlPlane::start().unwrap(),
        secrets: Secrets::default(),
        deadlines: Deadlines {
            call: Duration::from_millis(200),
            snapshot: step,
            expose: step,
            device: Duration::ZERO,
        },
        timing: Timing::default(),
        driver: "test".to_owned(),
    }
}

fn answers(list: &[Code]) -> (Cell<usize>, Vec<Code>) {
    (Cell::new(0), list.to_vec())
}

fn run(
    rpc: Rpc,
    codes: &[Code],
    stop: Option<&StopFlag>,
) -> (usize, std::result::Result<Option<()>, CallError>) {
    let (count, codes) = answers(codes);
    let result = caller(Duration::from_secs(30)).call(rpc, "v", stop, || {
        let at = count.get();
        count.set(at + 1);
        let code = codes.get(at).copied().unwrap_or(Code::Ok);
        async move {
            match code {
                Code::Ok => Ok(Response::new(())),
                code => Err(Status::new(code, "because")),
            }
        }
    });
    (count.get(), result)
}

#[test]
fn an_unknown_outcome_is_asked_again() {
    let codes = [Code::Aborted, Code::Unavailable, Code::DeadlineExceeded];
    let (calls, result) = run(Rpc::CreateSnapshot, &codes, None);
    assert_eq!((calls, result.unwrap()), (4, Some(())));
}

#[test]
fn a_final_answer_ends_it_and_says_why() {
    let (calls, result) = run(Rpc::CreateSnapshot, &[Code::InvalidArgument], None);
    let failed = result.unwrap_err();
    assert_eq!((calls, failed.outcome), (1, Outcome::NotDone));
    assert_eq!(failed.error.kind(), ErrorKind::InvalidRequest);
    let cause = std::error::Error::source(&failed.error).unwrap();
    assert_eq!(
        cause.to_string(),
        "the driver answers InvalidArgument: because"
    );
}

#[test]
fn a_refusal_after_an_unknown_outcome_leaves_it_unknown() {
    for unknown in [Code::DeadlineExceeded, Code::Unavailable, Code::Aborted] {
        let codes = [unknown, Code::Unauthenticated];
        let (calls, result) = run(Rpc::CreateVolume, &codes, None);
        let failed = result.unwrap_err();
        assert_eq!((calls, failed.outcome), (2, Outcome::Unknown));
        assert_eq!(failed.code, Some(Code::Unauthenticated));
    }
}

#[test]
fn a_storage_that_is_full_made_nothing_unless_it_was_asked_before() {
    for rpc in [Rpc::CreateSnapshot, Rpc::CreateVolume] {
        let (calls, result) = run(rpc, &[Code::ResourceExhausted], None);
        assert_eq!((calls, result.unwrap_err().outcome), (1, Outcome::NotDone));
        for unknown in [Code::DeadlineExceeded, Code::Unavailable, Code::Aborted] {
            let (calls, result) = run(rpc, &[unknown, Code::ResourceExhausted], None);
            assert_eq!((calls, result.unwrap_err().outcome), (2, Outcome::Unknown));
        }
    }
}

#[test]
fn a_driver_that_failed_may_have_made_it() {
    for code in [Code::Unknown, Code::Internal, Code::DataLoss] {
        for rpc in [Rpc::CreateSnapshot, Rpc::CreateVolume] {
            let (calls, result) = run(rpc, &[code], None);
            assert_eq!((calls, result.unwrap_err().outcome), (1, Outcome::Unknown));
        }
        let (calls, result) = run(Rpc::NodeStage, &[code], None);
        assert_eq!((calls, result.unwrap_err().outcome), (1, Outcome::NotDone));
    }
}

#[test]
fn what_is_not_there_is_taken_back() {
    let (calls, result) = run(Rpc::DeleteVolume, &[Code::NotFound], None);
    assert_eq!((calls, result.unwrap()), (1, None));
}

#[test]
fn a_stop_ends_the_tries_with_an_unknown_outcome() {
    let stop = StopFlag::default();
    stop.stop();
    let (_, result) = run(Rpc::NodeStage, &[Code::Aborted; 5], Some(&stop));
    let failed = result.unwrap_err();
    assert_eq!(failed.outcome, Outcome::Unknown);
    assert_eq!(failed.error.kind(), ErrorKind::Interrupted);
}

#[test]
fn what_is_looked_for_to_be_taken_back_is_not_waited_for_as_long() {
    let caller = Caller {
        deadlines: Deadlines::default(),
        ..caller(Duration::ZERO)
    };
    for rpc in [Rpc::CreateSnapshot, Rpc::CreateVolume] {
        assert_eq!(caller.limit(rpc, Purpose::Undo), UNDO_LIMIT);
        assert!(caller.limit(rpc, rpc.purpose()) > UNDO_LIMIT);
    }
}

#[test]
fn a_driver_that_never_answers_runs_out_of_time() {
    let caller = caller(Duration::from_millis(300));
    let result = caller.call(
        Rpc::NodeStage,
        "v",
        None,
        std::future::pending::<std::result::Result<Response<()>, Status>>,
    );
    let failed = result.unwrap_err();
    assert_eq!(failed.code, Some(Code::DeadlineExceeded));
    assert_eq!(failed.outcome, Outcome::Unknown);
    assert_eq!(failed.error.kind(), ErrorKind::Unavailable);
}

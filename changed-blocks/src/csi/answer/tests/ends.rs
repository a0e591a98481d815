//! When an answer is complete, when it is asked again, and when it is given up.

use super::*;

#[test]
fn an_answer_is_complete_after_two_ends_without_news() {
    let mut answer = answer(100);
    assert_eq!(answer.ended(), AT_ONCE, "one end of an empty answer");
    answer.begin().unwrap();
    assert_eq!(answer.ended(), Next::Complete);
}

#[test]
fn an_answer_is_complete_where_the_volume_or_the_device_ends() {
    for (capacity, range) in [
        (100, (40, 60)),
        (1000, (40, 60)),
        (90, (40, 50)),
        (90, (40, 51)),
    ] {
        let mut answer = answer(100);
        let message = variable(capacity, &[range]);
        answer.message(&message, &mut Vec::new()).unwrap();
        assert_eq!(answer.ended(), Next::Complete, "{capacity} {range:?}");
    }
}

#[test]
fn the_error_behind_the_end_is_an_end_only_where_one_can_be() {
    let out = error(Code::OutOfRange);
    let part = variable(100, &[(0, 50)]);
    let whole = variable(100, &[(0, 104)]);
    // At once.
    assert!(answer(200).failed(&out).is_err());
    // After a clean end: it confirms.
    let mut ended = answer(200);
    ended.message(&part, &mut Vec::new()).unwrap();
    ended.ended();
    ended.begin().unwrap();
    assert_eq!(ended.failed(&out), Ok(Next::Complete));
    // In the stream itself.
    let mut amid = answer(200);
    amid.message(&whole, &mut Vec::new()).unwrap();
    assert!(amid.failed(&out).is_err());
    // In place of the rest.
    for (message, is_end) in [(&part, false), (&whole, true)] {
        let mut broken = answer(200);
        broken.message(message, &mut Vec::new()).unwrap();
        broken.failed(&error(Code::Cancelled)).unwrap();
        broken.begin().unwrap();
        assert_eq!(broken.failed(&out).is_ok(), is_end);
    }
}

#[test]
fn what_passes_is_tried_again_and_longer_each_time() {
    let passing = [
        Code::Unavailable,
        Code::Internal,
        Code::Aborted,
        Code::ResourceExhausted,
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::Cancelled,
    ];
    for code in passing {
        let renew = matches!(code, Code::DeadlineExceeded | Code::Cancelled);
        let mut answer = answer(100);
        let waits = |seconds| {
            let wait = Duration::from_secs(seconds);
            Ok(Next::Call { wait, renew })
        };
        assert_eq!(answer.failed(&error(code)), waits(1));
        assert_eq!(answer.failed(&error(code)), waits(2));
        // Something new: from the start.
        let message = variable(100, &[(0, 1)]);
        answer.begin().unwrap();
        answer.message(&message, &mut Vec::new()).unwrap();
        assert_eq!(answer.failed(&error(code)), waits(1));
        assert_eq!(answer.failed(&error(code)), waits(2));
        let Doubt(reason) = answer.failed(&error(code)).unwrap_err();
        let expected = format!("{code:?}: scripted: 5 calls failed, 3 of them in a row");
        assert_eq!(reason, expected);
    }
}

#[test]
fn the_wait_has_a_limit() {
    let patience = Patience {
        attempts: 100,
        back_off: Duration::from_secs(1),
    };
    let mut answer = Answer::new(100, patience);
    let waits: Vec<_> = (0..70)
        .map(|_| match answer.failed(&error(Code::Aborted)).unwrap() {
            Next::Call { wait, .. } => wait.as_secs(),
            Next::Complete => unreachable!("an end of nothing"),
        })
        .collect();
    assert_eq!(waits[..6], [1, 2, 4, 8, 16, 30]);
    assert!(waits[6..].iter().all(|wait| *wait == 30));
}

#[test]
fn a_refused_token_is_replaced_once() {
    let renew = Ok(Next::Call {
        wait: Duration::ZERO,
        renew: true,
    });
    let mut answer = answer(100);
    assert_eq!(answer.failed(&error(Code::Unauthenticated)), renew);
    answer.begin().unwrap();
    let message = variable(100, &[(0, 1)]);
    answer.message(&message, &mut Vec::new()).unwrap();
    // It was good for a while.
    assert_eq!(answer.failed(&error(Code::Unauthenticated)), renew);
    answer.begin().unwrap();
    let Doubt(reason) = answer.failed(&error(Code::Unauthenticated)).unwrap_err();
    assert!(
        reason.ends_with("refused again with new credentials"),
        "{reason}"
    );
}

#[test]
fn what_does_not_pass_stops_at_once() {
    for code in [
        Code::InvalidArgument,
        Code::NotFound,
        Code::PermissionDenied,
        Code::FailedPrecondition,
        Code::Unimplemented,
        Code::AlreadyExists,
        Code::DataLoss,
    ] {
        let Doubt(reason) = answer(100).failed(&error(code)).unwrap_err();
        let start = format!("{code:?}: scripted: ");
        assert!(
            reason.len() > start.len() && reason.starts_with(&start),
            "{reason}"
        );
    }
}

#[test]
fn calls_without_end_end() {
    let mut clean = answer(1 << 40);
    let mut failing = answer(1 << 40);
    let mut at = 0;
    let step = |answer: &mut Answer, at: i64| {
        let message = variable(1 << 40, &[(at, 1)]);
        answer.message(&message, &mut Vec::new()).unwrap();
    };
    let Doubt(reason) = loop {
        step(&mut clean, at);
        assert_eq!(clean.ended(), AT_ONCE);
        at += 2;
        if let Err(doubt) = clean.begin() {
            break doubt;
        }
    };
    assert_eq!(reason, "no end after 100000 calls");
    at = 0;
    let Doubt(reason) = loop {
        step(&mut failing, at);
        at += 2;
        if let Err(doubt) = failing.failed(&error(Code::Cancelled)) {
            break doubt;
        }
        failing.begin().unwrap();
    };
    assert!(
        reason.ends_with("1000 calls failed, 1 of them in a row"),
        "{reason}"
    );
}

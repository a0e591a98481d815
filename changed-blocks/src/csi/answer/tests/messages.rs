//! Which messages are sound, and what they tell.

use super::*;

#[test]
fn ranges_that_touch_are_told_as_one_across_messages_and_calls() {
    let mut answer = answer(1 << 20);
    let mut told = Vec::new();
    let size = 1 << 20;
    answer
        .message(&fixed(size, &[(0, 4096), (4096, 4096)]), &mut told)
        .unwrap();
    answer
        .message(&fixed(size, &[(8192, 4096)]), &mut told)
        .unwrap();
    assert_eq!(answer.ended(), AT_ONCE);
    assert_eq!(answer.begin(), Ok(12288));
    // The other type: it is constant for one stream only.
    answer
        .message(&variable(size, &[(12288, 1), (65536, 512)]), &mut told)
        .unwrap();
    assert_eq!(answer.ended(), AT_ONCE);
    assert_eq!(answer.begin(), Ok(66048));
    assert_eq!(answer.ended(), Next::Complete);
    assert_eq!(answer.finish(&mut told), None);
    assert_eq!(told, [Extent::data(0, 12289), Extent::data(65536, 512)]);
}

#[test]
fn the_first_range_of_a_call_may_begin_before_it() {
    let mut answer = answer(1 << 20);
    let mut told = Vec::new();
    let size = 1 << 20;
    answer
        .message(&variable(size, &[(0, 5000)]), &mut told)
        .unwrap();
    answer.failed(&error(Code::Unavailable)).unwrap();
    assert_eq!(answer.begin(), Ok(5000));
    answer
        .message(&variable(size, &[(4096, 4096), (16384, 1)]), &mut told)
        .unwrap();
    answer.finish(&mut told);
    assert_eq!(told, [Extent::data(0, 8192), Extent::data(16384, 1)]);
}

#[test]
fn a_range_that_was_not_asked_for_is_a_doubt() {
    let mut answer = answer(1 << 20);
    let mut told = Vec::new();
    let message = variable(1 << 20, &[(0, 4096)]);
    answer.message(&message, &mut told).unwrap();
    answer.failed(&error(Code::Unavailable)).unwrap();
    answer.begin().unwrap();
    let Doubt(reason) = answer.message(&message, &mut told).unwrap_err();
    assert_eq!(
        reason,
        "a range up to 4096 in answer to a call from 4096 on"
    );
}

#[test]
fn every_unsound_message_is_a_doubt_with_its_reason() {
    let size = 1 << 20;
    let cases: [(&[MetadataMessage], &str); 13] = [
        (
            &[variable(size, &[(4096, 4096), (0, 4096)])],
            "a range at 0 after one that ends at 8192",
        ),
        (
            &[variable(size, &[(0, 4096), (4095, 4096)])],
            "a range at 4095 after one that ends at 4096",
        ),
        (
            &[variable(size, &[(0, 4096)]), variable(size, &[(0, 8192)])],
            "a range at 0 after one that ends at 4096",
        ),
        (&[variable(size, &[(0, 0)])], "an empty range at 0"),
        (
            &[variable(size, &[(-4096, 8192)])],
            "a range at -4096 of 8192 bytes",
        ),
        (&[variable(size, &[(0, -1)])], "a range at 0 of -1 bytes"),
        (&[variable(-1, &[])], "a volume of -1 bytes"),
        (&[variable(0, &[(0, 1)])], "a volume of 0 bytes"),
        (
            &[variable(size, &[(0, 1)]), variable(size + 1, &[])],
            "a volume of 1048576 bytes at first, of 1048577 now",
        ),
        (
            &[variable(size, &[(0, 1)]), fixed(size, &[(1, 1)])],
            "ranges of type Variable at first, Fixed now",
        ),
        (
            &[variable(size, &[(0, 1), (size, 1)])],
            "a range at 1048576 of a volume of 1048576 bytes",
        ),
        (
            &[fixed(size, &[(0, 4096), (4096, 8192)])],
            "a block of 8192 bytes up to 12288 among blocks of 4096",
        ),
        (
            &[MetadataMessage {
                block_type: BlockType::Other(7),
                ..variable(size, &[(0, 1)])
            }],
            "ranges of the unknown type 7",
        ),
    ];
    for (messages, reason) in cases {
        assert_eq!(refusal(messages), reason);
    }
}

#[test]
fn an_empty_message_says_nothing() {
    let empty = MetadataMessage {
        block_type: BlockType::Other(0),
        capacity: 0,
        ranges: Vec::new(),
    };
    let told = judge(100, &[empty.clone(), variable(100, &[(0, 1)])]).unwrap();
    assert_eq!(told, [Extent::data(0, 1)]);
    assert_eq!(judge(100, &[empty]).unwrap(), []);
}

#[test]
fn the_last_block_may_pass_the_end_or_be_cut_by_it() {
    let over = judge(5000, &[fixed(5000, &[(0, 4096), (4096, 4096)])]).unwrap();
    assert_eq!(over, [Extent::data(0, 5000)]);
    let cut = judge(5000, &[fixed(5000, &[(0, 4096), (4096, 904)])]).unwrap();
    assert_eq!(cut, over);
    let on = judge(
        5000,
        &[fixed(9000, &[(0, 4096), (4096, 904), (5000, 4000)])],
    );
    assert!(on.is_err(), "a block was cut elsewhere");
    let behind = judge(5000, &[variable(9000, &[(0, 1), (5000, 10), (6000, 10)])]).unwrap();
    assert_eq!(behind, [Extent::data(0, 1)]);
    let huge = judge(5000, &[variable(5000, &[(1, i64::MAX)])]).unwrap();
    assert_eq!(huge, [Extent::data(1, 4999)]);
}

#[test]
fn what_the_service_does_not_know_of_the_device_is_told() {
    let mut answer = answer(1000);
    let mut told = Vec::new();
    answer
        .message(&variable(600, &[(10, 5), (590, 20)]), &mut told)
        .unwrap();
    assert_eq!(answer.finish(&mut told), Some(600));
    assert_eq!(told, [Extent::data(10, 5), Extent::data(590, 410)]);
}

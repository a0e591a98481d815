//! Answers of a driver that are cut, unsound, silent or refused.

use std::time::{Duration, Instant};

use changed_blocks::csi::BlockType;
use changed_blocks::{Extent, SourceErrorKind};
use csi_proto::{Code, Status};

use crate::csi_source::driver::Bed;
use crate::csi_source::server::Item;
use crate::csi_source::volume::Volume;
use crate::{TYPES, allocated, delta, options, set};

/// The reason why there is no delta. It is left as a notice too.
fn refusal(bed: &mut Bed) -> String {
    let answer = delta(&mut bed.source).map(|told| told.len());
    let error = answer.unwrap_err();
    assert_eq!(error.kind, SourceErrorKind::FullBackup);
    let reason = error.to_string();
    assert_eq!(bed.notices.all(), [format!("no delta: {reason}")]);
    reason
}

fn whole(volume: &Volume) -> [Extent; 1] {
    [Extent::data(0, volume.size())]
}

#[test]
fn a_driver_that_ends_after_each_page_is_asked_for_the_next() {
    for (seed, block_type) in (10..).zip(TYPES) {
        let volume = Volume::random(seed, 500, block_type);
        let honest = volume.clone();
        let mut bed = Bed::new(volume.size(), move |asked| {
            let mut items = honest.honest(asked, 7);
            items.truncate(1);
            items
        });
        assert_eq!(set(&delta(&mut bed.source).unwrap()), volume.set());
        let pages = volume.ranges.len().div_ceil(7);
        assert!(bed.server.offsets().len() >= pages);
        assert_eq!(set(&allocated(&mut bed.source)), volume.set());
        assert!(bed.notices.all().is_empty());
    }
}

#[test]
fn a_stream_that_breaks_off_goes_on_where_it_ended() {
    let passing = [
        Code::Cancelled,
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Internal,
        Code::Unavailable,
    ];
    for (seed, code) in (20..).zip(passing) {
        let volume = Volume::random(seed, 300, BlockType::Variable);
        let honest = volume.clone();
        let mut bed = Bed::new(volume.size(), move |asked| {
            let mut items = honest.honest(asked, 7);
            // Every other call fails before it says anything.
            let messages = if asked.number % 2 == 0 { 2 } else { 0 };
            if items.len() > messages {
                items.truncate(messages);
                items.push(Item::Fail(Status::new(code, "scripted")));
            }
            items
        });
        assert_eq!(
            set(&delta(&mut bed.source).unwrap()),
            volume.set(),
            "{code:?}"
        );
        let offsets = bed.server.offsets();
        assert!(offsets.len() > 10 && offsets.is_sorted(), "{offsets:?}");
    }
}

#[test]
fn an_error_for_the_end_is_an_end() {
    let mut volume = Volume::random(30, 300, BlockType::Variable);
    // The last block is told, so that the volume's end is reached, and the device is larger.
    volume.ranges.retain(|range| range.0 < 299 * 4096);
    volume.ranges.push((299 * 4096, 4096));
    let honest = volume.clone();
    let capacity = volume.capacity;
    let mut bed = Bed::new(volume.size() + 512, move |asked| {
        if asked.offset >= capacity {
            return vec![Item::Fail(Status::out_of_range("behind the end"))];
        }
        let mut items = honest.honest(asked, 7);
        items.push(Item::Fail(Status::unavailable("after the last message")));
        items
    });
    let told = set(&delta(&mut bed.source).unwrap());
    let excess = Extent::data(volume.size(), 512);
    assert_eq!(told, volume.set().union(&[excess].into_iter().collect()));
    let notice = "GetMetadataDelta: the driver knows 1228800 bytes of 1229312; the rest is read";
    assert_eq!(bed.notices.all(), [notice]);
    // In the middle it is none.
    let honest = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| {
        if asked.offset > 0 {
            return vec![Item::Fail(Status::out_of_range("no such offset"))];
        }
        let mut items = honest.honest(asked, 7);
        items.truncate(1);
        items.push(Item::Fail(Status::unavailable("cut")));
        items
    });
    let reason = refusal(&mut bed);
    assert!(
        reason.contains("although the volume does not end"),
        "{reason}"
    );
}

#[test]
fn unsound_messages_are_thrown_away() {
    let sound = (0, 4096);
    let cases = [
        ("order", [sound, (8192, 4096), (4096, 4096)]),
        ("overlap", [sound, (4096, 8192), (8192, 4096)]),
        ("negative offset", [sound, (-1, 8192), (16384, 4096)]),
        ("negative length", [sound, (8192, -4096), (16384, 4096)]),
        ("empty", [sound, (8192, 0), (16384, 4096)]),
        ("behind the end", [sound, (409_600, 4096), (413_696, 4096)]),
    ];
    for (what, ranges) in cases {
        let volume = Volume::random(40, 100, BlockType::Variable);
        let liar = volume.clone();
        let mut bed = Bed::new(volume.size(), move |_| {
            ranges.iter().map(|&range| liar.message(&[range])).collect()
        });
        let reason = refusal(&mut bed);
        assert!(
            reason.starts_with("GetMetadataDelta: a"),
            "{what}: {reason}"
        );
        assert_eq!(bed.server.offsets(), [0], "{what}: asked again");
        // Nothing of what looked sound is told.
        assert_eq!(allocated(&mut bed.source), whole(&volume), "{what}");
    }
}

#[test]
fn a_range_behind_the_end_is_cut() {
    let volume = Volume {
        capacity: 10_000,
        block_type: BlockType::Fixed,
        ranges: vec![(0, 4096), (8192, 4096)],
    };
    let honest = volume.clone();
    let mut bed = Bed::new(9_000, move |asked| honest.honest(asked, 7));
    let expected = [Extent::data(0, 4096), Extent::data(8192, 808)];
    assert_eq!(delta(&mut bed.source).unwrap(), expected);
    assert_eq!(allocated(&mut bed.source), expected);
}

#[test]
fn a_message_that_is_too_long_is_not_the_end() {
    // The library reports it by the very code that servers use for an offset behind the end.
    let ranges: Vec<_> = (0..500_000).map(|n| (n * 8192, 4096)).collect();
    let volume = Volume {
        capacity: 500_000 * 8192,
        block_type: BlockType::Fixed,
        ranges,
    };
    let all = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| {
        // At first a page, and an end: a confirming call follows.
        let most = if asked.offset == 0 { 7 } else { 500_000 };
        let mut items = all.honest(asked, most);
        items.truncate(1);
        items
    });
    let reason = refusal(&mut bed);
    assert!(reason.contains("ResourceExhausted: "), "{reason}");
    assert_eq!(bed.server.offsets().len(), 1 + 5);
}

#[test]
fn silence_ends() {
    let volume = Volume::random(50, 100, BlockType::Fixed);
    for told in [0, 2] {
        let silent = volume.clone();
        let mut bed = Bed::new(volume.size(), move |asked| {
            let mut items = silent.honest(asked, 7);
            items.truncate(told);
            items.push(Item::Hang);
            items
        });
        let no_progress = Duration::from_millis(300);
        bed.source = bed.source.with_options(changed_blocks::csi::CsiOptions {
            no_progress,
            ..options()
        });
        let started = Instant::now();
        let reason = refusal(&mut bed);
        assert_eq!(reason, "GetMetadataDelta: nothing new for 300ms");
        assert!(started.elapsed() >= no_progress);
        assert_eq!(bed.server.offsets(), [0]);
    }
}

#[test]
fn what_the_driver_refuses_is_refused_once_and_said() {
    let cases = [
        (Code::InvalidArgument, "does not accept the pair"),
        (
            Code::NotFound,
            "does not have the snapshot or its base any more",
        ),
        (Code::PermissionDenied, "may not ask"),
        (Code::FailedPrecondition, "does not keep track of changes"),
        (Code::Unimplemented, "no such call"),
        (Code::OutOfRange, "does not end at 0"),
    ];
    for (code, why) in cases {
        let volume = Volume::random(60, 100, BlockType::Fixed);
        let honest = volume.clone();
        let mut bed = Bed::new(volume.size(), move |asked| match &asked.base {
            Some(_) => vec![Item::Fail(Status::new(code, "scripted"))],
            None => honest.honest(asked, 7),
        });
        let reason = refusal(&mut bed);
        assert!(
            reason.contains(&format!("{code:?}: scripted: ")),
            "{reason}"
        );
        assert!(reason.contains(why), "{reason}");
        assert_eq!(bed.server.offsets(), [0]);
        // The next tier.
        assert_eq!(set(&allocated(&mut bed.source)), volume.set());
        assert_eq!(bed.notices.all().len(), 1);
    }
}

#[test]
fn where_nothing_can_be_asked_the_whole_device_is_told() {
    let volume = Volume::random(70, 100, BlockType::Fixed);
    let mut bed = Bed::new(volume.size(), |_| {
        vec![Item::Fail(Status::unimplemented("switched off"))]
    });
    assert_eq!(allocated(&mut bed.source), whole(&volume));
    let notices = bed.notices.all();
    assert_eq!(
        notices,
        [
            "the whole device is read: GetMetadataAllocated: Unimplemented: switched off: the driver has no such call, or it is \
             switched off"
        ]
    );
    // Neither is half an answer an answer.
    let half = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| {
        let mut items = half.honest(asked, 7);
        items.truncate(1);
        items.push(Item::Fail(Status::data_loss("scripted")));
        items
    });
    assert_eq!(allocated(&mut bed.source), whole(&volume));
    assert_eq!(bed.notices.all().len(), 1);
}

#[test]
fn an_answer_without_a_word_is_an_empty_delta_and_no_empty_volume() {
    let volume = Volume::random(80, 100, BlockType::Fixed);
    let mut bed = Bed::new(volume.size(), |_| Vec::new());
    assert_eq!(delta(&mut bed.source).unwrap(), []);
    assert_eq!(bed.server.offsets(), [0, 0], "not confirmed");
    assert_eq!(bed.notices.all(), Vec::<String>::new());
    assert_eq!(allocated(&mut bed.source), whole(&volume));
    assert_eq!(bed.notices.all().len(), 1);
    // A volume of which somebody says that it is empty is.
    let empty = volume.clone();
    let mut bed = Bed::new(volume.size(), move |_| vec![empty.message(&[])]);
    assert_eq!(allocated(&mut bed.source), []);
    assert_eq!(bed.notices.all(), Vec::<String>::new());
}

#[test]
fn an_answer_about_a_large_volume_is_held_in_coarse_units() {
    let volume = Volume {
        capacity: 1 << 40,
        block_type: BlockType::Fixed,
        ranges: vec![(4096, 4096), (20480, 4096), (1 << 39, 4096)],
    };
    let honest = volume.clone();
    let mut bed = Bed::new(volume.size(), move |asked| honest.honest(asked, 7));
    let units = [Extent::data(0, 32768), Extent::data(1 << 39, 16384)];
    assert_eq!(allocated(&mut bed.source), units);
    let exact: Vec<_> = volume.set().iter().collect();
    assert_eq!(delta(&mut bed.source).unwrap(), exact);
}

//! A list of extents that somebody else wrote. What passes must be sound.

#![no_main]

use changed_blocks::{ByteLen, extents_file};
use libfuzzer_sys::fuzz_target;

const SIZE: u64 = 1 << 30;

fuzz_target!(|bytes: &[u8]| {
    let (mut last, mut extents) = (0, 0);
    let end = extents_file::read(bytes, ByteLen(SIZE), &mut |extent| {
        let end = extent.end().expect("an extent ends inside the target");
        assert!(extent.offset.0 >= last && extent.offset.0 < end && end <= SIZE);
        last = end;
        extents += 1;
        true
    });
    if let Ok(end) = end {
        assert_eq!((end.size, end.extents), (ByteLen(SIZE), extents));
    }
});

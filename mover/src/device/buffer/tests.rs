use super::*;

#[test]
fn a_new_buffer_is_aligned_rounded_up_and_zero() {
    for (asked, capacity) in [
        (0, 4096),
        (1, 4096),
        (4096, 4096),
        (4097, 8192),
        (1 << 20, 1 << 20),
    ] {
        let buffer = AlignedBuffer::new(asked);
        assert_eq!(buffer.len(), capacity, "asked for {asked}");
        assert_eq!(buffer.as_ptr().addr() % ALIGNMENT, 0);
        assert!(is_zero(&buffer));
    }
}

#[test]
fn shared_bytes_are_the_same_memory_and_outlive_the_buffer() {
    let mut buffer = AlignedBuffer::new(3 * ALIGNMENT);
    for (byte, value) in buffer.iter_mut().zip((0..=250u8).cycle()) {
        *byte = value;
    }
    let (address, copy) = (buffer.as_ptr().addr(), buffer.to_vec());
    let bytes = buffer.into_bytes(10..9000);
    let clone = bytes.clone();
    assert_eq!(bytes.as_ptr().addr(), address + 10);
    drop(bytes);
    assert_eq!(clone[..], copy[10..9000]);
}

#[test]
#[should_panic(expected = "range end out of bounds")]
fn a_range_past_the_capacity_is_a_programming_error() {
    let _ = AlignedBuffer::new(1).into_bytes(0..ALIGNMENT + 1);
}

#[test]
fn buffers_travel_between_threads() {
    let mut buffer = AlignedBuffer::new(ALIGNMENT);
    let buffer = std::thread::spawn(move || {
        buffer[ALIGNMENT - 1] = 7;
        buffer
    });
    assert_eq!(buffer.join().unwrap()[ALIGNMENT - 1], 7);
}

#[test]
fn one_byte_anywhere_is_seen() {
    for len in [0, 1, 255, 256, 257, 4096, 5000] {
        let mut bytes = vec![0u8; len];
        assert!(is_zero(&bytes), "{len} zeros");
        for position in 0..len {
            bytes[position] = 0x80 >> (position % 8);
            assert!(!is_zero(&bytes), "byte {position} of {len}");
            bytes[position] = 0;
        }
    }
}

#[test]
fn debug_output_shows_no_contents() {
    let mut buffer = AlignedBuffer::new(1);
    buffer.fill(b'S');
    assert!(!format!("{buffer:?}").contains("83"));
}

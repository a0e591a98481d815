//! Codecs: what compresses comes back, what does not is stored raw.

use super::*;

#[test]
fn compressions_have_names() {
    for (text, compression) in [
        ("none", Compression::None),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd(3)),
        ("zstd:1", Compression::Zstd(1)),
        ("zstd:22", Compression::Zstd(22)),
    ] {
        assert_eq!(text.parse::<Compression>().unwrap(), compression);
        assert_eq!(
            compression.to_string().parse::<Compression>().unwrap(),
            compression
        );
    }
    for text in [
        "", "LZ4", "lz4:1", "zstd:", "zstd:0", "zstd:23", "zstd:x", "gzip",
    ] {
        let error = text.parse::<Compression>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{text}");
    }
}

#[test]
fn every_codec_comes_back() {
    let raw: Vec<u8> = (0..100).flat_map(|byte| [byte; 1000]).collect();
    for (compression, expected) in [
        (Compression::None, Codec::Raw),
        (Compression::Lz4, Codec::Lz4),
        (Compression::Zstd(3), Codec::Zstd),
        (Compression::Zstd(19), Codec::Zstd),
    ] {
        let mut encoder = Encoder::new(compression).unwrap();
        for len in [raw.len(), 2000, raw.len()] {
            let (codec, stored) = encoder.encode(&raw[..len]);
            assert_eq!(codec, expected);
            let mut out = vec![0; len];
            Expander::default()
                .expand(codec, stored, &mut out, "o")
                .unwrap();
            assert_eq!(out, raw[..len]);
        }
    }
}

#[test]
fn noise_and_short_bodies_are_stored_raw() {
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state.to_le_bytes()[7]
    })
    .take(128 << 10)
    .collect();
    for compression in [Compression::Lz4, Compression::Zstd(3)] {
        let mut encoder = Encoder::new(compression).unwrap();
        for raw in [&noise[..], b"a", b""] {
            let (codec, stored) = encoder.encode(raw);
            assert_eq!((codec, stored), (Codec::Raw, raw));
        }
    }
}

#[test]
fn a_wrong_length_is_damage() {
    let raw = [7; 500];
    for compression in [Compression::Lz4, Compression::Zstd(3), Compression::None] {
        let mut encoder = Encoder::new(compression).unwrap();
        let (codec, stored) = encoder.encode(&raw);
        for len in [0, 499, 501] {
            let mut out = vec![0; len];
            let error = Expander::default()
                .expand(codec, stored, &mut out, "o")
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{codec:?} into {len}");
        }
    }
}

use proptest::prelude::*;

use super::*;

/// Both dialects, of one snapshot.
const OLD: &str = r#"<superblock uuid="" time="2" transaction="7" flags="0" version="2" data_block_size="128" nr_data_blocks="0">
  <device dev_id="2" mapped_blocks="7" transaction="5" creation_time="2" snap_time="3">
    <range_mapping origin_begin="0" data_begin="0" length="3" time="0"/>
    <single_mapping origin_block="3" data_block="20" time="1"/>
    <range_mapping origin_begin="100" data_begin="22" length="3" time="1"/>
  </device>
</superblock>
"#;

fn told(text: &str) -> Result<Vec<Told>, SourceError> {
    let mut all = Vec::new();
    read(text.as_bytes(), &mut |one| {
        all.push(one);
        Ok(())
    })?;
    Ok(all)
}

fn mapping(begin: u64, length: u64, time: u64) -> Told {
    Told::Mapping(Mapping {
        begin,
        length,
        time,
    })
}

fn expected() -> Vec<Told> {
    vec![
        Told::Superblock(Superblock {
            time: 2,
            block_sectors: 128,
        }),
        Told::Device(Details {
            thin_id: 2,
            mapped_blocks: 7,
            transaction: 5,
            creation_time: 2,
        }),
        mapping(0, 3, 0),
        mapping(3, 1, 1),
        mapping(100, 3, 1),
    ]
}

#[test]
fn both_dialects_are_understood() {
    assert_eq!(told(OLD).unwrap(), expected());
    let new = OLD
        .replace(" flags=\"0\"", "")
        .replace("</superblock>\n", "</superblock>");
    assert_eq!(told(&new).unwrap(), expected());
}

#[test]
fn an_answer_cut_anywhere_is_a_fault() {
    let whole = OLD.trim_end();
    for end in 0..whole.len() {
        assert!(told(&whole[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn what_is_not_understood_is_a_fault() {
    let changes = [
        (
            "<single_mapping origin_block=\"3\"",
            "<single_mapping origin_block=\"2\"",
        ),
        ("origin_begin=\"100\"", "origin_begin=\"-100\""),
        ("length=\"3\" time=\"0\"", "length=\"0\" time=\"0\""),
        (
            "origin_begin=\"100\"",
            "origin_begin=\"18446744073709551615\"",
        ),
        ("<single_mapping", "<ref"),
        ("  <device", "  <def name=\"1\">"),
        ("flags=\"0\"", "flags=\"1\""),
        ("</superblock>", "</superblock><superblock>"),
        ("</device>\n", ""),
        ("<superblock", "<diff"),
        ("time=\"2\" ", ""),
        ("snap_time=\"3\"", ""),
    ];
    for (from, to) in changes {
        let text = OLD.replacen(from, to, 1);
        assert_ne!(text, OLD, "{from}");
        assert!(told(&text).is_err(), "{to}");
    }
}

#[test]
fn the_consumer_stops_the_reading() {
    let mut seen = 0;
    let stopped = read(OLD.as_bytes(), &mut |_| {
        seen += 1;
        Err(SourceError::full("enough"))
    });
    assert_eq!((stopped.unwrap_err().message.as_str(), seen), ("enough", 1));
}

/// Writes mappings as the tools do.
fn write(mappings: &[(u64, u64, u64)]) -> String {
    let blocks: u64 = mappings.iter().map(|mapping| mapping.1).sum();
    let mut text = "<superblock uuid=\"\" time=\"9\" transaction=\"0\" version=\"2\" data_block_size=\"128\" nr_data_blocks=\"9\">\n".to_owned();
    text += &format!(
        "  <device dev_id=\"1\" mapped_blocks=\"{blocks}\" transaction=\"0\" creation_time=\"1\" snap_time=\"1\">\n"
    );
    for (begin, length, time) in mappings {
        text += &match length {
            1 => format!(
                "    <single_mapping origin_block=\"{begin}\" data_block=\"5\" time=\"{time}\"/>\n"
            ),
            _ => format!(
                "    <range_mapping origin_begin=\"{begin}\" data_begin=\"5\" length=\"{length}\" time=\"{time}\"/>\n"
            ),
        };
    }
    text + "  </device>\n</superblock>\n"
}

proptest! {
    #[test]
    fn every_mapping_comes_back(steps in proptest::collection::vec((0u64..9, 1u64..5, 0u64..9), 0..40)) {
        let mut end = 0;
        let mappings: Vec<_> = steps.into_iter().map(|(gap, length, time)| {
            let begin = end + gap;
            end = begin + length;
            (begin, length, time)
        }).collect();
        let all = told(&write(&mappings)).unwrap();
        let back: Vec<_> = mappings.iter().map(|(begin, length, time)| mapping(*begin, *length, *time)).collect();
        prop_assert_eq!(&all[2..], &back[..]);
    }

    #[test]
    fn changed_bytes_never_panic(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = OLD.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = read(&bytes[..], &mut |_| Ok(()));
    }
}

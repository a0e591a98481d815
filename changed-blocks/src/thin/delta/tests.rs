use proptest::prelude::*;

use super::*;

const ANSWER: &str = r#"<superblock uuid="" time="2" transaction="0" data_block_size="128" nr_data_blocks="0">
  <diff left="1" right="2">
    <same begin="0" length="3"/>
    <different begin="3" length="2"/>
    <left_only begin="10" length="2"/>
    <same begin="12" length="8"/>
    <right_only begin="100" length="2"/>
  </diff>
</superblock>
"#;

fn ranges(text: &str) -> Result<Vec<Range>, SourceError> {
    let mut all = Vec::new();
    read(text.as_bytes(), [1, 2], &mut |range| {
        all.push(range);
        Ok(())
    })?;
    Ok(all)
}

fn range((relation, begin, length): (Relation, u64, u64)) -> Range {
    Range {
        relation,
        begin,
        length,
    }
}

#[test]
fn an_answer_is_understood() {
    let expected = [
        (Relation::Same, 0, 3),
        (Relation::Different, 3, 2),
        (Relation::LeftOnly, 10, 2),
        (Relation::Same, 12, 8),
        (Relation::RightOnly, 100, 2),
    ];
    assert_eq!(ranges(ANSWER).unwrap(), expected.map(range));
    let checked = ANSWER.replacen("transaction=\"0\"", "transaction=\"0\" flags=\"1\"", 1);
    assert!(ranges(&checked).is_err(), "metadata that need a check");
}

#[test]
fn an_answer_cut_anywhere_is_a_fault() {
    let whole = ANSWER.trim_end();
    for end in 0..whole.len() {
        assert!(ranges(&whole[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn what_is_not_understood_is_a_fault() {
    let changes = [
        ("left=\"1\"", "left=\"3\""),
        ("left=\"1\" right=\"2\"", "left=\"2\" right=\"1\""),
        ("begin=\"10\"", "begin=\"4\""),
        ("begin=\"10\"", "begin=\"-1\""),
        (
            "begin=\"12\" length=\"8\"",
            "begin=\"12\" length=\"18446744073709551610\"",
        ),
        ("<left_only", "<vanished"),
        (
            "<same begin=\"0\" length=\"3\"/>",
            "<same><range begin=\"0\" data_begin=\"0\" length=\"3\"/></same>",
        ),
        ("</diff>\n", ""),
        ("</superblock>", "</superblock>\nUsage: thin_delta"),
        ("length=\"2\"", "length=\"0\""),
        ("length=\"2\"", "length=\"\""),
    ];
    for (from, to) in changes {
        let text = ANSWER.replacen(from, to, 1);
        assert_ne!(text, ANSWER, "{from}");
        assert!(ranges(&text).is_err(), "{to}");
    }
}

proptest! {
    #[test]
    fn every_range_comes_back(steps in proptest::collection::vec((0u64..9, 1u64..5, 0usize..4), 0..40)) {
        let kinds = [
            ("same", Relation::Same), ("different", Relation::Different),
            ("left_only", Relation::LeftOnly), ("right_only", Relation::RightOnly),
        ];
        let (mut end, mut text, mut expected) = (0, String::new(), Vec::new());
        for (gap, length, kind) in steps {
            let begin = end + gap;
            end = begin + length;
            text += &format!("<{} begin=\"{begin}\" length=\"{length}\"/>", kinds[kind].0);
            expected.push(range((kinds[kind].1, begin, length)));
        }
        let head = "<superblock uuid=\"\" time=\"2\" transaction=\"0\" data_block_size=\"128\" nr_data_blocks=\"0\">";
        let text = format!("{head}<diff left=\"1\" right=\"2\">{text}</diff></superblock>");
        prop_assert_eq!(ranges(&text).unwrap(), expected);
    }

    #[test]
    fn changed_bytes_never_panic(at in 0usize..400, byte in any::<u8>()) {
        let mut bytes = ANSWER.as_bytes().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = read(&bytes[..], [1, 2], &mut |_| Ok(()));
    }
}

//! Lists that are whole, and every way in which one is not.

use std::io::Write;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;
use crate::contract;
use crate::identity::Identity;
use crate::source::SourceErrorKind;
use crate::{Extent, ExtentKind, ExtentSet};

const SIZE: u64 = 1 << 20;

fn line(extent: &Extent) -> String {
    let kind = match extent.kind {
        ExtentKind::Data => "data",
        ExtentKind::Zero => "zero",
    };
    let (offset, length) = (extent.offset.0, extent.len.0);
    format!("{{\"offset\":{offset},\"length\":{length},\"kind\":\"{kind}\"}}\n")
}

fn last(size: u64, base_point: &str) -> String {
    format!("{{\"complete\":true,\"size\":{size},\"base_point\":{base_point}}}\n")
}

fn list(extents: &[Extent], base_point: &str) -> String {
    extents.iter().map(line).collect::<String>() + &last(SIZE, base_point)
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn bind(source: &mut ExtentsFile, point: &str) -> Result<(), SourceError> {
    source.bind(&Base {
        record: &Identity::new("extents"),
        point,
        named: None,
    })
}

fn extents() -> impl Strategy<Value = Vec<Extent>> {
    vec((0..9000u64, 1..9000u64, any::<bool>()), 0..50).prop_map(|steps| {
        let mut at = 0;
        let mut extents = Vec::new();
        for (gap, len, zero) in steps {
            at += gap;
            extents.push(if zero {
                Extent::zero(at, len)
            } else {
                Extent::data(at, len)
            });
            at += len;
        }
        extents
    })
}

fn parsed(text: &[u8]) -> (Vec<Extent>, Result<End, SourceError>) {
    let mut extents = Vec::new();
    let end = read(text, ByteLen(SIZE), &mut |extent| {
        extents.push(extent);
        true
    });
    (extents, end)
}

proptest! {
    #[test]
    fn a_list_comes_back(extents in extents()) {
        let (back, end) = parsed(list(&extents, "\"p1\"").as_bytes());
        let end = end.unwrap();
        prop_assert_eq!(end.extents, extents.len() as u64);
        prop_assert_eq!(end.base_point.as_deref(), Some("p1"));
        prop_assert_eq!(back, extents);
    }

    #[test]
    fn a_list_that_is_cut_is_no_list(extents in extents(), cut in 0..10_000usize) {
        let text = list(&extents, "null");
        // Without the newline at its very end it is whole.
        let cut = cut % (text.len() - 1);
        prop_assert!(parsed(&text.as_bytes()[..cut]).1.is_err());
        prop_assert!(parsed(text.trim_end().as_bytes()).1.is_ok());
    }

    #[test]
    fn what_passes_is_sound(mut text in extents().prop_map(|e| list(&e, "null").into_bytes()),
                            at in vec((any::<usize>(), any::<u8>()), 0..4)) {
        for (place, byte) in at {
            let place = place % text.len();
            text[place] = byte;
        }
        let (extents, end) = parsed(&text);
        let mut from = 0;
        for extent in &extents {
            prop_assert!(extent.offset.0 >= from && extent.len.0 > 0);
            from = extent.end().unwrap();
            prop_assert!(from <= SIZE);
        }
        if let Ok(end) = end {
            prop_assert_eq!((end.extents, end.size), (extents.len() as u64, ByteLen(SIZE)));
        }
    }
}

#[test]
fn passes_the_contract() {
    let extents = [
        Extent::data(0, 4096),
        Extent::zero(4096, 100),
        Extent::data(8192, 1),
    ];
    let changed: ExtentSet = extents.iter().copied().collect();
    let delta = file(&list(&extents, "\"p1\""));
    let mut source = ExtentsFile::open(delta.path(), SIZE).unwrap();
    contract::check_without_base(&mut source);
    bind(&mut source, "p1").unwrap();
    contract::check_delta(&mut source, SIZE, &changed);

    let all = file(&list(&extents, "null"));
    let mut source = ExtentsFile::open(all.path(), SIZE).unwrap();
    contract::check_without_base(&mut source);
    let data = [extents[0], extents[2]].into_iter().collect();
    contract::check_allocated(&mut source, SIZE, &data);

    let empty = file(&list(&[], "\"p1\""));
    let mut source = ExtentsFile::open(empty.path(), SIZE).unwrap();
    bind(&mut source, "p1").unwrap();
    contract::check_delta(&mut source, SIZE, &ExtentSet::empty());
}

fn refused<T>(result: Result<T, SourceError>, reason: &str) {
    let Err(error) = result else {
        panic!("not refused: {reason}");
    };
    assert_eq!(error.kind, SourceErrorKind::FullBackup);
    assert!(error.to_string().contains(reason), "{error} / {reason}");
}

#[test]
fn a_list_answers_only_what_it_is_about() {
    let delta = file(&list(&[Extent::data(0, 1)], "\"p1\""));
    let mut source = ExtentsFile::open(delta.path(), SIZE).unwrap();
    bind(&mut source, "p1").unwrap();
    refused(bind(&mut source, "p2"), "since point p1, the parent is p2");
    contract::check_without_base(&mut source);
    refused(source.allocated(&mut |_| true), "not of everything");
    let all = file(&list(&[Extent::data(0, 1)], "null"));
    let mut source = ExtentsFile::open(all.path(), SIZE).unwrap();
    refused(bind(&mut source, "p1"), "base_point is null");
}

#[test]
fn a_list_changed_while_it_is_used_is_refused() {
    let list_file = file(&list(&[Extent::data(0, 1)], "null"));
    let mut source = ExtentsFile::open(list_file.path(), SIZE).unwrap();
    let more = list(&[Extent::data(0, 1), Extent::data(5, 1)], "null");
    std::fs::write(list_file.path(), more).unwrap();
    refused(source.allocated(&mut |_| true), "changed while");
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(
        ExtentsFile::open(folder.path(), SIZE),
        "a list of extents must be a file",
    );
    refused(
        ExtentsFile::open(&folder.path().join("none"), SIZE),
        "open the list of extents",
    );
    refused(
        ExtentsFile::open(Path::new("/dev/null"), SIZE),
        "/dev/null: a list of extents must be a file",
    );
}

/// A sound line, then one that is not.
const FAULTY_EXTENTS: [(&str, &str); 15] = [
    ("", "no JSON object"),
    ("{", "EOF while parsing"),
    (r#"[10,1,"data",null,null,null]"#, "no JSON object"),
    (
        r#"{"offset":0,"length":10,"kind":"data"}"#,
        "the extent starts at 0, before the last one ends at 10",
    ),
    (
        r#"{"offset":-4,"length":1,"kind":"data"}"#,
        "invalid value: integer `-4`",
    ),
    (
        r#"{"offset":10,"length":1.5,"kind":"data"}"#,
        "invalid type: floating",
    ),
    (
        r#"{"offset":10,"length":0,"kind":"data"}"#,
        "the extent is empty",
    ),
    (
        r#"{"offset":10,"length":18446744073709551615,"kind":"data"}"#,
        "the extent passes",
    ),
    (
        r#"{"offset":10,"length":18446744073709551616,"kind":"data"}"#,
        "invalid type: floating",
    ),
    (
        r#"{"offset":1048576,"length":1,"kind":"data"}"#,
        "the extent passes the end of the target",
    ),
    (
        r#"{"offset":10,"length":1,"kind":"hole"}"#,
        "unknown variant `hole`",
    ),
    (
        r#"{"offset":10,"length":1}"#,
        "an extent has exactly offset, length and kind",
    ),
    (
        r#"{"offset":10,"len":1,"kind":"data"}"#,
        "unknown field `len`",
    ),
    (
        r#"{"offset":10,"length":1,"kind":"data","size":4}"#,
        "an extent has exactly",
    ),
    (
        r#"{"offset":10,"length":1,"kind":"data"} {}"#,
        "trailing characters",
    ),
];

const FAULTY_ENDS: [(&str, &str); 7] = [
    (
        r#"{"complete":true,"size":1048575,"base_point":null}"#,
        "the list is of 1048575 bytes, the target has 1048576",
    ),
    (
        r#"{"complete":false,"size":1048576,"base_point":null}"#,
        "the list says itself",
    ),
    (
        r#"{"complete":true,"size":1048576}"#,
        "the last line has exactly",
    ),
    (
        r#"{"complete":true,"base_point":null}"#,
        "the last line has exactly",
    ),
    (r#"{"complete":true,"complete":true}"#, "duplicate field"),
    (
        r#"{"complete":true,"size":1048576,"base_point":4}"#,
        "invalid type",
    ),
    (
        r#"{"complete":true,"size":1048576,"base_point":null"#,
        "EOF while parsing",
    ),
];

#[test]
fn faults_are_refused_by_their_line() {
    let sound = line(&Extent::data(0, 10));
    let end = last(SIZE, "null");
    for (fault, reason) in FAULTY_EXTENTS {
        let text = format!("{sound}{fault}\n{end}");
        refused(parsed(text.as_bytes()).1, &format!("line 2: {reason}"));
        refused(ExtentsFile::open(file(&text).path(), SIZE), reason);
    }
    for (fault, reason) in FAULTY_ENDS {
        let text = format!("{sound}{fault}");
        refused(parsed(text.as_bytes()).1, &format!("line 2: {reason}"));
    }
    let long = format!("{}{end}", " ".repeat(5000));
    refused(parsed(long.as_bytes()).1, "line 1: longer than 4096 bytes");
}

#[test]
fn a_list_ends_with_its_last_line() {
    let sound = line(&Extent::data(0, 10));
    let end = last(SIZE, "null");
    refused(parsed(b"").1, "line 1: the list ends without");
    refused(parsed(sound.as_bytes()).1, "line 2: the list ends without");
    for after in [sound.as_str(), end.as_str(), "\n", " "] {
        let text = format!("{end}{after}");
        refused(parsed(text.as_bytes()).1, "line 2: something follows");
    }
}

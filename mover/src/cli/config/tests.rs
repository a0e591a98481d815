//! What is accepted, what is refused, and that a refusal says what to do.

use clap::Parser as _;

use super::*;

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(std::iter::once("snaphaul").chain(line.split_whitespace())).unwrap()
}

fn init(line: &str) -> InitArgs {
    match parse(line).command {
        Command::Init(args) => args,
        other => panic!("not an init: {other:?}"),
    }
}

fn assert_refused<T: std::fmt::Debug>(result: Result<T>, case: &str) {
    let error = result.expect_err(case);
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{case}");
    assert!(error.hint_text().is_some(), "{case} has no hint");
}

#[test]
fn defaults_are_filled_in() {
    let config = RunConfig::try_new(&parse("points --repo /r")).unwrap();
    assert_eq!(config.command, "points");
    assert_eq!(config.memory, 400 << 20);
    assert!(config.jobs >= 1);
    let config = RunConfig::try_new(&parse("points --jobs 7 --memory 1GiB")).unwrap();
    assert_eq!((config.jobs, config.memory), (7, 1 << 30));
}

#[test]
fn run_flags_that_cannot_work_are_refused() {
    for line in [
        "points --memory 255MiB",
        "points --metrics-file /nonexistent/run.prom",
        "points --metrics-file /",
        "restore p - --json",
    ] {
        assert_refused(RunConfig::try_new(&parse(line)), line);
    }
    assert!(RunConfig::try_new(&parse("restore p - ")).is_ok());
    assert!(RunConfig::try_new(&parse("points --metrics-file run.prom")).is_ok());
}

#[test]
fn repository_sizes_have_bounds() {
    assert_eq!(
        repository_sizes(&init("init")).unwrap(),
        (128 << 10, 32 << 20)
    );
    let smallest = init("init --chunk-size 64KiB --segment-size 1MiB");
    assert_eq!(repository_sizes(&smallest).unwrap(), (64 << 10, 1 << 20));
    for line in [
        "init --chunk-size 32KiB",
        "init --chunk-size 2MiB",
        "init --chunk-size 100KiB",
        "init --chunk-size 1TiB",
        "init --segment-size 65MiB",
        "init --segment-size 1000KiB",
    ] {
        assert_refused(repository_sizes(&init(line)), line);
    }
}

#[test]
fn a_volume_is_named_by_flag_or_source() {
    assert_eq!(
        volume_name(None, Path::new("/images/db.img")).unwrap(),
        "db.img"
    );
    assert_eq!(
        volume_name(Some("ns/db_1-a"), Path::new("/x")).unwrap(),
        "ns/db_1-a"
    );
    for (flag, source) in [
        (None, "/"),
        (None, "/images/my disk"),
        (None, "/images/.hidden"),
        (Some(""), "/x"),
        (Some("-x"), "/x"),
        (Some("a@latest"), "/x"),
        (Some("größe"), "/x"),
    ] {
        assert_refused(
            volume_name(flag, Path::new(source)),
            &format!("{flag:?} {source}"),
        );
    }
    assert!(checked_name("volume", &"a".repeat(200)).is_ok());
    assert_refused(checked_name("volume", &"a".repeat(201)), "201 characters");
}

#[test]
fn tags_are_key_and_value() {
    let texts = |list: &[&str]| {
        list.iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    let parsed = tags(&texts(&["a=1", "b=x=y", "c="])).unwrap();
    assert_eq!(parsed.get("b").map(String::as_str), Some("x=y"));
    assert_eq!(parsed.get("c").map(String::as_str), Some(""));
    for list in [
        &["a"][..],
        &["=1"],
        &["a b=1"],
        &["a=1", "a=2"],
        &["a=\u{7}"],
    ] {
        assert_refused(tags(&texts(list)), &format!("{list:?}"));
    }
    let many: Vec<_> = (0..65).map(|n| format!("k{n}=v")).collect();
    assert_refused(tags(&many), "65 tags");
}

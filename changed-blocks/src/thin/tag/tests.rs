use super::*;

fn all(text: &str) -> Result<Vec<(Form, String)>, SourceError> {
    let mut tags = Tags::new(text.as_bytes());
    let mut seen = Vec::new();
    while tags.end().is_err() {
        let tag = tags.next()?;
        seen.push((tag.form, tag.name.to_owned()));
    }
    Ok(seen)
}

#[test]
fn elements_come_one_after_the_other() {
    let seen = all("<a>\n  <b_c x=\"1\"/>\n</a>\n").unwrap();
    let expected = [(Form::Open, "a"), (Form::Empty, "b_c"), (Form::Close, "a")];
    let expected = expected.map(|(form, name)| (form, name.to_owned()));
    assert_eq!(seen, expected);
}

#[test]
fn what_the_tools_never_write_is_a_fault() {
    let long = format!("<a x=\"{}\"/>", "1".repeat(2000));
    let cases = [
        "text",
        "<a",
        "<>",
        "</a/>",
        "<?xml version=\"1.0\"?>",
        "<!-- a -->",
        "<a/>text",
        "<A/>",
        "<a&b/>",
        "<a x=\"&lt;\"/>",
        "</a x=\"1\">",
        "<a\"/>",
        &long,
    ];
    for case in cases {
        assert!(all(case).is_err(), "{case}");
    }
    assert!(
        all("<a \u{e9}=\"1\"/>").is_ok(),
        "attributes are judged when they are asked for"
    );
}

#[test]
fn attributes_are_each_there_once_and_known() {
    let ask = |text: &str| {
        let mut tags = Tags::new(text.as_bytes());
        let tag = tags.next().unwrap();
        tag.numbers(["begin", "length"])
    };
    assert_eq!(
        ask("<a begin=\"1\" length=\"18446744073709551615\"/>").unwrap(),
        [1, u64::MAX]
    );
    assert_eq!(ask("<a length=\"2\"   begin=\"0\" />").unwrap(), [0, 2]);
    for bad in [
        "<a begin=\"1\"/>",
        "<a begin=\"1\" length=\"2\" more=\"3\"/>",
        "<a begin=\"1\" begin=\"1\" length=\"2\"/>",
        "<a begin=\"1\"length=\"2\"/>",
        "<a begin=\"-1\" length=\"2\"/>",
        "<a begin=\"+1\" length=\"2\"/>",
        "<a begin=\"\" length=\"2\"/>",
        "<a begin=\"1.0\" length=\"2\"/>",
        "<a begin=\"18446744073709551616\" length=\"2\"/>",
        "<a begin='1' length='2'/>",
        "<a begin=\"1\" length=\"2/>",
        "<a begin length=\"2\"/>",
    ] {
        assert!(ask(bad).is_err(), "{bad}");
    }
}

//! The proxy against the in-process server: what passes, and what each fault looks like to a client.

use super::*;
use crate::bucket::Bucket;
use crate::in_process::InProcess;
use crate::server::S3Server;

fn rig() -> (InProcess, Proxy, Bucket, Bucket) {
    let server = InProcess::start().unwrap();
    let proxy = Proxy::start(server.endpoint()).unwrap();
    let direct = server.endpoint().bucket("bucket").unwrap();
    let through = Bucket::new(proxy.endpoint(), "bucket");
    (server, proxy, direct, through)
}

#[test]
fn requests_pass_unchanged() {
    let (_server, proxy, direct, through) = rig();
    let body = vec![7; 300_000];
    through.put("a/b", &body).unwrap();
    assert_eq!(direct.get("a/b").unwrap(), body);
    assert_eq!(through.get("a/b").unwrap(), body);
    assert_eq!(through.list("a/").unwrap(), ["a/b"]);
    assert_eq!(proxy.requests()[0], "PUT /bucket/a/b");
    assert_eq!(proxy.broken(), 0);
}

#[test]
fn a_cut_request_leaves_no_object() {
    let (_server, proxy, direct, through) = rig();
    proxy.add(Rule::once("PUT", "cut", Fault::CutRequest(10_000)));
    through.put("cut", &[1; 100_000]).unwrap_err();
    assert!(direct.list("").unwrap().is_empty());
    through.put("cut", &[1; 100_000]).unwrap();
    assert_eq!(direct.list("").unwrap(), ["cut"]);
}

#[test]
fn a_lost_answer_leaves_the_object() {
    let (_server, proxy, direct, through) = rig();
    proxy.add(Rule::once("PUT", "", Fault::LostAnswer).after(1));
    through.put("first", b"1").unwrap();
    through.put("second", b"2").unwrap_err();
    assert_eq!(direct.list("").unwrap(), ["first", "second"]);
}

#[test]
fn a_storm_answers_503_and_heals() {
    let (_server, proxy, direct, through) = rig();
    proxy.add(Rule::every("", "", Fault::Status(503)));
    let error = through.put("name", &[0; 50_000]).unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(proxy.broken(), 1);
    proxy.heal();
    through.put("name", b"").unwrap();
    assert_eq!(direct.get("name").unwrap(), b"");
}

#[test]
fn an_answer_is_cut_at_the_byte() {
    let (_server, proxy, direct, through) = rig();
    direct.put("name", &[3; 50_000]).unwrap();
    proxy.add(Rule::once("GET", "name", Fault::CutAnswer(20_000)));
    through.get("name").unwrap_err();
    assert_eq!(through.get("name").unwrap().len(), 50_000);
}

#[test]
fn a_rate_holds_bodies_back() {
    let (_server, proxy, _direct, through) = rig();
    proxy.slow_down(200_000);
    let begin = std::time::Instant::now();
    through.put("name", &[0; 100_000]).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(400));
}

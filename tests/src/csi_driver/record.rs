//! The record of all calls: two lines each in `calls.jsonl`.
//!
//! Owns: writing and reading it. Must not: contain a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::describe::Subject;

/// The file in the state folder.
pub const FILE: &str = "calls.jsonl";
/// Two backups make as many.
const SHOWN: usize = 40;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Begin {
        seq: u64,
        at_us: u64,
        call: String,
        #[serde(flatten)]
        subject: Box<Subject>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        matched: Vec<String>,
    },
    End {
        seq: u64,
        at_us: u64,
        code: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fault: Option<String>,
    },
}

/// A call, from begin to end.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its number, ascending with the begin.
    pub seq: u64,
    /// Its name, e.g. `CreateVolume`.
    pub call: String,
    /// What it was about.
    pub subject: Subject,
    /// When it began, in microseconds of the driver's life: no clock that anybody sets. One that starts again goes on from the last line.
    pub begin_us: u64,
    /// When it ended; none while it is at work, or if the driver ended first.
    pub end_us: Option<u64>,
    /// The gRPC code of the answer, e.g. `Ok` or `Aborted`.
    pub code: Option<String>,
    /// The order that hit it.
    pub fault: Option<String>,
}

impl Call {
    /// Whether both were at work at one time, as far as the record tells.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let ends_before =
            |one: &Self, two: &Self| one.end_us.is_some_and(|end| end <= two.begin_us);
        !ends_before(self, other) && !ends_before(other, self)
    }
}

/// One line, without what is empty.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.seq, self.call)?;
        for word in self.subject.words().filter(|word| !word.is_empty()) {
            write!(f, " {word}")?;
        }
        write!(f, " at {}", self.begin_us)?;
        match (self.end_us, &self.code) {
            (Some(end), Some(code)) => {
                write!(f, ": {code} after {} us", end.saturating_sub(self.begin_us))?;
            }
            _ => f.write_str(": no answer yet")?,
        }
        match &self.fault {
            Some(order) => write!(f, ", hit by {order}"),
            None => Ok(()),
        }
    }
}

/// The last calls, one line each, for the error of a test: all of them would be more than a terminal takes.
#[must_use]
pub fn last_lines(calls: &[Call]) -> String {
    let first = calls.len().saturating_sub(SHOWN);
    let lines: Vec<String> = calls[first..].iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Calls of one volume or snapshot that were at work at one time: what a caller must never do. Streams of metadata do not count,
/// nor calls of which the driver never came to an end.
#[must_use]
pub fn concurrent(calls: &[Call]) -> Vec<(Call, Call)> {
    let mut found = Vec::new();
    for (place, one) in calls.iter().enumerate() {
        for two in &calls[place + 1..] {
            let both_ended = one.end_us.is_some() && two.end_us.is_some();
            let (keys, others) = (one.subject.keys(&one.call), two.subject.keys(&two.call));
            if both_ended && one.overlaps(two) && keys.iter().any(|key| others.contains(key)) {
                found.push((one.clone(), two.clone()));
            }
        }
    }
    found
}

/// Reads the record of a state folder; none yet is no call. A last line that is cut off is left out.
///
/// # Errors
/// Where a line cannot be understood.
pub fn read(state: &Path) -> Result<Vec<Call>> {
    let mut calls: BTreeMap<u64, Call> = BTreeMap::new();
    for line in lines(state)? {
        match line {
            Line::Begin {
                seq,
                at_us,
                call,
                subject,
                ..
            } => {
                let call = Call {
                    seq,
                    call,
                    subject: *subject,
                    begin_us: at_us,
                    end_us: None,
                    code: None,
                    fault: None,
                };
                calls.insert(seq, call);
            }
            Line::End {
                seq,
                at_us,
                code,
                fault,
            } => {
                let call = calls.get_mut(&seq).context("an end without a begin")?;
                (call.end_us, call.code, call.fault) = (Some(at_us), Some(code), fault);
            }
        }
    }
    Ok(calls.into_values().collect())
}

fn lines(state: &Path) -> Result<Vec<Line>> {
    let text = match std::fs::read_to_string(state.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
        .collect()
}

/// The record being written.
#[derive(Debug)]
pub(super) struct Record {
    /// File and number of the next call.
    file: Mutex<(File, u64)>,
    opened: Instant,
    /// The time of the last line before.
    before_us: u64,
}

impl Record {
    /// Goes on with the record of a folder; gives the counts of matched orders.
    pub(super) fn open(state: &Path) -> Result<(Self, BTreeMap<String, u32>)> {
        let (mut matches, mut next, mut before_us) = (BTreeMap::new(), 0, 0);
        for line in lines(state)? {
            let (Line::Begin { at_us, .. } | Line::End { at_us, .. }) = line;
            before_us = at_us.max(before_us);
            if let Line::Begin { seq, matched, .. } = line {
                next = next.max(seq + 1);
                for id in matched {
                    *matches.entry(id).or_default() += 1;
                }
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(state.join(FILE))?;
        let record = Self {
            file: Mutex::new((file, next)),
            opened: Instant::now(),
            before_us,
        };
        Ok((record, matches))
    }

    /// A call begins; gives its number.
    pub(super) fn begin(&self, call: &str, subject: &Subject, matched: &[String]) -> Result<u64> {
        self.write(|seq, at_us| Line::Begin {
            seq,
            at_us,
            call: call.to_owned(),
            subject: Box::new(subject.clone()),
            matched: matched.to_vec(),
        })
    }

    /// A call ends.
    pub(super) fn end(&self, seq: u64, code: &str, fault: Option<&str>) -> Result<()> {
        let (code, fault) = (code.to_owned(), fault.map(str::to_owned));
        self.write(|_, at_us| Line::End {
            seq,
            at_us,
            code,
            fault,
        })
        .map(drop)
    }

    /// One write a line, so that a killed driver leaves whole lines.
    fn write(&self, line: impl FnOnce(u64, u64) -> Line) -> Result<u64> {
        let mut guard = self
            .file
            .lock()
            .map_err(|_| anyhow!("a call panicked while it was recorded"))?;
        let (file, next) = &mut *guard;
        let seq = *next;
        let at_us = self.before_us + u64::try_from(self.opened.elapsed().as_micros())?;
        let line = line(seq, at_us);
        if matches!(line, Line::Begin { .. }) {
            *next += 1;
        }
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        file.write_all(&text)?;
        Ok(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(seq: u64, name: &str, volume: &str, begin_us: u64, end_us: Option<u64>) -> Call {
        let subject = Subject {
            volume: volume.to_owned(),
            ..Subject::default()
        };
        Call {
            seq,
            call: name.to_owned(),
            subject,
            begin_us,
            end_us,
            code: None,
            fault: None,
        }
    }

    #[test]
    fn sees_two_calls_for_one_volume_at_one_time() {
        let one = call(0, "NodeStageVolume", "v", 0, Some(10));
        let later = call(1, "NodePublishVolume", "v", 10, Some(20));
        let other = call(2, "NodeStageVolume", "w", 5, Some(30));
        assert!(concurrent(&[one.clone(), later.clone(), other.clone()]).is_empty());
        let early = call(3, "DeleteVolume", "v", 9, Some(12));
        assert_eq!(concurrent(&[one, later, other, early]).len(), 2);
    }

    #[test]
    fn goes_on_after_a_restart_and_forgets_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let (record, _) = Record::open(folder.path()).unwrap();
        let seq = record
            .begin("Probe", &Subject::default(), &["x".to_owned()])
            .unwrap();
        record.end(seq, "Ok", Some("x")).unwrap();
        drop(record);
        let ended = read(folder.path()).unwrap()[0].end_us.unwrap();
        let (record, matched) = Record::open(folder.path()).unwrap();
        assert_eq!(matched.get("x"), Some(&1));
        assert_eq!(record.begin("Probe", &Subject::default(), &[]).unwrap(), 1);
        OpenOptions::new()
            .append(true)
            .open(folder.path().join(FILE))
            .unwrap()
            .write_all(b"{\"ev")
            .unwrap();
        let calls = read(folder.path()).unwrap();
        assert_eq!(calls.len(), 2);
        assert!(calls[0].begin_us <= ended && ended <= calls[1].begin_us);
        let text = last_lines(&calls);
        assert!(
            text.contains("Probe") && text.contains("Ok after"),
            "{text}"
        );
        assert!(text.contains("hit by x") && text.ends_with("no answer yet"));
        assert_eq!(
            (calls[0].code.as_deref(), calls[1].code.as_deref()),
            (Some("Ok"), None)
        );
    }
}

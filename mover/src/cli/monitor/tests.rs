//! Progress lines, the stop message, and when a bar is shown.

use super::*;
use crate::cli::output::tests::captured;
use crate::pipeline::progress::StopFlag;

fn watcher(output: Output, stop: &StopFlag) -> Watcher {
    let progress = Progress::default();
    Progress::add(&progress.total, 400);
    Progress::add(&progress.done, 100);
    Progress::add(&progress.stored, 7);
    Watcher {
        output: Arc::new(output),
        progress: Arc::new(progress),
        signals: Signals::unregistered(stop.clone()),
        watched: Watched {
            command: "backup",
            label: "db".to_owned(),
            on_stop: "stopping",
        },
        pace: Pace::default(),
        stop_told: false,
    }
}

#[test]
fn a_bar_needs_a_terminal_that_nobody_silenced() {
    let mode = OutputMode::default();
    assert!(shows_bar(mode, true));
    assert!(!shows_bar(mode, false));
    assert!(!shows_bar(
        OutputMode {
            quiet: true,
            ..mode
        },
        true
    ));
    assert!(!shows_bar(OutputMode { json: true, ..mode }, true));
}

#[test]
fn at_most_two_progress_lines_a_second() {
    let (output, out, _) = captured(OutputMode {
        json: true,
        ..OutputMode::default()
    });
    let mut watcher = watcher(output, &StopFlag::default());
    for tick in 1..=20 {
        watcher.tick(TICK * u32::try_from(tick).unwrap(), tick);
    }
    let lines: Vec<Value> = out
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["type"], "progress");
    assert_eq!(lines[0]["command"], "backup");
    assert_eq!(lines[0]["total_bytes"], 400);
    assert_eq!(lines[0]["done_bytes"], 100);
    assert_eq!(lines[0]["stored_bytes"], 7);
    assert!(lines[0]["seconds_left"].is_u64());
}

#[test]
fn a_stop_is_told_once() {
    let (output, _, err) = captured(OutputMode::default());
    let stop = StopFlag::default();
    let mut watcher = watcher(output, &stop);
    watcher.tick(TICK, 1);
    assert_eq!(err.text(), "");
    stop.stop();
    watcher.tick(TICK * 2, 2);
    watcher.tick(TICK * 3, 3);
    assert_eq!(err.text(), "stopping; a second signal exits at once\n");
}

#[test]
fn the_thread_ends_with_its_monitor() {
    let (output, _, err) = captured(OutputMode {
        quiet: true,
        ..OutputMode::default()
    });
    let stop = StopFlag::default();
    stop.stop();
    let monitor = Monitor::start(
        &Arc::new(output),
        &Arc::new(Progress::default()),
        &Signals::unregistered(stop),
        Watched {
            command: "backup",
            label: String::new(),
            on_stop: "stopping",
        },
    )
    .unwrap();
    drop(monitor);
    // The last tick runs after the drop began, so the stop is told even to a run shorter than a tick.
    assert_eq!(err.text(), "stopping; a second signal exits at once\n");
}

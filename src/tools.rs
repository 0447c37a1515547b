//! What the program does besides serving: `tallyman check` and `tallyman backup`. Results go to
//! standard output, faults to standard error, and a bar to a terminal.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::backup::backup;
use crate::check::{Counts, Failure, Step, check};
use crate::clock::Clock;

/// `tallyman check DIR`: exit code 0 when nothing is wrong.
pub fn run_check(folder: &Path) -> ExitCode {
    let mut bar = Bar::new();
    let result = check(folder, &mut |step, done, total| bar.show(step, done, total));
    bar.end();
    report(result, |counts| {
        format!("{} is whole\n{}", folder.display(), text(counts))
    })
}

/// `tallyman backup DIR TARGET`: exit code 0 when the copy is complete and checked.
pub fn run_backup(folder: &Path, target: &Path) -> ExitCode {
    let mut bar = Bar::new();
    let now_ms = Clock::start(0).now_ms();
    let result = backup(folder, target, now_ms, 0, &mut |step, done, total| {
        bar.show(step, done, total);
    });
    bar.end();
    report(result, |counts| {
        format!(
            "{} is complete and whole\n{}",
            target.display(),
            text(counts)
        )
    })
}

fn report(result: Result<Counts, Failure>, text: impl Fn(&Counts) -> String) -> ExitCode {
    // Nobody is left to be told when printing fails.
    match result {
        Ok(counts) => {
            let _ = writeln!(std::io::stdout(), "{}", text(&counts));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn text(counts: &Counts) -> String {
    let Counts {
        tables,
        table_bytes,
        rows,
        stored_keys,
        fields,
        deadlines,
        dead_rows,
        store_lsn,
        log_records,
        log_batches,
        log_bytes,
        last_lsn,
        unacknowledged_records,
        keys,
    } = counts;
    format!(
        "keys: {keys}\n\
         store: {rows} rows ({stored_keys} keys, {fields} fields, {deadlines} deadlines, \
         {dead_rows} dead) in {tables} tables of {table_bytes} bytes, up to lsn {store_lsn}\n\
         log: {log_batches} batches in {log_records} records of {log_bytes} bytes, up to lsn \
         {last_lsn}; {unacknowledged_records} never acknowledged"
    )
}

/// A bar on standard error, if that is a terminal.
struct Bar {
    bar: ProgressBar,
    step: Option<Step>,
}

impl Bar {
    fn new() -> Bar {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.enable_steady_tick(Duration::from_millis(200));
        Bar { bar, step: None }
    }

    fn show(&mut self, step: Step, done: u64, total: u64) {
        if self.step != Some(step) {
            self.step = Some(step);
            let (what, unit) = match step {
                Step::Copy => ("copying", "{spinner}"),
                Step::Tables => ("tables ", "{bytes}/{total_bytes} {bytes_per_sec}"),
                Step::Log => ("log    ", "{bytes}/{total_bytes} {bytes_per_sec}"),
                Step::Rows => ("rows   ", "slot {pos}/{len}"),
            };
            let template = format!("{what} [{{bar:40}}] {unit} {{eta}}");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                self.bar.set_style(style);
            }
            self.bar.reset();
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

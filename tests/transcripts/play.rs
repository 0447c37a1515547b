//! Plays the recorded transcripts on one shard in memory: the same files that `tests/compare`
//! plays on the whole server, without a socket. Belongs to `src/command`, which includes it.
//!
//! The format of the files is described in `tests/harness/transcript.py`. Left out here are steps
//! that need a session or the whole server, and replies given as a pattern; commands that are not
//! built yet are passed over, and counted.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::transcript::Transcript;
use super::{Run, table};

const DIFFERENCES_SHOWN_MAX: usize = 60;

/// A command of a file with the replies that are expected, by tag.
#[derive(Default)]
struct Step {
    number: usize,
    line: String,
    unordered: bool,
    pattern: bool,
    plain: Vec<String>,
    resp3: Vec<String>,
    own: Vec<String>,
    own_resp3: Vec<String>,
}

impl Step {
    fn expected(&self, resp3: bool) -> String {
        let in_order: &[&Vec<String>] = if resp3 {
            &[&self.own_resp3, &self.own, &self.resp3, &self.plain]
        } else {
            &[&self.own, &self.plain]
        };
        let found = in_order.iter().find(|lines| !lines.is_empty());
        found.map(|lines| lines.join("\n")).unwrap_or_default()
    }

    fn fits(&self, resp3: bool, reply: &str) -> bool {
        let expected = self.expected(resp3);
        if self.unordered {
            return elements(&expected) == elements(reply);
        }
        // Where redis-cli breaks a line is not compared.
        expected.split_whitespace().eq(reply.split_whitespace())
    }

    /// True when one shard cannot run it: a session's command, or one about the whole keyspace.
    fn is_outside(&self) -> bool {
        let name = self.line.split(' ').next().unwrap_or_default();
        let row = table().named(name.as_bytes());
        row.is_some_and(|id| !matches!(table().row(id).run, Run::Keys(_)))
    }

    /// The database that a `SELECT` chooses.
    fn selects(&self) -> Option<usize> {
        let number = self.line.strip_prefix("SELECT ")?.parse().ok()?;
        (self.plain == ["OK"]).then_some(number)
    }
}

/// The lines of a printed reply without their numbers, sorted.
fn elements(reply: &str) -> Vec<&str> {
    let numbering = |c: char| c.is_ascii_digit() || " )#~".contains(c);
    let mut lines: Vec<&str> = reply
        .lines()
        .map(|line| line.trim_start_matches(numbering))
        .collect();
    lines.sort_unstable();
    lines
}

/// What a line of a file is.
enum Line {
    Command(Step),
    Flush,
    Sleep(u64),
}

fn parse(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let command = line.strip_prefix("> ").or(line.strip_prefix(">u "));
        if let Some(command) = command {
            lines.push(Line::Command(Step {
                number: index + 1,
                line: command.to_owned(),
                unordered: line.starts_with(">u"),
                ..Step::default()
            }));
        } else if line == "* flush" {
            lines.push(Line::Flush);
        } else if let Some(ms) = line.strip_prefix("* sleep ") {
            lines.push(Line::Sleep(ms.parse().expect("milliseconds")));
        } else if let Some(Line::Command(step)) = lines.last_mut()
            && !line.starts_with("# ")
            && !line.is_empty()
        {
            add_reply(step, line);
        }
    }
    lines
}

fn add_reply(step: &mut Step, line: &str) {
    let tagged = |tag: &str| {
        line.strip_prefix(tag)
            .map(|rest| rest.strip_prefix(' ').unwrap_or(rest))
    };
    if let Some(rest) = tagged("3|") {
        step.resp3.push(rest.to_owned());
    } else if let Some(rest) = tagged("T3|") {
        step.own_resp3.push(rest.to_owned());
    } else if let Some(rest) = tagged("T|") {
        step.own.push(rest.to_owned());
    } else if line.starts_with("~|") {
        step.pattern = true;
    } else if !line.starts_with("why|") {
        step.plain.push(line.to_owned());
    }
}

/// Plays a file; returns how many replies were compared and the differences.
fn play(path: &Path, resp3: bool, recovering: bool) -> (usize, String) {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = || {
        let mut transcript = Transcript::new();
        if resp3 {
            transcript = transcript.resp3();
        }
        if recovering {
            transcript = transcript.recovering();
        }
        transcript
    };
    let mut transcript = fresh();
    let (mut compared, mut differences) = (0, String::new());
    for line in parse(&text) {
        let step = match line {
            Line::Flush => {
                transcript = fresh();
                continue;
            }
            Line::Sleep(ms) => {
                transcript.advance_ms(ms);
                continue;
            }
            Line::Command(step) => step,
        };
        if let Some(number) = step.selects() {
            transcript.select(number);
        }
        if step.is_outside() {
            continue;
        }
        let reply = transcript.run(&step.line);
        if step.pattern || reply.starts_with("(error) ERR unknown command") {
            continue;
        }
        compared += 1;
        if !step.fits(resp3, &reply) {
            let protocol = if resp3 { 3 } else { 2 };
            let expected = step.expected(resp3);
            writeln!(
                differences,
                "{name}:{} RESP{protocol}\n  > {}\n  expected: {expected}\n  answered: {reply}",
                step.number, step.line
            )
            .expect("a string takes everything");
        }
    }
    (compared, differences)
}

fn play_all(names: &[&str]) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut all = String::new();
    for name in names {
        for resp3 in [false, true] {
            for recovering in [false, true] {
                let path = folder.join(format!("{name}.txt"));
                let (compared, differences) = play(&path, resp3, recovering);
                assert!(compared > 0, "{name}: nothing was compared");
                // What recovery changes shows only where the plain run is right.
                if all.is_empty() || !recovering {
                    all.push_str(&differences);
                }
            }
        }
    }
    let shown: Vec<&str> = all.lines().take(DIFFERENCES_SHOWN_MAX * 4).collect();
    assert!(all.is_empty(), "\n{}", shown.join("\n"));
}

#[test]
fn strings_answer_as_recorded() {
    play_all(&[
        "strings_set",
        "strings_parts",
        "strings_bits",
        "strings_bitfield",
    ]);
}

#[test]
fn counters_answer_as_recorded() {
    play_all(&["counters"]);
}

#[test]
fn later_additions_answer_as_specified() {
    play_all(&["strings_later", "counters_later"]);
}

#[test]
fn hashes_answer_as_recorded() {
    play_all(&["hashes", "hashes_later"]);
}

#[test]
fn keys_answer_as_recorded() {
    play_all(&["keys"]);
}

#[test]
fn states_answer_as_specified() {
    play_all(&["states"]);
}

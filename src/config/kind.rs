//! What a row of the settings table consists of, and how the text of a value is read and printed.
//!
//! Always true: `set` leaves the settings as they were when it answers with an error, and what
//! `text` prints, `set` accepts.

use std::{fmt::Display, str::FromStr};

use super::settings::{OutputBufferLimit, OutputBufferLimits, Settings};

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// As in CONFIG GET, in the file, and after `--` on the command line.
    pub name: &'static str,
    pub group: Group,
    /// The value's text when nobody says otherwise.
    pub default: &'static str,
    pub change: Change,
    pub kind: Kind,
    /// What it does, with its unit: a sentence.
    pub doc: &'static str,
}

/// When a setting can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// By CONFIG SET, while the server runs.
    Live,
    /// By the command line and the file alone.
    AtStart,
    /// Never: a fact that clients ask for. It may be repeated, for the sake of Redis's scripts; not
    /// shown in `--help`, and never written to the file.
    Never,
}

/// The heading under which a setting stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Network,
    Access,
    Data,
    Limits,
    Memory,
    Observing,
    Compatibility,
}

impl Group {
    pub const ALL: [Group; 7] = [
        Group::Network,
        Group::Access,
        Group::Data,
        Group::Limits,
        Group::Memory,
        Group::Observing,
        Group::Compatibility,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Network => "Network",
            Group::Access => "Access",
            Group::Data => "Data and durability",
            Group::Limits => "Limits",
            Group::Memory => "Memory",
            Group::Observing => "Logging and measuring",
            Group::Compatibility => "Facts that Redis clients ask for",
        }
    }
}

/// The place of a value in the settings.
pub type At<T> = fn(&mut Settings) -> &mut T;

/// The type of a setting: how its text is read and printed, and what is allowed.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Port(At<u16>),
    /// A whole number from `min` to `max`, both included.
    Integer {
        min: usize,
        max: usize,
        at: At<usize>,
    },
    /// A whole number that may be negative.
    Signed {
        min: i64,
        max: i64,
        at: At<i64>,
    },
    /// A number of bytes, with Redis's suffixes.
    Bytes {
        min: usize,
        max: usize,
        at: At<usize>,
    },
    /// A file mode in octal digits.
    Mode(At<u32>),
    YesNo(At<bool>),
    Text {
        allowed: &'static str,
        check: fn(&str) -> Result<(), String>,
        at: At<String>,
    },
    /// One word of several; both functions speak of its index.
    Choice {
        words: &'static [&'static str],
        read: fn(&Settings) -> usize,
        write: fn(&mut Settings, usize),
    },
    OutputBuffers(At<OutputBufferLimits>),
    /// Always the row's default.
    Fact(&'static str),
}

const NOT_A_NUMBER: &str = "argument couldn't be parsed into an integer";

impl Kind {
    /// Writes the value that `text` stands for.
    ///
    /// # Errors
    /// What is wrong with the text, in Redis's words where it has some.
    pub fn set(&self, settings: &mut Settings, text: &str) -> Result<(), String> {
        match *self {
            Kind::Port(at) => *at(settings) = ranged(text, 0, u16::MAX)?,
            Kind::Integer { min, max, at } => *at(settings) = ranged(text, min, max)?,
            Kind::Signed { min, max, at } => *at(settings) = ranged(text, min, max)?,
            Kind::Bytes { min, max, at } => {
                let bytes = bytes_of(text).ok_or("argument must be a memory value")?;
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                *at(settings) = within(bytes, min, max)?;
            }
            Kind::Mode(at) => {
                let mode = u32::from_str_radix(text, 8).map_err(|_| NOT_A_NUMBER)?;
                if mode > 0o777 {
                    return Err("argument must be between 0 and 777 inclusive".to_owned());
                }
                *at(settings) = mode;
            }
            Kind::YesNo(at) => {
                *at(settings) = match text.to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err("argument must be 'yes' or 'no'".to_owned()),
                }
            }
            Kind::Text { check, at, .. } => {
                check(text)?;
                *at(settings) = text.to_owned();
            }
            Kind::Choice { words, write, .. } => write(settings, choice(words, text)?),
            Kind::OutputBuffers(at) => {
                let changed = output_buffers(*at(settings), text)?;
                *at(settings) = changed;
            }
            Kind::Fact(value) if value.eq_ignore_ascii_case(text) => {}
            Kind::Fact(value) => {
                return Err(format!(
                    "argument must be '{value}': this server has no other way"
                ));
            }
        }
        Ok(())
    }

    /// The value as CONFIG GET prints it.
    pub fn text(&self, settings: &Settings) -> String {
        // The places are functions to a mutable place; reading goes through a copy.
        let mut settings = settings.clone();
        match *self {
            Kind::Port(at) => at(&mut settings).to_string(),
            Kind::Integer { at, .. } | Kind::Bytes { at, .. } => at(&mut settings).to_string(),
            Kind::Signed { at, .. } => at(&mut settings).to_string(),
            Kind::Mode(at) => format!("{:o}", at(&mut settings)),
            Kind::YesNo(at) => if *at(&mut settings) { "yes" } else { "no" }.to_owned(),
            Kind::Text { at, .. } => at(&mut settings).clone(),
            Kind::Choice { words, read, .. } => words[read(&settings)].to_owned(),
            Kind::OutputBuffers(at) => output_buffers_text(at(&mut settings)),
            Kind::Fact(value) => value.to_owned(),
        }
    }

    /// What may be written, for people.
    pub fn allowed(&self) -> String {
        match *self {
            Kind::Port(_) => "0 to 65535".to_owned(),
            Kind::Integer { min, max, .. } => format!("{min} to {max}"),
            Kind::Signed { min, max, .. } => format!("{min} to {max}"),
            Kind::Bytes { min, max, .. } => {
                format!("{} to {}", human_bytes(min), human_bytes(max))
            }
            Kind::Mode(_) => "an octal mode, 0 to 777".to_owned(),
            Kind::YesNo(_) => "yes, no".to_owned(),
            Kind::Text { allowed, .. } => allowed.to_owned(),
            Kind::Choice { words, .. } => words.join(", "),
            Kind::OutputBuffers(_) => {
                "class hard soft seconds, for normal, replica, pubsub".to_owned()
            }
            Kind::Fact("") => "only empty".to_owned(),
            Kind::Fact(value) => format!("only {value}"),
        }
    }

    /// The placeholder in `--help`.
    pub(super) fn placeholder(&self) -> &'static str {
        match self {
            Kind::Port(_) | Kind::Integer { .. } | Kind::Signed { .. } => "N",
            Kind::Bytes { .. } => "BYTES",
            Kind::Mode(_) => "MODE",
            Kind::YesNo(_) => "yes|no",
            Kind::Text { .. } | Kind::Fact(_) => "TEXT",
            Kind::Choice { .. } => "WORD",
            Kind::OutputBuffers(_) => "LIMITS",
        }
    }
}

fn ranged<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    text.parse::<i128>().map_err(|_| NOT_A_NUMBER)?;
    // What is a number, but none of this type, is outside of every range of it.
    match text.parse::<T>() {
        Ok(number) if number >= min && number <= max => Ok(number),
        _ => Err(format!(
            "argument must be between {min} and {max} inclusive"
        )),
    }
}

fn within(number: usize, min: usize, max: usize) -> Result<usize, String> {
    if (min..=max).contains(&number) {
        return Ok(number);
    }
    Err(format!(
        "argument must be between {min} and {max} inclusive"
    ))
}

fn choice(words: &[&str], text: &str) -> Result<usize, String> {
    words
        .iter()
        .position(|word| word.eq_ignore_ascii_case(text))
        .ok_or_else(|| {
            format!(
                "argument(s) must be one of the following: {}",
                words.join(", ")
            )
        })
}

/// Reads a number of bytes as Redis does: `k`, `m`, `g` are powers of 1,000, and `kb`, `mb`, `gb`
/// of 1,024.
pub(super) fn bytes_of(text: &str) -> Option<u64> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let unit: u64 = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A number of bytes for people: with the largest suffix that leaves it whole.
pub(super) fn human_bytes(bytes: usize) -> String {
    for (suffix, shift) in [("gb", 30), ("mb", 20), ("kb", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{suffix}", bytes >> shift);
        }
    }
    bytes.to_string()
}

/// Reads Redis's `class hard soft seconds …`; classes that are not named stay as they were.
fn output_buffers(before: OutputBufferLimits, text: &str) -> Result<OutputBufferLimits, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() || !words.len().is_multiple_of(4) {
        return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
    }
    let mut limits = before;
    for group in words.chunks_exact(4) {
        let limit = match group[0].to_ascii_lowercase().as_str() {
            "normal" => &mut limits.normal,
            "slave" | "replica" => &mut limits.replica,
            "pubsub" => &mut limits.pubsub,
            _ => {
                let text = "Invalid client class specified in buffer limit configuration.";
                return Err(text.to_owned());
            }
        };
        let numbers = (
            bytes_of(group[1]),
            bytes_of(group[2]),
            group[3].parse().ok(),
        );
        let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) = numbers else {
            let text = "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
            return Err(text.to_owned());
        };
        *limit = OutputBufferLimit {
            hard_bytes,
            soft_bytes,
            soft_seconds,
        };
    }
    Ok(limits)
}

/// The classes under the names that Redis prints.
fn output_buffers_text(limits: &OutputBufferLimits) -> String {
    let one = |name: &str, limit: &OutputBufferLimit| {
        format!(
            "{name} {} {} {}",
            limit.hard_bytes, limit.soft_bytes, limit.soft_seconds
        )
    };
    let normal = one("normal", &limits.normal);
    let replica = one("slave", &limits.replica);
    let pubsub = one("pubsub", &limits.pubsub);
    format!("{normal} {replica} {pubsub}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_rediss_suffixes() {
        for (text, bytes) in [
            ("0", 0),
            ("1024", 1024),
            ("7b", 7),
            ("1k", 1_000),
            ("1KB", 1_024),
            ("2m", 2_000_000),
            ("2Mb", 2 << 20),
            ("3g", 3_000_000_000),
            ("3gB", 3 << 30),
        ] {
            assert_eq!(bytes_of(text), Some(bytes), "{text}");
        }
        for text in [
            "",
            "kb",
            "-1",
            "1 kb",
            "1.5gb",
            "1tb",
            "99999999999999999999",
            "99999999999gb",
        ] {
            assert_eq!(bytes_of(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_for_people_read_back() {
        for bytes in [
            0,
            1,
            1_000,
            1_024,
            3 << 20,
            512 << 20,
            1 << 30,
            (1 << 30) + 1,
        ] {
            assert_eq!(bytes_of(&human_bytes(bytes)), Some(bytes as u64));
        }
        assert_eq!(human_bytes(512 << 20), "512mb");
    }

    #[test]
    fn output_buffer_limits_change_the_named_classes_alone() {
        let before = Settings::default().client_output_buffer;
        let after = output_buffers(before, "normal 1mb 512kb 10").unwrap();
        let normal = OutputBufferLimit {
            hard_bytes: 1 << 20,
            soft_bytes: 512 << 10,
            soft_seconds: 10,
        };
        assert_eq!(after, OutputBufferLimits { normal, ..before });
        for wrong in [
            "",
            "normal",
            "normal 0 0",
            "master 0 0 0",
            "normal x 0 0",
            "pubsub 0 0 -1",
        ] {
            assert!(output_buffers(before, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_number_out_of_range_says_the_range() {
        let text = "argument must be between 1 and 9 inclusive";
        for wrong in ["0", "10", "-1", "9999999999999999999999"] {
            assert_eq!(ranged::<i64>(wrong, 1, 9), Err(text.to_owned()));
        }
        for wrong in ["", "x", "1.0", "1 "] {
            assert_eq!(ranged::<i64>(wrong, 1, 9), Err(NOT_A_NUMBER.to_owned()));
        }
    }
}

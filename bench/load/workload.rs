//! What clients send: templates, made ready so that a request is a few copies.

use crate::reply;

/// Shown below the options.
pub const HELP: &str = "\
A template is words with spaces between; ` | ` goes between commands that are sent together, ` => `
before commands that are sent when the reply before is there. In words stand:
  {rand}    a random number below --keys, 12 digits, another one each time
  {unit}    a random number that is the same in the whole unit
  {seq}     a number that no other unit has
  {value}   --value bytes
  {0} {1}.. behind =>: an element of the reply before (of its last command)
  {{ and }} braces, for hash tags
  {sha}     the digest of the script of a named workload
`?word` behind => ends the unit early if element 0 of the reply before is not the word.";

/// Named workloads. `NAME-lua` is what another server runs in place of `NAME`: a script.
pub const NAMED: &[(&str, &str)] = &[
    ("ping", "PING"),
    ("get", "GET key:{rand}"),
    ("set", "SET key:{rand} {value}"),
    ("incr", "INCR counter:{rand}"),
    ("incr-hot", "INCR hot"),
    (
        "block-one-key",
        "MULTI | INCR counter:{unit} | INCR counter:{unit} | INCR counter:{unit} | \
      INCR counter:{unit} | INCR counter:{unit} | EXEC",
    ),
    (
        "block-one-shard",
        "MULTI | INCR {{t{unit}}}:0 | INCR {{t{unit}}}:1 | INCR {{t{unit}}}:2 | \
      INCR {{t{unit}}}:3 | INCR {{t{unit}}}:4 | EXEC",
    ),
    (
        "block-any-shard",
        "MULTI | INCR counter:{rand} | INCR counter:{rand} | \
      INCR counter:{rand} | INCR counter:{rand} | INCR counter:{rand} | EXEC",
    ),
    (
        "mset-10",
        "MSET key:{rand} {value} key:{rand} {value} key:{rand} {value} key:{rand} {value} \
      key:{rand} {value} key:{rand} {value} key:{rand} {value} key:{rand} {value} \
      key:{rand} {value} key:{rand} {value}",
    ),
    (
        "mset-10-one-slot",
        "MSET {{a}}0:{rand} {value} {{a}}1:{rand} {value} {{a}}2:{rand} {value} \
      {{a}}3:{rand} {value} {{a}}4:{rand} {value} {{a}}5:{rand} {value} {{a}}6:{rand} {value} \
      {{a}}7:{rand} {value} {{a}}8:{rand} {value} {{a}}9:{rand} {value}",
    ),
    (
        "mget-10",
        "MGET key:{rand} key:{rand} key:{rand} key:{rand} key:{rand} key:{rand} \
      key:{rand} key:{rand} key:{rand} key:{rand}",
    ),
    (
        "setifidle",
        "SETIFIDLE state:{unit} busy PX 60000 => ?STARTED SETIDLE state:{unit} {1}",
    ),
    (
        "setifidle-lua",
        "EVALSHA {sha:setifidle} 1 state:{unit} busy 60000 => ?STARTED \
      EVALSHA {sha:setidle} 1 state:{unit} {1}",
    ),
    (
        "reserve",
        "RESERVE account:{unit} h{seq} 5 EX 60 KEEP 1000 => ?1 \
      SETTLE account:{unit} h{seq} {1} 3",
    ),
    (
        "reserve-lua",
        "EVALSHA {sha:reserve} 1 account:{unit} h{seq} 5 60000 => ?1 \
      EVALSHA {sha:settle} 1 account:{unit} h{seq} {1} 3",
    ),
    ("once", "ONCE once:{unit} e{seq} EX 60 INCR once:{unit}"),
    ("once-lua", "EVALSHA {sha:once} 1 once:{unit} e{seq} 60"),
    // Below the limit all the time: a refusal would be a read.
    ("throttle", "CL.THROTTLE rate:{rand} 999999 1000000 60"),
    (
        "throttle-lua",
        "EVALSHA {sha:throttle} 1 rate:{rand} 999999 1000000 60",
    ),
    ("hincrby", "HINCRBY h:{rand} n 1"),
    ("hincrby-lua", "EVALSHA {sha:hincrby} 1 h:{rand} n 1"),
    ("hincrby-big", "HINCRBY big f{rand} 1"),
    ("hincrby-big-lua", "EVALSHA {sha:hincrby} 1 big f{rand} 1"),
];

/// Scripts, by the name behind `sha:`.
pub const SCRIPTS: &[(&str, &str)] = &[
    ("setifidle", include_str!("../lua/setifidle.lua")),
    ("setidle", include_str!("../lua/setidle.lua")),
    ("reserve", include_str!("../lua/reserve.lua")),
    ("settle", include_str!("../lua/settle.lua")),
    ("once", include_str!("../lua/once.lua")),
    ("throttle", include_str!("../lua/throttle.lua")),
    ("hincrby", include_str!("../lua/hincrby.lua")),
];

/// A template that was read.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name, or the template itself.
    pub name: String,
    steps: Vec<TextStep>,
}

/// Commands that are sent together.
#[derive(Clone, Debug)]
struct TextStep {
    /// What element 0 of the reply before has to be.
    wanted: Option<String>,
    /// Words of each command, as pieces.
    commands: Vec<Vec<Vec<Piece>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Rand,
    Unit,
    Seq,
    Value,
    Element(usize),
    Sha(String),
}

/// Digits of a number in a request.
const DIGITS: usize = 12;
const DIGITS_END: u64 = 1_000_000_000_000;

impl Workload {
    /// The workload of that name, or of that template.
    ///
    /// # Errors
    /// It is neither.
    pub fn named(text: &str) -> Result<Workload, String> {
        let named = NAMED.iter().find(|(name, _)| *name == text);
        let template = named.map_or(text, |(_, template)| template);
        if named.is_none() && !text.chars().any(|char| char.is_ascii_uppercase()) {
            return Err(format!("there is no workload {text:?}; --list shows them"));
        }
        Ok(Workload {
            name: text.to_owned(),
            steps: template
                .split("=>")
                .map(step)
                .collect::<Result<Vec<TextStep>, String>>()?,
        })
    }

    /// Names of the scripts that have to be on the server.
    pub fn scripts(&self) -> Vec<&str> {
        let words = self.steps.iter().flat_map(|step| step.commands.iter());
        words
            .flatten()
            .flatten()
            .filter_map(|piece| match piece {
                Piece::Sha(name) => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }

    /// Requests ready to be sent, but for what differs each time.
    ///
    /// # Errors
    /// A script is missing.
    pub fn compile(
        &self,
        value_bytes: usize,
        shas: &[(String, String)],
    ) -> Result<Vec<Step>, String> {
        let steps = self.steps.iter();
        steps.map(|step| step.compile(value_bytes, shas)).collect()
    }
}

fn step(text: &str) -> Result<TextStep, String> {
    let mut text = text.trim();
    let mut wanted = None;
    if let Some(rest) = text.strip_prefix('?') {
        let (word, commands) = rest.split_once(' ').ok_or("nothing behind ?word")?;
        wanted = Some(word.to_owned());
        text = commands;
    }
    let mut commands = Vec::new();
    for command in text.split(" | ") {
        let words: Result<Vec<_>, String> = command.split_whitespace().map(pieces).collect();
        let words = words?;
        if words.is_empty() {
            return Err("an empty command".to_owned());
        }
        commands.push(words);
    }
    Ok(TextStep { wanted, commands })
}

fn pieces(word: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = word;
    while let Some(char) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{{").or(rest.strip_prefix("}}")) {
            text.push(char);
            rest = after;
            continue;
        }
        if char != '{' {
            text.push(char);
            rest = &rest[char.len_utf8()..];
            continue;
        }
        let (name, after) = rest[1..]
            .split_once('}')
            .ok_or_else(|| format!("{word:?}: a brace is open"))?;
        rest = after;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(match name {
            "rand" => Piece::Rand,
            "unit" => Piece::Unit,
            "seq" => Piece::Seq,
            "value" => Piece::Value,
            _ => match (name.strip_prefix("sha:"), name.parse()) {
                (Some(script), _) => Piece::Sha(script.to_owned()),
                (None, Ok(index)) => Piece::Element(index),
                (None, Err(_)) => return Err(format!("{word:?}: there is no {{{name}}}")),
            },
        });
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// A step ready to be sent.
#[derive(Clone, Debug)]
pub struct Step {
    parts: Vec<Part>,
    /// Replies that it gets.
    pub replies: u32,
    wanted: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Part {
    Bytes(Vec<u8>),
    Rand,
    Unit,
    Seq,
    /// A whole argument: this element of the reply before.
    Element(usize),
}

/// Where a unit's numbers come from.
pub struct Numbers {
    /// The same in the whole unit.
    pub unit: u64,
    /// No other unit has it.
    pub seq: u64,
}

impl TextStep {
    fn compile(&self, value_bytes: usize, shas: &[(String, String)]) -> Result<Step, String> {
        let mut parts = vec![Part::Bytes(Vec::new())];
        for words in &self.commands {
            add(&mut parts, format!("*{}\r\n", words.len()).as_bytes());
            for word in words {
                compile_word(&mut parts, word, value_bytes, shas)?;
            }
        }
        Ok(Step {
            parts,
            replies: self.commands.len() as u32,
            wanted: self.wanted.as_ref().map(|text| text.clone().into_bytes()),
        })
    }
}

fn compile_word(
    parts: &mut Vec<Part>,
    word: &[Piece],
    value_bytes: usize,
    shas: &[(String, String)],
) -> Result<(), String> {
    if let [Piece::Element(index)] = word {
        parts.push(Part::Element(*index));
        return Ok(());
    }
    let sha = |name: &String| {
        let found = shas.iter().find(|(known, _)| known == name);
        found
            .map(|(_, sha)| sha.as_str())
            .ok_or(format!("there is no script {name:?}"))
    };
    let mut bytes = 0;
    for piece in word {
        bytes += match piece {
            Piece::Text(text) => text.len(),
            Piece::Rand | Piece::Unit | Piece::Seq => DIGITS,
            Piece::Value => value_bytes,
            Piece::Sha(name) => sha(name)?.len(),
            Piece::Element(_) => return Err("an element has to be a whole word".to_owned()),
        };
    }
    add(parts, format!("${bytes}\r\n").as_bytes());
    for piece in word {
        match piece {
            Piece::Text(text) => add(parts, text.as_bytes()),
            Piece::Value => add(parts, &vec![b'x'; value_bytes]),
            Piece::Sha(name) => add(parts, sha(name)?.as_bytes()),
            Piece::Rand => parts.push(Part::Rand),
            Piece::Unit => parts.push(Part::Unit),
            Piece::Seq => parts.push(Part::Seq),
            Piece::Element(_) => {}
        }
    }
    add(parts, b"\r\n");
    Ok(())
}

fn add(parts: &mut Vec<Part>, bytes: &[u8]) {
    match parts.last_mut() {
        Some(Part::Bytes(last)) => last.extend_from_slice(bytes),
        _ => parts.push(Part::Bytes(bytes.to_vec())),
    }
}

impl Step {
    /// Appends the requests; `before` is the reply that came before. False: the unit ends here.
    pub fn write(
        &self,
        numbers: &Numbers,
        mut rand: impl FnMut() -> u64,
        before: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        if let Some(wanted) = &self.wanted
            && reply::element(before, 0) != Some(wanted)
        {
            return false;
        }
        let start = out.len();
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Rand => digits(rand(), out),
                Part::Unit => digits(numbers.unit, out),
                Part::Seq => digits(numbers.seq, out),
                Part::Element(index) => {
                    let Some(text) = reply::element(before, *index) else {
                        out.truncate(start);
                        return false;
                    };
                    out.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
                    out.extend_from_slice(text);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        true
    }
}

fn digits(number: u64, out: &mut Vec<u8>) {
    let mut text = [b'0'; DIGITS];
    let mut rest = number % DIGITS_END;
    for digit in text.iter_mut().rev() {
        if rest == 0 {
            break;
        }
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(workload: &str, step: usize, before: &[u8]) -> Option<String> {
        let shas: Vec<(String, String)> = SCRIPTS
            .iter()
            .map(|(name, _)| ((*name).to_owned(), "0".repeat(40)))
            .collect();
        let steps = Workload::named(workload)
            .unwrap()
            .compile(3, &shas)
            .unwrap();
        let mut out = Vec::new();
        let numbers = Numbers { unit: 42, seq: 7 };
        let mut random = 0;
        let rand = || {
            random += 1;
            random
        };
        steps[step]
            .write(&numbers, rand, before, &mut out)
            .then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_template_becomes_requests() {
        assert_eq!(
            written("SET a:{rand} {value}", 0, b"").unwrap(),
            "*3\r\n$3\r\nSET\r\n$14\r\na:000000000001\r\n$3\r\nxxx\r\n"
        );
        assert_eq!(
            written("MULTI | DEL {{t{unit}}}:{seq}", 0, b"").unwrap(),
            "*1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nDEL\r\n$28\r\n{t000000000042}:000000000007\r\n"
        );
    }

    #[test]
    fn a_later_step_uses_the_reply_or_ends_the_unit() {
        let started = b"*4\r\n$7\r\nSTARTED\r\n:901\r\n:60000\r\n$4\r\nbusy\r\n";
        assert_eq!(
            written("setifidle", 1, started).unwrap(),
            "*3\r\n$7\r\nSETIDLE\r\n$18\r\nstate:000000000042\r\n$3\r\n901\r\n"
        );
        assert_eq!(written("setifidle", 1, b"*2\r\n$4\r\nBUSY\r\n:1\r\n"), None);
    }

    #[test]
    fn every_named_workload_compiles_and_wrong_ones_are_told() {
        for (name, _) in NAMED {
            assert!(written(name, 0, b"").is_some(), "{name}");
        }
        for wrong in ["nothing", "GET {what}", "GET {rand", "GET a => ?1"] {
            assert!(Workload::named(wrong).is_err(), "{wrong}");
        }
    }
}

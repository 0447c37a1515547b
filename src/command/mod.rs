//! The command table: one row per command, made from the command's own declaration.
//!
//! A command is one struct, one impl and one line in its family's list, all in one file of this
//! folder. There are two kinds: a [`KeyCommand`] runs on the owner of its keys and sees nothing but
//! its arguments and a [`Txn`]; a [`SessionCommand`] runs on its connection and sees the
//! connection's state and the server's.
//!
//! Always true: no family imports another one, nor anything behind the keyspace; names are unique;
//! everything that a user can read about a command is derived from its row.

use std::sync::OnceLock;

use hashbrown::HashMap;

use crate::command::spec::{Arg, ArgDoc, Flags, Keys, Needs, Spec};
use crate::keyspace::txn::Txn;
use crate::limits::COMMAND_NAME_BYTES_MAX;
use crate::number::parse_i64;
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

pub mod connection;
pub mod counters;
pub mod credits;
pub mod docs;
pub mod expiry;
pub mod hashes;
pub mod keys;
pub mod limits;
pub mod once;
#[cfg(test)]
#[path = "../../tests/transcripts/play.rs"]
mod recorded;
pub mod server;
#[cfg(test)]
pub mod session_transcript;
pub mod spec;
pub mod states;
pub mod strings;
pub mod transactions;
#[cfg(test)]
pub mod transcript;

/// Every family's list, in the order of the documentation.
const FAMILIES: &[&[Row]] = &[
    connection::COMMANDS,
    server::COMMANDS,
    keys::COMMANDS,
    strings::COMMANDS,
    counters::COMMANDS,
    hashes::COMMANDS,
    states::COMMANDS,
    limits::COMMANDS,
    credits::COMMANDS,
    once::COMMANDS,
    transactions::COMMANDS,
];

/// A command that runs on the owner of its keys.
pub trait KeyCommand: Default + 'static {
    /// What it says about itself.
    const SPEC: Spec;
    /// Its arguments; also its parser.
    const GRAMMAR: &'static [Arg<Self>];

    /// What it needs of a hash besides the key.
    fn needs(&self) -> Needs {
        Needs::Nothing
    }

    /// Runs it. Writes are dropped whole when it answers with a [`Reject`], and so is what was
    /// written to `reply`.
    ///
    /// # Errors
    /// What the client is told.
    fn run(&self, txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject>;
}

/// A command that runs on its connection.
pub trait SessionCommand: Default + 'static {
    /// What it says about itself.
    const SPEC: Spec;
    /// Its arguments; also its parser.
    const GRAMMAR: &'static [Arg<Self>];

    /// Runs it and says what the connection does next.
    ///
    /// # Errors
    /// What the client is told.
    fn run(
        &self,
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject>;
}

/// Runs a parsed key command.
type RunKeys = fn(&mut Txn<'_>, Args<'_>, &mut Reply<'_>) -> Result<(), Reject>;
/// Runs a parsed session command.
type RunSession = fn(&mut SessionCall<'_>, Args<'_>, &mut Reply<'_>) -> Result<Next, Reject>;

/// How a row is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// On the owner of its keys.
    Keys(RunKeys),
    /// On its connection.
    Session(RunSession),
    /// A container: only its subcommands run.
    Container,
}

/// A line of a family's list.
#[derive(Clone, Copy)]
pub struct Row {
    /// The declaration.
    pub spec: &'static Spec,
    /// Arguments as Redis counts them.
    pub arity: i32,
    /// How it runs.
    pub run: Run,
    /// Has subcommands; COMMAND also runs without one.
    pub container: bool,
    /// Documentation of its arguments.
    pub docs: fn() -> Vec<ArgDoc>,
    /// What a request needs of a hash besides the key.
    pub needs: fn(Args<'_>) -> Needs,
}

struct OfKeys<C>(C);

impl<C: KeyCommand> OfKeys<C> {
    const SPEC: &'static Spec = &C::SPEC;
    const WORDS: u32 = words(C::SPEC.name);

    fn run(txn: &mut Txn<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Reject> {
        let mut command = C::default();
        spec::parse((C::SPEC.name, Self::WORDS), C::GRAMMAR, &mut command, args)?;
        command.run(txn, args, reply)
    }

    fn needs(args: Args<'_>) -> Needs {
        let mut command = C::default();
        match spec::parse((C::SPEC.name, Self::WORDS), C::GRAMMAR, &mut command, args) {
            Ok(()) => command.needs(),
            Err(_) => Needs::Nothing,
        }
    }
}

struct OfSession<C>(C);

impl<C: SessionCommand> OfSession<C> {
    const SPEC: &'static Spec = &C::SPEC;
    const WORDS: u32 = words(C::SPEC.name);

    fn run(
        call: &mut SessionCall<'_>,
        args: Args<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let mut command = C::default();
        spec::parse((C::SPEC.name, Self::WORDS), C::GRAMMAR, &mut command, args)?;
        command.run(call, args, reply)
    }
}

impl Row {
    /// The row of a command that runs on the owner of its keys.
    pub const fn keys<C: KeyCommand>() -> Row {
        Row {
            spec: OfKeys::<C>::SPEC,
            arity: spec::arity(C::GRAMMAR, OfKeys::<C>::WORDS as i32),
            run: Run::Keys(OfKeys::<C>::run),
            container: false,
            docs: || spec::docs(C::GRAMMAR),
            needs: OfKeys::<C>::needs,
        }
    }

    /// The row of a command that runs on its connection.
    pub const fn session<C: SessionCommand>() -> Row {
        Row {
            spec: OfSession::<C>::SPEC,
            arity: spec::arity(C::GRAMMAR, OfSession::<C>::WORDS as i32),
            run: Run::Session(OfSession::<C>::run),
            container: false,
            docs: || spec::docs(C::GRAMMAR),
            needs: |_| Needs::Nothing,
        }
    }

    /// The row of a container of subcommands.
    pub const fn container(spec: &'static Spec) -> Row {
        Row {
            spec,
            arity: -2,
            run: Run::Container,
            container: true,
            docs: Vec::new,
            needs: |_| Needs::Nothing,
        }
    }

    /// The row of a command that runs without a subcommand, and has subcommands.
    pub const fn session_container<C: SessionCommand>() -> Row {
        let mut row = Row::session::<C>();
        row.container = true;
        row
    }

    /// Whether all of `flags` are set.
    pub fn has(&self, flags: Flags) -> bool {
        self.spec.has(flags)
    }

    /// Whether so many arguments (the name included) can be right.
    pub fn takes(&self, arguments: usize) -> bool {
        let arguments = arguments as i64;
        let arity = i64::from(self.arity);
        if arity >= 0 {
            arguments == arity
        } else {
            arguments >= -arity
        }
    }

    /// The places of the keys in `args`.
    ///
    /// # Errors
    /// A count of keys that is not a number or does not fit.
    pub fn key_places(&self, args: Args<'_>) -> Result<KeyPlaces, Reject> {
        let count = args.len() as u32;
        match self.spec.keys {
            Keys::None | Keys::All | Keys::Cursor(_) => Ok(KeyPlaces::default()),
            Keys::Range { first, last, step } => {
                let last = if last >= 0 {
                    last as u32
                } else {
                    count.saturating_sub(-last as u32)
                };
                if first >= count || last < first {
                    return Ok(KeyPlaces::default());
                }
                let last = last.min(count - 1);
                Ok(KeyPlaces {
                    first,
                    count: (last - first) / step + 1,
                    step,
                })
            }
            Keys::Counted { count_at, step } => {
                if count_at >= count {
                    return Ok(KeyPlaces::default());
                }
                let keys = parse_i64(args.get(count_at as usize)).ok_or(Reject::not_an_integer())?;
                if keys <= 0 {
                    return Err(Reject::fixed("ERR numkeys should be greater than 0"));
                }
                let room = (count - count_at - 1) / step;
                if keys > i64::from(room) {
                    return Err(Reject::syntax());
                }
                Ok(KeyPlaces {
                    first: count_at + 1,
                    count: keys as u32,
                    step,
                })
            }
        }
    }
}

/// Where the keys of one request are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyPlaces {
    /// Place of the first key.
    pub first: u32,
    /// Number of keys.
    pub count: u32,
    /// Distance between keys.
    pub step: u32,
}

impl KeyPlaces {
    /// The keys in order.
    pub fn each<'a>(self, args: Args<'a>) -> impl Iterator<Item = &'a [u8]> {
        (0..self.count).map(move |index| args.get((self.first + index * self.step) as usize))
    }
}

const fn words(name: &str) -> u32 {
    let bytes = name.as_bytes();
    let mut words = 1;
    let mut index = 0;
    while index < bytes.len() {
        if bytes[index] == b'|' {
            words += 1;
        }
        index += 1;
    }
    words
}

/// The number of a row in the table; metrics are kept by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowId(pub u16);

/// The name that a connection's last request had, and its row: most are followed by their like.
#[derive(Clone, Copy, Debug)]
pub struct LastFound {
    name: [u8; COMMAND_NAME_BYTES_MAX],
    bytes: u8,
    id: RowId,
}

impl Default for LastFound {
    fn default() -> LastFound {
        LastFound {
            name: [0; COMMAND_NAME_BYTES_MAX],
            bytes: 0,
            id: RowId(0),
        }
    }
}

impl LastFound {
    fn name(&self) -> &[u8] {
        &self.name[..self.bytes as usize]
    }

    fn set(&mut self, name: &[u8], id: RowId) {
        if let Some(space) = self.name.get_mut(..name.len()) {
            space.copy_from_slice(name);
            self.bytes = name.len() as u8;
            self.id = id;
        }
    }
}

/// All commands.
pub struct Table {
    rows: Vec<Row>,
    by_name: HashMap<&'static [u8], RowId, FastHash>,
}

/// Hashes short names quickly; the table is fixed, so nobody can choose collisions.
#[derive(Clone, Copy, Default)]
struct FastHash;

impl std::hash::BuildHasher for FastHash {
    type Hasher = xxhash_rust::xxh3::Xxh3;

    fn build_hasher(&self) -> Self::Hasher {
        xxhash_rust::xxh3::Xxh3::new()
    }

    fn hash_one<T: std::hash::Hash>(&self, value: T) -> u64 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        value.hash(&mut hasher);
        std::hash::Hasher::finish(&hasher)
    }
}

struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Table {
    fn new() -> Table {
        let rows: Vec<Row> = FAMILIES
            .iter()
            .flat_map(|family| family.iter().copied())
            .collect();
        let mut by_name = HashMap::with_hasher(FastHash);
        for (index, row) in rows.iter().enumerate() {
            let earlier = by_name.insert(row.spec.name.as_bytes(), RowId(index as u16));
            assert!(
                earlier.is_none(),
                "two commands are called {}",
                row.spec.name
            );
        }
        Table { rows, by_name }
    }

    /// The row with this number.
    pub fn row(&self, id: RowId) -> &Row {
        &self.rows[id.0 as usize]
    }

    /// All rows, in the order of the documentation; a row's place is its number.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row named so (`container|subcommand` for a subcommand), in any case.
    pub fn named(&self, name: &[u8]) -> Option<RowId> {
        let mut lower = [0; COMMAND_NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.by_name.get(&*lower).copied()
    }

    /// The row that `args` asks for.
    ///
    /// # Errors
    /// Unknown command or subcommand, or a wrong number of arguments, in Redis's words.
    pub fn find(&self, args: Args<'_>) -> Result<RowId, Reject> {
        let name = args.get(0);
        let id = self.named(name).filter(|_| !name.contains(&b'|'));
        let id = id.ok_or_else(|| Reject::unknown_command(name, args.slice(1..).iter()))?;
        let row = self.row(id);
        let id = match row.run {
            _ if row.container && args.len() > 1 => self.subcommand(row, args)?,
            Run::Container => return Err(Reject::wrong_arity(row.spec.name)),
            _ => id,
        };
        if self.row(id).takes(args.len()) {
            Ok(id)
        } else {
            Err(Reject::wrong_arity(self.row(id).spec.name))
        }
    }

    /// As `find`, faster where the name is that of the connection's request before.
    ///
    /// # Errors
    /// As `find`.
    #[inline]
    pub fn find_again(&self, last: &mut LastFound, args: Args<'_>) -> Result<RowId, Reject> {
        let name = args.get(0);
        if last.name() == name && self.row(last.id).takes(args.len()) {
            return Ok(last.id);
        }
        let id = self.find(args)?;
        if !self.row(id).spec.name.contains('|') && !self.row(id).container {
            last.set(name, id);
        }
        Ok(id)
    }

    fn subcommand(&self, container: &Row, args: Args<'_>) -> Result<RowId, Reject> {
        let mut full = [0; COMMAND_NAME_BYTES_MAX];
        let name = args.get(1);
        let start = container.spec.name.len() + 1;
        let unknown = || Reject::unknown_subcommand(container.spec.name, name);
        let space = full.get_mut(..start + name.len()).ok_or_else(unknown)?;
        space[..start - 1].copy_from_slice(container.spec.name.as_bytes());
        space[start - 1] = b'|';
        space[start..].copy_from_slice(name);
        self.named(space).ok_or_else(unknown)
    }

    /// The subcommands of a container.
    pub fn subcommands<'a>(&'a self, container: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| {
            row.spec
                .name
                .strip_prefix(container)
                .is_some_and(|rest| rest.starts_with('|'))
        })
    }
}

/// The table of all commands.
pub fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(Table::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::spec::{Across, flag};

    #[test]
    fn a_command_writes_or_reads_or_needs_no_key() {
        for row in table().rows() {
            let keyed = !matches!(row.spec.keys, Keys::None);
            if keyed && matches!(row.run, Run::Keys(_)) {
                let write = row.has(flag::WRITE);
                let read = row.has(flag::READONLY);
                assert!(
                    write != read,
                    "{} must be either write or readonly",
                    row.spec.name
                );
            }
            if row.spec.across != Across::Atomic {
                assert!(matches!(row.run, Run::Keys(_)), "{}", row.spec.name);
            }
            assert!(row.spec.name.len() <= COMMAND_NAME_BYTES_MAX);
        }
    }
}

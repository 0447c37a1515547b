//! The grammar of commands: what a command declares about itself, and the parser that the
//! declaration is. Arity, `COMMAND`, `COMMAND DOCS`, help, the README table and the simulator's
//! random calls are derived from it; nothing lists an argument twice.
//!
//! Always true: a grammar is data in a `const`; parsing allocates nothing; the first error wins.

use crate::number::parse_i64;
use crate::reply::Reject;
use crate::resp::decode::Args;

/// The place of one argument in a request (0 is the command's name).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word(pub u32);

/// Consecutive arguments of a request, taken in groups of `step`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Place of the first argument.
    pub first: u32,
    /// Number of arguments (a multiple of `step`).
    pub count: u32,
    /// Arguments per group.
    pub step: u32,
}

impl Words {
    /// The argument at `part` of each group, in order.
    pub fn each<'a>(self, args: Args<'a>, part: u32) -> impl Iterator<Item = &'a [u8]> + Clone {
        (0..self.groups())
            .map(move |group| args.get((self.first + group * self.step + part) as usize))
    }

    /// Number of groups.
    pub fn groups(self) -> u32 {
        self.count.checked_div(self.step).unwrap_or(0)
    }
}

/// Which fields a command needs of the hash at its first key, as far as that can be told before it
/// runs: they are read ahead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// None.
    #[default]
    Nothing,
    /// The first argument of each group.
    Fields(Words),
    /// All of them.
    AllFields,
}

impl From<Word> for Needs {
    fn from(word: Word) -> Needs {
        Needs::Fields(Words {
            first: word.0,
            count: 1,
            step: 1,
        })
    }
}

/// What a command is for; the family it belongs to in documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Connection management.
    Connection,
    /// Server administration.
    Server,
    /// Commands on keys of any type.
    Generic,
    /// Strings, bitmaps and counters.
    String,
    /// Bit operations on strings.
    Bitmap,
    /// Hashes.
    Hash,
    /// MULTI, EXEC and what belongs to them.
    Transactions,
    /// State cells: leases, idempotency keys, guarded state changes.
    States,
    /// Rate limits.
    Limits,
    /// Credits: reserve and settle.
    Credits,
    /// Writes that happen at most once.
    Once,
}

impl Group {
    /// The group's name in `COMMAND DOCS`.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Generic => "generic",
            Group::String => "string",
            Group::Bitmap => "bitmap",
            Group::Hash => "hash",
            Group::Transactions => "transactions",
            Group::States => "states",
            Group::Limits => "limits",
            Group::Credits => "credits",
            Group::Once => "once",
        }
    }
}

/// A set of command flags.
pub type Flags = u32;

/// Flag bits and the names that `COMMAND INFO` gives them.
pub mod flag {
    use super::Flags;

    /// May change data.
    pub const WRITE: Flags = 1;
    /// Only reads data.
    pub const READONLY: Flags = 1 << 1;
    /// May need new space; refused when there is none.
    pub const DENYOOM: Flags = 1 << 2;
    /// Administration.
    pub const ADMIN: Flags = 1 << 3;
    /// Constant or logarithmic time.
    pub const FAST: Flags = 1 << 4;
    /// Allowed before AUTH.
    pub const NO_AUTH: Flags = 1 << 5;
    /// Not shown to MONITOR.
    pub const SKIP_MONITOR: Flags = 1 << 6;
    /// Not kept in SLOWLOG.
    pub const SKIP_SLOWLOG: Flags = 1 << 7;
    /// Allowed while data is being loaded.
    pub const LOADING: Flags = 1 << 8;
    /// Allowed while stale.
    pub const STALE: Flags = 1 << 9;
    /// Not allowed from scripts.
    pub const NOSCRIPT: Flags = 1 << 10;
    /// May wait.
    pub const BLOCKING: Flags = 1 << 11;
    /// Not allowed inside MULTI.
    pub const NO_MULTI: Flags = 1 << 12;
    /// Keys are found by a rule of the command's own.
    pub const MOVABLE_KEYS: Flags = 1 << 13;
    /// Executed at once inside MULTI (EXEC, DISCARD, RESET, QUIT, WATCH).
    pub const IMMEDIATE: Flags = 1 << 14;
    /// Frees space: has a reserve when the disk is full.
    pub const FREES: Flags = 1 << 15;
    /// Dangerous, for the category of that name.
    pub const DANGEROUS: Flags = 1 << 16;
    /// Allowed while busy.
    pub const ALLOW_BUSY: Flags = 1 << 17;
    /// Never delivered to replicas asynchronously.
    pub const NO_ASYNC_LOADING: Flags = 1 << 18;
    /// DEBUG: refused unless `enable-debug-command` allows it.
    pub const PROTECTED: Flags = 1 << 19;
    /// May carry a password, which MONITOR and SLOWLOG do not show.
    pub const SECRET: Flags = 1 << 20;

    /// Bit and name, in the order of `COMMAND INFO`.
    pub const NAMES: &[(Flags, &str)] = &[
        (WRITE, "write"),
        (READONLY, "readonly"),
        (DENYOOM, "denyoom"),
        (ADMIN, "admin"),
        (NOSCRIPT, "noscript"),
        (BLOCKING, "blocking"),
        (LOADING, "loading"),
        (STALE, "stale"),
        (SKIP_MONITOR, "skip_monitor"),
        (SKIP_SLOWLOG, "skip_slowlog"),
        (FAST, "fast"),
        (NO_AUTH, "no_auth"),
        (MOVABLE_KEYS, "movablekeys"),
        (NO_MULTI, "no_multi"),
        (ALLOW_BUSY, "allow_busy"),
        (NO_ASYNC_LOADING, "no_async_loading"),
    ];
}

/// Where the keys of a command are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// No key.
    None,
    /// From place `first` to place `last` (negative: from the end), every `step`.
    Range {
        /// Place of the first key.
        first: u32,
        /// Place of the last key, from the end when negative.
        last: i32,
        /// Distance between keys.
        step: u32,
    },
    /// The argument at `count_at` says how many groups of `step` follow it.
    Counted {
        /// Place of the number of keys.
        count_at: u32,
        /// Distance between keys.
        step: u32,
    },
    /// No named key, but every key of the server.
    All,
    /// The slot that the cursor at this place names.
    Cursor(u32),
}

/// How a command on keys of several shards is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    /// Whole or not at all: the shards are lent to one place.
    Atomic,
    /// Every shard does its part; the integers are added.
    Sum,
    /// Every shard does its part; the array elements go back to their keys' places.
    Interleave,
    /// Every shard does its part; the arrays are joined.
    Concat,
    /// Every shard does its part; one of the replies that is not null is chosen at random.
    AnyOne,
}

/// What a command does to its keys, for `COMMAND INFO`'s key specifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `RO access`
    Read,
    /// `RW update`
    Update,
    /// `RW access update`
    ReadUpdate,
    /// `OW update`
    Overwrite,
    /// `RM delete`
    Remove,
    /// `RW access delete`
    ReadRemove,
    /// `RO` without reading the value
    Look,
    /// `OW insert`
    Insert,
}

/// What a command says about itself besides its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Lower-case name; a subcommand is `container|name`.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// First Redis version that has it; `tallyman` for our own.
    pub since: &'static str,
    /// Documentation group.
    pub group: Group,
    /// Time complexity in words.
    pub complexity: &'static str,
    /// Flag bits.
    pub flags: Flags,
    /// Key positions.
    pub keys: Keys,
    /// What is done to the keys.
    pub access: Access,
    /// What is done to the keys behind the first one, where that is something else.
    pub access_rest: Option<Access>,
    /// What a call does to its keys, where that depends on its options.
    pub access_of: Option<fn(Args<'_>) -> Access>,
    /// ACL categories instead of the group's, without `@`; those of the flags come on top.
    pub categories: Option<&'static [&'static str]>,
    /// Command tips instead of those that follow from `across`.
    pub tips: &'static [&'static str],
    /// What happens when the keys live in several shards.
    pub across: Across,
    /// What is replied, in words.
    pub reply: &'static str,
    /// More for the documentation: edge cases that were decided here.
    pub notes: &'static str,
}

impl Spec {
    const fn new(name: &'static str, group: Group, summary: &'static str, flags: Flags) -> Spec {
        Spec {
            name,
            summary,
            since: "1.0.0",
            group,
            complexity: "O(1)",
            flags,
            keys: Keys::None,
            access: Access::Read,
            access_rest: None,
            access_of: None,
            categories: None,
            tips: &[],
            across: Across::Atomic,
            reply: "",
            notes: "",
        }
    }

    /// A command that writes; its one key is the first argument unless said otherwise.
    pub const fn write(name: &'static str, group: Group, summary: &'static str) -> Spec {
        let mut spec = Spec::new(name, group, summary, flag::WRITE);
        spec.keys = Keys::Range {
            first: 1,
            last: 1,
            step: 1,
        };
        spec.access = Access::ReadUpdate;
        spec
    }

    /// A command that only reads; its one key is the first argument unless said otherwise.
    pub const fn read(name: &'static str, group: Group, summary: &'static str) -> Spec {
        let mut spec = Spec::new(name, group, summary, flag::READONLY);
        spec.keys = Keys::Range {
            first: 1,
            last: 1,
            step: 1,
        };
        spec
    }

    /// A container of subcommands.
    pub const fn container(name: &'static str, group: Group, summary: &'static str) -> Spec {
        Spec::new(name, group, summary, 0).complexity("Depends on the subcommand.")
    }

    /// The HELP of a container.
    pub const fn help(name: &'static str, group: Group) -> Spec {
        Spec::new(
            name,
            group,
            "Prints this help.",
            flag::LOADING | flag::STALE,
        )
        .since("5.0.0")
        .reply("Array of status replies: usage and summary of each subcommand.")
    }

    /// A command without keys, run by the connection itself.
    pub const fn session(name: &'static str, group: Group, summary: &'static str) -> Spec {
        Spec::new(name, group, summary, 0)
    }

    /// Sets the Redis version that introduced it.
    pub const fn since(mut self, since: &'static str) -> Spec {
        self.since = since;
        self
    }

    /// Sets the complexity.
    pub const fn complexity(mut self, complexity: &'static str) -> Spec {
        self.complexity = complexity;
        self
    }

    /// Adds flag bits.
    pub const fn with(mut self, flags: Flags) -> Spec {
        self.flags |= flags;
        self
    }

    /// Keys from `first` to `last` (negative: from the end), every `step`.
    pub const fn keys(mut self, first: u32, last: i32, step: u32) -> Spec {
        self.keys = Keys::Range { first, last, step };
        self
    }

    /// Sets another rule for finding the keys.
    pub const fn keys_by(mut self, keys: Keys) -> Spec {
        self.keys = keys;
        self
    }

    /// What is done to the keys.
    pub const fn access(mut self, access: Access) -> Spec {
        self.access = access;
        self
    }

    /// What a call does to its keys, where that depends on its options.
    pub const fn access_of(mut self, of: fn(Args<'_>) -> Access) -> Spec {
        self.access_of = Some(of);
        self
    }

    /// What is done to the keys behind the first one (COPY, RENAME, BITOP).
    pub const fn access_rest(mut self, access: Access) -> Spec {
        self.access_rest = Some(access);
        self
    }

    /// ACL categories instead of the group's, without `@`.
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Spec {
        self.categories = Some(categories);
        self
    }

    /// Command tips, as in `nondeterministic_output`.
    pub const fn tips(mut self, tips: &'static [&'static str]) -> Spec {
        self.tips = tips;
        self
    }

    /// How the command spans shards.
    pub const fn across(mut self, across: Across) -> Spec {
        self.across = across;
        self
    }

    /// Documents the reply.
    pub const fn reply(mut self, reply: &'static str) -> Spec {
        self.reply = reply;
        self
    }

    /// Documents decided edge cases.
    pub const fn notes(mut self, notes: &'static str) -> Spec {
        self.notes = notes;
        self
    }

    /// Whether all of `flags` are set.
    pub const fn has(&self, flags: Flags) -> bool {
        self.flags & flags == flags
    }
}

/// What an argument's value looks like, for documentation and random calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A key.
    Key,
    /// Any bytes.
    Text,
    /// A signed 64-bit integer.
    Integer,
    /// A floating-point number.
    Double,
    /// A Unix time.
    UnixTime,
    /// A glob pattern.
    Pattern,
    /// A bare word.
    Token,
    /// One of several.
    OneOf,
    /// Several together.
    Block,
}

/// How an argument's value reaches the command's struct.
pub enum Set<C: 'static> {
    /// The argument's place.
    Word(fn(&mut C, Word)),
    /// An integer, parsed strictly.
    Integer(fn(&mut C, i64)),
    /// Parsed and checked by the command's own rule; the place comes along.
    Try(fn(&mut C, &[u8], Word) -> Result<(), Reject>),
    /// A bare token was given.
    Flag(fn(&mut C)),
    /// Everything from here to the end of the request, in groups of as many as `parts` has.
    Rest(fn(&mut C, Words)),
    /// As many groups as the integer before says (`numkeys key …`): count, then groups.
    Counted(fn(&mut C, Words)),
    /// Everything from here to the end, parsed by the command's own rule.
    Own(fn(&mut C, Args<'_>, u32) -> Result<(), Reject>),
    /// Exactly one of `parts`.
    OneOf,
    /// All of `parts`, in order, after the token.
    Block,
}

/// One argument of a command: documentation and setter in one.
pub struct Arg<C: 'static> {
    /// Name in documentation.
    pub name: &'static str,
    /// One sentence for documentation.
    pub doc: &'static str,
    /// The word that introduces it, if any.
    pub token: Option<&'static str>,
    /// What the value looks like.
    pub kind: Type,
    /// May be left out.
    pub optional: bool,
    /// May be given only once; otherwise the last one counts, as in Redis.
    pub once: bool,
    /// How it is taken.
    pub set: Set<C>,
    /// Parts of a block, alternatives of a choice, members of a repeated group.
    pub parts: &'static [Arg<C>],
    /// What is wrong with a count that is no number or does not fit; Redis's texts without it.
    pub count_error: Option<&'static str>,
}

impl<C> Arg<C> {
    const fn base(name: &'static str, doc: &'static str, kind: Type, set: Set<C>) -> Arg<C> {
        Arg {
            name,
            doc,
            token: None,
            kind,
            optional: false,
            once: false,
            set,
            parts: &[],
            count_error: None,
        }
    }

    /// A key.
    pub const fn key(name: &'static str, doc: &'static str, set: fn(&mut C, Word)) -> Arg<C> {
        Arg::base(name, doc, Type::Key, Set::Word(set))
    }

    /// Any bytes.
    pub const fn text(name: &'static str, doc: &'static str, set: fn(&mut C, Word)) -> Arg<C> {
        Arg::base(name, doc, Type::Text, Set::Word(set))
    }

    /// A glob pattern.
    pub const fn pattern(name: &'static str, doc: &'static str, set: fn(&mut C, Word)) -> Arg<C> {
        Arg::base(name, doc, Type::Pattern, Set::Word(set))
    }

    /// A strict 64-bit integer.
    pub const fn integer(name: &'static str, doc: &'static str, set: fn(&mut C, i64)) -> Arg<C> {
        Arg::base(name, doc, Type::Integer, Set::Integer(set))
    }

    /// A value with a rule of its own.
    pub const fn parsed(
        name: &'static str,
        doc: &'static str,
        kind: Type,
        set: fn(&mut C, &[u8], Word) -> Result<(), Reject>,
    ) -> Arg<C> {
        Arg::base(name, doc, kind, Set::Try(set))
    }

    /// A bare word such as `NX`; optional.
    pub const fn flag(token: &'static str, doc: &'static str, set: fn(&mut C)) -> Arg<C> {
        let mut arg = Arg::base(token, doc, Type::Token, Set::Flag(set));
        arg.token = Some(token);
        arg.optional = true;
        arg
    }

    /// At most one of several; each alternative has a token. Optional.
    pub const fn one_of(name: &'static str, doc: &'static str, parts: &'static [Arg<C>]) -> Arg<C> {
        let mut arg = Arg::base(name, doc, Type::OneOf, Set::OneOf);
        arg.parts = parts;
        arg.optional = true;
        arg
    }

    /// One of the words that `words` documents, usually behind a token; parsed by a rule of the
    /// command's own, so that it can say which word it wants.
    pub const fn word(
        name: &'static str,
        doc: &'static str,
        words: &'static [Arg<C>],
        set: fn(&mut C, &[u8], Word) -> Result<(), Reject>,
    ) -> Arg<C> {
        let mut arg = Arg::base(name, doc, Type::OneOf, Set::Try(set));
        arg.parts = words;
        arg
    }

    /// Several values in order, usually behind a token.
    pub const fn block(name: &'static str, doc: &'static str, parts: &'static [Arg<C>]) -> Arg<C> {
        let mut arg = Arg::base(name, doc, Type::Block, Set::Block);
        arg.parts = parts;
        arg
    }

    /// Groups of `parts` to the end of the request, at least one.
    pub const fn rest(
        name: &'static str,
        doc: &'static str,
        parts: &'static [Arg<C>],
        set: fn(&mut C, Words),
    ) -> Arg<C> {
        let mut arg = Arg::base(name, doc, Type::Block, Set::Rest(set));
        arg.parts = parts;
        arg
    }

    /// A count and so many groups of `parts`; the count is checked by the parser.
    pub const fn counted(
        name: &'static str,
        doc: &'static str,
        parts: &'static [Arg<C>],
        set: fn(&mut C, Words),
    ) -> Arg<C> {
        let mut arg = Arg::base(name, doc, Type::Block, Set::Counted(set));
        arg.parts = parts;
        arg
    }

    /// The rest of the request, parsed by a rule of the command's own; `parts` document it.
    pub const fn own(
        name: &'static str,
        doc: &'static str,
        parts: &'static [Arg<C>],
        set: fn(&mut C, Args<'_>, u32) -> Result<(), Reject>,
    ) -> Arg<C> {
        let mut arg = Arg::base(name, doc, Type::Block, Set::Own(set));
        arg.parts = parts;
        arg
    }

    /// Puts a token before it.
    pub const fn after(mut self, token: &'static str) -> Arg<C> {
        self.token = Some(token);
        self
    }

    /// May be left out.
    pub const fn optional(mut self) -> Arg<C> {
        self.optional = true;
        self
    }

    /// Must be given, where its kind is optional otherwise.
    pub const fn required(mut self) -> Arg<C> {
        self.optional = false;
        self
    }

    /// Giving it twice is a syntax error.
    pub const fn once(mut self) -> Arg<C> {
        self.once = true;
        self
    }

    /// Says this, `ERR` included, when the count is no number or does not fit.
    pub const fn count_error(mut self, text: &'static str) -> Arg<C> {
        self.count_error = Some(text);
        self
    }

    /// Another type in the documentation.
    pub const fn of(mut self, kind: Type) -> Arg<C> {
        self.kind = kind;
        self
    }
}

/// Parses `args` by `grammar` into `command`; the command's own `name` has `from` words.
///
/// # Errors
/// Redis's `syntax error` for what no argument takes, and what the setters say.
pub fn parse<C>(
    (name, from): (&'static str, u32),
    grammar: &'static [Arg<C>],
    command: &mut C,
    args: Args<'_>,
) -> Result<(), Reject> {
    let mut parser = Parser {
        args,
        name,
        at: from,
        count: args.len() as u32,
    };
    let mut next = 0;
    // Required arguments have their places; they come first. A choice behind which there are only
    // options may stand among them.
    let floats = |at: usize| {
        matches!(grammar[at].set, Set::OneOf) && grammar[at + 1..].iter().all(|arg| arg.optional)
    };
    while next < grammar.len() && !grammar[next].optional && !floats(next) {
        parser.value(&grammar[next], command)?;
        next += 1;
    }
    let options = &grammar[next..];
    if options.is_empty() && parser.at == parser.count {
        return Ok(());
    }
    parser.options(options, command)
}

struct Parser<'a> {
    args: Args<'a>,
    name: &'static str,
    at: u32,
    count: u32,
}

impl Parser<'_> {
    fn options<C>(&mut self, options: &'static [Arg<C>], command: &mut C) -> Result<(), Reject> {
        // One bit per option: seen before; and which alternative of a choice it was.
        let mut chosen = [u8::MAX; 32];
        let mut positional = 0;
        while self.at < self.count {
            let word = self.args.get(self.at as usize);
            let by_token = options
                .iter()
                .enumerate()
                .find_map(|(index, option)| alternative(option, word).map(|part| (index, part)));
            if let Some((index, part)) = by_token {
                let option = &options[index];
                let target = if matches!(option.set, Set::OneOf) {
                    &option.parts[part]
                } else {
                    option
                };
                let seen = chosen.get_mut(index).ok_or(Reject::syntax())?;
                let repeats = *seen == part as u8 && !target.once;
                if *seen != u8::MAX && !repeats {
                    return Err(Reject::syntax());
                }
                *seen = part as u8;
                self.value(target, command)?;
                continue;
            }
            // Options without a token are taken in their order.
            let place = options[positional..]
                .iter()
                .position(|option| option.token.is_none() && !matches!(option.set, Set::OneOf));
            match place {
                Some(offset) => {
                    let option = &options[positional + offset];
                    positional += offset + 1;
                    self.value(option, command)?;
                }
                None => return Err(Reject::syntax()),
            }
        }
        let is_missing = |(index, option): (usize, &Arg<C>)| {
            !option.optional && chosen.get(index) == Some(&u8::MAX)
        };
        match options.iter().enumerate().any(is_missing) {
            true => Err(Reject::syntax()),
            false => Ok(()),
        }
    }

    fn take(&mut self) -> Result<Word, Reject> {
        if self.at >= self.count {
            return Err(Reject::syntax());
        }
        let word = Word(self.at);
        self.at += 1;
        Ok(word)
    }

    fn value<C>(&mut self, arg: &'static Arg<C>, command: &mut C) -> Result<(), Reject> {
        if let Some(token) = arg.token {
            let word = self.take()?;
            if !self
                .args
                .get(word.0 as usize)
                .eq_ignore_ascii_case(token.as_bytes())
            {
                return Err(Reject::syntax());
            }
        }
        match arg.set {
            Set::Word(set) => set(command, self.take()?),
            Set::Integer(set) => {
                let word = self.take()?;
                let number = parse_i64(self.args.get(word.0 as usize));
                set(command, number.ok_or(Reject::not_an_integer())?);
            }
            Set::Try(set) => {
                let word = self.take()?;
                set(command, self.args.get(word.0 as usize), word)?;
            }
            Set::Flag(set) => {
                if arg.token.is_none() {
                    self.take()?;
                }
                set(command);
            }
            Set::Rest(set) => {
                let step = arg.parts.len().max(1) as u32;
                let count = self.count - self.at;
                if count == 0 || !count.is_multiple_of(step) {
                    return Err(Reject::wrong_arity(self.name));
                }
                set(
                    command,
                    Words {
                        first: self.at,
                        count,
                        step,
                    },
                );
                self.at = self.count;
            }
            Set::Counted(set) => self.counted(arg, set, command)?,
            Set::Own(set) => {
                set(command, self.args, self.at)?;
                self.at = self.count;
            }
            Set::OneOf => {
                let word = self
                    .args
                    .get(self.at.min(self.count.saturating_sub(1)) as usize);
                let part = alternative(arg, word).ok_or(Reject::syntax())?;
                self.value(&arg.parts[part], command)?;
            }
            Set::Block => self.block(arg.parts, command)?,
        }
        Ok(())
    }

    /// A block's required parts in order, then its optional ones while they fit.
    fn block<C>(&mut self, parts: &'static [Arg<C>], command: &mut C) -> Result<(), Reject> {
        for part in parts {
            if part.optional {
                if self.at >= self.count {
                    break;
                }
                let word = self.args.get(self.at as usize);
                let introduced = part.token.is_some() || matches!(part.set, Set::OneOf);
                if introduced && alternative(part, word).is_none() {
                    continue;
                }
            }
            self.value(part, command)?;
        }
        Ok(())
    }

    fn counted<C>(
        &mut self,
        arg: &'static Arg<C>,
        set: fn(&mut C, Words),
        command: &mut C,
    ) -> Result<(), Reject> {
        let or = |reject: Reject| arg.count_error.map_or(reject, Reject::fixed);
        let word = self.take()?;
        let groups = parse_i64(self.args.get(word.0 as usize));
        let groups = groups.ok_or_else(|| or(Reject::not_an_integer()))?;
        if groups <= 0 {
            return Err(or(Reject::fixed("ERR numkeys should be greater than 0")));
        }
        let step = arg.parts.len().max(1) as u32;
        let room = (self.count - self.at) / step;
        if groups > i64::from(room) {
            return Err(or(Reject::syntax()));
        }
        let count = groups as u32 * step;
        set(
            command,
            Words {
                first: self.at,
                count,
                step,
            },
        );
        self.at += count;
        Ok(())
    }
}

/// Which alternative of `option` the word introduces: its own token is 0.
fn alternative<C>(option: &Arg<C>, word: &[u8]) -> Option<usize> {
    let matches = |token: Option<&'static str>| {
        token.is_some_and(|token| word.eq_ignore_ascii_case(token.as_bytes()))
    };
    if matches!(option.set, Set::OneOf) {
        return option.parts.iter().position(|part| matches(part.token));
    }
    matches(option.token).then_some(0)
}

/// An argument without its setter: what documentation and random calls need.
#[derive(Clone, Debug)]
pub struct ArgDoc {
    /// Name in documentation.
    pub name: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// Introducing word.
    pub token: Option<&'static str>,
    /// What the value looks like.
    pub kind: Type,
    /// May be left out.
    pub optional: bool,
    /// Repeated to the end.
    pub multiple: bool,
    /// Preceded by a count.
    pub counted: bool,
    /// Parts, alternatives or group members.
    pub parts: Vec<ArgDoc>,
}

/// The documentation of a grammar.
pub fn docs<C>(grammar: &[Arg<C>]) -> Vec<ArgDoc> {
    grammar
        .iter()
        .map(|arg| ArgDoc {
            name: arg.name,
            doc: arg.doc,
            token: arg.token,
            kind: arg.kind,
            optional: arg.optional,
            multiple: matches!(arg.set, Set::Rest(_) | Set::Counted(_)),
            counted: matches!(arg.set, Set::Counted(_)),
            parts: docs(arg.parts),
        })
        .collect()
}

/// Arity as Redis gives it: the name counts; negative when more may follow.
pub const fn arity<C>(grammar: &[Arg<C>], name_words: i32) -> i32 {
    let mut fixed = name_words;
    let mut open = false;
    let mut index = 0;
    while index < grammar.len() {
        if grammar[index].optional {
            open = true;
        } else {
            let (least, more) = width(&grammar[index]);
            fixed += least;
            open |= more;
        }
        index += 1;
    }
    if open { -fixed } else { fixed }
}

/// How many words an argument takes at least, and whether it may take more.
const fn width<C>(arg: &Arg<C>) -> (i32, bool) {
    let token = if arg.token.is_some() { 1 } else { 0 };
    let group = if arg.parts.is_empty() {
        1
    } else {
        arg.parts.len() as i32
    };
    match arg.set {
        Set::Word(_) | Set::Integer(_) | Set::Try(_) => (token + 1, false),
        Set::Flag(_) => (1, false),
        Set::Rest(_) => (token + group, true),
        Set::Counted(_) => (token + 1 + group, true),
        Set::Own(_) => {
            // A rule of its own is asked only where there is something to parse.
            let (least, _) = parts_width(arg.parts);
            (token + if least > 0 { least } else { 1 }, true)
        }
        Set::Block => {
            let (least, open) = parts_width(arg.parts);
            (token + least, open)
        }
        Set::OneOf => choice_width(arg.parts),
    }
}

/// The width of the shortest alternative, and whether there are longer ones.
const fn choice_width<C>(parts: &[Arg<C>]) -> (i32, bool) {
    let mut least = i32::MAX;
    let mut open = false;
    let mut index = 0;
    while index < parts.len() {
        let (part, more) = width(&parts[index]);
        open |= more || (least != i32::MAX && part != least);
        if part < least {
            least = part;
        }
        index += 1;
    }
    (if parts.is_empty() { 1 } else { least }, open)
}

const fn parts_width<C>(parts: &[Arg<C>]) -> (i32, bool) {
    let mut sum = 0;
    let mut open = false;
    let mut index = 0;
    while index < parts.len() {
        if parts[index].optional {
            open = true;
        } else {
            let (least, more) = width(&parts[index]);
            sum += least;
            open |= more;
        }
        index += 1;
    }
    (sum, open)
}

impl<'a> Args<'a> {
    /// The argument at a place that the parser has found.
    pub fn word(&self, word: Word) -> &'a [u8] {
        self.get(word.0 as usize)
    }
}

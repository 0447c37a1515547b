//! The command line: one option per setting, derived from the table.
//!
//! Always true: the command line wins over the file, and the file over the defaults. What is not
//! understood is told on standard error, and the exit code is 2.

use std::{ffi::OsString, io::Write, path::PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{
    file,
    kind::{Change, Row},
    settings::Settings,
    table::ROWS,
};

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Invocation {
    /// Run the server.
    Serve {
        settings: Box<Settings>,
        /// What `--config` named.
        file: Option<PathBuf>,
    },
    /// Check the data folder.
    Check(PathBuf),
    /// Copy the first folder to the second.
    Backup(PathBuf, PathBuf),
}

/// Why the process ends before it began: a text for the person at the terminal and an exit code.
#[derive(Debug)]
pub enum Refusal {
    /// Also `--help` and `--version`, which are no error.
    CommandLine(clap::Error),
    /// The settings file, or settings that do not fit each other.
    Settings(String),
}

impl Refusal {
    /// Prints the text, help to standard output and errors to standard error; says the exit code.
    pub fn report(&self) -> u8 {
        // Nobody is left to be told when printing fails.
        match self {
            Refusal::CommandLine(error) => {
                let _ = error.print();
                u8::try_from(error.exit_code()).unwrap_or(2)
            }
            Refusal::Settings(text) => {
                let _ = writeln!(std::io::stderr(), "error: {text}");
                2
            }
        }
    }
}

/// Reads the command line (the program's name first) and the file that it names.
///
/// # Errors
/// The first thing that is not understood; `--help` and `--version` too.
pub fn invocation<I, T>(arguments: I) -> Result<Invocation, Refusal>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = command()
        .try_get_matches_from(arguments)
        .map_err(Refusal::CommandLine)?;
    let path = |matches: &ArgMatches, name: &str| {
        let path = matches.get_one::<PathBuf>(name);
        path.cloned().unwrap_or_default()
    };
    match matches.subcommand() {
        Some(("check", tool)) => Ok(Invocation::Check(path(tool, "DIR"))),
        Some(("backup", tool)) => Ok(Invocation::Backup(path(tool, "DIR"), path(tool, "TARGET"))),
        _ => serve(&matches),
    }
}

fn serve(matches: &ArgMatches) -> Result<Invocation, Refusal> {
    let mut settings = Settings::default();
    let file = matches.get_one::<PathBuf>("config").cloned();
    if let Some(path) = &file {
        file::load(path, &mut settings).map_err(Refusal::Settings)?;
    }
    for row in ROWS {
        let Some(text) = matches.get_one::<String>(row.name) else {
            continue;
        };
        let refused = |error| Refusal::Settings(format!("--{} {text}: {error}", row.name));
        row.kind.set(&mut settings, text).map_err(refused)?;
    }
    settings
        .check_relations()
        .map_err(|(name, error)| Refusal::Settings(format!("{name} {error}")))?;
    let settings = Box::new(settings);
    Ok(Invocation::Serve { settings, file })
}

/// The command line's grammar. Subcommands (tools that work on a data folder) go here.
fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Settings file in TOML, one `name = value` per line, with the names below");
    Command::new("tallyman")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(
            "Sizes are bytes, with k, m, g for powers of 1000 and kb, mb, gb for powers of 1024.",
        )
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .next_line_help(true)
        .arg(config)
        .args(ROWS.iter().map(option))
        .subcommand(check())
        .subcommand(backup())
}

fn check() -> Command {
    Command::new("check")
        .about("Reads all of a data folder, changes nothing, and says what is there or wrong")
        .long_about(
            "Reads everything in a data folder that no server is using, and changes nothing: \
             checksums, the log's chain, positions, rows, counts, deadlines, tokens. Prints what \
             is there. The exit code is 0, or 1 with the place of the first fault.",
        )
        .arg(folder("DIR", "The data folder"))
}

fn backup() -> Command {
    Command::new("backup")
        .about("Copies a data folder, also that of a running server, and checks the copy")
        .long_about(
            "Copies a data folder as it is at one moment; a server that runs on it goes on. \
             Everything that was acknowledged before is in the copy. It is read back and checked \
             as `check` does before it gets its name. Tables of the store are hard links where \
             the file system allows that, so copy the copy to another machine or disk.",
        )
        .arg(folder("DIR", "The data folder"))
        .arg(folder("TARGET", "The new folder; nothing may be there yet"))
}

fn folder(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help(help)
}

fn option(row: &'static Row) -> Arg {
    // The parser only looks; what it found is set when the file has been read.
    let parser = move |text: &str| -> Result<String, String> {
        let refused = |error| format!("{error} (allowed: {})", row.kind.allowed());
        row.kind
            .set(&mut Settings::default(), text)
            .map_err(refused)?;
        Ok(text.to_owned())
    };
    let default = if row.default.is_empty() {
        "empty"
    } else {
        row.default
    };
    Arg::new(row.name)
        .long(row.name)
        .value_name(row.kind.placeholder())
        .value_parser(parser)
        .allow_hyphen_values(true)
        .help_heading(row.group.title())
        .hide(row.change == Change::Never)
        .help(format!(
            "{} [allowed: {}] [default: {default}]",
            row.doc,
            row.kind.allowed()
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<(Settings, Option<PathBuf>), Refusal> {
        let arguments = std::iter::once("tallyman").chain(arguments.iter().copied());
        invocation(arguments).map(|invocation| match invocation {
            Invocation::Serve { settings, file } => (*settings, file),
            other => panic!("{other:?}"),
        })
    }

    fn refusal(arguments: &[&str]) -> (String, u8) {
        let refusal = parse(arguments).unwrap_err();
        let text = match &refusal {
            Refusal::CommandLine(error) => error.to_string(),
            Refusal::Settings(text) => text.clone(),
        };
        (text, refusal.report())
    }

    #[test]
    fn the_grammar_is_in_order() {
        command().debug_assert();
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(parse(&[]).unwrap(), (Settings::default(), None));
    }

    #[test]
    fn options_are_rediss_names() {
        let arguments = [
            "--port",
            "0",
            "--slowlog-log-slower-than",
            "-1",
            "--maxmemory=1gb",
            "--save",
            "",
        ];
        let (settings, _) = parse(&arguments).unwrap();
        assert_eq!(settings.port, 0);
        assert_eq!(settings.slowlog_slower_than_us, -1);
        assert_eq!(settings.maxmemory_bytes, 1 << 30);
    }

    #[test]
    fn tools_work_on_folders() {
        let invocation = |arguments: &[&str]| invocation(arguments.iter().copied()).unwrap();
        assert_eq!(
            invocation(&["tallyman", "check", "a"]),
            Invocation::Check("a".into())
        );
        assert_eq!(
            invocation(&["tallyman", "backup", "a", "b"]),
            Invocation::Backup("a".into(), "b".into())
        );
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        std::fs::write(&path, "port = 7000\nshards = 3\n").unwrap();
        let arguments = ["--port", "7001", "--config", path.to_str().unwrap()];
        let (settings, file) = parse(&arguments).unwrap();
        assert_eq!((settings.port, settings.shards), (7001, 3));
        assert_eq!(file, Some(path.clone()));
        std::fs::write(&path, "port = 7000\nshards = many\n").unwrap();
        let (text, code) = refusal(&["--config", path.to_str().unwrap()]);
        assert!(text.contains("t.toml:2: "), "{text}");
        assert_eq!(code, 2);
    }

    #[test]
    fn what_is_wrong_is_named_and_the_exit_code_is_2() {
        for (arguments, parts) in [
            (&["--port", "70000"][..], ["--port", "0 to 65535"]),
            (
                &["--appendfsync", "often"],
                ["--appendfsync", "everysec, always, no"],
            ),
            (&["--prot", "1"], ["--prot", "--port"]),
            (
                &["--bind", "nowhere"],
                ["--bind", "'nowhere' is not an IP address"],
            ),
            (&["--bind", ""], ["bind", "unixsocket"]),
            (&["extra"], ["extra", "unrecognized subcommand"]),
            (&["check"], ["<DIR>", "not provided"]),
            (
                &["--config", "/nonexistent"],
                ["/nonexistent", "No such file"],
            ),
            (
                &["--cluster-enabled", "yes"],
                ["--cluster-enabled", "only no"],
            ),
        ] {
            let (text, code) = refusal(arguments);
            assert_eq!(code, 2, "{arguments:?}");
            for part in parts {
                assert!(text.contains(part), "{arguments:?}: {text}");
            }
        }
    }

    #[test]
    fn help_explains_every_option_and_is_no_error() {
        let (text, code) = refusal(&["--help"]);
        assert_eq!(code, 0);
        for row in ROWS.iter().filter(|row| row.change != Change::Never) {
            assert!(text.contains(&format!("--{} <", row.name)), "{}", row.name);
        }
        assert_eq!(
            refusal(&["--version"]),
            (format!("tallyman {}\n", env!("CARGO_PKG_VERSION")), 0)
        );
    }
}

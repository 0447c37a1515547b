//! The README's table of commands.

use std::fmt::Write;

use crate::command::docs::usage;
use crate::command::spec::Group;
use crate::command::{Run, table};

/// The groups in the order of the documentation, with their headings.
const HEADINGS: &[(Group, &str)] = &[
    (Group::Connection, "Connection"),
    (Group::Server, "Server"),
    (Group::Generic, "Keys"),
    (Group::String, "Strings and counters"),
    (Group::Bitmap, "Bits"),
    (Group::Hash, "Hashes"),
    (Group::Transactions, "Transactions"),
    (Group::States, "State cells"),
    (Group::Limits, "Rate limits"),
    (Group::Credits, "Credits"),
    (Group::Once, "At most once"),
];

/// All commands in Markdown: a table per family.
pub fn markdown() -> String {
    let mut text = String::new();
    for (group, heading) in HEADINGS {
        let mut rows = table()
            .rows()
            .iter()
            .filter(|row| row.spec.group == *group && !matches!(row.run, Run::Container))
            .filter(|row| !row.spec.name.ends_with("|help"))
            .peekable();
        if rows.peek().is_none() {
            continue;
        }
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n### {heading}\n\n| command | what it does |\n| --- | --- |\n"
        );
        for row in rows {
            let usage = usage(row).replace('|', "\\|");
            let _ = writeln!(text, "| `{usage}` | {} |", row.spec.summary);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- commands: made from the command table -->";
    const END: &str = "<!-- end of commands -->";

    #[test]
    fn every_group_has_a_heading() {
        for row in table().rows() {
            let found = HEADINGS.iter().any(|(group, _)| *group == row.spec.group);
            assert!(found, "the group of {} has no heading", row.spec.name);
        }
    }

    #[test]
    fn the_readme_has_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let Ok(readme) = std::fs::read_to_string(path) else {
            return;
        };
        let (Some(begin), Some(end)) = (readme.find(BEGIN), readme.find(END)) else {
            return;
        };
        let expected = format!("{BEGIN}\n{}\n", markdown());
        if readme[begin..end] == expected {
            return;
        }
        if std::env::var_os("UPDATE_README").is_some() {
            let text = format!("{}{expected}{}", &readme[..begin], &readme[end..]);
            std::fs::write(path, text).expect("README.md can be written");
            return;
        }
        panic!("README.md's commands are out of date: UPDATE_README=1 cargo test --lib readme");
    }
}

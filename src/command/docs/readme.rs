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

    #[test]
    fn every_group_has_a_heading() {
        for row in table().rows() {
            let found = HEADINGS.iter().any(|(group, _)| *group == row.spec.group);
            assert!(found, "the group of {} has no heading", row.spec.name);
        }
    }

    #[test]
    fn the_readme_has_this_table() {
        crate::readme::assert_readme_has("commands", &markdown());
    }
}

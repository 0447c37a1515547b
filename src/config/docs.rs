//! The settings as documentation.

use super::{
    kind::{Change, Group, Row},
    table::ROWS,
};

/// The README's tables of settings, in Markdown: one per group, ending with a line break.
pub fn markdown() -> String {
    let mut text = String::new();
    for group in Group::ALL {
        text.push_str(&format!("**{}**\n\n", group.title()));
        text.push_str("| name | default | allowed | CONFIG SET | what it is |\n");
        text.push_str("| --- | --- | --- | --- | --- |\n");
        for row in ROWS.iter().filter(|row| row.group == group) {
            text.push_str(&line(row));
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn line(row: &Row) -> String {
    let default = if row.default.is_empty() {
        "empty".to_owned()
    } else {
        code(row.default)
    };
    let live = if row.change == Change::Live {
        "yes"
    } else {
        "no"
    };
    let (name, allowed) = (row.name, row.kind.allowed().replace('|', "\\|"));
    format!(
        "| `{name}` | {default} | {allowed} | {live} | {} |\n",
        row.doc
    )
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_its_line() {
        let text = markdown();
        for row in ROWS {
            let found = text
                .lines()
                .filter(|l| l.starts_with(&format!("| `{}` |", row.name)));
            assert_eq!(found.count(), 1, "{}", row.name);
        }
        assert!(
            text.lines()
                .all(|l| !l.starts_with('|') || l.matches(" | ").count() == 4)
        );
    }

    #[test]
    fn the_readme_has_these_tables() {
        crate::readme::assert_readme_has("settings", &markdown());
    }
}

//! The README's derived tables: what is committed is compared with what the tables say now.
//!
//! Always true: a test that finds a difference says how to rewrite the README.

use std::sync::{Mutex, PoisonError};

/// Two tables are checked by two tests: each reads and writes the whole file.
static FILE: Mutex<()> = Mutex::new(());

/// Asserts that the README has `table` between the lines `<!-- NAME: … -->` and
/// `<!-- end of NAME -->`; with `UPDATE_README` in the environment, puts it there.
pub(crate) fn assert_readme_has(name: &str, table: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let _alone = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let readme = std::fs::read_to_string(path).expect("README.md can be read");
    let begin = format!("<!-- {name}: made from the table in the source -->\n");
    let end = format!("<!-- end of {name} -->");
    let (Some(begins), Some(ends)) = (readme.find(&begin), readme.find(&end)) else {
        panic!("README.md has no place for the {name}: {begin}{end}");
    };
    let expected = format!("{begin}\n{}\n\n", table.trim());
    if readme[begins..ends] == expected {
        return;
    }
    if std::env::var_os("UPDATE_README").is_some() {
        let text = format!("{}{expected}{}", &readme[..begins], &readme[ends..]);
        std::fs::write(path, text).expect("README.md can be written");
        return;
    }
    panic!("README.md's {name} are out of date: UPDATE_README=1 cargo test --lib readme");
}

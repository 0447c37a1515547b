//! The check finds what is wrong, and changes nothing; a backup is a folder of its own.

use super::sample::{Sample, cell, count_row, deadline_row, main_row, of};
use super::*;
use crate::backup::backup;
use crate::keyspace::ValueRef;
use crate::store::row::{DeadlineOf, KeyOf, RowKey};

fn checked(sample: &Sample) -> Result<Counts, String> {
    let mut steps = Vec::new();
    let result = check(&sample.path(), &mut |step, _, _| steps.push(step));
    assert!(steps.contains(&Step::Tables));
    result.map_err(|failure| failure.to_string())
}

fn fault(sample: &Sample) -> String {
    checked(sample).unwrap_err()
}

#[test]
fn a_whole_folder_is_counted_and_stays_as_it_is() {
    let sample = Sample::new(true);
    let before = sample.files();
    let counts = checked(&sample).unwrap();
    assert_eq!(sample.files(), before);
    assert_eq!(
        (counts.keys, counts.stored_keys, counts.fields),
        (34, 33, 2)
    );
    assert_eq!((counts.deadlines, counts.dead_rows), (2, 1));
    assert_eq!((counts.log_batches, counts.unacknowledged_records), (5, 0));
    assert_eq!(counts.store_lsn, 3);
}

#[test]
fn a_folder_in_use_or_of_somebody_else_is_refused() {
    let sample = Sample::new(true);
    let identity = super::sample::IDENTITY;
    let mut fill = |_: &Path, _: &Identity| Err("not new".to_string());
    let held = crate::store::Folder::open(&sample.path(), identity, 77, &mut fill).unwrap();
    let text = check(&sample.path(), &mut |_, _, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("is in use by process") && text.contains("77 ms"),
        "{text}"
    );
    drop(held);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letter"), "dear").unwrap();
    for (path, what) in [
        (folder.path(), "not a data folder"),
        (&folder.path().join("none"), "there is no such folder"),
    ] {
        let text = check(path, &mut |_, _, _| {}).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn rows_that_do_not_fit_together_are_found() {
    let string = of(0, b"string");
    let wrong_hash = KeyOf { hash: 1, ..string };
    let wrong_slot = KeyOf { slot: 1, ..string };
    let deadline = deadline_row(string, DeadlineOf::Key).0;
    let field = RowKey::Field {
        of: of(2, b"hash"),
        generation: 5,
        hash: crate::keyspace::key::field_hash32(b"one", 9),
        field: b"one",
    };
    let unknown = main_row(of(3, b"string"), ValueRef::Counter(1), 0);
    let cut = (RowKey::Main(string).encode(), Some(vec![2, 0, 9, b'a']));
    let long = (RowKey::Main(string).encode(), Some(vec![1, 0, 2, 0]));
    for (row, what) in [
        (
            count_row(string.slot, 0, 2),
            "1 keys of database id 0, and its count says 2",
        ),
        (
            count_row(3, 0, 1),
            "slot 3 has 0 keys of database id 0, and its count says 1",
        ),
        (
            (RowKey::Main(of(0, b"{tag}counter:001")).encode(), None),
            "and its count says 29",
        ),
        (
            main_row(wrong_hash, ValueRef::Counter(1), 0),
            "its key has another hash",
        ),
        (
            main_row(wrong_slot, ValueRef::Counter(1), 0),
            "its key belongs to slot",
        ),
        ((deadline, None), "1 deadlines have no row"),
        (
            (field.encode(), None),
            "the hash hash has 2 fields, 1 were found",
        ),
        (unknown, "database id 3 was never given out"),
        (cut, "a string beyond the end"),
        (long, "1 bytes too many"),
        (
            main_row(string, ValueRef::Cell(&cell(200)), 0),
            "token 200 was handed out",
        ),
        ((vec![0, 1, 9, 9], Some(vec![])), "unknown kind 9"),
    ] {
        let sample = Sample::new(true);
        sample.change(vec![row]);
        let text = fault(&sample);
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn a_backup_is_whole_and_its_source_stays_as_it_is() {
    let sample = Sample::new(true);
    let before = sample.files();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("backups/first");
    let quiet = &mut |_: Step, _: u64, _: u64| {};
    let counts = backup(&sample.path(), &target, 1, 0, quiet).unwrap();
    assert_eq!(sample.files(), before);
    assert_eq!(counts.keys, 34);
    assert_eq!(check(&target, quiet).unwrap(), counts);
    let text = backup(&sample.path(), &target, 1, 0, quiet)
        .unwrap_err()
        .to_string();
    assert!(text.contains("there is something already"), "{text}");
    // A copy of the copy, over what an earlier try left.
    let second = folder.path().join("second");
    std::fs::create_dir(folder.path().join(".second.creating")).unwrap();
    std::fs::write(folder.path().join(".second.creating/CREATING"), "").unwrap();
    assert_eq!(backup(&target, &second, 1, 0, quiet).unwrap(), counts);
    assert!(!folder.path().join(".second.creating").exists());
    let text = backup(&target, &folder.path().join("third"), 1, 99, quiet);
    assert!(text.unwrap_err().to_string().contains("99 is durable"));
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["backups", "second"], "what failed leaves nothing");
}

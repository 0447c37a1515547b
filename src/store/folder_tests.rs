//! Tests of the data folder: made once, never taken for another, never made again over data.

use super::*;

const FRESH: Identity = Identity {
    folder_id: 0x0123,
    hash_seed: 0xFEDC_BA98_7654_3210,
};

fn fill(path: &Path, _: &Identity) -> Result<(), String> {
    fs::create_dir(path.join(STORE)).map_err(|error| error.to_string())?;
    fs::write(path.join(STORE).join("rows"), b"rows").map_err(|error| error.to_string())?;
    fs::create_dir(path.join(LOG)).map_err(|error| error.to_string())
}

fn open(path: &Path) -> Result<Folder, FolderError> {
    Folder::open(path, FRESH, 1_700_000_000_000, &mut fill)
}

fn open_with_other_numbers(path: &Path) -> Result<Folder, FolderError> {
    Folder::open(
        path,
        Identity {
            folder_id: 9,
            hash_seed: 9,
        },
        1,
        &mut |_, _| panic!("made again"),
    )
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_folder_is_made_once_and_keeps_its_identity() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("deep/inside/data");
    let folder = open(&path).unwrap();
    assert!(folder.is_new());
    assert_eq!(folder.identity(), FRESH);
    assert_eq!(folder.path(), path);
    assert_eq!(names(path.parent().unwrap()), ["data"]);
    assert_eq!(names(&path), [FORMAT, LOCK, LOG, STORE]);
    drop(folder);
    let folder = open_with_other_numbers(&path).unwrap();
    assert!(!folder.is_new());
    assert_eq!(folder.identity(), FRESH);
}

#[test]
fn an_empty_folder_is_filled_in_place() {
    let place = tempfile::tempdir().unwrap();
    fs::create_dir(place.path().join("lost+found")).unwrap();
    assert!(open(place.path()).unwrap().is_new());
    assert_eq!(
        names(place.path()),
        [FORMAT, LOCK, LOG, "lost+found", STORE]
    );
    assert!(!open_with_other_numbers(place.path()).unwrap().is_new());
}

#[test]
fn the_second_process_learns_who_has_it() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("data");
    let folder = open(&path).unwrap();
    let error = open_with_other_numbers(&path).unwrap_err().to_string();
    let holder = format!("in use by process {} (started at", std::process::id());
    assert!(
        error.contains(&format!("data folder {} is {holder}", path.display())),
        "{error}"
    );
    drop(folder);
    open_with_other_numbers(&path).unwrap();
}

#[test]
fn a_creation_that_was_cut_off_is_made_again() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("data");
    for inside in [false, true] {
        if inside {
            fs::create_dir(&path).unwrap();
        }
        let failed = Folder::open(&path, FRESH, 1, &mut |path, _| {
            fs::create_dir(path.join(STORE)).unwrap();
            fs::write(path.join(STORE).join("half"), b"half").unwrap();
            Err("no space".into())
        });
        assert!(failed.unwrap_err().to_string().contains("no space"));
        let folder = open(&path).unwrap();
        assert!(folder.is_new());
        assert_eq!(names(&folder.store_path()), ["rows"]);
        assert_eq!(names(place.path()), ["data"]);
        drop(folder);
        fs::remove_dir_all(&path).unwrap();
    }
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("thesis.tex"), b"precious").unwrap();
    let error = open(place.path()).unwrap_err();
    assert!(matches!(error, FolderError::NotOurs { .. }), "{error}");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(names(place.path()), ["thesis.tex"]);
    let file = place.path().join("thesis.tex");
    assert!(
        open(&file)
            .unwrap_err()
            .to_string()
            .contains("not a folder")
    );
    fs::write(place.path().join(FORMAT), b"something else\n").unwrap();
    let error = open(place.path()).unwrap_err();
    assert!(matches!(error, FolderError::NotOurs { .. }), "{error}");
}

#[test]
fn a_folder_that_lost_a_part_is_never_made_again() {
    for part in [FORMAT, STORE, LOG] {
        let place = tempfile::tempdir().unwrap();
        drop(open(place.path()).unwrap());
        let path = place.path().join(part);
        if part == FORMAT {
            fs::remove_file(&path).unwrap();
        } else {
            fs::remove_dir_all(&path).unwrap();
        }
        let error = open_with_other_numbers(place.path()).unwrap_err();
        assert_eq!(
            error,
            FolderError::Incomplete {
                file: path,
                what: "it is missing".into()
            }
        );
    }
}

#[test]
fn a_damaged_or_newer_format_is_named() {
    let place = tempfile::tempdir().unwrap();
    drop(open(place.path()).unwrap());
    let format = place.path().join(FORMAT);
    let text = fs::read_to_string(&format).unwrap();
    assert!(text.starts_with("tallyman data folder\nversion 1\nfolder-id 0000000000000123\n"));
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        fs::write(&format, &bytes).unwrap();
        // A change of the trailing newline alone changes nothing that is read.
        if let Ok(folder) = open_with_other_numbers(place.path()) {
            assert_eq!((at, folder.identity()), (text.len() - 1, FRESH));
        }
    }
    let newer = text.replace("version 1", "version 2");
    let body = newer.rsplit_once("crc32c").unwrap().0;
    let crc = crc32c::crc32c(body.as_bytes());
    fs::write(&format, format!("{body}crc32c {crc:08x}\n")).unwrap();
    let error = open_with_other_numbers(place.path()).unwrap_err();
    assert_eq!(
        error,
        FolderError::Newer {
            file: format,
            version: 2
        }
    );
    assert!(error.to_string().contains("newer server"));
}

#[test]
fn a_copy_removes_what_unfinished_ones_left_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    for name in [
        ".left.creating",
        ".foreign.creating",
        "left.creating",
        ".left",
    ] {
        fs::create_dir_all(at(name).join(STORE)).unwrap();
        fs::write(at(name).join(LOCK), "").unwrap();
        if name != ".foreign.creating" {
            fs::write(at(name).join(CREATING), "").unwrap();
        }
    }
    let working = Draft::begin(&at("working"), 1).unwrap();
    let draft = Draft::begin(&at("new"), 1).unwrap();
    let left = [
        ".foreign.creating",
        ".left",
        ".new.creating",
        ".working.creating",
        "left.creating",
    ];
    assert_eq!(names(place.path()), left);
    drop((working, draft));
    assert_eq!(names(place.path()), [left[0], left[1], left[4]]);
}

#[test]
fn a_folder_of_an_older_server_is_told_that_its_log_has_a_head_now() {
    let place = tempfile::tempdir().unwrap();
    drop(open(place.path()).unwrap());
    let format = place.path().join(FORMAT);
    let text = fs::read_to_string(&format).unwrap();
    let body = text.rsplit_once("crc32c").unwrap().0;
    let older = body.replace("log-has-head yes\n", "");
    assert_ne!(body, older);
    let crc = crc32c::crc32c(older.as_bytes());
    fs::write(&format, format!("{older}crc32c {crc:08x}\n")).unwrap();
    let mut folder = open(place.path()).unwrap();
    assert!(!folder.log_has_head() && !Look::at(place.path()).unwrap().log_has_head());
    folder.note_log_head().unwrap();
    assert!(folder.log_has_head() && Look::at(place.path()).unwrap().log_has_head());
    assert_eq!(fs::read_to_string(&format).unwrap(), text);
}

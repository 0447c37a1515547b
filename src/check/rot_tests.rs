//! Bit rot: flips bits of every file of a small data folder, one at a time. The folder must then
//! be refused, or give exactly what was written; and where it is refused, the check finds the
//! fault too. Never wrong, never less, never a panic.
//!
//! A flip at every `STEP`th byte of each file, and at all bytes of small ones; every byte with
//! `TALLYMAN_LONG=1`. The one undecidable case, the last record before a crash without a witness,
//! is counted by itself.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::sample::{IDENTITY, Sample};
use super::*;
use crate::log::Options;
use crate::store::Folder;
use crate::store::row::{RowKey, everything};

const STEP: usize = 7;
const SMALL_BYTES: usize = 200;

/// What a server would have after a start.
#[derive(Debug, PartialEq, Eq)]
struct Served {
    rows: Vec<(Bytes, Bytes)>,
    batches: Vec<Bytes>,
}

/// Starts as a server does, and reads everything: rows by scan and one by one.
fn serve(path: &Path, keys: &[Bytes]) -> Result<Served, String> {
    let text = |error: &dyn fmt::Display| error.to_string();
    let mut fill = |_: &Path, _: &Identity| Err("it was taken for a new folder".to_string());
    let folder = Folder::open(path, IDENTITY, 1, &mut fill).map_err(|error| text(&error))?;
    if folder.identity() != IDENTITY {
        return Err("another identity".into());
    }
    let store = FjallStore::look(&folder.store_path(), StoreOptions::default());
    let store = store.map_err(|error| text(&error))?;
    let meta = store.meta().map_err(|error| text(&error))?;
    let meta = meta.ok_or("no meta row")?;
    let (from, to) = everything();
    let rows = store.scan(&from, &to).collect::<Result<Vec<_>, _>>();
    let rows = rows.map_err(|error| text(&error))?;
    let mut found = Vec::new();
    for key in keys {
        let value = store.get(key).map_err(|error| text(&error))?;
        found.extend(value.map(|value| (key.clone(), value)));
    }
    if rows != found {
        return Err(format!(
            "WRONG: scan {} rows, gets {}",
            rows.len(),
            found.len()
        ));
    }
    for key in keys {
        let mut absent = key.to_vec();
        absent.push(0);
        if store.get(&absent).map_err(|error| text(&error))?.is_some() {
            return Err("WRONG: a row that was never written".into());
        }
    }
    let options = Options::new(IDENTITY.folder_id, Arc::new(|| 1));
    let disk = Arc::new(RealDisk::new(false));
    let known = meta.known(folder.log_has_head());
    let log = crate::log::open(disk, &folder.log_path(), options, known);
    let mut log = log.map_err(|error| text(&error))?;
    let mut batches = Vec::new();
    while let Some(batch) = log.next().map_err(|error| text(&error))? {
        batches.push(batch.payload);
    }
    Ok(Served { rows, batches })
}

#[derive(Debug, Default)]
struct Score {
    flips: usize,
    refused: usize,
    right: usize,
    /// The last record was taken for one that was never acknowledged.
    cut: usize,
    wrong: Vec<String>,
}

/// Flips one bit and looks at what comes of it.
fn flip(sample: &Sample, name: &Path, at: usize, expected: &Served, score: &mut Score) {
    let keys: Vec<Bytes> = expected.rows.iter().map(|(key, _)| key.clone()).collect();
    let copy = sample.copy();
    let path = copy.path().join(name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1 << (at % 8);
    fs::write(&path, bytes).unwrap();
    score.flips += 1;
    let place = format!("{} at {at}", name.display());
    let all = || {
        let checked = check(&copy.path(), &mut |_, _, _| {});
        (checked, serve(&copy.path(), &keys))
    };
    let Ok((checked, served)) = catch_unwind(AssertUnwindSafe(all)) else {
        score.wrong.push(format!("{place}: a panic"));
        return;
    };
    let is_table = name
        .parent()
        .is_some_and(|folder| folder.ends_with("tables"));
    match &checked {
        Ok(_) if is_table => score.wrong.push(format!("{place}: not found by the check")),
        Err(Failure::Fault(fault)) if is_table => {
            let told = fault.file.ends_with(name) && fault.what.contains("offset");
            if !told {
                score.wrong.push(format!("{place}: {fault}"));
            }
        }
        _ => {}
    }
    let expected_cut = &expected.batches[..expected.batches.len() - 1];
    match served {
        Err(text) if text.starts_with("WRONG") => score.wrong.push(format!("{place}: {text}")),
        Err(text) if checked.is_ok() => {
            score
                .wrong
                .push(format!("{place}: the check let pass: {text}"));
        }
        Err(_) => score.refused += 1,
        Ok(served) if served == *expected => score.right += 1,
        Ok(served) if served.rows == expected.rows && served.batches == expected_cut => {
            score.cut += 1;
        }
        Ok(_) => score
            .wrong
            .push(format!("{place}: something else was served")),
    }
}

fn keys_of(sample: &Sample) -> Vec<Bytes> {
    let opened = Opened::at(&sample.path().join("store")).unwrap();
    let (from, to) = everything();
    let rows = opened.store.scan(&from, &to);
    rows.map(|row| row.unwrap().0).collect()
}

fn rot(what: &str, sample: &Sample, wanted: impl Fn(&Path) -> bool) -> Score {
    let keys = keys_of(sample);
    assert!(keys.iter().all(|key| RowKey::decode(key).is_ok()));
    let expected = serve(&sample.copy().path(), &keys).unwrap();
    let long = std::env::var_os("TALLYMAN_LONG").is_some();
    let mut score = Score::default();
    for (name, bytes) in sample.files() {
        if !wanted(&name) {
            continue;
        }
        // Records are padded with zeros that nobody reads.
        let near = |at: &usize| {
            let end = bytes.len().min(at + 16);
            long || bytes[*at..end].iter().any(|&byte| byte != 0)
        };
        let places: Vec<usize> = (0..bytes.len()).filter(near).collect();
        let dense = long || places.len() <= SMALL_BYTES;
        for &at in places.iter().step_by(if dense { 1 } else { STEP }) {
            flip(sample, &name, at, &expected, &mut score);
        }
    }
    println!(
        "{what}: {} flips, {} refused, {} served right, {} took the last record for \
         one never acknowledged, {} wrong",
        score.flips,
        score.refused,
        score.right,
        score.cut,
        score.wrong.len()
    );
    assert!(score.wrong.is_empty(), "{:#?}", score.wrong);
    score
}

#[test]
fn a_flipped_bit_is_found_or_does_no_harm() {
    let score = rot("with a witness", &Sample::new(true), |_| true);
    assert_eq!(score.cut, 0);
    assert!(score.refused > score.flips / 2);
}

#[test]
fn without_a_witness_a_flip_in_the_last_record_cuts_it_and_no_other() {
    let score = rot("without", &Sample::new(false), is_of_log);
    assert!(score.cut > 0 && score.refused > score.cut / 2);
}

#[test]
fn rows_of_the_store_are_a_witness() {
    let score = rot("rows as a witness", &Sample::swept_late(), is_of_log);
    assert_eq!(score.cut, 0);
}

#[test]
fn a_log_that_lost_what_the_store_has_rows_of_is_refused() {
    for (sample, known) in [(Sample::swept_late(), true), (Sample::new(false), false)] {
        let keys = keys_of(&sample);
        let log = sample.path().join("log");
        let mut segments: Vec<_> = fs::read_dir(&log)
            .unwrap()
            .map(|file| file.unwrap())
            .collect();
        segments.sort_by_key(|file| file.file_name());
        let used = |path: &Path| {
            fs::read(path).unwrap()[4096..]
                .iter()
                .any(|byte| *byte != 0)
        };
        let last = segments
            .iter()
            .map(|file| file.path())
            .rfind(|path| used(path));
        let last = last.unwrap();
        // The file itself is missed, whatever it held.
        let copy = sample.copy();
        fs::remove_file(copy.path().join("log").join(last.file_name().unwrap())).unwrap();
        let text = serve(&copy.path(), &keys).unwrap_err();
        let found = check(&copy.path(), &mut |_, _, _| {});
        assert_eq!(found.unwrap_err().to_string(), text);
        assert!(text.contains("its last one, is missing"), "{text}");
        // Its records may never have been acknowledged.
        let mut bytes = fs::read(&last).unwrap();
        bytes[4096..].fill(0);
        fs::write(&last, bytes).unwrap();
        let checked = check(&sample.path(), &mut |_, _, _| {});
        match serve(&sample.path(), &keys) {
            Ok(served) => {
                assert!(!known, "a log without its end was served");
                assert!(served.batches.len() < 5 && checked.is_ok());
            }
            Err(text) => {
                assert!(known, "{text}");
                let told = ["the store has rows", "lsn 8", "restore the folder"];
                assert!(told.iter().all(|word| text.contains(word)), "{text}");
                let found = checked.unwrap_err().to_string();
                assert!(
                    text.contains(&found) || found.contains(&text),
                    "{found} and {text}"
                );
            }
        }
    }
}

fn is_of_log(name: &Path) -> bool {
    name.starts_with("log")
}

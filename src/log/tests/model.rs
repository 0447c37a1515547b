//! Random histories against a model: whatever was durable survives, and of the rest a prefix.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Run,
    RequestSync,
    Idle,
    Trim,
    Mode(u8),
    Reopen(u8, u64),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![0..200usize, 3_000..9_000usize, 50_000..90_000usize];
    prop_oneof![
        6 => bytes.prop_map(Step::Append),
        6 => Just(Step::Run),
        1 => Just(Step::RequestSync),
        1 => Just(Step::Idle),
        1 => Just(Step::Trim),
        1 => (0..3u8).prop_map(Step::Mode),
        2 => (0..5u8, any::<u64>()).prop_map(|(kind, seed)| Step::Reopen(kind, seed)),
    ]
}

/// What was given to the log, by lsn, in this history of it.
struct Model {
    rig: Rig,
    mode: SyncMode,
    given: BTreeMap<Lsn, Vec<u8>>,
    from: Position,
}

impl Model {
    fn apply(&mut self, step: Step, number: usize) {
        match step {
            Step::Append(bytes) => {
                let payload = vec![number as u8; bytes];
                let lsn = self.rig.log.append(batch(&payload));
                self.given.insert(lsn, payload);
            }
            Step::Run => self.rig.manual.run().unwrap(),
            Step::RequestSync => self.rig.log.request_sync(),
            Step::Idle => {
                self.rig.advance_us(LOG_EVERYSEC_US);
                self.rig.manual.run().unwrap();
            }
            Step::Trim => {
                self.from = self.rig.log.position();
                self.rig.log.trim(self.from.lsn);
            }
            Step::Mode(mode) => {
                self.mode = [SyncMode::Always, SyncMode::EverySec, SyncMode::No][mode as usize];
                self.rig.log.set_sync(self.mode);
            }
            Step::Reopen(kind, seed) => self.reopen(kind, seed),
        }
    }

    fn reopen(&mut self, kind: u8, seed: u64) {
        let durable_lsn = self.rig.log.durable_lsn();
        let disk = self.rig.disk.fork(seed);
        match kind {
            0 => disk.kill(),
            1 => disk.crash(Keep::Nothing),
            2 => disk.crash(Keep::Everything),
            3 => disk.crash(Keep::Some),
            _ => disk.crash(Keep::Torn),
        }
        let known = Known {
            has_head: true,
            ..self.from.into()
        };
        let (rig, replayed) = Rig::from(&disk, self.mode, known).unwrap();
        let replayed: BTreeMap<Lsn, Vec<u8>> = replayed
            .into_iter()
            .map(|r| (r.lsn, r.payload.to_vec()))
            .collect();
        let last = replayed
            .keys()
            .last()
            .copied()
            .unwrap_or(0)
            .max(durable_lsn);
        self.given
            .retain(|lsn, _| *lsn > self.from.lsn && *lsn <= last);
        assert!(
            replayed == self.given,
            "everything durable, and then a prefix"
        );
        assert!(rig.log.durable_lsn() >= durable_lsn);
        self.rig = rig;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn everything_durable_survives_and_the_rest_is_a_prefix(
        steps in prop::collection::vec(step(), 1..60),
        seed in any::<u64>(),
    ) {
        let (rig, _) = Rig::on(&SimDisk::new(seed), SyncMode::Always).unwrap();
        let mut model = Model {
            rig,
            mode: SyncMode::Always,
            given: Default::default(),
            from: Position::default(),
        };
        for (number, step) in steps.into_iter().enumerate() {
            model.apply(step, number);
        }
        model.apply(Step::Reopen(3, seed), 0);
    }
}

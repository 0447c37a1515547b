//! BACKUP: a checked copy of the data folder, below the folder that the setting backup-dir names.
//! Without that setting nobody can make the server write anywhere.

use std::path::Path;

use crate::command::SessionCommand;
use crate::command::spec::{Arg, Group, Spec, Type, flag};
use crate::reply::{Reject, Reply};
use crate::resp::decode::Args;
use crate::session::{Next, SessionCall};

/// Longest name, in bytes: what file systems take.
const NAME_BYTES_MAX: usize = 200;

/// Copies the data folder.
#[derive(Default)]
pub(super) struct Backup {
    name: String,
}

impl SessionCommand for Backup {
    const SPEC: Spec = Spec::session(
        "backup",
        Group::Server,
        "Makes a checked copy of the data folder and waits until it is complete.",
    )
    .with(flag::ADMIN | flag::DANGEROUS | flag::NOSCRIPT | flag::NO_MULTI)
    .notes(
        "The copy is the folder NAME below the one that the setting backup-dir names; without \
         that setting the command is refused. It has everything that was acknowledged before; \
         reads and writes go on meanwhile. A server started on it serves it.",
    )
    .reply("OK.");
    const GRAMMAR: &'static [Arg<Self>] = &[Arg::parsed(
        "name",
        "letters, digits, and . _ - behind the first",
        Type::Text,
        |backup: &mut Self, text, _| {
            backup.name = plain_name(text).ok_or(Reject::fixed(
                "ERR the name of a backup has letters, digits, and . _ - behind the first, at \
                 most 200",
            ))?;
            Ok(())
        },
    )];

    fn run(
        &self,
        call: &mut SessionCall<'_>,
        _args: Args<'_>,
        _reply: &mut Reply<'_>,
    ) -> Result<Next, Reject> {
        let folder = call.shared.settings.settings().backup_dir.clone();
        if folder.is_empty() {
            return Err(Reject::fixed(
                "ERR BACKUP not allowed. Start the server with the setting backup-dir, the folder \
                 that is to hold backups.",
            ));
        }
        Ok(Next::Backup(Path::new(&folder).join(&self.name)))
    }
}

/// A name that leads nowhere else: not up, not down, not to a hidden file.
fn plain_name(text: &[u8]) -> Option<String> {
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let plain = text.len() <= NAME_BYTES_MAX
        && text.first().is_some_and(u8::is_ascii_alphanumeric)
        && text.iter().all(inner);
    let text = std::str::from_utf8(text).ok().filter(|_| plain)?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::command::session_transcript::SessionTranscript;
    use crate::session::Next;

    #[test]
    fn nobody_can_make_the_server_write_where_it_was_not_told_to() {
        let mut t = SessionTranscript::new();
        t.check(
            "BACKUP a",
            "(error) ERR BACKUP not allowed. Start the server with the setting backup-dir, the \
             folder that is to hold backups.",
        );
        t.check(
            "CONFIG SET backup-dir /tmp",
            "(error) ERR CONFIG SET failed (possibly related to argument 'backup-dir') - can't set \
             immutable config",
        );
        let mut t = SessionTranscript::with(|s| s.backup_dir = "/backups".into());
        t.check_next(
            "BACKUP 2026-11-22.a_1",
            Next::Backup("/backups/2026-11-22.a_1".into()),
        );
        for name in [
            "..",
            ".hidden",
            "a/b",
            "/etc",
            "\"\"",
            "a\\x00b",
            &"x".repeat(201),
        ] {
            t.check(
                &format!("BACKUP {name}"),
                "(error) ERR the name of a backup has letters, digits, and . _ - behind the first, \
                 at most 200",
            );
        }
    }
}

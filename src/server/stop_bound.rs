//! The signals that stop the server, and a bound on how long it takes after the first of them: who
//! sends one wants the process to end, and the log has everything that was acknowledged.
//!
//! Always true: the bound begins with the first signal, whatever the main thread is at then.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::limits::STOP_MS_MAX;
use crate::log::Log;

/// Watches for signals, on a thread of its own, as long as the process lives. At the first the
/// receiver is told to stop. If that takes too long, the process ends as soon as the log is
/// durable; at another signal it ends at once.
///
/// # Errors
/// Signals cannot be listened to, or the thread cannot be started.
pub fn watch(log: Log) -> io::Result<oneshot::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The main thread's event loop stands still while that thread stops the server.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (tell, told) = oneshot::channel();
    let watching = async move || {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("told to stop by a signal");
        let _ = tell.send(());
        exit_code(next, log, Duration::from_millis(STOP_MS_MAX)).await
    };
    let thread = std::thread::Builder::new().name("stop".into());
    thread.spawn(move || std::process::exit(runtime.block_on(watching())))?;
    Ok(told)
}

/// How the process ends when it was told to stop and does not end by itself: `next` waits for
/// another signal.
async fn exit_code(mut next: impl AsyncFnMut(), log: Log, bound: Duration) -> i32 {
    if timeout(bound, next()).await.is_err() {
        tracing::warn!(
            "the stop takes too long: the process ends without a last checkpoint; the next start \
             reads the log instead"
        );
        let durable = tokio::task::spawn_blocking(move || log.wait_durable(log.last_lsn()));
        tokio::select! {
            // A log that has failed ends the process by itself.
            Ok(Ok(())) = durable => return 0,
            () = next() => {}
        }
    }
    tracing::warn!("told to stop again: the process ends at once");
    1
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::pin::pin;
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::log::sim_disk::SimDisk;
    use crate::log::{self, Batch, Options, Position};

    const HOUR: Duration = Duration::from_secs(3600);
    const MOMENT: Duration = Duration::from_millis(20);

    /// A disk that confirms nothing, until it is dropped: nobody waits for it then.
    struct Stuck(Arc<SimDisk>);

    impl Drop for Stuck {
        fn drop(&mut self) {
            self.0.hold_syncs(false);
        }
    }

    /// A log with a batch that its disk does not confirm.
    fn log_that_waits() -> (Stuck, Log) {
        let disk = SimDisk::new(1);
        let mut options = Options::new(1, Arc::new(|| 0));
        options.segment_bytes = 256 * 1024;
        let log = log::open(disk.disk(), Path::new("log"), options, Position::default());
        let log = log.unwrap().finish().unwrap();
        disk.hold_syncs(true);
        log.append(Batch {
            parts: vec![bytes::Bytes::from_static(b"acknowledged soon")],
            time_ms: 1,
            reserved_bytes: 0,
        });
        disk.wait_until_held();
        (Stuck(disk), log)
    }

    #[tokio::test]
    async fn a_stop_that_takes_too_long_ends_as_soon_as_the_log_is_durable() {
        let (disk, log) = log_that_waits();
        let mut code = pin!(exit_code(
            async || std::future::pending().await,
            log.clone(),
            Duration::ZERO
        ));
        let waits = timeout(MOMENT, &mut code).await.is_err();
        assert!(waits && log.durable_lsn() < log.last_lsn());
        drop(disk);
        assert_eq!(code.await, 0);
        assert_eq!(log.durable_lsn(), log.last_lsn());
    }

    #[tokio::test]
    async fn at_another_signal_the_process_ends_at_once() {
        for bound in [HOUR, Duration::ZERO] {
            let (_disk, log) = log_that_waits();
            let (send, mut sent) = mpsc::unbounded_channel();
            let next = async || sent.recv().await.unwrap();
            let mut code = pin!(exit_code(next, log, bound));
            assert!(timeout(MOMENT, &mut code).await.is_err(), "nothing ends it");
            send.send(()).unwrap();
            assert_eq!(timeout(HOUR / 60, code).await, Ok(1));
        }
    }
}

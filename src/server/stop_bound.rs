//! A bound on how long a stop by signal takes: whoever sent the signal wants the process to end,
//! and the log has everything that was acknowledged.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::limits::STOP_MS_MAX;
use crate::log::Log;

/// What ended the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Too much time has passed.
    Late,
    /// Another signal came.
    Again,
}

/// Watches a stop that begins, on a thread of its own. If it takes too long, the process ends as
/// soon as the log is durable; at another signal it ends at once.
pub fn watch(log: Log) {
    let thread = std::thread::Builder::new().name("stop".into());
    let watching = thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(bound(log)),
            Err(error) => tracing::warn!("nothing bounds the time that the stop takes: {error}"),
        }
    });
    if let Err(error) = watching {
        tracing::warn!("nothing bounds the time that the stop takes: {error}");
    }
}

async fn bound(log: Log) {
    if first(
        another_signal(),
        tokio::time::sleep(Duration::from_millis(STOP_MS_MAX)),
    )
    .await
        == End::Late
    {
        tracing::warn!(
            "the stop takes too long: the process ends without a last checkpoint; the next start \
             reads the log instead"
        );
        let durable = tokio::task::spawn_blocking(move || {
            if log.wait_durable(log.last_lsn()).is_ok() {
                std::process::exit(0);
            }
        });
        // A log that has failed ends the process by itself.
        first(another_signal(), async {
            let _ = durable.await;
            std::future::pending::<()>().await;
        })
        .await;
    }
    tracing::warn!("told to stop again: the process ends at once");
    std::process::exit(1);
}

async fn first(again: impl Future<Output = ()>, late: impl Future<Output = ()>) -> End {
    tokio::select! {
        biased;
        () = again => End::Again,
        () = late => End::Late,
    }
}

async fn another_signal() {
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

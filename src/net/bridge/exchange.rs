//! Reads and writes on one stream at the same time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::clock::Stopwatch;
use crate::net::socket::{SendProgress, Stream};

/// How often progress is checked within a time limit.
pub(super) const PROGRESS_CHECKS: u32 = 8;
/// A timer that is later than this shows that the process was paused. Bytes that came meanwhile are
/// read before the upstream is blamed.
pub(super) const PAUSE_MARGIN: Duration = Duration::from_millis(100);
/// How long the upstream has to take a DISCONNECT.
pub(super) const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The result of [`exchange`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transferred {
    /// Bytes read. `Some(0)` at the end of the stream.
    pub read: Option<usize>,
    /// Bytes written. `Some(0)` if there were none and the stream is flushed.
    pub wrote: Option<usize>,
}

/// Waits until bytes were read into `input`, or until some of `out` was written. Without `input`
/// nothing is read. An empty `out` flushes the stream. Cancel safe.
///
/// # Errors
/// The connection is lost.
pub(super) async fn exchange(
    stream: &mut Box<dyn Stream>,
    mut input: Option<&mut Vec<u8>>,
    out: Option<&[u8]>,
) -> io::Result<Transferred> {
    poll_fn(|cx| {
        let mut transferred = Transferred::default();
        if let Some(out) = out
            && let Poll::Ready(wrote) = poll_write_some(stream, cx, out)
        {
            transferred.wrote = Some(wrote?);
        }
        if let Some(input) = &mut input
            && let Poll::Ready(read) = pin!(stream.read_buf(&mut **input)).poll(cx)
        {
            transferred.read = Some(read?);
        }
        match transferred == Transferred::default() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(transferred)),
        }
    })
    .await
}

fn poll_write_some(
    stream: &mut Box<dyn Stream>,
    cx: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    if bytes.is_empty() {
        return pin!(stream.flush()).poll(cx).map_ok(|()| 0);
    }
    match pin!(stream.write(bytes)).poll(cx) {
        Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => written,
    }
}

/// Writes all of `out`, and reads into `input` until `done` returns a value. `limit` starts again
/// with each byte that is read, or taken by the upstream. Returns `None` when it is over.
///
/// # Errors
/// The connection is lost; `done` fails; or the upstream closes ([`io::ErrorKind::UnexpectedEof`]).
pub(super) async fn send_and_wait<T>(
    stream: &mut Box<dyn Stream>,
    out: &[u8],
    input: &mut Vec<u8>,
    limit: Duration,
    mut done: impl FnMut(&[u8]) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let mut progress = SendProgress::default();
    let (mut written, mut flushed) = (0, false);
    let mut idle = Stopwatch::start();
    loop {
        if let Some(found) = done(input)? {
            return Ok(Some(found));
        }
        let rest = (!flushed).then_some(&out[written..]);
        let asked = Stopwatch::start();
        tokio::select! {
            biased;
            transferred = exchange(stream, Some(&mut *input), rest) => {
                let transferred = transferred?;
                if transferred.read == Some(0) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                flushed |= transferred.wrote == Some(0);
                written += transferred.wrote.unwrap_or(0);
                progress.add_written(transferred.wrote.unwrap_or(0));
                idle = Stopwatch::start();
            }
            () = sleep(limit / PROGRESS_CHECKS) => {
                // While this process was paused, the upstream did not have its time.
                let is_late = asked.elapsed() > limit / PROGRESS_CHECKS + PAUSE_MARGIN;
                if progress.check(&*stream, !flushed).has_advanced || is_late {
                    idle = Stopwatch::start();
                } else if idle.elapsed() >= limit {
                    return Ok(None);
                }
            }
        }
    }
}

/// Writes all of `out` and closes the sending side. `limit` starts again while the upstream takes
/// bytes, at most `PROGRESS_CHECKS` times.
pub(super) async fn disconnect(
    stream: &mut Box<dyn Stream>,
    out: &[u8],
    progress: &mut SendProgress,
    limit: Duration,
) {
    let mut written = 0;
    let send_rest =
        async |stream: &mut Box<dyn Stream>, written: &mut usize, progress: &mut SendProgress| {
            while *written < out.len() {
                let wrote = poll_fn(|cx| poll_write_some(stream, cx, &out[*written..])).await?;
                *written += wrote;
                progress.add_written(wrote);
            }
            stream.flush().await?;
            stream.shutdown().await
        };
    for _ in 0..PROGRESS_CHECKS {
        progress.check(&*stream, written < out.len());
        let left: Result<io::Result<()>, _> =
            tokio::time::timeout(limit, send_rest(stream, &mut written, progress)).await;
        // An error does not matter any more.
        if left.is_ok() || !progress.check(&*stream, written < out.len()).has_advanced {
            break;
        }
    }
}

/// Returns whether the peer has closed the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

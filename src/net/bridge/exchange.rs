//! Bytes to the upstream and from it, both at once on one stream.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use crate::clock::Stopwatch;
use crate::net::socket::{Flow, Stream};

/// How often it is looked, within the time something may take, whether the upstream takes what is written to it.
pub(super) const LOOKS: u32 = 8;
/// What comes this much too late shows that this process was stopped: what has come meanwhile is looked at first.
pub(super) const LATE: Duration = Duration::from_millis(100);
/// How long the upstream has to take a DISCONNECT.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);

/// What [`exchange`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Bytes that have come: none at the end of the stream.
    pub read: Option<usize>,
    /// Bytes that were written; 0 if there were none to write and the stream holds none back.
    pub wrote: Option<usize>,
}

/// Waits until something has come and is appended to `input`, or some of `out` was written. Without an `input` nothing is read; an empty `out` makes sure that
/// the stream holds nothing back. Cancel safe.
///
/// # Errors
/// The connection is lost.
pub(super) async fn exchange(
    stream: &mut Box<dyn Stream>,
    mut input: Option<&mut Vec<u8>>,
    out: Option<&[u8]>,
) -> io::Result<Moved> {
    poll_fn(|cx| {
        let mut moved = Moved::default();
        if let Some(out) = out
            && let Poll::Ready(wrote) = poll_put(stream, cx, out)
        {
            moved.wrote = Some(wrote?);
        }
        if let Some(input) = &mut input
            && let Poll::Ready(read) = pin!(stream.read_buf(&mut **input)).poll(cx)
        {
            moved.read = Some(read?);
        }
        match moved == Moved::default() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(moved)),
        }
    })
    .await
}

fn poll_put(
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

/// Writes all of `out`, and goes on until `done` finds what it wants in what comes, which is appended to `input`. `patience` begins anew with every byte that
/// gets further, either way. `None` if it was over.
///
/// # Errors
/// The connection is lost; `done` fails; the upstream closes, then [`io::ErrorKind::UnexpectedEof`].
pub(super) async fn converse<T>(
    stream: &mut Box<dyn Stream>,
    out: &[u8],
    input: &mut Vec<u8>,
    patience: Duration,
    mut done: impl FnMut(&[u8]) -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let mut flow = Flow::default();
    let (mut written, mut flushed) = (0, false);
    let mut quiet = Stopwatch::start();
    loop {
        if let Some(found) = done(input)? {
            return Ok(Some(found));
        }
        let rest = (!flushed).then_some(&out[written..]);
        let asked = Stopwatch::start();
        tokio::select! {
            biased;
            moved = exchange(stream, Some(&mut *input), rest) => {
                let moved = moved?;
                if moved.read == Some(0) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                flushed |= moved.wrote == Some(0);
                written += moved.wrote.unwrap_or(0);
                flow.wrote(moved.wrote.unwrap_or(0));
                quiet = Stopwatch::start();
            }
            () = sleep(patience / LOOKS) => {
                // A process that was stopped has not given the upstream its time.
                let is_late = asked.elapsed() > patience / LOOKS + LATE;
                if flow.look(&*stream, !flushed).moved || is_late {
                    quiet = Stopwatch::start();
                } else if quiet.elapsed() >= patience {
                    return Ok(None);
                }
            }
        }
    }
}

/// Writes all of `out` and closes the sending side, as far as the upstream takes it: `patience` begins anew while it does, `LOOKS` times at most.
pub(super) async fn take_leave(
    stream: &mut Box<dyn Stream>,
    out: &[u8],
    flow: &mut Flow,
    patience: Duration,
) {
    let mut written = 0;
    let farewell = async |stream: &mut Box<dyn Stream>, written: &mut usize, flow: &mut Flow| {
        while *written < out.len() {
            let wrote = poll_fn(|cx| poll_put(stream, cx, &out[*written..])).await?;
            *written += wrote;
            flow.wrote(wrote);
        }
        stream.flush().await?;
        stream.shutdown().await
    };
    for _ in 0..LOOKS {
        flow.look(&*stream, written < out.len());
        let left: Result<io::Result<()>, _> =
            tokio::time::timeout(patience, farewell(stream, &mut written, flow)).await;
        // It has nothing to say to that.
        if left.is_ok() || !flow.look(&*stream, written < out.len()).moved {
            break;
        }
    }
}

/// Whether the peer has closed the connection.
pub(super) fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

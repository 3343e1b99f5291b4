//! Log lines on their way to standard error. Who logs never waits for who reads: a terminal that was
//! stopped, or a log driver that is stalled, must not stop the broker.
//!
//! A thread writes; lines that wait for it are bounded in bytes, and what is beyond is lost and
//! counted. When the thread goes on, a line says how many were lost. This is a thread of our own
//! because what there is in crates bounds lines and not bytes, and may itself wait on a stalled
//! stream when the process ends.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of lines that wait to be written. Reached: further lines are lost, and counted.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Bytes of a line. Of a longer one, as a client identifier of 65 KB makes, the middle is left out.
const MAX_LINE_BYTES: usize = 4096;
/// How long to wait before the next attempt on a stream that takes nothing and does not block.
const PAUSE: Duration = Duration::from_millis(20);

/// Lines that wait to be written, and the count of those that were lost.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<State>,
    /// Rung when there is something to write.
    more: Condvar,
    /// Rung when everything has been written.
    done: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// The thread is writing what it has taken.
    writing: bool,
    /// Lines that were lost after those that wait.
    lost: u64,
}

impl Log {
    /// Starts the thread "log", which writes to this stream.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<Arc<Log>> {
        let log = Arc::new(Log::default());
        let written = Arc::clone(&log);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || written.write_for_ever(to))?;
        Ok(log)
    }

    /// Waits until all lines have been written, at most this long. Returns whether they have.
    pub fn flush(&self, patience: Duration) -> bool {
        let is_open = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.done.wait_timeout_while(self.lock(), patience, is_open);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lines that were lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn push(&self, line: &[u8]) {
        let short = shortened(line);
        let line = short.as_deref().unwrap_or(line);
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MAX_WAITING_BYTES {
            state.lost += 1;
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.waiting.extend_from_slice(line);
        if !state.writing {
            self.more.notify_one();
        }
    }

    fn write_for_ever(&self, mut to: impl Write) {
        loop {
            let (lines, lost) = {
                let mut state = self.lock();
                state.writing = false;
                if state.waiting.is_empty() {
                    self.done.notify_all();
                }
                let is_idle = |state: &mut State| state.waiting.is_empty();
                let woken = self.more.wait_while(state, is_idle);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                state.writing = true;
                let lost = std::mem::take(&mut state.lost);
                (std::mem::take(&mut state.waiting), lost)
            };
            if lost > 0 {
                // It is the next line to be written after those of before the loss.
                tracing::warn!(
                    lines = lost,
                    "log lines were lost: standard error was not read in time"
                );
            }
            if let Err(unwritten) = write_all(&mut to, &lines) {
                let lines = unwritten.iter().filter(|byte| **byte == b'\n').count();
                self.lost.fetch_add(lines as u64, Ordering::Relaxed);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Log {
    /// Takes a whole line, or loses it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The beginning and the end of a line that is too long; `None` for any other.
fn shortened(line: &[u8]) -> Option<Vec<u8>> {
    if line.len() <= MAX_LINE_BYTES {
        return None;
    }
    let is_inside_char = |at: &usize| line[*at] & 0xC0 == 0x80;
    let (half, tail) = (MAX_LINE_BYTES / 2, line.len() - MAX_LINE_BYTES / 2);
    let head = (1..=half)
        .rev()
        .find(|at| !is_inside_char(at))
        .unwrap_or(half);
    let tail = (tail..line.len())
        .find(|at| !is_inside_char(at))
        .unwrap_or(tail);
    let left_out = format!(" ... ({} bytes are left out) ... ", tail - head);
    Some([&line[..head], left_out.as_bytes(), &line[tail..]].concat())
}

/// Writes all of it, or returns what could not be written.
fn write_all<'a>(to: &mut impl Write, mut bytes: &'a [u8]) -> Result<(), &'a [u8]> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(bytes),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(_) => return Err(bytes),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn of_a_line_that_is_too_long_the_middle_is_left_out() {
        assert_eq!(shortened(&[b'x'; MAX_LINE_BYTES]), None);
        for (fill, more) in [("x", 60_000), ("ä", 30_001), ("€", 20_002)] {
            let line = format!("client={} why=ended\n", fill.repeat(more));
            let short = shortened(line.as_bytes()).expect("it is long");
            let short = String::from_utf8(short).expect("whole characters");
            assert!(short.len() < MAX_LINE_BYTES + 60, "{}", short.len());
            assert!(short.starts_with("client=") && short.ends_with(" why=ended\n"));
            assert!(short.contains("bytes are left out"), "{short:.80}");
        }
    }

    /// A stream that takes something only when it is read.
    struct Stalled(SyncSender<Vec<u8>>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map(|()| bytes.len())
                .map_err(|_| ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stalled() -> (Arc<Log>, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (Log::start(Stalled(sender)).expect("a thread"), receiver)
    }

    #[test]
    fn who_logs_never_waits_and_what_does_not_fit_is_counted() {
        let (log, reader) = stalled();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fit = MAX_WAITING_BYTES / line.len();
        // The thread may have taken the first ones by the time the others come.
        for _ in 0..3 * fit {
            log.push(&line);
        }
        let lost = log.lost() as usize;
        assert!((fit..=2 * fit).contains(&lost), "{lost} of {}", 3 * fit);
        assert!(!log.flush(Duration::from_millis(1)), "nobody reads");
        let mut got = 0;
        while got < (3 * fit - lost) * line.len() {
            got += reader.recv_timeout(LONG).expect("the rest comes").len();
        }
        assert!(log.flush(LONG));
        assert_eq!(log.lost() as usize, lost);
    }

    #[test]
    fn lines_that_a_closed_stream_does_not_take_are_lost_and_it_goes_on() {
        let (log, reader) = stalled();
        drop(reader);
        log.push(b"a\nb\n");
        assert!(log.flush(LONG));
        assert_eq!(log.lost(), 2);
        log.push(b"c\n");
        assert!(log.flush(LONG));
        assert_eq!(log.lost(), 3);
    }
}

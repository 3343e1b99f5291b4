//! Log lines on their way to standard error.
//!
//! Logging never blocks: a stopped terminal or a stalled log driver must not stop the broker. A
//! thread writes the lines. The bytes that wait for it are limited. Lines beyond the limit are lost
//! and counted, and a line says how many when the thread goes on.
//!
//! This is a thread of our own, because existing crates limit lines and not bytes, and may wait for
//! a stalled stream when the process ends.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of lines that wait to be written. Reached: further lines are lost and counted.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Bytes of one line. Exceeded: its middle is left out. A client identifier of 65 KB makes such a
/// line.
const MAX_LINE_BYTES: usize = 4096;
/// Time between two attempts to write to a stream that does not block and takes nothing.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Lines that wait to be written, and the count of lost lines.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<State>,
    /// Notified when there is something to write.
    more: Condvar,
    /// Notified when everything is written.
    done: Condvar,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines.
    waiting: Vec<u8>,
    /// The thread writes lines that it has taken.
    writing: bool,
    /// Lines that were lost behind those that wait.
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
            .spawn(move || written.run(to))?;
        Ok(log)
    }

    /// Waits until all lines are written, or until the time-out. Returns whether all are written.
    pub fn flush(&self, timeout: Duration) -> bool {
        let is_unwritten = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self
            .done
            .wait_timeout_while(self.lock(), timeout, is_unwritten);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Returns how many lines were lost since the start.
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

    fn run(&self, mut to: impl Write) {
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
                // This line is written directly behind those before the loss.
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
    /// Takes a whole line, or drops it if there is no room.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the start and the end of a line that is too long. `None` for other lines.
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

/// Writes all bytes, or returns those that could not be written.
fn write_all<'a>(to: &mut impl Write, mut bytes: &'a [u8]) -> Result<(), &'a [u8]> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(bytes),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(RETRY_INTERVAL)
            }
            Err(_) => return Err(bytes),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const TEST_TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn the_middle_of_a_long_line_is_left_out() {
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

    /// A stream that takes bytes only when it is read.
    struct StalledStream(SyncSender<Vec<u8>>);

    impl Write for StalledStream {
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
        (
            Log::start(StalledStream(sender)).expect("a thread"),
            receiver,
        )
    }

    #[test]
    fn logging_never_blocks_and_lines_that_do_not_fit_are_counted() {
        let (log, reader) = stalled();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let fit = MAX_WAITING_BYTES / line.len();
        // The thread may take the first lines before the others come.
        for _ in 0..3 * fit {
            log.push(&line);
        }
        let lost = log.lost() as usize;
        assert!((fit..=2 * fit).contains(&lost), "{lost} of {}", 3 * fit);
        assert!(!log.flush(Duration::from_millis(1)), "nobody reads");
        let mut got = 0;
        while got < (3 * fit - lost) * line.len() {
            got += reader
                .recv_timeout(TEST_TIMEOUT)
                .expect("the rest comes")
                .len();
        }
        assert!(log.flush(TEST_TIMEOUT));
        assert_eq!(log.lost() as usize, lost);
    }

    #[test]
    fn lines_for_a_closed_stream_are_lost_and_later_lines_are_tried() {
        let (log, reader) = stalled();
        drop(reader);
        log.push(b"a\nb\n");
        assert!(log.flush(TEST_TIMEOUT));
        assert_eq!(log.lost(), 2);
        log.push(b"c\n");
        assert!(log.flush(TEST_TIMEOUT));
        assert_eq!(log.lost(), 3);
    }
}

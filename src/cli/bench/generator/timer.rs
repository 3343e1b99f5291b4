//! Wakes the event loop at a time in microseconds, on systems without such timers in milliseconds.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

/// A timer that ends a poll.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Timer(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Timer {
    /// Creates a timer that wakes the poll with this token.
    ///
    /// # Errors
    /// Fails if the operating system has none.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Timer> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(
            &mut mio::unix::SourceFd(&fd.as_raw_fd()),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Timer(fd))
    }

    /// Sets the timer to expire after `after`. Returns the time-out of the poll, if the timer does
    /// not wake it.
    ///
    /// # Errors
    /// Fails if the operating system refuses.
    pub fn set(&self, after: Duration) -> io::Result<Option<Duration>> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        let after = after.max(Duration::from_nanos(1));
        let new = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: after.as_secs() as i64,
                tv_nsec: i64::from(after.subsec_nanos()),
            },
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &new)?;
        Ok(None)
    }
}

/// Replaces the timer where there is none to poll.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Timer;

#[cfg(not(target_os = "linux"))]
impl Timer {
    /// Creates a timer that does not wake the poll.
    ///
    /// # Errors
    /// Never.
    pub fn new(_: &Registry, _: Token) -> io::Result<Timer> {
        Ok(Timer)
    }

    /// Returns the time-out of the poll.
    ///
    /// # Errors
    /// Never.
    pub fn set(&self, after: Duration) -> io::Result<Option<Duration>> {
        Ok(Some(after))
    }
}

//! Wakes the loop at a time to the microsecond, where the operating system can; to the millisecond elsewhere.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

/// A timer that ends a poll.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct Alarm(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Alarm {
    /// An alarm that wakes with this token.
    ///
    /// # Errors
    /// The operating system has none.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Alarm> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        use std::os::fd::AsRawFd;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(
            &mut mio::unix::SourceFd(&fd.as_raw_fd()),
            token,
            mio::Interest::READABLE,
        )?;
        Ok(Alarm(fd))
    }

    /// Sets it to `after` now. Returns how long a poll may wait, if it would not be woken.
    ///
    /// # Errors
    /// The operating system refuses.
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

/// Stands in where there is no timer to poll.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    /// An alarm that does not wake.
    ///
    /// # Errors
    /// Never.
    pub fn new(_: &Registry, _: Token) -> io::Result<Alarm> {
        Ok(Alarm)
    }

    /// Returns how long a poll may wait.
    ///
    /// # Errors
    /// Never.
    pub fn set(&self, after: Duration) -> io::Result<Option<Duration>> {
        Ok(Some(after))
    }
}

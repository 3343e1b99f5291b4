//! Whether a client takes what is written to it.

/// Whether a client takes what is written to it.
#[derive(Debug, Default)]
pub struct WriteProgress {
    /// Something was sent that it may not have taken.
    is_pending: bool,
    /// When it last took something, or something was first sent, in milliseconds of uptime.
    last: u64,
    /// The driver is asked whether it has taken something.
    is_asked: bool,
}

impl WriteProgress {
    /// Whether something was sent that the client may not have taken.
    pub fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Whether the driver is asked.
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// When the client last took something, or something was first sent, in milliseconds of uptime.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Begins to wait: something is being sent, and nothing was pending.
    #[inline]
    pub fn begin(&mut self, uptime: u64) {
        debug_assert!(!self.is_pending);
        self.is_pending = true;
        self.last = uptime;
    }

    /// Asks the driver.
    pub fn ask(&mut self) {
        self.is_asked = true;
    }

    /// Takes the driver's answer: whether something is pending, and whether the client has taken
    /// anything since the last answer.
    pub fn report(&mut self, is_pending: bool, has_advanced: bool, uptime: u64) {
        self.is_asked = false;
        self.is_pending = is_pending;
        if has_advanced {
            self.last = uptime;
        }
    }
}

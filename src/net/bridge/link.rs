//! A connection of a bridge: moves bytes between the upstream and the [`Relay`], which handles
//! them.

use std::io;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::exchange::{
    DISCONNECT_TIMEOUT, PAUSE_MARGIN, PROGRESS_CHECKS, disconnect, exchange, is_closed,
};
use super::input::{Input, Next};
use crate::broker::bridge::{Bridge, End, Leave, Relay};
use crate::clock::Now;
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::{SharedBroker, WakeOn};
use crate::net::socket::{SendProgress, Socket, Stream};
use crate::wire::packet::Disconnect;
use crate::wire::{Packet, Properties, ProtocolVersion, ReasonCode, codec};

/// Space for each read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Wakes the link when the broker has output for the bridge.
#[derive(Default)]
struct Wakeup(Notify);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// A connection to an upstream that has accepted the CONNECT.
pub(super) struct Link {
    broker: Arc<SharedBroker>,
    bridge: Arc<Bridge>,
    /// `$SYS` says already that the bridge is connected.
    is_published: bool,
    pub relay: Relay,
    max_packet_size: u32,
    /// How long the link stays connected with nothing to do.
    idle_timeout: Option<Duration>,
    wakeup: Arc<Wakeup>,
    input: Input,
    /// Bytes to write, and how many of them are written.
    out: Vec<u8>,
    written: usize,
    /// The stream may still hold written bytes.
    unflushed: bool,
    /// Whether the upstream takes what is written, and when to check that next, in milliseconds of
    /// uptime.
    send_progress: SendProgress,
    next_check: u64,
    /// When the next step is due, in milliseconds of uptime.
    next_step: u64,
    /// Bytes that had come at the last check, and whether any were read since.
    received_bytes: u64,
    has_read: bool,
}

impl Link {
    /// `input` is what came behind the CONNACK.
    pub fn new(
        broker: Arc<SharedBroker>,
        bridge: Arc<Bridge>,
        relay: Relay,
        max_packet_size: u32,
        idle_timeout: Option<Duration>,
        input: Vec<u8>,
    ) -> Link {
        Link {
            broker,
            bridge,
            is_published: false,
            relay,
            max_packet_size,
            idle_timeout,
            wakeup: Arc::default(),
            input: Input::new(input),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            send_progress: SendProgress::default(),
            next_check: 0,
            next_step: u64::MAX,
            received_bytes: 0,
            has_read: false,
        }
    }

    /// Moves bytes until the relay leaves (`Ok`) or the connection is lost.
    pub async fn serve(&mut self, stream: &mut Box<dyn Stream>) -> io::Result<Leave> {
        loop {
            let (pause, wait) = match self.step(&*stream) {
                Ok(stepped) => stepped,
                Err(leave) => return Ok(leave),
            };
            let within = self.input.is_within_packet();
            self.input.bytes.reserve(READ_BYTES);
            let input = (!pause).then_some(&mut self.input.bytes);
            let out = (!self.out.is_empty() || self.unflushed).then(|| &self.out[self.written..]);
            tokio::select! {
                transferred = exchange(stream, input, out) => {
                    let transferred = transferred?;
                    if transferred.read == Some(0) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.has_read |= transferred.read.is_some();
                    // A partial packet also shows that the upstream is alive.
                    if transferred.read.is_some() && within {
                        self.relay.heard(self.broker.now());
                    }
                    if let Some(count) = transferred.wrote {
                        self.wrote(count);
                    }
                }
                () = self.wakeup.0.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Hands all whole packets to the broker and takes output, under one lock. Returns whether to
    /// pause reading, and how long until the next step is due.
    fn step(&mut self, stream: &dyn Stream) -> Result<(bool, Duration), Leave> {
        let now = self.broker.now();
        if now.uptime
            >= self
                .next_step
                .saturating_add(PAUSE_MARGIN.as_millis() as u64)
        {
            self.relay.excuse(now);
        }
        self.check_progress(stream, now);
        let Link {
            relay, out, input, ..
        } = self;
        let mut guard = self.broker.lock(Purpose::Packets, Some(relay.connection()));
        let now = guard.now();
        let version = relay.version();
        let mut used = 0;
        while !relay.is_ahead(guard.broker(), now) {
            match input.next(&mut used, self.max_packet_size)? {
                Next::Frame(frame) => {
                    let packet = codec::decode(frame, version)?;
                    relay.receive(packet, guard.broker(), out, now)?;
                }
                Next::TooLarge(publish) => {
                    relay.refuse_too_large(&publish, guard.broker(), out, now);
                }
                Next::Nothing => break,
            }
        }
        input.bytes.drain(..used);
        if relay.is_ahead(guard.broker(), now) {
            // The upstream's bytes are not read at present, so it is not to blame for silence.
            relay.heard(now);
        }
        relay.tick(out, now)?;
        let pause = if out.is_empty() {
            relay.take_output(guard.broker(), out, now)?
        } else {
            guard.broker().should_pause(relay.connection())
        };
        if relay.is_subscribed() && !std::mem::replace(&mut self.is_published, true) {
            let bridge = &self.bridge;
            guard.broker().set_bridge_state(bridge, None, now);
            relay.tell_what_is_missed(guard.broker());
            relay.notify(true, out);
        }
        let pause = pause || relay.has_heard_all(guard.broker());
        let waker = Waker::from(Arc::clone(&self.wakeup));
        guard.set_waker(relay.connection(), &waker, WakeOn::Output);
        let mut next = relay.next_timeout();
        if let Some(timeout) = self.idle_timeout
            && let Some(since) = relay.idle_since(guard.broker())
        {
            let at = since + timeout.as_millis() as u64;
            if now.uptime >= at && out.is_empty() {
                return Err(Leave::Idle);
            }
            next = next.min(at);
        }
        if relay.is_waiting() {
            next = next.min(self.next_check.max(now.uptime + 1));
        }
        let wait = next.saturating_sub(now.uptime).min(3_600_000);
        self.next_step = now.uptime + wait;
        Ok((pause, Duration::from_millis(wait)))
    }

    /// While the relay waits, tells it whether the upstream takes what it is sent. The answer to a
    /// packet behind large ones cannot come before those have arrived.
    fn check_progress(&mut self, stream: &dyn Stream, now: Now) {
        let received_bytes = stream.socket().map_or(0, Socket::received);
        let is_more = std::mem::replace(&mut self.received_bytes, received_bytes) < received_bytes;
        if is_more && !std::mem::take(&mut self.has_read) {
            // An incomplete TLS record or WebSocket frame also shows that the upstream is alive.
            self.relay.heard(now);
        }
        let held = !self.out.is_empty() || self.unflushed;
        self.relay.set_writing(held, now);
        let is_time = now.uptime >= self.next_check.min(self.relay.next_timeout());
        if !self.relay.is_waiting() || !is_time {
            return;
        }
        if self.send_progress.check(stream, held).has_advanced {
            self.relay.moved(now);
        }
        self.next_check =
            now.uptime + (self.relay.response_timeout() / u64::from(PROGRESS_CHECKS)).max(1);
    }

    fn wrote(&mut self, count: usize) {
        if count == 0 {
            self.unflushed = false;
            return;
        }
        self.written += count;
        self.send_progress.add_written(count);
        if self.written == self.out.len() {
            self.out = Vec::new();
            self.written = 0;
            self.unflushed = true;
        }
        self.relay.wrote(self.broker.now());
    }

    /// Finishes what is in flight and begins nothing new. [`Link::serve`] returns when that is
    /// done. The caller limits the time.
    pub fn finish(&mut self) {
        let mut guard = self
            .broker
            .lock(Purpose::Other, Some(self.relay.connection()));
        let now = guard.now();
        self.relay.finish(guard.broker(), &mut self.out, now);
    }

    /// Records how the connection ended, so that the next one knows what may have caused it.
    pub fn record_end(&mut self, ended: &io::Result<Leave>) {
        let end = match ended {
            Ok(leave) => End::from(leave),
            Err(error) if is_closed(error) => End::Closed,
            Err(_) => End::Other,
        };
        let mut guard = self
            .broker
            .lock(Purpose::Other, Some(self.relay.connection()));
        let now = guard.now();
        self.relay.ended(&end, guard.broker(), now);
    }

    /// Writes the rest of the output and DISCONNECT, if the upstream takes them in time.
    pub async fn disconnect(&mut self, stream: &mut Box<dyn Stream>) {
        if self.is_published {
            self.relay.notify(false, &mut self.out);
        }
        put_disconnect(self.relay.version(), &mut self.out);
        disconnect(
            stream,
            &self.out[self.written..],
            &mut self.send_progress,
            DISCONNECT_TIMEOUT,
        )
        .await;
    }
}

impl Drop for Link {
    /// Closes the connection at this broker, also if the bridge is stopped in the middle.
    fn drop(&mut self) {
        let mut guard = self
            .broker
            .lock(Purpose::Lost, Some(self.relay.connection()));
        let now = guard.now();
        self.relay.close(guard.broker(), now);
        guard.forget_waker(self.relay.connection());
    }
}

pub(super) fn put_disconnect(version: ProtocolVersion, out: &mut Vec<u8>) {
    let packet = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    });
    codec::encode(&packet, version, out);
}

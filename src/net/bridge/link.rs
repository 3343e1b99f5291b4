//! A connection of a bridge: moves bytes between the upstream and the [`Relay`] that knows what they mean.

use std::io;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::FAREWELL;
use super::call::is_closed;
use super::input::{Input, Next};
use crate::broker::bridge::{Bridge, End, Leave, Relay};
use crate::net::connection::Stream;
use crate::net::core::{Core, Until};
use crate::net::visits::Purpose;
use crate::wire::packet::Disconnect;
use crate::wire::{Packet, Properties, ProtocolVersion, ReasonCode, codec};

/// Room for bytes of the upstream, at each read.
const READ_BYTES: usize = 64 * 1024;

/// Notes that the broker has something for the bridge.
#[derive(Default)]
struct Wakeup(Notify);

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// A connection to an upstream that has accepted.
pub(super) struct Link {
    core: Arc<Core>,
    bridge: Arc<Bridge>,
    /// It has been published that the bridge is connected.
    told: bool,
    pub relay: Relay,
    max_packet_size: u32,
    wakeup: Arc<Wakeup>,
    input: Input,
    /// What is being written, and how far that is.
    out: Vec<u8>,
    written: usize,
    /// The stream may still hold what was written to it.
    unflushed: bool,
}

impl Link {
    /// `input` is what has come behind the CONNACK.
    pub fn new(
        core: Arc<Core>,
        bridge: Arc<Bridge>,
        relay: Relay,
        max_packet_size: u32,
        input: Vec<u8>,
    ) -> Link {
        Link {
            core,
            bridge,
            told: false,
            relay,
            max_packet_size,
            wakeup: Arc::default(),
            input: Input::new(input),
            out: Vec::new(),
            written: 0,
            unflushed: false,
        }
    }

    /// Moves bytes until the relay wants to leave (`Ok`), or the connection is lost.
    pub async fn serve(
        &mut self,
        reader: &mut ReadHalf<Box<dyn Stream>>,
        writer: &mut WriteHalf<Box<dyn Stream>>,
    ) -> io::Result<Leave> {
        loop {
            let (pause, wait) = match self.visit() {
                Ok(visited) => visited,
                Err(leave) => return Ok(leave),
            };
            let within = self.input.is_within_packet();
            self.input.bytes.reserve(READ_BYTES);
            tokio::select! {
                read = reader.read_buf(&mut self.input.bytes), if !pause => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    // In the middle of a packet nothing else can come.
                    if within {
                        self.relay.heard(self.core.now());
                    }
                }
                put = put(writer, &self.out[self.written..]), if !self.out.is_empty() || self.unflushed => {
                    self.wrote(put?);
                }
                () = self.wakeup.0.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// One visit to the broker: hands over all whole packets that have come, and takes what there is. Whether to pause reading, and how long until
    /// something is due.
    fn visit(&mut self) -> Result<(bool, Duration), Leave> {
        let Link {
            relay, out, input, ..
        } = self;
        let mut entered = self.core.enter(Purpose::Packets, Some(relay.connection()));
        let now = entered.now();
        let version = relay.version();
        let mut used = 0;
        while !relay.is_ahead(entered.broker(), now) {
            match input.next(&mut used, self.max_packet_size)? {
                Next::Frame(frame) => {
                    let packet = codec::decode(frame, version)?;
                    relay.receive(packet, entered.broker(), out, now)?;
                }
                Next::TooLarge(publish) => {
                    relay.refuse_too_large(&publish, entered.broker(), out, now);
                }
                Next::Nothing => break,
            }
        }
        input.bytes.drain(..used);
        if relay.is_ahead(entered.broker(), now) {
            // Nothing of the upstream is looked at: it is not to blame for being quiet.
            relay.heard(now);
        }
        relay.tick(out, now)?;
        let pause = if out.is_empty() {
            relay.take_output(entered.broker(), out, now)?
        } else {
            entered.broker().should_pause(relay.connection())
        };
        if relay.is_subscribed() && !std::mem::replace(&mut self.told, true) {
            let bridge = &self.bridge;
            entered.broker().set_bridge_state(bridge, None, now);
        }
        let pause = pause || relay.has_heard_all(entered.broker());
        let waker = Waker::from(Arc::clone(&self.wakeup));
        entered.set_waker(relay.connection(), &waker, Until::Touched);
        let wait = relay.next_timeout().saturating_sub(now.uptime);
        Ok((pause, Duration::from_millis(wait.min(3_600_000))))
    }

    fn wrote(&mut self, count: usize) {
        if count == 0 {
            self.unflushed = false;
            return;
        }
        self.written += count;
        if self.written == self.out.len() {
            self.out = Vec::new();
            self.written = 0;
            self.unflushed = true;
        }
        self.relay.wrote(self.core.now());
    }

    /// Finishes what is under way and begins nothing more: [`Link::serve`] ends when that is done. How long that may take is up to the caller.
    pub fn finish(&mut self) {
        let mut entered = self
            .core
            .enter(Purpose::Other, Some(self.relay.connection()));
        let now = entered.now();
        self.relay.finish(entered.broker(), &mut self.out, now);
    }

    /// Notes how the connection has ended, so that the next one knows what this one may have died on.
    pub fn note_end(&mut self, ended: &io::Result<Leave>) {
        let end = match ended {
            Ok(leave) => End::from(leave),
            Err(error) if is_closed(error) => End::Closed,
            Err(_) => End::Other,
        };
        let mut entered = self
            .core
            .enter(Purpose::Other, Some(self.relay.connection()));
        let now = entered.now();
        self.relay.ended(&end, entered.broker(), now);
    }

    /// Writes what was begun, and DISCONNECT, if the upstream takes it soon.
    pub async fn take_leave(&mut self, writer: &mut WriteHalf<Box<dyn Stream>>) {
        put_disconnect(self.relay.version(), &mut self.out);
        let farewell = async {
            writer.write_all(&self.out[self.written..]).await?;
            writer.flush().await?;
            writer.shutdown().await
        };
        // It has nothing to say to that.
        let _: Result<io::Result<()>, _> = timeout(FAREWELL, farewell).await;
    }
}

impl Drop for Link {
    /// However the connection ends, also when the bridge is stopped in the middle of it, it ends at this broker.
    fn drop(&mut self) {
        let mut entered = self
            .core
            .enter(Purpose::Lost, Some(self.relay.connection()));
        let now = entered.now();
        self.relay.close(entered.broker(), now);
    }
}

/// Writes some of these bytes; if there are none, makes sure that the stream holds none back. How many were written.
async fn put(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

pub(super) fn put_disconnect(version: ProtocolVersion, out: &mut Vec<u8>) {
    let packet = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    });
    codec::encode(&packet, version, out);
}

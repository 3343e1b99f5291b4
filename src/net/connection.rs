//! One task per connection. It reads once, decodes all whole packets, handles them under one lock
//! of the broker, takes the output, and writes it. The read buffer belongs to the thread: an idle
//! connection holds none.
//!
//! A CONNECT may have to wait for its authentication, or for the end of an older connection of its
//! client. It is kept then, with the bytes read behind it. Nothing more is read meanwhile, and the
//! time-out for the CONNECT goes on.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::ReadBuf;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Sleep, sleep, timeout};

use super::auth::{Authentication, Credentials, LoginResult, Method};
use super::lock_stats::Purpose;
use super::partial_packets::PartialEntry;
use super::shared_broker::{BrokerGuard, SharedBroker, WakeOn};
use super::sniff::SniffedProtocol;
use super::socket::{SendProgress, SendState, Socket, Stream};
use crate::broker::{ConnectionId, Output, Segments, Traffic};
use crate::clock::Stopwatch;
use crate::wire::packet::Connect;
use crate::wire::{Fault, Packet, ProtocolVersion, codec};

/// Bytes of one read, at most.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of one read from a client that is slowed down or causes much work.
const MIN_READ_BYTES: usize = 1024;
/// Slices of one vectored write.
const MAX_IO_SLICES: usize = 32;
/// Packets that are decoded before they are handled.
const MAX_DECODED: usize = 256;
/// Work after which the lock is yielded, as [`Broker::work`](crate::broker::Broker::work) counts
/// it: one or two milliseconds.
const LOCK_WORK: u64 = 8 * 1024;
/// Work of one poll, and rounds of reading and writing. Then other tasks run. Bytes that were read
/// and not handled wait.
const POLL_WORK: u64 = 64 * 1024;
const MAX_ROUNDS: usize = 16;
/// Bytes that are still read from a connection that is taken over: more than a socket holds.
const MAX_TAKEOVER_BYTES: usize = 8 * 1024 * 1024;
/// How long a peer has to read the last bytes, and to close the connection after this side did. The
/// time starts again while the peer takes bytes, at most `MAX_LINGERS` times.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_LINGERS: u32 = 15;
/// Bytes that are read and dropped of a peer that goes on sending after the connection was closed.
const MAX_DRAIN_BYTES: usize = 1024 * 1024;
/// Growth of a partial packet, in bytes, that is counted only with the next lock of the broker.
const PARTIAL_STEP: usize = 4096;
/// How often the broker is told, at most, that a part of a packet has come.
const ACTIVITY_INTERVAL: Duration = Duration::from_millis(250);

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What all connections of a listener share.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    /// The broker.
    pub broker: Arc<SharedBroker>,
    /// The largest packet a client may send, in bytes.
    pub max_packet_size: u32,
    /// Authenticates clients.
    pub authentication: Arc<Authentication>,
    /// The listener's methods of authentication, in order.
    pub methods: Vec<Method>,
}

/// The authentication of a CONNECT.
type Login = Pin<Box<dyn Future<Output = LoginResult> + Send>>;

/// What a CONNECT waits for.
enum PendingConnect {
    Login(Login),
    /// The end of an older connection of the client. Holds the result of the authentication.
    Takeover(Box<LoginResult>),
}

/// Serves a connection that the broker has accepted, until either side closes it.
pub async fn serve(context: Arc<ConnectionContext>, stream: impl Stream, id: ConnectionId) {
    let mut connection = Connection {
        context,
        stream,
        id,
        pending_connect: None,
        version: None,
        partial: Vec::new(),
        partial_entry: PartialEntry::default(),
        is_new_partial: false,
        linger: None,
        work: 0,
        has_unhandled: false,
        read_size: READ_BYTES,
        takeover_bytes: 0,
        writing: Segments::default(),
        wrote: false,
        traffic: Traffic::default(),
        unflushed: false,
        write_error: None,
        output: Output {
            close: false,
            pause: false,
            waits: false,
            yields: false,
            ask_progress: false,
        },
        send_progress: SendProgress::default(),
        last_activity_report: None,
        received_bytes: 0,
        input_ended: false,
        awaits_acks: false,
    };
    let ended = poll_fn(|cx| connection.poll(cx)).await;
    connection.partial = Vec::new();
    connection.writing = Segments::default();
    let mut traffic = std::mem::take(&mut connection.traffic);
    traffic.error = ended.as_ref().err().map(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "closed by the client without DISCONNECT".into(),
        _ => error.to_string().into(),
    });
    {
        let mut guard = connection.context.broker.lock(Purpose::Lost, Some(id));
        let now = guard.now();
        guard.set_partial_size(&mut connection.partial_entry, id, 0, true, true);
        guard.broker().lost_after(id, &traffic, now);
        guard.forget_waker(id);
    }
    if let Ok(()) = ended {
        // With unread bytes of the peer, the operating system would reset the connection and the
        // peer would lose what was just written.
        let mut left = MAX_DRAIN_BYTES;
        for _ in 0..MAX_LINGERS {
            let drained = timeout(LINGER_TIMEOUT, connection.drain(&mut left)).await;
            if drained.is_ok() || !connection.check_send_state().has_advanced {
                break;
            }
        }
    }
}

struct Connection<S> {
    context: Arc<ConnectionContext>,
    stream: S,
    id: ConnectionId,
    /// What the CONNECT at the start of `partial` waits for.
    pending_connect: Option<PendingConnect>,
    /// The protocol version of the CONNECT.
    version: Option<ProtocolVersion>,
    /// The start of a packet whose rest has not come.
    partial: Vec<u8>,
    /// What is counted of it.
    partial_entry: PartialEntry,
    /// It is another packet than the one that is counted.
    is_new_partial: bool,
    /// Runs when the connection is to close and the peer takes nothing; and how often it was
    /// started.
    linger: Option<(Pin<Box<Sleep>>, u32)>,
    /// Work done in this poll.
    work: u64,
    /// `partial` may start with whole packets.
    has_unhandled: bool,
    /// Bytes of the next read.
    read_size: usize,
    /// Bytes read since another connection waits to take over.
    takeover_bytes: usize,
    /// Output that is still to be written, and whether some of it has been.
    writing: Segments,
    wrote: bool,
    /// Bytes sent and received so far.
    traffic: Traffic,
    /// The stream may still hold written bytes, as TLS and WebSocket do.
    unflushed: bool,
    /// Nothing can be written any more. What the peer sent before is still read.
    write_error: Option<io::Error>,
    output: Output,
    /// Whether the peer takes what is written.
    send_progress: SendProgress,
    /// When the broker was last told that a part of a packet has come.
    last_activity_report: Option<Stopwatch>,
    /// Bytes that had come from the peer at the last read.
    received_bytes: u64,
    /// The peer sends nothing more.
    input_ended: bool,
    /// ... but acknowledgements for it still wait for the disk.
    awaits_acks: bool,
}

impl<S: Stream> Connection<S> {
    /// Reads, handles and writes as far as possible. Ready when the connection is closed: by this
    /// side (`Ok`) or by the peer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.work = 0;
        for _ in 0..MAX_ROUNDS {
            if self.work >= POLL_WORK {
                break;
            }
            let all_written = self.poll_write(cx);
            if self.output.close {
                return match (self.write_error.take(), all_written) {
                    (Some(error), _) => Poll::Ready(Err(error)),
                    (None, true) => Poll::Ready(Ok(())),
                    (None, false) => self.poll_linger(cx),
                };
            }
            if self.input_ended && !self.awaits_acks && all_written {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.input_ended && !all_written {
                return self.poll_linger(cx);
            }
            if self.output.ask_progress {
                self.report_send_state(cx);
            }
            if !self.output.yields {
                self.takeover_bytes = 0;
            }
            let read = match &mut self.pending_connect {
                Some(PendingConnect::Login(login)) => match login.as_mut().poll(cx) {
                    Poll::Ready(login) => self.resume_connect(cx, login),
                    Poll::Pending => false,
                },
                Some(PendingConnect::Takeover(_)) if self.output.waits => false,
                Some(PendingConnect::Takeover(login)) => {
                    let login = LoginResult::clone(login);
                    self.resume_connect(cx, login)
                }
                None if self.output.pause => false,
                None if self.input_ended => self.output.yields && self.end_reading(cx),
                None if std::mem::take(&mut self.has_unhandled) => {
                    self.handle(cx, &[]);
                    true
                }
                None if self.takeover_bytes >= MAX_TAKEOVER_BYTES => self.end_reading(cx),
                None => self.poll_read(cx)? || self.output.yields && self.end_reading(cx),
            };
            if !read && self.write_error.is_some() && has_budget_remaining() {
                return Poll::Ready(self.write_error.take().map_or(Ok(()), Err));
            }
            let took = !read
                && match all_written {
                    true => self.take_output(cx),
                    false => self.check_broker(cx),
                };
            if !read && !took {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the output. Returns whether nothing is left to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.write_error.is_none() {
            match self.try_write(cx) {
                Ok(all) => return all,
                Err(error) => self.write_error = Some(error),
            }
        }
        (self.writing, self.wrote, self.unflushed) = (Segments::default(), false, false);
        true
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.writing.is_empty() {
            let mut slices = [&[][..]; MAX_IO_SLICES];
            let filled = self.writing.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let wrote = match &slices[..filled] {
                [bytes] => stream.poll_write(cx, bytes),
                _ => stream.poll_write_vectored(cx, &slices.map(IoSlice::new)[..filled]),
            };
            match wrote {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.wrote = true;
                    self.writing.advance(written);
                    self.send_progress.add_written(written);
                    self.traffic.sent += written as u64;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        if std::mem::take(&mut self.wrote) {
            self.writing = Segments::default();
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(flushed) => flushed?,
                Poll::Pending => return Ok(false),
            }
            self.unflushed = false;
        }
        Ok(true)
    }

    /// Reads once and handles what came. Returns whether anything came.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let read = self.read_once(cx)?;
        let arrived = self.stream.socket().map_or(0, Socket::received);
        let is_part = std::mem::replace(&mut self.received_bytes, arrived) < arrived && !read;
        if is_part && self.version.is_some() && self.is_report_due() {
            // An incomplete TLS record or WebSocket frame also shows that the client is alive.
            self.report_activity(cx);
        }
        Ok(read)
    }

    fn read_once(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        READ_BUFFER.with_borrow_mut(|memory| {
            let mut buffer = ReadBuf::new(&mut memory[..self.read_size]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.end_of_input(cx);
                    Ok(true)
                }
                Poll::Ready(Ok(())) => {
                    if self.output.yields {
                        self.takeover_bytes += buffer.filled().len();
                    }
                    self.traffic.received += buffer.filled().len() as u64;
                    self.handle(cx, buffer.filled());
                    // Bytes that were read take memory until they are handled, even if the broker
                    // pauses the client. So little is read from a client that is slowed down or
                    // causes much work.
                    self.read_size = match self.output.pause || self.has_unhandled {
                        true => (self.read_size / 2).max(MIN_READ_BYTES),
                        false => (self.read_size * 2).min(READ_BYTES),
                    };
                    Ok(true)
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => Ok(false),
            }
        })
    }

    fn handle(&mut self, cx: &mut Context<'_>, new: &[u8]) {
        if self.partial.is_empty() {
            let used = self.handle_packets(cx, new);
            self.save_partial(&new[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.partial);
            bytes.extend_from_slice(new);
            match self.handle_packets(cx, &bytes) {
                0 => self.partial = bytes,
                // The rest is copied, so that it does not hold the memory of a large packet.
                used => self.save_partial(&bytes[used..]),
            }
        }
        let is_partial = !self.partial.is_empty() && self.pending_connect.is_none();
        let is_due = is_partial && self.version.is_some() && self.is_report_due();
        // Each byte counts before the connection has a client.
        let is_client = self.version.is_some() && self.pending_connect.is_none();
        let step = if is_client { PARTIAL_STEP } else { 0 };
        if is_due || self.partial.capacity() > self.partial_entry.bytes() + step {
            self.report_activity(cx);
        }
    }

    fn is_report_due(&self) -> bool {
        let mut last_report = self.last_activity_report.iter();
        last_report.all(|last| last.elapsed() >= ACTIVITY_INTERVAL)
    }

    /// Tells the broker that the client is alive.
    fn report_activity(&mut self, cx: &mut Context<'_>) {
        self.last_activity_report = Some(Stopwatch::start());
        self.with_broker(cx, Purpose::Packets, |guard, id| {
            let now = guard.now();
            guard.broker().heard(id, now);
        });
    }

    /// The peer has closed at least its sending side. It still gets the answers to what it has
    /// sent.
    fn end_of_input(&mut self, cx: &mut Context<'_>) {
        self.input_ended = true;
        self.with_broker(cx, Purpose::Lost, |guard, id| {
            let now = guard.now();
            guard.broker().half_closed(id, now);
        });
    }

    fn report_send_state(&mut self, cx: &mut Context<'_>) {
        self.output.ask_progress = false;
        let state = self.check_send_state();
        self.with_broker(cx, Purpose::Output, |guard, id| {
            let now = guard.now();
            guard
                .broker()
                .progress(id, state.is_pending, state.has_advanced, now);
        });
    }

    /// Returns what the peer has taken since the last call.
    fn check_send_state(&mut self) -> SendState {
        let held = !self.writing.is_empty() || self.unflushed;
        self.send_progress.check(&self.stream, held)
    }

    fn save_partial(&mut self, bytes: &[u8]) {
        self.partial = bytes.to_vec();
        self.is_new_partial = true;
    }

    /// Tells the broker that all bytes of a connection that is taken over are read, or enough of
    /// them. Returns false if it is not known yet whether there are more.
    fn end_reading(&mut self, cx: &mut Context<'_>) -> bool {
        // Without a budget the runtime does not look for input. The task is polled again.
        if !has_budget_remaining() {
            return false;
        }
        self.with_broker(cx, Purpose::Connect, |guard, id| {
            let now = guard.now();
            guard.broker().drained(id, now);
        });
        true
    }

    /// Hands the waiting CONNECT to the broker, then the bytes behind it. Returns true.
    fn resume_connect(&mut self, cx: &mut Context<'_>, login: LoginResult) -> bool {
        self.pending_connect = None;
        let bytes = std::mem::take(&mut self.partial);
        let Ok(Some((Packet::Connect(connect), length))) = self.decode_next(&bytes) else {
            return true;
        };
        let context = Arc::clone(&self.context);
        let is_current = self.with_broker(cx, Purpose::Connect, |guard, id| {
            let is_current = context.authentication.is_current(&login);
            if is_current {
                let (now, outcome) = (guard.now(), login.outcome.clone());
                guard.broker().connect(id, &connect, outcome, now);
            }
            is_current
        });
        if !is_current {
            // The configuration has changed meanwhile, so the client is authenticated again.
            self.start_login(&connect);
            self.partial = bytes;
        } else if self.output.waits {
            self.pending_connect = Some(PendingConnect::Takeover(Box::new(login)));
            self.partial = bytes;
        } else if !self.output.close {
            self.handle(cx, &bytes[length..]);
        }
        true
    }

    /// Hands all whole packets to the broker, unless that is too much work for this poll. Returns
    /// how many bytes they had.
    fn handle_packets(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let mut packets = Vec::new();
            let mut fault = None;
            let mut end = used;
            while packets.len() < MAX_DECODED {
                let is_first = self.version.is_none();
                match self.decode_next(&bytes[end..]) {
                    // Packets before the CONNECT are handled first. They end the connection.
                    Ok(Some((Packet::Connect(_), _))) if is_first && !packets.is_empty() => break,
                    Ok(Some((Packet::Connect(connect), _)))
                        if is_first && self.start_login(&connect) =>
                    {
                        return used;
                    }
                    Ok(Some((packet, length))) => {
                        end += length;
                        packets.push((packet, end));
                    }
                    Ok(None) => break,
                    Err(found) => {
                        fault = Some((found, bytes.len()));
                        break;
                    }
                }
            }
            if packets.is_empty() && fault.is_none() {
                return used;
            }
            used = self.receive_packets(cx, packets, fault).max(used);
            if self.output.close {
                return bytes.len();
            }
            if self.output.waits {
                self.pending_connect = Some(PendingConnect::Takeover(Box::default()));
                return used;
            }
            if self.work >= POLL_WORK {
                self.has_unhandled = used < bytes.len();
                return used;
            }
        }
    }

    /// Hands packets to the broker, then the fault that follows them, until this poll has done
    /// enough work. Each packet comes with the offset of its end. Returns that of the last handled
    /// one.
    fn receive_packets(
        &mut self,
        cx: &mut Context<'_>,
        packets: Vec<(Packet<'_>, usize)>,
        fault: Option<(Fault, usize)>,
    ) -> usize {
        let version = self.version;
        let purpose = match packets.first() {
            Some((Packet::Connect(_), _)) => Purpose::Connect,
            _ => Purpose::Packets,
        };
        let most = POLL_WORK.saturating_sub(self.work);
        let (used, work) = self.with_broker(cx, purpose, |guard, id| {
            let before = guard.broker().work();
            let (mut used, mut work, mut yielded) = (0, 0, 0);
            for (packet, end) in packets {
                let now = guard.now();
                let broker = guard.broker();
                let is_connect = matches!(packet, Packet::Connect(_));
                broker.receive(id, packet, now);
                if is_connect && broker.is_waiting(id) {
                    return (used, work);
                }
                used = end;
                work = broker.work() - before;
                if work >= most {
                    return (used, work);
                }
                if work - yielded >= LOCK_WORK {
                    yielded = work;
                    guard.yield_lock();
                }
            }
            if let Some((fault, end)) = fault {
                let now = guard.now();
                guard.broker().fault(id, fault, version, now);
                used = end;
            }
            (used, work)
        });
        self.work += work;
        used
    }

    fn decode_next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Packet<'a>, usize)>, Fault> {
        if self.version.is_none()
            && let Some(wrong) =
                SniffedProtocol::detect(bytes).and_then(SniffedProtocol::mismatch_on_mqtt)
        {
            return Err(Fault::malformed(wrong));
        }
        let Some(length) = codec::frame_len(bytes, self.context.max_packet_size)? else {
            return Ok(None);
        };
        let frame = &bytes[..length];
        if self.version.is_none() {
            self.version = codec::version_of_connect(frame);
        }
        let packet = codec::decode(frame, self.version.unwrap_or(ProtocolVersion::V5))?;
        if let Packet::Connect(connect) = &packet
            && connect.keep_alive == 0
            && let Some(socket) = self.stream.socket()
        {
            // Without keep alive a client could vanish and nobody would notice.
            socket.enable_keepalive();
        }
        Ok(Some((packet, length)))
    }

    /// Starts the authentication of a CONNECT. Returns false if it needs none.
    fn start_login(&mut self, connect: &Connect<'_>) -> bool {
        if self.context.methods.is_empty() {
            return false;
        }
        let credentials = {
            let mut guard = self.context.broker.lock(Purpose::Connect, Some(self.id));
            let arrival = guard.broker().arrival(self.id);
            match arrival.certified_user() {
                Some(_) => None,
                None => Credentials::from_connect(connect, arrival),
            }
        };
        let Some(credentials) = credentials else {
            return false;
        };
        let context = Arc::clone(&self.context);
        self.pending_connect = Some(PendingConnect::Login(Box::pin(async move {
            let login = &context.authentication;
            login.authenticate(&context.methods, credentials).await
        })));
        true
    }

    /// Locks the broker, calls `work`, and takes the output for this connection.
    fn with_broker<T>(
        &mut self,
        cx: &mut Context<'_>,
        purpose: Purpose,
        work: impl FnOnce(&mut BrokerGuard<'_>, ConnectionId) -> T,
    ) -> T {
        let writable = self.writing.is_empty() && !self.unflushed;
        let context = Arc::clone(&self.context);
        let mut guard = context.broker.lock(purpose, writable.then_some(self.id));
        let done = work(&mut guard, self.id);
        self.count_partial(&mut guard);
        let now = guard.now();
        let broker = guard.broker();
        if writable {
            self.output = broker.take_output(self.id, &mut self.writing, now);
            guard.set_waker(self.id, cx.waker(), WakeOn::Output);
        } else {
            self.output = broker.output(self.id);
        }
        if self.input_ended {
            self.awaits_acks = guard.broker().is_owed(self.id);
        }
        done
    }

    /// Takes the output for this connection. Returns whether anything changed.
    fn take_output(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.output;
        self.with_broker(cx, Purpose::Output, |_, _| ());
        !self.writing.is_empty() || self.output != before
    }

    fn count_partial(&mut self, guard: &mut BrokerGuard<'_>) {
        let (bytes, connected) = (self.partial.capacity(), self.version.is_some());
        let is_new = std::mem::take(&mut self.is_new_partial);
        guard.set_partial_size(&mut self.partial_entry, self.id, bytes, connected, is_new);
    }

    /// Checks the broker's state for this connection while the peer takes nothing: whether it is
    /// closed, taken over, or may be read from again. Returns whether anything changed.
    fn check_broker(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.output;
        let context = Arc::clone(&self.context);
        let mut guard = context.broker.lock(Purpose::Output, Some(self.id));
        let broker = guard.broker();
        self.output = broker.output(self.id);
        let wake_on = match self.output.pause {
            true => WakeOn::Output,
            false => WakeOn::Closing,
        };
        guard.set_waker(self.id, cx.waker(), wake_on);
        if self.output.close {
            self.partial = Vec::new();
            self.count_partial(&mut guard);
        }
        self.output != before
    }

    /// Waits for a peer that has not taken all output before the close.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (linger, lingers) = match &mut self.linger {
                Some(linger) => linger,
                None => {
                    self.check_send_state();
                    self.linger.insert((Box::pin(sleep(LINGER_TIMEOUT)), 1))
                }
            };
            ready!(linger.as_mut().poll(cx));
            *lingers += 1;
            let enough = *lingers > MAX_LINGERS;
            linger.set(sleep(LINGER_TIMEOUT));
            if enough || !self.check_send_state().has_advanced {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Closes the sending side and reads until the peer does the same, at most `left` bytes.
    async fn drain(&mut self, left: &mut usize) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
        while *left > 0 {
            let read = poll_fn(|cx| {
                READ_BUFFER.with_borrow_mut(|memory| {
                    let mut buffer = ReadBuf::new(memory);
                    let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
                    read.map_ok(|()| buffer.filled().len())
                })
            });
            match read.await? {
                0 => break,
                read => *left = left.saturating_sub(read),
            }
        }
        Ok(())
    }
}

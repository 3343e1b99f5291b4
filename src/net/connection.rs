//! One task a connection: it reads what there is into a buffer of its thread, decodes all whole packets, handles them all in one visit to the
//! broker, takes what the broker has for it, and writes that at once. An idle connection holds no buffer.
//!
//! A CONNECT whose user name and password have to be proved, or that waits for an older connection of its client, is kept, with what came after it in
//! the same read, until it may go on; nothing more is read meanwhile, and the time for the CONNECT goes on running.

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

use super::auth::{Authentication, Credentials, Method, Proved};
use super::lock_stats::Purpose;
use super::shared_broker::{BrokerGuard, SharedBroker, WakeOn};
use super::socket::{Flow, Seen, Socket, Stream};
use super::spoken::Spoken;
use super::unfinished::Held;
use crate::broker::{ConnectionId, Output, Segments, Traffic};
use crate::clock::Stopwatch;
use crate::wire::packet::Connect;
use crate::wire::{Fault, Packet, ProtocolVersion, codec};

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// ... and when little should be.
const LEAST_READ: usize = 1024;
/// Parts that are written at once.
const SLICES: usize = 32;
/// Packets decoded at once.
const DECODED: usize = 256;
/// Work after which a visit to the broker lets others in, in the measure of [`Broker::work`](crate::broker::Broker::work): a millisecond or two.
const VISIT_WORK: u64 = 8 * 1024;
/// Work after which other tasks get their turn; what has been read and not handled waits. And rounds of reading and writing.
const TURN_WORK: u64 = 64 * 1024;
const ROUNDS: usize = 16;
/// Bytes that are read of a peer whose connection gives way to a newer one of its client: more than a socket holds.
const LAST_BYTES: usize = 8 * 1024 * 1024;
/// How long a peer has to read what it was told last, once the connection is closed from this side, and how long it has to close its own; it
/// begins anew while the peer takes something, this many times at most.
const LINGER: Duration = Duration::from_secs(2);
const LINGERS: u32 = 15;
/// Bytes that are read of a peer that goes on sending after its connection was closed.
const DRAIN_BYTES: usize = 1024 * 1024;
/// Bytes by which an unfinished packet may grow before they are counted; smaller growth is counted with the next visit to the broker.
const GRAIN: usize = 4096;
/// How often the broker hears, at most, that the client is there while one packet comes in.
const SIGN_OF_LIFE: Duration = Duration::from_millis(250);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// What all connections of a listener share.
#[derive(Clone, Debug)]
pub struct Door {
    /// The broker.
    pub broker: Arc<SharedBroker>,
    /// The largest packet that is taken, in bytes.
    pub max_packet_size: u32,
    /// Proves who clients are.
    pub authentication: Arc<Authentication>,
    /// How clients prove it here, in the order of asking.
    pub methods: Vec<Method>,
}

/// What a CONNECT was found to prove, once that is known.
type Proof = Pin<Box<dyn Future<Output = Proved> + Send>>;

/// What a CONNECT waits for.
enum Waiting {
    /// It is being found out what it proves.
    Proof(Proof),
    /// An older connection of its client is to end first; this is what it was found to prove.
    Turn(Box<Proved>),
}

/// Serves a connection the broker has accepted, until either side closes it.
pub async fn serve(door: Arc<Door>, stream: impl Stream, id: ConnectionId) {
    let mut connection = Connection {
        door,
        stream,
        id,
        waiting: None,
        version: None,
        partial: Vec::new(),
        held: Held::default(),
        began: false,
        patience: None,
        work: 0,
        unhandled: false,
        appetite: READ_BYTES,
        last_bytes: 0,
        writing: Segments::default(),
        wrote: false,
        traffic: Traffic::default(),
        unflushed: false,
        broken: None,
        output: Output {
            close: false,
            pause: false,
            waits: false,
            yields: false,
            ask_progress: false,
        },
        flow: Flow::default(),
        heard: None,
        arrived: 0,
        over: false,
        owed: false,
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
        let mut guard = connection.door.broker.lock(Purpose::Lost, Some(id));
        let now = guard.now();
        guard.hold(&mut connection.held, id, 0, true, true);
        guard.broker().lost_after(id, &traffic, now);
        guard.forget_waker(id);
    }
    if let Ok(()) = ended {
        // Closed from this side: bytes of the peer that nobody reads would make the operating system take back what was just written.
        let mut left = DRAIN_BYTES;
        for _ in 0..LINGERS {
            let drained = timeout(LINGER, connection.drain(&mut left)).await;
            if drained.is_ok() || !connection.has_taken().moved {
                break;
            }
        }
    }
}

struct Connection<S> {
    door: Arc<Door>,
    stream: S,
    id: ConnectionId,
    /// What the CONNECT at the beginning of `partial` waits for.
    waiting: Option<Waiting>,
    /// What the peer speaks, once it has said so.
    version: Option<ProtocolVersion>,
    /// The beginning of a packet whose rest has not come.
    partial: Vec<u8>,
    /// What is counted of it.
    held: Held,
    /// It is another packet than the one that was counted.
    began: bool,
    /// Runs from when the connection is to be closed and the peer does not take what was sent; how often it has.
    patience: Option<(Pin<Box<Sleep>>, u32)>,
    /// Work done in this turn.
    work: u64,
    /// `partial` may begin with whole packets, for which the turn was too short.
    unhandled: bool,
    /// Bytes to be read at once.
    appetite: usize,
    /// Bytes read since another connection waits to take the place of this one.
    last_bytes: usize,
    /// What is still to be written of what was taken last, and whether some of that has been written.
    writing: Segments,
    wrote: bool,
    /// What has come and gone so far.
    traffic: Traffic,
    /// The stream may still hold what was written to it: TLS and WebSocket do.
    unflushed: bool,
    /// Nothing can be written any more; what the peer had sent before it went is still read.
    broken: Option<io::Error>,
    output: Output,
    /// Whether the peer takes what is written.
    flow: Flow,
    /// When the broker last heard that a part of a packet had come.
    heard: Option<Stopwatch>,
    /// Bytes that had come from the peer when something was last read.
    arrived: u64,
    /// The peer will send nothing more.
    over: bool,
    /// ... and is still owed what waits for the disk.
    owed: bool,
}

impl<S: Stream> Connection<S> {
    /// Goes on as far as it can. Ready when the connection is closed: by this side (`Ok`), or by the peer.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.work = 0;
        for _ in 0..ROUNDS {
            if self.work >= TURN_WORK {
                break;
            }
            let all_written = self.poll_write(cx);
            if self.output.close {
                return match (self.broken.take(), all_written) {
                    (Some(error), _) => Poll::Ready(Err(error)),
                    (None, true) => Poll::Ready(Ok(())),
                    (None, false) => self.poll_patience(cx),
                };
            }
            if self.over && !self.owed && all_written {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if self.over && !all_written {
                return self.poll_patience(cx);
            }
            if self.output.ask_progress {
                self.answer_look(cx);
            }
            if !self.output.yields {
                self.last_bytes = 0;
            }
            let read = match &mut self.waiting {
                Some(Waiting::Proof(proof)) => match proof.as_mut().poll(cx) {
                    Poll::Ready(proved) => self.present(cx, proved),
                    Poll::Pending => false,
                },
                Some(Waiting::Turn(_)) if self.output.waits => false,
                Some(Waiting::Turn(proved)) => {
                    let proved = Proved::clone(proved);
                    self.present(cx, proved)
                }
                None if self.output.pause => false,
                None if self.over => self.output.yields && self.end_reading(cx),
                None if std::mem::take(&mut self.unhandled) => {
                    self.handle(cx, &[]);
                    true
                }
                None if self.last_bytes >= LAST_BYTES => self.end_reading(cx),
                None => self.poll_read(cx)? || self.output.yields && self.end_reading(cx),
            };
            if !read && self.broken.is_some() && has_budget_remaining() {
                return Poll::Ready(self.broken.take().map_or(Ok(()), Err));
            }
            let took = !read
                && match all_written {
                    true => self.take_output(cx),
                    false => self.look(cx),
                };
            if !read && !took {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what was taken; whether all of it is written, or never will be.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.broken.is_none() {
            match self.try_write(cx) {
                Ok(all) => return all,
                Err(error) => self.broken = Some(error),
            }
        }
        (self.writing, self.wrote, self.unflushed) = (Segments::default(), false, false);
        true
    }

    fn try_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while !self.writing.is_empty() {
            let mut slices = [&[][..]; SLICES];
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
                    self.flow.wrote(written);
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

    /// Reads once and handles what came; whether anything did.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let read = self.read_once(cx)?;
        let arrived = self.stream.socket().map_or(0, Socket::received);
        let is_part = std::mem::replace(&mut self.arrived, arrived) < arrived && !read;
        if is_part && self.version.is_some() && self.may_be_news() {
            // A record of TLS, or a frame of WebSocket, that is not whole: the client is there.
            self.hear(cx);
        }
        Ok(read)
    }

    fn read_once(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(&mut scratch[..self.appetite]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    self.end_of_input(cx);
                    Ok(true)
                }
                Poll::Ready(Ok(())) => {
                    if self.output.yields {
                        self.last_bytes += buffer.filled().len();
                    }
                    self.traffic.received += buffer.filled().len() as u64;
                    self.handle(cx, buffer.filled());
                    // What is read takes memory until it is handled, and is handled whatever the broker says: of a client that is slowed down, or
                    // makes much work, it should be little.
                    self.appetite = match self.output.pause || self.unhandled {
                        true => (self.appetite / 2).max(LEAST_READ),
                        false => (self.appetite * 2).min(READ_BYTES),
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
            self.keep(&new[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.partial);
            bytes.extend_from_slice(new);
            match self.handle_packets(cx, &bytes) {
                0 => self.partial = bytes,
                // What is left is copied, so that the little there is does not hold the memory of a large packet.
                used => self.keep(&bytes[used..]),
            }
        }
        let is_partial = !self.partial.is_empty() && self.waiting.is_none();
        let is_news = is_partial && self.version.is_some() && self.may_be_news();
        // Of those that may never be clients every byte counts.
        let is_client = self.version.is_some() && self.waiting.is_none();
        let grain = if is_client { GRAIN } else { 0 };
        if is_news || self.partial.capacity() > self.held.bytes() + grain {
            self.hear(cx);
        }
    }

    /// Whether the broker has not heard for a while that the client is there.
    fn may_be_news(&self) -> bool {
        let mut heard = self.heard.iter();
        heard.all(|heard| heard.elapsed() >= SIGN_OF_LIFE)
    }

    /// Tells the broker that the client is there.
    fn hear(&mut self, cx: &mut Context<'_>) {
        self.heard = Some(Stopwatch::start());
        self.visit(cx, Purpose::Packets, |guard, id| {
            let now = guard.now();
            guard.broker().heard(id, now);
        });
    }

    /// The peer has closed its sending side, if not the whole connection: it is still told what becomes of what it has sent.
    fn end_of_input(&mut self, cx: &mut Context<'_>) {
        self.over = true;
        self.visit(cx, Purpose::Lost, |guard, id| {
            let now = guard.now();
            guard.broker().half_closed(id, now);
        });
    }

    /// Tells the broker whether the peer takes what is written.
    fn answer_look(&mut self, cx: &mut Context<'_>) {
        self.output.ask_progress = false;
        let seen = self.has_taken();
        self.visit(cx, Purpose::Output, |guard, id| {
            let now = guard.now();
            guard.broker().progress(id, seen.waits, seen.moved, now);
        });
    }

    /// What the peer has taken since this was last asked.
    fn has_taken(&mut self) -> Seen {
        let held = !self.writing.is_empty() || self.unflushed;
        self.flow.look(&self.stream, held)
    }

    /// Keeps the beginning of a packet.
    fn keep(&mut self, bytes: &[u8]) {
        self.partial = bytes.to_vec();
        self.began = true;
    }

    /// Nothing more comes of a peer whose connection gives way to another one, or it is too much; false if that is not known yet.
    fn end_reading(&mut self, cx: &mut Context<'_>) -> bool {
        // Without a budget the runtime does not even look whether there is something to read. The task comes again.
        if !has_budget_remaining() {
            return false;
        }
        self.visit(cx, Purpose::Connect, |guard, id| {
            let now = guard.now();
            guard.broker().drained(id, now);
        });
        true
    }

    /// Hands over the CONNECT that has waited, with what it has been found to prove, and what came after it; that is always something.
    fn present(&mut self, cx: &mut Context<'_>, proved: Proved) -> bool {
        self.waiting = None;
        let bytes = std::mem::take(&mut self.partial);
        let Ok(Some((Packet::Connect(connect), length))) = self.decode_next(&bytes) else {
            return true;
        };
        let door = Arc::clone(&self.door);
        let stands = self.visit(cx, Purpose::Connect, |guard, id| {
            let stands = door.authentication.stands(&proved);
            if stands {
                let (now, outcome) = (guard.now(), proved.outcome.clone());
                guard.broker().connect(id, &connect, outcome, now);
            }
            stands
        });
        if !stands {
            // The configuration has changed meanwhile: it is asked again.
            self.must_prove(&connect);
            self.partial = bytes;
        } else if self.output.waits {
            self.waiting = Some(Waiting::Turn(Box::new(proved)));
            self.partial = bytes;
        } else if !self.output.close {
            self.handle(cx, &bytes[length..]);
        }
        true
    }

    /// Hands whole packets to the broker, all that there are unless that becomes too much for this turn; how many bytes they were.
    fn handle_packets(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> usize {
        let mut used = 0;
        loop {
            let mut packets = Vec::new();
            let mut fault = None;
            let mut end = used;
            while packets.len() < DECODED {
                let is_first = self.version.is_none();
                match self.decode_next(&bytes[end..]) {
                    // What comes before a CONNECT is answered first, and ends the connection.
                    Ok(Some((Packet::Connect(_), _))) if is_first && !packets.is_empty() => break,
                    Ok(Some((Packet::Connect(connect), _)))
                        if is_first && self.must_prove(&connect) =>
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
            used = self.hand_over(cx, packets, fault).max(used);
            if self.output.close {
                return bytes.len();
            }
            if self.output.waits {
                self.waiting = Some(Waiting::Turn(Box::default()));
                return used;
            }
            if self.work >= TURN_WORK {
                self.unhandled = used < bytes.len();
                return used;
            }
        }
    }

    /// Hands packets to the broker, and the fault that comes after them, until that is enough for this turn. Each has with it where its bytes end;
    /// returns where the last one that was handled does.
    fn hand_over(
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
        let most = TURN_WORK.saturating_sub(self.work);
        let (used, work) = self.visit(cx, purpose, |guard, id| {
            let before = guard.broker().work();
            let (mut used, mut work, mut breath) = (0, 0, 0);
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
                if work - breath >= VISIT_WORK {
                    breath = work;
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
            && let Some(wrong) = Spoken::of(bytes).and_then(Spoken::on_mqtt)
        {
            return Err(Fault::malformed(wrong));
        }
        let Some(length) = codec::frame_len(bytes, self.door.max_packet_size)? else {
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
            // It may vanish without a word, and nobody would notice.
            socket.watch();
        }
        Ok(Some((packet, length)))
    }

    /// Whether a CONNECT has to wait until its user name and password have been proved, which has begun then.
    fn must_prove(&mut self, connect: &Connect<'_>) -> bool {
        if self.door.methods.is_empty() {
            return false;
        }
        let credentials = {
            let mut guard = self.door.broker.lock(Purpose::Connect, Some(self.id));
            let arrival = guard.broker().arrival(self.id);
            match arrival.certified_user() {
                Some(_) => None,
                None => Credentials::of(connect, arrival),
            }
        };
        let Some(credentials) = credentials else {
            return false;
        };
        let door = Arc::clone(&self.door);
        self.waiting = Some(Waiting::Proof(Box::pin(async move {
            let proof = door.authentication.authenticate(&door.methods, credentials);
            proof.await
        })));
        true
    }

    /// Has the broker do something, and takes what it has for this connection, in one visit.
    fn visit<T>(
        &mut self,
        cx: &mut Context<'_>,
        purpose: Purpose,
        work: impl FnOnce(&mut BrokerGuard<'_>, ConnectionId) -> T,
    ) -> T {
        let writable = self.writing.is_empty() && !self.unflushed;
        let door = Arc::clone(&self.door);
        let mut guard = door.broker.lock(purpose, writable.then_some(self.id));
        let done = work(&mut guard, self.id);
        self.count(&mut guard);
        let now = guard.now();
        let broker = guard.broker();
        if writable {
            self.output = broker.take_output(self.id, &mut self.writing, now);
            guard.set_waker(self.id, cx.waker(), WakeOn::Output);
        } else {
            self.output = broker.output(self.id);
        }
        if self.over {
            self.owed = guard.broker().is_owed(self.id);
        }
        done
    }

    /// Takes what the broker has for this connection; whether that was anything, or whether it may go on reading.
    fn take_output(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.output;
        let door = Arc::clone(&self.door);
        let mut guard = door.broker.lock(Purpose::Output, Some(self.id));
        let now = guard.now();
        self.count(&mut guard);
        self.output = guard.broker().take_output(self.id, &mut self.writing, now);
        guard.set_waker(self.id, cx.waker(), WakeOn::Output);
        if self.over {
            self.owed = guard.broker().is_owed(self.id);
        }
        !self.writing.is_empty() || self.output != before
    }

    /// Counts what is held of an unfinished packet.
    fn count(&mut self, guard: &mut BrokerGuard<'_>) {
        let (bytes, connected) = (self.partial.capacity(), self.version.is_some());
        let began = std::mem::take(&mut self.began);
        guard.hold(&mut self.held, self.id, bytes, connected, began);
    }

    /// Looks, while the peer does not take what was sent, whether the broker has ended the connection, lets it yield its place, or wants to read from it
    /// again; whether that is so.
    fn look(&mut self, cx: &mut Context<'_>) -> bool {
        let before = self.output;
        let door = Arc::clone(&self.door);
        let mut guard = door.broker.lock(Purpose::Output, Some(self.id));
        let broker = guard.broker();
        self.output = broker.output(self.id);
        let until = match self.output.pause {
            true => WakeOn::Output,
            false => WakeOn::Closing,
        };
        guard.set_waker(self.id, cx.waker(), until);
        if self.output.close {
            self.partial = Vec::new();
            self.count(&mut guard);
        }
        self.output != before
    }

    /// Waits a little longer for a peer that does not take what was sent before the end.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (patience, lingers) = match &mut self.patience {
                Some(patience) => patience,
                None => {
                    self.has_taken();
                    self.patience.insert((Box::pin(sleep(LINGER)), 1))
                }
            };
            ready!(patience.as_mut().poll(cx));
            *lingers += 1;
            let enough = *lingers > LINGERS;
            patience.set(sleep(LINGER));
            if enough || !self.has_taken().moved {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Closes the sending side and reads until the peer does the same, this much at most.
    async fn drain(&mut self, left: &mut usize) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await?;
        while *left > 0 {
            let read = poll_fn(|cx| {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut buffer = ReadBuf::new(scratch);
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

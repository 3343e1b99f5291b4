//! A link that can be bad in every way: a TCP proxy that cuts at any byte, delays, limits,
//! swallows, resets, refuses and says nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

/// Bytes that a socket of a narrow proxy holds for its reader.
const NARROW: usize = 4096;

/// What happens to bytes and to new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bytes pass.
    Pass,
    /// Connections are taken, and what is sent on them, old or new, gets lost; nobody is told.
    BlackHole,
    /// Connections are reset as soon as they are there.
    Reset,
    /// Nobody listens.
    Refused,
    /// Nothing is read from connections, old or new: what is sent on them waits.
    Stuck,
    /// Somebody listens who accepts nothing, and there is no room for more that wait: a SYN is not
    /// answered.
    Deaf,
}

/// What became of a connection that was taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    /// When the target first said something on it.
    pub answered: Option<Instant>,
    /// When the client ended it.
    pub closed: Option<Instant>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    mode: Mode,
    latency: Duration,
    bytes_per_second: Option<u64>,
    /// Its sockets hold little.
    narrow: bool,
    /// Bytes that may still pass on a connection, both ways together, before it is cut.
    budget: Option<u64>,
    open: Vec<TcpStream>,
    accepted: u64,
    lives: Vec<Life>,
    /// It is deaf by now.
    deaf: bool,
    ended: bool,
}

/// A proxy on a port of its own. Its threads end with it.
pub struct Proxy {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Proxy {
    /// A proxy that lets everything pass to this address.
    pub fn to(target: SocketAddr) -> Proxy {
        Proxy::with(target, None)
    }

    /// A proxy that lets so much pass each way, and holds next to nothing itself: what is sent
    /// faster waits with its sender.
    pub fn narrow(target: SocketAddr, bytes_per_second: u64) -> Proxy {
        Proxy::with(target, Some(bytes_per_second))
    }

    fn with(target: SocketAddr, narrow: Option<u64>) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        if narrow.is_some() {
            let set = SockRef::from(&listener).set_recv_buffer_size(NARROW);
            set.expect("a socket option");
        }
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::new(Mutex::new(State {
            target,
            mode: Mode::Pass,
            latency: Duration::ZERO,
            bytes_per_second: narrow,
            narrow: narrow.is_some(),
            budget: None,
            open: Vec::new(),
            accepted: 0,
            lives: Vec::new(),
            deaf: false,
            ended: false,
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || listen(listener, addr, &shared));
        Proxy { addr, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections taken so far.
    pub fn accepted(&self) -> u64 {
        self.state().accepted
    }

    /// The connections on which the target has said something, in order.
    pub fn answered(&self) -> Vec<Life> {
        let lives = &self.state().lives;
        let answered = lives.iter().filter(|life| life.answered.is_some());
        answered.copied().collect()
    }

    /// Where new connections go.
    pub fn set_target(&self, target: SocketAddr) {
        self.state().target = target;
    }

    /// Changes what happens. Open connections stay, except when nobody is to listen any more.
    pub fn set_mode(&self, mode: Mode) {
        self.state().mode = mode;
        if mode == Mode::Refused {
            self.drop_connections();
            // The listener looks every few milliseconds.
            thread::sleep(Duration::from_millis(50));
        }
        while mode == Mode::Deaf && !self.state().deaf {
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Delays each direction by this much.
    pub fn set_latency(&self, latency: Duration) {
        self.state().latency = latency;
    }

    /// Limits each direction.
    pub fn set_bandwidth(&self, bytes_per_second: u64) {
        self.state().bytes_per_second = Some(bytes_per_second);
    }

    /// Cuts the connections to come after so many bytes, wherever that is.
    pub fn set_budget(&self, bytes: Option<u64>) {
        self.state().budget = bytes;
    }

    /// Closes all connections.
    pub fn drop_connections(&self) {
        for stream in self.state().open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.drop_connections();
        self.state().ended = true;
    }
}

fn listen(listener: TcpListener, addr: SocketAddr, state: &Arc<Mutex<State>>) {
    let mut listener = Some(listener);
    let mut deaf = None;
    loop {
        thread::sleep(Duration::from_millis(2));
        let (mode, ended) = {
            let state = state.lock().expect("no thread panics with it");
            (state.mode, state.ended)
        };
        if ended {
            return;
        }
        if mode == Mode::Refused {
            listener = None;
            continue;
        }
        if mode == Mode::Deaf {
            listener = None;
            if deaf.is_none() {
                deaf = Some(full(addr));
                state.lock().expect("no thread panics with it").deaf = true;
            }
            continue;
        }
        if deaf.take().is_some() {
            state.lock().expect("no thread panics with it").deaf = false;
        }
        let Some(open) = &listener else {
            listener = TcpListener::bind(addr).ok();
            continue;
        };
        open.set_nonblocking(true).expect("a socket option");
        while let Ok((stream, _)) = open.accept() {
            stream.set_nonblocking(false).expect("a socket option");
            if mode == Mode::Reset {
                let socket = SockRef::from(&stream);
                socket
                    .set_linger(Some(Duration::ZERO))
                    .expect("a socket option");
                continue;
            }
            carry(stream, state);
        }
    }
}

/// A listener with as many connections as it has room for, which it will not accept.
fn full(addr: SocketAddr) -> (Socket, Vec<TcpStream>) {
    let listener = Socket::new(Domain::for_address(addr), Type::STREAM, None);
    let listener = listener.expect("a socket");
    listener.set_reuse_address(true).expect("a socket option");
    listener.bind(&addr.into()).expect("the port is free again");
    listener.listen(0).expect("it is bound");
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
        waiting.push(stream);
    }
    (listener, waiting)
}

fn carry(near: TcpStream, state: &Arc<Mutex<State>>) {
    let mut locked = state.lock().expect("no thread panics with it");
    locked.accepted += 1;
    let life = locked.lives.len();
    locked.lives.push(Life::default());
    let Ok(far) = connect(locked.target, locked.narrow) else {
        return;
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a socket option");
        locked
            .open
            .push(stream.try_clone().expect("another handle"));
    }
    let budget = Arc::new(Mutex::new(locked.budget));
    drop(locked);
    let pairs = [
        (near.try_clone(), far.try_clone(), true),
        (Ok(far), Ok(near), false),
    ];
    for (from, into, is_near) in pairs {
        let (from, into) = (from.expect("a handle"), into.expect("a handle"));
        let (sender, receiver) = channel();
        let (reading, writing) = (Arc::clone(state), Arc::clone(state));
        let budget = Arc::clone(&budget);
        thread::spawn(move || {
            let note = |set: &dyn Fn(&mut Life)| {
                let mut state = reading.lock().expect("no thread panics with it");
                set(&mut state.lives[life]);
            };
            let heard = || {
                if !is_near {
                    note(&|life| life.answered = life.answered.or(Some(Instant::now())));
                }
            };
            read(from, &sender, &reading, heard);
            if is_near {
                note(&|life| life.closed = Some(Instant::now()));
            }
        });
        thread::spawn(move || write(into, &receiver, &writing, &budget));
    }
}

fn connect(target: SocketAddr, narrow: bool) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if narrow {
        socket.set_recv_buffer_size(NARROW)?;
    }
    socket.connect(&target.into())?;
    Ok(socket.into())
}

fn read(
    mut from: TcpStream,
    sender: &Sender<(Instant, Vec<u8>)>,
    state: &Mutex<State>,
    heard: impl Fn(),
) {
    let mut chunk = [0; 16 * 1024];
    loop {
        let (rate, stuck) = {
            let state = state.lock().expect("no thread panics with it");
            let stuck = state.mode == Mode::Stuck && !state.ended;
            (state.bytes_per_second, stuck)
        };
        if stuck {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        // A twentieth of a second's worth at once.
        let most = rate.map_or(chunk.len(), |rate| {
            (rate as usize / 20).clamp(1, chunk.len())
        });
        let Ok(count @ 1..) = from.read(&mut chunk[..most]) else {
            break;
        };
        heard();
        if let Some(rate) = rate {
            thread::sleep(Duration::from_secs_f64(count as f64 / rate as f64));
        }
        let latency = state.lock().expect("no thread panics with it").latency;
        let due = Instant::now() + latency;
        if sender.send((due, chunk[..count].to_vec())).is_err() {
            break;
        }
    }
}

fn write(
    mut into: TcpStream,
    receiver: &Receiver<(Instant, Vec<u8>)>,
    state: &Mutex<State>,
    budget: &Mutex<Option<u64>>,
) {
    for (due, bytes) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let mode = state.lock().expect("no thread panics with it").mode;
        if mode == Mode::BlackHole {
            continue;
        }
        let mut left = budget.lock().expect("no thread panics with it");
        let allowed = left.map_or(bytes.len(), |left| bytes.len().min(left as usize));
        if let Some(left) = left.as_mut() {
            *left -= allowed as u64;
        }
        let cut = *left == Some(0);
        drop(left);
        if into.write_all(&bytes[..allowed]).is_err() || cut {
            break;
        }
    }
    let _ = into.shutdown(Shutdown::Both);
}

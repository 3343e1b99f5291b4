//! TCP and Unix sockets, to listen and as streams.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};
use rustix::net::sockopt::set_socket_reuseport;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A Unix socket in the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketFile {
    /// The path. If a socket is there on which nobody listens, it is replaced. Anything else that
    /// is there is an error.
    pub path: PathBuf,
    /// The permissions. Who may write may connect.
    pub mode: u32,
    /// The owner, by name or number. `None` for the broker's own user.
    pub owner: Option<String>,
    /// The group, by name or number. `None` for the broker's own group.
    pub group: Option<String>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => path.display().fmt(f),
        }
    }
}

/// An open listening socket.
#[derive(Debug)]
pub enum ListeningSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, its path, and the inode number of the file.
    Unix(UnixListener, PathBuf, u64),
}

/// A connection to a peer.
#[derive(Debug)]
pub struct Socket {
    kind: Kind,
    received: u64,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Socket {
        let (kind, received) = (Kind::Tcp(stream), 0);
        Socket { kind, received }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Socket {
        let (kind, received) = (Kind::Unix(stream), 0);
        Socket { kind, received }
    }
}

/// A stream of bytes to a peer.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// Returns the socket below TLS and WebSocket. `None` if there is none.
    fn socket(&self) -> Option<&Socket>;
}

impl Stream for Socket {
    fn socket(&self) -> Option<&Socket> {
        Some(self)
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn socket(&self) -> Option<&Socket> {
        (**self).socket()
    }
}

impl<S: Stream> Stream for tokio_rustls::server::TlsStream<S> {
    fn socket(&self) -> Option<&Socket> {
        self.get_ref().0.socket()
    }
}

impl<S: Stream> Stream for tokio_rustls::client::TlsStream<S> {
    fn socket(&self) -> Option<&Socket> {
        self.get_ref().0.socket()
    }
}

/// Tells whether a peer goes on taking what is written to it.
///
/// Bytes count as taken when the peer's operating system has acknowledged them.
#[derive(Debug, Default)]
pub struct SendProgress {
    /// Bytes written to the stream.
    written: u64,
    /// Bytes taken at the last check. `None` if nothing was pending then.
    last_mark: Option<u64>,
}

/// The result of [`SendProgress::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendState {
    /// The peer has not taken everything yet.
    pub is_pending: bool,
    /// The peer has taken something that was pending at the last check.
    pub has_advanced: bool,
}

impl SendProgress {
    /// Counts bytes that were written to the stream.
    pub fn add_written(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Checks the stream. `held` says that the caller holds bytes which the stream has not taken.
    /// Costs a system call.
    pub fn check(&mut self, stream: &dyn Stream, held: bool) -> SendState {
        let mark = match stream.socket().and_then(Socket::acknowledged) {
            Some((acknowledged, all)) => (held || !all).then_some(acknowledged),
            // Without acknowledgements, what the operating system has taken is all that is known.
            None => held.then_some(self.written),
        };
        let has_advanced = self.last_mark.is_some() && self.last_mark != mark;
        self.last_mark = mark;
        SendState {
            is_pending: mark.is_some(),
            has_advanced,
        }
    }
}

// The start of `struct tcp_info` in linux/tcp.h, as of Linux 4.6.
sockopt_impl!(
    /// See tcp(7), TCP_INFO.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    [u32; 40]
);

/// Returns whether the kernel has all fields that are used here: Linux 4.6 and later.
fn has_tcp_info() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
        let version = (numbers.next(), numbers.next());
        matches!(version, (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (4, 6))
    })
}

// Indices of fields, in words of 4 bytes. For a field of 8 bytes, the index of its first word.
const UNACKED: usize = 6;
const ACKED: usize = 30;
const RECEIVED: usize = 32;
const NOT_SENT: usize = 36;

/// Reads a field of 8 bytes.
fn read_u64(info: &[u32], at: usize) -> u64 {
    let low = at + usize::from(cfg!(target_endian = "big"));
    u64::from(info[low]) | u64::from(info[low ^ 1]) << 32
}

/// Returns how many bytes a TCP connection has received, plus those that the peer's operating
/// system has acknowledged. `None` before Linux 4.6.
pub fn tcp_progress(stream: &impl AsFd) -> Option<u64> {
    let info = has_tcp_info().then(|| getsockopt(stream, TcpInfo))?;
    let info = info.ok()?;
    Some(read_u64(&info, ACKED) + read_u64(&info, RECEIVED))
}

impl Socket {
    /// Returns how many bytes the peer's operating system has acknowledged, and whether these are
    /// all. `None` for Unix sockets, and before Linux 4.6.
    fn acknowledged(&self) -> Option<(u64, bool)> {
        let Kind::Tcp(stream) = &self.kind else {
            return None;
        };
        let info = has_tcp_info().then(|| getsockopt(stream, TcpInfo))?.ok()?;
        let all = info[UNACKED] == 0 && info[NOT_SENT] == 0;
        Some((read_u64(&info, ACKED), all))
    }

    /// Enables TCP keepalive. A connection whose peer is gone is lost after about two minutes.
    pub fn enable_keepalive(&self) {
        let Kind::Tcp(stream) = &self.kind else {
            return;
        };
        let often = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(15))
            .with_retries(4);
        if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&often) {
            tracing::debug!(%error, "a connection cannot be watched");
        }
    }
}

/// Listens on a TCP port. `backlog` connections wait until they are accepted. With an `interface`,
/// only connections through that network interface come in (SO_BINDTODEVICE of Linux).
///
/// # Errors
/// The address cannot be used, or there is no such interface.
pub fn bind_tcp(
    address: SocketAddr,
    interface: Option<&str>,
    backlog: i32,
) -> io::Result<TcpListener> {
    open_tcp(address, interface, backlog, false)
}

fn open_tcp(
    address: SocketAddr,
    interface: Option<&str>,
    backlog: i32,
    share: bool,
) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if share {
        set_socket_reuseport(&socket, true)?;
    }
    if let Some(interface) = interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

/// Like [`bind_tcp`], for a port that sockets of this process have already at an overlapping
/// address, such as 127.0.0.1 and 0.0.0.0. During the call, other processes of this user can share
/// the port, too (SO_REUSEPORT of Linux).
///
/// # Errors
/// As [`bind_tcp`].
pub fn bind_tcp_sharing_port(
    open: &[&ListeningSocket],
    address: SocketAddr,
    interface: Option<&str>,
    backlog: i32,
) -> io::Result<TcpListener> {
    let share = |shared| {
        open.iter().try_for_each(|open| match open {
            ListeningSocket::Tcp(listener) => set_socket_reuseport(listener, shared),
            ListeningSocket::Unix(..) => Ok(()),
        })
    };
    share(true)?;
    let bound = open_tcp(address, interface, backlog, true);
    share(false)?;
    let bound = bound?;
    set_socket_reuseport(&bound, false)?;
    Ok(bound)
}

impl ListeningSocket {
    /// Listens on a Unix socket.
    ///
    /// # Errors
    /// Somebody listens there already, the file is not a socket, or the socket cannot be created as
    /// requested.
    pub fn bind_unix(file: &SocketFile, backlog: i32) -> io::Result<ListeningSocket> {
        remove_stale_socket(&file.path)?;
        let listening = ListeningSocket::bind_unix_temporary(file, backlog)?;
        listening.rename_into_place()?;
        Ok(listening)
    }

    /// Like [`ListeningSocket::bind_unix`], but at a temporary path. Nobody can connect before
    /// [`ListeningSocket::rename_into_place`], which may replace another socket of this process.
    ///
    /// # Errors
    /// The socket cannot be created as requested.
    pub fn bind_unix_temporary(file: &SocketFile, backlog: i32) -> io::Result<ListeningSocket> {
        let temporary = temporary_path(&file.path);
        remove_stale_socket(&temporary)?;
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(&temporary)?)?;
        let made = (|| {
            fs::set_permissions(&temporary, fs::Permissions::from_mode(file.mode))?;
            let owner = file
                .owner
                .as_deref()
                .map(|name| user_or_group_id("/etc/passwd", name));
            let group = file
                .group
                .as_deref()
                .map(|name| user_or_group_id("/etc/group", name));
            chown(&temporary, owner.transpose()?, group.transpose()?)?;
            socket.listen(backlog)?;
            fs::metadata(&temporary)
        })();
        let metadata = made.inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        let listener = UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())?;
        Ok(ListeningSocket::Unix(
            listener,
            file.path.clone(),
            metadata.ino(),
        ))
    }

    /// Renames a Unix socket from its temporary path. From now on clients can connect.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn rename_into_place(&self) -> io::Result<()> {
        match self {
            ListeningSocket::Unix(_, path, number) if has_inode(&temporary_path(path), *number) => {
                fs::rename(temporary_path(path), path)
            }
            _ => Ok(()),
        }
    }

    /// Sets how many connections wait until they are accepted.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn set_backlog(&self, backlog: i32) -> io::Result<()> {
        match self {
            ListeningSocket::Tcp(listener) => SockRef::from(listener).listen(backlog),
            ListeningSocket::Unix(listener, ..) => SockRef::from(listener).listen(backlog),
        }
    }

    /// Returns the address, with the port that was really bound.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            ListeningSocket::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            ListeningSocket::Unix(_, path, _) => ListenAddress::Unix(path.clone()),
        })
    }

    /// Accepts a connection. Returns it with the peer's address.
    ///
    /// # Errors
    /// The connection cannot be accepted. Most likely there is no free file descriptor.
    pub async fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            ListeningSocket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((stream.into(), Some(peer)))
            }
            ListeningSocket::Unix(listener, ..) => {
                let (stream, _) = listener.accept().await?;
                Ok((stream.into(), None))
            }
        }
    }
}

impl Drop for ListeningSocket {
    /// Removes the file of a Unix socket, unless another socket has replaced it.
    fn drop(&mut self) {
        let ListeningSocket::Unix(_, path, number) = self else {
            return;
        };
        for path in [path.clone(), temporary_path(path)] {
            if has_inode(&path, *number) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Returns the path of a Unix socket until its permissions are set.
fn temporary_path(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    temporary.into()
}

/// Returns whether the file at this path has this inode number.
fn has_inode(path: &Path, number: u64) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.ino() == number)
}

/// Removes a socket on which nobody listens.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is a file that is no socket",
        ));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}

/// Returns the number of a user or group. `table` has names in the first column and numbers in the
/// third.
fn user_or_group_id(table: &str, name: &str) -> io::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    fs::read_to_string(table)?
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .find_map(|rest| rest.split(':').nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{table} has no {name:?}")))
}

impl Socket {
    /// Waits for bytes and returns the first ones without consuming them. For a Unix socket,
    /// returns 0 at once.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match &self.kind {
            Kind::Tcp(stream) => stream.peek(bytes).await,
            Kind::Unix(_) => Ok(0),
        }
    }

    /// Returns how many bytes have come. They may end inside a TLS record or a packet.
    pub fn received(&self) -> u64 {
        self.received
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (this, before) = (self.get_mut(), buf.filled().len());
        let read = match &mut this.kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        this.received += (buf.filled().len() - before) as u64;
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Kind::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Kind::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().kind {
            Kind::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn progress_is_seen_only_of_a_peer_that_takes_bytes() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), None, 5).expect("bound");
        SockRef::from(&listener)
            .set_recv_buffer_size(4096)
            .expect("a socket option");
        let to = listener.local_addr().expect("bound");
        let mut near = Socket::from(TcpStream::connect(to).await.expect("connected"));
        let (mut far, _) = listener.accept().await.expect("accepted");
        let mut progress = SendProgress::default();
        let nothing = SendState {
            is_pending: false,
            has_advanced: false,
        };
        assert_eq!(progress.check(&near, false), nothing);
        near.write_all(&[0; 100_000]).await.expect("written");
        progress.add_written(100_000);
        let is_pending = SendState {
            is_pending: true,
            has_advanced: false,
        };
        assert_eq!(progress.check(&near, false), is_pending);
        // The peer's buffer takes bytes without being read. When it is full, further bytes change
        // nothing.
        loop {
            near.write_all(&[0]).await.expect("written");
            progress.add_written(1);
            tokio::time::sleep(Duration::from_millis(500)).await;
            if progress.check(&near, false) == is_pending {
                break;
            }
        }
        far.read_exact(&mut [0; 20_000]).await.expect("read");
        while !progress.check(&near, false).has_advanced {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut rest = vec![0; 100_000];
        while progress.check(&near, false).is_pending {
            let _ = tokio::time::timeout(Duration::from_millis(50), far.read(&mut rest)).await;
        }
        while progress.check(&near, false).is_pending {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(progress.check(&near, false), nothing);
        // Bytes that the caller holds are pending, too.
        assert_eq!(progress.check(&near, true), is_pending);
        assert!(progress.check(&near, false).has_advanced);
    }

    fn in_runtime<T>(what: impl FnOnce(&Path) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        let _guard = runtime.enter();
        let dir = tempfile::tempdir().expect("a directory");
        what(dir.path())
    }

    fn file(path: &Path) -> SocketFile {
        SocketFile {
            path: path.to_owned(),
            mode: 0o620,
            owner: None,
            group: None,
        }
    }

    #[test]
    fn a_socket_is_bound_to_an_interface() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .expect("a runtime");
        let _guard = runtime.enter();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        match bind_tcp(address, Some("lo"), 5) {
            Ok(listener) => {
                let device = SockRef::from(&listener).device().expect("told");
                assert_eq!(device.as_deref(), Some(&b"lo"[..]));
                let bound = listener.local_addr().expect("bound");
                std::net::TcpStream::connect(bound).expect("it comes in through lo");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
        bind_tcp(address, Some("nosuch0"), 5).expect_err("no such interface");
    }

    #[test]
    fn a_socket_has_its_mode_and_is_removed_with_its_listener() {
        in_runtime(|dir| {
            let path = dir.join("s");
            let listening = ListeningSocket::bind_unix(&file(&path), 5).expect("bound");
            let mode = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o620);
            std::os::unix::net::UnixStream::connect(&path).expect("somebody listens");
            drop(listening);
            assert!(!path.exists());
        });
    }

    #[test]
    fn only_a_socket_nobody_listens_on_is_replaced() {
        in_runtime(|dir| {
            let path = dir.join("s");
            let listening = ListeningSocket::bind_unix(&file(&path), 5).expect("bound");
            let error = ListeningSocket::bind_unix(&file(&path), 5).expect_err("in use");
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            drop(listening);
            // A broker that was killed leaves such a file.
            drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
            assert!(path.exists());
            drop(ListeningSocket::bind_unix(&file(&path), 5).expect("replaced"));
            fs::write(&path, "precious").expect("written");
            let error = ListeningSocket::bind_unix(&file(&path), 5).expect_err("no socket");
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&path).expect("still there"), b"precious");
        });
    }

    #[test]
    fn owners_are_found_by_name_and_number() {
        assert_eq!(user_or_group_id("/etc/passwd", "root").expect("root"), 0);
        assert_eq!(
            user_or_group_id("/etc/passwd", "1234").expect("a number"),
            1234
        );
        let error = user_or_group_id("/etc/passwd", "no such user").expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        in_runtime(|dir| {
            let mut file = file(&dir.join("s"));
            file.owner = Some("no such user".to_owned());
            ListeningSocket::bind_unix(&file, 5).expect_err("nobody");
            assert_eq!(fs::read_dir(dir).expect("readable").count(), 0);
        });
    }
}

//! Connects to an upstream through a proxy: HTTP CONNECT (RFC 9110 section 9.3.6) or SOCKS5 (RFC
//! 1928, RFC 1929). The proxy resolves the upstream's name.

use std::io;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::address::Address;
use super::password::Password;
use crate::net::websocket::{MAX_HEADERS, read_head};

/// A proxy between the bridge and its upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The protocol.
    pub kind: ProxyKind,
    /// The address.
    pub address: Address,
    /// User name and password, if the proxy needs them.
    pub login: Option<(String, Password)>,
}

/// The protocol of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    /// HTTP with the method CONNECT.
    Http,
    /// SOCKS version 5.
    Socks5,
}

impl Proxy {
    /// Asks the proxy at the other end of `stream` for a connection to the upstream. After that,
    /// `stream` leads to the upstream.
    ///
    /// # Errors
    /// The proxy refuses; or the password file cannot be read.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        upstream: &Address,
    ) -> io::Result<()> {
        let login = match &self.login {
            None => None,
            Some((user, password)) => Some((user.as_str(), password.read()?)),
        };
        let login = login.as_ref().map(|(user, password)| (*user, &**password));
        match self.kind {
            ProxyKind::Http => http_connect(stream, upstream, login).await,
            ProxyKind::Socks5 => {
                socks_log_in(stream, login).await?;
                socks_connect(stream, upstream).await
            }
        }
    }
}

async fn http_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    upstream: &Address,
    login: Option<(&str, &[u8])>,
) -> io::Result<()> {
    let mut request = format!("CONNECT {upstream} HTTP/1.1\r\nHost: {upstream}\r\n");
    if let Some((user, password)) = login {
        let pair = STANDARD.encode([user.as_bytes(), b":", password].concat());
        request += &format!("Proxy-Authorization: Basic {pair}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, early) = read_head(stream).await.map_err(unanswered)?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    if !matches!(response.parse(&head), Ok(status) if status.is_complete()) {
        return Err(other("the proxy does not speak HTTP".to_owned()));
    }
    let code = response.code.unwrap_or(0);
    if !(200..300).contains(&code) {
        let reason = response.reason.unwrap_or_default();
        let what = format!("the proxy refuses: {code} {reason}");
        return Err(other(what.trim_end().to_owned()));
    }
    // With MQTT and with TLS, the client sends first.
    if !early.is_empty() {
        return Err(other("the proxy says more than its answer".to_owned()));
    }
    Ok(())
}

/// Agrees with a SOCKS5 proxy on a method of authentication, and logs in.
async fn socks_log_in<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    login: Option<(&str, &[u8])>,
) -> io::Result<()> {
    const NO_LOGIN: u8 = 0;
    const PASSWORD: u8 = 2;
    let offer: &[u8] = match login {
        None => &[5, 1, NO_LOGIN],
        Some(_) => &[5, 2, NO_LOGIN, PASSWORD],
    };
    stream.write_all(offer).await?;
    stream.flush().await?;
    let [version, method] = read(stream).await?;
    if version != 5 {
        return Err(other("the proxy does not speak SOCKS5".to_owned()));
    }
    let (user, password) = match (method, login) {
        (NO_LOGIN, _) => return Ok(()),
        (PASSWORD, Some(login)) => login,
        (_, None) => return Err(other("the proxy wants a login".to_owned())),
        (_, Some(_)) => {
            return Err(other(
                "the proxy takes no user name and password".to_owned(),
            ));
        }
    };
    let mut request = vec![1];
    for part in [user.as_bytes(), password] {
        let length = u8::try_from(part.len()).ok().filter(|length| *length > 0);
        let what = "the login at a SOCKS5 proxy has a part that is empty or longer than 255 bytes";
        request.push(length.ok_or_else(|| other(what.to_owned()))?);
        request.extend_from_slice(part);
    }
    stream.write_all(&request).await?;
    stream.flush().await?;
    match read(stream).await? {
        [_, 0] => Ok(()),
        [_, status] => Err(other(format!(
            "the proxy refuses the login: status {status}"
        ))),
    }
}

/// Asks a SOCKS5 proxy for the connection.
async fn socks_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    upstream: &Address,
) -> io::Result<()> {
    const CONNECT: u8 = 1;
    let mut request = vec![5, CONNECT, 0];
    match upstream.host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            let length = u8::try_from(upstream.host.len());
            let length = length.map_err(|_| other("the upstream's name is too long".to_owned()))?;
            request.extend([3, length]);
            request.extend(upstream.host.bytes());
        }
    }
    request.extend(upstream.port.to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let [_, reply, _, kind] = read(stream).await?;
    if reply != 0 {
        let what = reply_text(reply);
        return Err(other(format!("the proxy refuses: reply {reply}, {what}")));
    }
    // The bound address is not needed, but must be read.
    let length = match kind {
        1 => 4,
        4 => 16,
        _ => usize::from(read::<1, S>(stream).await?[0]),
    };
    let mut bound = vec![0; length + 2];
    stream.read_exact(&mut bound).await.map_err(unanswered)?;
    Ok(())
}

async fn read<const N: usize, S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(unanswered)?;
    Ok(bytes)
}

/// Returns the meaning of a SOCKS5 reply (RFC 1928 section 6).
fn reply_text(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "time to live expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "unknown",
    }
}

fn other(what: String) -> io::Error {
    io::Error::other(what)
}

fn unanswered(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return other("the proxy closed the connection without an answer".to_owned());
    }
    io::Error::new(error.kind(), format!("the proxy's answer: {error}"))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Connects. Returns what the proxy had received before each of its answers, and the result.
    async fn connect_through(
        kind: ProxyKind,
        login: Option<(&str, &str)>,
        host: &str,
        answers: &[&[u8]],
    ) -> (Vec<Vec<u8>>, Result<(), String>) {
        let (mut ours, mut theirs) = duplex(4096);
        let proxy = Proxy {
            kind,
            address: Address {
                host: "proxy".to_owned(),
                port: 1,
            },
            login: login.map(|(user, it)| (user.to_owned(), Password::Inline(it.to_owned()))),
        };
        let upstream = Address {
            host: host.to_owned(),
            port: 8883,
        };
        let answering = async {
            let mut received = Vec::new();
            for answer in answers {
                let mut bytes = vec![0; 1024];
                let length = theirs.read(&mut bytes).await.expect("it is open");
                received.push(bytes[..length].to_vec());
                theirs.write_all(answer).await.expect("it is open");
            }
            drop(theirs);
            received
        };
        let (received, ended) = tokio::join!(answering, proxy.connect(&mut ours, &upstream));
        (received, ended.map_err(|error| error.to_string()))
    }

    #[tokio::test]
    async fn http_is_asked_to_connect_and_says_what_is_wrong() {
        let good: &[u8] = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n";
        let (received, ended) = connect_through(ProxyKind::Http, None, "up.example", &[good]).await;
        assert_eq!(ended, Ok(()));
        let expected = "CONNECT up.example:8883 HTTP/1.1\r\nHost: up.example:8883\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&received[0]), expected);
        let login = Some(("user", "pass:word"));
        let (received, _) = connect_through(ProxyKind::Http, login, "::1", &[good]).await;
        let received = String::from_utf8_lossy(&received[0]).into_owned();
        assert!(received.starts_with("CONNECT [::1]:8883 HTTP/1.1\r\n"));
        assert!(received.contains("Proxy-Authorization: Basic dXNlcjpwYXNzOndvcmQ=\r\n"));
        let cases: [(&[u8], &str); 4] = [
            (
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 3\r\n\r\nno!",
                "the proxy refuses: 407 Proxy Authentication Required",
            ),
            (b"SSH-2.0\r\n\r\n", "the proxy does not speak HTTP"),
            (
                b"HTTP/1.1 200 OK\r\n\r\nhello",
                "the proxy says more than its answer",
            ),
            (b"", "the proxy closed the connection without an answer"),
        ];
        for (answer, expected) in cases {
            let (_, ended) = connect_through(ProxyKind::Http, None, "up", &[answer]).await;
            assert_eq!(ended, Err(expected.to_owned()));
        }
    }

    #[tokio::test]
    async fn socks_is_asked_by_name_or_address_with_login_or_without() {
        let bound: &[u8] = &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        let (received, ended) =
            connect_through(ProxyKind::Socks5, None, "up", &[&[5, 0], bound]).await;
        assert_eq!(ended, Ok(()));
        let by_name = [5, 1, 0, 3, 2, b'u', b'p', 0x22, 0xB3].to_vec();
        assert_eq!(received, [vec![5, 1, 0], by_name]);
        let login = Some(("me", "pw"));
        let named: &[u8] = &[5, 0, 0, 3, 1, b'x', 0, 0];
        let answers: [&[u8]; 3] = [&[5, 2], &[1, 0], named];
        let (received, ended) =
            connect_through(ProxyKind::Socks5, login, "10.1.2.3", &answers).await;
        assert_eq!(ended, Ok(()));
        assert_eq!(received[0], [5, 2, 0, 2]);
        assert_eq!(received[1], b"\x01\x02me\x02pw");
        assert_eq!(received[2], [5, 1, 0, 1, 10, 1, 2, 3, 0x22, 0xB3]);
        let (received, _) =
            connect_through(ProxyKind::Socks5, None, "::1", &[&[5, 0], bound]).await;
        assert_eq!(received[1][..5], [5, 1, 0, 4, 0]);
    }

    #[tokio::test]
    async fn what_a_socks_proxy_refuses_is_told() {
        type Case = (
            Option<(&'static str, &'static str)>,
            &'static [&'static [u8]],
            &'static str,
        );
        let me = Some(("me", "pw"));
        let cases: [Case; 6] = [
            (None, &[&[5, 255]], "the proxy wants a login"),
            (
                me,
                &[&[5, 255]],
                "the proxy takes no user name and password",
            ),
            (
                me,
                &[&[5, 2], &[1, 1]],
                "the proxy refuses the login: status 1",
            ),
            (
                None,
                &[&[5, 0], &[5, 4, 0, 1]],
                "the proxy refuses: reply 4, host unreachable",
            ),
            (None, &[b"HT"], "the proxy does not speak SOCKS5"),
            (
                None,
                &[&[5, 0], &[5, 0]],
                "the proxy closed the connection without an answer",
            ),
        ];
        for (login, answers, expected) in cases {
            let (_, ended) = connect_through(ProxyKind::Socks5, login, "up", answers).await;
            assert_eq!(ended, Err(expected.to_owned()));
        }
    }
}

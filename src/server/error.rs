//! Why a broker could not start, or had to stop.

use std::io;

use crate::config::ConfigError;
use crate::net::auth;
use crate::net::tls::TlsError;
use crate::store::StoreError;

/// Why a broker could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be opened.
    #[error("cannot listen on {bind}: {source}")]
    Listen {
        /// The address.
        bind: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// Files of certificates and keys that cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Tls(Vec<TlsError>),
    /// A configuration, or a file it names, that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Files that authentication needs and that cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Authentication(Vec<auth::Problem>),
    /// The operating system gave no threads, or no signals.
    #[error("cannot start: {0}")]
    Start(io::Error),
    /// The store could not be opened, or failed. Nothing was acknowledged that is not on disk.
    #[error(transparent)]
    Store(#[from] StoreError),
}

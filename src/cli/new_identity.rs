//! `tidegate new-identity`: gives a new identity to a store that is a copy of another one.

use std::path::PathBuf;

use clap::Args;

use super::exit::{self, Failure};
use super::run::{RunFlags, load};
use crate::store::{Store, StoreOptions};

/// The flags of `tidegate new-identity`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A store is given an identity when it is made; over bridges, other brokers tell messages apart by it. A data directory that was copied has the identity of the \
original, and messages of one broker are dropped as repetitions of the other's. Give the copy a new one before its broker is started.

What has been remembered of messages that came over bridges is forgotten with the old identity: one that comes again after the change is delivered again.

Exit code: 0 if the identity is on disk; 1 if not, or a broker runs on the store; 2 if the configuration is wrong.")]
pub struct NewIdentityFlags {
    /// The configuration file of the broker: it says where its data is
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the broker's data, instead
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
}

/// Gives the store a new identity. Returns a text that says so.
///
/// # Errors
/// Exit code 2 if the configuration is wrong. 1 if there is no store, a broker runs on it, or it
/// cannot be read or written.
pub fn run(flags: NewIdentityFlags) -> Result<String, Failure> {
    let flags = RunFlags {
        config: flags.config,
        data_dir: flags.data_dir,
        ..RunFlags::default()
    };
    let config = load(&flags).map_err(|error| Failure::new(exit::WRONG, error.to_string()))?;
    let failed = |message: String| Failure::new(exit::FAILED, message);
    let path = config.store.path.display();
    if !config.store.path.exists() {
        return Err(failed(format!(
            "there is no store at {path}; expected the data directory of a broker"
        )));
    }
    let options = StoreOptions {
        move_corrupt_aside: false,
        ..config.store.clone()
    };
    let (store, _) = Store::open(&options).map_err(|error| failed(error.to_string()))?;
    let old = store.identity();
    let new = store.renew_identity();
    let new = new.map_err(|error| failed(error.to_string()))?;
    store.close().map_err(|error| failed(error.to_string()))?;
    Ok(format!("{path}: identity {old:016x} is now {new:016x}"))
}

//! `tidegate reload`: makes a running broker read its configuration again, and tells what came of it.

use std::path::PathBuf;

use clap::Args;

use super::exit::{self, Failure};
use super::run::{RunFlags, load};
use crate::net::control::{self, Outcome};

/// The flags of `tidegate reload`.
#[derive(Args, Clone, Debug)]
pub struct ReloadFlags {
    /// The configuration file the broker runs with: it says where its data is
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the broker's data, instead
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
}

/// Asks the broker, and hands what took effect to `tell`.
///
/// # Errors
/// Exit code 2: the configuration is wrong, and nothing took effect. 1: no broker answers. 3: some of it takes a restart, and the rest took effect.
pub fn run(flags: ReloadFlags, tell: impl FnOnce(&str)) -> Result<(), Failure> {
    let data_dir = match flags.data_dir {
        Some(data_dir) => data_dir,
        None => {
            let flags = RunFlags {
                config: flags.config,
                ..RunFlags::default()
            };
            let config = load(&flags).map_err(|error| {
                Failure::new(exit::WRONG, format!("nothing took effect:\n{error}"))
            })?;
            config.data_dir
        }
    };
    let answer = control::request_reload(&data_dir).map_err(|error| {
        let path = control::path(&data_dir);
        Failure::new(
            exit::FAILED,
            format!("no broker answers at {}: {error}", path.display()),
        )
    })?;
    match answer.outcome {
        Outcome::Done => {
            tell(&answer.text);
            Ok(())
        }
        Outcome::Restart => {
            tell(&answer.text);
            let message = "some of it takes a restart; the rest took effect";
            Err(Failure::new(exit::RESTART, message))
        }
        Outcome::Failed => Err(Failure::new(exit::WRONG, answer.text.trim_end())),
    }
}

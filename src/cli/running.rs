//! `tidegate reload` and `tidegate drop-bridge`: send a request to a running broker and report its
//! answer.

use std::path::PathBuf;

use clap::Args;

use super::exit::{self, Failure};
use super::run::{RunFlags, load};
use crate::net::control::{self, Command, Outcome, Response};

/// The flags that select the broker.
#[derive(Args, Clone, Debug)]
pub struct BrokerFlags {
    /// The configuration file the broker runs with: it says where its data is
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the broker's data, instead
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
}

/// The flags of `tidegate drop-bridge`.
#[derive(Args, Clone, Debug)]
pub struct DropBridgeFlags {
    /// The bridge, which must not be configured any more
    #[arg(value_name = "NAME", value_parser = bridge_name)]
    pub name: String,
    #[command(flatten)]
    pub which: BrokerFlags,
}

fn bridge_name(text: &str) -> Result<String, String> {
    let expected = "expected the name of a bridge: letters, digits, - and _, up to 64";
    let named = crate::config::is_bridge_name(text).then(|| text.to_owned());
    named.ok_or_else(|| expected.to_owned())
}

/// Makes the broker read its configuration again. Passes what took effect to `tell`.
///
/// # Errors
/// Exit code 2 if the configuration is wrong; nothing took effect then. 1 if no broker answers. 3
/// if some changes need a restart; the others took effect.
pub fn reload(flags: BrokerFlags, print: impl FnOnce(&str)) -> Result<(), Failure> {
    let answer = ask(flags, &Command::Reload)?;
    match answer.outcome {
        Outcome::Done => print(&answer.text),
        Outcome::Restart => {
            print(&answer.text);
            let message = "some of it takes a restart; the rest took effect";
            return Err(Failure::new(exit::RESTART, message));
        }
        Outcome::Failed => return Err(Failure::new(exit::WRONG, answer.text.trim_end())),
    }
    Ok(())
}

/// Drops the queue of a bridge that is no longer configured. Passes what was dropped to `tell`.
///
/// # Errors
/// Exit code 2 if the bridge is configured or has no queue. 1 if no broker answers.
pub fn drop_bridge(flags: DropBridgeFlags, print: impl FnOnce(&str)) -> Result<(), Failure> {
    let answer = ask(flags.which, &Command::DropBridge(flags.name))?;
    match answer.outcome {
        Outcome::Done | Outcome::Restart => {
            print(&answer.text);
            Ok(())
        }
        Outcome::Failed => Err(Failure::new(exit::WRONG, answer.text.trim_end())),
    }
}

fn ask(flags: BrokerFlags, command: &Command) -> Result<Response, Failure> {
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
    control::request(&data_dir, command).map_err(|error| {
        let path = control::path(&data_dir);
        let what = format!("no broker answers at {}: {error}", path.display());
        Failure::new(exit::FAILED, what)
    })
}

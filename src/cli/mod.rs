//! The command line: one file for each subcommand.

mod bench;
mod certs;
mod check;
mod client;
mod deferred;
mod exit;
mod export;
mod format;
mod json;
mod new_identity;
mod options;
mod options_file;
mod passwd;
mod print;
mod property;
mod publish;
pub mod run;
mod running;
mod stream;
mod subscribe;
#[cfg(test)]
mod test_server;
mod transport;
mod url;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use deferred::Deferred;
use exit::Failure;

#[derive(Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    about = "An MQTT broker for the edge: an acknowledgement means \"on disk\"",
    long_about = "An MQTT broker for the edge: an acknowledgement means \"on disk\".\n\n\
                  Without a command it runs the broker, on 127.0.0.1:1883, with its data in ./tidegate-data.",
    args_conflicts_with_subcommands = true
)]
struct Tidegate {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::RunFlags,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker (also what happens without a command)
    Run(Deferred<run::RunFlags>),
    /// Check a configuration
    Check(Deferred<check::CheckFlags>),
    /// Make a running broker read its configuration again
    Reload(Deferred<running::BrokerFlags>),
    /// Drop the queue of a bridge that is configured no more
    DropBridge(Deferred<running::DropBridgeFlags>),
    /// Write what a store holds, and of a damaged one what can still be read, as JSON
    Export(Deferred<export::ExportFlags>),
    /// Give the store of a stopped broker, which is a copy of another, an identity of its own
    NewIdentity(Deferred<new_identity::NewIdentityFlags>),
    /// Make an authority and certificates to try TLS with
    Certs(Deferred<certs::CertsFlags>),
    /// Write a password file
    Passwd(Deferred<passwd::PasswdFlags>),
    /// Publish messages
    Pub(Deferred<publish::PublishFlags>),
    /// Subscribe, and print the messages that arrive
    Sub(Deferred<subscribe::SubscribeFlags>),
    /// Load a broker, and tell what that took
    Bench(Deferred<bench::BenchFlags>),
}

/// Runs the command line and returns the exit code. The first argument is the name of the program.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.collect();
    let is_client = arguments
        .get(1)
        .is_some_and(|command| command == "pub" || command == "sub");
    let arguments = match options_file::expand(arguments) {
        Ok(arguments) => arguments,
        Err(failure) => {
            print::err(format_args!("tidegate: {failure}"));
            return ExitCode::from(failure.code);
        }
    };
    let tidegate = match Tidegate::try_parse_from(arguments) {
        Ok(tidegate) => tidegate,
        Err(error) => {
            // A closed stdout or stderr does not change the exit code.
            let _ = error.print();
            let wrong = if is_client { exit::FAILED } else { exit::WRONG };
            return ExitCode::from(if error.use_stderr() {
                wrong
            } else {
                exit::SUCCESS
            });
        }
    };
    let (name, quiet, result) = execute(tidegate);
    match result {
        Ok(()) => ExitCode::from(exit::SUCCESS),
        Err(failure) => {
            if !quiet {
                print::err(format_args!("{name}: {failure}"));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn execute(tidegate: Tidegate) -> (&'static str, bool, Result<(), Failure>) {
    match tidegate.command {
        None => run_broker(tidegate.run),
        Some(Command::Run(flags)) => run_broker(*flags.0),
        Some(Command::Check(flags)) => {
            let result = check::run(*flags.0).map(print::out);
            ("tidegate", false, result)
        }
        Some(Command::Reload(flags)) => {
            let result = running::reload(*flags.0, |told| print::out(told));
            ("tidegate reload", false, result)
        }
        Some(Command::DropBridge(flags)) => {
            let result = running::drop_bridge(*flags.0, |told| print::out(told));
            ("tidegate drop-bridge", false, result)
        }
        Some(Command::Export(flags)) => {
            let result = export::run(*flags.0, &mut |told| print::err(told));
            ("tidegate export", false, result)
        }
        Some(Command::NewIdentity(flags)) => {
            let result = new_identity::run(*flags.0).map(print::out);
            ("tidegate new-identity", false, result)
        }
        Some(Command::Certs(flags)) => {
            let result = certs::run(&flags.0).map(print::out);
            ("tidegate", false, result)
        }
        Some(Command::Passwd(flags)) => ("tidegate passwd", false, passwd::run(&flags.0)),
        Some(Command::Pub(flags)) => {
            let quiet = flags.0.is_quiet();
            ("tidegate pub", quiet, publish::run(*flags.0))
        }
        Some(Command::Sub(flags)) => {
            let quiet = flags.0.is_quiet();
            ("tidegate sub", quiet, subscribe::run(*flags.0))
        }
        Some(Command::Bench(flags)) => ("tidegate bench", false, bench::run(*flags.0)),
    }
}

fn run_broker(flags: run::RunFlags) -> (&'static str, bool, Result<(), Failure>) {
    let (result, stderr) = run::run(flags);
    // If stderr is stalled, writing an error message would stall the process.
    ("tidegate", stderr == run::Stderr::Stalled, result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Tidegate::command().debug_assert();
    }

    fn error(line: &str) -> String {
        let words = line.split_whitespace();
        match Tidegate::try_parse_from(["tidegate"].into_iter().chain(words)) {
            Ok(tidegate) => panic!("{line}: {tidegate:?}"),
            Err(error) => error.to_string(),
        }
    }

    fn parse(line: &str) -> Tidegate {
        let words = line.split_whitespace();
        Tidegate::try_parse_from(["tidegate"].into_iter().chain(words)).expect(line)
    }

    #[test]
    fn without_a_command_it_runs_the_broker() {
        let tidegate = parse("");
        assert!(tidegate.command.is_none());
        let tidegate =
            parse("--bind 127.0.0.1:0 --bind [::1]:0 --data-dir d --log debug --config f");
        assert_eq!(tidegate.run.bind.len(), 2);
        assert!(matches!(
            parse("run --bind 127.0.0.1:0").command,
            Some(Command::Run(_))
        ));
    }

    #[test]
    fn publishing_takes_the_flags_of_mosquitto_pub() {
        let Some(Command::Pub(Deferred(flags))) =
            parse("pub -h localhost -p 1884 -t a/b -m -5 -q 2 -r -i me -V 5 -D publish user-property k v --repeat 3 --repeat-delay 0.5").command
        else {
            panic!("not pub");
        };
        assert_eq!(flags.topic.as_deref(), Some("a/b"));
        assert_eq!(flags.qos, crate::wire::QoS::ExactlyOnce);
        assert!(flags.retain);
        assert_eq!(flags.repeat, 3);
        assert_eq!(flags.repeat_delay, std::time::Duration::from_millis(500));
        for good in ["-l", "-s", "-n", "-f data"] {
            parse(&format!("pub -t a {good}"));
        }
    }

    #[test]
    fn publishing_needs_one_topic_and_one_source() {
        assert!(error("pub -m x").contains("--topic"));
        assert!(error("pub -t a").contains("--message"));
        assert!(error("pub -t a -m x -n").contains("cannot be used with"));
        assert!(error("pub -t a/# -m x").contains("expected a topic name"));
        assert!(error("pub -t a -m x -q 3").contains("expected 0, 1 or 2"));
        assert!(error("pub -t a -l --repeat 2").contains("cannot be used with"));
        assert!(error("pub -t a -m x --repeat 0").contains("--repeat"));
        assert!(error("pub -t a -m x --repeat-delay x").contains("expected seconds"));
    }

    #[test]
    fn subscribing_takes_the_flags_of_mosquitto_sub() {
        let Some(Command::Sub(Deferred(flags))) = parse(
            "sub -t a/# -t b/+ -T a/x -U c -q 1 -c -i me -C 5 -W 10 -v -R -N -d -k 30 -u u -P p -F %t:%p -x 60",
        )
        .command
        else {
            panic!("not sub");
        };
        assert_eq!(flags.topic, ["a/#", "b/+"]);
        assert_eq!(flags.filter_out, ["a/x"]);
        assert_eq!(flags.unsubscribe, ["c"]);
        assert_eq!(flags.count, Some(5));
        assert_eq!(flags.timeout, Some(std::time::Duration::from_secs(10)));
        assert!(flags.verbose && flags.no_retained && flags.no_newline);
        assert!(flags.format.is_some());
    }

    #[test]
    fn subscribing_refuses_what_makes_no_sense() {
        assert!(error("sub").contains("--topic"));
        assert!(error("sub -t a/#/b").contains("expected a topic filter"));
        assert!(error("sub -t a -C 0").contains("-C"));
        assert!(error("sub -t a -F %k").contains("%k is not known"));
        assert!(error("sub -t a -R --retained-only").contains("cannot be used with"));
        assert!(error("sub -t a --verbos").contains("--verbose"));
    }

    #[test]
    fn help_is_long_since_h_is_the_host() {
        let help = error("sub --help");
        assert!(help.contains("-h, --host"), "{help}");
        assert!(help.contains("--help"), "{help}");
        assert!(error("pub --help").contains("Publish each line"));
    }

    #[test]
    fn help_of_a_command_begins_with_what_it_does() {
        for (line, about) in [
            ("--help", "An MQTT broker for the edge"),
            ("run --help", "Run the broker (also what"),
            ("check -h", "Check a configuration\n"),
            ("pub --help", "Publish messages\n"),
            ("bench --help", "Load a broker, and tell"),
        ] {
            let help = error(line);
            assert!(help.starts_with(about), "{line}: {help}");
        }
    }
}

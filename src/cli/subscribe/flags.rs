//! The flags of `tidegate sub`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::format::Format;
use crate::cli::options::{ConnectionFlags, qos, seconds, topic_filter};
use crate::wire::QoS;
use crate::wire::packet::RetainHandling;

/// The flags of `tidegate sub`.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_override_self = true)]
pub struct SubscribeFlags {
    /// Topic filter to subscribe to, beside that of -L; may be repeated
    #[arg(short, long, required_unless_present_any = ["unsubscribe", "url"], value_parser = topic_filter, allow_hyphen_values = true)]
    pub topic: Vec<String>,
    /// Topic filter to unsubscribe from; may be repeated
    #[arg(short = 'U', long, value_name = "TOPIC", value_parser = topic_filter, allow_hyphen_values = true)]
    pub unsubscribe: Vec<String>,
    /// Do not print messages whose topic matches this filter; may be repeated
    #[arg(short = 'T', long, value_name = "TOPIC", value_parser = topic_filter, allow_hyphen_values = true)]
    pub filter_out: Vec<String>,
    /// QoS of the subscriptions: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = qos)]
    pub qos: QoS,
    /// Exit after this many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Exit after this many seconds, as in 10 or 0.5, with code 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = timeout)]
    pub timeout: Option<Duration>,
    /// Exit when all subscriptions have been acknowledged
    #[arg(short = 'E')]
    pub exit_when_subscribed: bool,
    /// Print the topic before the payload
    #[arg(short, long)]
    pub verbose: bool,
    /// Print each message in this format: %t topic, %p payload, %x payload in hex, %l its length,
    /// %q QoS, %r retained, %m packet identifier, %j all as JSON, %J the same with a JSON payload,
    /// %I and %U time, %A %C %D %E %F %P %R %S properties; %5l sets a width, to which a payload is
    /// cut; @Y @m @d @H @M @S and so on parts of the time, in UTC; \n \t \0 \e and so on
    #[arg(short = 'F', value_name = "FORMAT", value_parser = Format::parse, allow_hyphen_values = true)]
    pub format: Option<Format>,
    /// Print the JSON of %j and %J over several lines
    #[arg(long)]
    pub pretty: bool,
    /// Keep a line of the terminal for each topic, and show the newest message there
    #[arg(short = 'w', long, conflicts_with_all = ["no_newline", "pretty"])]
    pub watch: bool,
    /// No line end after a message
    #[arg(short = 'N')]
    pub no_newline: bool,
    /// Do not print messages that were retained
    #[arg(short = 'R')]
    pub no_retained: bool,
    /// Print retained messages only, and exit with the first one that is not
    #[arg(long, conflicts_with = "no_retained")]
    pub retained_only: bool,
    /// Remove each retained message that is printed from the server
    #[arg(long, conflicts_with = "no_retained")]
    pub remove_retained: bool,
    /// Print only this part of the messages, in per cent, chosen at random
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub random_filter: Option<f64>,
    /// Whether the server sends retained messages for the subscriptions: always, for new ones, or
    /// never (MQTT 5)
    #[arg(long, value_name = "WHEN")]
    pub retain_handling: Option<RetainHandlingFlag>,
    /// Keep the retain flag as published (MQTT 5)
    #[arg(long)]
    pub retain_as_published: bool,
    /// Do not receive what the same client identifier publishes (MQTT 5)
    #[arg(long)]
    pub no_local: bool,
    /// How to connect
    #[command(flatten)]
    pub connection: ConnectionFlags,
}

impl SubscribeFlags {
    /// Whether to suppress error messages.
    pub fn is_quiet(&self) -> bool {
        self.connection.quiet
    }
}

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RetainHandlingFlag {
    /// With each SUBSCRIBE.
    Always,
    /// If the subscription is new.
    New,
    /// Never.
    Never,
}

impl From<RetainHandlingFlag> for RetainHandling {
    fn from(flag: RetainHandlingFlag) -> RetainHandling {
        match flag {
            RetainHandlingFlag::Always => RetainHandling::OnSubscribe,
            RetainHandlingFlag::New => RetainHandling::IfNew,
            RetainHandlingFlag::Never => RetainHandling::Never,
        }
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(1_000_000_000);
    let timeout = seconds(text)?;
    match !timeout.is_zero() && timeout < longest {
        true => Ok(timeout),
        false => Err("expected more than 0 and less than 1000000000 seconds".to_owned()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent) && *percent > 0.0)
        .ok_or_else(|| "expected more than 0 and at most 100, as in 12.5".to_owned())
}

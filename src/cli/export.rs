//! `tidegate export`: writes the rows of a store as JSON lines; of a damaged store, those that can
//! still be read.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Map, Value, json};

use super::exit::{self, Failure};
use super::run::{RunFlags, load};
use crate::broker::Message;
use crate::broker::record::{
    BridgeRecord, DeliveryRecord, InflightRecord, QueueKey, Seq, SessionRecord, SubscriptionRecord,
    WillRecord, Write,
};
use crate::clock::Reading;
use crate::store::{Age, Export, TableReport};
use crate::wire::packet::RetainHandling;
use crate::wire::{PacketId, Property, ProtocolVersion};

/// The flags of `tidegate export`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Each line is a JSON object; \"table\" says what it is: sessions, groups, subscriptions, wills, received (packet identifiers), retained, deliveries, \
messages (those whose deliveries cannot be read), bridges, or message_ids (of what has come over bridges). What is not UTF-8 is in base64, and its key says so: \"payload_base64\". Moments are in \
milliseconds since 1970 by the system's clock as the broker saw it last, intervals in seconds.

The store is only read, and not while a broker runs on it. Standard error tells for each table how many rows were read, and whether that is all. \
Exit code: 0 if that is all; 4 if a part cannot be read; 1 if nothing can, or the output cannot be written; 2 if the configuration is wrong.

To publish the text messages that wait for the client NAME again, with bash and jq:
  jq -c 'select(.table == \"deliveries\" and .client_id == \"NAME\")
      | select(.released | not) | .message | select(.payload)' EXPORTED |
    while read -r message; do
      jq -j .payload <<< \"$message\" | tidegate pub -q 1 -s -t \"$(jq -r .topic <<< \"$message\")\"
    done")]
pub struct ExportFlags {
    /// The configuration file of the broker: it says where its data is
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the broker's data, instead
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
    /// The database itself, instead: for a file that was moved aside
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "data_dir"])]
    pub file: Option<PathBuf>,
    /// Write to this new file, which only its owner may read, instead of to standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the rows. Passes messages for the user to `tell`.
///
/// # Errors
/// Exit code 4 if a part cannot be read. 2 if the configuration is wrong. 1 if nothing can be read,
/// a broker runs on the store, or the output cannot be written.
pub fn run(flags: ExportFlags, print: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let failed = |message: String| Failure::new(exit::FAILED, message);
    let file = database(&flags)?;
    let export = Export::open(&file).map_err(|error| failed(error.to_string()))?;
    let mut out: Box<dyn io::Write> = match &flags.output {
        Some(path) => Box::new(create(path)?),
        None => Box::new(io::stdout().lock()),
    };
    let name = match &flags.output {
        Some(path) => path.display().to_string(),
        None => "standard output".to_owned(),
    };
    let mut buffered = BufWriter::with_capacity(1 << 16, &mut out);
    let mut earlier = EarlierRows {
        clock: export.clock(),
        ..EarlierRows::default()
    };
    let reports = export
        .read(&mut |write, message| {
            if let Some(row) = row(&write, message.as_ref(), &mut earlier) {
                writeln!(buffered, "{row}")?;
            }
            Ok(())
        })
        .and_then(|reports| buffered.flush().map(|()| reports))
        .map_err(|error| failed(format!("cannot write to {name}: {error}")))?;
    for report in &reports {
        print(&describe(report));
    }
    if export.age() != Age::Last {
        print("the last commit is damaged; this is what the one before it left");
    }
    if earlier.clock.is_none() && !reports.last().is_some_and(TableReport::is_complete) {
        print(
            "what the clocks showed last cannot be read: moments are in the broker's time, which may not be the wall clock's",
        );
    }
    if export.age() != Age::Older && reports.iter().all(TableReport::is_complete) {
        return Ok(());
    }
    let message = format!("{} is damaged: a part cannot be read", file.display());
    Err(Failure::new(exit::INCOMPLETE, message))
}

fn database(flags: &ExportFlags) -> Result<PathBuf, Failure> {
    if let Some(file) = &flags.file {
        return Ok(file.clone());
    }
    let flags = RunFlags {
        config: flags.config.clone(),
        data_dir: flags.data_dir.clone(),
        ..RunFlags::default()
    };
    let config = load(&flags).map_err(|error| Failure::new(exit::WRONG, error.to_string()))?;
    Ok(config.store.path)
}

fn create(path: &Path) -> Result<std::fs::File, Failure> {
    let mut open = OpenOptions::new();
    open.write(true).create_new(true).mode(0o600);
    open.open(path).map_err(|error| {
        let message = format!("cannot make {}: {error}", path.display());
        Failure::new(exit::FAILED, message)
    })
}

/// Returns for example `deliveries: 12 rows of 20; 2 pages cannot be read`.
fn describe(report: &TableReport) -> String {
    let TableReport { table, rows, .. } = report;
    let Some(had) = report.had else {
        return format!("{table}: cannot be found");
    };
    if report.is_complete() {
        return format!("{table}: {rows} rows, all there are");
    }
    let mut text = format!("{table}: {rows} rows of {had}");
    if report.damaged_pages > 0 {
        text += &format!("; {} pages cannot be read", report.damaged_pages);
    }
    if report.bad_rows > 0 {
        text += &format!("; {} rows make no sense", report.bad_rows);
    }
    text
}

/// The owner of a queue: a client identifier, or the filter of a shared subscription.
enum Owner {
    Client(Box<str>),
    Group(Box<str>),
}

/// What earlier rows say about later ones.
#[derive(Default)]
struct EarlierRows {
    clock: Option<Reading>,
    owners: HashMap<QueueKey, Owner>,
    inflight: HashMap<(QueueKey, Seq), InflightRecord>,
}

/// Converts a row to JSON. Remembers the owners of queues, to name them in the rows that belong to
/// them. In-flight messages are part of their deliveries.
fn row(write: &Write, message: Option<&Message>, earlier: &mut EarlierRows) -> Option<Value> {
    let EarlierRows {
        clock,
        owners,
        inflight,
    } = earlier;
    let clock = *clock;
    let (table, queue, mut row) = match write {
        Write::PutSession(queue, session) => {
            owners.insert(*queue, Owner::Client(session.client_id.clone()));
            ("sessions", Some(queue), of_session(session, clock))
        }
        Write::PutGroup(queue, filter) => {
            owners.insert(*queue, Owner::Group(filter.clone()));
            ("groups", Some(queue), json!({}))
        }
        Write::PutSubscription(queue, filter, subscription) => (
            "subscriptions",
            Some(queue),
            of_subscription(filter, subscription),
        ),
        Write::PutWill(queue, will) => ("wills", Some(queue), of_will(will, clock)),
        Write::PutReceived(queue, id) => {
            ("received", Some(queue), json!({ "packet_id": id.get() }))
        }
        Write::PutRetained(message, source) => {
            let mut row = json!({ "message": of_message(message, clock) });
            if let Some(source) = source {
                row["client_id"] = json!(source.client_id);
                row["user"] = json!(source.user);
                row["acl_file"] = json!(source.acl);
            }
            ("retained", None, row)
        }
        Write::PutDelivery(seq, queue, delivery) => {
            let mut row = of_delivery(delivery, message, clock);
            row["seq"] = json!(seq.0);
            if let Some(record) = inflight.remove(&(*queue, *seq)) {
                row["packet_id"] = json!(record.packet_id.get());
                row["released"] = json!(delivery.released || record.released);
            }
            ("deliveries", Some(queue), row)
        }
        Write::PutMessage(seq, message) => (
            "messages",
            None,
            json!({ "seq": seq.0, "message": of_message(message, clock) }),
        ),
        Write::PutBridge(queue, bridge) => ("bridges", Some(queue), of_bridge(bridge)),
        Write::PutMessageId(seq, id) => {
            let publisher = format!("{:016x}", id.publisher);
            let row =
                json!({ "seq": seq.0, "publisher": publisher, "id": format!("{:016x}", id.id) });
            ("message_ids", None, row)
        }
        Write::PutSpread(seq, part, spread) => {
            let receivers = spread.receivers.iter().map(|it| {
                let mut receiver = json!({
                    "queue": it.queue.0,
                    "qos": it.qos as u8,
                    "retain": it.retain,
                    "subscription_identifiers": it.subscription_ids.as_slice(),
                });
                name(&mut receiver, owners.get(&it.queue));
                receiver
            });
            let receivers: Vec<Value> = receivers.collect();
            let row = json!({ "seq": seq.0, "part": part, "receivers": receivers });
            ("spreads", None, row)
        }
        Write::PutInflight(queue, _, records) => {
            inflight.extend(records.iter().map(|it| ((*queue, it.seq), *it)));
            return None;
        }
        Write::RemoveSession(_)
        | Write::RemoveInflight(..)
        | Write::RemoveSubscription(..)
        | Write::RemoveGroup(_)
        | Write::RemoveWill(_)
        | Write::RemoveMessage(_)
        | Write::RemoveDelivery(..)
        | Write::RemoveReceived(..)
        | Write::RemoveBridge(_)
        | Write::RemoveMessageId(_)
        | Write::RemoveSpread(..)
        | Write::RemoveRetained(_)
        | Write::PutClock(_) => return None,
    };
    row["table"] = json!(table);
    if let Some(queue) = queue {
        row["queue"] = json!(queue.0);
        name(&mut row, owners.get(queue));
    }
    Some(row)
}

/// Adds the owner of a row.
fn name(row: &mut Value, owner: Option<&Owner>) {
    match owner {
        Some(Owner::Client(id)) => row["client_id"] = json!(id),
        Some(Owner::Group(filter)) => row["group"] = json!(filter),
        None => {}
    }
}

/// Converts a time of the broker to wall-clock time.
fn wall_time(unix: Option<u64>, clock: Option<Reading>) -> Option<u64> {
    let unix = unix?;
    Some(match clock {
        Some(clock) => (unix.saturating_add(clock.wall)).saturating_sub(clock.unix),
        None => unix,
    })
}

fn of_session(session: &SessionRecord, clock: Option<Reading>) -> Value {
    json!({
        "protocol": match session.version {
            ProtocolVersion::V31 => "3.1",
            ProtocolVersion::V311 => "3.1.1",
            ProtocolVersion::V5 => "5.0",
        },
        "session_expiry_interval": session.expiry,
        "disconnected_at": wall_time(session.disconnected_at, clock),
        "user": session.user,
    })
}

fn of_subscription(filter: &str, subscription: &SubscriptionRecord) -> Value {
    let options = &subscription.options;
    json!({
        "filter": filter,
        "qos": options.qos as u8,
        "no_local": options.no_local,
        "retain_as_published": options.retain_as_published,
        "retain_handling": match options.retain_handling {
            RetainHandling::OnSubscribe => 0,
            RetainHandling::IfNew => 1,
            RetainHandling::Never => 2,
        },
        "subscription_identifier": subscription.id,
    })
}

fn of_will(will: &WillRecord, clock: Option<Reading>) -> Value {
    json!({
        "message": of_message(&will.message, clock),
        "message_expiry_interval": will.expiry,
        "will_delay_interval": will.delay,
        "due": wall_time(will.due, clock),
    })
}

fn of_bridge(bridge: &BridgeRecord) -> Value {
    let numbers = |ids: &[PacketId]| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
    let left = bridge.left.iter().map(|left| {
        json!({
            "address": left.address,
            "unreleased": numbers(&left.unreleased),
            "received": numbers(&left.received),
        })
    });
    json!({
        "remote_clientid": bridge.remote_clientid,
        "address": bridge.address,
        "separate_sessions": bridge.separate_sessions,
        "left": left.collect::<Vec<_>>(),
    })
}

fn of_delivery(
    delivery: &DeliveryRecord,
    message: Option<&Message>,
    clock: Option<Reading>,
) -> Value {
    json!({
        "qos": delivery.qos as u8,
        "retain": delivery.retain,
        "released": delivery.released,
        "packet_id": delivery.packet_id.map(|id| id.get()),
        "expires": wall_time(delivery.message.expires, clock),
        "subscription_identifiers": delivery.subscription_ids.as_slice(),
        "message": message.map(|message| of_message(message, clock)),
    })
}

fn of_message(message: &Message, clock: Option<Reading>) -> Value {
    let mut object = Map::new();
    object.insert("topic".to_owned(), json!(message.topic()));
    object.insert("qos".to_owned(), json!(message.qos() as u8));
    object.insert("retain".to_owned(), json!(message.retain()));
    if let Some(expires) = wall_time(message.expires(), clock) {
        object.insert("expires".to_owned(), json!(expires));
    }
    insert_bytes(&mut object, "payload", message.payload());
    let mut user = Vec::new();
    for property in message.properties().iter() {
        match property {
            Property::PayloadFormatIndicator(format) => {
                object.insert("payload_format_indicator".to_owned(), json!(format));
            }
            Property::ContentType(text) => {
                object.insert("content_type".to_owned(), json!(text));
            }
            Property::ResponseTopic(topic) => {
                object.insert("response_topic".to_owned(), json!(topic));
            }
            Property::CorrelationData(data) => {
                insert_bytes(&mut object, "correlation_data", data);
            }
            Property::UserProperty(name, value) => user.push(json!([name, value])),
            // No other property is stored with a message.
            _ => {}
        }
    }
    if !user.is_empty() {
        object.insert("user_properties".to_owned(), Value::Array(user));
    }
    Value::Object(object)
}

/// Inserts bytes as text if they are UTF-8, otherwise as base64 under a key that says so.
fn insert_bytes(object: &mut Map<String, Value>, key: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(key.to_owned(), json!(text)),
        Err(_) => object.insert(format!("{key}_base64"), json!(STANDARD.encode(bytes))),
    };
}

//! Environment variables: laid over the file's tree, and those that only look like ours.

use super::tree::{Node, Origin, Report, Table, Value};
use super::variable::ENVIRONMENT_PREFIX;

/// Tables inside tables in a variable's name: more than any key has.
const MAX_DEPTH: usize = 8;

/// How the variables begin that this project's own tests read.
const TESTS: [&str; 11] = [
    "BRIDGE_ROUNDS",
    "CRASH_",
    "FUZZ_",
    "HOSTILE_",
    "PYTHON",
    "REQUIRE_",
    "RUMQTTD",
    "SIM_",
    "STORM",
    "TEST_",
    "WRITE_GOLDEN",
];

/// Whether a variable begins as ours do and is somebody else's: what Kubernetes tells each
/// container of a Service named `tidegate` or `tidegate-...`, what Docker tells of a linked
/// container with such a name, and what tests of this project are told. Such a variable is ignored.
pub fn is_foreign_variable(name: &str, value: &str) -> bool {
    let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
        return true;
    };
    if TESTS.iter().any(|test| rest.starts_with(test)) || rest.starts_with("ENV_") {
        return true;
    }
    if rest.contains("__") {
        return false;
    }
    // A Service may have a longer name: TIDEGATE_MQTT_SERVICE_HOST.
    let whole = &name[ENVIRONMENT_PREFIX.len() - 1..];
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    whole.ends_with("_SERVICE_HOST")
        || whole.ends_with("_SERVICE_PORT")
        || whole.contains("_SERVICE_PORT_")
        || whole.ends_with("_PORT") && is_url
        || whole.ends_with("_NAME") && value.starts_with('/')
        || tells_a_port(whole)
}

/// Whether a name is that of a port of a Service: `..._PORT_1883_TCP`, `..._PORT_1883_TCP_ADDR`.
fn tells_a_port(name: &str) -> bool {
    name.match_indices("_PORT_").any(|(at, found)| {
        let mut words = name[at + found.len()..].split('_');
        let port = words.next().unwrap_or_default();
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_protocol = matches!(words.next(), Some("TCP" | "UDP" | "SCTP"));
        let is_known = matches!(
            words.next(),
            None | Some("ADDR" | "PORT" | "PROTO" | "START" | "END")
        );
        is_port && is_protocol && is_known
    })
}

/// Lays the variables that begin with [`ENVIRONMENT_PREFIX`] over the file's tree, but for those of
/// others: a double underscore goes into a table, or to the entry of a list with that number.
pub(super) fn overlay(
    root: &mut Table,
    environment: impl IntoIterator<Item = (String, String)>,
    report: &mut Report<'_>,
) {
    let mut variables: Vec<(String, Vec<String>, String)> = environment
        .into_iter()
        .filter(|(name, value)| !is_foreign_variable(name, value))
        .filter_map(|(name, value)| {
            let path = name.strip_prefix(ENVIRONMENT_PREFIX)?;
            let path = path.split("__").map(str::to_lowercase).collect();
            Some((name, path, value))
        })
        .collect();
    // Entry 2 of a list before entry 10, so that a list grows without gaps.
    variables.sort_by_key(|(_, path, _)| {
        path.iter()
            .map(|part| (part.parse::<u64>().ok(), part.clone()))
            .collect::<Vec<_>>()
    });
    for (name, path, value) in variables {
        let at = Origin::Variable(name.into());
        if path.len() > MAX_DEPTH {
            report.add(&at, "", "unknown key: no table is that deep");
        } else if let Err(what) = put(root, &path, &at, value) {
            report.add(&at, path.join("."), what);
        }
    }
}

fn put(table: &mut Table, path: &[String], at: &Origin, raw: String) -> Result<(), String> {
    let [key, rest @ ..] = path else {
        return Ok(());
    };
    let new_node = |value| Node {
        key_at: at.clone(),
        at: at.clone(),
        value,
    };
    let Some(next) = rest.first() else {
        table.insert(key.clone(), new_node(Value::Raw(raw)));
        return Ok(());
    };
    let index: Option<usize> = next.parse().ok();
    let slot = table.entry(key.clone()).or_insert_with(|| {
        new_node(match index {
            Some(_) => Value::List(Vec::new()),
            None => Value::Table(Table::new()),
        })
    });
    match (&mut slot.value, index) {
        (Value::Table(inner), _) => put(inner, rest, at, raw),
        (Value::List(items), Some(index)) if index <= items.len() && rest.len() > 1 => {
            if index == items.len() {
                items.push(new_node(Value::Table(Table::new())));
            }
            match &mut items[index].value {
                Value::Table(inner) => put(inner, &rest[1..], at, raw),
                _ => Err("that entry of the list has no keys".to_owned()),
            }
        }
        (Value::List(items), Some(_)) if rest.len() > 1 => Err(format!(
            "the list has {} entries so far, so the next number is {}",
            items.len(),
            items.len()
        )),
        (Value::List(_), _) => {
            Err("a list: give the entry's number, then its key, as in __0__BIND".to_owned())
        }
        _ => Err(format!("{key} is a value, not a table")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_docker_and_our_tests_set_is_foreign_and_a_typo_is_not() {
        for (name, value) in [
            ("TIDEGATE_PORT", "tcp://10.96.0.7:1883"),
            ("TIDEGATE_SERVICE_HOST", "10.96.0.7"),
            ("TIDEGATE_SERVICE_PORT", "1883"),
            ("TIDEGATE_SERVICE_PORT_MQTT", "1883"),
            ("TIDEGATE_PORT_1883_TCP", "tcp://10.96.0.7:1883"),
            ("TIDEGATE_PORT_1883_TCP_ADDR", "10.96.0.7"),
            ("TIDEGATE_PORT_1883_TCP_PORT", "1883"),
            ("TIDEGATE_PORT_1883_TCP_PROTO", "tcp"),
            ("TIDEGATE_PORT_14567_UDP_ADDR", "10.96.0.7"),
            ("TIDEGATE_MQTT_PORT", "tcp://10.96.0.7:1883"),
            ("TIDEGATE_MQTT_SERVICE_HOST", "10.96.0.7"),
            ("TIDEGATE_MQTT_SERVICE_PORT_WSS", "8084"),
            ("TIDEGATE_METRICS_PORT_9464_TCP_PROTO", "tcp"),
            ("TIDEGATE_NAME", "/app/tidegate"),
            ("TIDEGATE_ENV_TIDEGATE_LIMITS__MAX_PACKET_SIZE", "64KB"),
            ("TIDEGATE_SIM_SEEDS", "7"),
            ("TIDEGATE_REQUIRE_CLIENTS", "1"),
        ] {
            assert!(is_foreign_variable(name, value), "{name}={value}");
        }
        for (name, value) in [
            ("TIDEGATE_PORT", "1883"),
            ("TIDEGATE_NAME", "broker"),
            ("TIDEGATE_DATADIR", "/data"),
            ("TIDEGATE_PORT_MQTT_TCP", "1883"),
            ("TIDEGATE_PORT_1883_TCP_ADRR", "10.96.0.7"),
            ("TIDEGATE_LIMITS__MAX_PACKT_SIZE", "1"),
            ("TIDEGATE_LISTENERS__0__SERVICE_HOST", "a"),
            ("TIDEGATE_", "1"),
        ] {
            assert!(!is_foreign_variable(name, value), "{name}={value}");
        }
    }
}

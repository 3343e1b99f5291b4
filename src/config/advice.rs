//! Advice for those who come from another broker: its keys, and its whole file.

/// What is said about keys of logs, wherever they stand.
const LOG: &str = "the log goes to standard error; redirect it (2> FILE), or let systemd, journald or the container runtime keep \
     and rotate it. What is logged is level in [log]";
const ONE_FORMAT: &str =
    "lines of the log have one format, with the time in UTC, and colours only at a terminal";
const LISTENER: &str = "where to listen is a [[listeners]] table: bind = \"0.0.0.0:1883\", and allow_anonymous = true or a password_file";
const DATA: &str =
    "what is durable is always kept, in data_dir; durability says how far acknowledgements wait";
const SERVICE: &str = "the broker stays in the foreground and runs as the user who starts it; systemd or the container runtime \
     does the rest";
const BRIDGE: &str = "a bridge is a [[bridges]] table: docs/bridges.md";
const PLUGIN: &str =
    "there are no plugins; [authentication] has password files, tokens (jwt) and a callout (http)";
const TLS: &str = "TLS is set up on its listener: a [[listeners]] table with protocol = \"mqtts\", certfile and keyfile";

/// Keys that other brokers have, or that one would expect, by table. The empty one is the top
/// level.
const KEYS: &[(&str, &[&str], &str)] = &[
    (
        "log",
        &[
            "file",
            "path",
            "filename",
            "output",
            "out",
            "dest",
            "destination",
            "dir",
            "directory",
            "target",
            "to",
            "stdout",
            "stderr",
            "syslog",
            "console",
            "type",
            "rotate",
            "rotation",
            "max_files",
            "max_size",
            "max_backups",
            "keep",
        ],
        LOG,
    ),
    (
        "log",
        &[
            "format",
            "json",
            "color",
            "colors",
            "ansi",
            "timestamp",
            "timestamps",
            "timestamp_format",
        ],
        ONE_FORMAT,
    ),
    (
        "",
        &[
            "log_dest",
            "log_file",
            "log_type",
            "log_level",
            "log_path",
            "log_dir",
            "logfile",
            "loglevel",
            "logging",
        ],
        LOG,
    ),
    (
        "",
        &["log_format", "log_timestamp", "log_timestamp_format"],
        ONE_FORMAT,
    ),
    (
        "",
        &[
            "port",
            "listener",
            "listen",
            "host",
            "address",
            "bind_address",
        ],
        LISTENER,
    ),
    (
        "",
        &[
            "persistence",
            "persistence_location",
            "persistence_file",
            "persistent",
            "autosave_interval",
        ],
        DATA,
    ),
    (
        "",
        &[
            "user",
            "group",
            "pid_file",
            "pidfile",
            "daemon",
            "daemonize",
        ],
        SERVICE,
    ),
    ("", &["connection", "bridge"], BRIDGE),
    ("", &["plugin", "plugins", "auth_plugin"], PLUGIN),
    ("", &["tls", "ssl", "certfile", "keyfile", "cafile"], TLS),
];

/// What to do instead of writing this key; `None` if nothing is known of it.
pub(super) fn for_key(table: &str, key: &str) -> Option<&'static str> {
    let is_it = |known: &&(&str, &[&str], &str)| known.0 == table && known.1.contains(&key);
    KEYS.iter().find(is_it).map(|(.., advice)| *advice)
}

/// First words of lines in a mosquitto.conf.
const MOSQUITTO: &[&str] = &[
    "acl_file",
    "address",
    "addresses",
    "allow_anonymous",
    "autosave_interval",
    "bind_address",
    "bind_interface",
    "bridge_cafile",
    "bridge_insecure",
    "bridge_protocol_version",
    "cafile",
    "capath",
    "certfile",
    "cleansession",
    "clientid_prefixes",
    "connection",
    "connection_messages",
    "include_dir",
    "keyfile",
    "listener",
    "log_dest",
    "log_timestamp",
    "log_type",
    "max_connections",
    "max_inflight_messages",
    "max_keepalive",
    "max_packet_size",
    "max_queued_messages",
    "mount_point",
    "notifications",
    "password_file",
    "per_listener_settings",
    "persistence",
    "persistence_file",
    "persistence_location",
    "persistent_client_expiration",
    "pid_file",
    "plugin",
    "port",
    "protocol",
    "psk_file",
    "remote_clientid",
    "remote_password",
    "remote_username",
    "require_certificate",
    "retain_available",
    "socket_domain",
    "start_type",
    "sys_interval",
    "tls_version",
    "topic",
    "try_private",
    "use_identity_as_username",
    "user",
    "websockets_log_level",
];

/// What is said about a mosquitto.conf.
pub(super) const OF_MOSQUITTO: &str = "this is a configuration of Mosquitto, and Tidegate's is TOML: docs/mosquitto.md says what to write instead of \
     each of its lines, by hand. `listener 1883` becomes [[listeners]] with bind = \"0.0.0.0:1883\"; its acl_file and password_file are read as they are";

/// Whether most lines of a text are those of a mosquitto.conf; where the first of them begins.
pub(super) fn mosquitto_conf(text: &str) -> Option<usize> {
    let (mut first, mut known, mut all) = (None, 0, 0);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim();
        if !bare.is_empty() && !bare.starts_with('#') {
            all += 1;
            let mut words = bare.split_whitespace();
            let is_key = words.next().is_some_and(|word| MOSQUITTO.contains(&word));
            if is_key && words.next().is_some_and(|word| !word.starts_with('=')) {
                known += 1;
                first.get_or_insert(offset);
            }
        }
        offset += line.len();
    }
    first.filter(|_| 2 * known > all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mosquitto_conf_is_told_from_toml_with_a_mistake() {
        let conf = "# a comment\n\nlistener 1883\nallow_anonymous true\nunknown thing\n";
        assert_eq!(mosquitto_conf(conf), Some(13));
        for toml in [
            "",
            "# nothing\n",
            "port = 1883\n",
            "[limits]\nmax_packet_size = \nmax_connections = 7\n",
            "acl_file ='x'\n",
            "user alice\n[[listeners]]\nbind = '127.0.0.1:1'\n",
        ] {
            assert_eq!(mosquitto_conf(toml), None, "{toml}");
        }
    }
}

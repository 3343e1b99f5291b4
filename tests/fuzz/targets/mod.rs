//! The fuzz targets: one function each, which takes any bytes and panics if a promise is broken.
//! libFuzzer calls them (`tests/fuzz/Cargo.toml`), and so does `cargo test --test fuzz` with seeded
//! mutations.

mod codec;
#[path = "../mqttbytes.rs"]
mod mqttbytes;
mod outer;
mod seeds;
mod store;

/// A target: its name, the function, and inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("codec_v31", codec::v31, seeds::v31),
    ("codec_v311", codec::v311, seeds::v311),
    ("codec_v5", codec::v5, seeds::v5),
    ("properties", codec::properties, seeds::properties),
    ("topics", codec::topics, seeds::topics),
    ("config", outer::config, seeds::config),
    ("password_file", outer::password_file, seeds::password_file),
    ("store_rows", store::rows, seeds::store_rows),
    ("websocket", outer::websocket, seeds::websocket),
    ("before_mqtt", outer::before_mqtt, seeds::before_mqtt),
];

/// Runs the target with this name, which there is.
#[allow(dead_code)] // For the libFuzzer programs: each runs one.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, ..)| *known == name);
    (target.expect("the name of a target").1)(data);
}

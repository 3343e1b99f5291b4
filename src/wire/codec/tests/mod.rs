//! Tests of the codec: [`malformed`] packets by name, [`round_trip`] of random packets, and
//! [`differential`] comparison with mqttbytes.

mod differential;
mod malformed;
mod malformed_connect;
mod round_trip;

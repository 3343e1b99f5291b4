//! Tests of the codec as a whole: [`malformed`] by name, [`round_trip`] by chance, [`differential`] against mqttbytes.

mod differential;
mod malformed;
mod malformed_connect;
mod round_trip;

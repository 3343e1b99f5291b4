//! What a driver is told beside the bytes to write.

/// What [`Broker::take_output`](crate::broker::Broker::take_output) says beside the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Nothing more will come: write what there is, then close the connection.
    pub close: bool,
    /// Nothing more should be read for now; the connection is touched when that changes.
    pub pause: bool,
    /// Its CONNECT waits for an older connection of the same client: when that has changed, for
    /// which it is touched, the CONNECT is presented again. Until then nothing else is handed over.
    pub waits: bool,
    /// Another connection waits to take the place of this one: what the peer has already sent is
    /// read, unless [`Output::pause`] says no, and handed over; then comes
    /// [`Broker::drained`](crate::broker::Broker::drained).
    pub yields: bool,
    /// It is asked whether the peer takes what was written: answer with
    /// [`Broker::progress`](crate::broker::Broker::progress).
    pub ask_progress: bool,
}

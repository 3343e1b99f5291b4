//! What helps with hand-shakes that fail.

use std::io;

/// An error of a hand-shake, with what helps where that is known.
pub fn explained(error: io::Error) -> io::Error {
    const HINTS: [(&str, &str); 2] = [
        (
            "UnknownIssuer",
            "no authority in cafile (without one, of the system) has issued the peer's certificate; write the certificate of the one that has into cafile",
        ),
        (
            "UnsupportedCertVersion",
            "the peer's certificate is of X.509 version 1, which is not taken without allow_x509_v1 = true; to make one of version 3, sign its request again with \
             extensions: openssl x509 -req ... -extfile FILE, with a line such as subjectAltName=DNS:the.host.name in FILE",
        ),
    ];
    let text = error.to_string();
    let hint = HINTS.iter().find(|(name, _)| text.contains(name));
    match hint {
        Some((_, hint)) => io::Error::new(error.kind(), format!("{text}: {hint}")),
        None => error,
    }
}

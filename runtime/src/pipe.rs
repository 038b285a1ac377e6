//! What happens when the reader of standard output goes away.

/// Lets the process end quietly when it writes to a closed pipe, as command-line tools do (`tool | head`).
///
/// Rust ignores the signal by default, which turns a closed pipe into a failed write.
pub fn end_quietly_when_closed() {
    #[cfg(unix)]
    // SAFETY: SIGPIPE and its default disposition are valid arguments, and no other thread runs yet that could rely
    // on the old disposition.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

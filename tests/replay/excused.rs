//! What single recorded connections do that no client of sound mind would, each with its reason.

/// What a connection is let off.
#[derive(Clone, Copy, PartialEq)]
pub enum Excuse {
    /// Every frame from the first one that the machine would not send: the rest is answered to nobody.
    RestFrom(&'static str),
    /// Frames of this method, and their answers.
    Method(&'static str),
    /// Frames that lack a mandatory parameter or have one of a wrong type: the message types cannot even express them.
    Unreadable,
    /// The whole connection.
    All,
    /// It closes the socket its own way.
    Close,
}

use Excuse::{All, Close, Method, RestFrom, Unreadable};

/// File, connection, what it is let off, and why.
pub const EXCUSED: &[(&str, &str, Excuse, &str)] = &[
    (
        "join-errors",
        "A",
        All,
        "calls methods before joining and joins in every wrong way, seventeen times on one socket",
    ),
    ("join-errors", "B", All, "its one malformed join is refused, and it leaves all the same"),
    ("join-errors", "C", All, "joins four times on one socket, with wrong and with other people's tokens"),
    ("join-lenient", "A", All, "writes numbers and booleans as text and leaves parameters out: a test of servers"),
    ("join-lenient", "B", All, "opens another URL than the token's and leaves out parameters: a test of servers"),
    ("rpc-errors", "A", All, "broken JSON, unknown methods, missing parameters: a test of servers"),
    ("rpc-errors", "B", Method("joinRoom"), "leaves out the first ping and optional parameters"),
    ("hidden-and-secret", "S", Method("joinRoom"), "says recorder:false with a token that says recorder=true"),
    (
        "two-sockets-of-one-browser",
        "A",
        Method("joinRoom"),
        "leaves out optional parameters that a client of ours always sends",
    ),
    (
        "two-sockets-of-one-browser",
        "B",
        Method("joinRoom"),
        "leaves out optional parameters that a client of ours always sends",
    ),
    ("signals", "A", Unreadable, "one signal without a message, one whose message is an object"),
    ("same-id-again", "B", RestFrom("joinRoom"), "joins a second time on the socket whose first join was refused"),
    ("reconnect-expired", "B", RestFrom("joinRoom"), "joins with the spent token after the refused resume"),
    ("moderator-evicts-silent-client", "B", RestFrom("publishVideo"), "goes on talking after its own eviction"),
    ("session-closed-over-rest", "C", RestFrom("sendMessage"), "goes on talking after its own eviction"),
    (
        "socket-closed-without-leave",
        "C-1000",
        Close,
        "closes with 1000 and without leaving, which our client never does",
    ),
    (
        "socket-closed-without-leave",
        "D-1001",
        Close,
        "closes with 1001 and without leaving, which our client never does",
    ),
    (
        "socket-closed-without-leave",
        "E-4102",
        Close,
        "closes with 4102 and without leaving, which our client never does",
    ),
    ("socket-closed-without-leave", "F-4104", Close, "closes with 4104 on a healthy socket"),
    ("socket-closed-without-leave", "G-other", Close, "closes with a text of its own"),
    (
        "reconnect-raw",
        "B",
        RestFrom("connect#2"),
        "resumes on a third socket while the second is healthy, and talks on both",
    ),
    ("half-open-socket", "A", Close, "leaves its half-open socket lying while it opens the second"),
];

/// What this connection of this file is let off.
pub fn excuses(file: &str, conn: &str) -> Vec<Excuse> {
    EXCUSED.iter().filter(|(f, c, _, _)| *f == file && *c == conn).map(|(_, _, e, _)| *e).collect()
}

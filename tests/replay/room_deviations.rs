//! What this host does differently from the recorded server on purpose.

/// Whose the frame is that the other side lacks or has otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The original did it, this host does not (or does it otherwise).
    Recorded,
    /// This host does it, the original did not.
    Ours,
}

/// One wanted difference.
#[derive(Debug)]
pub struct Deviation {
    /// Recording, `*` for all.
    pub file: &'static str,
    /// Connection, `*` for all.
    pub conn: &'static str,
    /// Whose it is.
    pub side: Side,
    /// Part of its description.
    pub what: &'static str,
    /// Why.
    pub why: &'static str,
}

const fn d(file: &'static str, conn: &'static str, side: Side, what: &'static str, why: &'static str) -> Deviation {
    Deviation { file, conn, side, what, why }
}

const ANSWERED: &str = "a request has one answer; the original drops it silently";
const NO_BROKEN_STREAM: &str = "a publication that failed leaves no broken stream behind whose properties could change";
const SILENT_LINE: &str = "the socket is silent on the network: the frame never reached the recorded server, which the recording does not say";
const RECORDING_ENDS: &str = "sent while the socket was closing; the recording ends before the answer";
const HALF_OPEN: &str = "what a dead socket took along is sent again on the next one; the original loses it";
const NO_GHOST_RPC: &str = "no ghosts: closing the JSON-RPC session ends the participation";
const NO_FILTERS: &str = "this host has no filters; it answers 406 to those who could use one and 401 to the others";
const NO_IP_CAMERA: &str =
    "this host cannot fetch IP cameras and says so (500) instead of announcing a stream that never comes";
const SECRET_TICKET: &str = "somebody who joins with the secret gets a ticket of the usual form; the original shows its throw-away token without a URL and record and serverData as null";
const ONE_JOIN: &str = "a second joinRoom on one socket is refused (104); in the original it replaces the first participant, which vanishes without a word";
const KEPT_WHILE_AWAY: &str = "an absent client is kept for ten seconds and gets what it missed; the original evicts it when there is something to tell it";
const NO_RECORDING: &str = "recording is not available here: 501";
const CHANCE: &str = "two leave within the same moment: which socket is read first is chance";
const NO_GHOSTS: &str = "every close that is not followed by a resume evicts after the window; the original keeps a ghost when the close has a reason text";
const NO_STATS: &str = "webRtcStats shows descriptions and candidates; which of them were chosen, and when, the media thread keeps to itself";
const TRANSPORT: &str = "binary frames are refused by the transport, before the room machine: see host_rest_ws.rs";

/// All of them.
pub const DEVIATIONS: &[Deviation] = &[
    d("*", "*", Side::Ours, "\"error\":{\"code\":102}", ANSWERED),
    d("hidden-and-secret", "S", Side::Ours, "answer 1 forceUnpublish", ANSWERED),
    d("moderator", "A", Side::Ours, "answer 33 forceUnpublish", ANSWERED),
    d("rpc-errors", "A", Side::Ours, "answer 1 noSuchMethod", ANSWERED),
    d("rpc-errors", "A", Side::Ours, "answer 2 sessionStatus", ANSWERED),
    d("rpc-errors", "A", Side::Ours, "answer 3 customRequest", ANSWERED),
    d("rpc-errors", "A", Side::Ours, "answer 4 updateConnectionProperties", ANSWERED),
    d("rpc-errors", "A", Side::Ours, "answer 19 receiveVideoFrom", ANSWERED),
    d("rpc-errors", "A", Side::Ours, "answer 22 receiveVideoFrom", ANSWERED),
    d("hidden-and-secret", "R", Side::Ours, "answer 1 leaveRoom", ANSWERED),
    d("rpc-errors", "A", Side::Recorded, "answer 13 streamPropertyChanged", NO_BROKEN_STREAM),
    d("rpc-errors", "B", Side::Recorded, "str_MIC_YpVv_con_MT5j59nLdD", NO_BROKEN_STREAM),
    d("blackhole", "A", Side::Ours, "answer 44 ping", SILENT_LINE),
    d("blackhole", "A", Side::Ours, "answer 45 videoData", SILENT_LINE),
    d("blackhole", "A", Side::Ours, "answer 46 ping", SILENT_LINE),
    d("property-changes", "A", Side::Ours, "answer 41 ping", RECORDING_ENDS),
    d("half-open-socket", "A", Side::Ours, "while half open", HALF_OPEN),
    d("close-session-rpc", "REST", Side::Recorded, "connection/con_HwVvcMfg5O 200", NO_GHOST_RPC),
    d("close-session-rpc", "A", Side::Ours, "\"participantLeft\"", NO_GHOST_RPC),
    d("filters", "*", Side::Recorded, "applyFilter", NO_FILTERS),
    d("filters", "*", Side::Recorded, "FilterEventListener", NO_FILTERS),
    d("filters", "*", Side::Recorded, "removeFilter", NO_FILTERS),
    d("filters", "*", Side::Recorded, "execFilterMethod", NO_FILTERS),
    d("filters", "*", Side::Recorded, "answer 1 joinRoom", NO_FILTERS),
    d("ipcam", "REST", Side::Recorded, "", NO_IP_CAMERA),
    d("ipcam", "A", Side::Recorded, "answer 2 receiveVideoFrom", NO_IP_CAMERA),
    d("ipcam", "A", Side::Recorded, "answer 3 forceUnpublish", NO_IP_CAMERA),
    d("ipcam", "A", Side::Recorded, "ipc_IPCAM", NO_IP_CAMERA),
    d("ipcam", "B", Side::Recorded, "answer 1 joinRoom", NO_IP_CAMERA),
    d("hidden-and-secret", "REST", Side::Recorded, "GET /openvidu/api/sessions/hidden-and-secret", SECRET_TICKET),
    d("join-errors", "A", Side::Recorded, "answer 20 joinRoom", ONE_JOIN),
    d("join-errors", "A", Side::Recorded, "participantJoined", ONE_JOIN),
    d("join-errors", "C", Side::Recorded, "answer 3 joinRoom", ONE_JOIN),
    d("join-errors", "REST", Side::Recorded, "GET /openvidu/api/sessions/join-errors/connection", ONE_JOIN),
    d("reconnect-evicted-browser", "B", Side::Recorded, "\"reason\":\"\"", KEPT_WHILE_AWAY),
    d("reconnect-evicted-browser", "B", Side::Ours, "\"reason\":\"networkDisconnect\"", KEPT_WHILE_AWAY),
    d("reconnect-evicted-browser", "A", Side::Recorded, "close 1000", KEPT_WHILE_AWAY),
    d("reconnect-evicted-browser", "A", Side::Recorded, "answer 69 connect", KEPT_WHILE_AWAY),
    d("reconnect-evicted-browser", "A", Side::Ours, "answer 48 reconnectStream", KEPT_WHILE_AWAY),
    d("reconnect-evicted-browser", "A", Side::Ours, "\"property\":\"audioActive\"", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "REST", Side::Recorded, "connection/con_NuwzrTKe5z 404", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "B", Side::Recorded, "close 1000", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "A", Side::Recorded, "\"reason\":\"\"", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "A", Side::Ours, "\"data\":\"x\"", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "B", Side::Recorded, "answer 9 connect", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "B", Side::Ours, "answer 6 videoData", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "B", Side::Ours, "answer 7 sendMessage", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "B", Side::Ours, "\"data\":\"while B is away\"", KEPT_WHILE_AWAY),
    d("reconnect-evicted-while-away", "B", Side::Ours, "\"data\":\"x\"", KEPT_WHILE_AWAY),
    d("recording-individual", "REST", Side::Recorded, "/openvidu/api/recordings/", NO_RECORDING),
    d("recording-individual", "A", Side::Recorded, "\"recordingSt", NO_RECORDING),
    d("recording-individual", "C", Side::Recorded, "answer 1 joinRoom", NO_RECORDING),
    d("server-makes-the-offer", "A", Side::Ours, "\"participantLeft\"", CHANCE),
    d("server-makes-the-offer", "B", Side::Recorded, "\"participantLeft\"", CHANCE),
    d("socket-closed-without-leave", "REST", Side::Recorded, "con_XzQkegj6Aa", NO_GHOSTS),
    d("socket-closed-without-leave", "A", Side::Recorded, "con_XzQkegj6Aa", NO_GHOSTS),
    d("socket-closed-without-leave", "A", Side::Ours, "con_XzQkegj6Aa", NO_GHOSTS),
    d("socket-closed-without-leave", "REST", Side::Recorded, "con_SYvpCqNpQs", NO_GHOSTS),
    d("socket-closed-without-leave", "A", Side::Recorded, "con_SYvpCqNpQs", NO_GHOSTS),
    d("socket-closed-without-leave", "A", Side::Ours, "con_SYvpCqNpQs", NO_GHOSTS),
    d("two-publishers", "REST", Side::Recorded, "webRtcStats=true", NO_STATS),
    d("socket-oddities", "A", Side::Recorded, "close 1003", TRANSPORT),
];

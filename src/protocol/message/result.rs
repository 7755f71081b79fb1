//! What successful requests are answered with. The JSON-RPC session id (`sessionId`) is added by [`crate::protocol::rpc`], except where the client keeps it.

use super::stream::{IceServer, MediaServer, ParticipantInfo, Role};
use crate::protocol::lenient;
use crate::protocol::secret::{Sdp, Secret};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Answer to `joinRoom`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JoinResult {
    /// Own connection id.
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    /// The same for every socket of one browser.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub final_user_id: Option<String>,
    /// When the connection became active, UTC milliseconds.
    #[serde(deserialize_with = "lenient::u64")]
    pub created_at: u64,
    /// Own full metadata.
    #[serde(deserialize_with = "lenient::string")]
    pub metadata: String,
    /// Everybody already there, in no particular order.
    #[serde(deserialize_with = "lenient::list")]
    pub value: Vec<ParticipantInfo>,
    /// OpenVidu session id.
    #[serde(deserialize_with = "lenient::string")]
    pub session: String,
    /// Semver of the server.
    #[serde(deserialize_with = "lenient::string")]
    pub version: String,
    /// `kurento` or `mediasoup`.
    #[serde(deserialize_with = "lenient::string")]
    pub media_server: String,
    /// Default for publishers, mediasoup only.
    #[serde(deserialize_with = "lenient::boolean")]
    pub video_simulcast: bool,
    /// Whether the connection's streams are recorded.
    #[serde(deserialize_with = "lenient::opt_bool", skip_serializing_if = "Option::is_none")]
    pub record: Option<bool>,
    /// Role text, see [`Role`]. Never empty: the browser recognises its own connection by it.
    #[serde(deserialize_with = "lenient::string")]
    pub role: String,
    /// Informational.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub coturn_ip: Option<String>,
    /// Informational.
    #[serde(deserialize_with = "lenient::opt_u16", skip_serializing_if = "Option::is_none")]
    pub coturn_port: Option<u16>,
    /// Informational.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub turn_username: Option<String>,
    /// Informational.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn_credential: Option<Secret>,
    /// The ICE servers to use.
    #[serde(deserialize_with = "lenient::list")]
    pub custom_ice_servers: Vec<IceServer>,
    /// Recording in progress.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub recording_id: Option<String>,
    /// Name of the recording in progress.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub recording_name: Option<String>,
    /// Life number of a multi-master deployment.
    #[serde(deserialize_with = "lenient::opt_i64", skip_serializing_if = "Option::is_none")]
    pub life: Option<i64>,
    /// What a Tertulia host offers beyond OpenVidu; other servers leave it out and other clients ignore it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tertulia: Option<Value>,
    /// JSON-RPC session id, needed to resume. Not written from here: [`crate::protocol::rpc::success`] adds it.
    #[serde(rename = "sessionId", skip_serializing)]
    pub rpc_session_id: Secret,
}

impl JoinResult {
    /// The role; what cannot be read counts as the weakest one.
    pub fn role(&self) -> Role {
        Role::parse(&self.role).unwrap_or(Role::Subscriber)
    }

    /// Who makes the offers of subscriptions.
    pub fn media_server(&self) -> MediaServer {
        MediaServer::parse(&self.media_server)
    }
}

/// Answer to `publishVideo`, and to `reconnectStream` of a publisher.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PublishResult {
    /// Answer.
    pub sdp_answer: Sdp,
    /// Stream id.
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    /// UTC milliseconds.
    #[serde(deserialize_with = "lenient::u64")]
    pub created_at: u64,
}

/// Answer to `receiveVideoFrom` and to `reconnectStream` of a subscriber; without an SDP when the client has sent the answer itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReceiveResult {
    /// Answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_answer: Option<Sdp>,
}

/// Answer to `prepareReceiveVideoFrom`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PrepareResult {
    /// The server's offer.
    pub sdp_offer: Sdp,
}

/// Answer to `connect`: `reconnection successful`, or `OK` for a new JSON-RPC session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectResult {
    /// Text.
    #[serde(deserialize_with = "lenient::string")]
    pub value: String,
}

impl ConnectResult {
    /// The old JSON-RPC session goes on.
    pub fn resumed() -> Self {
        Self { value: "reconnection successful".into() }
    }

    /// A JSON-RPC session was made or found.
    pub fn ok() -> Self {
        Self { value: "OK".into() }
    }
}

/// Answer to `ping`, the only object without `sessionId`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PingResult {
    /// `pong`.
    #[serde(deserialize_with = "lenient::string")]
    pub value: String,
}

impl Default for PingResult {
    fn default() -> Self {
        Self { value: "pong".into() }
    }
}

//! What both sides say about participants and streams.

use crate::protocol::lenient;
use crate::protocol::secret::Secret;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One published stream, in `joinRoom` results and `participantPublished`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamInfo {
    /// Stream id; its tail is the publisher's connection id.
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    /// UTC milliseconds.
    #[serde(deserialize_with = "lenient::u64")]
    pub created_at: u64,
    /// There is an audio m-line.
    #[serde(deserialize_with = "lenient::boolean")]
    pub has_audio: bool,
    /// There is a video m-line.
    #[serde(deserialize_with = "lenient::boolean")]
    pub has_video: bool,
    /// The microphone is on; absent if the publisher said nothing.
    #[serde(deserialize_with = "lenient::opt_bool", skip_serializing_if = "Option::is_none")]
    pub audio_active: Option<bool>,
    /// The camera is on; absent if the publisher said nothing.
    #[serde(deserialize_with = "lenient::opt_bool", skip_serializing_if = "Option::is_none")]
    pub video_active: Option<bool>,
    /// `CAMERA`, `SCREEN`, `CUSTOM`, `IPCAM`; absent for audio-only.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub type_of_video: Option<String>,
    /// Frames per second, −1 is unspecified.
    #[serde(deserialize_with = "lenient::opt_i32", skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<i32>,
    /// JSON text `{"width":…,"height":…}`, see [`VideoDimensions`].
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub video_dimensions: Option<String>,
    /// `{}` when there is none, else `{type, options, lastExecMethod}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
}

impl StreamInfo {
    /// The publisher's connection id as the stream id tells it.
    pub fn connection_id(&self) -> Option<&str> {
        crate::protocol::ids::connection_of_stream(&self.id)
    }

    /// Picture size, if the publisher gave one that can be read.
    pub fn dimensions(&self) -> Option<VideoDimensions> {
        self.video_dimensions.as_deref().and_then(VideoDimensions::parse)
    }

    /// Kind of picture; audio-only streams have none.
    pub fn kind(&self) -> Option<TypeOfVideo> {
        self.type_of_video.as_deref().map(TypeOfVideo::parse)
    }
}

/// Picture size in pixels as it travels: JSON in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VideoDimensions {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

impl VideoDimensions {
    /// Reads `{"width":640,"height":480}`, also when the text is itself a JSON string of that text, as `streamPropertyChanged` has it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut value: Value = serde_json::from_str(text).ok()?;
        if let Value::String(inner) = &value {
            value = serde_json::from_str(inner).ok()?;
        }
        Some(Self { width: lenient::to_u32(value.get("width")?)?, height: lenient::to_u32(value.get("height")?)? })
    }

    /// The text for `videoDimensions`.
    pub fn to_json(self) -> String {
        format!("{{\"width\":{},\"height\":{}}}", self.width, self.height)
    }
}

/// What a video shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeOfVideo {
    /// A camera.
    Camera,
    /// A screen or window.
    Screen,
    /// A track made by an application.
    Custom,
    /// An IP camera that the server fetches.
    IpCam,
    /// Anything newer.
    Other(String),
}

impl TypeOfVideo {
    /// Reads the text of the wire.
    pub fn parse(text: &str) -> Self {
        match text {
            "CAMERA" => Self::Camera,
            "SCREEN" => Self::Screen,
            "CUSTOM" => Self::Custom,
            "IPCAM" => Self::IpCam,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The text of the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Camera => "CAMERA",
            Self::Screen => "SCREEN",
            Self::Custom => "CUSTOM",
            Self::IpCam => "IPCAM",
            Self::Other(other) => other,
        }
    }
}

/// A participant in the `value` of a `joinRoom` result, and `participantJoined`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParticipantInfo {
    /// Connection id.
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    /// When the connection became active, UTC milliseconds.
    #[serde(deserialize_with = "lenient::u64")]
    pub created_at: u64,
    /// Full metadata, see [`crate::protocol::metadata`].
    #[serde(deserialize_with = "lenient::string")]
    pub metadata: String,
    /// Streams, at most one; never written when empty.
    #[serde(deserialize_with = "lenient::list", skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamInfo>,
}

/// One STUN or TURN server of a `joinRoom` result.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` URL.
    #[serde(deserialize_with = "lenient::string")]
    pub url: String,
    /// TURN user.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<Secret>,
}

/// Who makes the offer for a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MediaServer {
    /// The client offers. Also taken for anything unknown.
    #[default]
    Kurento,
    /// The server offers (`prepareReceiveVideoFrom`).
    Mediasoup,
}

impl MediaServer {
    /// Reads `joinRoom.mediaServer`.
    pub fn parse(text: &str) -> Self {
        if text.eq_ignore_ascii_case("mediasoup") { Self::Mediasoup } else { Self::Kurento }
    }
}

/// What a connection may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Receive and signal.
    Subscriber,
    /// The same and publish.
    #[default]
    Publisher,
    /// The same and evict and unpublish others.
    Moderator,
}

impl Role {
    /// Reads the text of the wire.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "SUBSCRIBER" => Some(Self::Subscriber),
            "PUBLISHER" => Some(Self::Publisher),
            "MODERATOR" => Some(Self::Moderator),
            _ => None,
        }
    }

    /// The text of the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subscriber => "SUBSCRIBER",
            Self::Publisher => "PUBLISHER",
            Self::Moderator => "MODERATOR",
        }
    }

    /// Whether it may publish.
    pub const fn may_publish(self) -> bool {
        !matches!(self, Self::Subscriber)
    }

    /// Whether it may evict and unpublish others.
    pub const fn may_moderate(self) -> bool {
        matches!(self, Self::Moderator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_stream_of_an_android_client_is_read() {
        let s: StreamInfo = serde_json::from_value(json!({
            "id":"str_CAM_a_con_B","createdAt":"17","hasAudio":"true","hasVideo":"false","frameRate":"30","typeOfVideo":null,"new":[1]
        }))
        .unwrap();
        assert!(s.has_audio && !s.has_video);
        assert_eq!((s.created_at, s.frame_rate, s.type_of_video.clone()), (17, Some(30), None));
        assert_eq!(s.connection_id(), Some("con_B"));
        assert!(!serde_json::to_string(&s).unwrap().contains("null"));
    }

    #[test]
    fn dimensions_are_read_once_and_twice_encoded() {
        let want = Some(VideoDimensions { width: 1000, height: 700 });
        assert_eq!(VideoDimensions::parse("{\"width\":1000,\"height\":700}"), want);
        assert_eq!(VideoDimensions::parse("\"{\\\"width\\\":1000,\\\"height\\\":700}\""), want);
        assert_eq!(VideoDimensions::parse("{}"), None);
        assert_eq!(VideoDimensions { width: 1000, height: 700 }.to_json(), "{\"width\":1000,\"height\":700}");
    }

    #[test]
    fn credentials_stay_out_of_debug() {
        let s: IceServer =
            serde_json::from_value(json!({"url":"turn:h:1","username":"u","credential":"hush"})).unwrap();
        assert!(!format!("{s:?}").contains("hush"));
        assert_eq!(serde_json::to_value(&s).unwrap(), json!({"url":"turn:h:1","username":"u","credential":"hush"}));
    }
}

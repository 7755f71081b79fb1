//! Reading requests as the original server does: leniently, and with errors that name the element at fault.

use super::request::*;
use crate::protocol::lenient;
use crate::protocol::secret::{Sdp, Secret};
use serde_json::{Map, Value};

/// Why a request cannot be carried out. [`RequestError::message`] is the text the original server answers, with code −1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The method is none of the protocol.
    #[error("unknown method")]
    UnknownMethod,
    /// `params` is neither absent nor an object.
    #[error("params is a {0}")]
    ParamsNotAnObject(&'static str),
    /// A mandatory element is missing.
    #[error("element '{element}' of '{method}' is missing")]
    Missing {
        /// Element.
        element: &'static str,
        /// Method.
        method: &'static str,
    },
    /// An element has a type that nothing can be read from.
    #[error("element '{element}' of '{method}' has a wrong type")]
    WrongType {
        /// Element.
        element: &'static str,
        /// Method.
        method: &'static str,
    },
}

impl RequestError {
    /// The text for the error answer, worded as the original server does.
    pub fn message(&self) -> String {
        match self {
            Self::UnknownMethod => "java.lang.UnsupportedOperationException:Unknown method".into(),
            Self::ParamsNotAnObject(kind) => format!(
                "com.google.gson.JsonSyntaxException:Expected a com.google.gson.JsonObject but was com.google.gson.{kind}; at path $"
            ),
            Self::Missing { element, method } => format!(
                "java.lang.RuntimeException:Request element '{element}' is missing in RPC method '{method}'. Check that 'openvidu-server' and 'openvidu-browser' versions are compatible with each other"
            ),
            Self::WrongType { element, method } => {
                format!(
                    "java.lang.UnsupportedOperationException:Request element '{element}' in RPC method '{method}' has a wrong type"
                )
            }
        }
    }
}

/// Lenient access to the members of `params`.
struct Params<'a> {
    method: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl Params<'_> {
    /// The member, `null` counting as absent.
    fn get(&self, element: &str) -> Option<&Value> {
        self.map.and_then(|m| m.get(element)).filter(|v| !v.is_null())
    }

    fn value(&self, element: &'static str) -> Result<Value, RequestError> {
        self.get(element).cloned().ok_or(RequestError::Missing { element, method: self.method })
    }

    fn opt_text(&self, element: &'static str) -> Result<Option<String>, RequestError> {
        self.get(element)
            .map(|v| lenient::to_text(v).ok_or(RequestError::WrongType { element, method: self.method }))
            .transpose()
    }

    fn text(&self, element: &'static str) -> Result<String, RequestError> {
        self.opt_text(element)?.ok_or(RequestError::Missing { element, method: self.method })
    }

    fn opt_boolean(&self, element: &str) -> Option<bool> {
        self.get(element).map(lenient::to_bool)
    }

    fn boolean(&self, element: &'static str) -> Result<bool, RequestError> {
        self.opt_boolean(element).ok_or(RequestError::Missing { element, method: self.method })
    }

    /// A mandatory number; one that cannot be read counts as 0.
    fn number(&self, element: &'static str) -> Result<u32, RequestError> {
        Ok(lenient::to_u32(&self.value(element)?).unwrap_or(0))
    }

    fn opt_i32(&self, element: &str) -> Option<i32> {
        self.get(element).and_then(lenient::to_i64).and_then(|n| i32::try_from(n).ok())
    }

    fn opt_sdp(&self, element: &'static str) -> Result<Option<Sdp>, RequestError> {
        Ok(self.opt_text(element)?.map(Sdp::from))
    }
}

/// Tiles named in one request at most; the rest is ignored.
const TILES: usize = 256;

/// What can be read of a list of tiles.
fn tiles(list: Option<&Value>) -> Vec<TileSize> {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |tile: &Value| {
        Some(TileSize {
            stream_id: tile.get("streamId")?.as_str()?.to_owned(),
            width: lenient::to_u32(tile.get("width")?)?,
            height: lenient::to_u32(tile.get("height")?)?,
        })
    };
    list.iter().take(TILES).filter_map(read).collect()
}

impl Request {
    /// Reads a request of a client, with the leniency of the original server.
    ///
    /// # Errors
    /// [`RequestError`], whose text names the element at fault.
    pub fn parse(method: &str, params: Option<&Value>) -> Result<Self, RequestError> {
        let name = Self::method_name(method).ok_or(RequestError::UnknownMethod)?;
        let map = match params {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(Value::Array(_)) => return Err(RequestError::ParamsNotAnObject("JsonArray")),
            Some(_) => return Err(RequestError::ParamsNotAnObject("JsonPrimitive")),
        };
        let p = Params { method: name, map };
        Ok(match name {
            "ping" => Self::Ping(Ping { interval: p.get("interval").and_then(lenient::to_u64) }),
            "connect" => Self::Connect(Connect {
                session_id: p.opt_text("sessionId")?.map(Secret::from),
                reconnect: p.opt_boolean("reconnect"),
            }),
            "closeSession" => Self::CloseSession(Empty {}),
            "joinRoom" => Self::JoinRoom(JoinRoom {
                session: p.text("session")?,
                token: p.text("token")?.into(),
                platform: p.text("platform")?,
                secret: p.text("secret")?.into(),
                metadata: p.text("metadata")?,
                sdk_version: p.opt_text("sdkVersion")?,
                recorder: p.opt_boolean("recorder").unwrap_or(false),
                stt: p.opt_boolean("stt").unwrap_or(false),
            }),
            "publishVideo" => Self::PublishVideo(PublishVideo {
                sdp_offer: p.text("sdpOffer")?.into(),
                do_loopback: p.boolean("doLoopback")?,
                has_audio: p.boolean("hasAudio")?,
                has_video: p.boolean("hasVideo")?,
                audio_active: p.opt_boolean("audioActive"),
                video_active: p.opt_boolean("videoActive"),
                type_of_video: p.opt_text("typeOfVideo")?,
                frame_rate: p.opt_i32("frameRate"),
                video_dimensions: p.opt_text("videoDimensions")?,
                filter: p.get("filter").and_then(Value::as_object).and_then(|f| {
                    Some(FilterWish {
                        kind: lenient::to_text(f.get("type")?)?,
                        options: f
                            .get("options")
                            .cloned()
                            .map(lenient::drop_nulls)
                            .unwrap_or(Value::Object(Map::new())),
                    })
                }),
            }),
            "unpublishVideo" => Self::UnpublishVideo(Empty {}),
            "prepareReceiveVideoFrom" => Self::PrepareReceiveVideoFrom(PrepareReceiveVideoFrom {
                sender: p.text("sender")?,
                reconnect: p.boolean("reconnect")?,
            }),
            "receiveVideoFrom" => Self::ReceiveVideoFrom(ReceiveVideoFrom {
                sender: p.text("sender")?,
                sdp_offer: p.opt_sdp("sdpOffer")?,
                sdp_answer: p.opt_sdp("sdpAnswer")?,
            }),
            "unsubscribeFromVideo" => Self::UnsubscribeFromVideo(UnsubscribeFromVideo { sender: p.text("sender")? }),
            "onIceCandidate" => Self::OnIceCandidate(IceCandidateToServer {
                endpoint_name: p.text("endpointName")?,
                candidate: p.text("candidate")?,
                sdp_mid: p.text("sdpMid")?,
                sdp_m_line_index: p.number("sdpMLineIndex")?,
            }),
            "sendMessage" => Self::SendMessage(SendMessage { message: p.text("message")? }),
            "streamPropertyChanged" => Self::StreamPropertyChanged(StreamPropertyChanged {
                stream_id: p.text("streamId")?,
                property: p.text("property")?,
                new_value: lenient::drop_nulls(p.value("newValue")?),
                reason: p.text("reason")?,
            }),
            "forceDisconnect" => Self::ForceDisconnect(ForceDisconnect { connection_id: p.text("connectionId")? }),
            "forceUnpublish" => Self::ForceUnpublish(ForceUnpublish { stream_id: p.text("streamId")? }),
            "applyFilter" => Self::ApplyFilter(ApplyFilter {
                stream_id: p.text("streamId")?,
                kind: p.text("type")?,
                options: p.text("options")?,
            }),
            "removeFilter" => Self::RemoveFilter(RemoveFilter { stream_id: p.text("streamId")? }),
            "execFilterMethod" => Self::ExecFilterMethod(ExecFilterMethod {
                stream_id: p.text("streamId")?,
                method: p.text("method")?,
                params: p.text("params")?,
            }),
            "addFilterEventListener" => Self::AddFilterEventListener(FilterEventListener {
                stream_id: p.text("streamId")?,
                event_type: p.text("eventType")?,
            }),
            "removeFilterEventListener" => Self::RemoveFilterEventListener(FilterEventListener {
                stream_id: p.text("streamId")?,
                event_type: p.text("eventType")?,
            }),
            "reconnectStream" => Self::ReconnectStream(ReconnectStream {
                stream: p.text("stream")?,
                sdp_string: p.opt_sdp("sdpString")?,
                sdp_offer: p.opt_sdp("sdpOffer")?,
                forcibly_reconnect: p.opt_boolean("forciblyReconnect"),
            }),
            "videoData" => Self::VideoData(VideoData {
                height: p.number("height")?,
                width: p.number("width")?,
                video_active: p.boolean("videoActive")?,
                audio_active: p.boolean("audioActive")?,
            }),
            "echo" => Self::Echo(Empty {}),
            "leaveRoom" => Self::LeaveRoom(Empty {}),
            "subscribeToSpeechToText" => Self::SubscribeToSpeechToText(SpeechToText {
                connection_id: p.text("connectionId")?,
                lang: p.opt_text("lang")?,
            }),
            "unsubscribeFromSpeechToText" => {
                Self::UnsubscribeFromSpeechToText(SpeechToText { connection_id: p.text("connectionId")?, lang: None })
            }
            "sessionStatus" => {
                Self::SessionStatus(SessionStatus { session_id: p.opt_text("sessionId")?.unwrap_or_default() })
            }
            "tertuliaTiles" => Self::Tiles(Tiles { tiles: tiles(p.get("tiles")) }),
            _ => return Err(RequestError::UnknownMethod),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_method_is_parsed_and_named_alike() {
        for m in Request::METHODS {
            match Request::parse(m, Some(&json!({}))) {
                Ok(r) => assert_eq!(r.method(), m),
                Err(RequestError::Missing { method, .. }) => assert_eq!(method, m),
                Err(e) => panic!("{m}: {e}"),
            }
        }
        assert_eq!(Request::parse("noSuchMethod", None), Err(RequestError::UnknownMethod));
    }

    #[test]
    fn a_missing_element_is_named_as_the_original_does() {
        let e = Request::parse("joinRoom", None).unwrap_err();
        assert_eq!(
            e.message(),
            "java.lang.RuntimeException:Request element 'session' is missing in RPC method 'joinRoom'. Check that 'openvidu-server' and 'openvidu-browser' versions are compatible with each other"
        );
        let e = Request::parse("joinRoom", Some(&json!("text"))).unwrap_err();
        assert_eq!(
            e.message(),
            "com.google.gson.JsonSyntaxException:Expected a com.google.gson.JsonObject but was com.google.gson.JsonPrimitive; at path $"
        );
    }

    #[test]
    fn a_null_element_counts_as_absent() {
        let e = Request::parse("forceDisconnect", Some(&json!({"connectionId":null}))).unwrap_err();
        assert_eq!(e, RequestError::Missing { element: "connectionId", method: "forceDisconnect" });
    }

    #[test]
    fn debug_of_a_join_hides_token_and_secret() {
        let r = Request::parse(
            "joinRoom",
            Some(&json!({"token":"wss://h?token=tok_Hush","session":"s","platform":"p","metadata":"","secret":"MY_SECRET"})),
        )
        .unwrap();
        let text = format!("{r:?}");
        assert!(!text.contains("tok_Hush") && !text.contains("MY_SECRET"), "{text}");
    }
}

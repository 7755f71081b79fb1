//! Every request, result and notification of OpenVidu 2 as types, shared by client and host.
//!
//! Reading is lenient ([`super::lenient`]): unknown members are tolerated, texts count as booleans and numbers. Writing follows the member order of
//! `openvidu-browser` (requests) and of the Java server (results, notifications) and never writes a `null`.

mod notification;
mod request;
mod request_parse;
mod result;
mod signal;
mod stream;

pub use notification::{
    BroadcastEvent, ConnectionPropertyChanged, FilterEvent, ForciblyReconnectSubscriber, IceCandidateFromServer,
    MediaErrorEvent, NetworkQualityLevelChanged, Notification, NotificationError, ParticipantGone,
    ParticipantPublished, PropertyValue, RecordingEvent, SignalEvent, SpeechToTextDisconnected, SpeechToTextMessage,
    StreamPropertyChangedEvent, UnknownNotification,
};
pub use request::{
    ApplyFilter, Connect, Empty, ExecFilterMethod, FilterEventListener, FilterWish, ForceDisconnect, ForceUnpublish,
    IceCandidateToServer, JoinRoom, Ping, PrepareReceiveVideoFrom, PublishVideo, ReceiveVideoFrom, ReconnectStream,
    RemoveFilter, Request, SendMessage, SessionStatus, SpeechToText, StreamPropertyChanged, TileSize, Tiles,
    UnsubscribeFromVideo, VideoData,
};
pub use request_parse::RequestError;
pub use result::{ConnectResult, JoinResult, PingResult, PrepareResult, PublishResult, ReceiveResult};
pub use signal::{SignalMessage, SignalMessageError};
pub use stream::{IceServer, MediaServer, ParticipantInfo, Role, StreamInfo, TypeOfVideo, VideoDimensions};

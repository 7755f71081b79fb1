//! Error codes of the protocol (`OpenViduException :: Code`).

/// A code in an error answer. The numeric value is what travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i64)]
#[allow(missing_docs, reason = "the variants carry the names of the protocol's own table")]
pub enum ErrorCode {
    /// Uncaught exception of the original server: missing parameter, wrong type.
    Internal = -1,
    UserGeneric = 10,
    UserNotFound = 102,
    UserClosed = 103,
    ExistingUserInRoom = 104,
    UserNotStreaming = 105,
    UserAlreadyStreaming = 106,
    RoomGeneric = 201,
    RoomNotFound = 202,
    RoomClosed = 203,
    RoomCannotBeCreated = 204,
    MediaGeneric = 301,
    MediaSdp = 302,
    MediaEndpoint = 303,
    MediaWebrtcEndpoint = 304,
    MediaRtpEndpoint = 305,
    MediaNotAWebEndpoint = 306,
    MediaMute = 307,
    MediaTypeRecordingProperties = 308,
    MediaTypeStreamIncompatibleWithRecordingProperties = 309,
    /// A wrong form of a parameter (400 of HTTP); the original answers −1.
    BadRequest = 400,
    /// Bad or used token, or the role does not allow it.
    UserUnauthorized = 401,
    RoleNotFound = 402,
    SessionIdCannotBeCreated = 403,
    TokenCannotBeCreated = 404,
    ExistingFilterAlreadyApplied = 405,
    FilterNotApplied = 406,
    FilterEventListenerNotFound = 407,
    PublisherEndpointNotFound = 408,
    UserMetadataFormatInvalid = 500,
    SignalFormatInvalid = 600,
    SignalToInvalid = 601,
    RecordingStart = 701,
    RecordingStop = 702,
    RecordingList = 703,
    RecordingNotFound = 704,
    RecordingCompletion = 705,
    RecordingDelete = 706,
    RecordingPath = 707,
    RecordingFileEmpty = 708,
    DockerNotFound = 709,
    BroadcastStart = 710,
    BroadcastConcurrent = 711,
    ForcedCodecNotFoundInSdpOffer = 800,
    TransportRequest = 801,
    TransportResponse = 802,
    /// A method was called before `joinRoom`.
    Transport = 803,
    MediaNodeNotFound = 900,
    MediaNodeStatusWrong = 901,
    MediaNodeNoCapacity = 902,
    ServiceNotEnabled = 996,
    WrongOpenViduEdition = 997,
    WrongPath = 998,
    Generic = 999,
    /// `connect` with an unknown JSON-RPC session.
    ReconnectionError = 40007,
}

impl ErrorCode {
    const ALL: [Self; 55] = [
        Self::Internal,
        Self::UserGeneric,
        Self::UserNotFound,
        Self::UserClosed,
        Self::ExistingUserInRoom,
        Self::UserNotStreaming,
        Self::UserAlreadyStreaming,
        Self::RoomGeneric,
        Self::RoomNotFound,
        Self::RoomClosed,
        Self::RoomCannotBeCreated,
        Self::MediaGeneric,
        Self::MediaSdp,
        Self::MediaEndpoint,
        Self::MediaWebrtcEndpoint,
        Self::MediaRtpEndpoint,
        Self::MediaNotAWebEndpoint,
        Self::MediaMute,
        Self::MediaTypeRecordingProperties,
        Self::MediaTypeStreamIncompatibleWithRecordingProperties,
        Self::BadRequest,
        Self::UserUnauthorized,
        Self::RoleNotFound,
        Self::SessionIdCannotBeCreated,
        Self::TokenCannotBeCreated,
        Self::ExistingFilterAlreadyApplied,
        Self::FilterNotApplied,
        Self::FilterEventListenerNotFound,
        Self::PublisherEndpointNotFound,
        Self::UserMetadataFormatInvalid,
        Self::SignalFormatInvalid,
        Self::SignalToInvalid,
        Self::RecordingStart,
        Self::RecordingStop,
        Self::RecordingList,
        Self::RecordingNotFound,
        Self::RecordingCompletion,
        Self::RecordingDelete,
        Self::RecordingPath,
        Self::RecordingFileEmpty,
        Self::DockerNotFound,
        Self::BroadcastStart,
        Self::BroadcastConcurrent,
        Self::ForcedCodecNotFoundInSdpOffer,
        Self::TransportRequest,
        Self::TransportResponse,
        Self::Transport,
        Self::MediaNodeNotFound,
        Self::MediaNodeStatusWrong,
        Self::MediaNodeNoCapacity,
        Self::ServiceNotEnabled,
        Self::WrongOpenViduEdition,
        Self::WrongPath,
        Self::Generic,
        Self::ReconnectionError,
    ];

    /// The number on the wire.
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// The code with this number, if it is a known one.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.code() == code)
    }

    /// `text` with the suffix `. Code: n` that every application error of the original carries.
    pub fn message(self, text: &str) -> String {
        match self {
            Self::Internal | Self::ReconnectionError => text.to_owned(),
            _ => format!("{text}. Code: {}", self.code()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_number_once() {
        for c in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_code(c.code()), Some(c));
        }
        assert_eq!(ErrorCode::from_code(12345), None);
    }

    #[test]
    fn application_errors_carry_the_suffix() {
        assert_eq!(
            ErrorCode::UserNotStreaming.message("Participant 'con_A' is not streaming media"),
            "Participant 'con_A' is not streaming media. Code: 105"
        );
        assert_eq!(ErrorCode::ReconnectionError.message("reconnection error"), "reconnection error");
    }
}

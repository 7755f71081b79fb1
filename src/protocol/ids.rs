//! Identifiers: what they look like and what can be read from them.

/// Prefix of a connection id.
pub const CONNECTION_PREFIX: &str = "con_";

/// The connection that publishes a stream, read from the stream's id: from its last `con_` on, or from `_ipc_` for an IP camera.
///
/// ```text
/// str_CAM_NhxL_con_Xnxg19tonh                        → con_Xnxg19tonh
/// str_IPC_AbCd_ipc_IPCAM_rtsp_WXYZ_host_8554_stream  → ipc_IPCAM_rtsp_WXYZ_host_8554_stream
/// ```
pub fn connection_of_stream(stream_id: &str) -> Option<&str> {
    let at = if stream_id.starts_with("str_IPC_") {
        stream_id.find("_ipc_").map(|at| at + 1)
    } else {
        stream_id.rfind(CONNECTION_PREFIX)
    }?;
    stream_id.get(at..)
}

/// The stream in the name of a subscriber endpoint (`<subscriber con>_<stream id>`), or the name itself for a publisher endpoint.
pub fn stream_of_endpoint(endpoint_name: &str) -> Option<&str> {
    endpoint_name.find("str_").and_then(|at| endpoint_name.get(at..))
}

/// Whether `id` is `prefix`, one upper-case letter and `tail` more characters of `[0-9A-Za-z]`.
pub fn is_random_id(id: &str, prefix: &str, tail: usize) -> bool {
    let Some(rest) = id.strip_prefix(prefix) else {
        return false;
    };
    let mut bytes = rest.bytes();
    rest.len() == tail + 1
        && bytes.next().is_some_and(|b| b.is_ascii_uppercase())
        && bytes.all(|b| b.is_ascii_alphanumeric())
}

/// Whether `id` can be a session's name: 1 to 128 characters of `[A-Za-z0-9_~-]`, so that it needs no escaping in a token or a path.
pub fn is_session_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_publisher_is_the_tail_of_the_stream_id() {
        assert_eq!(connection_of_stream("str_CAM_NhxL_con_Xnxg19tonh"), Some("con_Xnxg19tonh"));
        assert_eq!(
            connection_of_stream("str_IPC_AbCd_ipc_IPCAM_rtsp_WXYZ_h_8554_s"),
            Some("ipc_IPCAM_rtsp_WXYZ_h_8554_s")
        );
        assert_eq!(connection_of_stream("nonsense"), None);
        assert_eq!(connection_of_stream(""), None);
    }

    #[test]
    fn endpoints_name_their_stream() {
        assert_eq!(stream_of_endpoint("con_A_str_CAM_x_con_B"), Some("str_CAM_x_con_B"));
        assert_eq!(stream_of_endpoint("str_CAM_x_con_B"), Some("str_CAM_x_con_B"));
        assert_eq!(stream_of_endpoint("con_A"), None);
    }

    #[test]
    fn id_grammar() {
        assert!(is_random_id("con_Xnxg19tonh", "con_", 9));
        assert!(!is_random_id("con_xnxg19tonh", "con_", 9));
        assert!(!is_random_id("con_Xnxg19ton", "con_", 9));
        assert!(!is_random_id("con_Xnxg19tonß", "con_", 9));
        assert!(is_session_id("reconnect-force-media") && !is_session_id("") && !is_session_id("a/b"));
    }
}

//! STUN and TURN servers, as far as the stack can use them.

use super::config::TransportConfig;
use webrtc::peer_connection::RTCIceServer;

/// ICE servers the stack can use. Each TURN server is asked as a STUN server too: the stack makes no server-reflexive candidate of it otherwise.
pub(super) fn servers(config: &TransportConfig) -> Vec<RTCIceServer> {
    let mut servers = Vec::new();
    for server in &config.ice_servers {
        let url = server.url.trim();
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
        let tcp = query.split('&').any(|p| p.eq_ignore_ascii_case("transport=tcp"));
        match scheme.to_ascii_lowercase().as_str() {
            "stun" if !host.is_empty() => {
                if !config.relay_only {
                    servers.push(RTCIceServer { urls: vec![format!("stun:{host}")], ..RTCIceServer::default() });
                }
            }
            "turn" if !host.is_empty() && !tcp => match (&server.username, &server.credential) {
                (Some(username), Some(credential)) => {
                    servers.push(RTCIceServer {
                        urls: vec![format!("turn:{host}?transport=udp")],
                        username: username.clone(),
                        credential: credential.clone(),
                    });
                    if !config.relay_only {
                        servers.push(RTCIceServer { urls: vec![format!("stun:{host}")], ..RTCIceServer::default() });
                    }
                }
                _ => tracing::warn!(host, "a TURN server without user name and password was left out"),
            },
            _ => tracing::warn!(
                scheme,
                host,
                tcp,
                "an ICE server was left out: only STUN and TURN over UDP are supported"
            ),
        }
    }
    servers.retain(|server| server.urls.iter().all(|url| rtc::ice::url::Url::parse_url(url).is_ok()));
    servers.dedup_by(|a, b| a.urls == b.urls);
    servers
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::peer::config::IceServer;

    #[test]
    fn only_servers_the_stack_can_use_are_kept() {
        let server = |url: &str, secret: bool| IceServer {
            url: url.to_owned(),
            username: secret.then(|| "u".to_owned()),
            credential: secret.then(|| "p".to_owned()),
        };
        let mut config = TransportConfig {
            ice_servers: vec![
                server("stun:192.0.2.1:3478", false),
                server("turn:192.0.2.2:3478?transport=udp", true),
                server("turn:192.0.2.3:3478?transport=tcp", true),
                server("turns:192.0.2.4:5349", true),
                server("turn:192.0.2.5:3478", false),
                server("nonsense", false),
                server("", false),
            ],
            ..TransportConfig::default()
        };
        let urls = |config: &TransportConfig| servers(config).into_iter().flat_map(|s| s.urls).collect::<Vec<_>>();
        assert_eq!(urls(&config), ["stun:192.0.2.1:3478", "turn:192.0.2.2:3478?transport=udp", "stun:192.0.2.2:3478"]);
        config.relay_only = true;
        assert_eq!(urls(&config), ["turn:192.0.2.2:3478?transport=udp"]);
        assert!(!format!("{:?}", config).contains("\"p\""), "credentials stay out of logs");
    }
}

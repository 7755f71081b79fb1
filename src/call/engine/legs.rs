//! What concerns every transport of this place: how media travels, candidates, ends and rebuilds.

use tokio::sync::mpsc;
use tracing::warn;

use super::Engine;
use crate::call::leg::LegInput;
use crate::peer::{IceServer, TransportConfig};
use crate::signaling::{Joined, ServerKind};

impl Engine {
    /// How media travels in this place.
    pub(super) fn transport(&self, joined: &Joined) -> TransportConfig {
        let host = joined.host.rsplit_once(':').map_or(joined.host.as_str(), |(h, _)| h);
        let local = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
        TransportConfig {
            ice_servers: joined
                .ice_servers
                .iter()
                // Our own host is reached directly: its entry only keeps browsers from asking public servers.
                .filter(|s| !((local || joined.server == ServerKind::Tertulia) && s.url.starts_with("stun:")))
                .map(|s| IceServer {
                    url: s.url.clone(),
                    username: s.username.clone(),
                    credential: s.credential.as_ref().map(|c| c.expose().to_owned()),
                })
                .collect(),
            include_loopback: local,
            impairment: self.config.impairments,
            ..TransportConfig::default()
        }
    }

    /// Ends every transport; tiles stay, dimmed by the connection's state.
    pub(super) fn close_legs(&mut self) {
        self.collect_own_stream();
        self.own.stop_publishing();
        self.stop_audio_sink();
        for person in &mut self.people {
            if let Some(stream) = &mut person.stream
                && stream.unsubscribe()
            {
                stream.stalled = (None, None);
            }
        }
    }

    pub(super) fn rebuild_interrupted(&mut self) {
        // A full queue means that the leg has enough to do already.
        if let Some(publishing) = &self.own.publishing
            && !publishing.flowing
        {
            drop(publishing.input.try_send(LegInput::Rebuild));
        }
        for subscribed in self.people.iter().filter_map(|p| p.stream.as_ref()?.subscribed.as_ref()) {
            if !subscribed.flowing {
                drop(subscribed.input.try_send(LegInput::Rebuild));
            }
        }
    }

    pub(super) fn route_candidate(&mut self, connection_id: &str, told: LegInput) {
        let input = self.input_of(connection_id);
        if let Some(input) = input
            && input.try_send(told).is_err()
        {
            warn!("a leg is behind: a candidate of the server was dropped");
        }
    }

    /// The server replaces the transport of a stream that we receive.
    pub(super) fn server_offers(&mut self, connection_id: &str, stream_id: &str, sdp_offer: String) {
        let subscribed = self
            .people
            .iter()
            .filter_map(|p| p.stream.as_ref())
            .find(|s| s.id == stream_id)
            .and_then(|s| s.subscribed.as_ref());
        if let Some(subscribed) = subscribed
            && subscribed.input.try_send(LegInput::ServerOffers(sdp_offer)).is_err()
        {
            warn!(
                connection_id,
                "a leg is behind: an offer of the server was dropped, the stall watchdog will see to it"
            );
        }
    }

    /// The leg that carries the stream of this connection.
    fn input_of(&self, connection_id: &str) -> Option<&mpsc::Sender<LegInput>> {
        let own = self.place.joined.as_ref().is_some_and(|j| j.connection_id == connection_id);
        if own {
            self.own.publishing.as_ref().map(|p| &p.input)
        } else {
            self.people
                .iter()
                .find(|p| p.connection_id == connection_id)
                .and_then(|p| Some(&p.stream.as_ref()?.subscribed.as_ref()?.input))
        }
    }
}

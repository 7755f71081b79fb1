//! How large clients draw what they receive: an extension that only our own client speaks.

use super::Server;
use super::api::{LegId, MediaOp};
use super::request::Caller;
use crate::protocol::message::Tiles;
use std::collections::BTreeSet;

impl Server {
    /// How large somebody draws the streams that it receives. It is kept for subscriptions that are still to come; streams
    /// that there are not are ignored, they may have ended a moment ago.
    pub(super) fn tiles(&mut self, c: &Caller, tiles: &Tiles) {
        let Some(session) = self.state.sessions.get_mut(&c.session_id) else { return };
        let published: BTreeSet<String> =
            session.participants.values().filter_map(|p| Some(p.stream.as_ref()?.info.id.clone())).collect();
        let Some(me) = session.participants.get_mut(&c.connection_id) else { return };
        me.tiles.retain(|stream_id, _| published.contains(stream_id));
        let mut drawn = Vec::new();
        for tile in tiles.tiles.iter().filter(|tile| published.contains(&tile.stream_id)) {
            let size = (tile.width, tile.height);
            me.tiles.insert(tile.stream_id.clone(), size);
            if let Some(subscription) = me.subscriptions.get(&tile.stream_id) {
                drawn.push(MediaOp::Draw { leg: subscription.leg, size });
            }
        }
        for op in drawn {
            self.ask(op);
        }
    }

    /// A new leg carries on with the size of the tile.
    pub(super) fn draw_as_told(&mut self, c: &Caller, leg: LegId) {
        let session = self.state.sessions.get(&c.session_id);
        let size = session.and_then(|s| s.participants.get(&c.connection_id)).and_then(|me| {
            let (stream_id, _) = me.subscriptions.iter().find(|(_, s)| s.leg == leg)?;
            me.tiles.get(stream_id).copied()
        });
        if let Some(size) = size {
            self.ask(MediaOp::Draw { leg, size });
        }
    }
}

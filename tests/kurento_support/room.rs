//! What the server answers, request by request.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tertulia::rtp::sdp::force_video_codec;
use tokio::sync::mpsc;

use super::leg::{Leg, Way, fixture};
use super::{Member, ROOM, Shared, Stream, media};

/// The lines of a recorded call.
pub(super) fn recording(name: &str) -> Vec<Value> {
    fixture(&format!("calls/{name}.jsonl")).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The recorded answer to `joinRoom`.
fn recorded_join() -> Value {
    let lines = recording(ROOM);
    let join = lines.iter().find(|l| l["dir"] == "s2c" && l["frame"]["result"]["customIceServers"].is_array());
    join.expect("a join in the record")["frame"]["result"].clone()
}

/// `(code, what)` becomes the message with the code behind it, as all application errors have it.
type Refusal = (i64, String);

fn refuse<T>(code: i64, message: &str) -> Result<T, Refusal> {
    let message = if code == -1 { message.to_owned() } else { format!("{message}. Code: {code}") };
    Err((code, message))
}

fn text(params: &Value, name: &str) -> Result<String, Refusal> {
    match params[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => refuse(-1, &format!("java.lang.RuntimeException:Request element '{name}' is missing")),
    }
}

/// Works through the requests of one socket, one after the other.
pub(super) async fn work(
    shared: Arc<Shared>,
    mut queue: mpsc::Receiver<Value>,
    tell: mpsc::Sender<String>,
    who: Arc<Mutex<String>>,
) {
    while let Some(frame) = queue.recv().await {
        let socket = Socket { shared: &shared, tell: &tell, who: &who };
        let answer = match socket.answer(&frame).await {
            Ok(None) => continue,
            Ok(Some(mut result)) => {
                result["sessionId"] = json!(socket.rpc());
                json!({"id": frame["id"], "result": result, "jsonrpc": "2.0"})
            }
            Err((code, message)) => json!({"id": frame["id"], "error": {"code": code, "message": message,
                "sessionId": socket.rpc()}, "data": {}, "jsonrpc": "2.0"}),
        };
        drop(tell.send(answer.to_string()).await);
        socket.after(&frame, &answer);
    }
}

struct Socket<'a> {
    shared: &'a Arc<Shared>,
    tell: &'a mpsc::Sender<String>,
    who: &'a Arc<Mutex<String>>,
}

type Answer = Result<Option<Value>, Refusal>;

impl Socket<'_> {
    fn me(&self) -> String {
        self.who.lock().unwrap().clone()
    }

    fn rpc(&self) -> String {
        format!("mvbt91rb8tcmj5c4fpddu5rd81{}", self.me())
    }

    /// A client that comes back on another socket.
    fn resume(&self, params: &Value) -> Answer {
        let rpc = text(params, "sessionId")?;
        let mut room = self.shared.room.lock().unwrap();
        let Some(member) = room.members.values_mut().find(|m| m.rpc == rpc) else {
            return Err((40_007, "reconnection error".to_owned()));
        };
        member.tell = Some(self.tell.clone());
        *self.who.lock().unwrap() = member.id.clone();
        Ok(Some(json!({"value": "reconnection successful"})))
    }

    async fn answer(&self, frame: &Value) -> Answer {
        let (method, params) = (frame["method"].as_str().unwrap_or_default(), &frame["params"]);
        let me = self.me();
        let there = self.shared.room.lock().unwrap().members.contains_key(&me);
        match method {
            "joinRoom" => return self.join(params),
            "connect" => return self.resume(params),
            "echo" => return Ok(Some(json!({}))),
            _ if me.is_empty() => return refuse(803, "No connection found for participant"),
            // Somebody who is gone is not answered.
            _ if !there => return Ok(None),
            _ => {}
        }
        match method {
            "publishVideo" => self.publish(params).await,
            "unpublishVideo" => self.unpublish().await,
            "receiveVideoFrom" => self.receive(params).await,
            "prepareReceiveVideoFrom" => self.prepare(params).await,
            "unsubscribeFromVideo" => self.unsubscribe(params).await,
            "reconnectStream" => self.reconnect(params).await,
            "onIceCandidate" => self.candidate(params).await,
            "streamPropertyChanged" => self.property(params),
            "sendMessage" => {
                let message: Value = serde_json::from_str(&text(params, "message")?).unwrap();
                let told = json!({"data": message["data"], "type": message["type"], "from": me});
                self.shared.notify(None, "sendMessage", &told);
                Ok(Some(json!({})))
            }
            "videoData" => {
                let whole = params["height"].is_u64() && params["width"].is_u64();
                assert!(whole && params["videoActive"].is_boolean() && params["audioActive"].is_boolean(), "{params}");
                Ok(Some(json!({})))
            }
            "leaveRoom" => {
                let legs: Vec<_> = self.shared.room.lock().unwrap().members.remove(&me).into_iter().collect();
                self.shared.tear_down(&me);
                let told = json!({"connectionId": me, "reason": "disconnect"});
                self.shared.notify(None, "participantLeft", &told);
                for leg in legs.iter().flat_map(|m| m.legs.values()) {
                    leg.close().await;
                }
                Ok(Some(json!({})))
            }
            // Unknown methods are not answered at all.
            _ => Ok(None),
        }
    }

    fn join(&self, params: &Value) -> Answer {
        for name in ["session", "platform", "metadata", "secret"] {
            text(params, name)?;
        }
        assert_eq!((params["session"].as_str(), params["secret"].as_str()), (Some(ROOM), Some("")));
        let version = params["sdkVersion"].as_str().expect("the version of the client library");
        assert!(version.starts_with("2.3") && version.split('.').count() == 3, "{version} is no semver of 2.3x");
        let token = text(params, "token")?;
        let mut room = self.shared.room.lock().unwrap();
        let Some((id, role)) = room.tokens.remove(&token) else {
            return refuse(401, &format!("Unable to join session {ROOM}. Token {token} is not valid"));
        };
        let mut result = recorded_join();
        let people: Vec<Value> = room
            .members
            .values()
            .map(|m| {
                let mut person = json!({"id": m.id, "createdAt": m.created_at, "metadata": m.metadata});
                if let Some(stream) = &m.stream {
                    person["streams"] = json!([stream.info]);
                }
                person
            })
            .collect();
        result["id"] = json!(id);
        result["role"] = json!(role);
        result["metadata"] = params["metadata"].clone();
        result["value"] = json!(people);
        if self.shared.script.server_offers {
            result["mediaServer"] = json!("mediasoup");
        }
        // The relay of the record does not run here: a client has to get along without it.
        if let Some(servers) = &self.shared.script.ice_servers {
            result["customIceServers"] = servers.clone();
        }
        let member = Member {
            id: id.clone(),
            metadata: params["metadata"].as_str().unwrap_or_default().to_owned(),
            rpc: String::new(),
            created_at: result["createdAt"].as_u64().unwrap(),
            role,
            stream: None,
            tell: Some(self.tell.clone()),
            legs: Default::default(),
            early: Default::default(),
        };
        room.members.insert(id.clone(), member);
        drop(room);
        *self.who.lock().unwrap() = id.clone();
        self.shared.room.lock().unwrap().members.get_mut(&id).expect("just in").rpc = self.rpc();
        let told = json!({"id": id, "createdAt": result["createdAt"], "metadata": result["metadata"]});
        self.shared.notify(Some(&id), "participantJoined", &told);
        Ok(Some(result))
    }

    fn codec(&self) -> &'static str {
        self.shared.script.codec.unwrap_or("VP8")
    }

    /// What openvidu-server does to every offer in a session with a codec of its own.
    fn forced(&self, offer: &str) -> Result<String, Refusal> {
        let codec = self.codec();
        force_video_codec(offer, codec).or_else(|_| refuse(800, &format!("Error forcing codec: '{codec}'")))
    }

    /// Takes a new leg in, with the candidates that came too early; an older one of the same stream goes.
    async fn take_in(&self, publisher: &str, leg: &Arc<Leg>) {
        let me = self.me();
        let (old, early) = {
            let mut room = self.shared.room.lock().unwrap();
            room.legs.push((me.clone(), publisher.to_owned(), Arc::clone(leg)));
            let member = room.members.get_mut(&me).expect("in the room");
            (member.legs.insert(publisher.to_owned(), Arc::clone(leg)), member.early.remove(publisher))
        };
        if let Some(old) = old {
            old.close().await;
        }
        for candidate in early.unwrap_or_default() {
            leg.add_candidate(&candidate).await;
        }
    }

    /// Sends Kurento's candidates: the first part now, the rest behind the answer, or all of them now.
    fn send_candidates(&self, publisher: &str, endpoint: String, leg: Arc<Leg>, file: &str) {
        let script = &self.shared.script;
        if script.no_candidates.load(Ordering::Relaxed) {
            return;
        }
        let frames: Vec<String> = leg
            .candidates(file)
            .into_iter()
            .map(|(candidate, mid, index)| {
                json!({"method": "iceCandidate", "params": {"senderConnectionId": publisher, "endpointName": endpoint,
                    "sdpMLineIndex": index, "sdpMid": mid, "candidate": candidate}, "jsonrpc": "2.0"})
                .to_string()
            })
            .collect();
        let at_once = if script.candidates_first.load(Ordering::Relaxed) { frames.len() } else { 3 };
        let (tell, mut frames) = (self.tell.clone(), frames.into_iter());
        for frame in frames.by_ref().take(at_once) {
            tell.try_send(frame).expect("room for a notification");
        }
        let rest: Vec<String> = frames.collect();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            for frame in rest {
                drop(tell.send(frame).await);
            }
        });
    }

    async fn publish(&self, params: &Value) -> Answer {
        let me = self.me();
        let (role, publishing) = {
            let room = self.shared.room.lock().unwrap();
            (room.members[&me].role.clone(), room.members[&me].stream.is_some())
        };
        if let Some((until, codes)) = &mut *self.shared.script.restarting.lock().unwrap()
            && std::time::Instant::now() < *until
        {
            codes.rotate_left(1);
            return refuse(codes[codes.len() - 1], "the media server is not there");
        }
        if role == "SUBSCRIBER" {
            return refuse(401, "Unable to publish video. The user does not have a valid token");
        }
        if publishing {
            return refuse(106, &format!("Participant '{me}' is already streaming media"));
        }
        for name in ["doLoopback", "hasAudio", "hasVideo"] {
            assert!(params[name].is_boolean(), "{name} in {params}");
        }
        assert_eq!(params["doLoopback"], false);
        let (has_audio, has_video) = (params["hasAudio"] == true, params["hasVideo"] == true);
        let offer = self.forced(&text(params, "sdpOffer")?)?;
        assert_eq!((offer.contains("m=audio"), offer.contains("m=video")), (has_audio, has_video), "{offer}");
        let kind = if has_video { text(params, "typeOfVideo")? } else { "MIC".to_owned() };
        let kind = &kind[..3];
        let id = format!("str_{kind}_N{:03}_{me}", self.shared.number());
        let mut info = json!({"id": id, "createdAt": 1_795_201_311_004_u64, "hasAudio": has_audio, "hasVideo": has_video,
            "filter": {}});
        for name in ["videoActive", "audioActive", "typeOfVideo", "frameRate", "videoDimensions"] {
            if !params[name].is_null() {
                info[name] = params[name].clone();
            }
        }
        if let Some(dimensions) = params["videoDimensions"].as_str() {
            let size: Value = serde_json::from_str(dimensions).expect("JSON in a string");
            assert!(size["width"].is_u64() && size["height"].is_u64(), "{dimensions}");
        }
        let stream = Stream { info, feed: media::feed(), wish: Arc::default(), person: None };
        let (feed, wish) = (stream.feed.clone(), Arc::clone(&stream.wish));
        let (leg, answer) = Leg::answering(&offer, "publish", self.codec(), false).await;
        let leg = Arc::new(leg);
        self.take_in(&me, &leg).await;
        self.shared.room.lock().unwrap().members.get_mut(&me).expect("in the room").stream = Some(stream);
        leg.serve_publisher(feed, wish, Arc::clone(&self.shared.script.control));
        self.send_candidates(&me, id.clone(), leg, "candidates-publish");
        Ok(Some(json!({"sdpAnswer": answer, "id": id, "createdAt": 1_795_201_311_004_u64})))
    }

    async fn unpublish(&self) -> Answer {
        let me = self.me();
        let stream = self.shared.room.lock().unwrap().members.get_mut(&me).and_then(|m| m.stream.take());
        if stream.is_none() {
            return refuse(105, &format!("Participant '{me}' is not streaming media"));
        }
        self.shared.tear_down(&me);
        Ok(Some(json!({})))
    }

    /// The publisher that a stream id names, if its stream is that one.
    fn publisher_of(&self, stream_id: &str) -> Result<String, Refusal> {
        let Some(at) = stream_id.rfind("con_") else { return refuse(-1, "java.lang.StringIndexOutOfBoundsException") };
        let publisher = stream_id[at..].to_owned();
        let room = self.shared.room.lock().unwrap();
        let Some(member) = room.members.get(&publisher) else {
            return refuse(102, &format!("User '{publisher} not found in session '{ROOM}'"));
        };
        match &member.stream {
            Some(stream) if stream.info["id"] == stream_id && publisher != self.me() => Ok(publisher),
            _ => refuse(105, &format!("User '{publisher} not streaming media in session '{ROOM}'")),
        }
    }

    fn subscribed(&self, publisher: &str) -> Option<Arc<Leg>> {
        self.shared.room.lock().unwrap().members[&self.me()].legs.get(publisher).cloned()
    }

    fn serve(&self, publisher: &str, leg: &Arc<Leg>) {
        let room = self.shared.room.lock().unwrap();
        let stream = room.members[publisher].stream.as_ref().expect("it publishes");
        let switches = stream.person.as_ref().map(|p| Arc::clone(&p.switches));
        let wish = Arc::clone(&stream.wish);
        let ask = move || match &switches {
            Some(switches) => switches.key_frame.store(true, Ordering::Relaxed),
            None => wish.wish(),
        };
        let shared = Arc::clone(self.shared);
        let on_the_way = move |begins_key_frame: bool| {
            let script = &shared.script;
            let keep = begins_key_frame && script.no_key_frames.load(Ordering::Relaxed);
            script.kept_back.fetch_add(u32::from(keep), Ordering::Relaxed);
            match (keep, script.lose_pictures.load(Ordering::Relaxed)) {
                (true, _) => Way::FrameLeftOut,
                (_, true) => Way::PacketLost,
                _ => Way::Clear,
            }
        };
        leg.serve_subscriber(&stream.feed, ask, on_the_way);
    }

    async fn receive(&self, params: &Value) -> Answer {
        let stream_id = text(params, "sender")?;
        let publisher = self.publisher_of(&stream_id)?;
        let there = self.subscribed(&publisher);
        if let Some(answer) = params["sdpAnswer"].as_str() {
            let Some(leg) = there else { return refuse(-1, "java.lang.NullPointerException:null") };
            leg.set_answer(answer).await;
            self.serve(&publisher, &leg);
            return Ok(Some(json!({})));
        }
        if there.is_some() {
            return refuse(-1, "java.lang.NullPointerException:null");
        }
        let offer = self.forced(&text(params, "sdpOffer")?)?;
        let answer = self.answer_subscriber(&publisher, &stream_id, &offer, "subscribe").await;
        Ok(Some(json!({"sdpAnswer": answer})))
    }

    async fn answer_subscriber(&self, publisher: &str, stream_id: &str, offer: &str, stem: &str) -> String {
        let (leg, answer) = Leg::answering(offer, stem, self.codec(), true).await;
        let leg = Arc::new(leg);
        self.take_in(publisher, &leg).await;
        self.serve(publisher, &leg);
        self.send_candidates(publisher, format!("{}_{stream_id}", self.me()), leg, "candidates-subscribe");
        answer
    }

    async fn prepare(&self, params: &Value) -> Answer {
        let stream_id = text(params, "sender")?;
        assert!(params["reconnect"].is_boolean(), "{params}");
        let publisher = self.publisher_of(&stream_id)?;
        if self.subscribed(&publisher).is_some() && params["reconnect"] == false {
            return refuse(-1, "java.lang.NullPointerException:null");
        }
        let has = {
            let room = self.shared.room.lock().unwrap();
            let info = &room.members[&publisher].stream.as_ref().expect("it publishes").info;
            (info["hasAudio"] == true, info["hasVideo"] == true)
        };
        let (leg, offer) = Leg::offering(has).await;
        let leg = Arc::new(leg);
        self.take_in(&publisher, &leg).await;
        self.send_candidates(&publisher, format!("{}_{stream_id}", self.me()), leg, "candidates-subscribe");
        Ok(Some(json!({"sdpOffer": offer})))
    }

    /// Knows connection ids only.
    async fn unsubscribe(&self, params: &Value) -> Answer {
        let publisher = text(params, "sender")?;
        let leg = {
            let mut room = self.shared.room.lock().unwrap();
            if !room.members.contains_key(&publisher) {
                return refuse(102, &format!("User '{publisher} not found in session '{ROOM}'"));
            }
            room.members.get_mut(&self.me()).and_then(|m| m.legs.remove(&publisher))
        };
        if let Some(leg) = leg {
            leg.close().await;
        }
        Ok(Some(json!({})))
    }

    async fn reconnect(&self, params: &Value) -> Answer {
        let stream_id = text(params, "stream")?;
        let me = self.me();
        if stream_id.ends_with(&me) {
            let own = {
                let room = self.shared.room.lock().unwrap();
                let stream = room.members[&me].stream.as_ref().filter(|s| s.info["id"] == stream_id);
                stream.map(|s| (s.feed.clone(), Arc::clone(&s.wish)))
            };
            let Some((feed, wish)) = own else { return refuse(105, &format!("Stream {stream_id} is not published")) };
            let offer = self.forced(&text(params, "sdpString")?)?;
            let (leg, answer) = Leg::answering(&offer, "reconnect-publisher", self.codec(), false).await;
            let leg = Arc::new(leg);
            self.take_in(&me, &leg).await;
            leg.serve_publisher(feed, wish, Arc::clone(&self.shared.script.control));
            self.send_candidates(&me, stream_id.clone(), leg, "candidates-publish");
            return Ok(Some(json!({"sdpAnswer": answer, "id": stream_id, "createdAt": 1_795_201_400_000_u64})));
        }
        let publisher = self.publisher_of(&stream_id)?;
        if let Some(offer) = params["sdpOffer"].as_str() {
            let offer = self.forced(offer)?;
            let answer = self.answer_subscriber(&publisher, &stream_id, &offer, "reconnect-subscriber").await;
            return Ok(Some(json!({"sdpAnswer": answer})));
        }
        let Some(leg) = self.subscribed(&publisher) else { return refuse(105, "no such subscription") };
        leg.set_answer(&text(params, "sdpString")?).await;
        self.serve(&publisher, &leg);
        Ok(Some(json!({})))
    }

    /// A candidate goes to the end point that there is now: one for an end point to come is kept, one that comes before its `reconnectStream`
    /// ends at the old one.
    async fn candidate(&self, params: &Value) -> Answer {
        let (publisher, candidate) = (text(params, "endpointName")?, text(params, "candidate")?);
        text(params, "sdpMid")?;
        assert!(params["sdpMLineIndex"].is_u64(), "{params}");
        let leg = {
            let mut room = self.shared.room.lock().unwrap();
            assert!(room.members.contains_key(&publisher), "a candidate for {publisher}, who is not there");
            let member = room.members.get_mut(&self.me()).expect("in the room");
            let leg = member.legs.get(&publisher).cloned();
            if leg.is_none() {
                member.early.entry(publisher).or_default().push(candidate.clone());
            }
            leg
        };
        if let Some(leg) = leg.filter(|l| !l.closed.load(Ordering::Relaxed)) {
            leg.add_candidate(&candidate).await;
        }
        Ok(Some(json!({})))
    }

    fn property(&self, params: &Value) -> Answer {
        let (me, property, reason) = (self.me(), text(params, "property")?, text(params, "reason")?);
        let stream_id = {
            let mut room = self.shared.room.lock().unwrap();
            let stream = room.members.get_mut(&me).and_then(|m| m.stream.as_mut());
            let Some(stream) = stream else { return refuse(-1, "java.lang.NullPointerException:null") };
            stream.info[&property] = params["newValue"].clone();
            stream.info["id"].clone()
        };
        assert_eq!(params["streamId"], stream_id);
        let told = json!({"connectionId": me, "streamId": stream_id, "property": property,
            "newValue": params["newValue"].to_string(), "reason": reason});
        self.shared.notify(Some(&me), "streamPropertyChanged", &told);
        Ok(Some(json!({})))
    }

    /// What the others are told behind an answer.
    fn after(&self, frame: &Value, answer: &Value) {
        if answer["error"].is_object() {
            return;
        }
        let me = self.me();
        match frame["method"].as_str() {
            Some("publishVideo") => {
                let room = self.shared.room.lock().unwrap();
                let Some(stream) = room.members.get(&me).and_then(|m| m.stream.as_ref()) else { return };
                let told = json!({"id": me, "streams": [stream.info]});
                drop(room);
                self.shared.notify(Some(&me), "participantPublished", &told);
            }
            Some("unpublishVideo") => {
                let told = json!({"connectionId": me, "reason": "unpublish"});
                self.shared.notify(Some(&me), "participantUnpublished", &told);
            }
            _ => {}
        }
    }
}

//! A scripted program behind the window: answers at once, writes down what it was asked.
#![allow(dead_code)]

pub mod window;

use std::sync::{Arc, Mutex, MutexGuard};

use tertulia::call::Command;
use tertulia::call::view::{Connection, DeviceState, Failure, Me, Person, Tile, View};
use tertulia::media::video::frame::VideoFrame;
use tertulia::ui::bridge::{
    Backend, Call, Device, DeviceChoice, Devices, JoinRequest, Preferences, Preview, Repaint, RoomState, Screens,
    Server, ThemeChoice,
};

/// What the program remembers.
pub struct State {
    pub prefs: Preferences,
    pub secrets: Vec<(String, String)>,
    pub cameras: Devices,
    pub microphones: Devices,
    pub speakers: Devices,
    pub held: Option<DeviceChoice>,
    pub preview: Preview,
    pub room: RoomState,
    /// What the next start gives; `None` opens the room.
    pub next_room: Option<RoomState>,
    pub started: Vec<(String, u16)>,
    pub can_share: bool,
    pub screens: Screens,
    pub requests: Vec<JoinRequest>,
    /// View that the next call starts with.
    pub next_view: View,
    call: Option<Arc<Mutex<CallState>>>,
}

#[derive(Default)]
struct CallState {
    view: View,
    commands: Vec<Command>,
}

fn device(source: &str, name: &str) -> Device {
    Device::new(source, name)
}

impl Default for State {
    fn default() -> Self {
        let preview = Preview { camera: DeviceState::On, microphone: DeviceState::On, ..Preview::default() };
        preview.level.set_dbfs(-24.0);
        preview.frames.put(picture(0));
        Self {
            prefs: Preferences {
                name: "Ines".into(),
                servers: vec![Server { url: "https://meet.example.org".into(), own_certificate: false }],
                theme: ThemeChoice::Dark,
                mirror: true,
                ..Preferences::default()
            },
            secrets: Vec::new(),
            cameras: Devices::Known(vec![device("device:0", "Integrated Camera")]),
            microphones: Devices::Known(vec![device("device:0", "USB Headset"), device("device:1", "Built-in Audio")]),
            speakers: Devices::Known(vec![device("device:0", "USB Headset")]),
            held: None,
            preview,
            room: RoomState::None,
            next_room: None,
            started: Vec::new(),
            can_share: false,
            screens: Screens::default(),
            requests: Vec::new(),
            next_view: View { connection: Connection::Connected, ..View::default() },
            call: None,
        }
    }
}

impl State {
    /// Commands of the newest call.
    pub fn commands(&self) -> Vec<Command> {
        self.call.as_ref().map(|c| c.lock().expect("no panic").commands.clone()).unwrap_or_default()
    }

    pub fn set_connection(&self, connection: Connection) {
        if let Some(call) = &self.call {
            call.lock().expect("no panic").view.connection = connection;
        }
    }

    pub fn set_view(&self, view: View) {
        if let Some(call) = &self.call {
            call.lock().expect("no panic").view = view;
        }
    }
}

#[derive(Clone, Default)]
pub struct Script {
    state: Arc<Mutex<State>>,
}

impl Script {
    pub fn with<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        f(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    pub fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.clone())
    }

    /// A call with the next view.
    pub fn call(&self) -> Box<dyn Call> {
        let mut state = self.lock();
        let call = Arc::new(Mutex::new(CallState { view: state.next_view.clone(), commands: Vec::new() }));
        state.call = Some(Arc::clone(&call));
        Box::new(ScriptCall(call))
    }
}

struct ScriptCall(Arc<Mutex<CallState>>);

impl Call for ScriptCall {
    fn send(&self, command: Command) {
        let mut state = self.0.lock().expect("no panic");
        let device = |muted: bool| if muted { DeviceState::Muted } else { DeviceState::On };
        match &command {
            Command::MuteAudio(muted) => state.view.me.microphone = device(*muted),
            Command::MuteVideo(muted) => state.view.me.camera = device(*muted),
            _ => {}
        }
        state.commands.push(command);
    }

    fn view(&self) -> Arc<View> {
        Arc::new(self.0.lock().expect("no panic").view.clone())
    }
}

impl Backend for Script {
    fn set_repaint(&mut self, _repaint: Repaint) {}

    fn preferences(&self) -> Preferences {
        self.lock().prefs.clone()
    }

    fn set_preferences(&mut self, preferences: &Preferences) {
        self.lock().prefs = preferences.clone();
    }

    fn set_secret(&mut self, server: &str, secret: String) {
        self.lock().secrets.push((server.to_owned(), secret));
    }

    fn refresh_devices(&mut self) {}

    fn cameras(&self) -> Devices {
        self.lock().cameras.clone()
    }

    fn microphones(&self) -> Devices {
        self.lock().microphones.clone()
    }

    fn speakers(&self) -> Devices {
        self.lock().speakers.clone()
    }

    fn set_preview(&mut self, choice: &DeviceChoice) {
        self.lock().held = Some(choice.clone());
    }

    fn preview(&self) -> Preview {
        self.lock().preview.clone()
    }

    fn test_speaker(&mut self) {}

    fn start_room(&mut self, name: &str, port: u16) {
        let mut state = self.lock();
        state.started.push((name.to_owned(), port));
        state.room = state.next_room.clone().unwrap_or_else(|| RoomState::Open {
            name: name.to_owned(),
            invitation: format!("tertulia://127.0.0.1:{port}/{name}#key=abc&fp=sha256:00"),
            browser_link: None,
            port,
        });
    }

    fn room(&self) -> RoomState {
        self.lock().room.clone()
    }

    fn stop_room(&mut self) {
        self.lock().room = RoomState::None;
    }

    fn can_share(&self) -> bool {
        self.lock().can_share
    }

    fn screens(&self) -> Screens {
        self.lock().screens.clone()
    }

    fn join(&mut self, request: JoinRequest) -> Box<dyn Call> {
        self.lock().requests.push(request);
        self.call()
    }
}

pub fn failure(key: &'static str, values: &[(&'static str, &str)]) -> Failure {
    Failure { key, values: values.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(), detail: String::new() }
}

/// A picture of one color with a light edge.
pub fn picture(i: usize) -> Arc<VideoFrame> {
    let (w, h) = (320_u32, 180_u32);
    let (u, v) = [(100, 140), (150, 100), (120, 170), (90, 120)][i % 4];
    let y = (0..w * h).map(|p| if p % w < 8 { 220 } else { 60 + (p / w / 2) as u8 }).collect();
    let chroma = (w * h / 4) as usize;
    Arc::new(VideoFrame {
        width: w,
        height: h,
        y,
        u: vec![u; chroma],
        v: vec![v; chroma],
        at: std::time::Instant::now(),
        rtp_timestamp: 0,
    })
}

/// A call of `n` people, me among them.
pub fn call_view(n: usize) -> View {
    let names = ["Aiko", "Marek", "Noor", "Dario", "Leila", "Tomasz"];
    let mut view = View {
        session: "design-review".into(),
        server: "aiko-laptop".into(),
        connection: Connection::Connected,
        me: Me {
            name: "Ines".into(),
            may_publish: true,
            microphone: DeviceState::On,
            camera: DeviceState::On,
            ..Me::default()
        },
        ..View::default()
    };
    for i in 0..n.saturating_sub(1) {
        let name = names.get(i).map_or_else(|| format!("Person {i}"), |n| (*n).to_owned());
        let key = format!("p{i}");
        view.people.push(Person { key: key.clone(), name: name.clone(), connection_id: key.clone(), gain: 1.0 });
        let tile = Tile {
            key: format!("{key}/camera"),
            person: key.clone(),
            stream_id: format!("str_{i}"),
            connection_id: key,
            name,
            audio_active: i % 4 != 1,
            video_active: true,
            bars: if i == 2 { 2 } else { 4 },
            ..Tile::default()
        };
        tile.frames.put(picture(i));
        view.tiles.push(tile);
    }
    let own = Tile {
        key: "me/camera".into(),
        person: "me".into(),
        name: "Ines".into(),
        own: true,
        audio_active: true,
        video_active: true,
        bars: 4,
        ..Tile::default()
    };
    own.frames.put(picture(3));
    view.tiles.push(own);
    view
}

//! Every screen in every state at every size: no text is cut off, nothing pressable covers another, nothing pressable is too
//! small or without a name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ui_script;

use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT as _, Queryable as _};
use tertulia::call::view::{Connection, DeviceState, JoinStep, Notice};
use tertulia::ui::app::{App, Start};
use tertulia::ui::bridge::{Devices, Recent, RoomState, Screen, Screens, Target, ThemeChoice};
use tertulia::ui::raster::Headless;
use tertulia::ui::video::Video;
use ui_script::{Script, State, call_view, failure, picture};

/// In points. 640 × 400 is 1280 × 800 at 200 %, 1600 × 1000 at 80 %; 360 × 480 is the least the window can be.
const SIZES: [(f32, f32); 8] = [
    (360.0, 480.0),
    (480.0, 700.0),
    (640.0, 400.0),
    (800.0, 600.0),
    (960.0, 640.0),
    (1280.0, 800.0),
    (1600.0, 1000.0),
    (1920.0, 1080.0),
];
const LONG: &str = "Maximiliana-Alexandrina Wolkenstein-Trostburg of the Netherlands";
const ARABIC: &str = "\u{202b}فاطمة الزهراء\u{202c}";

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Home,
    Lobby,
    Call,
}

type SetUp = Box<dyn Fn(&mut State)>;

/// A state to be looked at: what the program behind it says, and which buttons are pressed to get there.
struct Scene {
    name: String,
    place: Place,
    set_up: SetUp,
    press: Vec<&'static str>,
}

fn scene(name: &str, place: Place, set_up: impl Fn(&mut State) + 'static) -> Scene {
    Scene { name: name.into(), place, set_up: Box::new(set_up), press: Vec::new() }
}

impl Scene {
    fn pressing(mut self, buttons: &[&'static str]) -> Self {
        self.press = buttons.to_vec();
        self
    }
}

fn session() -> Target {
    Target::Session { server: "https://meet.example.org".into(), name: "design-review".into() }
}

/// Keys of failures with the values they come with.
fn failures() -> Vec<tertulia::call::view::Failure> {
    let host = ("host", "conference.a-rather-long-name.example.org");
    [
        ("err.token", vec![]),
        ("err.link", vec![]),
        ("err.dns", vec![host]),
        ("err.silent", vec![host, ("port", "4443")]),
        ("err.refused", vec![host, ("port", "4443")]),
        ("err.not_openvidu", vec![host]),
        ("err.cert", vec![host]),
        ("err.pin", vec![host]),
        ("err.auth", vec![]),
        ("err.rights", vec![]),
        ("err.full", vec![("room", "design-review")]),
        ("err.no_room", vec![("room", "design-review")]),
        ("err.closed", vec![("room", "design-review")]),
        ("err.gone", vec![]),
        ("err.no_capacity", vec![]),
        ("err.unsupported", vec![]),
        ("err.locked", vec![]),
        ("err.media", vec![]),
        ("err.internal", vec![]),
        ("err.ended", vec![]),
    ]
    .into_iter()
    .map(|(key, values)| {
        let mut failure = failure(key, &values);
        failure.detail = "POST /openvidu/api/tokens: 404 Not Found, no such session".into();
        failure
    })
    .collect()
}

fn scenes() -> Vec<Scene> {
    use Place::{Call, Home, Lobby};
    let mut all = vec![
        scene("home", Home, |_| {}),
        scene("home-recent", Home, |s| {
            s.prefs.name = LONG.into();
            for (i, session) in ["design-review", "standup", &"a-very-long-session-name".repeat(3)].iter().enumerate() {
                let at_unix_ms = 1_700_000_000_000 - i as u64 * 90_000_000;
                let host = "conference.a-rather-long-name.example.org".to_owned();
                s.prefs.recent.push(Recent { session: (*session).to_owned(), host, at_unix_ms });
            }
        }),
        scene("home-nobody", Home, |s| {
            s.prefs.name.clear();
            s.prefs.servers.clear();
        }),
        scene("home-port", Home, |s| {
            let taken = failure("err.port", &[("port", "4443"), ("next", "4444")]);
            s.next_room = Some(RoomState::Failed(taken));
        })
        .pressing(&["Start room"]),
        scene("lobby", Lobby, |_| {}),
        scene("lobby-muted", Lobby, |s| (s.prefs.join_muted, s.prefs.join_without_camera) = (true, true)),
        scene("lobby-opening", Lobby, |s| {
            s.preview.camera = DeviceState::Opening;
            s.preview.frames.clear();
            (s.cameras, s.microphones, s.speakers) = (Devices::Looking, Devices::Looking, Devices::Looking);
        }),
        scene("lobby-nothing", Lobby, |s| {
            let none = || Devices::Known(Vec::new());
            (s.cameras, s.microphones, s.speakers) = (none(), none(), none());
            (s.preview.camera, s.preview.microphone) = (DeviceState::None, DeviceState::None);
            s.preview.frames.clear();
        }),
        scene("lobby-busy", Lobby, |s| {
            s.preview.camera = DeviceState::Failed(failure("dev.cam_busy", &[("dev", "Integrated Camera")]));
            s.preview.microphone = DeviceState::Failed(failure("dev.mic_silent", &[("dev", "USB Headset")]));
            s.preview.frames.clear();
        }),
        scene("lobby-tests", Lobby, |s| {
            s.prefs.devices.camera = Some("pattern:4:640x360@30".into());
            s.prefs.devices.microphone = Some("tone".into());
            s.prefs.devices.speaker = Some("null".into());
        }),
        scene("lobby-joining", Lobby, |s| s.next_view.connection = Connection::Joining(JoinStep::Reaching))
            .pressing(&["Join now"]),
        scene("call-entering", Call, |s| {
            s.next_view = call_view(1);
            s.next_view.connection = Connection::Joining(JoinStep::Entering);
        }),
        scene("call-alone", Call, |s| {
            s.next_view = call_view(1);
            s.room = RoomState::Open {
                name: "design-review".into(),
                invitation: "tertulia://192.168.1.20:4443/design-review#key=SECRET&fp=sha256:00".into(),
                browser_link: None,
                port: 4443,
            };
        }),
        scene("call-names", Call, |s| {
            s.next_view = call_view(6);
            let names = [LONG, ARABIC, "👩‍🚀🎉🦀🌍", "山田太郎 김철수", "x"];
            for (tile, name) in s.next_view.tiles.iter_mut().zip(names) {
                tile.name = name.to_owned();
                tile.video_active = false;
                tile.bars = 1;
            }
            s.next_view.session = "a-very-long-session-name".repeat(4);
            s.next_view.server = "conference.a-rather-long-name.example.org".into();
        }),
        scene("call-no-devices", Call, |s| {
            s.next_view = call_view(3);
            s.next_view.me.camera = DeviceState::None;
            s.next_view.me.microphone = DeviceState::Failed(failure("dev.mic_none", &[]));
        }),
        scene("call-muted", Call, |s| {
            s.next_view = call_view(4);
            s.next_view.me.camera = DeviceState::Muted;
            s.next_view.me.microphone = DeviceState::Muted;
            s.next_view.tiles.iter_mut().filter(|t| t.own).for_each(|t| t.video_active = false);
            for (id, key) in [(1, "note.joined"), (2, "note.left"), (3, "mute.talking")] {
                s.next_view.notices.push(Notice { id, key, values: vec![("name", LONG.into())] });
            }
        }),
        scene("call-slow", Call, |s| {
            s.next_view = call_view(4);
            s.next_view.notices.push(Notice { id: 1, key: "net.slow_me", values: Vec::new() });
        }),
        scene("call-sound-only", Call, |s| {
            s.next_view = call_view(4);
            s.next_view.sound_only = true;
            s.next_view.me.microphone = DeviceState::Muted;
            s.next_view.tiles.iter_mut().for_each(|t| t.video_active = false);
            s.next_view.notices.push(Notice { id: 1, key: "mute.talking", values: Vec::new() });
        }),
        scene("call-lost", Call, |s| {
            s.next_view = call_view(4);
            s.next_view.connection = Connection::Reconnecting { attempt: 2, retry_in_ms: 3000, place_kept_ms: 8000 };
        }),
        scene("call-rejoining", Call, |s| {
            s.next_view = call_view(2);
            s.next_view.connection = Connection::Rejoining { attempt: 1 };
        }),
        scene("call-stalled", Call, |s| {
            s.next_view = call_view(9);
            s.next_view.tiles[1].stalled_ms = Some(4200);
            s.next_view.tiles[2].failure = Some(failure("err.codec", &[]));
        }),
        scene("call-share", Call, |s| {
            s.next_view = call_view(3);
            s.can_share = true;
            let screen = |i: usize, title: &str| Screen {
                source: format!("source:{i}"),
                title: title.into(),
                size: (2560, 1440),
                frames: {
                    let slot = tertulia::media::video::frame::FrameSlot::new();
                    slot.put(picture(i));
                    slot
                },
            };
            s.screens = Screens::Known(vec![screen(0, ""), screen(1, ""), screen(2, LONG), screen(3, "Slides")]);
        })
        .pressing(&["Share"]),
        scene("ended", Call, |s| s.next_view.connection = Connection::Ended { reason: "forceDisconnectByUser".into() }),
        scene("ended-cut-off", Call, |s| s.next_view.connection = Connection::Failed(failure("conn.over", &[]))),
    ];
    for n in [1, 2, 3, 4, 5, 9, 25, 42] {
        all.push(scene(&format!("call-{n}"), Call, move |s| s.next_view = call_view(n)));
    }
    for failed in failures() {
        let later = failed.clone();
        all.push(
            scene(&format!("lobby-{}", failed.key), Lobby, move |s| {
                s.next_view.connection = Connection::Failed(failed.clone());
            })
            .pressing(&["Join now"]),
        );
        all.push(scene(&format!("ended-{}", later.key), Call, move |s| {
            s.next_view.connection = Connection::Failed(later.clone());
        }));
    }
    all
}

fn start(scene: &Scene, script: &Script) -> Start {
    let hosted = script.with(|s| matches!(s.room, RoomState::Open { .. }));
    match scene.place {
        Place::Home => Start::Home,
        Place::Lobby => Start::Lobby(session()),
        Place::Call if hosted => Start::Call(script.call(), Target::Hosted { name: "design-review".into() }),
        Place::Call => Start::Call(script.call(), session()),
    }
}

/// The screen as a screen reader and a tester see it, and where was pressed to get there.
fn open(scene: &Scene, size: (f32, f32)) -> (Harness<'static, Option<App>>, Vec<egui::Pos2>) {
    let script = Script::default();
    script.with(|s| (scene.set_up)(s));
    let (mut first, mut backend) = (Some(start(scene, &script)), Some(script.backend()));
    // The harness leaves a margin of 8 round what it shows.
    let mut harness: Harness<'_, Option<App>> =
        Harness::builder().with_size(egui::vec2(size.0 + 16.0, size.1 + 16.0)).with_max_steps(8).build_ui_state(
            move |ui, app| {
                let app = app.get_or_insert_with(|| {
                    // Names may be in any script; the window itself asks the system for fonts.
                    ui.ctx().set_missing_glyph_policy(egui::epaint::text::MissingGlyphPolicy::Tofu);
                    App::new(ui.ctx(), backend.take().expect("one"), first.take().expect("one"), Video::texture())
                });
                app.show(ui);
            },
            None,
        );
    harness.run_steps(3);
    let mut pressed = Vec::new();
    for label in &scene.press {
        let button = harness.get_by_label(label);
        pressed.push(button.rect().center() - egui::vec2(8.0, 8.0));
        button.click();
        harness.run_steps(3);
    }
    (harness, pressed)
}

/// What is wrong with the screen, in words.
fn faults(scene: &Scene, size: (f32, f32)) -> Vec<String> {
    let (harness, _) = open(scene, size);
    let mut found = Vec::new();
    let window = egui::Rect::from_min_size(egui::pos2(8.0, 8.0), egui::vec2(size.0, size.1));
    // A field scrolls what is typed.
    let fields: Vec<egui::Rect> =
        harness.query_all_by_role(egui::Role::TextInput).map(|n| n.rect().expand(2.0)).collect();
    for clipped in &harness.output().shapes {
        let egui::Shape::Text(text) = &clipped.shape else { continue };
        let rect = text.visual_bounding_rect();
        if !rect.is_positive() || !rect.is_finite() || fields.iter().any(|f| f.contains(rect.left_center())) {
            continue;
        }
        if text.galley.text().contains("%{") {
            found.push(format!("“{}” has a value missing", text.galley.text()));
        }
        // What scrolls may reach below; nothing may be cut at its side.
        let clip = clipped.clip_rect.intersect(window.expand(1.0));
        let scrolls = clipped.clip_rect.height() < size.1 - 1.0;
        let beside = rect.left() < clip.left() - 1.5 || rect.right() > clip.right() + 1.5;
        let beyond = !scrolls && (rect.top() < window.top() - 1.5 || rect.bottom() > window.bottom() + 1.5);
        if beside || beyond {
            found.push(format!("“{}” is cut off: {rect:?} of {clip:?}", text.galley.text()));
        }
    }
    let dialog = scene.press.contains(&"Share");
    let pressable = |role| matches!(role, egui::Role::Button | egui::Role::RadioButton | egui::Role::CheckBox);
    let buttons: Vec<(String, egui::Rect)> = harness
        .query_all(egui_kittest::kittest::by().predicate(move |n| pressable(n.role())))
        .map(|n| (n.accesskit_node().label().unwrap_or_default(), n.rect()))
        .collect();
    // On a narrow window the rest of the lobby scrolls below the way in.
    let below = |name: &str| scene.place == Place::Lobby && size.0 < 900.0 && name == "Join now";
    for (i, (name, rect)) in buttons.iter().enumerate() {
        if name.is_empty() {
            found.push(format!("a button without a name at {rect:?}"));
        }
        if rect.width() < 31.5 || rect.height() < 31.5 {
            found.push(format!("“{name}” is too small to hit: {:?}", rect.size()));
        }
        for (other, place) in buttons.iter().skip(i + 1).filter(|(o, _)| !dialog && !below(name) && !below(o)) {
            let both = rect.intersect(*place);
            // Areas may reach into the gap between two small links.
            if both.width() > 1.0 && both.height() > 9.0 {
                found.push(format!("“{name}” and “{other}” cover each other: {rect:?}, {place:?}"));
            }
        }
    }
    found
}

/// Pictures for looking at, if a folder is named in TERTULIA_PICTURES: of the scenes in TERTULIA_SCENES, else of all.
fn pictures() {
    let Some(folder) = std::env::var_os("TERTULIA_PICTURES").map(std::path::PathBuf::from) else { return };
    let wanted = std::env::var("TERTULIA_SCENES").unwrap_or_default();
    for scene in scenes() {
        for (i, size) in SIZES.into_iter().enumerate() {
            let name = format!("{}@{i}", scene.name);
            if wanted.is_empty() || wanted.split(' ').any(|w| w == scene.name || w == name) {
                for theme in [ThemeChoice::Dark, ThemeChoice::Light] {
                    draw(&scene, size, theme, &folder);
                }
            }
        }
    }
}

#[test]
fn nothing_is_cut_off_or_covered_at_any_size() {
    pictures();
    let mut all = Vec::new();
    for scene in scenes() {
        for size in SIZES {
            for fault in faults(&scene, size) {
                all.push(format!("{} at {}×{}: {fault}", scene.name, size.0, size.1));
            }
        }
    }
    assert!(all.is_empty(), "{} faults:\n{}", all.len(), all.join("\n"));
}

/// Draws a screen into a file.
fn draw(scene: &Scene, size: (f32, f32), theme: ThemeChoice, folder: &std::path::Path) {
    let script = Script::default();
    script.with(|s| {
        s.prefs.theme = theme;
        (scene.set_up)(s);
    });
    let mut headless = Headless::new();
    let mut app = App::new(headless.ctx(), script.backend(), start(scene, &script), Video::texture());
    let mut image = headless.draw(size.0 as u32, size.1 as u32, |ui| app.show(ui));
    for at in open(scene, size).1 {
        headless.press(at);
        image = headless.draw(size.0 as u32, size.1 as u32, |ui| app.show(ui));
    }
    let name = format!("{}-{}x{}-{theme:?}.png", scene.name, size.0, size.1);
    std::fs::write(folder.join(name), image.to_png().expect("encodes")).expect("written");
}

//! The window's screens by what a screen reader sees, with a scripted program behind them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ui_script;

use egui_kittest::kittest::{NodeT as _, Queryable as _};
use tertulia::call::Command;
use tertulia::call::view::{Connection, DeviceState, Failure, JoinStep, Notice};
use tertulia::ui::app::{App, Start};
use tertulia::ui::bridge::{Device, Devices, RoomState, Target, ThemeChoice};
use tertulia::ui::raster::Image;
use tertulia::ui::video::Video;
use ui_script::window::{Window, session};
use ui_script::{Script, call_view, failure};

#[test]
fn home_takes_a_session_name_to_the_lobby() {
    let script = Script::default();
    let mut w = Window::open(&script, Start::Home, (1280.0, 800.0));
    assert!(!w.enabled("Join"), "nothing typed yet");
    w.field("Session name or invitation link").type_text("design review");
    w.steps(3);
    w.click("Join");
    assert!(w.has("A session name has letters, digits, - and _, no spaces"));
    assert!(!w.has_text("Ready to join?"));
    // Wrong input loses nothing typed.
    let field = w.field("Session name or invitation link");
    assert_eq!(field.value().as_deref(), Some("design review"));
    for _ in 0..7 {
        w.key(egui::Key::Backspace);
    }
    assert!(!w.has("A session name has letters, digits, - and _, no spaces"));
    w.field("Session name or invitation link").type_text("-review");
    w.steps(2);
    w.key(egui::Key::Enter);
    w.steps(3);
    assert!(w.has("Ready to join?"));
    assert!(w.has("design-review"));
}

#[test]
fn a_link_that_is_cut_off_says_so() {
    let mut w = Window::open(&Script::default(), Start::Home, (480.0, 700.0));
    w.field("Session name or invitation link").type_text("tertulia://192.168.1.20:4443/r#ke");
    w.steps(2);
    w.click("Join");
    assert!(w.has("This link is cut off. Copy it again, whole."));
}

#[test]
fn a_name_without_a_server_asks_for_one_and_the_chooser_keeps_its_secret_out_of_the_settings() {
    let script = Script::default();
    script.with(|s| s.prefs.servers.clear());
    let mut w = Window::open(&script, Start::Home, (1280.0, 800.0));
    w.field("Session name or invitation link").type_text("standup");
    w.steps(2);
    w.click("Join");
    assert!(w.has_text("A session name needs a server."));
    w.click("Server: choose one");
    w.field("Address of an OpenVidu server").focus();
    w.steps(2);
    w.field("Address of an OpenVidu server").type_text("meet.example.org");
    w.steps(2);
    w.field("Its secret, if you start sessions there").focus();
    w.steps(2);
    w.field("Its secret, if you start sessions there").type_text("MY_SECRET");
    w.steps(2);
    w.click("Save");
    let (servers, secrets) = script.with(|s| (s.prefs.servers.clone(), s.secrets.clone()));
    assert_eq!(servers.first().map(|s| s.url.as_str()), Some("https://meet.example.org"));
    assert_eq!(secrets, [("https://meet.example.org".to_owned(), "MY_SECRET".to_owned())]);
    assert!(!format!("{:?}", script.with(|s| s.prefs.clone())).contains("MY_SECRET"));
}

#[test]
fn start_a_room_and_a_taken_port_offers_the_next() {
    let script = Script::default();
    script.with(|s| s.room = RoomState::None);
    let mut w = Window::open(&script, Start::Home, (1280.0, 800.0));
    script.with(|s| s.next_room = Some(RoomState::Failed(failure("err.port", &[("port", "4443"), ("next", "4444")]))));
    w.click("Start room");
    assert!(w.has_text("Port 4443 is taken."));
    script.with(|s| s.next_room = None);
    w.click("Use 4444");
    assert_eq!(script.with(|s| s.started.clone()), [("ines-desk".to_owned(), 0), ("ines-desk".to_owned(), 4444)]);
    w.steps(2);
    assert!(w.has("Ready to join?"), "the lobby of the own room opens");
}

#[test]
fn the_lobby_holds_devices_open_and_lets_them_go() {
    let script = Script::default();
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    let held = script.with(|s| s.held.clone()).expect("asked for");
    assert_eq!(held.camera.as_deref(), Some("device:0"));
    assert!(w.has("You join with the microphone on and the camera on."));
    w.click("Stop the camera");
    assert_eq!(script.with(|s| s.held.clone()).and_then(|h| h.camera), None, "a camera that is off is closed");
    assert!(w.has("You join with the microphone on and the camera off."));
    w.key(egui::Key::M);
    assert!(w.has("You join with the microphone off and the camera off."));
    // Another microphone by the menu.
    w.click("Microphone: USB Headset");
    w.click("Built-in Audio");
    assert_eq!(script.with(|s| s.held.clone()).and_then(|h| h.microphone).as_deref(), Some("device:1"));
    w.click("Back");
    let held = script.with(|s| s.held.clone()).expect("asked for");
    assert_eq!((held.camera, held.microphone, held.speaker), (None, None, None));
    assert!(w.has("Join a session"));
}

#[test]
fn who_chose_no_device_follows_the_system() {
    let script = Script::default();
    let headset = || vec![Device::new(Device::SYSTEM, "Built-in Audio"), Device::new("device:a", "Built-in Audio")];
    script.with(|s| (s.microphones, s.speakers) = (Devices::Known(headset()), Devices::Known(headset())));
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    let held = script.with(|s| s.held.clone()).expect("asked for");
    assert_eq!((held.microphone.as_deref(), held.speaker.as_deref()), (Some("device"), Some("device")));
    assert!(w.has("Microphone: System default (Built-in Audio)") && w.has("Speaker: System default (Built-in Audio)"));
    // Who chose one stays with it.
    w.click("Microphone: System default (Built-in Audio)");
    w.click("Built-in Audio");
    assert_eq!(script.with(|s| s.held.clone()).and_then(|h| h.microphone).as_deref(), Some("device:a"));
}

#[test]
fn what_a_speaker_plays_is_never_sent_unasked() {
    let script = Script::default();
    let monitor = Device { monitor: true, ..Device::new("device:out.monitor", "Monitor of the speaker") };
    script.with(|s| {
        s.microphones = Devices::Known(vec![monitor]);
        s.preview.microphone = DeviceState::None;
    });
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    assert_eq!(script.with(|s| s.held.clone()).and_then(|h| h.microphone), None);
    assert!(w.has("No microphone found. You can listen and chat."));
    // Who asks for it gets it.
    w.click("Microphone: No microphone");
    w.click("Monitor of the speaker");
    assert_eq!(script.with(|s| s.held.clone()).and_then(|h| h.microphone).as_deref(), Some("device:out.monitor"));
}

#[test]
fn problems_of_devices_are_told_in_place_and_never_block_joining() {
    let script = Script::default();
    script.with(|s| {
        s.preview.camera = DeviceState::Failed(failure("dev.cam_busy", &[("dev", "Integrated Camera")]));
        s.speakers = Devices::Known(Vec::new());
        s.microphones = Devices::Known(Vec::new());
    });
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    assert!(w.has("Another program is using the camera"));
    assert!(w.has("No microphone found. You can listen and chat."));
    assert!(w.has("No speaker found. You will hear nothing."));
    assert!(w.has("You join with the microphone off and the camera off."));
    assert!(w.enabled("Join now"));
    w.click("Join without video");
    assert!(!w.has("Another program is using the camera"));
}

#[test]
fn a_silent_microphone_is_noticed_after_three_seconds() {
    let script = Script::default();
    script.with(|s| s.preview.level.set_dbfs(-120.0));
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    assert!(!w.has_text("No sound at all"));
    std::thread::sleep(std::time::Duration::from_millis(3100));
    w.steps(2);
    assert!(w.has_text("No sound at all from “USB Headset”."));
    w.click("Use Built-in Audio");
    assert_eq!(script.with(|s| s.prefs.devices.microphone.clone()).as_deref(), Some("device:1"));
}

#[test]
fn joining_shows_its_steps_can_be_cancelled_and_a_refusal_has_its_remedy() {
    let script = Script::default();
    script.with(|s| s.prefs.name.clear());
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    w.click("Join now");
    assert!(w.has("Type the name others will see."));
    w.field("Your name").type_text("Ines");
    w.steps(2);
    script.with(|s| s.next_view.connection = Connection::Joining(JoinStep::Reaching));
    w.click("Join now");
    assert!(w.has("Joining…") && w.has("Reaching meet.example.org"));
    script.with(|s| s.set_connection(Connection::Joining(JoinStep::OpeningMedia)));
    w.steps(2);
    assert!(w.has("Opening sound and video"));
    w.click("Cancel");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Leave));
    assert!(w.has("Join now"));
    // Refused: title, sentence, details without a secret, and the remedy leads back with the name kept.
    script.with(|s| {
        s.next_view.connection =
            Connection::Failed(Failure { key: "err.token", values: Vec::new(), detail: "token refused, 401".into() })
    });
    w.click("Join now");
    w.steps(2);
    assert!(w.has("This invitation is no longer valid"));
    assert!(w.has("token refused, 401"));
    let request = script.with(|s| s.requests.last().cloned()).expect("asked to join");
    assert_eq!(request.name, "Ines");
    w.click("Join by name");
    assert_eq!(w.field("Session name or invitation link").value().as_deref(), Some("design-review"));
}

#[test]
fn a_server_nobody_vouches_for_needs_a_tick() {
    let script = Script::default();
    script.with(|s| {
        s.next_view.connection =
            Connection::Failed(failure("err.cert", &[("host", "meet.example.org"), ("date", "2026-01-01")]))
    });
    let mut w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    w.click("Join now");
    w.steps(2);
    assert!(w.has("Nobody vouches for meet.example.org"));
    assert!(!w.enabled("Allow this server…"));
    w.click("I know this server");
    script.with(|s| s.next_view.connection = Connection::Connected);
    w.click("Allow this server…");
    assert!(script.with(|s| s.requests.last().map(|r| r.own_certificate)).unwrap_or_default());
    assert!(script.with(|s| s.prefs.servers.iter().any(|s| s.own_certificate)));
}

#[test]
fn in_the_call_keys_and_buttons_mean_the_same() {
    let script = Script::default();
    script.with(|s| s.next_view = call_view(4));
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    assert!(w.has("Aiko, camera on") && w.has("Marek, muted, camera on") && w.has("Ines (you), camera on"));
    assert!(w.has("Noor, camera on, slow link"));
    w.click("Mute the microphone");
    w.key(egui::Key::M);
    w.key(egui::Key::V);
    let sent: Vec<Command> =
        script.with(|s| s.commands()).into_iter().filter(|c| !matches!(c, Command::Tile { .. })).collect();
    assert_eq!(sent, [Command::MuteAudio(true), Command::MuteAudio(false), Command::MuteVideo(true)]);
    assert!(w.has("Start the camera"));
    // The engine was told how large each picture is, once.
    let tiles = script
        .with(|s| s.commands())
        .into_iter()
        .filter(|c| matches!(c, Command::Tile { size: (604, 339), .. }))
        .count();
    assert_eq!(tiles, 3);
    w.click("Leave");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Leave));
    assert!(w.has("You left the call."));
    w.click("Back to start");
    assert!(w.has("Join a session"));
}

#[test]
fn a_call_that_was_given_up_is_left_for_good() {
    let script = Script::default();
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    script.with(|s| s.set_connection(Connection::Failed(failure("conn.cut_off", &[]))));
    w.steps(2);
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Leave), "its devices would stay open");
}

#[test]
fn a_call_from_the_command_line_says_what_it_waits_for() {
    let script = Script::default();
    script.with(|s| {
        s.next_view.connection = Connection::Joining(JoinStep::Reaching);
        s.next_view.server = "meet.example.org".into();
    });
    let call = script.call();
    let target = Target::Session { server: String::new(), name: String::new() };
    let mut w = Window::open(&script, Start::Call(call, target), (1280.0, 800.0));
    assert!(w.has("Reaching meet.example.org") && !w.has("You are the first one here"));
    script.with(|s| s.set_connection(Connection::Ended { reason: "forceDisconnectByUser".into() }));
    w.steps(2);
    assert!(w.has("You were removed by a moderator.") && !w.has("Join again"));
}

#[test]
fn space_talks_while_it_is_held() {
    let script = Script::default();
    script.with(|s| {
        s.next_view = call_view(3);
        s.next_view.me.microphone = DeviceState::Muted;
    });
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    w.harness.key_down(egui::Key::Space);
    w.steps(2);
    assert!(w.has("Mute the microphone"), "open while held");
    w.harness.key_up(egui::Key::Space);
    w.steps(2);
    assert!(w.has("Unmute the microphone"));
}

#[test]
fn a_lost_connection_is_said_and_nothing_looks_live() {
    let script = Script::default();
    script.with(|s| {
        s.next_view = call_view(4);
        if let Some(t) = s.next_view.tiles.first() {
            t.level.set_dbfs(-10.0);
        }
    });
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    script.with(|s| s.set_connection(Connection::Reconnecting { attempt: 2, retry_in_ms: 3000, place_kept_ms: 8000 }));
    w.steps(2);
    assert!(w.has("Connection lost. Nobody hears or sees you."));
    assert!(w.has("Trying again in 3 s, attempt 2. Your place in the room is kept for 8 s more."));
    std::thread::sleep(std::time::Duration::from_millis(300));
    w.steps(2);
    assert!(!w.has_text("speaking"), "no ring while cut off");
    w.click("Try now");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::ReconnectNow));
    script.with(|s| s.set_connection(Connection::Rejoining { attempt: 1 }));
    w.steps(2);
    assert!(w.has("Joining again. Others saw you leave for a moment."));
    script.with(|s| s.set_connection(Connection::Connected));
    w.steps(2);
    assert!(w.has_text("Your microphone is on."));
    script.with(|s| s.set_connection(Connection::Failed(failure("err.silent", &[("host", "h"), ("port", "443")]))));
    w.steps(2);
    assert!(w.has("h doesn’t answer") && w.has("Try again"));
}

#[test]
fn alone_shows_the_invitation_without_its_key_and_a_joiner_is_announced() {
    let script = Script::default();
    script.with(|s| {
        s.next_view = call_view(1);
        s.room = RoomState::Open {
            name: "design-review".into(),
            invitation: "tertulia://192.168.1.20:4443/design-review#key=SECRET&fp=sha256:00".into(),
            browser_link: None,
            port: 4443,
        };
    });
    let call = script.call();
    let mut w =
        Window::open(&script, Start::Call(call, Target::Hosted { name: "design-review".into() }), (1280.0, 800.0));
    assert!(w.has("You are the first one here"));
    assert!(w.has("tertulia://192.168.1.20:4443/design-review#…") && !w.has_text("SECRET"));
    assert!(w.has("Hosted here, port 4443"));
    w.click("Copy link");
    assert!(w.has("Copied"));
    script.with(|s| {
        let mut view = call_view(2);
        view.notices.push(Notice { id: 1, key: "note.joined", values: vec![("name", "Aiko".into())] });
        s.set_view(view);
    });
    w.steps(2);
    assert!(w.has("Aiko joined") && w.has("Aiko, camera on"));
    // The host is asked before everybody is cut off.
    w.click("Leave");
    assert!(w.has("You host this room: if you leave, the call ends for 1 person."));
    w.click("Stay");
    assert!(!w.has("Leave the call?"));
}

#[test]
fn hostile_names_do_not_break_the_screen() {
    let script = Script::default();
    let mut view = call_view(5);
    for (tile, name) in
        view.tiles.iter_mut().zip(["x".repeat(10_000), "a\u{202e}b\nc".into(), String::new(), "Ωμέγα Жужа".into()])
    {
        tile.name = name;
    }
    script.with(|s| s.next_view = view);
    for size in [(360.0, 480.0), (1280.0, 800.0), (3840.0, 2160.0)] {
        let call = script.call();
        let w = Window::open(&script, Start::Call(call, session()), size);
        assert!(w.has_text("abc, "));
    }
}

#[test]
fn thirty_people_make_pages_and_the_hidden_are_not_decoded() {
    let script = Script::default();
    script.with(|s| s.next_view = call_view(30));
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    assert!(w.has("Page 1 of 2"));
    let hidden =
        script.with(|s| s.commands()).into_iter().filter(|c| matches!(c, Command::Tile { size: (0, 0), .. })).count();
    assert_eq!(hidden, 5);
    w.click("Next page");
    assert!(w.has("Page 2 of 2"));
    w.key(egui::Key::PageUp);
    assert!(w.has("Page 1 of 2"));
}

#[test]
fn a_muted_talker_is_reminded() {
    let script = Script::default();
    script.with(|s| {
        s.next_view = call_view(3);
        s.next_view.me.microphone = DeviceState::Muted;
    });
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    assert!(!w.has("You are talking while muted"));
    script.with(|s| {
        let mut view = call_view(3);
        view.me.microphone = DeviceState::Muted;
        view.notices.push(Notice { id: 4, key: "mute.talking", values: Vec::new() });
        s.set_view(view);
    });
    w.steps(2);
    assert!(w.has("You are talking while muted"));
    w.click("Unmute");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::MuteAudio(false)));
    assert!(!w.has("You are talking while muted"));
}

#[test]
fn a_lossy_link_offers_sound_alone_and_a_way_back() {
    let script = Script::default();
    script.with(|s| s.next_view = call_view(3));
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    script.with(|s| {
        let mut view = call_view(3);
        view.notices.push(Notice { id: 5, key: "net.slow_me", values: Vec::new() });
        s.set_view(view);
    });
    w.steps(2);
    assert!(w.has("Your link is slow. Video of others is reduced."));
    w.click("Sound only");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::SoundOnly(true)));
    script.with(|s| {
        let mut view = call_view(3);
        view.sound_only = true;
        s.set_view(view);
    });
    w.steps(2);
    assert!(!w.has("Your link is slow. Video of others is reduced."));
    assert!(w.has("Sound only") && w.has("No pictures are sent or received"));
    w.click("Show pictures");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::SoundOnly(false)));
}

/// Every control can be reached by the keyboard alone, and none is without a name.
#[test]
fn by_keyboard_alone() {
    let script = Script::default();
    script.with(|s| s.next_view = call_view(4));
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    let mut reached = Vec::new();
    for _ in 0..12 {
        w.key(egui::Key::Tab);
        if let Some(node) = w.harness.query_all(egui_kittest::kittest::by().predicate(|n| n.is_focused())).next() {
            reached.push(node.accesskit_node().label().unwrap_or_default());
        }
    }
    for name in ["Mute the microphone", "Choose a microphone", "Stop the camera", "Choose a camera", "Invite", "Leave"]
    {
        assert!(reached.iter().any(|r| r == name), "{name} is not reached: {reached:?}");
    }
    assert!(reached.iter().all(|r| !r.is_empty()));
}

/// Pictures of the main screens for looking at, through the same drawing as the window: set TERTULIA_PICTURES to a folder.
#[test]
fn pictures_of_the_main_screens_are_not_empty() {
    let mut headless = tertulia::ui::raster::Headless::new();
    for (name, theme, start) in [
        ("home-dark", ThemeChoice::Dark, 0),
        ("home-light", ThemeChoice::Light, 0),
        ("lobby-dark", ThemeChoice::Dark, 1),
        ("lobby-light", ThemeChoice::Light, 1),
        ("call-dark", ThemeChoice::Dark, 2),
        ("call-light", ThemeChoice::Light, 2),
    ] {
        let script = Script::default();
        script.with(|s| {
            s.prefs.theme = theme;
            s.next_view = call_view(4);
        });
        let start = match start {
            0 => Start::Home,
            1 => Start::Lobby(session()),
            _ => Start::Call(script.call(), session()),
        };
        let mut app = App::new(headless.ctx(), script.backend(), start, Video::texture());
        let image: Image = headless.draw(1280, 800, |ui| app.show(ui));
        let mut colors: Vec<&[u8]> = image.rgba.chunks_exact(4).collect();
        let bright = colors.iter().filter(|c| c.iter().take(3).all(|v| *v > 200)).count();
        let share = bright as f64 / colors.len() as f64;
        // Dark leftovers in the light theme, or a white flash in the dark one, would show here.
        match theme {
            ThemeChoice::Light if !name.starts_with("call") => assert!(share > 0.5, "{name}: {share}"),
            ThemeChoice::Dark => assert!(share < 0.2, "{name}: {share}"),
            _ => {}
        }
        colors.sort_unstable();
        colors.dedup();
        assert!(colors.len() > 50, "{name} has only {} colors", colors.len());
        if let Some(dir) = std::env::var_os("TERTULIA_PICTURES") {
            let path = std::path::Path::new(&dir).join(format!("{name}.png"));
            std::fs::write(path, image.to_png().expect("encodes")).expect("written");
        }
    }
}

#[test]
fn closing_the_window_in_a_call_asks_and_then_closes() {
    let script = Script::default();
    script.with(|s| s.next_view = call_view(3));
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    let close = |w: &mut Window| {
        let viewport = w.harness.input_mut().viewports.entry(egui::ViewportId::ROOT).or_default();
        viewport.events.push(egui::ViewportEvent::Close);
        w.harness.step();
    };
    let commands = |w: &Window| {
        w.harness.output().viewport_output.get(&egui::ViewportId::ROOT).map(|o| o.commands.clone()).unwrap_or_default()
    };
    close(&mut w);
    assert!(commands(&w).contains(&egui::ViewportCommand::CancelClose));
    w.steps(2);
    assert!(w.has("Leave the call?"));
    w.click("Stay");
    assert!(!w.has("Leave the call?"));
    close(&mut w);
    w.steps(2);
    let leave = w.harness.query_all_by_label("Leave").last().expect("in the dialog");
    leave.click();
    let mut closed = false;
    for _ in 0..3 {
        w.harness.step();
        closed |= commands(&w).contains(&egui::ViewportCommand::Close);
    }
    assert!(closed);
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Leave));
}

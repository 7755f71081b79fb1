//! What is shared and how, sources that are no devices, and a window at rest, with a scripted program behind the window.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ui_script;

use egui_kittest::kittest::Queryable as _;
use tertulia::call::Command;
use tertulia::call::view::{DeviceState, View, Vouched};
use tertulia::media::video::frame::FrameSlot;
use tertulia::ui::app::Start;
use tertulia::ui::bridge::{Devices, Screen, Screens};
use ui_script::window::{Window, session};
use ui_script::{Script, call_view};

#[test]
fn what_is_shared_is_chosen_by_its_picture() {
    let script = Script::default();
    script.with(|s| {
        s.next_view = call_view(3);
        s.can_share = true;
    });
    let call = script.call();
    let mut w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
    w.key(egui::Key::S);
    assert!(w.has("Share your screen") && w.has("Looking for screens…"));
    let screen = |source: &str, title: &str| Screen {
        source: source.into(),
        title: title.into(),
        size: (1920, 1080),
        frames: FrameSlot::new(),
    };
    script.with(|s| {
        s.screens =
            Screens::Known(vec![screen("monitor:0", ""), screen("monitor:1", ""), screen("window:0x2a", "Slides")]);
    });
    w.steps(2);
    // The first one is chosen, and Enter is enough.
    w.key(egui::Key::Enter);
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Share(Some("monitor:0".into()))));
    assert!(!w.has("Share your screen"));
    w.key(egui::Key::S);
    let card = |w: &mut Window, name: &str| {
        w.harness.get_by_role_and_label(egui::Role::RadioButton, name).click();
        w.steps(3);
    };
    card(&mut w, "Screen 2");
    w.click("Share Screen 2");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Share(Some("monitor:1".into()))));
    w.key(egui::Key::S);
    w.click("Windows");
    card(&mut w, "Slides");
    w.click("Share window");
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Share(Some("window:0x2a".into()))));
    // Esc closes the topmost thing and shares nothing; while sharing the key stops it.
    let before = script.with(|s| s.commands()).len();
    w.key(egui::Key::S);
    w.key(egui::Key::Escape);
    assert!(!w.has("Share your screen"));
    assert_eq!(script.with(|s| s.commands()).len(), before);
    script.with(|s| {
        let mut view = call_view(3);
        view.me.sharing = true;
        s.set_view(view);
    });
    w.steps(1);
    w.key(egui::Key::S);
    assert_eq!(script.with(|s| s.commands()).last(), Some(&Command::Share(None)));
}

#[test]
fn sources_that_are_no_devices_have_names_for_people() {
    let script = Script::default();
    script.with(|s| {
        s.prefs.devices.camera = Some("pattern:4:640x360@30".into());
        s.prefs.devices.microphone = Some("tone".into());
        s.prefs.devices.speaker = Some("null".into());
    });
    let w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    let values: Vec<String> = w.harness.query_all_by_role(egui::Role::ComboBox).filter_map(|n| n.value()).collect();
    assert_eq!(values, ["Test picture", "Test tone", "Silent, for tests"]);
}

#[test]
fn without_a_microphone_the_lobby_does_not_look_live() {
    let script = Script::default();
    script.with(|s| {
        s.microphones = Devices::Known(Vec::new());
        s.preview.microphone = DeviceState::None;
    });
    let w = Window::open(&script, Start::Lobby(session()), (1280.0, 800.0));
    assert!(w.has("No microphone: you can listen") && !w.has("Mute the microphone"));
    assert!(w.has("You join with the microphone off and the camera on."));
}

/// Frames asked for by the window itself, not by pictures, levels or the user, in this many seconds of rest.
#[test]
fn a_resting_window_is_drawn_once_a_second_at_most() {
    for (name, start) in [("home", 0), ("lobby", 1), ("call", 2)] {
        let script = Script::default();
        script.with(|s| {
            s.next_view = call_view(4);
            s.prefs.join_without_camera = true;
            for tile in &s.next_view.tiles {
                tile.level.set_dbfs(-120.0);
            }
        });
        let start = match start {
            0 => Start::Home,
            1 => Start::Lobby(session()),
            _ => Start::Call(script.call(), session()),
        };
        let mut w = Window::open(&script, start, (1280.0, 800.0));
        w.steps(30);
        let delay = w.harness.output().viewport_output[&egui::ViewportId::ROOT].repaint_delay;
        assert!(delay >= std::time::Duration::from_millis(900), "{name} is drawn again after {delay:?}");
    }
}

#[test]
fn a_server_that_nobody_vouches_for_is_said_in_the_call() {
    let words = |trust: Vouched| {
        let script = Script::default();
        script.with(|s| s.next_view = View { trust, ..call_view(3) });
        let call = script.call();
        let w = Window::open(&script, Start::Call(call, session()), (1280.0, 800.0));
        [w.has_text("Encrypted between you"), w.has_text("Nobody vouches for"), w.has_text("are not encrypted")]
    };
    assert_eq!(words(Vouched::Certificate), [true, false, false]);
    assert_eq!(words(Vouched::Nobody), [false, true, false]);
    assert_eq!(words(Vouched::Plain), [false, false, true]);
}

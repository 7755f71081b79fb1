//! Before the call: who I am, what I look like, which devices, and the way in.

mod form;
mod picture;

use std::time::{Duration, Instant};

use egui::{Align2, CornerRadius, Rect, Sense, Stroke, Ui, pos2, vec2};

use super::bridge::{Backend, Call, Device, DeviceChoice, Devices, JoinRequest, Preferences, Recent, Server, Target};
use super::commands::{self, Command};
use super::failure::{self, CardState, Remedy};
use super::text::{t, tv};
use super::theme::{self, height, size, space};
use super::video::{self, Video};
use super::widgets::{self, Button, Choice, Field, Kind, Mood};
use super::{icons, input};
use crate::call::Command as CallCommand;
use crate::call::view::{Connection, DeviceState, Failure, JoinStep};

/// State of the lobby.
pub struct Lobby {
    target: Target,
    muted: bool,
    camera_off: bool,
    joining: Option<Box<dyn Call>>,
    failure: Option<Failure>,
    card: CardState,
    /// Since when the microphone has given nothing, for the note after 3 s.
    silent_since: Option<Instant>,
    name_missing: bool,
    asked: Option<DeviceChoice>,
    refreshed: Option<Instant>,
    /// Enter was pressed in the name field.
    entered: bool,
}

/// What the lobby asks the program to do.
pub enum Outcome {
    /// Back to the first screen, with this text in the join field.
    Home(String),
    /// In.
    Joined(Box<dyn Call>, Target),
}

/// Time between two looks for newly plugged devices.
const REFRESH: Duration = Duration::from_secs(2);

/// Below this level nothing at all comes from a microphone, not even its own noise.
const SILENCE_DBFS: f32 = -90.0;

/// Below this width the picture stands over the form.
const NARROW: f32 = 900.0;

/// The SOURCE that means "no device".
pub const NONE: &str = "none";

impl Lobby {
    /// A lobby for this target; devices open with the first frame.
    pub fn new(target: Target, prefs: &Preferences) -> Self {
        Self {
            target,
            muted: prefs.join_muted,
            camera_off: prefs.join_without_camera,
            joining: None,
            failure: None,
            card: CardState::default(),
            silent_since: None,
            name_missing: false,
            asked: None,
            refreshed: None,
            entered: false,
        }
    }

    /// Draws it.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        video: &mut Video,
    ) -> Option<Outcome> {
        // Newly plugged devices appear by themselves.
        if self.refreshed.is_none_or(|at| at.elapsed() >= REFRESH) {
            self.refreshed = Some(Instant::now());
            backend.refresh_devices();
        }
        let choice = self.choice(backend, prefs);
        let mut hold = choice.clone();
        if self.camera_off {
            hold.camera = None;
        }
        if self.asked.as_ref() != Some(&hold) {
            backend.set_preview(&hold);
            self.asked = Some(hold);
        }
        if let Some(outcome) = self.progress(backend, prefs) {
            return Some(outcome);
        }
        // Pictures and the meter bring their own repaints; this one is for what is plugged in.
        ui.ctx().request_repaint_after(REFRESH);

        for command in commands::pressed(ui.ctx(), &[Command::MicToggle, Command::CamToggle]) {
            match command {
                Command::MicToggle => self.muted = !self.muted,
                Command::CamToggle => self.camera_off = !self.camera_off,
                _ => {}
            }
        }
        let mut outcome = self.header(ui, prefs);
        if outcome.is_some() {
            self.close(backend);
            return outcome;
        }
        let whole = ui.max_rect();
        // On a narrow window the way in stays at the bottom while the rest scrolls.
        let pinned = if whole.width() < NARROW { height::MAIN + 16.0 + 3.0 * space::S + space::M } else { 0.0 };
        let area = Rect::from_min_max(
            pos2(whole.left(), whole.top() + height::HEADER + 1.0),
            pos2(whole.right(), whole.bottom() - pinned),
        );
        let mut body = ui.new_child(egui::UiBuilder::new().max_rect(area).id_salt("lobby"));
        egui::ScrollArea::vertical().auto_shrink(false).show(&mut body, |ui| {
            outcome = self.body(ui, backend, prefs, video, &choice);
        });
        if pinned > 0.0 {
            let p = theme::palette(ui.ctx());
            let w = (whole.width() - 2.0 * space::L).min(560.0);
            let x = (whole.center().x - w / 2.0).round();
            ui.painter().hline(whole.x_range(), area.bottom() + 0.5, Stroke::new(1.0, p.border));
            self.way_in(ui, backend, prefs, &choice, pos2(x, area.bottom() + space::M), w);
        }
        if matches!(outcome, Some(Outcome::Home(_))) {
            self.close(backend);
        }
        prefs.join_muted = self.muted;
        prefs.join_without_camera = self.camera_off;
        outcome
    }

    /// Closes the devices and gives up joining.
    pub fn close(&mut self, backend: &mut dyn Backend) {
        if let Some(call) = self.joining.take() {
            call.send(CallCommand::Leave);
        }
        backend.set_preview(&DeviceChoice::default());
        self.asked = None;
    }

    fn choice(&self, backend: &dyn Backend, prefs: &Preferences) -> DeviceChoice {
        DeviceChoice {
            camera: effective(&backend.cameras(), prefs.devices.camera.as_deref()),
            microphone: effective(&backend.microphones(), prefs.devices.microphone.as_deref()),
            speaker: effective(&backend.speakers(), prefs.devices.speaker.as_deref()),
        }
    }

    fn progress(&mut self, backend: &mut dyn Backend, prefs: &mut Preferences) -> Option<Outcome> {
        let call = self.joining.as_ref()?;
        let view = call.view();
        match &view.connection {
            Connection::Connected
            | Connection::Checking
            | Connection::Reconnecting { .. }
            | Connection::Rejoining { .. } => {
                let (mut session, mut host) = input::describe(&self.target);
                if !view.session.is_empty() {
                    session.clone_from(&view.session);
                }
                if host.is_empty() {
                    host.clone_from(&view.server);
                }
                remember(prefs, session, host);
                let call = self.joining.take()?;
                Some(Outcome::Joined(call, self.target.clone()))
            }
            Connection::Failed(failure) => {
                self.failure = Some(failure.clone());
                self.card = CardState::default();
                self.joining = None;
                self.asked = None;
                None
            }
            Connection::Ended { reason } => {
                self.failure = Some(Failure { key: "err.ended", values: Vec::new(), detail: reason.clone() });
                self.joining = None;
                self.asked = None;
                None
            }
            Connection::Idle | Connection::Joining(_) => {
                let _ = backend;
                None
            }
        }
    }

    fn header(&mut self, ui: &mut Ui, prefs: &Preferences) -> Option<Outcome> {
        let p = theme::palette(ui.ctx());
        let area = ui.max_rect();
        let cy = area.top() + height::HEADER / 2.0;
        let narrow = area.width() < 640.0;
        ui.painter().hline(area.x_range(), area.top() + height::HEADER + 0.5, Stroke::new(1.0, p.border));
        let back = if narrow {
            Button::icon_only("lobby.back", Kind::Quiet, icons::ARROW_LEFT, false, t("button.back"))
        } else {
            Button::new("lobby.back", Kind::Quiet, t("button.back")).icon(icons::ARROW_LEFT, false).soft()
        };
        let bw = back.width(ui);
        let rect = Rect::from_min_size(pos2(area.left() + space::M, cy - 18.0), vec2(bw, height::BUTTON));
        let pressed = back.show(ui, rect).clicked();
        let mut x = rect.right() + space::S;
        let (session, host) = input::describe(&self.target);
        if !narrow {
            ui.painter().vline(x, (cy - 14.0)..=(cy + 14.0), Stroke::new(1.0, p.border));
            x += space::M;
            widgets::icon(ui, pos2(x + 8.0, cy), icons::SHIELD_CHECK, true, 16.0, p.text3);
            x += space::XL;
        }
        let session = super::text::clean(&session);
        let host = match (&self.target, host.is_empty()) {
            (Target::Hosted { .. }, _) => t("lobby.hosted_here").into_owned(),
            (Target::Token(_), true) => t("lobby.by_token").into_owned(),
            _ => host,
        };
        let name = widgets::line(
            ui,
            pos2(x, cy),
            Align2::LEFT_CENTER,
            &session,
            theme::semibold(size::TITLE),
            p.text,
            area.right() - x - 160.0,
        );
        let left = name.right() + space::M;
        widgets::line(
            ui,
            pos2(left, cy + 1.0),
            Align2::LEFT_CENTER,
            &host,
            theme::regular(size::CAPTION),
            p.text3,
            area.right() - left - space::L,
        );
        let _ = prefs;
        (pressed || !commands::pressed(ui.ctx(), &[Command::Close]).is_empty() && self.joining.is_none())
            .then(|| Outcome::Home(String::new()))
    }

    fn body(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        video: &mut Video,
        choice: &DeviceChoice,
    ) -> Option<Outcome> {
        let area = ui.max_rect();
        let top = ui.min_rect().top();
        let narrow = area.width() < NARROW;
        let (mut left_h, right_h);
        let outcome;
        if narrow {
            let w = (area.width() - 2.0 * space::L).min(560.0);
            let x = (area.center().x - w / 2.0).round();
            // What went wrong comes first: below the picture it would be out of sight.
            let (refused_h, refused) = self.refusal(ui, backend, prefs, choice, pos2(x, top + space::L), w);
            let y = top + space::L + refused_h;
            left_h = self.left(ui, backend, prefs, video, choice, pos2(x, y), w, true);
            let (h, o) = self.right(ui, backend, prefs, choice, pos2(x, y + left_h + space::L), w, true);
            right_h = refused_h + left_h + h + space::L;
            left_h = right_h;
            outcome = refused.or(o);
        } else {
            let w = (area.width() - 80.0).min(1200.0);
            let x = (area.center().x - w / 2.0).round();
            let right_w = 400.0_f32.min(w * 0.4);
            let left_w = w - right_w - 40.0;
            // The picture may not push the controls out of a low window.
            let picture_w = left_w.min((area.height() - 210.0).max(160.0) * 16.0 / 9.0);
            let y = top + space::HUGE;
            left_h =
                self.left(ui, backend, prefs, video, choice, pos2(x + (left_w - picture_w) / 2.0, y), picture_w, false);
            let (h, o) = self.right(ui, backend, prefs, choice, pos2(x + left_w + 40.0, y), right_w, false);
            right_h = h;
            outcome = o;
        }
        let bottom = top + space::HUGE + left_h.max(right_h) + space::XL;
        ui.allocate_rect(Rect::from_min_max(pos2(area.left(), top), pos2(area.right(), bottom)), Sense::hover());
        outcome
    }

    fn start(&mut self, backend: &mut dyn Backend, prefs: &Preferences, choice: &DeviceChoice) {
        self.failure = None;
        let own_certificate = match &self.target {
            Target::Session { server, .. } => prefs.servers.iter().any(|s| s.url == *server && s.own_certificate),
            Target::Token(_) => {
                let (_, host) = input::describe(&self.target);
                prefs.servers.iter().any(|s| input::host_of(&s.url) == host && s.own_certificate)
            }
            Target::Invitation(_) | Target::Hosted { .. } => false,
        };
        let given = |d: &Option<String>| d.clone().filter(|s| s != NONE);
        self.joining = Some(backend.join(JoinRequest {
            target: self.target.clone(),
            name: prefs.name.trim().to_owned(),
            devices: DeviceChoice {
                camera: given(&choice.camera),
                microphone: given(&choice.microphone),
                speaker: given(&choice.speaker),
            },
            muted: self.muted,
            camera_off: self.camera_off,
            own_certificate,
        }));
    }

    fn apply(
        &mut self,
        remedy: Remedy,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        choice: &DeviceChoice,
    ) -> Option<Outcome> {
        match remedy {
            Remedy::TryAgain => {
                self.start(backend, prefs, choice);
                None
            }
            Remedy::Watch => {
                self.muted = true;
                self.camera_off = true;
                self.start(
                    backend,
                    prefs,
                    &DeviceChoice { camera: None, microphone: None, speaker: choice.speaker.clone() },
                );
                None
            }
            Remedy::AllowServer => {
                let host = input::describe(&self.target).1;
                match prefs.servers.iter_mut().find(|s| input::host_of(&s.url) == host) {
                    Some(server) => server.own_certificate = true,
                    None => prefs.servers.push(Server { url: format!("https://{host}"), own_certificate: true }),
                }
                self.start(backend, prefs, choice);
                None
            }
            Remedy::PasteLink | Remedy::Back => Some(Outcome::Home(String::new())),
            Remedy::JoinByName => Some(Outcome::Home(input::describe(&self.target).0)),
            Remedy::ChangeServer => Some(Outcome::Home(match &self.target {
                Target::Session { name, .. } => name.clone(),
                _ => String::new(),
            })),
        }
    }
}

fn remember(prefs: &mut Preferences, session: String, host: String) {
    if session.is_empty() {
        return;
    }
    let at_unix_ms =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    prefs.recent.retain(|r| r.session != session || r.host != host);
    prefs.recent.insert(0, Recent { session, host, at_unix_ms });
    prefs.recent.truncate(20);
}

/// The source that a preference means with these devices: a hardware device that is gone gives way to the system's choice.
pub fn effective(devices: &Devices, preferred: Option<&str>) -> Option<String> {
    let list = devices.list();
    match preferred {
        Some(source) if source == NONE => Some(source.to_owned()),
        Some(source) if list.iter().any(|d| d.source == source) || !source.starts_with("device") => {
            Some(source.to_owned())
        }
        Some(source) if matches!(devices, Devices::Looking) => Some(source.to_owned()),
        preferred => {
            // A camera in another socket is still the one of that name.
            let name = |source: &str| source.rsplit_once(" [").map(|(name, _)| name.to_owned());
            let moved = preferred.and_then(name);
            let found = moved
                .and_then(|moved| list.iter().find(|d| name(&d.source).is_some_and(|n| n == moved)))
                .or_else(|| in_other_words(list, preferred?.strip_prefix("device:")?));
            // Without a microphone there may still be what a speaker plays: nobody asked to send that.
            found.or(list.iter().find(|d| !d.monitor)).map(|d| d.source.clone())
        }
    }
}

/// The device that a source names as the command line does and earlier settings did: by its position, or by a part of its name.
fn in_other_words<'a>(list: &'a [Device], words: &str) -> Option<&'a Device> {
    match words.parse::<usize>() {
        Ok(position) => list.get(position),
        Err(_) => {
            let words = words.to_lowercase();
            list.iter().find(|d| d.name.to_lowercase().contains(&words))
        }
    }
}

/// What a device of the list is called in a menu.
fn label(device: &Device) -> String {
    match (device.follows_system(), device.name.is_empty()) {
        (true, true) => t("dev.default").into_owned(),
        (true, false) => tv("dev.default_named", &[("dev", &device.name)]),
        (false, _) => device.name.clone(),
    }
}

/// Name of a source for people.
pub fn device_name(devices: &Devices, source: Option<&str>, none_key: &str) -> String {
    match source {
        Some(source) if source != NONE => {
            let listed = devices.list().iter().find(|d| d.source == source).map(label);
            listed.unwrap_or_else(|| source_name(devices, source))
        }
        _ if matches!(devices, Devices::Looking) => t("dev.looking").into_owned(),
        _ => t(none_key).into_owned(),
    }
}

/// A source that is no device of this machine, in words.
fn source_name(devices: &Devices, source: &str) -> String {
    let (kind, rest) = source.split_once(':').unwrap_or((source, ""));
    match kind {
        "pattern" | "pattern+sync" => t("dev.pattern").into_owned(),
        "tone" => t("dev.tone").into_owned(),
        "null" => t("dev.no_sound").into_owned(),
        "file" => rest.rsplit(['/', '\\']).next().filter(|name| !name.is_empty()).unwrap_or(rest).to_owned(),
        _ if rest.is_empty() => t("dev.default").into_owned(),
        _ if matches!(devices, Devices::Looking) => t("dev.looking").into_owned(),
        // A camera may be named by a part of its name.
        _ => rest.to_owned(),
    }
}

/// Rows of a device menu, the way out last, and the sources they stand for.
pub fn menu_rows(devices: &Devices, chosen: Option<&str>, none_key: &str) -> (Vec<(String, bool)>, Vec<String>) {
    let none = Device::new(NONE, t(none_key));
    // What is in use is in the list, even if it is no device.
    let other = chosen
        .filter(|c| *c != NONE && devices.list().iter().all(|d| d.source != *c))
        .map(|c| Device::new(c, source_name(devices, c)));
    let listed: Vec<Device> = devices.list().iter().cloned().chain(other).chain([none]).collect();
    let rows = listed.iter().map(|d| (super::text::clean(&label(d)), Some(d.source.as_str()) == chosen)).collect();
    (rows, listed.into_iter().map(|d| d.source).collect())
}

#[allow(clippy::too_many_arguments)]
fn device(
    ui: &mut Ui,
    key: &str,
    glyph: &str,
    none_key: &str,
    devices: &Devices,
    chosen: Option<&str>,
    pos: egui::Pos2,
    w: f32,
    mood: Mood,
    note: &str,
) -> Option<String> {
    let name = t(key);
    let value = device_name(devices, chosen, none_key);
    let salt = format!("{key}.choice");
    let response = Choice { salt: &salt, glyph, name: &name, value: &value, note, mood }
        .show(ui, Rect::from_min_size(pos, vec2(w, height::FIELD)));
    let (rows, sources) = menu_rows(devices, chosen, none_key);
    let (_, picked) =
        widgets::menu(&response, w - space::L, false, &name, &[widgets::Section { title: String::new(), rows }])?;
    sources.into_iter().nth(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_however_it_was_written_down() {
        let cameras = Devices::Known(vec![
            Device::new("device:Front Cam [1/0]", "Front Cam"),
            Device::new("device:Rear Cam [2/0]", "Rear Cam"),
        ]);
        let chosen = |preferred| effective(&cameras, Some(preferred));
        for preferred in
            ["device:Rear Cam [2/0]", "device:Rear Cam [7/3]", "device:1", "device:Rear Cam", "device:rear"]
        {
            assert_eq!(chosen(preferred).as_deref(), Some("device:Rear Cam [2/0]"), "{preferred}");
        }
        for gone in ["device:5", "device:Side Cam [3/0]", "device:Side", "device"] {
            assert_eq!(chosen(gone).as_deref(), Some("device:Front Cam [1/0]"), "{gone}");
        }
        assert_eq!(chosen("pattern").as_deref(), Some("pattern"));
        assert_eq!(chosen(NONE).as_deref(), Some(NONE));
        assert_eq!(effective(&Devices::Looking, Some("device:1")).as_deref(), Some("device:1"), "not known yet");
    }
}

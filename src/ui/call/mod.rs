//! The call itself: top bar, stage, control bar, and every state of the connection in words.

mod bars;
mod overlays;
mod share;
mod stage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::{Align2, CornerRadius, Rect, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::bridge::{Backend, Call, Preferences, RoomState, Target};
use super::commands::{self, Command};
use super::lobby::{NONE, effective, menu_rows};
use super::notices::{self, Notices};
use super::order::Order;
use super::text::{clean, clock, t, tn, tv};
use super::theme::{self, height, radius, size, space};
use super::tile::{self, Around, Voices};
use super::video::Video;
use super::widgets::{self, Button, Kind, Section};
use super::{icons, layout};
use crate::call::Command as CallCommand;
use crate::call::view::{Connection, DeviceState, Failure, JoinStep, Tile, View, Vouched};

/// State of the screen.
pub struct CallScreen {
    call: Box<dyn Call>,
    target: Target,
    began: Instant,
    columns: Option<(usize, usize)>,
    page: usize,
    order: Order,
    voices: Voices,
    notices: Notices,
    /// Size of each stream's tile as the engine was told.
    told: HashMap<String, (u32, u32)>,
    /// Since when the connection is lost.
    lost: Option<Instant>,
    corner: Align2,
    dragged: Option<egui::Vec2>,
    leaving: bool,
    was_with_others: bool,
    copied_at: Option<f64>,
    talking: bool,
    talked_while_muted: Option<Instant>,
    talk_notice: u64,
    picker: Option<share::Picker>,
}

/// How the call ended.
pub struct Ended {
    /// Reason key of the engine, or a failure.
    pub why: Why,
    /// Where it was.
    pub target: Target,
    /// How long it lasted.
    pub lasted: Duration,
}

/// Why it ended.
pub enum Why {
    /// I left.
    Left,
    /// Reason as the engine names it.
    Reason(String),
    /// The connection could not be restored.
    Failed(Failure),
}

const NARROW: f32 = 640.0;
const OWN: egui::Vec2 = vec2(240.0, 135.0);

impl CallScreen {
    /// A screen for a call that is in.
    pub fn new(call: Box<dyn Call>, target: Target) -> Self {
        Self {
            call,
            target,
            began: Instant::now(),
            columns: None,
            page: 0,
            order: Order::default(),
            voices: Voices::default(),
            notices: Notices::default(),
            told: HashMap::new(),
            lost: None,
            corner: Align2::RIGHT_BOTTOM,
            dragged: None,
            leaving: false,
            was_with_others: false,
            copied_at: None,
            talking: false,
            talked_while_muted: None,
            talk_notice: 0,
            picker: None,
        }
    }

    /// The newest snapshot of the call.
    pub fn view(&self) -> Arc<View> {
        self.call.view()
    }

    /// Whether the question on leaving is open.
    pub fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The window is to be closed: asks first. True when it may close at once.
    pub fn ask_close(&mut self) -> bool {
        if self.leaving {
            self.call.send(CallCommand::Leave);
            return true;
        }
        self.leaving = true;
        false
    }

    /// Draws it.
    pub fn show(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        video: &mut Video,
    ) -> Option<Ended> {
        let view = self.call.view();
        let area = ui.max_rect();
        if let Some(ended) = self.ended(&view) {
            return Some(ended);
        }
        self.connection_changed(&view);
        if let Some(ended) = self.keys(ui, backend, &view) {
            return Some(ended);
        }
        // The clock needs one repaint a second; pictures bring their own.
        ui.ctx().request_repaint_after(Duration::from_secs(1));

        let top = Rect::from_min_size(area.min, vec2(area.width(), height::TOP_BAR));
        let bottom = Rect::from_min_max(pos2(area.left(), area.bottom() - height::CONTROL_BAR), area.max);
        let margin = if area.width() < NARROW { space::S } else { space::M };
        let stage =
            Rect::from_min_max(pos2(area.left() + margin, top.bottom()), pos2(area.right() - margin, bottom.top()));
        self.top_bar(ui, backend, &view, top);
        let stage = self.share_bar(ui, &view, stage);
        self.stage(ui, backend, prefs, video, &view, stage);
        let mut out = self.control_bar(ui, backend, prefs, &view, bottom);
        if let Some(ended) = self.banner(ui, &view, stage) {
            out = Some(ended);
        }
        self.talking_while_muted(ui, &view, stage);
        self.sound_only(ui, &view, stage);
        if let Some(wish) = self.notices.show(ui, &view, area) {
            self.call.send(wish);
        }
        self.share_dialog(ui, backend, video, area);
        if let Some(ended) = self.leave_dialog(ui, backend, &view, area) {
            out = Some(ended);
        }
        out
    }

    fn end(&self, why: Why) -> Ended {
        Ended { why, target: self.target.clone(), lasted: self.began.elapsed() }
    }

    fn ended(&self, view: &View) -> Option<Ended> {
        match &view.connection {
            Connection::Ended { reason } => Some(self.end(Why::Reason(reason.clone()))),
            Connection::Failed(failure) => {
                // One that has only given up is not over by itself, and nobody would be left to end it.
                self.call.send(CallCommand::Leave);
                Some(self.end(Why::Failed(failure.clone())))
            }
            _ => None,
        }
    }

    fn connection_changed(&mut self, view: &View) {
        let lost = matches!(view.connection, Connection::Reconnecting { .. } | Connection::Rejoining { .. });
        match (lost, self.lost) {
            (true, None) => self.lost = Some(Instant::now()),
            (false, Some(since)) if view.connection == Connection::Connected => {
                self.lost = None;
                let key = if muted(view) { "conn.back_muted" } else { "conn.back_on" };
                self.notices.say(tv(key, &[("s", since.elapsed().as_secs().max(1).to_string())]));
            }
            _ => {}
        }
    }

    fn keys(&mut self, ui: &Ui, backend: &mut dyn Backend, view: &View) -> Option<Ended> {
        let wanted = [
            Command::MicToggle,
            Command::CamToggle,
            Command::ShareToggle,
            Command::PagePrev,
            Command::PageNext,
            Command::InviteCopy,
            Command::Leave,
            Command::FullScreen,
            Command::Close,
        ];
        for command in commands::pressed(ui.ctx(), &wanted) {
            match command {
                Command::MicToggle => self.call.send(CallCommand::MuteAudio(!muted(view))),
                Command::CamToggle => self.call.send(CallCommand::MuteVideo(!camera_off(view))),
                Command::ShareToggle if backend.can_share() && self.lost.is_none() => self.share(backend, view),
                Command::PagePrev => self.page = self.page.saturating_sub(1),
                Command::PageNext => self.page += 1,
                Command::InviteCopy => self.copy_invitation(ui, backend),
                Command::Leave => return self.leave(backend, view),
                Command::FullScreen => {
                    let full = ui.input(|i| i.viewport().fullscreen.unwrap_or(false));
                    ui.ctx().send_viewport_cmd(egui::ViewportCommand::Fullscreen(!full));
                }
                Command::Close if self.picker.is_some() => self.picker = None,
                Command::Close => self.leaving = false,
                _ => {}
            }
        }
        // Space talks while held, unless a focus ring is visible: then it presses that control.
        let free = ui.memory(|m| m.focused().is_none());
        let (down, up) = ui.input(|i| {
            let plain = i.modifiers.is_none();
            (plain && i.key_pressed(egui::Key::Space), i.key_released(egui::Key::Space))
        });
        if free && down && muted(view) && !self.talking {
            self.talking = true;
            self.call.send(CallCommand::MuteAudio(false));
        }
        if self.talking && (up || !ui.input(|i| i.focused)) {
            self.talking = false;
            self.call.send(CallCommand::MuteAudio(true));
        }
        None
    }

    fn leave(&mut self, backend: &dyn Backend, view: &View) -> Option<Ended> {
        let hosts = matches!(backend.room(), RoomState::Open { .. }) && matches!(self.target, Target::Hosted { .. });
        if hosts && !view.people.is_empty() && !self.leaving {
            self.leaving = true;
            return None;
        }
        self.call.send(CallCommand::Leave);
        Some(self.end(Why::Left))
    }
}

/// My microphone's gate is closed or there is no microphone.
pub fn muted(view: &View) -> bool {
    matches!(view.me.microphone, DeviceState::Muted)
}

fn camera_off(view: &View) -> bool {
    matches!(view.me.camera, DeviceState::Muted)
}

/// Bars of my own connection: by round trip, as the only thing known about it here.
fn bars_from(view: &View) -> u8 {
    match view.rtt_ms {
        Some(ms) if ms > 600.0 => 1,
        Some(ms) if ms > 300.0 => 2,
        Some(ms) if ms > 150.0 => 3,
        _ => 4,
    }
}

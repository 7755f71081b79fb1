//! The call itself: top bar, stage, control bar, and every state of the connection in words.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use egui::{Align2, CornerRadius, Rect, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::bridge::{Backend, Call, Preferences, RoomState, Target};
use super::commands::{self, Command};
use super::lobby::{NONE, effective, menu_rows};
use super::notices::Notices;
use super::order::Order;
use super::text::{clean, clock, t, tn, tv};
use super::theme::{self, height, radius, size, space};
use super::tile::{self, Around, Voices};
use super::video::Video;
use super::widgets::{self, Button, Kind, Section};
use super::{icons, layout};
use crate::call::Command as CallCommand;
use crate::call::view::{Connection, DeviceState, Failure, Tile, View};

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
        }
    }

    /// The newest snapshot of the call.
    pub fn view(&self) -> Arc<View> {
        self.call.view()
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
        let p = theme::palette(ui.ctx());
        let view = self.call.view();
        let area = ui.max_rect();
        ui.painter().rect_filled(area, CornerRadius::ZERO, p.canvas);
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
        self.stage(ui, backend, prefs, video, &view, stage);
        let mut out = self.control_bar(ui, backend, prefs, &view, bottom);
        if let Some(ended) = self.banner(ui, &view, stage) {
            out = Some(ended);
        }
        self.talking_while_muted(ui, &view, stage);
        self.notices.show(ui, &view, area);
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
            Connection::Failed(failure) => Some(self.end(Why::Failed(failure.clone()))),
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
                Command::ShareToggle if backend.can_share() && self.lost.is_none() => self.share(view),
                Command::PagePrev => self.page = self.page.saturating_sub(1),
                Command::PageNext => self.page += 1,
                Command::InviteCopy => self.copy_invitation(ui, backend),
                Command::Leave => return self.leave(backend, view),
                Command::FullScreen => {
                    let full = ui.input(|i| i.viewport().fullscreen.unwrap_or(false));
                    ui.ctx().send_viewport_cmd(egui::ViewportCommand::Fullscreen(!full));
                }
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

    fn share(&self, view: &View) {
        self.call.send(CallCommand::Share(if view.me.sharing { None } else { Some("screen".to_owned()) }));
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

    fn top_bar(&mut self, ui: &mut Ui, backend: &dyn Backend, view: &View, bar: Rect) {
        let p = theme::palette(ui.ctx());
        let narrow = bar.width() < NARROW;
        let cy = bar.center().y;
        let shield = Rect::from_center_size(pos2(bar.left() + 20.0, cy), vec2(32.0, 32.0));
        widgets::icon(ui, shield.center(), icons::SHIELD_CHECK, true, 16.0, p.text3);
        let server = if view.server.is_empty() { t("lobby.hosted_here").into_owned() } else { clean(&view.server) };
        let sec = tv("sec.sfu", &[("host", &server)]);
        let response = ui.interact(shield, ui.make_persistent_id("call.sec"), Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &sec));
        response.on_hover_text(sec);

        // Right side first: what is left is for the names.
        let mut right = bar.right() - space::L;
        let people = view.people.len() + 1;
        let count = people.to_string();
        let count_w = widgets::width(ui, &count, theme::medium(size::LABEL));
        let spoken = tn("call.people", people);
        let chip = Rect::from_min_max(pos2(right - count_w - 34.0, cy - 16.0), pos2(right, cy + 16.0));
        widgets::icon(ui, pos2(chip.left() + 12.0, cy), icons::USERS, false, 20.0, p.text2);
        let at = pos2(right - 4.0, cy);
        let galley = widgets::layout(ui, &count, theme::medium(size::LABEL), p.text, 60.0, 1);
        ui.painter().galley(pos2(at.x - galley.size().x, (cy - galley.size().y / 2.0).round()), galley, p.text);
        let response = ui.interact(chip, ui.make_persistent_id("call.people"), Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &spoken));
        response.on_hover_text(spoken);
        right = chip.left() - space::M;

        let bars = match &view.connection {
            Connection::Connected => bars_from(view),
            _ => 0,
        };
        let words = match (&view.connection, view.rtt_ms) {
            (Connection::Connected, Some(ms)) => {
                tv("call.rtt", &[("bars", bars.to_string()), ("ms", format!("{ms:.0}"))])
            }
            (Connection::Connected, None) => tv("call.quality", &[("bars", bars.to_string())]),
            _ => t("conn.check").into_owned(),
        };
        let box_ = Rect::from_center_size(pos2(right - 14.0, cy), vec2(32.0, 32.0));
        widgets::quality_bars(ui, box_.center(), bars, p.text2, p.warn_text, p.pressed);
        let response = ui.interact(box_, ui.make_persistent_id("call.quality"), Sense::hover());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &words));
        response.on_hover_text(words);
        right = box_.left() - space::M;

        let mut x = bar.left() + 36.0;
        let session = clean(&view.session);
        let name = widgets::line(
            ui,
            pos2(x, cy),
            Align2::LEFT_CENTER,
            &session,
            theme::semibold(size::TITLE - 1.0),
            p.text,
            (right - x) * 0.5,
        );
        x = name.right() + space::M;
        if !narrow {
            let hosted = match (backend.room(), &self.target) {
                (RoomState::Open { port, .. }, Target::Hosted { .. }) => {
                    tv("call.hosted_here", &[("port", port.to_string())])
                }
                _ if view.server.is_empty() => String::new(),
                _ => tv("call.hosted_by", &[("host", &view.server)]),
            };
            if !hosted.is_empty() {
                let r = widgets::line(
                    ui,
                    pos2(x, cy),
                    Align2::LEFT_CENTER,
                    &hosted,
                    theme::regular(size::CAPTION),
                    p.text3,
                    right - x - 80.0,
                );
                x = r.right() + space::M;
            }
        }
        if let Some(joined) = view.joined_at {
            let time = clock(joined.elapsed().as_secs());
            widgets::line(
                ui,
                pos2(x, cy),
                Align2::LEFT_CENTER,
                &time,
                theme::regular(size::CAPTION),
                p.text2,
                right - x,
            );
        }
    }

    fn stage(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &Preferences,
        video: &mut Video,
        view: &View,
        stage: Rect,
    ) {
        let cut_off_s = self.lost.map(|at| at.elapsed().as_secs());
        let now = Instant::now();
        let own_muted = muted(view);
        let heard = view.tiles.iter().map(|tile| {
            let voice = tile.level.speaking() && if tile.own { !own_muted } else { tile.audio_active };
            (tile.key.as_str(), voice && cut_off_s.is_none())
        });
        let speaking = self.voices.update(now, heard);
        if self.voices.busy() {
            ui.ctx().request_repaint_after(Duration::from_millis(100));
        }
        let around =
            |tile: &Tile| Around { cut_off_s, speaking: speaking.contains(&tile.key), mirror: prefs.mirror, own_muted };
        let others = view.tiles.iter().filter(|t| !t.own).count();
        let own_camera = view.tiles.iter().find(|t| t.own && t.kind == crate::call::view::TileKind::Camera);
        let own_all = view.tiles.iter().filter(|t| t.own).count();
        let mut visible: HashMap<String, (u32, u32)> = HashMap::new();
        let ppp = ui.ctx().pixels_per_point();
        let mut see = |tile: &Tile, rect: Rect| {
            if !tile.stream_id.is_empty() {
                visible.insert(
                    tile.stream_id.clone(),
                    ((rect.width() * ppp).round() as u32, (rect.height() * ppp).round() as u32),
                );
            }
        };
        self.was_with_others |= !view.people.is_empty();
        if others == 0 && own_all <= 1 {
            self.columns = None;
            if view.people.is_empty() {
                self.alone(ui, backend, stage);
            } else {
                let p = theme::palette(ui.ctx());
                let words = view.people.iter().map(|x| clean(&x.name)).collect::<Vec<_>>().join(", ");
                widgets::line(
                    ui,
                    stage.center(),
                    Align2::CENTER_CENTER,
                    &words,
                    theme::semibold(size::TITLE),
                    p.text2,
                    stage.width(),
                );
            }
            if let Some(own) = own_camera {
                let rect = self.floating(ui, stage, 0.0);
                see(own, rect);
                tile::show(ui, video, own, rect, around(own));
            }
        } else if others == 1 && own_all == 1 && own_camera.is_some() {
            self.columns = None;
            let cell = layout::grid(stage.width(), stage.height(), 1, None).cells.first().copied();
            if let (Some(cell), Some(other), Some(own)) = (cell, view.tiles.iter().find(|t| !t.own), own_camera) {
                let rect = Rect::from_min_size(stage.min + vec2(cell.x, cell.y), vec2(cell.w, cell.h));
                see(other, rect);
                tile::show(ui, video, other, rect, around(other));
                let own_rect = self.floating(ui, rect, space::L);
                let p = theme::palette(ui.ctx());
                ui.painter().rect_filled(own_rect.expand(2.0), CornerRadius::same(radius::CARD), p.canvas);
                see(own, own_rect);
                tile::show(ui, video, own, own_rect, around(own));
            }
        } else {
            let total = view.tiles.len();
            let page_size = layout::page_size(stage.width(), stage.height(), total);
            self.order.update(&view.tiles, page_size);
            let (tiles, pages) = self.order.page(&view.tiles, page_size, self.page);
            self.page = self.page.min(pages - 1);
            let previous = self.columns.filter(|(n, _)| *n == tiles.len()).map(|(_, c)| c);
            let grid = layout::grid(stage.width(), stage.height(), tiles.len(), previous);
            self.columns = Some((tiles.len(), grid.columns));
            // Rings last, so that a neighbour does not paint over them.
            let mut placed: Vec<(&Tile, Rect)> = tiles
                .iter()
                .zip(&grid.cells)
                .map(|(tile, cell)| {
                    (*tile, Rect::from_min_size(stage.min + vec2(cell.x, cell.y), vec2(cell.w, cell.h)))
                })
                .collect();
            placed.sort_by_key(|(tile, _)| speaking.contains(&tile.key));
            for (tile, rect) in placed {
                see(tile, rect);
                tile::show(ui, video, tile, rect, around(tile));
            }
            if pages > 1 {
                self.pager(ui, stage, pages);
            }
        }
        self.tell_sizes(view, visible);
    }

    /// Tells the engine how large each stream is drawn, and which are not; only on a change.
    fn tell_sizes(&mut self, view: &View, visible: HashMap<String, (u32, u32)>) {
        for tile in view.tiles.iter().filter(|t| !t.own && !t.stream_id.is_empty()) {
            let size = visible.get(&tile.stream_id).copied().unwrap_or((0, 0));
            if self.told.get(&tile.stream_id) != Some(&size) {
                self.told.insert(tile.stream_id.clone(), size);
                self.call.send(CallCommand::Tile { stream_id: tile.stream_id.clone(), size });
            }
        }
        self.told.retain(|id, _| view.tiles.iter().any(|t| t.stream_id == *id));
    }

    /// Where the own picture floats; it can be dragged to any corner.
    fn floating(&mut self, ui: &mut Ui, within: Rect, inset: f32) -> Rect {
        let scale = (within.width() / 900.0).clamp(0.5, 1.0);
        let size = vec2((OWN.x * scale).round(), (OWN.y * scale).round());
        let home = self.corner.align_size_within_rect(size, within.shrink(inset));
        let rect = home.translate(self.dragged.unwrap_or_default());
        let rect = Rect::from_min_size(pos2(rect.min.x.round(), rect.min.y.round()), size);
        let response = ui.interact(rect, ui.make_persistent_id("call.own"), Sense::drag());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Group, true, t("call.own_picture")));
        if response.dragged() {
            self.dragged = Some(self.dragged.unwrap_or_default() + response.drag_delta());
            ui.ctx().set_cursor_icon(egui::CursorIcon::Grabbing);
        }
        if response.drag_stopped() {
            let c = rect.center();
            self.corner = match (c.x < within.center().x, c.y < within.center().y) {
                (true, true) => Align2::LEFT_TOP,
                (true, false) => Align2::LEFT_BOTTOM,
                (false, true) => Align2::RIGHT_TOP,
                (false, false) => Align2::RIGHT_BOTTOM,
            };
            self.dragged = None;
        }
        rect
    }

    fn pager(&mut self, ui: &mut Ui, stage: Rect, pages: usize) {
        let p = theme::palette(ui.ctx());
        let sides = [
            ("call.page.prev", icons::CARET_LEFT, t("call.page_prev"), stage.left() + 4.0, self.page > 0),
            ("call.page.next", icons::CARET_RIGHT, t("call.page_next"), stage.right() - 40.0, self.page + 1 < pages),
        ];
        let mut step = 0_isize;
        for (i, (salt, glyph, name, x, enabled)) in sides.into_iter().enumerate() {
            if !enabled {
                continue;
            }
            let rect = Rect::from_min_size(pos2(x, stage.center().y - 22.0), vec2(36.0, height::CONTROL));
            if Button::icon_only(salt, Kind::Secondary, glyph, false, name).show(ui, rect).clicked() {
                step = if i == 0 { -1 } else { 1 };
            }
        }
        self.page = self.page.saturating_add_signed(step).min(pages - 1);
        let words = tv("call.page", &[("a", (self.page + 1).to_string()), ("b", pages.to_string())]);
        let w = widgets::width(ui, &words, theme::medium(size::CAPTION)) + 16.0;
        let chip = Rect::from_min_size(pos2(stage.center().x - w / 2.0, stage.bottom() - 32.0), vec2(w, height::CHIP));
        ui.painter().rect_filled(chip, CornerRadius::same(radius::CHIP), theme::plate());
        let _ = p;
        widgets::line(
            ui,
            chip.center(),
            Align2::CENTER_CENTER,
            &words,
            theme::medium(size::CAPTION),
            theme::ON_PLATE,
            w,
        );
    }

    fn invitation(&self, backend: &dyn Backend) -> Option<(String, Option<String>)> {
        match (backend.room(), &self.target) {
            (RoomState::Open { invitation, browser_link, .. }, Target::Hosted { .. }) => {
                Some((invitation, browser_link))
            }
            (_, Target::Invitation(link)) => Some((link.clone(), None)),
            _ => None,
        }
    }

    fn copy_invitation(&mut self, ui: &Ui, backend: &dyn Backend) {
        if let Some((link, _)) = self.invitation(backend) {
            ui.ctx().copy_text(link);
            self.copied_at = Some(ui.input(|i| i.time));
            ui.ctx().request_repaint_after(Duration::from_secs(2));
        }
    }

    fn alone(&mut self, ui: &mut Ui, backend: &dyn Backend, stage: Rect) {
        let p = theme::palette(ui.ctx());
        let w = 560.0_f32.min(stage.width());
        let pad = if w < 480.0 { space::L } else { space::XL };
        let link = self.invitation(backend);
        let title = if self.was_with_others { t("call.alone_now") } else { t("call.alone") };
        let text = if link.is_some() { t("call.alone_text") } else { t("call.alone_text_none") };
        let lines =
            ui.painter().layout(text.to_string(), theme::regular(size::BODY), p.text2, w - 2.0 * pad).rows.len() as f32;
        let mut h = pad + 28.0 + space::S + lines * 20.0 + pad;
        if link.is_some() {
            h += space::L + 18.0 + space::S + height::FIELD + space::M + height::BUTTON + space::S + 16.0;
        }
        let rect = Rect::from_center_size(stage.center(), vec2(w, h));
        let rect = Rect::from_min_size(pos2(rect.min.x.round(), rect.min.y.round()), rect.size());
        widgets::card(ui, rect, p);
        let x = rect.left() + pad;
        let mut y = rect.top() + pad;
        let inner = w - 2.0 * pad;
        widgets::line(ui, pos2(x, y), Align2::LEFT_TOP, &title, theme::semibold(size::HEADING), p.text, inner);
        y += 28.0 + space::S;
        widgets::paragraph(ui, pos2(x, y), Align2::LEFT_TOP, &text, theme::regular(size::BODY), p.text2, inner);
        y += lines * 20.0 + space::L;
        if let Some((link, browser)) = link {
            self.link_block(ui, "alone", &link, browser.as_deref(), pos2(x, y), inner);
        }
    }

    /// Link, copy buttons and how long it holds.
    fn link_block(&mut self, ui: &mut Ui, salt: &str, link: &str, browser: Option<&str>, pos: egui::Pos2, w: f32) {
        let p = theme::palette(ui.ctx());
        let mut y = pos.y;
        widgets::line(ui, pos2(pos.x, y), Align2::LEFT_TOP, &t("call.link"), theme::medium(size::LABEL), p.text2, w);
        y += 18.0 + space::S;
        let field = Rect::from_min_size(pos2(pos.x, y), vec2(w, height::FIELD));
        ui.painter().rect(
            field,
            CornerRadius::same(radius::BUTTON),
            p.field,
            Stroke::new(1.0, p.border_strong),
            StrokeKind::Inside,
        );
        // The key itself is not shown: somebody may look over the shoulder.
        let shown = link.split_once('#').map_or_else(|| link.to_owned(), |(head, _)| format!("{head}#…"));
        let at = pos2(field.left() + space::M, field.center().y);
        widgets::line(ui, at, Align2::LEFT_CENTER, &shown, theme::mono(size::LABEL), p.text, w - space::XL);
        y += height::FIELD + space::M;
        let now = ui.input(|i| i.time);
        let copied = self.copied_at.is_some_and(|at| now - at < 2.0);
        let name = format!("{salt}.copy");
        let copy = Button::new(&name, Kind::Primary, if copied { t("button.copied") } else { t("button.copy_link") })
            .icon(if copied { icons::CHECK } else { icons::COPY }, false)
            .key(commands::key_text(ui.ctx(), Command::InviteCopy));
        let cw = copy.width(ui);
        if copy.show(ui, Rect::from_min_size(pos2(pos.x, y), vec2(cw, height::BUTTON))).clicked() {
            ui.ctx().copy_text(link.to_owned());
            self.copied_at = Some(now);
            ui.ctx().request_repaint_after(Duration::from_secs(2));
        }
        if let Some(browser) = browser {
            let name = format!("{salt}.browser");
            let button = Button::new(&name, Kind::Secondary, t("button.copy_browser")).icon(icons::GLOBE, false);
            let bw = button.width(ui).min(w - cw - space::S);
            if button.show(ui, Rect::from_min_size(pos2(pos.x + cw + space::S, y), vec2(bw, height::BUTTON))).clicked()
            {
                ui.ctx().copy_text(browser.to_owned());
            }
        }
        y += height::BUTTON + space::S;
        widgets::line(
            ui,
            pos2(pos.x, y),
            Align2::LEFT_TOP,
            &t("call.link_valid"),
            theme::regular(size::CAPTION),
            p.text3,
            w,
        );
    }

    fn control_bar(
        &mut self,
        ui: &mut Ui,
        backend: &mut dyn Backend,
        prefs: &mut Preferences,
        view: &View,
        bar: Rect,
    ) -> Option<Ended> {
        let narrow = bar.width() < NARROW;
        let cy = bar.center().y;
        let top = (cy - height::CONTROL / 2.0).round();
        let gap = space::S;
        let muted_now = muted(view);
        let off = camera_off(view);
        let place = |x: f32, w: f32| Rect::from_min_size(pos2(x, top), vec2(w, height::CONTROL));
        let left = CornerRadius { nw: radius::CONTROL, sw: radius::CONTROL, ne: 3, se: 3 };
        let right = CornerRadius { nw: 3, sw: 3, ne: radius::CONTROL, se: radius::CONTROL };

        let invite = if narrow {
            Button::icon_only("call.invite", Kind::Control, icons::USER_PLUS, false, t("call.invite"))
        } else {
            Button::new("call.invite", Kind::Quiet, t("call.invite")).icon(icons::USER_PLUS, false)
        };
        let leave = if narrow {
            Button::icon_only("call.leave", Kind::Danger, icons::PHONE_DISCONNECT, true, t("button.leave"))
        } else {
            Button::new("call.leave", Kind::Danger, t("button.leave")).icon(icons::PHONE_DISCONNECT, true)
        }
        .key(commands::key_text(ui.ctx(), Command::Leave));
        let shares = backend.can_share();
        let share_kind = if view.me.sharing { Kind::ControlOn } else { Kind::Control };
        let share_words = if view.me.sharing { t("cmd.share_stop") } else { t("call.share") };
        let share = if narrow {
            Button::icon_only("call.share", share_kind, icons::SCREENCAST, view.me.sharing, share_words)
        } else {
            Button::new("call.share", share_kind, share_words).icon(icons::SCREENCAST, view.me.sharing)
        }
        .key(commands::key_text(ui.ctx(), Command::ShareToggle))
        .toggled(view.me.sharing)
        .enabled(self.lost.is_none(), t("conn.lost"));

        let mic_w = 69.0;
        let cam_w = 48.0;
        let caret_w = 32.0;
        let share_w = if shares { share.width(ui).max(48.0) + gap } else { 0.0 };
        let invite_w = if narrow { 48.0 } else { invite.width(ui) };
        let leave_w = if narrow { 48.0 } else { leave.width(ui) - 2.0 };
        let mut center_w = mic_w + 2.0 + caret_w + gap + cam_w + 2.0 + caret_w + share_w;
        if shares {
            center_w += gap - gap;
        }
        if narrow {
            center_w += gap + invite_w + gap + leave_w;
        } else {
            center_w += if shares { 0.0 } else { -gap + gap };
        }
        let mut x = (bar.center().x - center_w / 2.0).round();

        // Microphone.
        let failed = matches!(view.me.microphone, DeviceState::Failed(_) | DeviceState::None);
        let kind = if muted_now || failed { Kind::ControlMuted } else { Kind::Control };
        let mic_name = if failed {
            t("cmd.no_device")
        } else if muted_now {
            t("cmd.mic_unmute")
        } else {
            t("cmd.mic_mute")
        };
        let glyph = if muted_now || failed { icons::MICROPHONE_SLASH } else { icons::MICROPHONE };
        let mut mic = Button::icon_only("call.mic", kind, glyph, true, mic_name)
            .key(commands::key_text(ui.ctx(), Command::MicToggle))
            .toggled(!muted_now)
            .warn(failed)
            .corner(left);
        if !muted_now && !failed {
            let live = if self.lost.is_some() { 0.0 } else { widgets::meter_share(view.me.level.dbfs()) };
            mic = mic.level(Some(live));
            ui.ctx().request_repaint_after(Duration::from_millis(100));
        }
        let mic_response = mic.show(ui, place(x, mic_w));
        let mic_clicked = mic_response.clicked();
        x += mic_w + 2.0;
        let caret =
            Button::icon_only("call.mic.menu", kind, icons::CARET_UP, false, t("call.microphone_menu")).corner(right);
        let mut caret_response = caret.show(ui, place(x, caret_w));
        x += caret_w + gap;
        if mic_clicked {
            if failed {
                egui::Popup::open_id(ui.ctx(), egui::Popup::default_response_id(&caret_response));
                caret_response.set_close();
            } else {
                self.call.send(CallCommand::MuteAudio(!muted_now));
            }
        }
        if caret_response.clicked() || (mic_clicked && failed) {
            backend.refresh_devices();
        }
        self.sound_menu(backend, prefs, &caret_response);

        // Camera.
        let failed = matches!(view.me.camera, DeviceState::Failed(_) | DeviceState::None);
        let kind = if off || failed { Kind::ControlMuted } else { Kind::Control };
        let cam_name = if failed {
            t("cmd.no_device")
        } else if off {
            t("cmd.cam_start")
        } else {
            t("cmd.cam_stop")
        };
        let glyph = if off || failed { icons::VIDEO_CAMERA_SLASH } else { icons::VIDEO_CAMERA };
        let cam = Button::icon_only("call.cam", kind, glyph, true, cam_name)
            .key(commands::key_text(ui.ctx(), Command::CamToggle))
            .toggled(!off)
            .corner(left);
        let clicked = cam.show(ui, place(x, cam_w)).clicked();
        x += cam_w + 2.0;
        let caret =
            Button::icon_only("call.cam.menu", kind, icons::CARET_UP, false, t("call.camera_menu")).corner(right);
        let caret_response = caret.show(ui, place(x, caret_w));
        x += caret_w + gap;
        if clicked {
            if matches!(view.me.camera, DeviceState::None) {
                egui::Popup::open_id(ui.ctx(), egui::Popup::default_response_id(&caret_response));
            } else {
                self.call.send(CallCommand::MuteVideo(!off));
            }
        }
        if caret_response.clicked() {
            backend.refresh_devices();
        }
        let cameras = backend.cameras();
        let chosen = effective(&cameras, prefs.devices.camera.as_deref());
        let (rows, sources) = menu_rows(&cameras, chosen.as_deref(), "dev.none_camera");
        let sections = [Section { title: t("lobby.camera").into_owned(), rows }];
        if let Some((_, i)) = widgets::menu(&caret_response, 280.0, true, &t("call.camera_menu"), &sections)
            && let Some(source) = sources.into_iter().nth(i)
        {
            self.call.send(CallCommand::Camera(source.clone()));
            if source != NONE && off {
                self.call.send(CallCommand::MuteVideo(false));
            }
            prefs.devices.camera = Some(source);
        }

        if shares {
            let w = share_w - gap;
            if share.show(ui, place(x, w)).clicked() {
                self.share(view);
            }
            x += w + gap;
        }

        // Invite at the left, leave alone at the right; both in the row when narrow.
        let (invite_rect, leave_rect) = if narrow {
            (place(x, invite_w), place(x + invite_w + gap, leave_w))
        } else {
            (place(bar.left() + space::S, invite_w), place(bar.right() - space::M - leave_w, leave_w))
        };
        let invite_response = invite.show(ui, invite_rect);
        self.invite_popup(ui, backend, &invite_response);
        if leave.show(ui, leave_rect).clicked() {
            return self.leave(backend, view);
        }
        None
    }

    fn sound_menu(&self, backend: &mut dyn Backend, prefs: &mut Preferences, opener: &egui::Response) {
        let (microphones, speakers) = (backend.microphones(), backend.speakers());
        let mic = effective(&microphones, prefs.devices.microphone.as_deref());
        let speaker = effective(&speakers, prefs.devices.speaker.as_deref());
        let (mic_rows, mic_sources) = menu_rows(&microphones, mic.as_deref(), "dev.none_microphone");
        let (speaker_rows, speaker_sources) = menu_rows(&speakers, speaker.as_deref(), "dev.none_speaker");
        let sections = [
            Section { title: t("lobby.microphone").into_owned(), rows: mic_rows },
            Section { title: t("lobby.speaker").into_owned(), rows: speaker_rows },
        ];
        match widgets::menu(opener, 280.0, true, &t("call.microphone_menu"), &sections) {
            Some((0, i)) => {
                if let Some(source) = mic_sources.into_iter().nth(i) {
                    self.call.send(CallCommand::Microphone(source.clone()));
                    prefs.devices.microphone = Some(source);
                }
            }
            Some((_, i)) => {
                if let Some(source) = speaker_sources.into_iter().nth(i) {
                    self.call.send(CallCommand::Speaker(source.clone()));
                    prefs.devices.speaker = Some(source);
                }
            }
            None => {}
        }
    }

    fn invite_popup(&mut self, ui: &mut Ui, backend: &dyn Backend, opener: &egui::Response) {
        let link = self.invitation(backend);
        let w = 360.0_f32.min(ui.ctx().content_rect().width() - 64.0);
        egui::Popup::from_toggle_button_response(opener)
            .align(egui::RectAlign::TOP_START)
            .gap(8.0)
            .close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside)
            .accessible_name(t("call.invite_title"))
            .frame(egui::Frame::popup(ui.style()).inner_margin(space::L))
            .show(|ui| {
                let p = theme::palette(ui.ctx());
                ui.set_width(w);
                match link {
                    Some((link, browser)) => {
                        let h = 18.0 + space::S + height::FIELD + space::M + height::BUTTON + space::S + 16.0;
                        let (rect, _) = ui.allocate_exact_size(vec2(w, h), Sense::hover());
                        self.link_block(ui, "invite", &link, browser.as_deref(), rect.min, w);
                    }
                    None => {
                        let words = t("call.link_none");
                        let lines =
                            ui.painter().layout(words.to_string(), theme::regular(size::BODY), p.text2, w).rows.len()
                                as f32;
                        let (rect, _) = ui.allocate_exact_size(vec2(w, lines * 20.0), Sense::hover());
                        widgets::paragraph(
                            ui,
                            rect.min,
                            Align2::LEFT_TOP,
                            &words,
                            theme::regular(size::BODY),
                            p.text2,
                            w,
                        );
                    }
                }
            });
    }

    /// The banner of a lost connection.
    fn banner(&mut self, ui: &mut Ui, view: &View, stage: Rect) -> Option<Ended> {
        let p = theme::palette(ui.ctx());
        let (title, sentence, seconds, now) = match &view.connection {
            Connection::Reconnecting { attempt, retry_in_ms, place_kept_ms } => {
                let s = retry_in_ms.div_ceil(1000);
                let n = attempt.to_string();
                let sentence = match (s, place_kept_ms) {
                    (0, _) => tv("conn.lost_now", &[("n", n)]),
                    (s, 0) => tv("conn.lost_text_over", &[("s", s.to_string()), ("n", n)]),
                    (s, kept) => {
                        tv("conn.lost_text", &[("s", s.to_string()), ("n", n), ("m", kept.div_ceil(1000).to_string())])
                    }
                };
                (t("conn.lost"), sentence, Some(s), true)
            }
            Connection::Rejoining { attempt } => {
                (t("conn.rejoin"), tv("conn.rejoin_text", &[("n", attempt.to_string())]), None, false)
            }
            _ => return None,
        };
        ui.ctx().request_repaint_after(Duration::from_millis(250));
        let narrow = stage.width() < 620.0;
        let w = 720.0_f32.min(stage.width());
        let text_w = w - 70.0 - space::L - if narrow { 0.0 } else { 210.0 };
        let lines =
            ui.painter().layout(sentence.clone(), theme::regular(size::CAPTION), p.text2, text_w).rows.len() as f32;
        let title_lines =
            ui.painter().layout(title.to_string(), theme::semibold(size::BODY), p.text, text_w).rows.len() as f32;
        let text_h = title_lines * 20.0 + lines * 16.0;
        let h = (text_h + 34.0).max(70.0) + if narrow { height::BUTTON + space::S } else { 0.0 };
        let rect =
            Rect::from_min_size(pos2((stage.center().x - w / 2.0).round(), stage.top() + space::M + 2.0), vec2(w, h));
        ui.painter().add(theme::shadow(p).as_shape(rect, CornerRadius::same(radius::CARD)));
        ui.painter().rect(
            rect,
            CornerRadius::same(radius::CARD),
            p.overlay,
            Stroke::new(1.0, p.warn_text),
            StrokeKind::Inside,
        );
        let row = Rect::from_min_size(rect.min, vec2(w, (text_h + 34.0).max(70.0)));
        let ring = pos2(rect.left() + 36.0, row.center().y);
        match seconds {
            Some(s) => {
                let share = (s as f32 / 5.0).clamp(0.05, 1.0);
                let points = (0..=40).map(|i| {
                    let a = -std::f32::consts::FRAC_PI_2 - std::f32::consts::TAU * share * i as f32 / 40.0;
                    pos2(ring.x + 17.0 * a.cos(), ring.y + 17.0 * a.sin())
                });
                ui.painter().circle_stroke(ring, 17.0, Stroke::new(3.0, p.pressed));
                ui.painter().add(egui::Shape::line(points.collect(), Stroke::new(3.0, p.warn_text)));
                widgets::line(
                    ui,
                    ring,
                    Align2::CENTER_CENTER,
                    &s.to_string(),
                    theme::semibold(size::BODY),
                    p.text,
                    30.0,
                );
            }
            None => widgets::spinner(ui, ring, 15.0, p.warn_text),
        }
        let x = rect.left() + 70.0;
        let y = row.center().y - text_h / 2.0;
        let said =
            widgets::paragraph(ui, pos2(x, y), Align2::LEFT_TOP, &title, theme::semibold(size::BODY), p.text, text_w);
        widgets::paragraph(
            ui,
            pos2(x, said.bottom()),
            Align2::LEFT_TOP,
            &sentence,
            theme::regular(size::CAPTION),
            p.text2,
            text_w,
        );
        let leave = Button::new("conn.leave", Kind::Quiet, t("button.leave"));
        let lw = leave.width(ui);
        let by = if narrow { row.bottom() - space::S } else { row.center().y - height::BUTTON / 2.0 };
        let lx = rect.right() - space::L - lw;
        let mut out = None;
        if leave.show(ui, Rect::from_min_size(pos2(lx, by), vec2(lw, height::BUTTON))).clicked() {
            self.call.send(CallCommand::Leave);
            out = Some(self.end(Why::Left));
        }
        if now {
            let again = Button::new("conn.now", Kind::Primary, t("button.try_now"));
            let aw = again.width(ui);
            if again.show(ui, Rect::from_min_size(pos2(lx - space::S - aw, by), vec2(aw, height::BUTTON))).clicked() {
                self.call.send(CallCommand::ReconnectNow);
            }
        }
        out
    }

    fn talking_while_muted(&mut self, ui: &mut Ui, view: &View, stage: Rect) {
        if !muted(view) || self.lost.is_some() || !view.me.level.speaking() {
            if !muted(view) || self.talked_while_muted.is_some_and(|at| at.elapsed() > Duration::from_secs(4)) {
                self.talked_while_muted = None;
            }
        } else {
            self.talked_while_muted = Some(Instant::now());
        }
        if self.talked_while_muted.is_none() {
            return;
        }
        let p = theme::palette(ui.ctx());
        let unmute = Button::new("mute.unmute", Kind::Primary, t("button.unmute")).font_size(size::LABEL);
        let uw = unmute.width(ui);
        let title = t("mute.talking");
        let hold = t("mute.hold");
        let tw = widgets::width(ui, &title, theme::medium(size::BODY));
        let hw = widgets::width(ui, &hold, theme::regular(size::CAPTION));
        let wide = stage.width() > tw + hw + uw + 110.0;
        let w = 48.0 + tw + if wide { space::M + hw } else { 0.0 } + space::M + uw + space::S;
        let rect = Rect::from_min_size(
            pos2((stage.center().x - w / 2.0).round(), stage.bottom() - 56.0),
            vec2(w, height::CONTROL),
        );
        ui.painter().add(theme::shadow(p).as_shape(rect, CornerRadius::same(radius::TILE)));
        ui.painter().rect(
            rect,
            CornerRadius::same(radius::TILE),
            p.overlay,
            Stroke::new(1.0, p.warn_text),
            StrokeKind::Inside,
        );
        let y = rect.center().y;
        widgets::icon(ui, pos2(rect.left() + 26.0, y), icons::MICROPHONE_SLASH, true, 20.0, p.danger_text);
        let said = widgets::line(
            ui,
            pos2(rect.left() + 48.0, y),
            Align2::LEFT_CENTER,
            &title,
            theme::medium(size::BODY),
            p.text,
            tw + 1.0,
        );
        if wide {
            widgets::line(
                ui,
                pos2(said.right() + space::M, y),
                Align2::LEFT_CENTER,
                &hold,
                theme::regular(size::CAPTION),
                p.text2,
                hw + 1.0,
            );
        }
        let at = Rect::from_min_size(pos2(rect.right() - uw - space::S, y - 16.0), vec2(uw, height::HIT));
        if unmute.show(ui, at).clicked() {
            self.call.send(CallCommand::MuteAudio(false));
        }
    }

    fn leave_dialog(&mut self, ui: &mut Ui, backend: &mut dyn Backend, view: &View, area: Rect) -> Option<Ended> {
        if !self.leaving {
            return None;
        }
        let hosts = matches!(self.target, Target::Hosted { .. }) && !view.people.is_empty();
        let sentence = if hosts { tn("leave.host", view.people.len()) } else { String::new() };
        let w = 460.0_f32.min(area.width() - space::XXL);
        let mut out = None;
        let modal = egui::Modal::new(egui::Id::unique("call.leave.dialog"))
            .frame(egui::Frame::window(ui.style()).inner_margin(space::XL))
            .show(ui.ctx(), |ui| {
                let p = theme::palette(ui.ctx());
                let inner = w - 2.0 * space::XL;
                let lines = if sentence.is_empty() {
                    0.0
                } else {
                    ui.painter().layout(sentence.clone(), theme::regular(size::BODY), p.text2, inner).rows.len() as f32
                };
                let (rect, _) = ui
                    .allocate_exact_size(vec2(inner, 28.0 + lines * 20.0 + space::XL + height::BUTTON), Sense::hover());
                widgets::line(
                    ui,
                    rect.min,
                    Align2::LEFT_TOP,
                    &t("leave.title"),
                    theme::semibold(size::HEADING),
                    p.text,
                    inner,
                );
                if !sentence.is_empty() {
                    widgets::paragraph(
                        ui,
                        rect.min + vec2(0.0, 30.0),
                        Align2::LEFT_TOP,
                        &sentence,
                        theme::regular(size::BODY),
                        p.text2,
                        inner,
                    );
                }
                let leave = Button::new("leave.yes", Kind::Danger, t("button.leave"));
                let stay = Button::new("leave.no", Kind::Secondary, t("button.stay"));
                let (lw, sw) = (leave.width(ui), stay.width(ui));
                let y = rect.bottom() - height::BUTTON;
                let yes =
                    leave.show(ui, Rect::from_min_size(pos2(rect.right() - lw, y), vec2(lw, height::BUTTON))).clicked();
                let no = stay
                    .show(ui, Rect::from_min_size(pos2(rect.right() - lw - space::S - sw, y), vec2(sw, height::BUTTON)))
                    .clicked();
                (yes, no)
            });
        let should_close = modal.should_close();
        let (yes, no) = modal.inner;
        if yes {
            self.call.send(CallCommand::Leave);
            if matches!(self.target, Target::Hosted { .. }) {
                backend.stop_room();
            }
            out = Some(self.end(Why::Left));
        } else if no || should_close {
            self.leaving = false;
        }
        out
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

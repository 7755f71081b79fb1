//! The stage: grid, one and two people, pages, and the invitation while one is alone.

use super::*;

impl CallScreen {
    pub(super) fn stage(
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
            if let Some(step) = joining(view) {
                let p = theme::palette(ui.ctx());
                let center = stage.center();
                widgets::spinner(ui, center - vec2(0.0, 20.0), 14.0, p.accent_text);
                let at = center + vec2(0.0, 20.0);
                widgets::line(ui, at, Align2::CENTER_CENTER, &step, theme::medium(size::TITLE), p.text, stage.width());
            } else if view.people.is_empty() {
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
    pub(super) fn tell_sizes(&mut self, view: &View, visible: HashMap<String, (u32, u32)>) {
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
    pub(super) fn floating(&mut self, ui: &mut Ui, within: Rect, inset: f32) -> Rect {
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

    pub(super) fn pager(&mut self, ui: &mut Ui, stage: Rect, pages: usize) {
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

    pub(super) fn invitation(&self, backend: &dyn Backend) -> Option<(String, Option<String>)> {
        match (backend.room(), &self.target) {
            (RoomState::Open { invitation, browser_link, .. }, Target::Hosted { .. }) => {
                Some((invitation, browser_link))
            }
            (_, Target::Invitation(link)) => Some((link.clone(), None)),
            _ => None,
        }
    }

    pub(super) fn copy_invitation(&mut self, ui: &Ui, backend: &dyn Backend) {
        if let Some((link, _)) = self.invitation(backend) {
            ui.ctx().copy_text(link);
            self.copied_at = Some(ui.input(|i| i.time));
            ui.ctx().request_repaint_after(Duration::from_secs(2));
        }
    }

    pub(super) fn alone(&mut self, ui: &mut Ui, backend: &dyn Backend, stage: Rect) {
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
        // On a low stage it goes up, so that the own picture does not cover it.
        let own_h = (OWN.y * (stage.width() / 900.0).clamp(0.5, 1.0)).round();
        let lowest = stage.bottom() - own_h - space::S - h;
        let y = (stage.center().y - h / 2.0).min(lowest).max(stage.top() + space::XS);
        let rect = Rect::from_min_size(pos2((stage.center().x - w / 2.0).round(), y.round()), vec2(w, h));
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
    pub(super) fn link_block(
        &mut self,
        ui: &mut Ui,
        salt: &str,
        link: &str,
        browser: Option<&str>,
        pos: egui::Pos2,
        w: f32,
    ) {
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
}

/// What is being waited for while the call is not in yet, as it is when it was started from the command line.
fn joining(view: &View) -> Option<String> {
    match &view.connection {
        Connection::Idle | Connection::Joining(JoinStep::Reaching) => {
            let host = if view.server.is_empty() { t("lobby.hosted_here").into_owned() } else { clean(&view.server) };
            Some(tv("lobby.step_reaching", &[("host", host)]))
        }
        Connection::Joining(JoinStep::Entering) => Some(t("lobby.step_entering").into_owned()),
        Connection::Joining(JoinStep::OpeningMedia) => Some(t("lobby.step_media").into_owned()),
        _ => None,
    }
}

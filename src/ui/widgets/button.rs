//! Buttons.

use super::*;

/// How a button looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one main thing of a view.
    Primary,
    /// Framed.
    Secondary,
    /// Accent outline.
    Outline,
    /// Text only.
    Quiet,
    /// Leave, stop, decline; nothing else.
    Danger,
    /// In the call's control bar.
    Control,
    /// The same, switched on.
    ControlOn,
    /// The same, muted.
    ControlMuted,
    /// Accent text only, as a link.
    Link,
}

/// A button. Built by its methods, drawn by [`Button::show`].
pub struct Button<'a> {
    salt: &'a str,
    kind: Kind,
    glyph: Option<(&'a str, bool)>,
    label: String,
    name: String,
    key: String,
    enabled: bool,
    why: String,
    busy: bool,
    level: Option<f32>,
    warn: bool,
    trailing: Option<&'a str>,
    corner: Option<CornerRadius>,
    toggled: Option<bool>,
    font_size: f32,
    soft: bool,
}

impl<'a> Button<'a> {
    /// A button that reads `label`; `salt` tells it from others on the same screen.
    pub fn new(salt: &'a str, kind: Kind, label: impl Into<String>) -> Self {
        let label = label.into();
        Self {
            salt,
            kind,
            glyph: None,
            name: label.clone(),
            label,
            key: String::new(),
            enabled: true,
            why: String::new(),
            busy: false,
            level: None,
            warn: false,
            trailing: None,
            corner: None,
            toggled: None,
            font_size: size::BODY,
            soft: false,
        }
    }

    /// A button that shows only an icon; `name` is for the tooltip and the screen reader.
    pub fn icon_only(salt: &'a str, kind: Kind, glyph: &'a str, filled: bool, name: impl Into<String>) -> Self {
        let mut button = Self::new(salt, kind, "").icon(glyph, filled);
        button.name = name.into();
        button
    }

    /// With an icon in front.
    pub fn icon(mut self, glyph: &'a str, filled: bool) -> Self {
        self.glyph = Some((glyph, filled));
        self
    }

    /// Another name for tooltip and screen reader than the label.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The key that does the same, shown in the tooltip.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// Disabled, with the reason in the tooltip.
    pub fn enabled(mut self, enabled: bool, why: impl Into<String>) -> Self {
        self.enabled = enabled;
        self.why = why.into();
        self
    }

    /// With a turning mark instead of the icon.
    pub fn busy(mut self, busy: bool) -> Self {
        self.busy = busy;
        self
    }

    /// With live level bars, 0 to 1.
    pub fn level(mut self, level: Option<f32>) -> Self {
        self.level = level;
        self
    }

    /// With a warning mark.
    pub fn warn(mut self, warn: bool) -> Self {
        self.warn = warn;
        self
    }

    /// With an icon behind, a caret for example.
    pub fn trailing(mut self, glyph: &'a str) -> Self {
        self.trailing = Some(glyph);
        self
    }

    /// Other corners, for the halves of a split control.
    pub fn corner(mut self, corner: CornerRadius) -> Self {
        self.corner = Some(corner);
        self
    }

    /// State of a switch, for the screen reader.
    pub fn toggled(mut self, on: bool) -> Self {
        self.toggled = Some(on);
        self
    }

    /// A quiet button that stands back until it is pointed at.
    pub fn soft(mut self) -> Self {
        self.soft = true;
        self
    }

    /// Text size.
    pub fn font_size(mut self, points: f32) -> Self {
        self.font_size = points;
        self
    }

    fn font(&self) -> FontId {
        match self.kind {
            Kind::Primary | Kind::Danger => theme::semibold(self.font_size),
            _ => theme::medium(self.font_size),
        }
    }

    fn is_control(&self) -> bool {
        matches!(self.kind, Kind::Control | Kind::ControlOn | Kind::ControlMuted)
    }

    fn icon_size(&self) -> f32 {
        if matches!(self.glyph, Some((icons::CARET_UP, _))) {
            return 16.0;
        }
        if self.is_control() || (self.kind == Kind::Danger && self.glyph.is_some()) { 22.0 } else { 18.0 }
    }

    fn content_width(&self, ui: &Ui) -> f32 {
        let mut w = 0.0;
        if self.glyph.is_some() || self.busy {
            w += self.icon_size();
        }
        if !self.label.is_empty() {
            if w > 0.0 {
                w += space::S;
            }
            w += width(ui, &self.label, self.font());
        }
        if self.level.is_some() || self.warn {
            w += space::S + 16.0;
        }
        if self.trailing.is_some() {
            w += space::S + 14.0;
        }
        w
    }

    /// Width the button wants.
    pub fn width(&self, ui: &Ui) -> f32 {
        let padding = match self.kind {
            Kind::Link => 0.0,
            Kind::Control | Kind::ControlOn | Kind::ControlMuted => 14.0,
            _ if self.label.is_empty() => 9.0,
            _ => space::L - 1.0,
        };
        (self.content_width(ui) + padding * 2.0).ceil().max(if self.kind == Kind::Link { 0.0 } else { height::HIT })
    }

    /// Draws it and says what happened to it.
    pub fn show(self, ui: &mut Ui, rect: Rect) -> Response {
        let p = theme::palette(ui.ctx());
        let id = ui.make_persistent_id(self.salt);
        let sense = if self.enabled && !self.busy { Sense::click() } else { Sense::hover() };
        // The area that reacts is never smaller than 32 by 32.
        let hit = Rect::from_center_size(rect.center(), rect.size().max(Vec2::splat(height::HIT)));
        let response = ui.interact(hit, id, sense);
        let enabled = self.enabled && !self.busy;
        response.widget_info(|| {
            let mut info = WidgetInfo::labeled(Role::Button, enabled, &self.name);
            info.selected = self.toggled;
            info
        });
        let hovered = response.hovered() && enabled;
        let down = response.is_pointer_button_down_on() && enabled;
        let on_raised = p.overlay;
        let (mut fill, mut ink, mut stroke) = match self.kind {
            Kind::Primary => (if hovered { p.accent_hover } else { p.accent }, p.on_accent, Stroke::NONE),
            Kind::Danger => (if hovered { p.danger_hover } else { p.danger }, p.on_danger, Stroke::NONE),
            Kind::Secondary => (if hovered { p.hover } else { on_raised }, p.text, Stroke::new(1.0, p.border)),
            Kind::Outline => {
                (if hovered { p.accent_soft } else { on_raised }, p.accent_text, Stroke::new(1.0, p.accent_text))
            }
            Kind::Quiet => (
                if hovered { p.hover } else { Color32::TRANSPARENT },
                if self.soft && !hovered { p.text2 } else { p.text },
                Stroke::NONE,
            ),
            Kind::Link => (Color32::TRANSPARENT, p.accent_text, Stroke::NONE),
            Kind::Control => (
                if hovered { p.hover } else { p.raised },
                p.text,
                if p.raised == p.surface || p.raised == Color32::WHITE {
                    Stroke::new(1.0, p.border)
                } else {
                    Stroke::NONE
                },
            ),
            Kind::ControlOn => (p.accent_soft, p.accent_text, Stroke::NONE),
            Kind::ControlMuted => (p.danger_soft, p.danger_text, Stroke::NONE),
        };
        if down && !matches!(self.kind, Kind::Primary | Kind::Danger | Kind::Link) {
            fill = p.pressed;
        }
        if hovered && matches!(self.kind, Kind::ControlOn | Kind::ControlMuted) {
            stroke = Stroke::new(1.0, ink);
        }
        if !self.enabled {
            let back = if matches!(self.kind, Kind::Primary | Kind::Danger) { p.surface } else { p.canvas };
            fill = if fill == Color32::TRANSPARENT { fill } else { mix(back, fill, 0.5) };
            ink = if self.kind == Kind::Primary { mix(fill, ink, 0.75) } else { mix(back, ink, 0.42) };
            stroke.color = mix(back, stroke.color, 0.5);
        }
        let corner = self.corner.unwrap_or(CornerRadius::same(match self.kind {
            Kind::Control | Kind::ControlOn | Kind::ControlMuted => radius::CONTROL,
            _ if rect.height() >= height::CONTROL => radius::CONTROL,
            _ => radius::BUTTON,
        }));
        if ui.is_rect_visible(rect) {
            ui.painter().rect(rect, corner, fill, stroke, StrokeKind::Inside);
            self.content(ui, rect, ink, p);
            if response.has_focus() {
                focus_ring(ui, rect, corner.nw.max(corner.ne));
            }
        }
        if hovered {
            ui.ctx().set_cursor_icon(egui::CursorIcon::PointingHand);
        }
        let tip = match (
            self.enabled,
            self.why.is_empty(),
            self.label.is_empty() || self.label != self.name,
            self.key.is_empty(),
        ) {
            (false, false, _, _) => Some(self.why.clone()),
            (_, _, _, false) => Some(format!("{}  {}", self.name, self.key)),
            (_, _, true, true) => Some(self.name.clone()),
            _ => None,
        };
        match tip {
            Some(tip) if !tip.is_empty() => response.on_hover_text(tip),
            _ => response,
        }
    }

    fn content(&self, ui: &mut Ui, rect: Rect, ink: Color32, p: &Palette) {
        let content = self.content_width(ui);
        let available = rect.width() - if self.kind == Kind::Link { 0.0 } else { 2.0 * space::XS };
        let shrink = (content - available).max(0.0);
        let mut x = (rect.center().x - (content - shrink) / 2.0).round();
        let y = rect.center().y;
        let glyph = self.icon_size();
        if self.busy {
            spinner(ui, pos2(x + glyph / 2.0, y), glyph / 2.0 - 2.0, ink);
            x += glyph + space::S;
        } else if let Some((name, filled)) = self.glyph {
            icon(ui, pos2(x + glyph / 2.0, y), name, filled, glyph, ink);
            x += glyph + space::S;
        }
        if !self.label.is_empty() {
            let font = self.font();
            let w = width(ui, &self.label, font.clone());
            let galley = layout(ui, &self.label, font, ink, (w - shrink).max(8.0) + 0.5, 1);
            let top = (y - galley.size().y / 2.0).round();
            let advance = galley.size().x;
            ui.painter().galley(pos2(x, top), galley, ink);
            x += advance + space::S;
        }
        if self.warn {
            icon(ui, pos2(x + 8.0, y), icons::WARNING, true, 16.0, p.warn_text);
        } else if let Some(level) = self.level {
            level_bars(ui, pos2(x, y), level, p);
        }
        if let Some(trailing) = self.trailing {
            icon(ui, pos2(x + 7.0, y), trailing, false, 14.0, ink);
        }
    }
}

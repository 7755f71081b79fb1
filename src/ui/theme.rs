//! The only place with colors, distances, sizes and fonts.
//!
//! The tokens are those of the interface specification; a test recomputes every contrast ratio it promises.

use std::sync::Arc;

use egui::epaint::{CornerRadius, Shadow, Stroke};
use egui::{Color32, FontData, FontDefinitions, FontFamily, FontId, TextStyle};

use super::bridge::ThemeChoice;

/// Distances between things.
pub mod space {
    /// 4.
    pub const XS: f32 = 4.0;
    /// 8.
    pub const S: f32 = 8.0;
    /// 12.
    pub const M: f32 = 12.0;
    /// 16.
    pub const L: f32 = 16.0;
    /// 24.
    pub const XL: f32 = 24.0;
    /// 32.
    pub const XXL: f32 = 32.0;
    /// 48.
    pub const HUGE: f32 = 48.0;
}

/// Corner radii.
pub mod radius {
    /// Chips and plates.
    pub const CHIP: u8 = 6;
    /// Buttons and fields.
    pub const BUTTON: u8 = 8;
    /// Tiles.
    pub const TILE: u8 = 10;
    /// Call controls.
    pub const CONTROL: u8 = 11;
    /// Cards and dialogs.
    pub const CARD: u8 = 12;
}

/// Heights of controls. The pointed-at area is never below [`height::HIT`].
pub mod height {
    /// Chip and plate.
    pub const CHIP: f32 = 24.0;
    /// Least height and width of anything that can be pressed.
    pub const HIT: f32 = 32.0;
    /// Button.
    pub const BUTTON: f32 = 36.0;
    /// Field.
    pub const FIELD: f32 = 40.0;
    /// Call control.
    pub const CONTROL: f32 = 44.0;
    /// Main button and list row.
    pub const MAIN: f32 = 48.0;
    /// Top bar of a call.
    pub const TOP_BAR: f32 = 44.0;
    /// Control bar of a call.
    pub const CONTROL_BAR: f32 = 68.0;
    /// Header of home and lobby.
    pub const HEADER: f32 = 56.0;
}

/// Text sizes with their line heights.
pub mod size {
    /// 12/16.
    pub const CAPTION: f32 = 12.0;
    /// 13/18.
    pub const LABEL: f32 = 13.0;
    /// 14/20.
    pub const BODY: f32 = 14.0;
    /// 16/22.
    pub const TITLE: f32 = 16.0;
    /// 20/28.
    pub const HEADING: f32 = 20.0;
    /// 26/34.
    pub const DISPLAY: f32 = 26.0;

    /// Line height of a text size.
    pub fn line(size: f32) -> f32 {
        match size {
            s if s <= CAPTION => 16.0,
            s if s <= LABEL => 18.0,
            s if s <= BODY => 20.0,
            s if s <= TITLE => 22.0,
            s if s <= HEADING => 28.0,
            _ => 34.0,
        }
    }
}

const fn hex(rgb: u32) -> Color32 {
    Color32::from_rgb((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8)
}

/// One theme's colors by role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Palette {
    pub canvas: Color32,
    pub surface: Color32,
    pub raised: Color32,
    /// A tile whose camera is off.
    pub tile_off: Color32,
    pub overlay: Color32,
    pub field: Color32,
    pub hover: Color32,
    pub pressed: Color32,
    pub border: Color32,
    pub border_strong: Color32,
    pub text: Color32,
    pub text2: Color32,
    pub text3: Color32,
    pub accent_text: Color32,
    pub danger_text: Color32,
    pub warn_text: Color32,
    pub focus: Color32,
    pub share: Color32,
    pub accent: Color32,
    pub on_accent: Color32,
    pub on_danger: Color32,
    pub accent_hover: Color32,
    pub danger: Color32,
    pub danger_hover: Color32,
    pub accent_soft: Color32,
    pub danger_soft: Color32,
    pub warn_soft: Color32,
    pub shadow: Color32,
}

/// Dark theme.
pub const DARK: Palette = Palette {
    canvas: hex(0x0D1012),
    surface: hex(0x14181B),
    raised: hex(0x1B2024),
    tile_off: hex(0x1B2024),
    overlay: hex(0x23292E),
    field: hex(0x0F1316),
    hover: hex(0x2A3137),
    pressed: hex(0x353D44),
    border: hex(0x2C343A),
    border_strong: hex(0x74818B),
    text: hex(0xEDF1F3),
    text2: hex(0xB9C3CA),
    text3: hex(0x929EA7),
    accent_text: hex(0x5FD8C7),
    danger_text: hex(0xFF9A9C),
    warn_text: hex(0xF3BC5B),
    focus: hex(0x8FB8FF),
    share: hex(0xFF4D57),
    accent: hex(0x3CC4B0),
    on_accent: hex(0x04211C),
    on_danger: hex(0xFFFFFF),
    accent_hover: hex(0x5AD3C1),
    danger: hex(0xD03742),
    danger_hover: hex(0xBD2C38),
    accent_soft: hex(0x12332F),
    danger_soft: hex(0x3B1B1F),
    warn_soft: hex(0x372A12),
    shadow: Color32::from_black_alpha(107),
};

/// Light theme.
pub const LIGHT: Palette = Palette {
    canvas: hex(0xE2E6E9),
    surface: hex(0xF5F7F8),
    raised: hex(0xFFFFFF),
    tile_off: hex(0xCFD5DA),
    overlay: hex(0xFFFFFF),
    field: hex(0xFFFFFF),
    hover: hex(0xE8ECEF),
    pressed: hex(0xD9DFE4),
    border: hex(0xD3D9DE),
    border_strong: hex(0x6F7B85),
    text: hex(0x14191D),
    text2: hex(0x434E57),
    text3: hex(0x56626B),
    accent_text: hex(0x08685B),
    danger_text: hex(0xA81F2B),
    warn_text: hex(0x7A4B00),
    focus: hex(0x1F5FD0),
    share: hex(0xD62633),
    accent: hex(0x0B7A6B),
    on_accent: hex(0xFFFFFF),
    on_danger: hex(0xFFFFFF),
    accent_hover: hex(0x086556),
    danger: hex(0xC62F3B),
    danger_hover: hex(0xAE2430),
    accent_soft: hex(0xD7EFEB),
    danger_soft: hex(0xFADFE1),
    warn_soft: hex(0xFAECCF),
    shadow: Color32::from_black_alpha(46),
};

/// Under white text on video: #0A0C0E at 76 %, the same in both themes.
pub fn plate() -> Color32 {
    Color32::from_rgba_unmultiplied(0x0A, 0x0C, 0x0E, 194)
}

/// Behind a letterboxed screen.
pub const LETTERBOX_SCREEN: Color32 = hex(0x070909);
/// Text on a plate, and its muted and live marks, the same in both themes since a plate is always dark.
pub const ON_PLATE: Color32 = Color32::WHITE;
/// Muted mark on a plate.
pub const PLATE_MUTED: Color32 = DARK.danger_text;
/// Live mark on a plate.
pub const PLATE_LIVE: Color32 = DARK.accent_text;
/// Slow link on a plate.
pub const PLATE_WARN: Color32 = DARK.warn_text;
/// The part of a mark on a plate that is not lit.
pub const PLATE_UNLIT: Color32 = Color32::from_gray(120);

/// Mixes `share` of `b` into `a`.
pub fn mix(a: Color32, b: Color32, share: f32) -> Color32 {
    let m = |x: u8, y: u8| (f32::from(x) + (f32::from(y) - f32::from(x)) * share).round() as u8;
    Color32::from_rgba_premultiplied(m(a.r(), b.r()), m(a.g(), b.g()), m(a.b(), b.b()), m(a.a(), b.a()))
}

/// The tint that shows a picture with this much of its light, 255 for all of it.
pub fn lit(light: u8) -> Color32 {
    Color32::from_gray(light)
}

/// Light of the dimmed last picture, as a factor.
pub const DIMMED: f32 = 0.34;

/// Background and letter of the round mark that stands for a person without a picture.
pub fn avatar(name: &str) -> (Color32, Color32) {
    const PAIRS: [(u32, u32); 6] = [
        (0x4A3B5E, 0xE6D8FA),
        (0x5A4128, 0xF6DFBC),
        (0x264A58, 0xC4E6F2),
        (0x3A4764, 0xD0DCF8),
        (0x5B3342, 0xF8D5E0),
        (0x2F4B3A, 0xD2EDD9),
    ];
    let hash = name.bytes().fold(5381_u32, |h, b| h.wrapping_mul(33) ^ u32::from(b));
    let (back, front) = PAIRS.get(hash as usize % PAIRS.len()).copied().unwrap_or((0x3A4764, 0xD0DCF8));
    (hex(back), hex(front))
}

/// The palette in use.
pub fn palette(ctx: &egui::Context) -> &'static Palette {
    if ctx.theme() == egui::Theme::Dark { &DARK } else { &LIGHT }
}

/// Regular text.
pub fn regular(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("regular".into()))
}

/// Labels and button texts, weight 500.
pub fn medium(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("medium".into()))
}

/// Titles, weight 600.
pub fn semibold(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("semibold".into()))
}

/// Links and codes.
pub fn mono(size: f32) -> FontId {
    FontId::new(size, FontFamily::Monospace)
}

/// Outline icons: off or neutral.
pub fn icon(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("icons".into()))
}

/// Filled icons: on or live.
pub fn icon_fill(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name("icons_fill".into()))
}

/// The fonts of the program. An icon font never goes into a text family: it maps a to z to blanks.
pub fn fonts() -> FontDefinitions {
    let mut fonts = FontDefinitions::default();
    let mut add = |name: &str, data: &'static [u8]| {
        fonts.font_data.insert(name.to_owned(), Arc::new(FontData::from_static(data)));
    };
    add("Inter-Regular", include_bytes!("../../assets/fonts/Inter-Regular.otf"));
    add("Inter-Medium", include_bytes!("../../assets/fonts/Inter-Medium.otf"));
    add("Inter-SemiBold", include_bytes!("../../assets/fonts/Inter-SemiBold.otf"));
    add("Phosphor-Regular", include_bytes!("../../assets/fonts/Phosphor-Regular.ttf"));
    add("Phosphor-Fill", include_bytes!("../../assets/fonts/Phosphor-Fill.ttf"));
    let mut family = |family: FontFamily, names: &[&str]| {
        fonts.families.insert(family, names.iter().map(|n| (*n).to_owned()).collect());
    };
    for (name, font) in [("regular", "Inter-Regular"), ("medium", "Inter-Medium"), ("semibold", "Inter-SemiBold")] {
        family(FontFamily::Name(name.into()), &[font, "egui-icons"]);
    }
    family(FontFamily::Name("icons".into()), &["Phosphor-Regular"]);
    family(FontFamily::Name("icons_fill".into()), &["Phosphor-Fill"]);
    family(FontFamily::Proportional, &["Inter-Regular", "egui-icons"]);
    family(FontFamily::Monospace, &["Hack", "Inter-Regular"]);
    fonts
}

/// Shadow of menus, dialogs and toasts.
pub fn shadow(p: &Palette) -> Shadow {
    Shadow { offset: [0, 8], blur: 28, spread: 0, color: p.shadow }
}

fn style(p: &Palette, dark: bool) -> egui::Style {
    let mut style = egui::Style {
        text_styles: [
            (TextStyle::Small, regular(size::CAPTION)),
            (TextStyle::Body, regular(size::BODY)),
            (TextStyle::Button, medium(size::BODY)),
            (TextStyle::Heading, semibold(size::HEADING)),
            (TextStyle::Monospace, mono(size::LABEL)),
        ]
        .into(),
        animation_time: 0.08,
        ..egui::Style::default()
    };
    style.spacing.item_spacing = egui::vec2(space::S, space::S);
    style.spacing.button_padding = egui::vec2(space::M, space::S);
    style.spacing.interact_size = egui::vec2(height::HIT, height::HIT);
    style.interaction.tooltip_delay = 0.5;
    style.interaction.selectable_labels = false;
    let mut v = if dark { egui::Visuals::dark() } else { egui::Visuals::light() };
    v.override_text_color = Some(p.text);
    v.panel_fill = p.surface;
    v.window_fill = p.overlay;
    v.window_stroke = Stroke::new(1.0, p.border);
    v.window_shadow = shadow(p);
    v.popup_shadow = shadow(p);
    v.window_corner_radius = CornerRadius::same(radius::CARD);
    v.menu_corner_radius = CornerRadius::same(radius::TILE);
    v.extreme_bg_color = p.field;
    v.text_edit_bg_color = Some(p.field);
    v.weak_text_color = Some(p.text3);
    v.hyperlink_color = p.accent_text;
    v.selection.bg_fill = p.accent_soft;
    v.selection.stroke = Stroke::new(1.0, p.accent_text);
    v.text_cursor.stroke = Stroke::new(2.0, p.text);
    // Nothing loops but rings and busy marks, and a resting window is not drawn again.
    v.text_cursor.blink = false;
    for (w, fill) in [
        (&mut v.widgets.noninteractive, p.surface),
        (&mut v.widgets.inactive, p.overlay),
        (&mut v.widgets.hovered, p.hover),
        (&mut v.widgets.active, p.pressed),
        (&mut v.widgets.open, p.hover),
    ] {
        w.bg_fill = fill;
        w.weak_bg_fill = fill;
        w.bg_stroke = Stroke::new(1.0, p.border);
        w.fg_stroke = Stroke::new(1.0, p.text);
        w.corner_radius = CornerRadius::same(radius::BUTTON);
        w.expansion = 0.0;
    }
    style.visuals = v;
    style
}

/// Installs fonts and both styles. Called once per context.
pub fn install(ctx: &egui::Context) {
    ctx.set_fonts(fonts());
    ctx.set_style_of(egui::Theme::Dark, style(&DARK, true));
    ctx.set_style_of(egui::Theme::Light, style(&LIGHT, false));
}

/// Chooses the palette.
pub fn choose(ctx: &egui::Context, choice: ThemeChoice) {
    ctx.set_theme(match choice {
        ThemeChoice::System => egui::ThemePreference::System,
        ThemeChoice::Dark => egui::ThemePreference::Dark,
        ThemeChoice::Light => egui::ThemePreference::Light,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(c: Color32) -> f64 {
        let channel = |v: u8| {
            let v = f64::from(v) / 255.0;
            if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(c.r()) + 0.7152 * channel(c.g()) + 0.0722 * channel(c.b())
    }

    fn contrast(a: Color32, b: Color32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    fn worst(p: &Palette, c: Color32) -> f64 {
        [p.canvas, p.surface, p.raised, p.overlay, p.hover].into_iter().map(|b| contrast(c, b)).fold(f64::MAX, f64::min)
    }

    #[test]
    fn the_promised_contrasts_hold() {
        // Role, measured ratio in the dark and the light theme, promised ratios, least.
        let rows = [
            ("border_strong", worst(&DARK, DARK.border_strong), 3.2, worst(&LIGHT, LIGHT.border_strong), 3.4, 3.0),
            ("text", worst(&DARK, DARK.text), 11.5, worst(&LIGHT, LIGHT.text), 14.0, 4.5),
            ("text2", worst(&DARK, DARK.text2), 7.3, worst(&LIGHT, LIGHT.text2), 6.7, 4.5),
            ("text3", worst(&DARK, DARK.text3), 4.8, worst(&LIGHT, LIGHT.text3), 4.9, 4.5),
            ("accent_text", worst(&DARK, DARK.accent_text), 7.6, worst(&LIGHT, LIGHT.accent_text), 5.3, 4.5),
            ("danger_text", worst(&DARK, DARK.danger_text), 6.5, worst(&LIGHT, LIGHT.danger_text), 5.7, 4.5),
            ("warn_text", worst(&DARK, DARK.warn_text), 7.6, worst(&LIGHT, LIGHT.warn_text), 5.9, 4.5),
            ("focus", worst(&DARK, DARK.focus), 6.5, worst(&LIGHT, LIGHT.focus), 4.6, 3.0),
            ("share", worst(&DARK, DARK.share), 4.0, worst(&LIGHT, LIGHT.share), 3.9, 3.0),
            ("accent", worst(&DARK, DARK.accent), 6.0, worst(&LIGHT, LIGHT.accent), 4.1, 3.0),
            (
                "on_accent",
                contrast(DARK.on_accent, DARK.accent),
                7.8,
                contrast(LIGHT.on_accent, LIGHT.accent),
                5.2,
                4.5,
            ),
            (
                "on_danger",
                contrast(DARK.on_danger, DARK.danger),
                4.8,
                contrast(LIGHT.on_danger, LIGHT.danger),
                5.4,
                4.5,
            ),
            (
                "accent_hover",
                contrast(DARK.on_accent, DARK.accent_hover),
                9.2,
                contrast(LIGHT.on_accent, LIGHT.accent_hover),
                6.9,
                4.5,
            ),
            (
                "danger_hover",
                contrast(DARK.on_danger, DARK.danger_hover),
                5.8,
                contrast(LIGHT.on_danger, LIGHT.danger_hover),
                6.7,
                4.5,
            ),
            (
                "accent_soft",
                contrast(DARK.accent_text, DARK.accent_soft),
                7.8,
                contrast(LIGHT.accent_text, LIGHT.accent_soft),
                5.5,
                4.5,
            ),
            (
                "danger_soft",
                contrast(DARK.danger_text, DARK.danger_soft),
                7.5,
                contrast(LIGHT.danger_text, LIGHT.danger_soft),
                5.7,
                4.5,
            ),
            (
                "warn_soft",
                contrast(DARK.warn_text, DARK.warn_soft),
                8.0,
                contrast(LIGHT.warn_text, LIGHT.warn_soft),
                6.3,
                4.5,
            ),
        ];
        for (role, dark, dark_promised, light, light_promised, least) in rows {
            for (theme, measured, promised) in [("dark", dark, dark_promised), ("light", light, light_promised)] {
                assert!(measured >= least, "{role} {theme}: {measured:.2} is below {least}");
                assert!((measured - promised).abs() < 0.11, "{role} {theme}: {measured:.2}, promised {promised}");
            }
        }
        // White on a plate over a white picture.
        let mix = |c: u8| (f64::from(c) * 0.76 + 255.0 * 0.24).round() as u8;
        let over_white = Color32::from_rgb(mix(0x0A), mix(0x0C), mix(0x0E));
        assert!((contrast(ON_PLATE, over_white) - 9.4).abs() < 0.3, "{}", contrast(ON_PLATE, over_white));
        for mark in [PLATE_MUTED, PLATE_LIVE, PLATE_WARN] {
            assert!(contrast(mark, over_white) >= 3.0);
        }
        for name in ["Aiko", "Marek", "Noor", "Ines", "Tomasz", "Dario", "Leila", "Kwame"] {
            let (back, front) = avatar(name);
            assert!(contrast(back, front) >= 4.5);
        }
    }
}

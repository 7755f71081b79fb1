//! Moving pictures in the window: one interface, two ways.
//!
//! In the window the planes go to the graphics card as they are ([`super::video_gl`]). In tests and snapshots, which have no
//! graphics card, they become a texture of the toolkit.

use std::collections::HashMap;
use std::sync::Arc;

use egui::{Color32, ColorImage, CornerRadius, Pos2, Rect, TextureHandle, TextureOptions, Ui, pos2, vec2};

use super::layout::{self, Fit};
use super::theme;
use super::video_gl::{GlVideo, Look};
use super::video_rgb::Bands;
use crate::media::video::frame::{FrameSlot, VideoFrame};

/// How a picture is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// Screens are never cropped.
    pub screen: bool,
    /// For oneself only.
    pub mirror: bool,
    /// Light, 1.0 is as it is.
    pub light: f32,
    /// Corner radius in points.
    pub corner: u8,
    /// Behind a letterboxed picture.
    pub back: Color32,
}

/// Draws pictures.
pub enum Video {
    /// By the graphics card, or (true) by the processor in its place.
    Gl(GlVideo, bool),
    /// As textures of the toolkit.
    Texture(HashMap<String, Cached>),
}

/// A texture and the version of the slot it was made from.
pub struct Cached {
    texture: TextureHandle,
    version: u64,
}

impl Video {
    /// By the graphics card, or by a processor in its place; for the window.
    pub fn gl(slow: bool) -> Self {
        Self::Gl(GlVideo::default(), slow)
    }

    /// Whether drawing is dear, since the processor does it.
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Gl(_, true))
    }

    /// As textures; for tests and snapshots.
    pub fn texture() -> Self {
        Self::Texture(HashMap::new())
    }

    /// Draws the newest picture of a slot into `rect`. `key` names the stream. False when there is no picture.
    pub fn show(&mut self, ui: &Ui, key: &str, slot: &FrameSlot, rect: Rect, show: Show) -> bool {
        let version = slot.version();
        let Some(frame) = slot.latest() else { return false };
        if frame.width < 2 || frame.height < 2 {
            return false;
        }
        let fit = layout::fit(rect.width(), rect.height(), frame.width as f32, frame.height as f32, show.screen);
        match self {
            Self::Gl(gl, _) => {
                let look = Look {
                    fit,
                    mirror: show.mirror,
                    light: show.light,
                    corner: f32::from(show.corner),
                    back: show.back,
                };
                ui.painter().add(gl.callback(key, version, frame, rect, look));
            }
            Self::Texture(cache) => texture(ui, cache, key, version, &frame, rect, fit, show),
        }
        true
    }

    /// Forgets streams that were not drawn lately; called once a frame.
    pub fn end_frame(&mut self, live: &dyn Fn(&str) -> bool) {
        match self {
            Self::Gl(gl, _) => gl.retain(live),
            Self::Texture(cache) => cache.retain(|key, _| live(key)),
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn texture(
    ui: &Ui,
    cache: &mut HashMap<String, Cached>,
    key: &str,
    version: u64,
    frame: &Arc<VideoFrame>,
    rect: Rect,
    fit: Fit,
    show: Show,
) {
    let fresh = cache.get(key).is_some_and(|c| c.version == version);
    if !fresh && let Some(image) = rgba(frame) {
        match cache.get_mut(key) {
            Some(cached) => {
                cached.texture.set(image, TextureOptions::LINEAR);
                cached.version = version;
            }
            None => {
                let texture = ui.ctx().load_texture(key, image, TextureOptions::LINEAR);
                cache.insert(key.to_owned(), Cached { texture, version });
            }
        }
    }
    let Some(cached) = cache.get(key) else { return };
    let corner = CornerRadius::same(show.corner);
    let dest = Rect::from_min_size(rect.min + vec2(fit.dest.x, fit.dest.y), vec2(fit.dest.w, fit.dest.h));
    let whole = (dest.width() - rect.width()).abs() < 1.0 && (dest.height() - rect.height()).abs() < 1.0;
    if !whole {
        ui.painter().rect_filled(rect, corner, show.back);
    }
    let [mut left, top, mut right, bottom] = fit.source;
    if show.mirror {
        (left, right) = (1.0 - left, 1.0 - right);
    }
    let uv = Rect { min: pos2(left, top), max: Pos2::new(right, bottom) };
    let light = (show.light * 255.0).round().clamp(0.0, 255.0) as u8;
    let corner = if whole { corner } else { CornerRadius::ZERO };
    let shape = egui::epaint::RectShape::filled(dest, corner, theme::lit(light)).with_texture(cached.texture.id(), uv);
    ui.painter().add(shape);
}

/// A frame as RGBA.
pub fn rgba(frame: &VideoFrame) -> Option<ColorImage> {
    let (w, h) = (frame.width as usize, frame.height as usize);
    let mut out = Vec::with_capacity(w * h * 4);
    Bands::default().each(frame, false, false, |_, _, bytes| out.extend_from_slice(bytes))?;
    Some(ColorImage::from_rgba_unmultiplied([w, h], &out))
}

/// The usual look of a camera tile.
pub fn camera(ui: &Ui, mirror: bool, light: f32) -> Show {
    Show { screen: false, mirror, light, corner: theme::radius::TILE, back: theme::palette(ui.ctx()).tile_off }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limited_range_bt601() {
        let frame = VideoFrame {
            width: 2,
            height: 2,
            y: vec![16, 235, 81, 81],
            u: vec![128],
            v: vec![128],
            at: std::time::Instant::now(),
            rtp_timestamp: 0,
        };
        let image = rgba(&frame).expect("converted");
        assert_eq!(image.pixels[0], Color32::BLACK);
        assert_eq!(image.pixels[1], Color32::WHITE);
        // A frame whose planes are short is refused, not read beyond.
        let broken = VideoFrame { y: vec![0; 1], ..frame };
        assert!(rgba(&broken).is_none());
    }
}

//! The window's drawing without a window and without a graphics card: the toolkit's triangles filled on the CPU.
//!
//! Slow (tens of milliseconds a picture) and exact enough to look at; for `--snapshot` and for tests.

use std::collections::HashMap;
use std::sync::Arc;

use egui::epaint::{ClippedPrimitive, ImageDelta, Mesh, Primitive, Vertex};
use egui::{Color32, ColorImage, ImageData, Pos2, Rect, TextureId, vec2};

/// A picture in RGBA, rows from the top, four bytes a pixel, opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width × height × 4` bytes.
    pub rgba: Vec<u8>,
}

impl Image {
    /// The picture as a PNG file's content.
    pub fn to_png(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let mut encoder = png::Encoder::new(&mut out, self.width, self.height);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().map_err(|e| e.to_string())?;
        writer.write_image_data(&self.rgba).map_err(|e| e.to_string())?;
        writer.finish().map_err(|e| e.to_string())?;
        Ok(out)
    }
}

/// A toolkit context that draws into memory.
pub struct Headless {
    ctx: egui::Context,
    textures: Textures,
    time: f64,
    events: Vec<egui::Event>,
}

/// A page of text, dark on white: what people share, for measuring.
pub fn text_page(width: u32, height: u32, text: &str) -> Image {
    let margin = super::theme::space::XL;
    Headless::new().draw(width, height, |ui| {
        let area = ui.max_rect();
        ui.painter().rect_filled(area, 0.0, Color32::WHITE);
        let font = super::theme::regular(super::theme::size::BODY);
        ui.painter().text(
            area.min + vec2(margin, margin),
            egui::Align2::LEFT_TOP,
            text,
            font,
            super::theme::LIGHT.text,
        );
    })
}

/// The textures of the toolkit, as pictures.
#[derive(Default)]
pub struct Textures {
    images: HashMap<TextureId, Arc<ColorImage>>,
}

impl Default for Headless {
    fn default() -> Self {
        Self::new()
    }
}

impl Headless {
    /// A context with the program's fonts and colors, in the dark theme.
    pub fn new() -> Self {
        let ctx = egui::Context::default();
        super::theme::install(&ctx);
        super::theme::choose(&ctx, super::bridge::ThemeChoice::Dark);
        Self { ctx, textures: Textures::default(), time: 0.0, events: Vec::new() }
    }

    /// The context.
    pub fn ctx(&self) -> &egui::Context {
        &self.ctx
    }

    /// Presses what is there with the next picture.
    pub fn press(&mut self, pos: Pos2) {
        self.events.push(egui::Event::PointerMoved(pos));
        for pressed in [true, false] {
            let (button, modifiers) = (egui::PointerButton::Primary, egui::Modifiers::NONE);
            self.events.push(egui::Event::PointerButton { pos, button, pressed, modifiers });
        }
        // It goes away again: nothing is to look pointed at.
        self.events.push(egui::Event::PointerGone);
    }

    /// Draws one picture of this size in pixels (1 point is 1 pixel).
    pub fn draw(&mut self, width: u32, height: u32, mut contents: impl FnMut(&mut egui::Ui)) -> Image {
        // The first pass loads fonts and sizes, the second one is kept.
        let mut image = Image { width, height, rgba: Vec::new() };
        for _ in 0..2 {
            self.time += 0.1;
            let input = egui::RawInput {
                screen_rect: Some(Rect::from_min_size(Pos2::ZERO, vec2(width as f32, height as f32))),
                time: Some(self.time),
                events: std::mem::take(&mut self.events),
                ..egui::RawInput::default()
            };
            let mut output = self.ctx.run_ui(input, &mut contents);
            for (id, deltas) in std::mem::take(&mut output.textures_delta.set) {
                for delta in deltas {
                    self.textures.set(id, delta);
                }
            }
            let shapes = std::mem::take(&mut output.shapes);
            let primitives = self.ctx.tessellate(shapes, output.pixels_per_point);
            image = self.textures.paint(&primitives, width, height, output.pixels_per_point);
            for id in std::mem::take(&mut output.textures_delta.free) {
                self.textures.images.remove(&id);
            }
        }
        image
    }
}

impl Textures {
    /// Takes a change of a texture in.
    pub fn set(&mut self, id: TextureId, delta: ImageDelta) {
        let ImageData::Color(new) = delta.image;
        match delta.pos {
            None => {
                self.images.insert(id, new);
            }
            Some([x, y]) => {
                let Some(old) = self.images.get_mut(&id) else { return };
                let old = Arc::make_mut(old);
                let [w, _] = old.size;
                let [nw, _] = new.size;
                if nw == 0 {
                    return;
                }
                for (row, pixels) in new.pixels.chunks_exact(nw).enumerate() {
                    let at = (y + row) * w + x;
                    if let Some(target) = old.pixels.get_mut(at..at + nw) {
                        target.copy_from_slice(pixels);
                    }
                }
            }
        }
    }

    /// Fills the triangles into a picture. Paint callbacks (video by the graphics card) are left out.
    pub fn paint(&self, primitives: &[ClippedPrimitive], width: u32, height: u32, pixels_per_point: f32) -> Image {
        let mut canvas = Canvas {
            w: width as usize,
            h: height as usize,
            pixels: vec![[0.0, 0.0, 0.0]; width as usize * height as usize],
        };
        for ClippedPrimitive { clip_rect, primitive } in primitives {
            if let Primitive::Mesh(mesh) = primitive
                && let Some(texture) = self.images.get(&mesh.texture_id)
            {
                canvas.mesh(mesh, texture, *clip_rect, pixels_per_point);
            }
        }
        let mut rgba = Vec::with_capacity(canvas.pixels.len() * 4);
        for [r, g, b] in canvas.pixels {
            rgba.extend([r.round() as u8, g.round() as u8, b.round() as u8, 255]);
        }
        Image { width, height, rgba }
    }
}

struct Canvas {
    w: usize,
    h: usize,
    pixels: Vec<[f32; 3]>,
}

impl Canvas {
    fn mesh(&mut self, mesh: &Mesh, texture: &ColorImage, clip: Rect, ppp: f32) {
        let clip = Rect::from_min_max(
            Pos2::new((clip.min.x * ppp).round().max(0.0), (clip.min.y * ppp).round().max(0.0)),
            Pos2::new((clip.max.x * ppp).round().min(self.w as f32), (clip.max.y * ppp).round().min(self.h as f32)),
        );
        for corners in mesh.indices.chunks_exact(3) {
            if let [a, b, c] = *corners
                && let (Some(a), Some(b), Some(c)) =
                    (mesh.vertices.get(a as usize), mesh.vertices.get(b as usize), mesh.vertices.get(c as usize))
            {
                self.triangle([a, b, c], texture, clip, ppp);
            }
        }
    }

    fn triangle(&mut self, corners: [&Vertex; 3], texture: &ColorImage, clip: Rect, ppp: f32) {
        let [a, b, c] = corners.map(|v| (v.pos.x * ppp, v.pos.y * ppp));
        let edge = |p: (f32, f32), q: (f32, f32), x: f32, y: f32| (q.0 - p.0) * (y - p.1) - (q.1 - p.1) * (x - p.0);
        let area = edge(a, b, c.0, c.1);
        if area.abs() < 1e-6 {
            return;
        }
        // One winding for all, so that the fill rule below gives every pixel to exactly one of two neighbors.
        let (corners, [a, b, c], area) = if area > 0.0 {
            (corners, [a, b, c], area)
        } else {
            let [x, y, z] = corners;
            ([x, z, y], [a, c, b], -area)
        };
        let owns = |p: (f32, f32), q: (f32, f32)| (q.1 - p.1) < 0.0 || ((q.1 - p.1) == 0.0 && (q.0 - p.0) > 0.0);
        let (own_a, own_b, own_c) = (owns(b, c), owns(c, a), owns(a, b));
        let x0 = a.0.min(b.0).min(c.0).floor().max(clip.min.x) as usize;
        let x1 = a.0.max(b.0).max(c.0).ceil().min(clip.max.x).max(0.0) as usize;
        let y0 = a.1.min(b.1).min(c.1).floor().max(clip.min.y) as usize;
        let y1 = a.1.max(b.1).max(c.1).ceil().min(clip.max.y).max(0.0) as usize;
        let colors = corners.map(|v| [v.color.r(), v.color.g(), v.color.b(), v.color.a()].map(f32::from));
        for y in y0..y1.min(self.h) {
            for x in x0..x1.min(self.w) {
                let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
                let (wa, wb, wc) = (edge(b, c, px, py), edge(c, a, px, py), edge(a, b, px, py));
                let inside = |w: f32, own: bool| w > 0.0 || (w == 0.0 && own);
                if !(inside(wa, own_a) && inside(wb, own_b) && inside(wc, own_c)) {
                    continue;
                }
                let (wa, wb, wc) = (wa / area, wb / area, wc / area);
                let [va, vb, vc] = corners;
                let u = va.uv.x * wa + vb.uv.x * wb + vc.uv.x * wc;
                let v = va.uv.y * wa + vb.uv.y * wb + vc.uv.y * wc;
                let texel = sample(texture, u, v);
                let [ca, cb, cc] = &colors;
                let Some(target) = self.pixels.get_mut(y * self.w + x) else { continue };
                let mut source = [0.0_f32; 4];
                for (i, s) in source.iter_mut().enumerate() {
                    let vertex = ca.get(i).unwrap_or(&0.0) * wa
                        + cb.get(i).unwrap_or(&0.0) * wb
                        + cc.get(i).unwrap_or(&0.0) * wc;
                    *s = vertex * texel.get(i).unwrap_or(&0.0) / 255.0;
                }
                let [_, _, _, alpha] = source;
                let keep = 1.0 - alpha / 255.0;
                for (t, s) in target.iter_mut().zip(source) {
                    *t = (s + *t * keep).clamp(0.0, 255.0);
                }
            }
        }
    }
}

/// Bilinear, clamped at the edges; 0 to 255 per channel.
fn sample(texture: &ColorImage, u: f32, v: f32) -> [f32; 4] {
    let [w, h] = texture.size;
    let (x, y) = (u * w as f32 - 0.5, v * h as f32 - 0.5);
    let (fx, fy) = (x - x.floor(), y - y.floor());
    let at = |x: f32, y: f32| {
        let x = (x.max(0.0) as usize).min(w.saturating_sub(1));
        let y = (y.max(0.0) as usize).min(h.saturating_sub(1));
        let c = texture.pixels.get(y * w + x).copied().unwrap_or(Color32::TRANSPARENT);
        [c.r(), c.g(), c.b(), c.a()].map(f32::from)
    };
    let (x, y) = (x.floor(), y.floor());
    if fx < 0.01 && fy < 0.01 {
        return at(x, y);
    }
    let (p, q, r, s) = (at(x, y), at(x + 1.0, y), at(x, y + 1.0), at(x + 1.0, y + 1.0));
    let mut out = [0.0; 4];
    for ((((o, p), q), r), s) in out.iter_mut().zip(p).zip(q).zip(r).zip(s) {
        *o = (p * (1.0 - fx) + q * fx) * (1.0 - fy) + (r * (1.0 - fx) + s * fx) * fy;
    }
    out
}

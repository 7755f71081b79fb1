//! Tiles by the graphics card: three one-byte textures per stream, converted to RGB in the fragment shader,
//! with rounded corners and dimming done there too. A plane is uploaded only when its slot has a new picture.
//!
//! Where the processor draws, a fragment costs more than anything before it: there the picture is converted once and uploaded
//! as RGB, half as large where it is drawn small, and all of a tile but its corners goes through a shader that only looks a
//! color up.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egui::{Color32, Rect};
use egui_glow::glow::{self, HasContext as _};

use super::layout::Fit;
use super::video_rgb::{self, Bands};
use crate::media::video::frame::VideoFrame;

/// How one picture is drawn; sizes in points.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Where in the tile, and which part of the picture.
    pub fit: Fit,
    /// Left and right swapped.
    pub mirror: bool,
    /// Light, 1.0 is as it is.
    pub light: f32,
    /// Corner radius of the tile.
    pub corner: f32,
    /// Behind a letterboxed picture.
    pub back: Color32,
}

/// The streams on the graphics card.
#[derive(Default, Clone)]
pub struct GlVideo {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    programs: Option<Programs>,
    /// Compiling failed once: not tried on every frame.
    failed: bool,
    surfaces: HashMap<String, Surface>,
    /// Textures of streams that are gone, deleted at the next chance.
    dead: Vec<glow::Texture>,
    /// Converts pictures on their way to RGB textures.
    bands: Bands,
}

struct Surface {
    /// Three planes, or one texture in RGB.
    textures: Vec<glow::Texture>,
    /// Of the first texture, in pixels.
    size: (u32, u32),
    version: u64,
    uploads: u64,
}

struct Programs {
    /// Converts, dims, averages, letterboxes and rounds.
    full: Program,
    /// Looks the color up and nothing else; where the processor draws.
    plain: Option<Program>,
    vertex_array: Option<glow::VertexArray>,
    /// What an RGB texture is uploaded as.
    rgb_format: u32,
}

struct Program {
    name: glow::Program,
    size: Option<glow::UniformLocation>,
    dest: Option<glow::UniformLocation>,
    source: Option<glow::UniformLocation>,
    back: Option<glow::UniformLocation>,
    light: Option<glow::UniformLocation>,
    corner: Option<glow::UniformLocation>,
    shrunk: Option<glow::UniformLocation>,
}

/// Whether the processor draws in place of a graphics card.
pub fn is_software(gl: &glow::Context) -> bool {
    // SAFETY: only called with a current context; reads a text of the driver.
    let renderer = unsafe { gl.get_parameter_string(glow::RENDERER) }.to_lowercase();
    ["llvmpipe", "softpipe", "swiftshader", "swrast"].iter().any(|name| renderer.contains(name))
}

/// Only the window's thread ever takes it; a panic elsewhere leaves nothing half done.
fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GlVideo {
    /// The shape that draws `frame` into `rect`.
    pub fn callback(
        &self,
        key: &str,
        version: u64,
        frame: Arc<VideoFrame>,
        rect: Rect,
        look: Look,
    ) -> egui::PaintCallback {
        let inner = Arc::clone(&self.inner);
        let key = key.to_owned();
        egui::PaintCallback {
            rect,
            callback: Arc::new(egui_glow::CallbackFn::new(move |info, painter| {
                lock(&inner).paint(painter.gl(), &key, version, &frame, &info, rect, look);
            })),
        }
    }

    /// Forgets the streams that `live` does not name.
    pub fn retain(&self, live: &dyn Fn(&str) -> bool) {
        let inner = &mut *lock(&self.inner);
        let dead = &mut inner.dead;
        inner.surfaces.retain(|key, surface| {
            let keep = live(key);
            if !keep {
                dead.append(&mut surface.textures);
            }
            keep
        });
    }

    /// How many pictures of each stream were drawn.
    pub fn uploads(&self) -> Vec<(String, u64)> {
        lock(&self.inner).surfaces.iter().map(|(key, surface)| (key.clone(), surface.uploads)).collect()
    }

    /// Frees everything; the context is current while the window closes.
    pub fn destroy(&self, gl: &glow::Context) {
        let inner = &mut *lock(&self.inner);
        inner.dead.extend(inner.surfaces.drain().flat_map(|(_, s)| s.textures));
        // SAFETY: called from eframe's on_exit with its own current context; every name below was created by that context
        // and is dropped from our books here, so none is deleted twice.
        unsafe {
            for texture in inner.dead.drain(..) {
                gl.delete_texture(texture);
            }
            if let Some(programs) = inner.programs.take() {
                gl.delete_program(programs.full.name);
                if let Some(plain) = programs.plain {
                    gl.delete_program(plain.name);
                }
                if let Some(vertex_array) = programs.vertex_array {
                    gl.delete_vertex_array(vertex_array);
                }
            }
        }
    }
}

/// A part of the window in pixels, counted from its lower left corner.
#[derive(Clone, Copy)]
struct Part {
    x: i32,
    y: i32,
    w: i32,
    h: i32,
}

impl Part {
    fn shared_with(self, other: Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let w = (self.x + self.w).min(other.x + other.w) - x;
        let h = (self.y + self.h).min(other.y + other.h) - y;
        (w > 0 && h > 0).then_some(Self { x, y, w, h })
    }
}

impl Inner {
    #[allow(clippy::too_many_arguments)]
    fn paint(
        &mut self,
        gl: &glow::Context,
        key: &str,
        version: u64,
        frame: &VideoFrame,
        info: &egui::PaintCallbackInfo,
        rect: Rect,
        look: Look,
    ) {
        for texture in self.dead.drain(..) {
            // SAFETY: the painter's context is current inside a paint callback, and the name left our books just now.
            unsafe { gl.delete_texture(texture) };
        }
        if self.programs.is_none() && !self.failed {
            match compile(gl) {
                Ok(programs) => self.programs = Some(programs),
                Err(why) => {
                    tracing::error!(%why, "video shader does not compile; tiles stay empty");
                    self.failed = true;
                }
            }
        }
        let ppp = info.pixels_per_point;
        let d = look.fit.dest;
        let [left, top, right, bottom] = look.fit.source;
        // Pixels of the picture for one of the window.
        let across = frame.width as f32 * (right - left).abs() / (d.w * ppp);
        let down = frame.height as f32 * (bottom - top).abs() / (d.h * ppp);
        let halved = across >= 2.0 && down >= 2.0 && self.programs.as_ref().is_some_and(|p| p.plain.is_some());
        if !frame.is_consistent() || !self.upload(gl, key, version, frame, halved) {
            return;
        }
        let (Some(programs), Some(surface)) = (&self.programs, self.surfaces.get(key)) else { return };
        let shrunk = across > SHRUNK * if halved { 2.0 } else { 1.0 };
        let whole = (d.w - rect.width()).abs() < 0.5 && (d.h - rect.height()).abs() < 0.5;
        let viewport = info.viewport_in_pixels();
        let tile =
            Part { x: viewport.left_px, y: viewport.from_bottom_px, w: viewport.width_px, h: viewport.height_px };
        let clip = info.clip_rect_in_pixels();
        let clip = Part { x: clip.left_px, y: clip.from_bottom_px, w: clip.width_px, h: clip.height_px };
        let simple = programs.plain.as_ref().filter(|_| whole && !shrunk && look.light >= 1.0);
        // SAFETY: inside a paint callback the context is current, and all names come from it. What egui's painter relies on
        // afterwards it sets again itself, but for the active texture unit, which is put back to 0.
        unsafe {
            for (unit, texture) in (0..).zip(&surface.textures) {
                gl.active_texture(glow::TEXTURE0 + unit);
                gl.bind_texture(glow::TEXTURE_2D, Some(*texture));
            }
            gl.bind_vertex_array(programs.vertex_array);
            let draw = |part: Part| {
                if let Some(part) = part.shared_with(clip) {
                    gl.scissor(part.x, part.y, part.w, part.h);
                    gl.draw_arrays(glow::TRIANGLE_STRIP, 0, 4);
                }
            };
            programs.full.prepare(gl, rect, ppp, &look, shrunk);
            match simple {
                None => draw(tile),
                Some(plain) => {
                    let c = ((look.corner * ppp).ceil() as i32).min(tile.w / 2).min(tile.h / 2);
                    let (right, top) = (tile.x + tile.w - c, tile.y + tile.h - c);
                    for (x, y) in [(tile.x, tile.y), (right, tile.y), (tile.x, top), (right, top)] {
                        draw(Part { x, y, w: c, h: c });
                    }
                    plain.prepare(gl, rect, ppp, &look, shrunk);
                    gl.disable(glow::BLEND);
                    draw(Part { x: tile.x + c, w: tile.w - 2 * c, ..tile });
                    for x in [tile.x, right] {
                        draw(Part { x, y: tile.y + c, w: c, h: tile.h - 2 * c });
                    }
                    gl.enable(glow::BLEND);
                }
            }
            gl.bind_vertex_array(None);
            gl.active_texture(glow::TEXTURE0);
        }
    }

    /// Brings a new picture of a stream to the card; false when that is not possible. The planes have the promised lengths. A
    /// picture may be `halved` where it becomes RGB.
    fn upload(&mut self, gl: &glow::Context, key: &str, version: u64, frame: &VideoFrame, halved: bool) -> bool {
        let Some(programs) = &self.programs else { return false };
        let rgb = programs.plain.is_some();
        let (w, h) = video_rgb::size(frame, rgb && halved);
        let known = self.surfaces.get(key).map(|s| (s.size, s.version));
        if known.is_none_or(|(size, _)| size != (w, h)) {
            if let Some(old) = self.surfaces.remove(key) {
                self.dead.extend(old.textures);
            }
            let Some(textures) = new_textures(gl, rgb.then_some(programs.rgb_format), w, h) else { return false };
            self.surfaces.insert(key.to_owned(), Surface { textures, size: (w, h), version: u64::MAX, uploads: 0 });
        }
        let Some(surface) = self.surfaces.get_mut(key) else { return false };
        if surface.version == version {
            return true;
        }
        let upload = |texture: &glow::Texture, top: u32, w: u32, h: u32, format: u32, bytes: &[u8]| {
            // SAFETY: inside a paint callback the context is current. The upload reads exactly the bytes of `w` times `h` pixels
            // of a slice that holds them (checked by the callers; unpack alignment 1, no offset into a buffer).
            unsafe {
                gl.bind_texture(glow::TEXTURE_2D, Some(*texture));
                let (top, w, h) = (top as i32, w as i32, h as i32);
                let pixels = glow::PixelUnpackData::Slice(Some(bytes));
                gl.tex_sub_image_2d(glow::TEXTURE_2D, 0, 0, top, w, h, format, glow::UNSIGNED_BYTE, pixels);
            }
        };
        // SAFETY: as above; the alignment is put back to what egui expects.
        unsafe { gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 1) };
        if rgb {
            let Some(texture) = surface.textures.first() else { return false };
            let format = programs.rgb_format;
            let band = |top, rows, bytes: &[u8]| upload(texture, top, w, rows, format, bytes);
            if self.bands.each(frame, halved, format == glow::BGRA, band).is_none() {
                return false;
            }
        } else {
            let planes = [(&frame.y, w, h), (&frame.u, w / 2, h / 2), (&frame.v, w / 2, h / 2)];
            for (texture, (bytes, w, h)) in surface.textures.iter().zip(planes) {
                upload(texture, 0, w, h, glow::RED, bytes);
            }
        }
        // SAFETY: as above.
        unsafe { gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 4) };
        surface.version = version;
        surface.uploads += 1;
        true
    }
}

/// Three one-byte planes, or one texture in RGB that is uploaded in this format.
fn new_textures(gl: &glow::Context, rgb: Option<u32>, w: u32, h: u32) -> Option<Vec<glow::Texture>> {
    let make = |w: u32, h: u32| {
        let (inner, outer) = match rgb {
            Some(format) => (glow::RGBA8, format),
            None => (glow::R8, glow::RED),
        };
        // SAFETY: the context is current; storage is allocated without a source pointer, and the parameters are plain enums.
        unsafe {
            let texture = gl.create_texture().ok()?;
            gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            for (name, value) in [
                (glow::TEXTURE_MIN_FILTER, glow::LINEAR),
                (glow::TEXTURE_MAG_FILTER, glow::LINEAR),
                (glow::TEXTURE_WRAP_S, glow::CLAMP_TO_EDGE),
                (glow::TEXTURE_WRAP_T, glow::CLAMP_TO_EDGE),
            ] {
                gl.tex_parameter_i32(glow::TEXTURE_2D, name, value as i32);
            }
            let none = glow::PixelUnpackData::Slice(None);
            let (w, h) = (w as i32, h as i32);
            gl.tex_image_2d(glow::TEXTURE_2D, 0, inner as i32, w, h, 0, outer, glow::UNSIGNED_BYTE, none);
            Some(texture)
        }
    };
    match rgb {
        Some(_) => Some(vec![make(w, h)?]),
        None => Some(vec![make(w, h)?, make(w / 2, h / 2)?, make(w / 2, h / 2)?]),
    }
}

/// The four corners come from the vertex number; systems whose shading language has none are refused with a message.
const VERTEX: &str = "
out vec2 v_at;
out vec2 v_uv;
uniform vec2 u_size;
uniform vec4 u_dest;
uniform vec4 u_source;
void main() {
    vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
    v_at = corner * u_size;
    v_uv = mix(u_source.xy, u_source.zw, (v_at - u_dest.xy) / u_dest.zw);
    gl_Position = vec4(corner.x * 2.0 - 1.0, 1.0 - corner.y * 2.0, 0.0, 1.0);
}
";

/// From this factor on plain linear sampling skips pixels, which blurs and flickers text.
const SHRUNK: f32 = 1.5;

/// Looks the color up.
const PLAIN: &str = "
precision highp float;
in vec2 v_at;
in vec2 v_uv;
out vec4 color;
uniform sampler2D u_y;
void main() {
    color = texture(u_y, v_uv);
}
";

/// The color of a point of an RGB texture.
const FROM_RGB: &str = "
precision highp float;
uniform sampler2D u_y;
vec3 look_up(vec2 uv, vec2 tap) {
    return 0.25 * (texture(u_y, uv + tap).rgb + texture(u_y, uv - tap).rgb
        + texture(u_y, uv + vec2(tap.x, -tap.y)).rgb + texture(u_y, uv + vec2(-tap.x, tap.y)).rgb);
}
";

/// The color of a point of three planes, BT.601 limited range.
const FROM_PLANES: &str = "
precision highp float;
uniform sampler2D u_y;
uniform sampler2D u_u;
uniform sampler2D u_v;
vec3 look_up(vec2 uv, vec2 tap) {
    float luma = 0.25 * (texture(u_y, uv + tap).r + texture(u_y, uv - tap).r
        + texture(u_y, uv + vec2(tap.x, -tap.y)).r + texture(u_y, uv + vec2(-tap.x, tap.y)).r);
    float y = 1.164383 * (luma - 0.0627451);
    float u = texture(u_u, uv).r - 0.5019608;
    float v = texture(u_v, uv).r - 0.5019608;
    return clamp(vec3(y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u), 0.0, 1.0);
}
";

/// A picture that is shrunk is averaged by four taps; else the four are one.
const FULL: &str = "
in vec2 v_at;
in vec2 v_uv;
out vec4 color;
uniform vec2 u_size;
uniform vec4 u_dest;
uniform vec4 u_source;
uniform vec3 u_back;
uniform float u_light;
uniform float u_corner;
uniform float u_shrunk;
void main() {
    vec2 part = (v_at - u_dest.xy) / u_dest.zw;
    vec3 rgb = u_back;
    if (part.x >= 0.0 && part.y >= 0.0 && part.x <= 1.0 && part.y <= 1.0) {
        rgb = look_up(v_uv, abs(u_source.zw - u_source.xy) / u_dest.zw * u_shrunk) * u_light;
    }
    vec2 from_center = abs(v_at - u_size * 0.5) - (u_size * 0.5 - vec2(u_corner));
    float outside = length(max(from_center, 0.0)) + min(max(from_center.x, from_center.y), 0.0) - u_corner;
    float alpha = clamp(0.5 - outside, 0.0, 1.0);
    color = vec4(rgb * alpha, alpha);
}
";

impl Program {
    /// Makes it the one that draws, with these inputs.
    ///
    /// # Safety
    /// The context it was made by is current.
    unsafe fn prepare(&self, gl: &glow::Context, rect: Rect, ppp: f32, look: &Look, shrunk: bool) {
        let d = look.fit.dest;
        let [left, top, right, bottom] = look.fit.source;
        let (left, right) = if look.mirror { (right, left) } else { (left, right) };
        let back = look.back;
        let channel = |c: u8| f32::from(c) / 255.0;
        // SAFETY: the caller's context is current, and the places were asked of this very program.
        unsafe {
            gl.use_program(Some(self.name));
            gl.uniform_2_f32(self.size.as_ref(), rect.width() * ppp, rect.height() * ppp);
            gl.uniform_4_f32(self.dest.as_ref(), d.x * ppp, d.y * ppp, d.w * ppp, d.h * ppp);
            gl.uniform_4_f32(self.source.as_ref(), left, top, right, bottom);
            gl.uniform_3_f32(self.back.as_ref(), channel(back.r()), channel(back.g()), channel(back.b()));
            gl.uniform_1_f32(self.light.as_ref(), look.light);
            gl.uniform_1_f32(self.corner.as_ref(), look.corner * ppp);
            gl.uniform_1_f32(self.shrunk.as_ref(), if shrunk { 0.25 } else { 0.0 });
        }
    }
}

fn compile(gl: &glow::Context) -> Result<Programs, String> {
    let version = egui_glow::ShaderVersion::get(gl);
    if !version.is_new_shader_interface() {
        return Err("needs OpenGL 3.0 or OpenGL ES 3.0".to_owned());
    }
    let software = is_software(gl);
    let source = if software { FROM_RGB } else { FROM_PLANES };
    let full = program(gl, version, &format!("{source}{FULL}"))?;
    let plain = if software { Some(program(gl, version, PLAIN)?) } else { None };
    let rgb_format = if version.is_embedded() { glow::RGBA } else { glow::BGRA };
    // SAFETY: the context is current. A core profile draws nothing without a vertex array, even an empty one.
    let vertex_array = unsafe { gl.create_vertex_array() }.ok();
    Ok(Programs { full, plain, vertex_array, rgb_format })
}

fn program(gl: &glow::Context, version: egui_glow::ShaderVersion, fragment: &str) -> Result<Program, String> {
    // SAFETY: the context is current; shaders and program are deleted on every path on which they are not kept.
    unsafe {
        let program = gl.create_program()?;
        let mut shaders = Vec::new();
        let mut why = None;
        for (kind, source) in [(glow::VERTEX_SHADER, VERTEX), (glow::FRAGMENT_SHADER, fragment)] {
            let shader = match gl.create_shader(kind) {
                Ok(shader) => shader,
                Err(error) => {
                    why = Some(error);
                    break;
                }
            };
            gl.shader_source(shader, &format!("{}\n{source}", version.version_declaration()));
            gl.compile_shader(shader);
            if !gl.get_shader_compile_status(shader) {
                why = Some(gl.get_shader_info_log(shader));
            }
            gl.attach_shader(program, shader);
            shaders.push(shader);
        }
        if why.is_none() {
            gl.link_program(program);
            if !gl.get_program_link_status(program) {
                why = Some(gl.get_program_info_log(program));
            }
        }
        for shader in shaders {
            gl.detach_shader(program, shader);
            gl.delete_shader(shader);
        }
        if let Some(why) = why {
            gl.delete_program(program);
            return Err(why);
        }
        let at = |name: &str| gl.get_uniform_location(program, name);
        // The samplers never change: each plane has its unit.
        gl.use_program(Some(program));
        for (unit, name) in (0..).zip(["u_y", "u_u", "u_v"]) {
            gl.uniform_1_i32(at(name).as_ref(), unit);
        }
        Ok(Program {
            name: program,
            size: at("u_size"),
            dest: at("u_dest"),
            source: at("u_source"),
            back: at("u_back"),
            light: at("u_light"),
            corner: at("u_corner"),
            shrunk: at("u_shrunk"),
        })
    }
}

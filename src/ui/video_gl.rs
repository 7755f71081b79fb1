//! Tiles by the graphics card: three one-byte textures per stream, converted to RGB in the fragment shader,
//! with rounded corners and dimming done there too. A plane is uploaded only when its slot has a new picture.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egui::{Color32, Rect};
use egui_glow::glow::{self, HasContext as _};

use super::layout::Fit;
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
    program: Option<Program>,
    /// Compiling failed once: not tried on every frame.
    failed: bool,
    surfaces: HashMap<String, Surface>,
    /// Textures of streams that are gone, deleted at the next chance.
    dead: Vec<glow::Texture>,
}

struct Surface {
    planes: [glow::Texture; 3],
    size: (u32, u32),
    version: u64,
}

struct Program {
    program: glow::Program,
    vertex_array: Option<glow::VertexArray>,
    /// Internal and external format of a one-byte texture.
    format: (i32, u32),
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
                lock(&inner).paint(painter.gl(), &key, version, &frame, info.pixels_per_point, rect, look);
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
                dead.extend(surface.planes);
            }
            keep
        });
    }

    /// Frees everything; the context is current while the window closes.
    pub fn destroy(&self, gl: &glow::Context) {
        let inner = &mut *lock(&self.inner);
        inner.dead.extend(inner.surfaces.drain().flat_map(|(_, s)| s.planes));
        // SAFETY: called from eframe's on_exit with its own current context; every name below was created by that context
        // and is dropped from our books here, so none is deleted twice.
        unsafe {
            for texture in inner.dead.drain(..) {
                gl.delete_texture(texture);
            }
            if let Some(program) = inner.program.take() {
                gl.delete_program(program.program);
                if let Some(vertex_array) = program.vertex_array {
                    gl.delete_vertex_array(vertex_array);
                }
            }
        }
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
        ppp: f32,
        rect: Rect,
        look: Look,
    ) {
        for texture in self.dead.drain(..) {
            // SAFETY: the painter's context is current inside a paint callback, and the name left our books just now.
            unsafe { gl.delete_texture(texture) };
        }
        if self.program.is_none() && !self.failed {
            match compile(gl) {
                Ok(program) => self.program = Some(program),
                Err(why) => {
                    tracing::error!(%why, "video shader does not compile; tiles stay empty");
                    self.failed = true;
                }
            }
        }
        let Some(program) = &self.program else { return };
        let (w, h) = (frame.width, frame.height);
        let chroma = (w / 2) as usize * (h / 2) as usize;
        if frame.y.len() < w as usize * h as usize || frame.u.len() < chroma || frame.v.len() < chroma {
            return;
        }
        let known = self.surfaces.get(key).map(|s| (s.size, s.version));
        if known.is_none_or(|(size, _)| size != (w, h)) {
            if let Some(old) = self.surfaces.remove(key) {
                self.dead.extend(old.planes);
            }
            let Some(planes) = new_planes(gl, program.format, w, h) else { return };
            self.surfaces.insert(key.to_owned(), Surface { planes, size: (w, h), version: u64::MAX });
        }
        let Some(surface) = self.surfaces.get_mut(key) else { return };
        // SAFETY: inside a paint callback the context is current. Each upload reads exactly width × height bytes of a slice that
        // was checked above to hold them (unpack alignment 1, no offset into a buffer). All names come from this context.
        // What egui's painter relies on afterwards is put back: active texture unit 0, no program of ours left bound that it
        // would not replace, unpack alignment 4.
        unsafe {
            if surface.version != version {
                gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 1);
                let planes = [(&frame.y, w, h), (&frame.u, w / 2, h / 2), (&frame.v, w / 2, h / 2)];
                for (texture, (bytes, pw, ph)) in surface.planes.iter().zip(planes) {
                    gl.bind_texture(glow::TEXTURE_2D, Some(*texture));
                    gl.tex_sub_image_2d(
                        glow::TEXTURE_2D,
                        0,
                        0,
                        0,
                        pw as i32,
                        ph as i32,
                        program.format.1,
                        glow::UNSIGNED_BYTE,
                        glow::PixelUnpackData::Slice(Some(bytes)),
                    );
                }
                gl.pixel_store_i32(glow::UNPACK_ALIGNMENT, 4);
                surface.version = version;
            }
            gl.use_program(Some(program.program));
            for (unit, (texture, name)) in surface.planes.iter().zip(["u_y", "u_u", "u_v"]).enumerate() {
                gl.active_texture(glow::TEXTURE0 + unit as u32);
                gl.bind_texture(glow::TEXTURE_2D, Some(*texture));
                gl.uniform_1_i32(gl.get_uniform_location(program.program, name).as_ref(), unit as i32);
            }
            let at = |name: &str| gl.get_uniform_location(program.program, name);
            let d = look.fit.dest;
            let [left, top, right, bottom] = look.fit.source;
            let (left, right) = if look.mirror { (right, left) } else { (left, right) };
            let back = look.back;
            let channel = |c: u8| f32::from(c) / 255.0;
            gl.uniform_2_f32(at("u_size").as_ref(), rect.width() * ppp, rect.height() * ppp);
            gl.uniform_4_f32(at("u_dest").as_ref(), d.x * ppp, d.y * ppp, d.w * ppp, d.h * ppp);
            gl.uniform_4_f32(at("u_source").as_ref(), left, top, right, bottom);
            gl.uniform_3_f32(at("u_back").as_ref(), channel(back.r()), channel(back.g()), channel(back.b()));
            gl.uniform_1_f32(at("u_light").as_ref(), look.light);
            gl.uniform_1_f32(at("u_corner").as_ref(), look.corner * ppp);
            gl.bind_vertex_array(program.vertex_array);
            gl.draw_arrays(glow::TRIANGLE_STRIP, 0, 4);
            gl.bind_vertex_array(None);
            gl.active_texture(glow::TEXTURE0);
        }
    }
}

fn new_planes(gl: &glow::Context, format: (i32, u32), w: u32, h: u32) -> Option<[glow::Texture; 3]> {
    let make = |w: u32, h: u32| {
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
            gl.tex_image_2d(
                glow::TEXTURE_2D,
                0,
                format.0,
                w as i32,
                h as i32,
                0,
                format.1,
                glow::UNSIGNED_BYTE,
                glow::PixelUnpackData::Slice(None),
            );
            Some(texture)
        }
    };
    Some([make(w, h)?, make(w / 2, h / 2)?, make(w / 2, h / 2)?])
}

/// The four corners come from the vertex number; systems whose shading language has none are refused with a message.
const VERTEX: &str = "
out vec2 v_at;
uniform vec2 u_size;
void main() {
    vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
    v_at = corner * u_size;
    gl_Position = vec4(corner.x * 2.0 - 1.0, 1.0 - corner.y * 2.0, 0.0, 1.0);
}
";

/// When a picture is shrunk more than twofold, plain linear sampling blurs and flickers text: four taps average the area.
const FRAGMENT: &str = "
precision highp float;
in vec2 v_at;
out vec4 color;
uniform sampler2D u_y;
uniform sampler2D u_u;
uniform sampler2D u_v;
uniform vec2 u_size;
uniform vec4 u_dest;
uniform vec4 u_source;
uniform vec3 u_back;
uniform float u_light;
uniform float u_corner;
void main() {
    vec2 part = (v_at - u_dest.xy) / u_dest.zw;
    vec3 rgb = u_back;
    if (part.x >= 0.0 && part.y >= 0.0 && part.x <= 1.0 && part.y <= 1.0) {
        vec2 uv = mix(u_source.xy, u_source.zw, part);
        vec2 tap = abs(u_source.zw - u_source.xy) / u_dest.zw * 0.25;
        float luma = 0.25 * (texture(u_y, uv + tap).r + texture(u_y, uv - tap).r
            + texture(u_y, uv + vec2(tap.x, -tap.y)).r + texture(u_y, uv + vec2(-tap.x, tap.y)).r);
        float y = 1.164383 * (luma - 0.0627451);
        float u = texture(u_u, uv).r - 0.5019608;
        float v = texture(u_v, uv).r - 0.5019608;
        rgb = clamp(vec3(y + 1.596027 * v, y - 0.391762 * u - 0.812968 * v, y + 2.017232 * u), 0.0, 1.0);
        rgb *= u_light;
    }
    vec2 from_center = abs(v_at - u_size * 0.5) - (u_size * 0.5 - vec2(u_corner));
    float outside = length(max(from_center, 0.0)) + min(max(from_center.x, from_center.y), 0.0) - u_corner;
    float alpha = clamp(0.5 - outside, 0.0, 1.0);
    color = vec4(rgb * alpha, alpha);
}
";

fn compile(gl: &glow::Context) -> Result<Program, String> {
    let version = egui_glow::ShaderVersion::get(gl);
    if !version.is_new_shader_interface() {
        return Err("needs OpenGL 3.0 or OpenGL ES 3.0".to_owned());
    }
    // SAFETY: the context is current; shaders and program are deleted on every path on which they are not kept.
    unsafe {
        let program = gl.create_program()?;
        let mut shaders = Vec::new();
        let mut why = None;
        for (kind, source) in [(glow::VERTEX_SHADER, VERTEX), (glow::FRAGMENT_SHADER, FRAGMENT)] {
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
        // A core profile draws nothing without a vertex array, even an empty one.
        let vertex_array = gl.create_vertex_array().ok();
        Ok(Program { program, vertex_array, format: (glow::R8 as i32, glow::RED) })
    }
}
